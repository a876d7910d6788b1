"""A notification: one small workflow for one message to one receiver.

A rollout starts it and never waits for its end. It outlives the rollout, and its id makes each message unique.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from segue import contract
    from segue.contract import Notified, NotifyInput

PATIENCE = timedelta(hours=6)
"""A receiver that is away for longer does not get the message."""
ATTEMPT_LIMIT = timedelta(minutes=2)


@workflow.defn(name=contract.NOTIFICATION_WORKFLOW)
class NotificationWorkflow:
    """One message to one receiver, tried until it is accepted."""

    @workflow.run
    async def run(self, request: NotifyInput) -> Notified:
        """Send the message; fails when the receiver has not accepted it in time."""
        sent: Notified = await workflow.execute_activity(
            contract.NOTIFY.name,
            request,
            result_type=Notified,
            task_queue=contract.activity_queue(workflow.info().task_queue, request.cluster),
            start_to_close_timeout=ATTEMPT_LIMIT,
            schedule_to_close_timeout=PATIENCE,
            heartbeat_timeout=timedelta(seconds=request.heartbeat_s),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5)),
            summary=f"{request.notice.event} to {request.receiver}",
        )
        return sent
