"""An admission policy changes what is written: the answer is the version from there on, and nothing is in a loop."""

import asyncio

import pytest
from harness import Lab, until
from mirroring import OF_GROUPS, mirrored
from subjects import DeploymentSubject, LeaderWorkerSetSubject, StatefulSetSubject, Subject

from segue.report import Report

MOST_WRITES = 12
STUCK = {"minReady": "0s", "deadline": "5s"}


def assert_few_writes(report: Report) -> None:
    lines = [f"{entry.what}: {entry.detail}" for entry in report.entries]
    assert report.writes <= MOST_WRITES, lines
    assert not any(entry.what == "needs a person" for entry in report.entries), lines


async def test_what_admission_makes_of_a_write_is_the_version(served: Lab) -> None:
    """Forward and back end with what the API server made of it, whenever the policy came."""

    async def bad(name: str, kind: type[DeploymentSubject | StatefulSetSubject]) -> None:
        change = kind.changed(2, "never-ready")
        async with served.rolled(name, change, kind=kind, readiness=STUCK) as case:
            report = await case.run.end()
        assert report.status.outcome == "RolledBack"
        await until("all run again", lambda: len(served.pods(name)) == 3)
        assert len(served.pods(name, "mirror.local/example/chat:1")) == 3 == len(served.pods(name))
        assert any("server].image example/chat:1 → mirror.local/example/chat:1" in e.detail for e in report.entries)
        assert_few_writes(report)
        case.watcher.assert_within(2, 4, passing=kind.ways[0].passing_back)

    async def good(name: str) -> None:
        async with served.rolled(name) as case:
            report = await case.run.end()
        assert report.status.outcome == "Completed"
        assert len(served.pods(name, "mirror.local/example/chat:2")) == 3
        assert_few_writes(report)

    await asyncio.gather(
        DeploymentSubject(served, "bad").create(3),
        DeploymentSubject(served, "good").create(3),
        StatefulSetSubject(served, "set").create(3),
        StatefulSetSubject(served, "held").create(3),
        DeploymentSubject(served, "aborted").create(3),
    )
    asks = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with (
        served.rolled(
            "held", kind=StatefulSetSubject, strategy={**asks, "maxSurge": 0, "maxUnavailable": 1}
        ) as completed,
        served.rolled("aborted", strategy=asks) as aborted,
    ):
        for case in (completed, aborted):
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        async with mirrored(served):
            await completed.run.send("approve")
            await aborted.run.send("abort")
            await asyncio.gather(
                bad("bad", DeploymentSubject),
                bad("set", StatefulSetSubject),
                good("good"),
                completed.run.end(),
                aborted.run.end(),
            )
            for case, outcome, image in ((completed, "Completed", "chat:2"), (aborted, "Aborted", "chat:1")):
                report = await case.run.end()
                assert report.status.outcome == outcome
                assert len(served.pods(case.name, f"mirror.local/example/{image}")) == 3
                assert_few_writes(report)


@pytest.mark.parametrize("kind", [LeaderWorkerSetSubject])
async def test_what_admission_makes_of_groups(served: Lab, kind: type[Subject]) -> None:
    """The policy arrives while both wait for an approval; forward and back end with what it makes of them."""
    asks = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}

    async def one(name: str, message: str, outcome: str, image: str) -> None:
        async with served.rolled(name, kind=kind, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            waiting.release()
            await in_force.wait()
            await case.run.send(message)
            report = await case.run.end()
            assert report.status.outcome == outcome
            await until("it runs", lambda: case.only(f"mirror.local/example/{image}"))
            assert_few_writes(report)
        case.watcher.assert_within(1, 2)

    waiting, in_force = asyncio.Semaphore(0), asyncio.Event()
    await asyncio.gather(*(kind(served, name).create(2) for name in ("good", "aborted")))
    rollouts = asyncio.gather(
        one("good", "approve", "Completed", "chat:2"), one("aborted", "abort", "Aborted", "chat:1")
    )
    for _ in range(2):
        await waiting.acquire()
    async with mirrored(served, OF_GROUPS):
        in_force.set()
        await rollouts
