"""Translates the errors of Temporal's library into Segue's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from temporalio.client import (
    RPCTimeoutOrCancelledError,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError, TemporalError, WorkflowAlreadyStartedError
from temporalio.exceptions import TimeoutError as TimedOutInTemporal
from temporalio.service import RPCError, RPCStatusCode

from segue import contract, errors
from segue.errors import AlreadyRolling, Cut, NotAllowed, NotFound, Refused, SegueError, Unreachable, Unreadable, shown
from segue.pollers import no_worker

DENIED = "check that TEMPORAL_API_KEY is set, has not expired, and permits this in the namespace of TEMPORAL_NAMESPACE"
"""The fix of a request that Temporal denies."""


@contextmanager
def translated(what: str, task_queue: str = contract.TASK_QUEUE) -> Iterator[None]:
    """Turn every error of Temporal's library into a chained ``SegueError``. ``what`` names the target."""
    try:
        yield
    except ValidationError as error:
        raise _unreadable(error, what) from error
    except (TemporalError, TimeoutError) as error:
        raise _translation(error, what, task_queue) from error


def _unreadable(error: ValidationError, what: str) -> Unreadable:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return Unreadable(
        f"the rollout of {what} has data that this release of Segue does not know: {where}: {shown(first['input'])}; "
        "use the release of its worker"
    )


def _translation(error: TemporalError | TimeoutError, what: str, task_queue: str) -> SegueError:
    ours: SegueError
    match error:
        case WorkflowAlreadyStartedError():
            ours = AlreadyRolling(f"a rollout of {what} is under way", fix=JOIN_FIX)
        case WorkflowUpdateFailedError() | WorkflowFailureError():
            ours = _from_failure(error.cause, what)
        case WorkflowQueryFailedError() if STARVED in str(error):
            ours = Unreachable(
                f"the worker on task queue {task_queue} is too busy to answer for the rollout of {what}; try again, "
                "and give the worker more CPU if it stays so"
            )
        case WorkflowQueryFailedError() | WorkflowQueryRejectedError():
            ours = SegueError(f"the rollout of {what} could not answer: {error}")
        case RPCError():
            ours = _from_status(error, what, task_queue)
        case RPCTimeoutOrCancelledError() | TimeoutError():
            ours = no_worker(task_queue)
        case _:
            ours = SegueError(f"Temporal: {error}")
    return ours


STARVED = "TMPRL1101"
"""The SDK's code for workflow code that did not yield for two seconds: Segue's never blocks, but may get no CPU."""

JOIN_FIX = "watch it with `segue watch`, or give it this file's change with `segue start --join`"


def _from_status(error: RPCError, what: str, task_queue: str) -> SegueError:
    ours: SegueError
    match error.status:
        case RPCStatusCode.NOT_FOUND:
            ours = _not_found(error.message, what)
        case RPCStatusCode.UNAUTHENTICATED | RPCStatusCode.PERMISSION_DENIED:
            ours = NotAllowed(f"Temporal denies the request: {error.message.rstrip('.')}", fix=DENIED)
        case RPCStatusCode.INVALID_ARGUMENT:
            search = "search attribute" in error.message.lower()
            fix = "run `segue setup`, which registers Segue's search attributes" if search else ""
            ours = Refused(f"Temporal rejects the request: {error.message}", fix=fix)
        case RPCStatusCode.FAILED_PRECONDITION | RPCStatusCode.DEADLINE_EXCEEDED | RPCStatusCode.CANCELLED:
            ours = no_worker(task_queue)
        case _:
            ours = Unreachable(f"Temporal does not answer ({error.status.name}: {error.message}); try again")
    return ours


def _not_found(text: str, what: str) -> Refused:
    if "already completed" in text:
        return Refused(f"the rollout of {what} has ended", fix=f"see `segue report {what}`, or start a new one")
    if "amespace" in text:
        fix = "set it to a namespace that your Temporal has"
        return NotFound(text.rstrip("."), field="TEMPORAL_NAMESPACE", fix=fix)
    return NotFound(f"no rollout of {what} exists", fix="`segue list` shows the existing ones")


def _from_failure(cause: BaseException | None, what: str) -> SegueError:
    """Return the ``SegueError`` that the workflow or its activity failed with."""
    found: ApplicationError | None = None
    last = cause
    while cause is not None:
        if isinstance(cause, ApplicationError):
            found = cause
            if _class_of(found) is not None:
                return _ours(found)
        cause = cause.__cause__
    if found is not None:
        return SegueError(f"the rollout of {what} failed: {found.message}")
    ended = (
        "ended in Temporal, because its time was over"
        if isinstance(last, TimedOutInTemporal)
        else "was terminated in Temporal"
    )
    return Cut(
        f"the workflow of {what} {ended}; nothing was rolled back: check the target, "
        f"then finish or roll back with `segue release {what}`, or start again"
    )


def _class_of(error: ApplicationError) -> type[SegueError] | None:
    kind = getattr(errors, error.type or "", None)
    return kind if isinstance(kind, type) and issubclass(kind, SegueError) else None


def _ours(error: ApplicationError) -> SegueError:
    """Rebuild the error; its message is already the whole sentence."""
    rebuilt = (_class_of(error) or SegueError)(error.message)
    details = error.details[0] if error.details else None
    if isinstance(rebuilt, Refused) and isinstance(details, dict):
        rebuilt.field, rebuilt.fix = str(details.get("field", "")), str(details.get("fix", ""))
        rebuilt.value, rebuilt.missing = details.get("value"), bool(details.get("missing", rebuilt.missing))
    return rebuilt
