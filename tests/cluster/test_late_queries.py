"""A query that reaches a worker late must not change the order in which the workflow handles what happened."""

import asyncio
import signal

import pytest
from harness import Lab, until
from late_query_worker import ACTIVITY_ID, Asks
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.client import WorkflowHandle
from temporalio.worker import Replayer

from worker.compose import make_plugin

STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
TIMED_OUT = EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT


@pytest.mark.soak
async def test_the_history_replays(lab: Lab) -> None:
    """While a worker is frozen, two queries wait, the workflow's activity ends, and an update arrives.

    The second query reaches the worker with the activity's end, before the workflow task that has the update.
    """
    worker = lab.worker(module="late_query_worker")
    handle = await lab.temporal.start_workflow(Asks.run, id=f"{lab.namespace}-asks", task_queue=lab.task_queue)
    await until("the activity to start", lambda: _has_started(handle))
    assert await handle.query(Asks.approved) is False
    worker.send(signal.SIGSTOP)
    try:
        queries = [asyncio.create_task(handle.query(Asks.approved)) for _ in range(2)]
        answered, _ = await asyncio.wait(queries, timeout=0.5)
        assert not answered
        activity = lab.temporal.get_async_activity_handle(workflow_id=handle.id, run_id=None, activity_id=ACTIVITY_ID)
        await activity.complete()
        update = asyncio.create_task(handle.execute_update(Asks.approve))
        await until("its task to wait for any worker", lambda: _has(handle, TIMED_OUT))
    finally:
        worker.send(signal.SIGCONT)
    await update
    await handle.result()
    for query in queries:
        query.cancel()
    await asyncio.gather(*queries, return_exceptions=True)
    await Replayer(workflows=[Asks], plugins=[make_plugin(())]).replay_workflow(await handle.fetch_history())


async def _has_started(handle: WorkflowHandle[Asks, None]) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    return any(each.state == STARTED for each in pending)


async def _has(handle: WorkflowHandle[Asks, None], what: EventType.ValueType) -> bool:
    return any(event.event_type == what for event in (await handle.fetch_history()).events)
