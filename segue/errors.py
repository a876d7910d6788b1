"""Every error that Segue raises on purpose.

SegueError                  exit 1   something that should not happen
├── Refused                 exit 2   the input is refused; the message names field, value and fix
│   ├── NotFound            exit 2   the target (or the rollout) does not exist
│   ├── NotAllowed          exit 2   the cluster's access rules forbid it
│   ├── NotRunning          exit 2   the target runs none of the replicas that it requests (retry helps)
│   ├── Unchanged           exit 2   the target already runs the wanted version
│   └── AlreadyRolling      exit 2   a rollout of this target is under way
├── Fenced                  exit 4   the target now belongs to somebody else; a person decides
├── Cut                     exit 4   the workflow was ended in Temporal; nothing was rolled back
├── Failing                 exit 4   the workflow's code fails at each attempt: no progress, and no message is handled
├── Conflict                exit 1   the object changed between reading and writing; read again (retry helps)
├── Stale                   exit 1   the decision does not fit the current state; decide again (retry helps)
│   └── Unadmitted          exit 5   an admission webhook does not answer, so nothing was written (retry helps)
├── Rewritten               exit 1   admission would store another version than the wanted one; decide again
├── Expired                 exit 1   the watch's version is too old; list again (retry helps)
├── Unreachable             exit 5   Temporal, the cluster or a worker does not answer (retry helps)
├── Unanswered              exit 1   a gate gave no usable answer (retry helps)
├── StatesUnknown           exit 1   a replica did not report the states of its models (retry helps)
├── Unanswerable            exit 1   a gate's question has a variable without a value for this target
├── Unreadable              exit 1   the rollout's data has a value that only a newer release knows
├── Denied                  exit 1   a request to the codec server has no accepted token
└── TimedOut                exit 6   waiting took longer than the caller allowed

``retryable`` is whether a retry can help.
"""

from enum import IntEnum
from typing import Any, ClassVar


class Exit(IntEnum):
    """What the ``segue`` command's exit code means."""

    COMPLETED = 0
    UNEXPECTED = 1
    REFUSED = 2
    ROLLED_BACK = 3
    NEEDS_PERSON = 4
    UNREACHABLE = 5
    TIMED_OUT = 6


_SHOWN_LENGTH = 200
_AS_IN_YAML = {True: "true", False: "false"}


def shown(value: Any) -> str:
    """Return a value as a message shows it, as YAML writes it: of a long one, its beginning and its length."""
    text = _AS_IN_YAML.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    if len(text) <= _SHOWN_LENGTH:
        return text
    length = len(value) if isinstance(value, str) else len(text)
    return f"{text[:_SHOWN_LENGTH]}… ({length:,} characters)"


class SegueError(Exception):
    """The root: catch it to catch every error of Segue."""

    exit_code: ClassVar[Exit] = Exit.UNEXPECTED
    retryable: ClassVar[bool] = False


class Refused(SegueError):
    """The input is refused. ``str()`` of it reads ``field: value: why; fix``."""

    exit_code = Exit.REFUSED
    missing: bool = False
    """Whether something does not exist, which may come."""

    def __init__(self, why: str, *, field: str = "", value: Any = None, fix: str = "") -> None:
        self.why, self.field, self.value, self.fix = why, field, value, fix
        head = f"{field}: " if field else ""
        what = f"{shown(value)}: " if value is not None else ""
        tail = f"; {fix}" if fix else ""
        self.found = f"{head}{what}{why}"
        """The message without the fix."""
        super().__init__(f"{self.found}{tail}")


class NotFound(Refused):
    """The named object does not exist."""

    missing = True


class NotAllowed(Refused):
    """The cluster's access rules forbid it."""


class NotRunning(Refused):
    """The target runs none of the replicas that it requests: its only one may just be replaced."""

    retryable = True


class Unchanged(Refused):
    """The target already runs the wanted version."""


class AlreadyRolling(Refused):
    """A rollout of this target is under way."""


class Fenced(SegueError):
    """The target belongs to another rollout, or was released: this rollout must not write any more."""

    exit_code = Exit.NEEDS_PERSON


class Cut(SegueError):
    """The workflow was terminated, cancelled or timed out in Temporal; nothing was rolled back."""

    exit_code = Exit.NEEDS_PERSON


class Failing(SegueError):
    """The workflow's own code fails at each attempt: it makes no progress until another release runs."""

    exit_code = Exit.NEEDS_PERSON


class Conflict(SegueError):
    """The object changed between reading and writing (HTTP 409): read again, decide again."""

    retryable = True


class Stale(SegueError):
    """The decision does not fit the current state; nothing was written."""

    retryable = True


class Unadmitted(Stale):
    """An admission webhook does not answer: the API server wrote nothing."""

    exit_code = Exit.UNREACHABLE


class Rewritten(SegueError):
    """Admission would store another version than the wanted one; nothing was written. ``made`` is that version."""

    def __init__(self, why: str, made: Any) -> None:
        super().__init__(why)
        self.made = made


class Expired(SegueError):
    """The watch's resource version is too old (HTTP 410): list again."""

    retryable = True


class Unanswered(SegueError):
    """There is no usable answer: an outage, a refusal, too much data, or the wrong shape."""

    retryable = True


class StatesUnknown(SegueError):
    """A replica did not report the states of its models. ``loads``: its server reports that it still loads."""

    retryable = True

    def __init__(self, message: str, *, loads: bool) -> None:
        super().__init__(message)
        self.loads = loads


class Unanswerable(SegueError):
    """A question has a variable without a value for this target; the message names it and why."""


class Unreachable(SegueError):
    """Temporal, the cluster or a worker does not answer. ``str()`` of it reads ``why; fix``."""

    exit_code = Exit.UNREACHABLE
    retryable = True

    def __init__(self, why: str, *, fix: str = "") -> None:
        self.why, self.fix = why, fix
        super().__init__(f"{why}; {fix}" if fix else why)


class Unreadable(SegueError):
    """A rollout's data has a value that this release does not know: a newer release wrote it."""


class Denied(SegueError):
    """A token is not accepted; the message has the reason, and nothing of the token."""


class TimedOut(SegueError):
    """Waiting took longer than the caller allowed; the operation itself continues."""

    exit_code = Exit.TIMED_OUT
