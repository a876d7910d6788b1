"""A worker with production's plugin and only two pollers, so that two queries take all that it polls for."""

import asyncio
from datetime import timedelta
from typing import NoReturn

from temporalio import activity, workflow
from temporalio.common import SearchAttributeKey
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from segue.contract import PHASE_ATTRIBUTE
from worker.__main__ import connecting
from worker.compose import STICKY_LIMIT
from worker.settings import load_settings

PHASE = SearchAttributeKey.for_keyword(PHASE_ATTRIBUTE)
ACTIVITY_ID = "completed-by-the-test"


@activity.defn
async def wait() -> NoReturn:
    """The test completes it."""
    activity.raise_complete_async()


@workflow.defn
class Asks:
    """As a rollout does, it shows a phase, waits for an approval, and shows the next phase."""

    def __init__(self) -> None:
        self._is_approved = False

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(wait, activity_id=ACTIVITY_ID, start_to_close_timeout=timedelta(minutes=5))
        workflow.upsert_search_attributes([PHASE.value_set("AwaitingApproval")])
        await workflow.wait_condition(lambda: self._is_approved)
        workflow.upsert_search_attributes([PHASE.value_set("Completed")])

    @workflow.query
    def approved(self) -> bool:
        return self._is_approved

    @workflow.update
    async def approve(self) -> None:
        self._is_approved = True


async def main() -> None:
    settings = load_settings()
    client = await connecting(settings)()
    async with Worker(
        client, task_queue=settings.task_queue, workflows=[Asks], activities=[wait],
        workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
        sticky_queue_schedule_to_start_timeout=STICKY_LIMIT,
    ):  # fmt: skip
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
