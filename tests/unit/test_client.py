"""The client's own part: what it refuses to send, and what it makes of what Temporal tells."""

from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from segue.client import Rollouts, last_task_failure
from segue.errors import Refused
from segue.messages import MESSAGES, Abort, Message, Pause

NOWHERE = Rollouts(cast("Any", None))
"""It has no client: what it sends would be an error of another kind."""


@pytest.mark.parametrize("answer", [True, False], ids=["update", "signal"])
@pytest.mark.parametrize(("name", "message"), [("pause", Abort()), ("abort", Pause()), ("stop", Abort())])
async def test_a_message_under_another_name_is_not_sent(name: str, message: Message, answer: bool) -> None:
    with pytest.raises(Refused, match=f"^{name}: '{type(message).__name__}': is not the message of that name; send"):
        await NOWHERE.send("rollout/a/b/c/d", name, message, answer=answer)


async def test_each_message_goes_under_its_own_name() -> None:
    """It gets as far as the client, which is not there."""
    for name, kind in MESSAGES.items():
        with pytest.raises(AttributeError):
            await NOWHERE.send("rollout/a/b/c/d", name, kind.model_construct())


SCHEDULED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED)
SIGNALED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
COMPLETED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
TIMED_OUT = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)
FAILED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
FAILED.workflow_task_failed_event_attributes.failure.message = "boom"
UNTOLD = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)


@pytest.mark.parametrize(
    ("newest_first", "failure"),
    [
        ([FAILED, SCHEDULED], "boom"),
        ([SIGNALED, SCHEDULED, FAILED, COMPLETED], "boom"),
        ([UNTOLD], "no reason given"),
        ([COMPLETED, FAILED], ""),
        ([TIMED_OUT, FAILED], ""),
        ([SCHEDULED], ""),
    ],
)
def test_a_workflow_that_fails_is_told_by_its_latest_task(newest_first: list[HistoryEvent], failure: str) -> None:
    """A worker that died, or is away, lets a task time out; only code that fails says so."""
    assert last_task_failure(newest_first) == failure
