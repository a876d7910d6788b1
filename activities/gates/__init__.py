"""Gates: each asks one question of the new version. A later gate is a class here and its judgement in the core."""

from typing import NamedTuple, Protocol

from segue.gates import Verdict
from segue.gates.readiness import judge_readiness
from segue.observation import Observation
from segue.spec import Rules, Target


class GateContext(NamedTuple):
    """What a gate may know."""

    target: Target
    rules: Rules
    seen: Observation


class Gate(Protocol):
    """Asks one question; collects the evidence, and leaves the judgement to the core."""

    async def ask(self, context: GateContext) -> Verdict:
        """Return the verdict; not enough evidence is inconclusive, never a pass."""
        ...


class ReadinessGate:
    """Do new replicas stay ready, without restarts?"""

    async def ask(self, context: GateContext) -> Verdict:
        """Judge what was just read."""
        return judge_readiness(context.rules, context.seen)


GATES: tuple[Gate, ...] = (ReadinessGate(),)
