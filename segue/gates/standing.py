"""The result of a gate after all measurements, and what follows. Pure; ``now`` is in seconds since the epoch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from segue.gates.tally import Tally
from segue.gates.verdict import Result, Verdict
from segue.observation import Cause, Problem
from segue.spec import OnFailure, Rules, Way
from segue.spec.gate_policy import GatePolicy, Reaction
from segue.state import Goal, State

SCORE = "score"
"""The name of the weighted gates together."""


class Breach(NamedTuple):
    """A gate that failed or stays undecided: the problem, and the reaction to it."""

    problem: Problem
    reaction: Reaction


def sitting_of(state: State) -> int:
    """Return the number of the stop that the rollout is at, or moves to."""
    return len(state.passed)


def unopened(rules: Rules, state: State, *, stops: bool) -> tuple[str, ...]:
    """Return the names of the gates to open.

    ``stops`` is true at a waypoint and at the end, where all gates are evaluated. Between stops only continuous gates
    are. The evidence of all gates begins with the first new replica, because at the end no old replica is left to
    compare with.
    """
    tallies = {gate.name: state.tally(gate.name) for gate in rules.repeated_gates}
    if stops:
        return tuple(name for name, tally in tallies.items() if tally is None or tally.sitting != sitting_of(state))
    return tuple(name for name, tally in tallies.items() if tally is None)


def foresee(rules: Rules) -> tuple[str, ...]:
    """Return a warning about gates that are evaluated too late, for a person to read before the rollout starts."""
    late = [gate.name for gate in rules.repeated_gates if not gate.continuous and not gate.dry_run]
    if rules.strategy.waypoints or rules.strategy.type is Way.BLUE_GREEN or not late:
        return ()
    return (
        f"{', '.join(late)}: evaluated only when no old replica is left; add a waypoint such as `{{at: 1}}`, "
        "or set `continuous: true` on the gate",
    )


def due(rules: Rules, state: State, now: float) -> tuple[tuple[GatePolicy, Tally], ...]:
    """Return the gates that are due now, with their tallies."""
    if state.goal is Goal.BACK or state.outcome is not None or state.unresolved is not None:
        return ()
    found = []
    for gate in rules.repeated_gates:
        tally = state.tally(gate.name)
        if tally is None or now < tally.next_at:
            continue
        sits = tally.sitting == sitting_of(state) and state.waypoint is None and not _is_done(gate, tally)
        if sits or gate.continuous:
            found.append((gate, tally))
    return tuple(found)


def _is_done(gate: GatePolicy, tally: Tally) -> bool:
    """Whether it has enough evidence to pass: failures that ``failureLimit`` allows are no pass."""
    return tally.conclusive >= gate.count and tally.passed > 0 and not _holds(gate, tally)


def _holds(gate: GatePolicy, tally: Tally) -> bool:
    failed = tally.last is not None and tally.last.result is Result.FAIL
    return failed and gate.on_failure is Reaction.HOLD and not gate.dry_run


def stand(gate: GatePolicy, tally: Tally | None) -> Verdict:
    """Return the verdict on all answers of a gate.

    =============================================  =============
    more failed than ``failureLimit``              fail
    ``onFailure: hold``, and the latest failed     inconclusive
    ``count`` conclusive ones here, one passed     pass
    ``dryRun``                                     pass
    otherwise                                      inconclusive
    =============================================  =============
    """
    last = tally.last if tally else None
    reason = last.why if last else "not evaluated yet"

    def verdict(result: Result, why: str) -> Verdict:
        return Verdict(gate=gate.name, result=result, why=why, evidence=last.evidence if last else None)

    if gate.dry_run:
        return verdict(Result.PASS, f"dry run; {reason}")
    if tally is None:
        return verdict(Result.INCONCLUSIVE, reason)
    if _holds(gate, tally):
        return verdict(Result.INCONCLUSIVE, f"failed, so the rollout holds: {reason}")
    if tally.failed > gate.failure_limit and gate.on_failure is not Reaction.HOLD:
        return verdict(
            Result.FAIL, reason if not gate.failure_limit else f"{tally.failed} measurements failed; {reason}"
        )
    if _is_done(gate, tally):
        return verdict(Result.PASS, reason)
    number = f"{tally.conclusive} of {gate.count} measurements; " if gate.count > 1 else ""
    none = "failed, and failureLimit allows that; none has passed: " if last and last.result is Result.FAIL else ""
    return verdict(Result.INCONCLUSIVE, f"{number}{none if not tally.passed else ''}{reason}")


def standings(rules: Rules, state: State) -> tuple[Verdict, ...]:
    """Return the verdict on each gate, and the score of the weighted gates if there are any.

    One with ``dryRun`` always passes: in the score, it would make up for others.
    """
    found = [(None if g.dry_run else g.weight, stand(g, state.tally(g.name))) for g in rules.repeated_gates]
    weighted = [(weight, verdict) for weight, verdict in found if weight is not None]
    each = tuple(verdict for weight, verdict in found if weight is None)
    return (*each, score(weighted, rules.pass_score)) if weighted else each


def score(weighted: Sequence[tuple[int, Verdict]], at_least: int) -> Verdict:
    """Return the score of weighted verdicts: the share of passes, in percent, must be at least ``at_least``.

    It fails as soon as the undecided gates cannot raise it to ``at_least``.
    """
    total = sum(weight for weight, _ in weighted)
    share = {result: 100 * sum(w for w, v in weighted if v.result is result) / total for result in Result}
    parts = ", ".join(f"{v.gate} {v.result} ({w})" for w, v in weighted)
    best = share[Result.PASS] + share[Result.INCONCLUSIVE]
    if best < at_least:
        result = Result.FAIL
    elif share[Result.INCONCLUSIVE]:
        result = Result.INCONCLUSIVE
    else:
        result = Result.PASS
    return Verdict(gate=SCORE, result=result, why=f"{share[Result.PASS]:.0f} of 100, {at_least} required: {parts}")


def missing_evidence(rules: Rules, state: State) -> str:
    """Return which gates do not pass yet, and why; empty if all pass."""
    missing = [v for v in standings(rules, state) if v.result is not Result.PASS]
    return "; ".join(f"{v.gate}: {v.why}" for v in missing)


def breaches(rules: Rules, state: State, now: float, seen_since: float = 0.0) -> Iterator[Breach]:
    """Yield each gate that failed or stays undecided for too long, with the reaction.

    Since ``seen_since``, the target has been observed without a gap. Nobody asked a gate in the gap: its deadline is
    over only when it has answered since then.
    """
    gates = {gate.name: gate for gate in rules.repeated_gates}
    default = Reaction.ROLLBACK if rules.on_failure is OnFailure.ROLLBACK else Reaction.PAUSE
    for verdict in standings(rules, state):
        gate = gates.get(verdict.gate)
        if verdict.result is Result.FAIL:
            problem = Problem(cause=Cause.GATE, message=f"{verdict.gate}: {verdict.why}")
            yield Breach(problem, gate.on_failure if gate else default)
    for gate in rules.repeated_gates:
        tally = state.tally(gate.name)
        why = _undecided(gate, tally, state, now, seen_since) if tally else ""
        if why and gate.on_inconclusive is not Reaction.HOLD:
            yield Breach(Problem(cause=Cause.GATE, message=f"{gate.name}: {why}"), gate.on_inconclusive)


def _undecided(gate: GatePolicy, tally: Tally, state: State, now: float, seen_since: float) -> str:
    """Return why a gate is undecided for too long; empty if it is not."""
    sits = tally.sitting == sitting_of(state) and state.waypoint is None
    if gate.dry_run or not (sits or gate.continuous) or (sits and _is_done(gate, tally) and not tally.errors):
        return ""
    reason = tally.last.why if tally.last else "not evaluated yet"
    if tally.errors > gate.consecutive_error_limit:
        return f"no answer {tally.errors} times in a row: {reason}"
    if gate.inconclusive_limit is not None and tally.inconclusive > gate.inconclusive_limit:
        return f"{tally.inconclusive} measurements were inconclusive: {reason}"
    was_asked = seen_since <= max(tally.since, tally.last.at if tally.last else 0.0)
    if sits and was_asked and now >= tally.since + gate.deadline.total_seconds():
        return f"undecided for {gate.deadline.total_seconds():g} s: {reason}"
    return ""
