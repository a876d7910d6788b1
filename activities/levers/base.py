"""What every lever does. The workflow knows no more of a kind of target than this."""

from typing import Protocol

from activities.watching import NamespaceWatch
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.history import Revision
from segue.lint.target import LintSubject
from segue.observation import Observation
from segue.spec import Change, Rules, Target
from segue.state import State


class Lever(Protocol):
    """Holds one kind of target at exactly (old, new), and puts it back.

    Every write is idempotent, is made only by the target's owner, has the read object's resource version as its
    precondition, and is checked against floor and ceiling on what is read in the same breath.
    """

    kinds: tuple[str, ...]
    """What it must see of a namespace."""

    async def history(self, target: Target) -> list[Revision]:
        """Return the revisions that there are of the target, the oldest first.

        Raises:
            Refused: for a target that has none.
        """
        ...

    async def judged(self, target: Target, change: Change | None) -> LintSubject:
        """Return what lint judges: the target as it is when no rollout holds it, and what a change makes of it.

        Raises:
            Refused: when the change does not fit the target.
        """
        ...

    async def prepare(self, asked: PrepareInput) -> Prepared:
        """Look at the target and let the API server try the change; write nothing."""
        ...

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State, now: float) -> Observation | None:
        """Return what the shared watch shows; none while it is older than the latest write."""
        ...

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read the target afresh."""
        ...

    async def scale(self, asked: WriteInput, now: float) -> Written:
        """Hold the target at ``asked.decision.counts``; the first time, claim it and write the wanted template."""
        ...

    async def resize(self, asked: WriteInput, now: float) -> Written:
        """Set the target's replicas."""
        ...

    async def settle(self, asked: WriteInput, now: float) -> Written:
        """Take back new replicas that were asked for and are not ready."""
        ...

    async def undo(self, asked: WriteInput, now: float) -> Written:
        """Put the baseline back, such that the target's own controller goes there and holds the floor alone."""
        ...

    async def finish(self, asked: WriteInput, now: float) -> Written:
        """Restore everything that was changed only for the rollout, and give the target free."""
        ...
