"""A tally counts the answers of a gate so far. It is part of the rollout's state."""

from typing import Self

from segue.gates.verdict import Result, Verdict
from segue.observation import Frozen
from segue.spec.gate_policy import GatePolicy

ALONG = -1
"""The sitting of a continuous gate while the rollout is between two stops."""


class Tally(Frozen):
    """One gate's answers. A *sitting* is one stop (a waypoint or the end) at which the gate is evaluated."""

    gate: str
    opened: float
    """When the gate's evidence began: seconds since the epoch."""
    sitting: int = ALONG
    """The stop, as the number of waypoints passed before it."""
    since: float = 0.0
    """When this sitting began: seconds since the epoch."""
    next_at: float = 0.0
    """When the next measurement is due: seconds since the epoch."""
    measurements: int = 0
    """How many were made in all; the number of the next one."""
    conclusive: int = 0
    """Measurements of this sitting that passed or failed."""
    passed: int = 0
    """Measurements of this sitting that passed."""
    failed: int = 0
    """Failed measurements of this sitting; of all sittings for a continuous gate."""
    inconclusive: int = 0
    """Inconclusive measurements of this sitting."""
    errors: int = 0
    """Consecutive measurements without an answer."""
    last: Verdict | None = None

    def reopened(self, gate: GatePolicy, sitting: int, now: float) -> Self:
        """Return the tally at the beginning of the next sitting."""
        begins = now + gate.initial_delay.total_seconds()
        return self.model_copy(
            update={
                "sitting": sitting,
                "since": now,
                "next_at": max(self.next_at, begins),
                "conclusive": 0,
                "passed": 0,
                "inconclusive": 0,
                "errors": 0,
                "failed": self.failed if gate.continuous else 0,
            }
        )

    def after(self, gate: GatePolicy, verdict: Verdict, now: float) -> Self:
        """Return the tally with one more answer."""
        conclusive = verdict.counts and verdict.result is not Result.INCONCLUSIVE
        return self.model_copy(
            update={
                "measurements": self.measurements + 1,
                "next_at": now + gate.interval.total_seconds(),
                "conclusive": self.conclusive + conclusive,
                "passed": self.passed + (conclusive and verdict.result is Result.PASS),
                "failed": self.failed + (conclusive and verdict.result is Result.FAIL),
                "inconclusive": self.inconclusive + (verdict.counts and not conclusive),
                "errors": 0 if verdict.counts else self.errors + 1,
                "last": verdict,
            }
        )
