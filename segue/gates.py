"""Gates: what is asked at a waypoint and at the end, and how the answers add up. Judging only; asking is elsewhere."""

from collections.abc import Sequence
from enum import StrEnum

from segue.observation import Cause, Frozen, Observation, Problem
from segue.spec import Rules


class Result(StrEnum):
    """A gate's answer. Not enough evidence is inconclusive: the rollout holds, it never passes."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Verdict(Frozen):
    """One gate's answer, with the reason for a person."""

    gate: str
    result: Result
    why: str
    problem: Problem | None = None


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the one that counts: the first failure, else the first inconclusive one, else a pass.

    Raises:
        ValueError: for no verdicts: nothing asked is nothing known.
    """
    if not verdicts:
        raise ValueError("no gate was asked")
    rank = [Result.FAIL, Result.INCONCLUSIVE, Result.PASS]
    return min(verdicts, key=lambda v: rank.index(v.result))


def judge_readiness(rules: Rules, seen: Observation) -> Verdict:
    """New replicas stay Ready for ``readiness.minReady`` and did not restart more than allowed."""
    name = "readiness"
    if seen.problem is not None and seen.problem.hopeless:
        return Verdict(gate=name, result=Result.FAIL, why=str(seen.problem), problem=seen.problem)
    if seen.new.proven < seen.new.total:
        short = f"{seen.new.proven} of {seen.new.total} new replicas proven"
        return Verdict(gate=name, result=Result.INCONCLUSIVE, why=short)
    held = rules.readiness.min_ready.total_seconds()
    why = f"{seen.new.proven} new replicas Ready for {held:g} s, at most {rules.readiness.max_restarts} restarts"
    return Verdict(gate=name, result=Result.PASS, why=why)


def failure_of(verdict: Verdict) -> Problem:
    """Return what a failed verdict says went wrong."""
    return verdict.problem or Problem(cause=Cause.GATE, message=f"{verdict.gate}: {verdict.why}")
