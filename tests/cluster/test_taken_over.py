"""Two workers share rollouts, and one of them is lost: the other one takes over all that it watched."""

import asyncio
import itertools
import statistics
import time
from contextlib import ExitStack
from typing import Any

import pytest
from harness import Lab, Run, WorkerProcess, until
from temporalio.api.enums.v1 import PendingActivityState

from segue.contract import Tuning

STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
WAITING, MOVING = 40, 20
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
REPLICAS, EVERY_S = 4, 10.0
HOLDS = {"maxSurge": 1, "waypoints": [{"at": 1, "hold": "15s"}, {"at": 3, "hold": "15s"}]}
LOADS = {"annotations": {"segue.dev/ready-after": "1h"}}
"""A change whose replicas are not ready while the test runs: the rollout moves, and its watch observes often."""
NEVER = Tuning(rest_heartbeat_s=36_000.0, rest_attempt_s=36_000.0)
"""Temporal itself notices a lost watch of a waiting rollout too late for the test."""
LONG = {"minReady": "0s", "deadline": "2h"}


@pytest.mark.soak
async def test_a_lost_worker_is_replaced_at_each_of_its_rollouts(lab: Lab) -> None:
    """Those that move show that it is lost. The waiting ones are continued too, and end when they are approved."""
    lost, other = lab.worker(), lab.worker()
    waiting, moving = [f"waits-{n}" for n in range(WAITING)], [f"moves-{n}" for n in range(MOVING)]
    await asyncio.gather(lost.serves(), other.serves(), *(lab.deploy(name, 1) for name in (*waiting, *moving)))
    runs = {name: await lab.start(name, tuning=NEVER, strategy=ASKS) for name in waiting}
    runs |= {name: await lab.start(name, LOADS, tuning=Tuning(), readiness=LONG) for name in moving}
    for name in waiting:
        await runs[name].until("it asks", lambda status: status.phase == "AwaitingApproval")
    for name in moving:
        await runs[name].until("its first move", lambda status: status.moves == 1)
    watched = await _watched_by(lost, runs)
    assert any(name in waiting for name in watched) and any(name in moving for name in watched)
    lost.kill()
    killed_at, took_s = time.monotonic(), dict[str, float]()

    async def are_taken() -> bool:
        for name in await _watched_by(other, {name: runs[name] for name in watched if name not in took_s}):
            took_s[name] = time.monotonic() - killed_at
        return len(took_s) == len(watched)

    await until("all to be watched by the other worker", are_taken, 300.0, 0.5)
    for kind in ("waits", "moves"):
        found = [after for name, after in took_s.items() if name.startswith(kind)]
        print(f"{kind}: {len(found)}, median {statistics.median(found):.1f} s, longest {max(found):.1f} s")
    await asyncio.gather(*(runs[name].signal("approve") for name in waiting))
    ends = await asyncio.gather(*(runs[name].end(600.0) for name in waiting))
    assert {report.status.outcome for report in ends} == {"Completed"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_one_of_two_workers_is_killed_every_ten_seconds(lab: Lab) -> None:
    """For the length of 20 rollouts, in turn: each ends as it must, and floor and ceiling hold."""
    workers = [lab.worker(), lab.worker()]
    names = [f"chat-{number}" for number in range(20)]
    await asyncio.gather(*(worker.serves() for worker in workers), *(lab.deploy(name, REPLICAS) for name in names))
    with ExitStack() as stack:
        watched = [stack.enter_context(lab.watch(name)) for name in names]
        runs = [await lab.start(name, _change(number), strategy=HOLDS) for number, name in enumerate(names)]
        killing = asyncio.create_task(_kill_in_turn(workers))
        reports = await asyncio.gather(*(run.end(1200.0) for run in runs))
        killing.cancel()
    outcomes = [report.status.outcome for report in reports]
    assert outcomes == ["Completed" if _is_good(number) else "RolledBack" for number in range(len(names))]
    for each in watched:
        each.assert_within(REPLICAS, REPLICAS + 1)


def _is_good(number: int) -> bool:
    return number % 5 != 4


def _change(number: int) -> dict[str, Any]:
    mode = "ready" if _is_good(number) else "crash-loop"
    containers = [{"name": "server", "image": "example/chat:2"}]
    return {"patch": {"metadata": {"labels": {"segue.dev/fake": mode}}, "spec": {"containers": containers}}}


async def _kill_in_turn(workers: list[WorkerProcess]) -> None:
    for worker in itertools.cycle(workers):
        await asyncio.sleep(EVERY_S)
        worker.kill()
        worker.start()


async def _watched_by(worker: WorkerProcess, runs: dict[str, Run]) -> list[str]:
    """Return the rollouts whose watch runs on this worker."""

    async def is_watched(run: Run) -> bool:
        pending = (await run.handle.describe()).raw_description.pending_activities
        process = f"{worker.process.pid}@"
        return any(each.state == STARTED and each.last_worker_identity.startswith(process) for each in pending)

    found = await asyncio.gather(*(is_watched(run) for run in runs.values()))
    return [name for name, is_mine in zip(runs, found, strict=True) if is_mine]
