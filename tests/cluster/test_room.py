"""Where a surge finds no room: what is done instead, what is said, and that it never hangs in silence."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from harness import ROOT, Case, Lab, until
from kubernetes import client
from segue_local import Stack, parts

GPU = "nvidia.com/gpu"


@pytest.fixture
def counting(stack: Stack, served: Lab) -> Iterator[None]:
    """The worker may list nodes and all pods."""
    rbac = client.RbacAuthorizationV1Api(served.core.api_client)
    role, binding = yaml.safe_load_all((ROOT / "deploy/rbac-room.yaml").read_text())
    rbac.create_cluster_role(role)
    rbac.create_cluster_role_binding(binding)
    yield
    rbac.delete_cluster_role_binding(binding["metadata"]["name"])
    rbac.delete_cluster_role(role["metadata"]["name"])


@pytest.fixture
def nodes(served: Lab) -> Iterator[Any]:
    """Makes a fake node with so many accelerators, for the replicas of one target only."""
    made: list[str] = []

    def make(target: str, gpus: int) -> dict[str, Any]:
        name = f"{served.namespace}-{target}"
        amounts = {"cpu": "8", "memory": "64Gi", "pods": "20", GPU: str(gpus)}
        body: Any = parts.node(name, 100 + len(made), amounts)
        body["metadata"]["labels"]["only"] = name
        body["spec"] = {**body.get("spec", {}), "taints": [{"key": "only", "value": name, "effect": "NoSchedule"}]}
        served.core.create_node(body)
        made.append(name)
        toleration = {"key": "only", "value": name, "operator": "Equal", "effect": "NoSchedule"}
        return {"pod": {"nodeSelector": {"only": name}, "tolerations": [toleration]}, "container": ONE_GPU}

    yield make
    for name in made:
        served.core.delete_node(name)


ONE_GPU = {"resources": {"limits": {GPU: "1"}}}


def more(lab: Lab, target: str, gpus: int) -> None:
    """Give a target's node more accelerators."""
    amounts = {"capacity": {GPU: str(gpus)}, "allocatable": {GPU: str(gpus)}}
    lab.core.patch_node_status(f"{lab.namespace}-{target}", {"status": amounts})


async def held(case: Case) -> str:
    """Wait until it holds for room, and return what it says that it waits for."""
    status = await case.run.until("it holds for room", lambda s: s.phase == "Held")
    assert status.needs_person and {"abort", "retarget"} <= set(status.can)
    return status.waiting_for


async def test_what_is_counted_is_told_and_done(served: Lab, counting: None, nodes: Any) -> None:
    """No accelerator is spare: with a budget for it old ones go first, else it holds until there is one."""

    async def one_replica() -> None:
        target = nodes("one", 1)
        async with served.case("one", 1, target=target, strategy={"maxSurge": "25%", "maxUnavailable": "25%"}) as case:
            (told,) = [w for w in (await case.run.plan()).warnings if "room" in w]
            lacks = "0 of 1 nvidia.com/gpu free on the 1 node that may take it, and it asks nvidia.com/gpu 1"
            holds = "and maxUnavailable 0 lets no old one go first: it will hold until there is room"
            assert told == f"there is no room to add a replica ({lacks}), {holds}"
            assert "room: 0 of 1 nvidia.com/gpu free" in await held(case)
            assert len(served.pods("one")) == 1, "nothing is asked for that finds no place"
            more(served, "one", 2)
            report = await case.ends("Completed")
        case.watcher.assert_within(1, 2)
        assert [e.detail for e in report.entries if e.what == "goes on"] == ["room: there is some again"]

    async def old_first() -> None:
        target = nodes("two", 2)
        async with served.case("two", 2, target=target, strategy={"maxSurge": 1, "maxUnavailable": 1}) as case:
            (told,) = [w for w in (await case.run.plan()).warnings if "room" in w]
            assert told.endswith("old ones go first, up to 1 at once, as with scaleInPriority")
            report = await case.ends("Completed")
        case.watcher.assert_within(1, 2, passing=1)
        scaled = [e.detail for e in report.entries if e.what == "scaled"]
        assert "old 2→1, new 0→1; only 2 find a place: 0 of 2 nvidia.com/gpu free" in scaled[0]

    async def some() -> None:
        target = nodes("four", 5)
        async with served.case("four", 4, target=target, strategy={"maxSurge": 2}) as case:
            assert any("there is room for 1 of the 2 replicas" in w for w in (await case.run.plan()).warnings)
            await case.ends("Completed")
        case.watcher.assert_within(4, 5)

    await asyncio.gather(one_replica(), old_first(), some())


async def test_what_stays_pending_tells_it_too(served: Lab, nodes: Any) -> None:
    """A worker that may not count learns it from the scheduler, and does and says the same."""

    async def holds() -> None:
        async with served.case("one", 1, target=nodes("one", 1), strategy={}) as case:
            said = await held(case)
            assert said.startswith("room: Unschedulable: one-") and "Insufficient nvidia.com/gpu" in said
            assert said.endswith("no old replica may go first (at least 1 must serve)")
            more(served, "one", 2)
            await case.ends("Completed")
        case.watcher.assert_within(1, 2)

    async def back() -> None:
        async with served.case("back", 1, target=nodes("back", 1), strategy={}) as case:
            await held(case)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(1, 2)

    async def old_first() -> None:
        target = nodes("two", 2)
        async with served.case("two", 2, target=target, strategy={"maxSurge": 1, "maxUnavailable": 1}) as case:
            report = await case.ends("Completed")
        case.watcher.assert_within(1, 3)
        first, second, *_ = [e.detail for e in report.entries if e.what == "scaled"]
        assert first.startswith("new 0→1") and "old 2→1; only 2 find a place: Unschedulable: " in second
        assert not [e for e in report.entries if e.detail.startswith("room: ")], "it never had to hold"
        assert any(e.what == "lint not asked" and e.detail.startswith("surge-does-not-fit: ") for e in report.entries)

    async def never() -> None:
        # In the place of an old one it finds none either: that is the version, and it goes back.
        target = nodes("big", 2)
        change = {"resources": {"server": {"limits": {GPU: "3"}}}}
        readiness = {"minReady": "0s", "deadline": "15s"}
        budget = {"maxSurge": 1, "maxUnavailable": 1}
        async with served.case("big", 2, change, target=target, strategy=budget, readiness=readiness) as case:
            report = await case.ends("RolledBack")
        assert report.status.reason.startswith("Unschedulable: big-")
        case.watcher.assert_within(1, 3)

    await asyncio.gather(holds(), back(), old_first(), never())


async def test_a_quota_without_room(served: Lab) -> None:
    """What a quota leaves is counted with a worker's ordinary rights; it goes on when there is more."""
    await served.deploy("chat", 2)
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "2"}}}
    served.core.create_namespaced_resource_quota(served.namespace, quota)
    await until("the quota counts", lambda: served.quota_used("full").get("pods") == "2")
    async with served.rolled("chat") as case:
        assert "room: the ResourceQuota full has room for 0 more" in await held(case)
        assert len(served.pods("chat")) == 2
        served.core.patch_namespaced_resource_quota("full", served.namespace, {"spec": {"hard": {"pods": "3"}}})
        await case.ends("Completed")
    case.watcher.assert_within(2, 3)
