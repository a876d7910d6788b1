"""Moves beyond SEGUE_MOVES_AT_ONCE wait for those of other rollouts; nothing that goes back waits."""

import asyncio

import pytest
from harness import Case, Lab, until
from killing_worker import KillingWorker
from subjects import DeploymentSubject

from segue.contract import AWAIT_READY, Tuning

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
ROLLOUTS, LIMIT_S = 60, 1800.0
RARE_S = 555.0
AT_ONCE = Tuning(queue_s=900.0, write_s=600.0, rest_heartbeat_s=RARE_S)
LATER = AT_ONCE.model_copy(update={"queue_s": 0.1})


async def waits(case: Case) -> None:
    """Wait until the next move waits for those of other rollouts; the rollout is then taken over rarely."""

    async def is_rare() -> bool:
        events = (await case.run.handle.fetch_history()).events
        begun = [event.activity_task_scheduled_event_attributes for event in events]
        watches = [each for each in begun if each.activity_type.name == AWAIT_READY.name]
        return watches[-1].heartbeat_timeout.seconds == RARE_S

    await case.run.until("it waits for its turn", lambda s: "its turn" in s.waiting_for)
    await until("it is taken over rarely", is_rare)


async def test_a_move_waits_for_others_and_a_rollback_does_not(lab: Lab) -> None:
    """The write of one rollout is delayed: the moves of three others wait, one is aborted, two go on after it.

    All of them are then taken over rarely: the first move after an approval from its first watch on.
    """
    worker = KillingWorker(lab, "scale_old#1:before:wait", environment={"SEGUE_MOVES_AT_ONCE": "1"})
    change = DeploymentSubject(lab, "middle").changed(2, "never-ready")
    async with (
        lab.case("later", 2, strategy=ASKS, tuning=AT_ONCE) as later,
        lab.case("back", 2, strategy=ASKS, tuning=AT_ONCE) as back,
        lab.case("middle", 2, change, tuning=LATER) as middle,
    ):
        for case in (later, back):
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        await middle.reaches(2, 1, ready=False)
        strategy = {"maxSurge": 0, "maxUnavailable": 1}
        async with lab.case("first", 2, strategy=strategy, tuning=AT_ONCE) as first:
            await worker.until_accident()
            await middle.mend(1, 2, 1)
            await asyncio.gather(later.run.send("approve"), back.run.send("approve"))
            await asyncio.gather(*(waits(case) for case in (later, back, middle)))
            await back.run.send("abort")
            await back.ends("Aborted")
            worker.go()
            await first.ends("Completed")
            await later.ends("Completed")
            await middle.mend(2, 0, 2)
            await middle.ends("Completed")


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
