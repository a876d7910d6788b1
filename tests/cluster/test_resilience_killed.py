"""The worker is killed before, during and after every activity of a rollout, and started again: the same end."""

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from harness import Lab, Run, open_lab, until
from killing_worker import CRASHING, PHASES, Diary, KillingWorker, until_phase, watched
from readiness import NEVER_READY, Readiness
from segue_local import Stack
from subjects import IMAGE, SUBJECTS, DeploymentSubject, PairSubject, StatefulSetSubject, Subject

from segue.report import to_markdown

AT_ONCE = 8
REPLICAS, SURGE = 3, 1
ASKS = {"maxSurge": 2, "waypoints": [{"at": 2, "approval": True}]}


async def _leave_alone(subject: Subject, run: Run, readiness: Readiness) -> None:
    """Most rollouts need nobody."""


async def _steer(subject: Subject, run: Run, readiness: Readiness) -> None:
    """Resize and settle by signals, which wait for a worker that is not there."""
    # Not by the pods: a settle that comes before the first write is recorded is refused, as nothing has moved.
    await run.until("new ones that are not ready", lambda status: status.moves == 1)
    await run.signal("settle")
    await until_phase(run, "Paused")
    readiness.let()
    await run.signal("resume")
    await until_phase(run, "AwaitingApproval")
    await run.signal("scale", replicas=REPLICAS + 1)
    await until("the new size", lambda: subject.replicas() >= REPLICAS + 1)
    await run.signal("approve")


@dataclass(frozen=True)
class Scenario:
    """A rollout, and at which of its activities the worker is killed."""

    outcome: str
    spec: dict[str, Any]
    at: tuple[str, ...] = ()
    """The activities; none for all of them."""
    steer: Callable[[Subject, Run, Readiness], Coroutine[Any, Any, None]] = _leave_alone
    is_held: bool = False
    """Whether new replicas become ready only when ``steer`` lets them: a machine of any speed meets the same stage."""
    floor: int = REPLICAS
    ceiling: int = REPLICAS + SURGE
    is_straight: bool = True
    """Whether nobody steers it: then each move adds or removes a replica that no other move does."""


SCENARIOS = {
    "success": Scenario("Completed", {"strategy": {"maxSurge": SURGE, "waypoints": [{"at": 1}]}}),
    "rollback": Scenario("RolledBack", {"strategy": {"maxSurge": SURGE}, "change": CRASHING}),
    "steered": Scenario(
        "Completed",
        {"strategy": ASKS},
        ("resize", "settle"),
        _steer,
        is_held=True,
        ceiling=REPLICAS + 1 + 2,
        is_straight=False,
    ),
}


@dataclass(frozen=True)
class End:
    """How a rollout ended, in all that depends neither on an accident nor on the machine's pace."""

    outcome: str | None
    images: list[str]
    is_restored: bool
    most_writes: int = field(compare=False)
    """The most writes of one activity, with all its attempts, that the API server took: not more than undisturbed."""


@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_at_the_points_of_each_activity(stack: Stack, name: str) -> None:
    """At one activity of each name, each in another phase; see the next test."""
    await _killed_at(stack, SCENARIOS[name], _some_points)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_at_every_point(stack: Stack, name: str) -> None:
    """One run for each point; each ends as the undisturbed one, writes nothing twice, and keeps floor and ceiling."""
    await _killed_at(stack, SCENARIOS[name], _all_points)


@pytest.mark.soak
@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_with_whole_temporal_servers(postgres_stack: Stack, name: str) -> None:
    """The same with Temporal as in production."""
    await _killed_at(postgres_stack, SCENARIOS[name], _some_points)


async def _killed_at(stack: Stack, scenario: Scenario, points_of: Callable[[list[str]], list[str]]) -> None:
    diary, undisturbed = await _roll(stack, scenario)
    assert undisturbed.outcome == scenario.outcome and undisturbed.is_restored
    killed = [a for a in diary.activities if not scenario.at or _name(a) in scenario.at]
    assert {_name(a) for a in killed} >= set(scenario.at or ("prepare", "await_ready", "scale_new", "finish"))
    await _same_ends(stack, scenario, undisturbed, points_of(killed))


def _all_points(activities: list[str]) -> list[str]:
    return [f"{each}:{phase}:kill" for each in activities for phase in PHASES]


def _some_points(activities: list[str]) -> list[str]:
    """Return one point for each name: its first activity or its last in turn, in one phase after the other."""
    by_name = {_name(each): [a for a in activities if _name(a) == _name(each)] for each in activities}
    return [
        f"{same[-1 if number % 2 else 0]}:{PHASES[number % len(PHASES)]}:kill"
        for number, same in enumerate(by_name.values())
    ]


def _name(one: str) -> str:
    """``scale_old`` of ``scale_old#2``."""
    return one.partition("#")[0]


OTHERS = [pytest.param(each, id=name) for name, each in SUBJECTS.items() if each is not DeploymentSubject]


@pytest.mark.parametrize("kind", [pytest.param(StatefulSetSubject, id="StatefulSet")])
async def test_killed_in_the_writes_of_another_kind(stack: Stack, kind: type[Subject]) -> None:
    """A move on the way forward and one on the way back stand for all."""
    await _killed_in(stack, kind, (kind.first_move,))


@pytest.mark.soak
@pytest.mark.parametrize("kind", OTHERS)
async def test_killed_in_each_activity(stack: Stack, kind: type[Subject]) -> None:
    """One point of each activity."""
    every = ("prepare", "await_ready", kind.first_move, "verify", "finish")
    await _killed_in(stack, kind, every, ("resize", "settle"))


async def _killed_in(stack: Stack, kind: type[Subject], forth: tuple[str, ...], steered: tuple[str, ...] = ()) -> None:
    """Kill at these activities of a rollout that completes, at the undo of a bad one, and at these of a steered one."""

    async def one(scenario: Scenario, *activities: str) -> None:
        _, undisturbed = await _roll(stack, scenario, kind=kind)
        assert undisturbed.outcome == scenario.outcome and undisturbed.is_restored
        await _same_ends(stack, scenario, undisturbed, [f"{each}#1:during:kill" for each in activities], kind)

    way = kind.ways[0]
    floor, ceiling = REPLICAS - 4 + way.floor, REPLICAS - 4 + way.ceiling
    good = replace(SCENARIOS["success"], spec={"strategy": way.strategy}, floor=floor, ceiling=ceiling)
    failing = {"strategy": way.strategy, "change": kind.changed(2, "crash-loop")}
    bad = replace(SCENARIOS["rollback"], spec=failing, floor=floor, ceiling=ceiling)
    rolls = [one(good, *forth), one(bad, "undo")]
    if steered and "settle" not in kind.cannot:
        strategy, kept, (stuck, *_) = kind.stuck
        asks = {"strategy": {**strategy, "waypoints": ASKS["waypoints"]}}
        floor, ceiling = REPLICAS - 4 + kept, REPLICAS + 1 + sum(stuck) - 4
        rolls.append(one(replace(SCENARIOS["steered"], spec=asks, floor=floor, ceiling=ceiling), *steered))
    await asyncio.gather(*rolls)


async def test_a_pair_is_scaled_down_whole(stack: Stack) -> None:
    """The worker is killed between the writes to its two Deployments. The approval stops every move that follows."""
    async with open_lab(stack) as lab:
        subject, half = PairSubject(lab, "chat"), {"maxSurge": 1, "waypoints": [{"at": "50%", "approval": True}]}
        await subject.create(8, ready_after="300ms")
        worker = KillingWorker(lab, "resize#1:during:kill")
        async with worker.explained():
            run = await lab.start("chat", target=subject.target, change=subject.changed(2), strategy=half)
            await until_phase(run, "AwaitingApproval")
            await run.signal("scale", replicas=4)
            await worker.until_gone()
            worker.start()
            await until("the share of each", lambda: subject.requested() == (3, 2))
            await run.signal("approve")
            assert (await run.end()).status.outcome == "Completed"


async def _same_ends(
    stack: Stack, scenario: Scenario, undisturbed: End, points: list[str], kind: type[Subject] = DeploymentSubject
) -> None:
    """Roll once for each point, side by side; each must end as the undisturbed one."""
    places = asyncio.Semaphore(AT_ONCE)

    async def run(point: str) -> End:
        async with places:
            return (await _roll(stack, scenario, point, kind))[1]

    ends = await asyncio.gather(*map(run, points), return_exceptions=True)
    failures = [
        f"{point}: {_described(end)}" for point, end in zip(points, ends, strict=True) if not _is_as(end, undisturbed)
    ]
    assert not failures, f"{len(failures)} of {len(points)} points; undisturbed: {undisturbed}\n" + "\n".join(failures)


async def _roll(
    stack: Stack, scenario: Scenario, point: str = "", kind: type[Subject] = DeploymentSubject
) -> tuple[Diary, End]:
    async with open_lab(stack) as lab, _target(lab, scenario, kind) as (subject, readiness):
        before = subject.settings()
        worker = KillingWorker(lab, point)
        async with watched(lab, "chat") as watcher, worker.explained(), asyncio.TaskGroup() as group:
            run = await lab.start("chat", **{"target": subject.target, "change": subject.changed(2), **scenario.spec})
            group.create_task(scenario.steer(subject, run, readiness))
            if point:
                await worker.until_gone()
                worker.start()
            report = await run.end()
        way = kind.ways[0]
        passing = way.passing if report.status.outcome == "Completed" else way.passing_back
        watcher.assert_within(scenario.floor, scenario.ceiling, passing=passing)
        if scenario.is_straight:
            assert report.status.moves <= 2 * REPLICAS, to_markdown(report)
        end = End(
            outcome=report.status.outcome,
            images=sorted(p.spec.containers[0].image for p in lab.pods("chat")),
            is_restored=subject.settings() == subject.settled(scenario.outcome, before),
            most_writes=max(Counter(worker.diary.patches).values()),
        )
        return worker.diary, end


@asynccontextmanager
async def _target(lab: Lab, scenario: Scenario, kind: type[Subject]) -> AsyncIterator[tuple[Subject, Readiness]]:
    """Create the target, and yield it when it serves."""
    subject, readiness = kind(lab, "chat"), Readiness(lab, "chat", f"{IMAGE}:1")
    if not scenario.is_held:
        await subject.create(REPLICAS, ready_after="300ms")
        yield subject, readiness
        return
    with readiness:
        await subject.create(REPLICAS, **NEVER_READY)
        await until("all replicas ready", lambda: readiness.ready == REPLICAS)
        yield subject, readiness


def _is_as(end: End | BaseException, undisturbed: End) -> bool:
    return isinstance(end, End) and end == undisturbed and end.most_writes <= undisturbed.most_writes


def _described(end: End | BaseException) -> str:
    return "".join(traceback.format_exception(end)) if isinstance(end, BaseException) else str(end)
