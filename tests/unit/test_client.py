"""The client's own part: what it refuses to send, and what it makes of what Temporal tells."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo

import segue
from segue import Client
from segue.client import Rollouts, latest_failure, task_failure
from segue.codec import data_converter
from segue.contract import Task
from segue.errors import Refused
from segue.library import rollout_of
from segue.messages import MESSAGES, name_of

NOWHERE, NAMED = Rollouts(cast("Any", None)), Client(cast("Any", None))
"""It has no client: what it sends would be an error of another kind."""


async def test_each_message_goes_under_its_own_name() -> None:
    """It gets as far as the client, which is not there."""
    for name, kind in MESSAGES.items():
        message = kind.model_construct()
        assert name_of(message) == name
        with pytest.raises(AttributeError, match="NoneType"):
            await NOWHERE.send("rollout/a/b/c/d", message)


def test_the_package_loads_no_client_until_it_is_used() -> None:
    """Workflow code imports it, and needs no client."""
    code = (
        "import sys, segue, segue.contract; assert 'temporalio.client' not in sys.modules; "
        "from segue import Client; assert Client.__module__ == 'segue.library'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Clients'"):
        segue.Clients  # noqa: B018


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param({"kind": "Rollout"}, "apiVersion", id="not a rollout"),
        pytest.param("no-such.yaml", "no-such.yaml", id="no such file"),
    ],
)
def test_what_is_no_rollout_is_refused(given: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        rollout_of(given)


@pytest.mark.parametrize(("strategy", "known"), [({"maxSurge": 3}, True), ({"ofANewerRelease": 3}, False)])
async def test_a_status_needs_no_spec_that_a_newer_client_sent(strategy: dict[str, Any], known: bool) -> None:
    """The strategy from the history only completes the status."""
    spec = {
        "target": {"kind": "Deployment", "namespace": "serving", "name": "chat"},
        "change": {"images": {"server": "chat:2"}}, "strategy": strategy,
    }  # fmt: skip
    converter = data_converter()
    rollouts = Rollouts(cast("Any", SimpleNamespace(data_converter=converter)))
    task = await rollouts._decoded(await converter.encode([{"spec": spec, "name": "chat"}]), Task)
    assert (task is not None and task.spec.strategy.max_surge == 3) is known


async def test_an_invalid_message_is_refused_with_its_field() -> None:
    with pytest.raises(Refused, match="replicas"):
        await NAMED.scale("serving/chat", 0)


async def test_images_beside_a_change_are_refused() -> None:
    """They were left out, and another version than the one named was rolled."""
    with pytest.raises(Refused, match=r"images: .*: cannot be combined with change; put the images into change"):
        await NAMED.retarget("serving/chat", change={"env": {"a": {"B": "1"}}}, images={"a": "b:2"})


SCHEDULED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED)
SIGNALED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
COMPLETED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
TIMED_OUT = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)
FAILED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
FAILED.workflow_task_failed_event_attributes.failure.message = "boom"
UNTOLD = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
STARVED = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
STARVED.workflow_task_failed_event_attributes.failure.message = "[TMPRL1101] Potential deadlock detected"
UNCLEAR = "attempt 3; Temporal keeps the reason only of the first attempt, which {}: see the log of the workers"


@pytest.mark.parametrize(
    ("attempt", "newest_first", "failure"),
    [
        (2, [FAILED, SCHEDULED], "boom"),
        (2, [SIGNALED, SCHEDULED, FAILED, COMPLETED], "boom"),
        (2, [UNTOLD], "no reason given"),
        (2, [COMPLETED, FAILED], ""),
        (2, [TIMED_OUT, FAILED], ""),
        (2, [SCHEDULED], ""),
        (2, [STARVED], ""),
        (3, [SCHEDULED, TIMED_OUT, FAILED], UNCLEAR.format("timed out")),
        (3, [STARVED, COMPLETED], UNCLEAR.format("got no CPU")),
    ],
)
def test_a_workflow_that_fails_is_told_by_its_latest_task(
    attempt: int, newest_first: list[HistoryEvent], failure: str
) -> None:
    """One worker that died, or is away or busy, lets a task time out; one after the other does not."""
    found = task_failure(attempt, newest_first)
    assert found.startswith(failure) and bool(found) == bool(failure)


def tried(name: str, *, failure: str = "", timed_out: bool = False) -> PendingActivityInfo:
    found = PendingActivityInfo()
    found.activity_type.name = name
    if timed_out:
        found.last_failure.timeout_failure_info.SetInParent()
    if failure:
        found.last_failure.message = failure
        found.last_failure.application_failure_info.SetInParent()
    return found


@pytest.mark.parametrize(
    ("pending", "failure"),
    [
        pytest.param(tried("undo"), None, id="first attempt"),
        pytest.param(tried("undo", failure="no answer"), "no answer", id="a write that failed"),
        pytest.param(tried("undo", timed_out=True), None, id="its worker was lost"),
        pytest.param(tried("await_ready", failure="no answer"), None, id="a watch runs again"),
    ],
)
def test_why_an_activity_is_tried_again(pending: PendingActivityInfo, failure: str | None) -> None:
    found = latest_failure([tried("await_ready"), pending])
    assert (found and found.message) == failure
