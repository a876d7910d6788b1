"""What a requester gets for an error: its own words where it has some, else what to do about it."""

import pytest
from activity_errors import of_activity
from temporalio.exceptions import ApplicationError, CancelledError, TimeoutType
from temporalio.exceptions import TimeoutError as TimedOut

from segue.errors import Refused
from workflows.rollout import _is_temporals, _refusal_of

LATE = TimedOut("too late", type=TimeoutType.SCHEDULE_TO_CLOSE, last_heartbeat_details=[])
DENIED = ApplicationError("is denied", {"fix": "grant it"}, type="NotAllowed")


@pytest.mark.parametrize(
    ("error", "kind", "message", "details"),
    [
        pytest.param(DENIED, "NotAllowed", "is denied", ({"fix": "grant it"},), id="an-answer"),
        pytest.param(of_activity(DENIED), "NotAllowed", "is denied", ({"fix": "grant it"},), id="of-an-activity"),
        pytest.param(of_activity(LATE), "Unreachable", "the target could not be read in time: too late", (), id="late"),
        pytest.param(ValueError("odd"), "SegueError", "Segue itself failed (ValueError: odd)", (), id="a-fault"),
    ],
)
def test_an_error_becomes_an_answer(error: Exception, kind: str, message: str, details: tuple[object, ...]) -> None:
    """Temporal does not try it again."""
    refusal = _refusal_of(error)
    assert (refusal.type, refusal.non_retryable, tuple(refusal.details)) == (kind, True, details)
    assert str(refusal.message).startswith(message)


def test_a_refusal_keeps_its_field_and_its_fix() -> None:
    refusal = _refusal_of(Refused("is odd", field="spec.x", value=3, fix="use 4"))
    assert (refusal.type, refusal.details[0]["field"], refusal.details[0]["fix"]) == ("Refused", "spec.x", "use 4")


@pytest.mark.parametrize("error", [CancelledError("c"), of_activity(CancelledError("c"))])
def test_a_cancel_is_no_refusal(error: Exception) -> None:
    with pytest.raises(type(error)):
        _refusal_of(error)


def test_only_temporals_own_errors_fail_a_workflow_task() -> None:
    assert not _is_temporals(DENIED)
    assert not _is_temporals(ValueError("odd"))
