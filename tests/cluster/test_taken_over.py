"""Two workers share rollouts, and one of them is lost: the other one takes over all that it watched."""

import asyncio
import statistics
import time

import pytest
from harness import Lab, Run, WorkerProcess, until
from temporalio.api.enums.v1 import PendingActivityState

from segue.contract import Tuning

STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
WAITING, MOVING = 40, 20
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
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


async def _watched_by(worker: WorkerProcess, runs: dict[str, Run]) -> list[str]:
    """Return the rollouts whose watch runs on this worker."""

    async def is_watched(run: Run) -> bool:
        pending = (await run.handle.describe()).raw_description.pending_activities
        process = f"{worker.process.pid}@"
        return any(each.state == STARTED and each.last_worker_identity.startswith(process) for each in pending)

    found = await asyncio.gather(*(is_watched(run) for run in runs.values()))
    return [name for name, is_mine in zip(runs, found, strict=True) if is_mine]
