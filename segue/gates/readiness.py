"""The gate of every rollout: new replicas stay ready."""

from segue.gates.verdict import Result, Verdict
from segue.observation import Observation
from segue.spec import Rules
from segue.units import counted


def judge_readiness(rules: Rules, seen: Observation, lacking: int = 0) -> Verdict:
    """Return whether new replicas stay Ready for ``readiness.minReady``, within the allowed restarts.

    ``lacking`` is the number of replicas that were not ready before the rollout. As many new ones may be unready.
    """
    name = "readiness"
    if seen.problem is not None and seen.problem.hopeless:
        return Verdict(gate=name, result=Result.FAIL, why=str(seen.problem), problem=seen.problem)
    if seen.new.proven < seen.new.total - lacking:
        short = f"{seen.new.proven} of {seen.new.total} new replicas proven"
        return Verdict(gate=name, result=Result.INCONCLUSIVE, why=short)
    min_ready_s = rules.readiness.min_ready.total_seconds()
    proven, restarts = counted(seen.new.proven, "new replica"), counted(rules.readiness.max_restarts, "restart")
    why = f"{proven} Ready for {min_ready_s:g} s, at most {restarts}"
    return Verdict(gate=name, result=Result.PASS, why=why)
