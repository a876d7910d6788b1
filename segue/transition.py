"""How a decision changes the state: pure.

The workflow, a release without Temporal, and the simulated rollouts of the tests all use it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from segue.as_before import with_ready
from segue.contract import Prepared, Written
from segue.decide import is_released, repeatable
from segue.decision import Act, Decision
from segue.gates import Result, Verdict, combined, failure_of
from segue.observation import Cause, Observation, Problem, Routed
from segue.pacing import KEPT, Wrote, in_a_row
from segue.spec import OnFailure, Rules
from segue.state import TO_BASELINE, Before, Goal, Mark, Outcome, Retarget, State, requested
from segue.traffic import refusal_of

WRITTEN = frozenset(
    {Act.SCALE, Act.PAUSE_CONTROLLER, Act.CONFIGURE, Act.RESIZE, Act.SETTLE, Act.ROUTE, Act.UNDO, Act.FINISH}
)
NOTHING = Written(done=True)
TWICE = 2
"""A write that is made this often in a row had no effect the first time."""


class _Done(NamedTuple):
    """A decision, its basis, and its result."""

    rules: Rules
    seen: Observation
    decision: Decision
    written: Written
    now: float


def is_written(state: State, decision: Decision) -> bool:
    """Whether a decision changes the target: it is recorded only after the write, with the write's answer."""
    return decision.act in WRITTEN and (state.claimed or decision.act is not Act.FINISH)


def attempted(state: State, decision: Decision, seen: Observation) -> State:
    """Return the state while a decision is written. If the answer is lost, the target shows whether it is written.

    A person who overrules what a lost future of the rollout wrote continues after its writes.
    """
    known = seen.foreign.attempts if seen.foreign is not None else 0
    return state.but(finishing=decision.act is Act.FINISH, attempts=max(state.attempts, known) + 1)


def applied(
    rules: Rules, state: State, seen: Observation, decision: Decision, now: float, written: Written = NOTHING
) -> State:
    """Return the state after a decision that was made on ``seen``, and after its write if it has one.

    A verification changes nothing here: ``judged`` records its answers. ``now`` is in seconds since the epoch.
    """
    if written.warning:
        state = state.warned(written.warning, now)
    if not written.done:
        state = state.after_refused(repeatable(seen, decision), written.why, now)
        return state.after_made(written.made, written.why, now) if written.made else state
    if decision.act in WRITTEN - {Act.FINISH}:
        state = _answered(state, seen, decision, written, now)
    return _RECORDERS[decision.act](state, _Done(rules, seen, decision, written, now))


def _answered(state: State, seen: Observation, decision: Decision, written: Written, now: float) -> State:
    """Return the state with the API server's answer to a write; what the write was for is recorded after it."""
    mark, what = written.mark or state.mark, repeatable(seen, decision)
    if seen.home is not None and decision.act is Act.UNDO:  # the baseline of a pair is the old Deployment's template
        is_new = mark.template not in {state.mark.template, state.wanted.template, ""}
        state, mark = state.but(restored=mark.template if is_new else state.restored), state.mark
    # By what was written, not by the goal: a message may have reversed the rollout in the meantime.
    back = decision.act is Act.UNDO or (decision.act is Act.RESIZE and state.mark.template == state.baseline.template)
    # A write that leaves the template alone is not the API server's answer about it: the template is still another's.
    is_theirs = seen.foreign is not None and mark.template == seen.foreign.template
    state = state.after_answer(what, state.mark if is_theirs else mark, written.altered, now, back=back)
    if what and in_a_row(state.wrote, what) == TWICE:
        answer = f"; the API server answers with {written.altered}" if written.altered else ""
        return state.noted(now, "warning", f"the same write a second time: {decision.why}{answer}")
    return state


def judged(
    rules: Rules, state: State, seen: Observation, decision: Decision, verdicts: Sequence[Verdict], now: float
) -> State:
    """Return the state after a verification; an inconclusive one is only noted, and repeated."""
    if state.goal is Goal.BACK:
        return state  # a message reversed the rollout in the meantime
    for each in verdicts:
        state = state.noted(now, f"gate {each.gate}", f"{each.result}: {each.why}")
    verdict = combined(verdicts)
    if verdict.result is Result.FAIL:
        return state.failing(failure_of(verdict), now, roll_back=rules.on_failure is OnFailure.ROLLBACK)
    if verdict.result is Result.INCONCLUSIVE:
        return state
    index = decision.waypoint
    reached = None if index is None else (index, rules.strategy.waypoints[index])
    return state.after_verify(reached, now, "the new side is complete" if seen.old.total else "every replica is new")


def learned(state: State, seen: Observation) -> State:
    """Return the state after an observation: claimed if the first write succeeded but its answer was lost.

    It is released if the end was written, but its answer was lost, or what follows it failed.
    """
    state = with_ready(state, seen)
    if state.sized is not None and state.sized < seen.replicas <= seen.old.ready + seen.new.ready:
        state = state.but(sized=seen.replicas)  # what was added since the latest move is ready too
    if is_released(state, seen):
        return state.but(released=True)
    if state.claimed or seen.owner != state.owner:
        return state
    return state.but(claimed=True, mark=Mark(template=seen.template))


def begun(state: State, prepared: Prepared, now: float, by: str) -> State:
    """Return the state after the target was read for the first time.

    A rollout that holds the target already, before it knows it, was reset to its beginning: it forgot its writes.
    """
    attempts = prepared.attempts if prepared.owner != state.owner else 0
    state = state.but(
        owner=prepared.owner, claimed=prepared.claimed, mark=prepared.mark, attempts=attempts
    ).after_prepare(prepared.baseline, prepared.wanted, now, prepared.demand)
    state = state.but(governed=prepared.governed, labels=prepared.labels, namespace_labels=prepared.namespace_labels)
    if prepared.ready is not None:
        ready = min(prepared.ready, prepared.replicas)
        state = state.but(before=Before(replicas=prepared.replicas, ready=ready, starting=prepared.starting))
    for warning in prepared.warnings:
        state = state.noted(now, "warning", warning)
    return state.after_lint(prepared.linted, now, by)


def is_wanted_already(state: State, retarget: Retarget, prepared: Prepared) -> bool:
    """Whether a retarget requests the version that the rollout already goes to."""
    same = prepared.wanted.template == state.wanted.template and state.goal is Goal.FORWARD
    return same and retarget.strategy is None and state.foreign is None


def retargeted(state: State, retarget: Retarget, prepared: Prepared, now: float) -> State:
    """Return the state after a retarget was prepared: the rollout goes to the new version, or back."""
    if prepared.wanted.template == state.baseline.template:
        if state.goal is Goal.BACK:
            return state.but(retarget=None).noted(now, "retargeted", "to the baseline: already on its way", retarget.by)
        reason = requested(f"{TO_BASELINE} {retarget.by}")
        return state.going_back(Outcome.ROLLED_BACK, reason, now, retarget.by).but(overrules=state.overrules)
    if is_wanted_already(state, retarget, prepared):
        return state.but(retarget=None).noted(now, "retargeted", "to the wanted version: nothing changes", retarget.by)
    if not state.claimed:  # nothing is written yet: what somebody else changed is the baseline
        state = state.but(baseline=prepared.baseline, mark=prepared.mark, foreign=None, overrules=False)
    return state.after_retarget(prepared.wanted, now, prepared.demand).after_lint(prepared.linted, now, retarget.by)


def stuck(state: State, message: str, now: float) -> State:
    """Return the state after an error that only a person can resolve, forward or back."""
    problem = Problem(cause=Cause.CONFIGURATION, message=message)
    if state.goal is Goal.BACK and not state.needs_human:
        return state.after_alarm(str(problem), now)
    if state.goal is Goal.FORWARD and state.unresolved != problem:
        return state.failing(problem, now, roll_back=False)
    return state


def denied(state: State, seen: Observation, decision: Decision, message: str, now: float) -> State:
    """Return the state after a write that the API server refuses: it needs a person, and the next try backs off.

    A refused request of a person is not tried again, and never holds a rollback.
    """
    what = repeatable(seen, decision)
    wrote = (*state.wrote, Wrote(at=now, what=what, refused=message))[-KEPT:] if what else state.wrote
    if decision.act is Act.RESIZE:
        state = state.after_request_refused(f"{decision.why}: {message}", decision.replicas, now)
        message = f"{decision.why}: {message}; run `segue scale` with a number that is allowed, and `segue resume`"
    elif decision.act is Act.SETTLE:
        state = state.but(settling=False)
    if decision.act is Act.RESIZE and state.goal is Goal.BACK:
        return state.but(wrote=wrote)
    return stuck(state, message, now).but(wrote=wrote)


# --- one line per act ------------------------------------------------------------------------------------


def _measure(state: State, done: _Done) -> State:
    gates = [gate for gate in done.rules.repeated_gates if gate.name in done.decision.gates]
    return state.after_measure(gates, done.now, stops=done.decision.stops)


def _fail(state: State, done: _Done) -> State:
    decision = done.decision
    problem = decision.problem or Problem(cause=Cause.DEADLINE, message=decision.why)
    roll_back = decision.rolls_back
    if roll_back is None:
        roll_back = done.rules.on_failure is OnFailure.ROLLBACK
    return state.failing(problem, done.now, roll_back=roll_back)


def _scaled(state: State, done: _Done) -> State:
    decision, written = done.decision, done.written
    counts = decision.counts or done.seen.requested
    state = state.after_scale(counts, decision.why, done.now, written.mark, written.writes, decision.fits)
    regained = counts.old if counts.old > done.seen.old.total else 0
    return state.but(regained=regained, sized=done.seen.replicas).after_emptied(
        decision.emptied, done.now, late=decision.cut
    )


def _routed(state: State, done: _Done) -> State:
    routed = done.written.routed or Routed(share=done.decision.share or 0)
    return state.after_route(routed, done.decision.why, done.written.writes, done.now, refusal_of(done.seen))


def _undone(state: State, done: _Done) -> State:
    decision = done.decision
    step = f"{decision.why} {decision.counts}" if decision.counts else ""
    if state.goal is Goal.FORWARD:  # it is scaled to 0, and begins again with the replicas that come back
        state, step = state.but(waypoint=None, verified=False), decision.why
    return state.after_undo(done.written.writes, done.now, done.written.mark, step)


_RECORDERS: dict[Act, Callable[[State, _Done], State]] = {
    Act.WAIT: lambda state, done: state,
    Act.VERIFY: lambda state, done: state,
    Act.MEASURE: _measure,
    Act.FAIL: _fail,
    Act.FOREIGN: lambda state, done: state.after_foreign(done.seen.foreign, done.now),
    Act.FOREIGN_GONE: lambda state, done: state.after_foreign(None, done.now),
    Act.SLEEP: lambda state, done: state.after_sleep(True, done.decision.why, done.now),
    Act.WAKE: lambda state, done: state.after_sleep(False, done.decision.why, done.now),
    Act.CROWDED: lambda state, done: state.after_crowded(done.decision.why, done.now),
    Act.ROOMY: lambda state, done: state.after_crowded("", done.now),
    Act.FREEZE: lambda state, done: state.after_freeze(done.decision.why, done.now),
    Act.THAW: lambda state, done: state.after_freeze("", done.now),
    Act.ALARM: lambda state, done: state.after_alarm(done.decision.why, done.now),
    Act.LOWER_FLOOR: lambda state, done: state.after_lower_floor(done.decision.why, done.now),
    Act.CALM: lambda state, done: state.after_alarm("", done.now),
    Act.DRAIN: lambda state, done: state.after_drain(done.decision.counts, done.decision.why, done.now),
    Act.FENCED: lambda state, done: state.after_fenced(done.decision.why, done.now),
    Act.SCALE: _scaled,
    Act.PAUSE_CONTROLLER: lambda state, done: state.after_pause_controller(
        done.decision.why, done.written.writes, done.now, done.written.mark
    ),
    Act.CONFIGURE: lambda state, done: state.after_configure(done.decision.why, done.written.writes, done.now),
    Act.SETTLE: lambda state, done: state.after_settle(
        done.decision.counts or done.seen.requested, done.written.writes, done.now, done.written.mark
    ),
    Act.ROUTE: _routed,
    Act.ACCEPTED: lambda state, done: state.after_accepted(done.decision.why, done.now),
    Act.RESIZE: lambda state, done: state.after_resize(done.decision.replicas or 0, done.now, done.written.mark),
    Act.UNDO: _undone,
    Act.FINISH: lambda state, done: state.after_finish(done.written.writes, done.now),
}
