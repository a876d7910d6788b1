"""The worker is killed before, during and after every activity of a rollout, and started again: the same end."""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from harness import Lab, Run, open_lab, until
from killing_worker import CRASHING, PHASES, Diary, KillingWorker, until_phase, watched
from segue_local import Stack
from subjects import SUBJECTS, DeploymentSubject, Subject

AT_ONCE = 5
REPLICAS, SURGE = 3, 1
ASKS = {"maxSurge": 2, "waypoints": [{"at": 2, "approval": True}]}


async def _leave_alone(subject: Subject, run: Run) -> None:
    """Most rollouts need nobody."""


async def _steer(subject: Subject, run: Run) -> None:
    """Resize and settle by signals, which wait for a worker that is not there."""
    # Not by the pods: a settle that comes before the first write is recorded is refused, as nothing has moved.
    await run.until("new ones that are not ready", lambda status: status.moves == 1)
    await run.signal("settle")
    await until_phase(run, "Paused")
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
    steer: Callable[[Subject, Run], Coroutine[Any, Any, None]] = _leave_alone
    ready_after: str = "300ms"
    floor: int = REPLICAS
    ceiling: int = REPLICAS + SURGE
    is_exact: bool = True
    """Whether the undisturbed rollout has always the same moves."""


SCENARIOS = {
    "success": Scenario("Completed", {"strategy": {"maxSurge": SURGE, "waypoints": [{"at": 1}]}}),
    "rollback": Scenario("RolledBack", {"strategy": {"maxSurge": SURGE}, "change": CRASHING}),
    "steered": Scenario(
        "Completed", {"strategy": ASKS}, ("resize", "settle"), _steer, "3s", ceiling=REPLICAS + 1 + 2, is_exact=False
    ),
}


@dataclass(frozen=True)
class End:
    """How a rollout ended, in all that must not depend on an accident."""

    outcome: str | None
    images: list[str]
    is_restored: bool
    exactly: dict[str, Any] = field(default_factory=dict)
    """Moves, writes that the API server took, and the target's generation: nothing is done twice."""


@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_at_every_point(stack: Stack, name: str) -> None:
    """One run for each point; each ends as the undisturbed one, with the same writes, within floor and ceiling."""
    scenario = SCENARIOS[name]
    diary, undisturbed = await _roll(stack, scenario)
    assert undisturbed.outcome == scenario.outcome and undisturbed.is_restored
    killed = [a for a in diary.activities if not scenario.at or a.partition("#")[0] in scenario.at]
    assert {a.partition("#")[0] for a in killed} >= set(
        scenario.at or ("prepare", "await_ready", "scale_new", "finish")
    )
    points = [f"{each}:{phase}:kill" for each in killed for phase in PHASES]
    await _same_ends(stack, scenario, undisturbed, points)


OTHERS = [pytest.param(each, id=name) for name, each in SUBJECTS.items() if each is not DeploymentSubject]


@pytest.mark.parametrize("kind", OTHERS)
async def test_killed_in_each_activity(fleet_of: Lab, kind: type[Subject]) -> None:
    """For the other kinds of targets one point of each activity stands for all."""
    stack = fleet_of.stack

    async def one(scenario: Scenario, *activities: str) -> None:
        _, undisturbed = await _roll(stack, scenario, kind=kind)
        assert undisturbed.outcome == scenario.outcome and undisturbed.is_restored
        await _same_ends(stack, scenario, undisturbed, [f"{each}#1:during:kill" for each in activities], kind)

    way = kind.ways[0]
    budget = {"floor": REPLICAS - 4 + way.floor, "ceiling": REPLICAS - 4 + way.ceiling}
    good = replace(SCENARIOS["success"], spec={"strategy": way.strategy}, **budget)
    failing = {"strategy": way.strategy, "change": kind.changed(2, "crash-loop")}
    bad = replace(SCENARIOS["rollback"], spec=failing, **budget)
    rolls = [one(good, "prepare", "await_ready", kind.first_move, "verify", "finish"), one(bad, "undo")]
    if "settle" not in kind.cannot:
        strategy, floor, (stuck, *_) = kind.stuck
        asks = {"strategy": {**strategy, "waypoints": ASKS["waypoints"]}}
        bounds = {"floor": REPLICAS - 4 + floor, "ceiling": REPLICAS + 1 + sum(stuck) - 4}
        rolls.append(one(replace(SCENARIOS["steered"], spec=asks, **bounds), "resize", "settle"))
    await asyncio.gather(*rolls)


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
        f"{point}: {_told(end)}"
        for point, end in zip(points, ends, strict=True)
        if end != undisturbed and not (":during:" in point and end == _paused_once_more(undisturbed))
    ]
    assert not failures, f"{len(failures)} of {len(points)} points; undisturbed: {undisturbed}\n" + "\n".join(failures)


def _paused_once_more(end: End) -> End:
    """What is different where a worker dies between the two writes of a move: the target is paused in between."""
    written = {what: end.exactly[what] + 1 for what in ("writes", "generation") if what in end.exactly}
    return replace(end, exactly={**end.exactly, **written})


async def _roll(
    stack: Stack, scenario: Scenario, point: str = "", kind: type[Subject] = DeploymentSubject
) -> tuple[Diary, End]:
    async with open_lab(stack) as lab:
        subject = kind(lab, "chat")
        await subject.create(REPLICAS, ready_after=scenario.ready_after)
        before = subject.settings()
        worker = KillingWorker(lab, point)
        async with watched(lab, "chat") as watcher, asyncio.TaskGroup() as group:
            run = await lab.start("chat", **{"target": subject.target, "change": subject.changed(2), **scenario.spec})
            group.create_task(scenario.steer(subject, run))
            if point:
                await worker.until_gone()
                worker.start()
            report = await run.end()
        way = kind.ways[0]
        passing = way.passing if report.status.outcome == "Completed" else way.passing_back
        watcher.assert_within(scenario.floor, scenario.ceiling, passing=passing)
        exactly = {
            "moves": report.status.moves,
            "writes": len(worker.diary.patches),
            "generation": subject.version(),
        }
        end = End(
            outcome=report.status.outcome,
            images=sorted(p.spec.containers[0].image for p in lab.pods("chat")),
            is_restored=subject.settings() == subject.settled(scenario.outcome, before),
            exactly=exactly if scenario.is_exact else {},
        )
        return worker.diary, end


def _told(end: End | BaseException) -> str:
    return "".join(traceback.format_exception(end)) if isinstance(end, BaseException) else str(end)
