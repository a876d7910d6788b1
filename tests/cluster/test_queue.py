"""Moves beyond SEGUE_MOVES_AT_ONCE wait for those of other rollouts; nothing that goes back waits."""

import asyncio

import pytest
from harness import Case, Lab
from killing_worker import KillingWorker

from segue.contract import AWAIT_READY, Tuning

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
ROLLOUTS, LIMIT_S = 60, 1800.0
PATIENT = Tuning(queue_s=0.1, write_s=600.0, rest_heartbeat_s=555.0)


async def heartbeat_s(case: Case) -> float:
    """Return the heartbeat timeout of the rollout's latest watch."""
    events = (await case.run.handle.fetch_history()).events
    watches = [event.activity_task_scheduled_event_attributes for event in events]
    return [each.heartbeat_timeout.seconds for each in watches if each.activity_type.name == AWAIT_READY.name][-1]


async def waits(case: Case) -> None:
    """Approve a rollout, and wait until its move waits for those of others: it is observed and taken over rarely."""
    await case.run.send("approve")
    await case.run.until("it waits for its turn", lambda s: "its turn" in s.waiting_for)
    assert await heartbeat_s(case) == 555.0


async def test_a_move_waits_for_others_and_a_rollback_does_not(lab: Lab) -> None:
    """The write of one rollout is delayed: the moves of two others wait, one is aborted, one goes on after it."""
    worker = KillingWorker(lab, "scale_old#1:before:wait", environment={"SEGUE_MOVES_AT_ONCE": "1"})
    async with (
        lab.case("later", 2, strategy=ASKS, tuning=PATIENT) as later,
        lab.case("back", 2, strategy=ASKS, tuning=PATIENT) as back,
    ):
        for case in (later, back):
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        strategy = {"maxSurge": 0, "maxUnavailable": 1}
        async with lab.case("first", 2, strategy=strategy, tuning=PATIENT) as first:
            await worker.until_accident()
            await asyncio.gather(waits(later), waits(back))
            await back.run.send("abort")
            await back.ends("Aborted")
            worker.go()
            await first.ends("Completed")
            await later.ends("Completed")


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_two_workers_share_rollouts_and_one_is_lost(lab: Lab) -> None:
    """Both take part; when one is killed in the middle, the other one completes all of them."""
    lost, kept = (lab.worker(SEGUE_MOVES_AT_ONCE="4") for _ in range(2))
    names = [f"chat-{number}" for number in range(ROLLOUTS)]
    await asyncio.gather(*(lab.deploy(name, 2) for name in names))
    runs = await asyncio.gather(*(lab.start(name, strategy=ASKS) for name in names))
    for run in runs:
        await run.until("it asks", lambda s: s.phase == "AwaitingApproval", LIMIT_S)
    await asyncio.gather(*(run.signal("approve") for run in runs))
    await asyncio.wait([asyncio.create_task(run.end(LIMIT_S)) for run in runs], return_when=asyncio.FIRST_COMPLETED)
    lost.kill()
    reports = await asyncio.gather(*(run.end(LIMIT_S) for run in runs))
    assert {report.status.outcome for report in reports} == {"Completed"}
    events = [event for run in runs for event in (await run.handle.fetch_history()).events]
    taken = {event.activity_task_started_event_attributes.identity for event in events}
    assert {int(each.partition("@")[0]) for each in taken if each} == {lost.process.pid, kept.process.pid}
