"""Verdicts: a gate's answer, with the reason and the evidence for a person."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from segue.observation import Cause, Frozen, Problem


class Result(StrEnum):
    """A gate's answer. Without enough evidence it is inconclusive: the rollout holds and never passes."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class VerdictEvidence(Frozen):
    """The evidence of a verdict, small enough for a workflow history."""

    numbers: dict[str, float] = Field(default_factory=dict)
    """Estimates, sample sizes and bounds, by name."""
    texts: dict[str, str] = Field(default_factory=dict)
    """Queries, addresses, excerpts of answers."""


class Verdict(Frozen):
    """One gate's answer, with the reason for a person."""

    gate: str
    result: Result
    why: str
    problem: Problem | None = None
    evidence: VerdictEvidence | None = None
    at: float = 0.0
    """When the gate gave it: seconds since the epoch."""
    counts: bool = True
    """Whether it is evidence. False if there was no answer, as in an outage."""


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the decisive verdict: the first failure, else the first inconclusive one, else a pass.

    Raises:
        ValueError: if there are no verdicts.
    """
    if not verdicts:
        raise ValueError("no gate was evaluated")
    rank = [Result.FAIL, Result.INCONCLUSIVE, Result.PASS]
    return min(verdicts, key=lambda v: rank.index(v.result))


def failure_of(verdict: Verdict) -> Problem:
    """Return the problem of a failed verdict."""
    return verdict.problem or Problem(cause=Cause.GATE, message=f"{verdict.gate}: {verdict.why}")
