"""What a revision records of the rollout that made it, and which revision an undo returns to."""

from collections.abc import Sequence
from datetime import UTC, datetime

from segue.errors import Refused
from segue.observation import Frozen, Version
from segue.spec import Change
from segue.state import Outcome

SUPERSEDED = "Superseded"
"""A version that a retarget replaced."""

RELEASED = "Released"
"""A version that a person left to the target's own controller."""


class Note(Frozen):
    """Who made a revision, when, and what became of it."""

    rollout: str
    """The workflow's id."""
    by: str
    at: float
    """When the rollout began: seconds since the epoch."""
    what: str
    """The version, as a person knows it."""
    outcome: str = ""
    """Empty while the rollout is under way."""
    why: str = ""
    """Why the rollout did not keep it."""

    @property
    def cause(self) -> str:
        """One line, for ``kubectl rollout history``."""
        began = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%MZ")
        why = f" ({self.why})" if self.why else ""
        return f"{self.outcome or 'under way'}: {self.what}, by {self.by} at {began} with segue{why}"

    def of_same_rollout(self, other: "Note") -> bool:
        """Whether one rollout left both notes."""
        return (self.rollout, self.at) == (other.rollout, other.at)


class Revision(Frozen):
    """One revision that the target's controller still keeps."""

    revision: int
    created: str
    images: dict[str, str]
    replicas: int
    current: bool
    of: str = ""
    """The object whose revision it is, when the target is more than one object."""
    cause: str = ""
    note: Note | None = None

    @property
    def was_taken_back(self) -> bool:
        """Whether a rollout made it and did not keep it; a rollout that lost its target before its end did not."""
        return self.note is not None and self.note.outcome not in {Outcome.COMPLETED, RELEASED}


def described(change: Change, version: Version) -> str:
    """Describe a version by its change, and also by its images when the change names none."""
    return change.described if change.images else f"{change.described} ({version})"


def revision_before(revisions: Sequence[Revision]) -> int:
    """Return the newest revision that is neither current nor taken back.

    Raises:
        Refused: when there is no such revision.
    """
    earlier = [r.revision for r in revisions if not r.current and not r.was_taken_back]
    if not earlier:
        raise Refused(
            "has no earlier revision to go back to",
            field="target",
            fix="see `segue history` and name one with --to-revision, or start a rollout with a spec",
        )
    return max(earlier)
