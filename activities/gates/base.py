"""What every gate's asker does, and what it may know."""

from typing import NamedTuple, Protocol, TypeVar

from segue.gates import Verdict
from segue.gates.tally import Tally
from segue.observation import Observation
from segue.spec import Rules, Target
from segue.spec.gate_policy import GatePolicy
from segue.state import State

G_contra = TypeVar("G_contra", bound=GatePolicy, contravariant=True)


class GateContext(NamedTuple):
    """What a gate may know of the rollout."""

    target: Target
    rules: Rules
    state: State
    seen: Observation
    """With the replicas of each side."""
    tally: Tally
    """Its answers so far: since when there is evidence (``opened``), and the number of this measurement (``asked``)."""
    now: float
    """Seconds since the epoch."""


class Asker(Protocol[G_contra]):
    """Asks one kind of gate.

    Asked again with the same tally it must not do again what cannot be done twice: a worker may die in between.
    """

    async def ask(self, gate: G_contra, context: GateContext) -> Verdict:
        """Return the verdict; not enough evidence is inconclusive, never a pass.

        Raises:
            SegueError: when nobody could be asked. It is no evidence (``counts`` is false), and asked again.
        """
        ...
