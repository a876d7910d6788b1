"""Versions that fail: each failure is recognized, named in the report, and rolled back without a person."""

import asyncio
from typing import Any

import pytest
from harness import Lab, until
from kube_api import create

from segue.status import Status


def version(mode: str = "ready", image: str = "example/chat:2", **annotations: str) -> dict[str, Any]:
    """A change to another image whose pods behave so."""
    delays = {f"segue.dev/{k}": v for k, v in annotations.items()}
    metadata = {"labels": {"segue.dev/fake": mode}, "annotations": delays}
    return {"patch": {"metadata": metadata, "spec": {"containers": [{"name": "server", "image": image}]}}}


SHORT = {"minReady": "0s", "deadline": "3s"}

FAILURES = {
    "image-pull": (version("image-pull"), {}, "ImagePull: ", ["image example/chat:2: ", "failed to resolve reference"]),
    "crash-loop": (version("crash-loop"), {}, "CrashLoop: ", ["ended with exit code 1"]),
    "oom": (
        version("oom", **{"fail-after": "100ms"}),
        {"minReady": "2s"},
        "OutOfMemory: ",
        ["killed for lack of memory"],
    ),
    "never-ready": (version("never-ready"), SHORT, "Unready: ", ["unready status: [server]", "no progress for 3 s"]),
}


async def test_failures_are_told_apart(served: Lab) -> None:
    """Each kind of failure is named with its pod in status and report; the target runs its baseline again."""

    async def one(name: str) -> None:
        change, readiness, cause, words = FAILURES[name]
        async with served.case(name, 2, change, readiness={"minReady": "0s", "deadline": "20s", **readiness}) as case:
            report = await case.ends("RolledBack")
            assert report.status.reason.startswith(cause), report.status.reason
            for word in words:
                assert word in report.status.reason
            (turned,) = [e for e in report.entries if e.what == "going back"]
            assert turned.detail == report.status.reason
            assert report.status.reason.partition(": ")[2].startswith(f"{name}-"), "the pod is named"
        case.watcher.assert_within(2, 3, passing=1)

    await asyncio.gather(*map(one, FAILURES))


async def test_no_pod_is_made_at_all(served: Lab) -> None:
    """A quota that lets no new pod be made holds the rollout past its deadline, and the old version is untouched."""
    await served.deploy("chat", 2, container={"resources": {"requests": {"cpu": "100m"}}})
    # One of a scope that the room for a surge is not counted by.
    classless = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "2"}, "scopeSelector": classless}}
    create(served.core.create_namespaced_resource_quota, served.namespace, quota)
    await until("the quota counts", lambda: served.quota_used("full").get("pods") == "2")
    with served.watch("chat") as watcher:
        run = await served.start("chat", strategy={"maxSurge": 1}, readiness=SHORT)
        await run.until("it holds", lambda status: status.phase == "Held" and "exceeded quota" in status.waiting_for)
        await run.send("abort")
        report = await run.end()
    assert report.status.outcome == "Aborted"
    assert {s.total for s in watcher.samples} == {2} == {s.ready for s in watcher.samples}


async def test_no_replica_set_is_made_at_all(served: Lab) -> None:
    """Only an event tells it: the quota is named, and the old version is untouched."""
    await served.deploy("chat", 1)
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"count/replicasets.apps": "1"}}}
    create(served.core.create_namespaced_resource_quota, served.namespace, quota)
    await until("the quota counts", lambda: served.quota_used("full").get("count/replicasets.apps") == "1")
    async with served.rolled("chat", readiness=SHORT) as case:
        report = await case.ends("RolledBack")
    assert "its controller says: ReplicaSetCreateError: " in report.status.reason
    assert "exceeded quota: full" in report.status.reason
    case.watcher.assert_within(1, 1)


@pytest.mark.parametrize("stage", [1, 2, 3, 4], ids="{} new".format)
async def test_rolled_back_at_each_stage(served: Lab, stage: int) -> None:
    """When a new pod starts to crash at a stage, the baseline comes back within the budget, but for that one pod."""
    waypoints = [{"at": n, "approval": True} for n in range(1, 5)]
    async with served.case("chat", strategy={"maxSurge": 1, "waypoints": waypoints}) as case:
        for new in range(1, stage + 1):

            def asks(status: Status, new: int = new) -> bool:
                return status.phase == "AwaitingApproval" and status.new.replicas == new

            await case.run.until("it asks", asks)
            if new < stage:
                await case.run.send("approve")
        await case.reaches(5 - stage, stage)
        broken = served.pods("chat", "chat:2")[0].metadata.name
        served.relabel(broken, "crash-loop")
        report = await case.ends("RolledBack")
        assert report.status.reason.startswith(f"CrashLoop: {broken}: ")
    case.watcher.assert_within(3, 5, passing=1)


async def test_a_failure_waits_for_a_person(served: Lab) -> None:
    """With onFailure: pause a bad version is held with the reason, until a person resumes, aborts or retargets."""

    async def one(name: str, way: str, outcome: str, image: str) -> None:
        async with served.case(name, 2, version("crash-loop"), onFailure="pause") as case:
            status = await case.run.until("it is held", lambda s: s.phase == "Held")
            assert status.reason.startswith(f"CrashLoop: {name}-")
            assert status.needs_person
            assert {"resume", "retarget", "abort"} <= set(status.can)
            if way == "retarget":
                good = {"change": {"images": {"server": "example/chat:3"}}, "onto_baseline": True}
                await case.run.send("retarget", **good)
            elif way == "abort":
                await case.run.send("abort")
            else:
                # Nothing got better: it is held again, for the same reason.
                await case.run.send("resume")
                again = await case.run.until("it is held again", lambda s: s.phase == "Held")
                assert again.reason.startswith(f"CrashLoop: {name}-")
                await case.run.send("abort")
            await case.ends(outcome)
            assert len(served.pods(name, image)) == 2 == len(served.pods(name))
        case.watcher.assert_within(2, 3, passing=1)

    await asyncio.gather(
        one("on", "resume", "Aborted", "chat:1"),
        one("back", "abort", "Aborted", "chat:1"),
        one("elsewhere", "retarget", "Completed", "chat:3"),
    )
