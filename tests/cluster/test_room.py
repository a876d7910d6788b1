"""Where a surge finds no room: what is done instead, what the status says, and that it never hangs in silence."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import pytest
import yaml
from harness import PATIENT, ROOT, Case, Lab, open_lab, until
from kube_api import create
from kubernetes import client
from segue_local import Stack, parts
from subjects import SUBJECTS, Subject
from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.cluster import Cluster
from activities.rollout import Activities
from segue.clusters import Access
from segue.contract import Beat, PrepareInput

GPU = "nvidia.com/gpu"


@pytest.fixture
async def counted(stack: Stack) -> AsyncIterator[Lab]:
    """An empty namespace, whose worker (and no other of the cluster) may list nodes and all pods."""
    async with open_lab(stack) as lab:
        rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
        role, binding = yaml.safe_load_all((ROOT / "deploy/rbac-room.yaml").read_text())
        role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = lab.namespace
        binding["subjects"] = [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": lab.namespace}]
        rbac.create_cluster_role(role)
        rbac.create_cluster_role_binding(binding)
        lab.worker(KUBECONFIG=str(lab.stack.kubeconfig_for("segue-worker", [lab.namespace])))
        yield lab
        rbac.delete_cluster_role_binding(lab.namespace)
        rbac.delete_cluster_role(lab.namespace)


@pytest.fixture
def nodes() -> Iterator[Any]:
    """Makes a fake node with so many accelerators, for the replicas of one target only."""
    made: dict[str, Lab] = {}

    def make(lab: Lab, target: str, gpus: int) -> dict[str, Any]:
        name = f"{lab.namespace}-{target}"
        amounts = {"cpu": "8", "memory": "64Gi", "pods": "20", GPU: str(gpus)}
        body: Any = parts.node(name, 100 + len(made), amounts)
        body["metadata"]["labels"]["only"] = name
        body["spec"] = {**body.get("spec", {}), "taints": [{"key": "only", "value": name, "effect": "NoSchedule"}]}
        lab.core.create_node(body)
        made[name] = lab
        toleration = {"key": "only", "value": name, "operator": "Equal", "effect": "NoSchedule"}
        return {"pod": {"nodeSelector": {"only": name}, "tolerations": [toleration]}, "container": ONE_GPU}

    yield make
    for name, lab in made.items():
        lab.core.delete_node(name)


ONE_GPU = {"resources": {"limits": {GPU: "1"}}}


def more(lab: Lab, target: str, gpus: int) -> None:
    """Give a target's node more accelerators."""
    amounts = {"capacity": {GPU: str(gpus)}, "allocatable": {GPU: str(gpus)}}
    lab.core.patch_node_status(f"{lab.namespace}-{target}", {"status": amounts})


async def waiting_for_room(case: Case) -> str:
    """Wait until it holds for room, and return what it says that it waits for."""
    status = await case.run.until("it holds for room", lambda s: s.phase == "Held")
    assert status.needs_person and {"abort", "retarget"} <= set(status.can)
    return status.waiting_for


async def warnings_of(case: Case) -> list[str]:
    """What the plan says of room."""
    return [w for w in (await case.run.plan()).warnings if "room" in w]


Kind = type[Subject]
LED = pytest.mark.parametrize("kind", [pytest.param(SUBJECTS[n], id=n) for n in ("Deployment", "DeploymentPair")])
"""The kinds whose surge is requested replica by replica: the counted room decides."""
LED_SELDOM = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(SUBJECTS["Deployment"], id="Deployment"),
        pytest.param(SUBJECTS["DeploymentPair"], id="DeploymentPair", marks=pytest.mark.soak),
    ],
)
"""The same, where `make test` leaves the second kind out, as its replicas are asked for in the same way."""


class _CountsLists(Cluster):
    """Records what is listed, in which namespace."""

    listed: ClassVar[list[tuple[str, str]]] = []

    async def list(self, kind: str, namespace: str, selector: str = "") -> dict[str, Any]:
        self.listed.append((kind, namespace))
        return await super().list(kind, namespace, selector)

    async def pages(self, kind: str, namespace: str = "", fields: str = "") -> AsyncIterator[dict[str, Any]]:
        self.listed.append((kind, namespace))
        async for page in super().pages(kind, namespace, fields):
            yield page


async def test_a_start_lists_no_pods_of_the_cluster_once_the_summary_stands(lab: Lab, nodes: Any) -> None:
    """One list serves all starts. The watch then follows the pods, and each start counts what is free at that time."""
    settings = nodes(lab, "chat", 4)
    await lab.deploy("chat", 2, **settings)
    spec = lab.rollout("chat", strategy={"maxSurge": 2}).spec
    start = PrepareInput(target=spec.target, owner="a@1", change=spec.change, rules=spec.rules, accept=spec.accept)
    cluster = await _CountsLists.connect(Access(kubeconfig=str(lab.stack.kubeconfig)))
    activities = Activities(cluster)

    async def warned(part: str) -> bool:
        return any(part in warning for warning in (await activities.prepare(start)).warnings)

    try:
        await asyncio.gather(*(activities.prepare(start) for _ in range(10)))
        assert not await warned("room")
        await lab.deploy("other", 1, **settings)
        await until("one place is left", lambda: warned("there is room for 1 of the 2 replicas"))
        lab.apps.delete_namespaced_deployment("other", lab.namespace)
        await until("both are free again", lambda: _not(warned("room")))
        cluster_wide = [kind for kind, namespace in cluster.listed if not namespace and kind != "priorityclasses"]
        assert sorted(cluster_wide) == ["nodes", "pods"]
    finally:
        await activities.close()
        await cluster.close()


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer


@LED
async def test_what_is_counted_is_told_and_done(counted: Lab, nodes: Any, kind: Kind) -> None:
    """No accelerator is spare: with a budget for it old ones go first, else it holds until there is one."""

    async def old_first() -> None:
        target, strategy = nodes(counted, "two", 2), {"maxSurge": 1, "maxUnavailable": 1}
        async with counted.case("two", 2, kind=kind, target=target, strategy=strategy) as case:
            (warning,) = await warnings_of(case)
            assert warning.endswith("old ones go first, up to 1 at once, as with scaleInPriority")
            report = await case.ends("Completed")
        case.watcher.assert_within(1, 2, passing=1)
        scaled = [e.detail for e in report.entries if e.what == "scaled"]
        assert "old 2→1, new 0→1; room for only 2 in total: 0 of 2 nvidia.com/gpu free" in scaled[0]

    async def some() -> None:
        target = nodes(counted, "four", 5)
        async with counted.case("four", 4, kind=kind, target=target, strategy={"maxSurge": 2}) as case:
            assert any("there is room for 1 of the 2 replicas" in warning for warning in await warnings_of(case))
            await case.ends("Completed")
        case.watcher.assert_within(4, 5)

    async def more_than_before() -> None:
        """It is the new version's demand that counts: two for each where there was one."""
        change = {"resources": {"server": {"limits": {GPU: "2"}}}}
        target = nodes(counted, "twice", 3)
        async with counted.case("twice", 2, change, kind=kind, target=target, strategy={"maxSurge": 1}) as case:
            (warning,) = await warnings_of(case)
            assert "1 of 3 nvidia.com/gpu free" in warning and "it requests nvidia.com/gpu 2" in warning
            assert "Insufficient nvidia.com/gpu" in await waiting_for_room(case)
            assert len(counted.pods("twice")) == 3, "one stays pending, for an autoscaler of nodes"
            more(counted, "twice", 5)
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    async def one_on_each_node() -> None:
        """Its host port, and its anti-affinity to its own kind, leave no place although nothing else is short."""
        target = nodes(counted, "apart", 4)
        ports = [{"containerPort": 8000, "hostPort": 8000}]
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}
        target["pod"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        target["container"] = {"ports": ports}
        strategy = {"maxSurge": 1, "maxUnavailable": 1}
        async with counted.case("apart", 1, kind=kind, target=target, strategy=strategy) as case:
            (warning,) = await warnings_of(case)
            place = f"a place without another pod of {counted.namespace} with app=apart (podAntiAffinity)"
            taken = f"{place} and hostPort 8000/TCP are free on none of the 1 node that may run it"
            assert warning.startswith(f"there is no room to add a replica ({taken}): old ones go first")
            report = await case.ends("Completed")
        assert any("old 1→0, new 0→1; room for only 1 in total" in entry.detail for entry in report.entries)
        case.watcher.assert_within(0, 1, passing=1)

    await asyncio.gather(old_first(), some(), more_than_before(), one_on_each_node())


@LED_SELDOM
async def test_what_stays_pending_tells_it_too(served: Lab, nodes: Any, kind: Kind) -> None:
    """A worker that may not count learns it from the scheduler, and does and says the same."""

    async def holds() -> None:
        async with served.case("one", 1, kind=kind, target=nodes(served, "one", 1), strategy={}) as case:
            reason = await waiting_for_room(case)
            assert reason.startswith("room: Unschedulable: one-") and "Insufficient nvidia.com/gpu" in reason
            assert reason.endswith("cannot remove an old replica first: 1 must stay ready")
            more(served, "one", 2)
            await case.ends("Completed")
        case.watcher.assert_within(1, 2)

    async def back() -> None:
        async with served.case("back", 1, kind=kind, target=nodes(served, "back", 1), strategy={}) as case:
            await waiting_for_room(case)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(1, 2)

    async def old_first() -> None:
        target, strategy = nodes(served, "two", 2), {"maxSurge": 1, "maxUnavailable": 1}
        async with served.case("two", 2, kind=kind, target=target, strategy=strategy) as case:
            report = await case.ends("Completed")
        case.watcher.assert_within(1, 3)
        first, second, *_ = [e.detail for e in report.entries if e.what == "scaled"]
        assert first.startswith("new 0→1") and "old 2→1; room for only 2 in total: Unschedulable: " in second
        assert not [e for e in report.entries if e.detail.startswith("room: ")], "it never had to hold"
        assert any(e.what == "lint not checked" and e.detail.startswith("surge-does-not-fit: ") for e in report.entries)

    async def never() -> None:
        # In the place of an old one it finds none either: that is the version, and it goes back.
        target = nodes(served, "big", 2)
        change = {"resources": {"server": {"limits": {GPU: "3"}}}}
        given = {"strategy": {"maxSurge": 1, "maxUnavailable": 1}, "readiness": {"minReady": "0s", "deadline": "15s"}}
        async with served.case("big", 2, change, kind=kind, target=target, **given) as case:
            report = await case.ends("RolledBack")
        assert report.status.reason.startswith("Unschedulable: big-")
        case.watcher.assert_within(1, 3)

    await asyncio.gather(holds(), back(), old_first(), never())


@LED_SELDOM
async def test_what_stops_slowly_sets_its_place_free_late(served: Lab, nodes: Any, kind: Kind) -> None:
    """No deadline runs while an old replica that stops still has the accelerator; the text says what it waits for."""
    target = nodes(served, "slow", 1)
    target["pod"] |= {"terminationGracePeriodSeconds": 20}
    given: dict[str, Any] = {
        "strategy": {"maxSurge": 0, "maxUnavailable": 1},
        "readiness": PATIENT,
        "target": {**target, "annotations": {"segue.dev/stop-after": "12s"}},
    }
    async with served.case("slow", 1, kind=kind, **given) as case:
        await until(
            "it says what it waits for",
            lambda: _says(case, "to stop and free the resources", "Insufficient nvidia.com/gpu"),
        )
        await case.ends("Completed")
    case.watcher.assert_within(0, 1)


@LED_SELDOM
async def test_what_never_goes_keeps_its_place(served: Lab, nodes: Any, kind: Kind) -> None:
    """A finalizer keeps an old pod, and its accelerator: held past the deadline, and named; back the same."""
    stops = {"pod": {"terminationGracePeriodSeconds": 1}}
    given: dict[str, Any] = {
        "strategy": {"maxSurge": 0, "maxUnavailable": 1},
        "readiness": PATIENT,
    }

    def keep(name: str, by: list[str] | None) -> None:
        served.core.patch_namespaced_pod(name, served.namespace, {"metadata": {"finalizers": by}})

    async def one(name: str, *, back: bool) -> None:
        target = nodes(served, name, 1)
        target["pod"] |= stops["pod"]
        await kind(served, name).create(1, **target)
        pod = served.pods(name)[0].metadata.name
        keep(pod, ["example.org/keep"])
        told = f"{pod}: was to be gone by "
        async with served.rolled(name, kind=kind, **given) as case:
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert status.waiting_for.startswith(f"room: {told}"), status.waiting_for
            assert status.waiting_for.endswith("; its finalizers keep it: example.org/keep"), status.waiting_for
            if back:
                await case.run.send("abort")
                status = await case.run.until("it needs a person", lambda s: s.phase == "NeedsHuman")
                assert "Insufficient nvidia.com/gpu" in status.reason and told in status.reason, status.reason
            keep(pod, None)
            await case.ends("Aborted" if back else "Completed")
        case.watcher.assert_within(0, 1)

    await asyncio.gather(one("kept", back=False), one("back", back=True))


async def _says(case: Case, *words: str) -> bool:
    """Whether the watch's latest heartbeat has these words."""
    description = await case.run.handle.describe()
    payloads = [p.heartbeat_details.payloads for p in description.raw_description.pending_activities]
    beats = [beat for each in payloads if each for beat in await pydantic_data_converter.decode(each, [Beat])]
    return any(all(word in beat.why for word in words) for beat in beats)


@pytest.fixture
def classes(served: Lab) -> Iterator[tuple[str, str]]:
    """Two priority classes, the lower one first."""
    scheduling = client.SchedulingV1Api(served.core.api_client)
    names = (f"{served.namespace}-low", f"{served.namespace}-high")
    for value, name in enumerate(names, 1):
        create(scheduling.create_priority_class, {"metadata": {"name": name}, "value": 100 * value})
    yield names
    for name in names:
        scheduling.delete_priority_class(name)


def preempting(target: dict[str, Any], classes: tuple[str, str]) -> dict[str, Any]:
    """What is run in the lower class, and a change to the higher one."""
    target["pod"] |= {"priorityClassName": classes[0]}
    pod = {"priorityClassName": classes[1], "containers": [{"name": "server", "image": "example/chat:2"}]}
    return {"target": target, "change": {"patch": {"spec": pod}}, "strategy": {"maxSurge": 1}}


async def test_a_higher_priority_takes_no_ready_replica(counted: Lab, nodes: Any, classes: tuple[str, str]) -> None:
    """What would push an old replica from its node is not even pending; the status says so, until there is room."""
    async with counted.case("high", 2, **preempting(nodes(counted, "high", 2), classes)) as case:
        assert any("is pushed" in w or "priority" in w for w in (await case.run.plan()).warnings)
        assert "room: 0 of 2 nvidia.com/gpu free" in await waiting_for_room(case)
        assert len(counted.pods("high")) == 2
        more(counted, "high", 3)
        await case.ends("Completed")
    case.watcher.assert_within(2, 3)


async def test_without_a_count_a_higher_priority_is_refused(served: Lab, nodes: Any, classes: tuple[str, str]) -> None:
    """Nothing could hold it where it would happen; nothing is touched."""
    given = preempting(nodes(served, "high", 2), classes)
    await served.deploy("high", 2, **given.pop("target"))
    with served.watch("high") as watcher:
        run = await served.start("high", given.pop("change"), **given)
        with pytest.raises(WorkflowFailureError) as refused:
            await run.end()
    assert "preempts-old-replicas" in str(refused.value.cause)
    assert {s.ready for s in watcher.samples} == {2}


@LED
async def test_a_quota_without_room(served: Lab, kind: Kind) -> None:
    """What a quota leaves is counted with a worker's ordinary rights; it goes on when there is more."""
    await kind(served, "chat").create(2)
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "2"}}}
    create(served.core.create_namespaced_resource_quota, served.namespace, quota)
    await until("the quota counts", lambda: served.quota_used("full").get("pods") == "2")
    async with served.rolled("chat", kind=kind) as case:
        assert "room: the ResourceQuota full has room for 0 more" in await waiting_for_room(case)
        assert len(served.pods("chat")) == 2
        served.core.patch_namespaced_resource_quota("full", served.namespace, {"spec": {"hard": {"pods": "3"}}})
        await case.ends("Completed")
    case.watcher.assert_within(2, 3)


async def test_a_quota_that_cannot_be_counted(served: Lab) -> None:
    """One with scopes refuses the surge for longer than the deadline: that is a lack of room, and no fault."""
    kinds = {"one": SUBJECTS["Deployment"], "pair": SUBJECTS["DeploymentPair"]}
    await asyncio.gather(*(kind(served, name).create(2) for name, kind in kinds.items()))
    quota = {"metadata": {"name": "best"}, "spec": {"hard": {"pods": "4"}, "scopes": ["BestEffort"]}}
    create(served.core.create_namespaced_resource_quota, served.namespace, quota)
    await until("the quota counts", lambda: served.quota_used("best").get("pods") == "4")

    async def one(name: str, kind: Kind) -> None:
        async with served.rolled(name, kind=kind, readiness=PATIENT) as case:
            assert "exceeded quota: best" in await waiting_for_room(case)
            held.release()
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    held = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as running:
        for name, kind in kinds.items():
            running.create_task(one(name, kind))
        for _ in kinds:
            await held.acquire()
        served.core.delete_namespaced_resource_quota("best", served.namespace)


# --- one replica, and nothing spare: what each kind does, and says ------------------------------------------


async def _holds(case: Case) -> None:
    """It takes nothing away, says so before it begins and while it waits, and goes on when there is room."""
    lacks = "0 of 1 nvidia.com/gpu free on the 1 node that may run it; it requests nvidia.com/gpu 1"
    holds = "and maxUnavailable 0 lets no old one go first: the rollout will hold until there is room"
    assert await warnings_of(case) == [f"there is no room to add a replica ({lacks}), {holds}"]
    assert "Insufficient nvidia.com/gpu" in await waiting_for_room(case)
    assert len(case.lab.pods(case.name)) == 2, "one stays pending, for an autoscaler of nodes"
    more(case.lab, case.name, 2)
    report = await case.ends("Completed")
    assert [e.detail for e in report.entries if e.what == "continues"] == ["there is room again"]
    case.watcher.assert_within(1, 2)


async def _replaces(case: Case) -> None:
    """It goes in the place of the one that serves, and the plan says that nothing does meanwhile."""
    plan = await case.run.plan()
    assert "the floor is 0: the budget allows a time without any ready replica" in plan.warnings
    assert (plan.floor, plan.ceiling) == (0, 1)
    await case.ends("Completed")
    case.watcher.assert_within(0, 1)


async def _gives_up(case: Case) -> None:
    """Its own controller asks for the surge, which stays pending: a warning says so; it goes back at the deadline."""
    (warning,) = await warnings_of(case)
    assert warning.startswith("there is room for 0 of the 1 replicas of the surge (0 of 2 nvidia.com/gpu free")
    assert warning.endswith("; others stay pending")
    report = await case.ends("RolledBack")
    assert report.status.reason.startswith(f"Unschedulable: {case.name}-")
    assert "Insufficient nvidia.com/gpu" in report.status.reason
    case.watcher.assert_within(1, 2)


class Alone(NamedTuple):
    """What one replica of a kind asks for, and what comes of it where nothing is spare."""

    kind: str
    strategy: dict[str, Any]
    comes: Callable[[Case], Awaitable[None]]
    gpus: int = 1
    """What its one replica has; that of a group is for two pods."""


QUARTERS = {"maxSurge": "25%", "maxUnavailable": "25%"}
ALONE = {
    "Deployment": Alone("Deployment", QUARTERS, _holds),
    "DeploymentPair": Alone("DeploymentPair", QUARTERS, _holds),
    "StatefulSet": Alone("StatefulSet", {"maxUnavailable": "25%"}, _replaces),
    "LeaderWorkerSet": Alone("LeaderWorkerSet", QUARTERS, _gives_up, 2),
    "LeaderWorkerSet, held": Alone(
        "LeaderWorkerSet", {"maxUnavailable": "25%", "waypoints": [{"at": "100%"}]}, _replaces, 2
    ),
}


@pytest.mark.parametrize(
    ("kind", "alone"),
    [
        pytest.param(SUBJECTS[each.kind], each, id=name, marks=[pytest.mark.soak] if name == "LeaderWorkerSet" else [])
        for name, each in ALONE.items()
    ],
)
async def test_one_replica_and_no_spare(counted: Lab, nodes: Any, kind: Kind, alone: Alone) -> None:
    """By 25 %/25 % it does not hang: it holds, replaces, or goes back, and says which and why."""
    target = nodes(counted, "one", alone.gpus)
    soon = {"minReady": "0s", "deadline": "30s"}
    async with counted.case("one", 1, kind=kind, target=target, strategy=alone.strategy, readiness=soon) as case:
        await alone.comes(case)
