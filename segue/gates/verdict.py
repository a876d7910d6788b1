"""A verdict: the answer to one question, with the reason and the evidence for a person."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from segue.observation import Cause, Frozen, Problem


class Result(StrEnum):
    """A gate's answer. Not enough evidence is inconclusive: the rollout holds, it never passes."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class VerdictEvidence(Frozen):
    """What a verdict rests on, small enough to be kept in a history."""

    numbers: dict[str, float] = Field(default_factory=dict)
    """Estimates, sample sizes and bounds, by what they are."""
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
    """When it was given: seconds since the epoch."""
    counts: bool = True
    """Whether it is an answer. False where nobody could be asked (an outage), which is no evidence at all."""


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the one that counts: the first failure, else the first inconclusive one, else a pass.

    Raises:
        ValueError: for no verdicts: nothing asked is nothing known.
    """
    if not verdicts:
        raise ValueError("no gate was evaluated")
    rank = [Result.FAIL, Result.INCONCLUSIVE, Result.PASS]
    return min(verdicts, key=lambda v: rank.index(v.result))


def failure_of(verdict: Verdict) -> Problem:
    """Return what a failed verdict says went wrong."""
    return verdict.problem or Problem(cause=Cause.GATE, message=f"{verdict.gate}: {verdict.why}")
