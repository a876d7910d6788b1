"""The interface of every gate's asker, and the context that it gets."""

from typing import NamedTuple, Protocol, TypeVar

from segue.gates import Verdict
from segue.gates.tally import Tally
from segue.observation import Observation
from segue.spec import Rules, Target
from segue.spec.gate_policy import GatePolicy
from segue.state import State

G_contra = TypeVar("G_contra", bound=GatePolicy, contravariant=True)


class GateContext(NamedTuple):
    """What a gate may know about the rollout."""

    target: Target
    rules: Rules
    state: State
    seen: Observation
    """With the replicas of each side."""
    tally: Tally
    """Its answers so far: when its evidence began (``opened``), and how many there were before (``measurements``)."""
    now: float
    """Seconds since the epoch."""


class Asker(Protocol[G_contra]):
    """Asks one kind of gate.

    If a worker dies, the gate is evaluated again with the same tally: it must not repeat what must happen only once.
    """

    async def ask(self, gate: G_contra, context: GateContext) -> Verdict:
        """Return the verdict. Without enough evidence it is inconclusive, never a pass.

        Raises:
            SegueError: if there is no answer. It is not evidence (``counts`` is false), and Segue asks again.
        """
        ...
