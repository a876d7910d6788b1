"""Every kind of target, in each of its orders: it goes well, fails, and is steered at each stage.

The rollouts of one kind go side by side. A watcher that only sees pods judges floor and ceiling of each.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Case, Lab, Run, open_lab, until
from readiness import NEVER_READY, Readiness
from segue_local import Stack
from shell import Shell
from subjects import IMAGE, SUBJECTS, PairSubject, Subject, SupervisedSubject, Way
from watcher import PodWatcher

from segue.report import Report
from segue.state import Entry

SLOW = {"ready_after": "2s"}
"""Slow enough that a message comes while the rollout is under way."""

MORE = 4
"""Replicas beside the four: of four a quarter is 1, so that a fixed budget of 25% would look like maxUnavailable 1."""

SCENARIOS = {"success", "failure", "abort", "pause", "retarget", "scale", "scale by hand", "settle", "release"}

Kind = type[Subject]

NOWHERE = "127.0.0.1:1"
LONG = {"DeploymentPair", "LeaderWorkerSet"}
"""Of these kinds, `make test` leaves out what the Deployment and the StatefulSet show as well."""


def every(scenario: str, *, long: Collection[str] = ()) -> pytest.MarkDecorator:
    """Run a test for every kind for which the scenario makes sense; the kinds in ``long`` only in long campaigns."""
    assert scenario in SCENARIOS
    assert all(kind.cannot.keys() <= SCENARIOS for kind in SUBJECTS.values())
    kinds = [
        pytest.param(kind, id=name, marks=[pytest.mark.soak] if name in long else [])
        for name, kind in SUBJECTS.items()
        if scenario not in kind.cannot
    ]
    return pytest.mark.parametrize("kind", kinds)


async def each(*ways: Way, one: Callable[[Way], Awaitable[None]]) -> None:
    """Roll in each of these ways, side by side; what goes wrong says in which."""

    async def named(way: Way) -> None:
        try:
            await one(way)
        except Exception as error:
            error.add_note(f"way: {way}")
            raise

    await asyncio.gather(*map(named, ways))


Stages = Callable[[Kind], list[Way]]


def every_stage(kind: Kind) -> list[Way]:
    """Return each way of a kind, once for each stage that lasts: ``stages`` is the number of moves before it."""
    return [way._replace(stages=moves) for way in kind.ways for moves in range(way.stages)]


def some_stages(kind: Kind) -> list[Way]:
    """Return every third stage: the ways of a kind have different lengths, so that each way has other stages."""
    return every_stage(kind)[::3]


of_stages = pytest.mark.parametrize(
    "stages",
    [
        pytest.param(some_stages, id="some stages"),
        pytest.param(every_stage, id="every stage", marks=pytest.mark.soak),
    ],
)


async def at_each(stages: list[Way], kind: Kind, one: Callable[[Way, int], Awaitable[None]]) -> None:
    """Roll once for each of these stages."""
    side_by_side = asyncio.Semaphore(kind.at_once)

    async def admitted(way: Way) -> None:
        async with side_by_side:
            await one(way, way.stages)

    await each(*stages, one=admitted)


@asynccontextmanager
async def staged(served: Lab, kind: Kind, way: Way, name: str) -> AsyncIterator[tuple[Case, Readiness]]:
    """A rollout that stays at its first stage until more replicas are let."""
    with Readiness(served, name, f"{IMAGE}:1") as readiness:
        subject = kind(served, name)
        await subject.create(4, **NEVER_READY)
        await until(f"{name} ready", lambda: readiness.ready == 4)
        async with served.rolled(name, kind=kind, strategy=way.strategy) as case:
            yield case, readiness


def before_stage(kind: Kind, way: Way, moves: int) -> int:
    """How many new replicas are ready after so many moves, while those of the last one are awaited."""
    return max(0, moves - 1) * 4 // _last(kind, way)


def _last(kind: Kind, way: Way) -> int:
    return next(each.stages for each in kind.ways if each.name == way.name) - 1


def moved(moves: int) -> Any:
    return lambda status: status.moves >= moves


def is_at(case: Case, kind: Kind, way: Way, moves: int) -> Any:
    """Whether a stage has begun: so many moves, or its pods. A move whose answer was lost is not counted as one."""
    awaited = moves * 4 // _last(kind, way)
    return lambda status: status.moves >= moves or case.new >= awaited


def entries(report: Report, what: str) -> list[Entry]:
    return [e for e in report.entries if e.what == what]


@every("success")
async def test_success(served: Lab, kind: Kind) -> None:
    """A good version replaces the old one, and floor and ceiling hold at every event."""

    async def one(way: Way) -> None:
        async with served.case(way.name, kind=kind, strategy=way.strategy) as case:
            report = await case.ends("Completed")
            assert case.only("chat:2") and len(served.pods(case.name)) == 4
        assert (report.status.floor, report.status.ceiling) == (way.floor, way.ceiling)
        case.watcher.assert_within(way.floor, way.ceiling, passing=way.passing)

    await each(*kind.ways, *kind.budgets, one=one)


@every("failure")
async def test_failure(served: Lab, kind: Kind) -> None:
    """A version that crashes, or is not ready in time, is taken back by itself; nothing of it stays."""

    async def one(way: Way) -> None:
        async def bad(mode: str) -> None:
            change = kind.changed(2, mode)
            spec: dict[str, Any] = {"strategy": way.strategy, "readiness": {"minReady": "0s", "deadline": "4s"}}
            async with served.case(f"{way.name}-{mode}", kind=kind, change=change, **spec) as case:
                await case.ends("RolledBack")
            case.watcher.assert_within(way.floor, way.ceiling, passing=way.passing_back)

        await asyncio.gather(bad("crash-loop"), bad("never-ready"))

    await each(*kind.ways, one=one)


@of_stages
@every("abort")
async def test_abort_at_each_stage(served: Lab, kind: Kind, stages: Stages) -> None:
    """Aborted at any stage, the baseline comes back within the budget, and the outcome says so."""

    async def one(way: Way, moves: int) -> None:
        async with staged(served, kind, way, f"{way.name}-{moves}") as (case, readiness):
            readiness.let(before_stage(kind, way, moves))
            await case.run.until(f"stage {moves}", is_at(case, kind, way, moves))
            assert await case.run.send("abort", reason="no") == "abort: now RollingBack"
            readiness.let()
            report = await case.ends("Aborted")
            assert report.status.reason == "Requested: aborted by test: no"
        case.watcher.assert_within(way.floor, way.ceiling, passing=way.passing_back)

    await at_each(stages(kind), kind, one)


@every("pause", long=LONG)
async def test_pause_and_resume_at_each_stage(served: Lab, kind: Kind) -> None:
    """Paused at a stage, requested replicas become ready and nothing moves; resumed, it continues within the budget."""

    async def one(way: Way) -> None:
        async with staged(served, kind, way, way.name) as (case, readiness):
            for moves in range(1, way.stages):
                readiness.let(before_stage(kind, way, moves))
                await case.run.until(f"stage {moves}", is_at(case, kind, way, moves))
                assert await case.run.send("pause", reason="lunch") == "pause: now Paused"
                readiness.let(before_stage(kind, way, moves + 1))
                status = await case.run.status()
                assert status.waiting_for == "resume: paused by test: lunch" and "resume" in status.can
                rest = await case.rests()
                await until("it is at rest", case.subject.is_at_rest)
                version = case.subject.version()
                assert await case.rests() == rest
                assert case.subject.version() == version
                assert await case.run.send("resume") == "resume: now Progressing"
            report = await case.ends("Completed")
        case.watcher.assert_within(way.floor, way.ceiling, passing=way.passing)
        assert len(entries(report, "paused")) == len(entries(report, "resumed")) == way.stages - 1

    await each(*kind.ways, one=one)


@of_stages
@every("retarget", long={"LeaderWorkerSet"})
async def test_retarget_at_each_stage(served: Lab, kind: Kind, stages: Stages) -> None:
    """Retargeted to v3 at any stage, only v3 runs at the end, and nothing that serves goes before v3 is ready."""

    async def one(way: Way, moves: int) -> None:
        async with staged(served, kind, way, f"{way.name}-{moves}") as (case, readiness):
            readiness.let(before_stage(kind, way, moves))
            await case.run.until(f"stage {moves}", is_at(case, kind, way, moves))
            assert await case.run.send("retarget", change=kind.changed(3)) == "now wants server=example/chat:3"
            readiness.let()
            report = await case.ends("Completed")
            assert case.only("chat:3") and len(served.pods(case.name)) == 4
            assert len(report.plans) == 2
            assert report.plans[1].parent == "server=example/chat:2"
        case.watcher.assert_within(way.floor, way.ceiling, passing=way.passing_back)

    await at_each(stages(kind), kind, one)


# What a retarget means is decided for all kinds alike, and the next stages of each kind are in the test above.
@every("retarget", long=SUBJECTS.keys() - {"Deployment"})
async def test_retarget_back_or_to_the_same(served: Lab, kind: Kind) -> None:
    """To v1 by its image, or to the baseline by name, is a way back; to what is wanted already changes nothing."""
    moves = min(2, kind.ways[0].stages - 1)

    way = kind.ways[0]

    async def back(name: str, **fields: Any) -> None:
        async with served.case(name, kind=kind, strategy=way.strategy, target=SLOW) as case:
            await case.run.until(f"{moves} moves", moved(moves))
            await case.run.send("retarget", **fields)
            report = await case.ends("RolledBack")
            assert "retargeted to the baseline by test" in report.status.reason
        case.watcher.assert_within(way.floor, way.ceiling, passing=1)

    async def same() -> None:
        async with served.case("same", kind=kind, strategy=way.strategy, target=SLOW) as case:
            await case.run.until(f"{moves} moves", moved(moves))
            answer = await case.run.send("retarget", change=kind.changed(2))
            assert answer == "server=example/chat:2 is already the wanted version"
            report = await case.ends("Completed")
            assert len(report.plans) == 1
        case.watcher.assert_within(way.floor, way.ceiling, passing=1)

    await asyncio.gather(back("image", change=kind.changed(1)), back("name", baseline=True), same())


async def ready(case: Case, replicas: int) -> None:
    """Wait until the target requests this number of replicas, and all of them are ready."""
    await until(f"{replicas} wanted", lambda: case.subject.replicas() >= replicas)
    await until(f"{replicas} ready", lambda: case.watcher.samples[-1].ready >= replicas)


@every("scale", long=LONG)
async def test_scaled_up_and_down_in_the_middle(served: Lab, kind: Kind) -> None:
    """4→8→4, by message or by somebody else: floor and ceiling follow the replicas of now, and it completes."""

    way = kind.ways[0]
    less, more = 4 - way.floor, way.ceiling - 4

    async def by_hand(case: Case, replicas: int) -> None:
        case.subject.resize(replicas)

    async def by_message(case: Case, replicas: int) -> None:
        await case.run.send("scale", replicas=replicas)

    async def one(name: str, scale: Callable[[Case, int], Awaitable[None]], waypoint: int) -> None:
        waypoints = [{"at": waypoint, "approval": True}, {"at": "75%", "approval": True}]
        async with served.case(name, kind=kind, strategy={**way.strategy, "waypoints": waypoints}) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            grows = case.watcher.mark()
            await scale(case, 8)
            await ready(case, 8)
            await case.run.send("approve")
            await case.run.until("it asks at 6 of 8", lambda s: s.phase == "AwaitingApproval" and s.new.replicas == 6)
            shrinks = case.watcher.mark()
            await scale(case, 4)
            await until("4 wanted", lambda: case.subject.replicas() <= 5)
            await case.run.send("approve")
            await case.ends("Completed")
            assert case.only("chat:2") and len(served.pods(name)) == 4
        case.watcher.assert_within(4 - less, 4 + more, until=grows)
        case.watcher.assert_within(4 - less, 8 + more, since=grows, until=shrinks, passing=1)
        grown = next(n for n, s in enumerate(case.watcher.samples) if n >= grows and s.ready >= 8)
        case.watcher.assert_within(8 - less, 8 + more, since=grown, until=shrinks)
        case.watcher.assert_within(4 - less, 8 + more, since=shrinks)
        shrunk = next(n for n, s in enumerate(case.watcher.samples) if n >= shrinks and s.total <= 4 + more)
        case.watcher.assert_within(4 - less, 4 + more, since=shrunk)

    ways = [one("message", by_message, 1)]
    if "scale by hand" not in kind.cannot:
        ways.append(one("hand", by_hand, 2))
    await asyncio.gather(*ways)


@every("settle", long={"LeaderWorkerSet"})
async def test_settle_leaves_a_stage_that_cannot_complete(served: Lab, kind: Kind) -> None:
    """Settled, only what is ready is kept, and it waits for a person; who resumes, goes on from there, or goes back."""

    strategy, floor, (none_ready, one_ready, three_ready) = kind.stuck

    async def one(name: str, way: str, outcome: str) -> None:
        change = kind.changed(2, "never-ready")
        async with served.case(name, kind=kind, change=change, strategy=strategy) as case:
            await case.reaches(*none_ready, ready=False)
            await case.mend(1, *one_ready)
            assert (await case.run.send("settle")).startswith("settle: keeps")
            await case.run.until("it settled", lambda s: s.phase == "Paused" and s.reason == "settled")
            assert await case.rests() == (3, 1)
            fields = {"change": kind.changed(3), "onto_baseline": True} if way == "retarget" else {}
            await case.run.send(way, **fields)
            if way == "retarget":
                await case.run.send("resume")
            if way == "resume":
                await case.reaches(*one_ready, ready=False)
                await case.mend(3, *three_ready)
                await case.mend(4, 0, 4)
            await case.ends(outcome)
        case.watcher.assert_within(floor, sum(none_ready), passing=1)

    await asyncio.gather(
        one("on", "resume", "Completed"), one("back", "abort", "Aborted"), one("elsewhere", "retarget", "Completed")
    )


@every("release", long={"LeaderWorkerSet", "Supervised"})
async def test_release_without_temporal(stack: Stack, kind: Kind, tmp_path: Path) -> None:
    """Where Temporal is lost, `release` goes back or on by what is written on the target, and nothing is left of us."""
    way = kind.ways[0]
    async with open_lab(stack) as lab:
        shell, worker = Shell(lab, tmp_path), lab.worker()

        async def middle(name: str) -> tuple[Subject, dict[str, Any], Run]:
            subject = kind(lab, name)
            await subject.create(4 + MORE, ready_after="1s")
            before = subject.settings()
            run = await lab.start(name, kind.changed(2), target=subject.target, strategy=way.strategy)
            await run.until("half of it has moved", moved(way.stages - 1))
            return subject, before, run

        async def release(subject: Subject, before: dict[str, Any]) -> None:
            end, outcome = subject.name, {"baseline": "Aborted", "wanted": "Completed"}[subject.name]
            name = f"{lab.namespace}/{end}"  # a pair is a Deployment by this name
            named = f"{kind.kind}/{name}" if kind is PairSubject else name
            with PodWatcher(lab.core.api_client, lab.namespace, subject.selector) as watcher:
                told = await shell.run("release", named, "--to", end, TEMPORAL_ADDRESS=NOWHERE)
            assert "warning" not in told.stderr
            watcher.assert_within(way.floor + MORE, way.ceiling + MORE, passing=way.passing_back)
            assert subject.settings() == subject.settled(outcome, before)
            if not issubclass(kind, PairSubject | SupervisedSubject):
                notes = [each["note"] for each in await shell.json("history", name) if each["note"]]
                ended, why = ("Aborted", "released by ") if end == "baseline" else ("Released", "")
                assert [each["outcome"] for each in notes] == [ended], notes
                assert notes[0]["why"].startswith(why)

        ways = await asyncio.gather(middle("baseline"), middle("wanted"))
        worker.kill()
        await asyncio.gather(*(release(subject, before) for subject, before, _ in ways))
        versions = [subject.version() for subject, _, _ in ways]
        lab.worker()  # a worker that comes back finds the targets released, and writes nothing
        reports = await asyncio.gather(*(run.end() for _, _, run in ways))
        assert [report.status.outcome for report in reports] == ["Aborted", "Aborted"]
        assert all(
            report.status.reason.startswith("Fenced: the target belongs to nobody now: a release") for report in reports
        )
        assert [subject.version() for subject, _, _ in ways] == versions
