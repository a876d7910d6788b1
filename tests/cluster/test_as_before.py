"""Targets that were not whole before, or lose readiness at a stop: safety goes on, and the end is as it was before."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness import Lab, until
from shell import Shell
from subjects import DeploymentSubject, PairSubject, StatefulSetSubject, Subject

STUCK = {"minReady": "0s", "deadline": "4s"}
BAD: dict[type[Subject], dict[str, Any]] = {
    DeploymentSubject: {"maxSurge": 1},
    PairSubject: {"maxSurge": 1},
    StatefulSetSubject: {"maxUnavailable": 1},
}


def ready(lab: Lab, name: str, version: str = "") -> int:
    """How many pods are Ready."""
    pods = lab.pods(name, version)
    return sum(any(c.type == "Ready" and c.status == "True" for c in p.status.conditions or []) for p in pods)


async def broken_one(lab: Lab, name: str) -> str:
    """Let one old pod lose its readiness for good; return its name."""
    pod, before = lab.pods(name, "chat:1")[0].metadata.name, ready(lab, name)
    lab.relabel(pod, "never-ready")
    await until("one is not ready", lambda: ready(lab, name) == before - 1)
    return str(pod)


async def test_the_way_back_ends_as_it_was_before(served: Lab) -> None:
    """With one old replica broken before, a bad version is rolled back to what was ready, and a good one follows."""

    async def one(kind: type[Subject]) -> None:
        name = kind.kind.lower()
        await kind(served, name).create(3)
        await broken_one(served, name)
        change = kind.changed(2, "never-ready")
        async with served.rolled(name, change, kind=kind, strategy=BAD[kind], readiness=STUCK) as case:
            kept = f"keep at least {2 - BAD[kind].get('maxUnavailable', 0)} ready, and end with 2 or more"
            warning = f"only 2 of 3 replicas are ready now: the rollout and a rollback {kept}"
            assert warning in (await case.run.plan()).warnings
            await case.ends("RolledBack")
            assert ready(served, name, "chat:1") >= 2
        async with served.rolled(name, kind=kind, strategy=BAD[kind]) as case:
            await case.ends("Completed")
            assert ready(served, name, "chat:2") == 3

    await asyncio.gather(*map(one, BAD))


async def test_a_good_version_goes_over_a_stuck_way_back(served: Lab) -> None:
    """An old replica breaks in the middle of a bad version: the way back needs a person, and a retarget goes on."""
    change = DeploymentSubject.changed(2, "never-ready")
    async with served.case("chat", 3, change, readiness={"minReady": "0s", "deadline": "6s"}) as case:
        await case.reaches(3, 1, ready=False)
        broken = await broken_one(served, "chat")
        status = await case.run.until("it needs a person", lambda s: s.phase == "NeedsHuman")
        assert broken in status.reason, status.reason
        good = {"images": {"server": "example/chat:3"}}
        await case.run.send("retarget", change=good, onto_baseline=True)
        await case.ends("Completed")
        assert ready(served, "chat", "chat:3") == 3


async def test_readiness_lost_at_a_stop_is_made_good(served: Lab) -> None:
    """New replicas turn unready while a person decides: old ones come back to the floor, and then it rolls back."""

    async def one(kind: type[Subject]) -> None:
        name = kind.kind.lower()
        strategy = {"maxSurge": 4, "step": 2, "waypoints": [{"at": 3, "approval": True}]}
        readiness = {"minReady": "0s", "deadline": "8s"}
        async with served.case(name, 4, kind=kind, strategy=strategy, readiness=readiness) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await case.reaches(2, 3)
            for pod in served.pods(name, "chat:2"):
                served.relabel(pod.metadata.name, "never-ready")
            await until("the old ones serve again", lambda: ready(served, name, "chat:1") == 4)
            assert (await case.run.status()).phase == "AwaitingApproval"
            await case.ends("RolledBack")

    await asyncio.gather(one(DeploymentSubject), one(PairSubject))


async def test_replicas_that_were_starting_are_expected_on_the_way_back(served: Lab) -> None:
    """Of 4, 2 were starting: 4 stay ready on the way back. If it makes no progress with them, it ends with 2."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 3, "approval": True}]}
    readiness = {"minReady": "0s", "deadline": "15s"}

    async def two_start(name: str, kind: type[Subject]) -> None:
        await kind(served, name).create(4, ready_after="5s")
        for pod in served.pods(name)[:2]:
            served.core.delete_namespaced_pod(pod.metadata.name, served.namespace)
        await until("two start", lambda: len(served.pods(name)) == 4 and ready(served, name) == 2)

    async def two_never_start(name: str, kind: type[Subject]) -> None:
        await kind(served, name).create(4, mode="never-ready")
        pods = await until("all exist", lambda: found if len(found := served.pods(name)) == 4 else None)
        for pod in pods[:2]:
            served.relabel(pod.metadata.name, "ready")
        await until("two are ready", lambda: ready(served, name) == 2)

    async def one(kind: type[Subject], begin: Callable[[str, type[Subject]], Awaitable[None]], least: int) -> None:
        name = f"{kind.kind.lower()}-{least}"
        await begin(name, kind)
        change = kind.changed(2, "ready")
        async with served.rolled(name, change, kind=kind, strategy=strategy, readiness=readiness) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await until("all are ready", lambda: ready(served, name) >= 4)
            back = case.watcher.mark()
            await case.run.send("abort", reason="a test")
            report = await case.ends("Aborted")
        assert any(entry.what == "floor lowered" for entry in report.entries) == (least == 2)
        case.watcher.assert_within(least, 5, since=back, passing=1)
        assert ready(served, name, "chat:1") == least

    kinds = DeploymentSubject, PairSubject
    await asyncio.gather(
        *(one(kind, two_start, 4) for kind in kinds), *(one(kind, two_never_start, 2) for kind in kinds)
    )


async def test_what_was_lost_at_the_full_ceiling_makes_room_at_once(served: Lab, tmp_path: Path) -> None:
    """No old replica can be added before the failure; after it, all of them load together, and not one by one."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": "100%", "approval": True}]}

    async def one(name: str, kind: type[Subject], deadline: str, *, released: bool = False) -> None:
        readiness, slow = {"minReady": "0s", "deadline": deadline}, {"ready_after": "1s"}
        async with served.case(name, 4, kind=kind, target=slow, strategy=strategy, readiness=readiness) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await case.reaches(1, 4)
            lost = case.watcher.mark()
            for pod in served.pods(name, "chat:2"):
                served.relabel(pod.metadata.name, "never-ready")
            if released:
                await until("they are lost", lambda: ready(served, name, "chat:2") == 0)
                await case.run.handle.terminate("by a person")
                await Shell(served, tmp_path).run("release", f"{served.namespace}/{name}")
            else:
                await case.ends("RolledBack")
        versions = [each for sample in case.watcher.samples[lost:] for each in sample.by_image]
        assert max(total - up for name, total, up in versions if name.startswith("example/chat:1 ")) == 3
        case.watcher.assert_within(1, 5, passing=3)

    await asyncio.gather(
        one("one", DeploymentSubject, "4s"),
        one("pair", PairSubject, "4s"),
        one("released", DeploymentSubject, "10m", released=True),
    )
