"""The worker is killed before, during and after every activity of a rollout, and started again: the same end."""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Lab, Run, open_lab, until
from killing_worker import CRASHING, PHASES, Diary, KillingWorker, until_phase, watched
from segue_local import Stack

AT_ONCE = 10
REPLICAS, SURGE = 3, 1
ASKS = {"maxSurge": 2, "waypoints": [{"at": 2, "approval": True}]}


async def _leave_alone(lab: Lab, run: Run) -> None:
    """Most rollouts need nobody."""


async def _steer(lab: Lab, run: Run) -> None:
    """Resize and settle by signals, which wait for a worker that is not there."""
    # Not by the pods: a settle that comes before the first write is recorded is refused, as nothing has moved.
    await run.until("new ones that are not ready", lambda status: status.moves == 1)
    await run.signal("settle")
    await until_phase(run, "Paused")
    await run.signal("resume")
    await until_phase(run, "AwaitingApproval")
    await run.signal("scale", replicas=REPLICAS + 1)
    await until("the new size", lambda: lab.deployment("chat").spec.replicas == REPLICAS + 1)
    await run.signal("approve")


@dataclass(frozen=True)
class Scenario:
    """A rollout, and at which of its activities the worker is killed."""

    outcome: str
    spec: dict[str, Any]
    at: tuple[str, ...] = ()
    """The activities; none for all of them."""
    steer: Callable[[Lab, Run], Coroutine[Any, Any, None]] = _leave_alone
    ready_after: str = "300ms"
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
    exactly: dict[str, int] = field(default_factory=dict)
    """Moves, writes that the API server took, and the Deployment's generation: nothing is done twice."""


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
    places = asyncio.Semaphore(AT_ONCE)

    async def run(point: str) -> End:
        async with places:
            return (await _roll(stack, scenario, point))[1]

    ends = await asyncio.gather(*map(run, points), return_exceptions=True)
    failures = [f"{point}: {_told(end)}" for point, end in zip(points, ends, strict=True) if end != undisturbed]
    assert not failures, f"{len(failures)} of {len(points)} points; undisturbed: {undisturbed}\n" + "\n".join(failures)


async def _roll(stack: Stack, scenario: Scenario, point: str = "") -> tuple[Diary, End]:
    async with open_lab(stack) as lab:
        await lab.deploy("chat", REPLICAS, ready_after=scenario.ready_after)
        before = lab.settings("chat")
        worker = KillingWorker(lab, point)
        async with watched(lab, "chat") as watcher, asyncio.TaskGroup() as group:
            run = await lab.start("chat", **scenario.spec)
            group.create_task(scenario.steer(lab, run))
            if point:
                await worker.until_gone()
                worker.start()
            report = await run.end()
        # The way back is the controller's own.
        passing = 0 if report.status.outcome == "Completed" else 1
        watcher.assert_within(REPLICAS, scenario.ceiling, passing=passing)
        after = lab.settings("chat")
        exactly = {
            "moves": report.status.moves,
            "writes": len(worker.diary.patches),
            "generation": lab.deployment("chat").metadata.generation,
        }
        end = End(
            outcome=report.status.outcome,
            images=sorted(p.spec.containers[0].image for p in lab.pods("chat")),
            is_restored={**after, "template": None} == {**before, "template": None},
            exactly=exactly if scenario.is_exact else {},
        )
        return worker.diary, end


def _told(end: End | BaseException) -> str:
    return "".join(traceback.format_exception(end)) if isinstance(end, BaseException) else str(end)
