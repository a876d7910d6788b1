"""The interface of every lever: all that the workflow knows of a kind of target."""

from typing import Protocol

from activities.watching import NamespaceWatch
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.history import Revision
from segue.lint.target import LintSubject
from segue.observation import Observation
from segue.spec import Change, Rules, Target
from segue.state import State


class Lever(Protocol):
    """Holds one kind of target at exactly (old, new), and restores it.

    Every write is idempotent. Only the target's owner writes, with the resource version that it read as the
    precondition. Right before the write the lever checks floor and ceiling on what it read.
    """

    kinds: tuple[str, ...]
    """The kinds of objects that the lever watches in a namespace; the first one is the target's own."""

    async def history(self, target: Target) -> list[Revision]:
        """Return the target's revisions, the oldest first.

        Raises:
            Refused: for a target without revisions.
        """
        ...

    async def judged(self, target: Target, change: Change | None) -> LintSubject:
        """Return what lint checks: the target with its own settings, and the version that a change makes.

        Raises:
            Refused: when the change does not fit the target.
        """
        ...

    async def prepare(self, request: PrepareInput) -> Prepared:
        """Read the target and try the change by a dry run; write nothing."""
        ...

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State, now: float) -> Observation | None:
        """Return what the shared watch observes. Returns None while it is older than the latest write."""
        ...

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read the target afresh."""
        ...

    async def scale(self, request: WriteInput, now: float) -> Written:
        """Hold the target at ``request.decision.counts``; the first time, claim it and write the wanted template."""
        ...

    async def resize(self, request: WriteInput, now: float) -> Written:
        """Set the target's replicas."""
        ...

    async def settle(self, request: WriteInput, now: float) -> Written:
        """Remove the new replicas that are requested and not ready."""
        ...

    async def undo(self, request: WriteInput, now: float) -> Written:
        """Write the baseline back. The target's own controller then returns to it, and keeps the floor alone."""
        ...

    async def finish(self, request: WriteInput, now: float) -> Written:
        """Restore everything that was changed only for the rollout, and release the target."""
        ...
