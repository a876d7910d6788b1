"""The error that a workflow gets from an activity."""

from temporalio.exceptions import ActivityError


def of_activity(cause: Exception, activity: str = "prepare") -> ActivityError:
    """Return the error of an activity that failed for this reason."""
    error = ActivityError(
        "failed", scheduled_event_id=1, started_event_id=2, identity="w", activity_type=activity, activity_id="1",
        retry_state=None,
    )  # fmt: skip
    error.__cause__ = cause
    return error
