"""What to do next: pure, level-triggered, and without a clock.

``decide`` takes the rules, the recorded state and an observation, and returns one action with absolute counts.
The same input gives the same action, so an action that was not carried out is decided again. The plan uses the same
``arithmetic``, with every replica ready at once.
"""

from collections.abc import Callable
from math import inf

from segue.arithmetic import floor_of, kept_old, next_waypoint, ready_of, takes_the_last, toward
from segue.as_before import allows_too_many_unavailable, as_before, can_lower
from segue.budget import objection, resolve_budget
from segue.decision import Act, Decision
from segue.failures import APPEARS_S
from segue.gates.standing import breaches, missing_evidence, unopened
from segue.observation import Cause, Counts, Observation, Problem, belonging
from segue.pacing import is_futile, next_at
from segue.spec import Order, Pace, Rules, Way
from segue.spec.gate_policy import Reaction
from segue.state import Goal, State
from segue.traffic import (
    ALL,
    NONE,
    acceptance,
    instead_of_refused,
    is_stranded,
    kept_until,
    leaves_new,
    must_stay,
    reached_weight,
    refusal_of,
    share_of,
    tried_again_at,
    wanted_share,
)
from segue.units import counted
from segue.waits import shortfall, shortfall_back, to_be_available, to_stop

PENDING_S = 5.0
"""A replica that is unschedulable for so long stays pending: no replica that stops makes room for it."""

RETRIED_S = 5.0
"""A write that the target's state did not allow is tried again so soon if a replica has become ready since."""

PAUSE_EVERY_S = 10.0
"""The rollout pauses the controller at most this often, even if somebody keeps resuming it."""

Case = Callable[[Rules, State, Observation, float], Decision | None]


def decide(rules: Rules, state: State, seen: Observation, now: float) -> Decision:
    """Return the next action. ``now`` is in seconds since the epoch.

    The first case that applies decides. ``_waiting``, the last one, always applies.
    """
    rules = as_before(rules, state, seen.replicas)
    cases = _FORWARD if state.goal is Goal.FORWARD else _BACK
    due = list[float]()
    for case in cases:
        found = case(rules, state, seen, now)
        if found is None:
            continue
        decision = _paced(rules, state, seen, _spared(state, found) or found, now)
        if found.act not in _ASIDE or decision.act is not Act.WAIT:
            return _woken(decision, due)
        due += [decision.wake_at] if decision.wake_at is not None else []
    raise AssertionError("_waiting answers every state")


def _woken(decision: Decision, due: list[float]) -> Decision:
    """Return a decision to wait that ends when a write that backs off is due."""
    if decision.act is not Act.WAIT or not due:
        return decision
    at = due if decision.wake_at is None else [*due, decision.wake_at]
    return decision.model_copy(update={"wake_at": min(at)})


def _failing(problem: Problem, *, rolls_back: bool | None = None) -> Decision:
    return Decision(act=Act.FAIL, why=str(problem), problem=problem, rolls_back=rolls_back)


# --- how often it writes ----------------------------------------------------------------------------------


_ASIDE = frozenset({Act.RESIZE, Act.SETTLE, Act.PAUSE_CONTROLLER, Act.CONFIGURE})
"""Writes that nothing else waits for: while one of them backs off, the rollout does what else is due."""
_REPEATABLE = frozenset({Act.SCALE, Act.UNDO, Act.ROUTE, Act.FINISH, *_ASIDE})
"""The writes that back off."""


def repeatable(seen: Observation, decision: Decision) -> str:
    """Return what a decision writes, and on which counts; empty if it writes nothing.

    A request, a pause and the end are the same write on any counts.
    """
    if decision.act not in _REPEATABLE:
        return ""
    if decision.act in _ASIDE or decision.act is Act.FINISH:
        return str(decision.act) if decision.replicas is None else f"{decision.act} {decision.replicas}"
    goal = decision.share if decision.act is Act.ROUTE else decision.counts
    old, new = seen.old, seen.new
    return f"{decision.act} {goal}: {old.total} {old.ready} {new.total} {new.ready} {new.proven} {seen.template}"


def _paced(rules: Rules, state: State, seen: Observation, decision: Decision, now: float) -> Decision:
    """Back off from a write that has no effect or cannot be made; finally, ask for a person.

    A rollback continues without a write that nothing waits for.
    """
    what = repeatable(seen, decision)
    may_at = min(next_at(state.wrote, what), _retried_at(state, seen, what)) if what else 0.0
    if now >= may_at:
        return decision
    refused = state.wrote[-1].refused if state.wrote[-1].what == what else ""
    if refused:
        why, problem = _refused(rules, state, seen, f"the write cannot be made ({decision.why}): {refused}", now)
    else:
        why, problem = _futile(state, what, f"writes have no effect ({decision.why})")
    if problem is not None and state.goal is Goal.FORWARD and state.unresolved is None:
        return _failing(problem, rolls_back=False)
    if problem is not None and state.goal is Goal.BACK and not state.needs_human and decision.act not in _ASIDE:
        return Decision(act=Act.ALARM, why=f"the rollback makes no progress: {problem}", problem=problem)
    return Decision(act=Act.WAIT, why=f"the next try: {why}", problem=seen.problem, wake_at=may_at)


def _retried_at(state: State, seen: Observation, what: str) -> float:
    """Return when a write that was refused is tried again at the latest, because a replica became ready since.

    Where pods are evicted all the time, too few are ready at each write, and a longer wait would not end with that.
    """
    last = state.wrote[-1] if state.wrote else None
    ready_at = max((r.ready_since for side in seen.pods for r in side if r.ready_since is not None), default=0.0)
    # Kubernetes writes whole seconds, rounded down.
    is_over = last is not None and last.what == what and bool(last.refused) and ready_at + 1 > last.at
    return last.at + RETRIED_S if last is not None and is_over else inf


def _refused(rules: Rules, state: State, seen: Observation, why: str, now: float) -> tuple[str, Problem | None]:
    """Return why a write is not made, with the problem after the deadline: the target's state may still change."""
    if now < _deadline_at(rules, state, seen):
        return why, None
    message = f"{why} ({_no_progress(rules)})"
    return why, Problem(cause=Cause.DEADLINE, message=message)


def _futile(state: State, what: str, why: str) -> tuple[str, Problem | None]:
    """Return that writes have no effect, with the problem after several of them."""
    if not is_futile(state.wrote, what):
        return why, None
    altered = state.wrote[-1].altered
    answer = f"the API server answers with {altered}" if altered else "the API server keeps what is there"
    message = f"{why}: {answer}; find the admission policy, webhook or controller that reverts it"
    return why, Problem(cause=Cause.CONFIGURATION, message=message)


# --- the next step, and its room -------------------------------------------------------------------------


def asks_for_room(state: State, seen: Observation, decision: Decision) -> bool:
    """Whether to count the room and decide again: before adding a replica, and while the rollout waits for room."""
    if state.demand is None or state.goal is Goal.BACK or seen.room is not None or seen.unplaced:
        return False
    adds = decision.act is Act.SCALE and decision.counts is not None and sum(decision.counts) > sum(seen.counts)
    return adds or bool(state.crowded)


def _next_step(rules: Rules, state: State, seen: Observation, now: float) -> tuple[Counts, int | None]:
    """Return the counts to request next, and how many replicas fit if that makes the move smaller.

    The rollout requests only what fits: a smaller surge; and without any surge it removes an old replica first.
    """
    budget, order = resolve_budget(rules.strategy, seen.replicas), rules.strategy.order
    keep, excused = must_stay(rules.strategy, state, seen, now), state.excused(seen.replicas)
    if ready_of(seen) < floor_of(rules, state, seen):
        keep = max(keep, state.regained)
    if _is_superseded(state, seen):
        return toward(budget._replace(kept=seen.replicas), order, seen, keep=keep), None
    ahead = next_waypoint(rules, state, seen.replicas)
    barrier = ahead[1] if ahead else None
    counts = toward(budget, order, seen, barrier, keep=keep, excused=excused)
    fits = _fits(rules, state, seen, now)
    if fits is None or sum(counts) <= fits:
        return counts, None
    surge = max(0, min(budget.surge, fits - seen.replicas))
    if not surge and not budget.unavailable and not seen.unplaced:
        if seen.room is None:
            return counts, None  # the latest count of the room is old: try again
        surge = min(budget.surge, _pending(state, seen))
    narrow = budget._replace(surge=surge, step=rules.strategy.step or max(1, surge + budget.unavailable))
    order = order if surge else Order.SCALE_IN_PRIORITY
    narrowed = toward(narrow, order, seen, barrier, keep=keep, excused=excused)
    # After a loss of readiness the requested counts cannot always be reduced: then they stay.
    return (seen.requested if objection(budget, seen, narrowed) else narrowed), fits


def _pending(state: State, seen: Observation) -> int:
    """Return how many replicas to add although they do not fit: a node autoscaler acts on a pending pod.

    Returns 0 if the pod could not be created, or would preempt a ready replica.
    """
    preempts = state.demand is not None and state.demand.preempts
    return int(seen.can_pend and not preempts)


def _is_superseded(state: State, seen: Observation) -> bool:
    """Whether the new side runs a superseded version, which has to go before the wanted one starts."""
    return seen.template != state.wanted.template and seen.home is not None and seen.new.total > 0


def _fits(rules: Rules, state: State, seen: Observation, now: float) -> int | None:
    """Return how many replicas fit, or None if that is not known; a pod that stays pending is certain."""
    total = sum(seen.counts)
    if _stays_pending(rules, seen, now):
        return total - seen.unplaced
    if seen.room is not None:
        return total - seen.unplaced + seen.room + seen.leaving
    return state.fits


def _stays_pending(rules: Rules, seen: Observation, now: float) -> bool:
    patience_s = min(PENDING_S, rules.readiness.deadline.total_seconds() / 2)
    return bool(seen.unplaced) and not seen.leaving and now >= seen.unplaced_since + patience_s


# --- cases: done, abnormal, requested, up, down, wait ---------------------------------------------------


def _fenced(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.gone:
        return Decision(act=Act.FENCED, why=seen.gone_why or "the target was deleted")
    if state.claimed and seen.owner != state.owner:
        if is_released(state, seen):
            return Decision(act=Act.FINISH, why="an earlier attempt released the target")
        return Decision(act=Act.FENCED, why=belonging(seen.owner))
    return None


def is_released(state: State, seen: Observation) -> bool:
    """Whether the end is written on the target: its answer was lost, or what follows it failed."""
    return state.claimed and state.finishing and seen.owner is None and not seen.engaged and not seen.gone


def _foreign(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.foreign is None:
        return Decision(act=Act.FOREIGN_GONE, why="the foreign change is gone") if state.foreign else None
    if state.overrules or state.foreign == seen.foreign:
        return None
    return Decision(act=Act.FOREIGN, why=str(seen.foreign))


def _unpaused(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Pause the controller of a target at rest if a worker died before doing so, or somebody resumed it."""
    if not seen.unpaused or now < state.controller_paused_at + PAUSE_EVERY_S:
        return None
    why = "the target's controller is not paused: it would remove ready replicas if somebody changed the template"
    return Decision(act=Act.PAUSE_CONTROLLER, why=why)


def _asleep(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.replicas >= 1:
        return Decision(act=Act.WAKE, why="the target has replicas again") if state.asleep else None
    if not state.asleep:
        return Decision(act=Act.SLEEP, why="the target is scaled to 0")
    if not state.claimed or seen.template == state.baseline.template or not _goes_back_at_0(state, seen):
        return None
    return Decision(act=Act.UNDO, why="the target is scaled to 0, and replicas that come back run the former version")


def _goes_back_at_0(state: State, seen: Observation) -> bool:
    """Whether the baseline can be written back now: from 0, a controller starts all replicas in the present version."""
    is_held = seen.home is None and not seen.autonomous
    return is_held and not seen.pinned and not any(seen.counts) and not _blocked(state)


def _frozen(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Stop on the way forward while a freeze of the policy holds; gates and failures still act."""
    if seen.frozen == state.frozen:
        return None
    return Decision(act=Act.FREEZE if seen.frozen else Act.THAW, why=seen.frozen or "no freeze is in effect")


def _failed(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    problem = seen.problem
    if state.unresolved is not None or not seen.engaged or problem is None:
        return None
    is_hopeless = problem.hopeless and now >= _hopeless_from(state, problem)
    return _failing(problem) if is_hopeless else None


def _hopeless_from(state: State, problem: Problem) -> float:
    """Return from when on waiting will not help: who resumes may just have created what was absent."""
    return max(problem.hopeless_from, state.progress_at + APPEARS_S) if problem.hopeless_from else 0.0


def _breached(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Act on a gate that failed or stays inconclusive, whatever else the rollout waits for."""
    if state.unresolved is not None or not rules.repeated_gates:
        return None
    every = breaches(rules, state, now, seen.seen_since)
    found = next((each for each in every if each.reaction is not Reaction.HOLD), None)
    if found is None:
        return None
    rolls_back = found.reaction is Reaction.ROLLBACK
    return _failing(found.problem, rolls_back=rolls_back)


def _unrouted(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Fail when a gateway refuses the traffic as written: it may serve neither side now."""
    refusal = refusal_of(seen)
    if not refusal or state.unresolved is not None or state.routed is None or _blocked(state):
        return None
    problem = Problem(cause=Cause.TRAFFIC, message=f"{refusal}; the route gives {share_of(seen)} % to new")
    return _failing(problem)


def _regained(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Bring old replicas back when fewer than the floor are ready, whatever the rollout waits for."""
    if not state.claimed or not seen.engaged or seen.autonomous or seen.replicas < 1 or _blocked(state):
        return None
    if seen.template not in {state.wanted.template, ""}:  # empty: somebody deleted a pair's new Deployment
        return None
    if state.unresolved is None and (gone := _old_version_gone(rules, state, seen)):
        problem = Problem(cause=Cause.UNREADY, message=gone)
        return _failing(problem)
    counts = _with_old_back(rules, state, seen)
    if counts is None:
        return None
    floor = floor_of(rules, state, seen)
    why = f"only {ready_of(seen)} of {floor} required replicas are ready, old ones come back: {_why(seen, counts)}"
    return Decision(act=Act.SCALE, why=why, counts=counts)


def _old_version_gone(rules: Rules, state: State, seen: Observation) -> str:
    """Return that replicas are missing and no old one can be added; empty if one can, or if none is missing.

    A Deployment's old ReplicaSet may be deleted. Only a rollback makes its controller create another one.
    """
    if seen.emptied:
        return "no replica is left: somebody deleted its ReplicaSets"
    floor, reached = floor_of(rules, state, seen), next_waypoint(rules, state, seen.replicas)
    if not seen.unreturnable or state.waypoint is None or reached is None or ready_of(seen) >= floor:
        return ""
    if seen.new.ready >= reached[1]:  # what the controller added in the place of old replicas is still starting
        return ""
    lost = f"only {ready_of(seen)} of {floor} required replicas are ready"
    return f"{lost}, and no old one can be added: the ReplicaSet of the old version was deleted (revisionHistoryLimit?)"


def _with_old_back(rules: Rules, state: State, seen: Observation) -> Counts | None:
    """Return the counts with as many old replicas as the ceiling allows back; None if none can be added."""
    if seen.unreturnable:
        return None
    budget, floor = resolve_budget(rules.strategy, seen.replicas), floor_of(rules, state, seen)
    if seen.numbered:
        # An old one comes back only in the place of a new one: give up unready new ones once the version failed.
        back = Counts(seen.replicas - seen.new.ready, seen.new.ready)
        lost = ready_of(seen) < floor and seen.new.ready < seen.new.total
        return back if lost and state.unresolved is not None and seen.requested.old < back.old else None
    old, new = max(seen.old.total, seen.requested.old), max(seen.new.total, seen.requested.new)
    missing = floor - old - seen.new.ready  # old ones that are not ready yet are starting
    back = Counts(old + min(missing, budget.ceiling - old - new, seen.replicas - old), new)
    if seen.home is None and back == (seen.replicas, seen.replicas - old):
        back = Counts(back.old - 1, new)  # a Deployment's fields cannot express these counts
    return back if back.old > old else None


def _lost(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Fail when readiness is lost at a stop and does not return within the deadline."""
    # A hold for room ends without a person when a replica that has a node is not ready.
    stops = state.waypoint is not None or bool(state.stopped_despite_room)
    if not stops or not state.claimed or not seen.engaged:
        return None
    if state.unresolved is not None or state.asleep or _blocked(state):
        return None
    floor, missing = floor_of(rules, state, seen), seen.new.total - seen.new.ready - seen.unplaced - seen.hindered
    # A waypoint is reached with every new replica proven that is not excused; at another stop some may still load.
    is_fine = ready_of(seen) >= floor and (state.waypoint is None or missing <= state.lacking(seen.replicas))
    if is_fine or missing <= 0:
        return None
    deadline_s = rules.readiness.deadline.total_seconds()
    if now < max(_deadline_at(rules, state, seen), seen.lost_since + deadline_s):
        return None
    what = f"{seen.new.ready} of {seen.new.total} new replicas are ready; in total, at least {floor} must be"
    problem = seen.problem or Problem(cause=Cause.UNREADY, message=what)
    lost = problem.model_copy(
        update={"message": f"{problem.message} (readiness was lost {deadline_s:g} s ago; {what}{_either(seen)})"}
    )
    return _failing(lost)


def _measuring(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Open the gates as soon as a new replica is proven."""
    if state.stopped or not seen.new.proven or not seen.engaged:
        return None
    gates = unopened(rules, state, stops=False)
    return Decision(act=Act.MEASURE, why=f"collecting evidence for {', '.join(gates)}", gates=gates) if gates else None


def _verified(rules: Rules, state: State, verify: Decision) -> Decision:
    """Return ``verify`` once all gates pass here; until then evaluate them and wait for evidence."""
    gates = unopened(rules, state, stops=True)
    if gates:
        return Decision(act=Act.MEASURE, why=f"evaluating {', '.join(gates)}: {verify.why}", gates=gates, stops=True)
    missing = missing_evidence(rules, state)
    return Decision(act=Act.WAIT, why=f"evidence: {missing}") if missing else verify


def _resized(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.resize is None or state.foreign is not None or seen.unshrinkable:
        return None
    why = f"scaling to {counted(state.resize, 'replica')}, as requested"
    return Decision(act=Act.RESIZE, why=why, replicas=state.resize)


def _settled(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if not state.settling or state.asleep or state.foreign is not None or seen.template != state.wanted.template:
        return None
    why = "keeping the replicas that are ready now, as requested"
    return Decision(act=Act.SETTLE, why=why, counts=_ready_counts(rules, seen))


def _ready_counts(rules: Rules, seen: Observation) -> Counts:
    if seen.numbered:
        return Counts(seen.replicas - seen.new.ready, seen.new.ready)
    old = kept_old(seen)
    if seen.home is not None:
        return _within(rules, seen, Counts(old, min(seen.new.ready, seen.replicas)), least=0)
    # A lever can hold the new template with 1 to R new replicas. After a drop of R that left no new replica, a paused
    # controller holds 0.
    least = 0 if seen.requested.new == 0 and seen.old.total <= seen.replicas else 1
    new = min(max(seen.new.ready, seen.replicas - old, least), seen.replicas)
    return _within(rules, seen, Counts(old, new), least=least)


def _within(rules: Rules, seen: Observation, counts: Counts, least: int) -> Counts:
    """Bring counts that exceed the ceiling after a drop of R under it: the next resize counts from them."""
    over = counts.old + counts.new - resolve_budget(rules.strategy, seen.replicas).ceiling
    old = max(min(counts.old, seen.old.ready), counts.old - max(0, over))
    return Counts(old, max(least, counts.new - max(0, over - (counts.old - old))))


def _routed(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Route the traffic before replicas move; write the initial 0 percent too, to claim the route."""
    strategy = rules.strategy
    is_back = state.goal is Goal.BACK
    if strategy.traffic is None or not state.claimed or seen.replicas < 1 or _blocked(state):
        return None
    if (state.routed is None and is_back) or (state.stopped and not (is_back or is_stranded(seen) or refusal_of(seen))):
        return None
    share = _share(rules, state, seen, now)
    if state.routed is not None and seen.routed is not None and share == seen.routed.share == state.routed.share:
        return None
    return Decision(act=Act.ROUTE, why=_why_share(state, seen, share), share=share)


def _share(rules: Rules, state: State, seen: Observation, now: float) -> int:
    strategy = rules.strategy
    ahead = next_waypoint(rules, state, seen.replicas)
    barrier = ahead[1] if ahead else None
    last = takes_the_last(resolve_budget(strategy, seen.replicas), strategy.order, seen, barrier)
    share = wanted_share(
        strategy, seen, back=leaves_new(state, seen), weight=reached_weight(strategy, state),
        verified=state.verified, ahead=ahead is not None, last=last, excused=state.excused(seen.replicas),
    )  # fmt: skip
    return instead_of_refused(state, seen, share, now)


def _why_share(state: State, seen: Observation, share: int) -> str:
    if state.routed is None:
        return "the rollout takes over the traffic unchanged"
    if is_stranded(seen):
        return f"the {'old' if share else 'new'} side has no ready replica"
    if leaves_new(state, seen):
        return "traffic leaves the new side before its replicas do"
    if refusal_of(seen):
        return f"the share that was accepted last, because {refusal_of(seen)}"
    if state.waypoint is not None:
        return f"waypoint {state.waypoint.at} is verified"
    return "the old side is about to be removed" if state.routed.share < share else "the new side is not verified"


def _accepted(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Let a share of the traffic count once every gateway accepted it."""
    if not state.unaccepted or seen.routed is None or seen.routed.pending or _blocked(state):
        return None
    return Decision(act=Act.ACCEPTED, why=f"the gateways accepted {seen.routed.share} % to new")


def _unaccepted(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Wait for the gateways before anything relies on the traffic as written; fail at the deadline."""
    why, deadline = _awaited(state, seen), _deadline_at(rules, state, seen)
    if state.stopped or not why:
        return None
    if now < deadline:
        return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=deadline)
    problem = Problem(cause=Cause.DEADLINE, message=f"the rollout waits for {why} ({_no_progress(rules)})")
    return _failing(problem)


def _awaited(state: State, seen: Observation) -> str:
    """Return which gateways the latest write waits for; empty if it waits for none."""
    pending = seen.routed.pending if seen.routed is not None else ""
    return acceptance(state, pending)


def _whole(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Verify the new side of blueGreen when it is complete, before it receives traffic."""
    if rules.strategy.type is not Way.BLUE_GREEN or state.stopped or state.verified or share_of(seen) == ALL:
        return None
    if (
        not _enough(rules, state, seen, now, seen.replicas)
        or not seen.engaged
        or next_waypoint(rules, state, seen.replicas) is not None
    ):
        return None
    return _verified(rules, state, Decision(act=Act.VERIFY, why="the new side is complete and proven"))


def _retaining(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Keep a side that no longer receives traffic until every proxy has updated and ``retain`` is over."""
    until, leaves = kept_until(rules.strategy, state), leaves_new(state, seen)
    left = seen.new.total if leaves else seen.old.total
    if state.stopped or now >= until or not left or share_of(seen) != (NONE if leaves else ALL):
        return None
    side = "new" if leaves else "old"
    why = f"proxies to update, or retain to end: the {side} side keeps its replicas for {until - now:.0f} s"
    return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=until)


def _crowded(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Hold while the next move lacks room, and continue when there is room; the version is not at fault."""
    if state.stopped_despite_room or state.waypoint is not None:
        return None
    why = _hindered(rules, state, seen, now) or _without_room(rules, state, seen, now)
    if bool(why) == bool(state.crowded):
        return None
    if not why:
        return Decision(act=Act.ROOMY, why="there is room again")
    return Decision(act=Act.CROWDED, why=why, problem=seen.problem)


def _without_room(rules: Rules, state: State, seen: Observation, now: float) -> str:
    """Return what the next move lacks; empty while the rollout waits for something else."""
    if seen.autonomous:
        return ""
    counts, fits = _next_step(rules, state, seen, now)
    unproven = seen.new.total - seen.new.proven
    rests = not seen.leaving and seen.old.total <= seen.requested.old and unproven <= seen.unplaced
    # If all R replicas have a node, only the surge waits. Otherwise the version requests too much: it is late.
    placed = seen.replicas - state.lacking(seen.replicas)
    if fits is None or fits < placed or not seen.old.total or counts != seen.requested or not rests:
        return ""
    floor = resolve_budget(rules.strategy, seen.replicas).floor
    return f"{_why_no_room(seen)}; cannot remove an old replica first: {floor} must stay ready"


def _hindered(rules: Rules, state: State, seen: Observation, now: float) -> str:
    """Return which scheduling gate or lost node is in the way; empty while the version itself can make progress."""
    unproven = seen.new.total - seen.new.proven
    if seen.inert and seen.engaged:
        return seen.hindrance  # no move has an effect
    if not seen.hindrance or not seen.engaged or unproven > seen.unplaced + seen.hindered:
        return ""
    if seen.autonomous:  # its own controller moves the others
        return seen.hindrance if seen.hindered else ""
    end, ahead = resolve_budget(rules.strategy, seen.replicas).end, next_waypoint(rules, state, seen.replicas)
    arrived = unproven == 0 and seen.old.total <= (end.old if ahead is None else seen.requested.old)
    goes_on = arrived and seen.new.total >= (end.new if ahead is None else ahead[1])
    moves = _next_step(rules, state, seen, now)[0] != seen.requested
    return "" if goes_on or moves else seen.hindrance


def _why_no_room(seen: Observation) -> str:
    if seen.unplaced_why:
        return seen.unplaced_why
    if seen.room is not None:
        return seen.room_why
    return str(seen.problem) if seen.unplaced and seen.problem else "there was no room for another replica"


def _draining(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Let stopping replicas finish their requests before the next ones stop."""
    if rules.drain is None or state.stopped or not seen.leaving:
        return None
    timeout_s = rules.drain.timeout.total_seconds()
    if now >= seen.leaving_since + timeout_s:
        return None
    why = f"old replicas to end their requests, {seen.leaving} left (at most {timeout_s:g} s)"
    return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=seen.leaving_since + timeout_s)


def _all_new(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.stopped or not seen.engaged or seen.template != state.wanted.template:
        return None
    end = resolve_budget(rules.strategy, seen.replicas).end
    if (
        seen.old.total != end.old
        or not _enough(rules, state, seen, now, end.new)
        or (seen.home is not None and seen.new.total > end.new)
    ):
        return None
    if next_waypoint(rules, state, seen.replicas) is not None:
        return None
    if not state.verified:
        return _verified(rules, state, Decision(act=Act.VERIFY, why=f"{_all(end)} new and proven"))
    return Decision(act=Act.FINISH, why=f"{_all(end)} new and verified")


def _enough(rules: Rules, state: State, seen: Observation, now: float, wanted: int) -> bool:
    """Whether enough new replicas are proven: all, or after the deadline as many as were ready before the rollout.

    An unschedulable replica is not waited for until the deadline.
    """
    lacking, missing = state.lacking(seen.replicas), wanted - seen.new.proven
    if missing <= 0 or not lacking or missing > lacking or not seen.new.proven:
        return missing <= 0
    pending = _stays_pending(rules, seen, now) and missing <= seen.unplaced
    return pending or now >= _deadline_at(rules, state, seen)


def _all(end: Counts) -> str:
    return f"the {end.new} requested replicas are" if end.old else "every replica is"


def _waypoint(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    ahead = next_waypoint(rules, state, seen.replicas)
    if state.stopped or ahead is None or not seen.engaged or seen.new.total < ahead[1]:
        return None
    index, barrier = ahead
    settled = _enough(rules, state, seen, now, seen.new.total) and seen.old.total <= seen.requested.old
    if state.waypoint is None and settled:
        reached = Decision(act=Act.VERIFY, why=f"the waypoint at {barrier} new is reached", waypoint=index)
        return _verified(rules, state, reached)
    if state.waypoint is not None:
        return Decision(act=Act.WAIT, why=state.waypoint.waits_for(now), wake_at=state.waypoint.next_at(now))
    return None


def _move(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.stopped:
        return None
    unwritten, superseded = seen.template != state.wanted.template, _is_superseded(state, seen)
    serving = _as_if_serving(rules, state, seen)
    counts, fits = (Counts(0, seen.replicas), None) if seen.autonomous else _next_step(rules, state, serving, now)
    if counts == seen.requested and allows_too_many_unavailable(rules, seen):
        floor = resolve_budget(rules.strategy, seen.replicas).floor
        return Decision(act=Act.SCALE, why=f"more replicas are ready by now: {floor} must stay ready", counts=counts)
    if counts == seen.requested or (unwritten and counts.new == 0 and not superseded):
        return None
    if rules.strategy.pace is Pace.EXACT and _is_under_way(state, seen) and not _takes_back(seen, counts):
        return None
    late = f"; {seen.leaving} did not end in time" if rules.drain and seen.leaving else ""
    tight = f"; room for only {fits} in total: {_why_no_room(seen)}" if fits is not None else ""
    move = Decision(act=Act.SCALE, why=_why(seen, counts) + late + tight, counts=counts, fits=fits)
    return _emptied(rules, state, seen, move, now)


def _is_under_way(state: State, seen: Observation) -> bool:
    """Whether the latest step is not whole; a replica without a place does not count: it may need the next step."""
    whole = seen.new.proven + max(seen.unplaced, state.excused(seen.replicas)) >= seen.requested.new
    return not whole or seen.old.total > seen.requested.old


def _takes_back(seen: Observation, counts: Counts) -> bool:
    """Whether a move makes good what was lost, instead of going on."""
    return counts.old > seen.requested.old or counts.new < seen.requested.new


# --- old replicas become empty before they stop ------------------------------------------------------------


def _as_if_serving(rules: Rules, state: State, seen: Observation) -> Observation:
    """Count marked old replicas as ready: they serve again if they are to stay."""
    marked = sum(replica.marked for replica in seen.pods.old)
    if rules.drain is None or rules.drain.until is None or not marked:
        return seen
    old = seen.old
    serving = old.model_copy(update={"ready": min(old.total, old.ready + marked), "spare": max(0, old.spare - marked)})
    return seen.model_copy(update={"old": serving})


def _emptied(rules: Rules, state: State, seen: Observation, move: Decision, now: float) -> Decision:
    """Return the move once the old replicas that it removes are empty, or ``drain.timeout`` is over."""
    drain, counts = rules.drain, move.counts
    if drain is None or drain.until is None or counts is None or counts.old >= seen.old.total:
        return move
    began, timeout_s = state.emptying, drain.timeout.total_seconds()
    if began is None or began.old < counts.old or began.old >= seen.old.total:
        going = seen.old.total - counts.old
        why = f"{counted(going, 'old replica')} to become empty before {_it(going)} stopped (at most {timeout_s:g} s)"
        return Decision(act=Act.DRAIN, why=why, counts=counts, empties=True)
    # More replicas may be removable by now: those that began to empty go first, the others after them.
    most = move.fits or resolve_budget(rules.strategy, seen.replicas).ceiling
    kept = Counts(began.old, min(counts.new, max(seen.requested.new, most - began.old)))
    found, took = seen.emptiness, f"{now - began.since:.0f} s"
    gone = move.model_copy(update={"counts": kept, "why": _why(seen, kept), "empties": True})
    if found is not None and found.since is not None and now >= found.since + drain.quiet.total_seconds():
        return gone.model_copy(update={"emptied": f"{counted(found.number, 'old replica')} empty after {took}"})
    # After a gap in what was observed they may serve again: kubelets restore readiness meanwhile.
    over_at = max(began.since, seen.seen_since) + timeout_s
    if now >= over_at:
        left = f"drain.timeout is over after {took}: {found or 'no old replica has answered'}"
        return gone.model_copy(update={"emptied": left, "cut": True})
    why = f"old replicas to become empty: {found or 'none has answered yet'} (at most {timeout_s:g} s)"
    wakes = [over_at, *([found.since + drain.quiet.total_seconds()] if found and found.since else [])]
    return Decision(act=Act.WAIT, why=why, empties=True, wake_at=min(at for at in wakes if at > now))


def _it(number: int) -> str:
    return "they are" if number != 1 else "it is"


def _spared(state: State, decision: Decision) -> Decision | None:
    """Let emptying old replicas serve again if the rollout now waits for something else."""
    if state.emptying is None or decision.empties or decision.act is not Act.WAIT:
        return None
    return Decision(act=Act.DRAIN, why=f"old replicas keep serving: the rollout waits for {decision.why}")


def _why(seen: Observation, counts: Counts) -> str:
    parts = [f"{name} {a}→{b}" for name, a, b in zip(("old", "new"), seen.requested, counts, strict=True) if a != b]
    return ", ".join(parts)


def _late(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.stopped or state.waypoint is not None or now < _deadline_at(rules, state, seen):
        return None
    problem = seen.problem or Problem(cause=Cause.DEADLINE, message=shortfall(rules, state, seen, now))
    late = problem.model_copy(update={"message": f"{problem.message} ({_no_progress(rules)}{_either(seen)})"})
    return _failing(late)


def _no_progress(rules: Rules) -> str:
    return f"no progress for {rules.readiness.deadline.total_seconds():g} s"


def _either(seen: Observation) -> str:
    """Return how many old replicas are not ready either: then the new version is not the only suspect."""
    unready = seen.old.total - seen.old.ready - sum(replica.marked for replica in seen.pods.old)
    return f"; {unready} of {seen.old.total} old replicas are not ready either" if unready > 0 else ""


def _return(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.home is None or not state.claimed or _blocked(state):
        return None
    restored = _is_restored(rules, state, seen, now, seen.home.old)
    if seen.counts == seen.requested == seen.home and restored and seen.new.ready >= seen.home.new:
        return Decision(act=Act.FINISH, why="every replica runs the baseline again")
    # The baseline was proven before, so go back as fast as the budget allows.
    budget = resolve_budget(rules.strategy, seen.replicas)._replace(kept=seen.home.old, step=seen.replicas)
    # If no baseline replica was ready before, none may ever be proven: wait for none.
    was_ready = state.lacking(seen.replicas) < seen.home.old
    order = rules.strategy.order if was_ready else Order.SCALE_IN_PRIORITY
    counts = toward(budget, order, seen, keep=must_stay(rules.strategy, state, seen, now))
    return None if counts == seen.requested else Decision(act=Act.UNDO, why=_why(seen, counts), counts=counts)


def _undo(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if (
        seen.home is None
        and state.claimed
        and (seen.engaged or seen.template != state.baseline.template or _is_kept_up(rules, state, seen))
        and not seen.pinned
        and not _blocked(state)
    ):
        return Decision(act=Act.UNDO, why="restoring the baseline")
    return None


def _lower_floor(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Go on without progress with what was ready before the rollout: forward only if no more new ones are unproven."""
    if state.stopped or state.waypoint is not None or seen.autonomous:
        return None
    if not can_lower(state, seen.replicas) or now < _deadline_at(rules, state, seen):
        return None
    lacking, is_back = state.lacking(seen.replicas), state.goal is Goal.BACK
    if not is_back and (not seen.new.proven or seen.new.total - seen.new.proven > lacking):
        return None
    needs = (
        f"the {'rollback' if is_back else 'rollout'} needs no more ready replicas than there were before the rollout"
    )
    why = f"{needs}: {seen.replicas - lacking} of {seen.replicas}"
    return Decision(act=Act.LOWER_FLOOR, why=why)


def _is_kept_up(rules: Rules, state: State, seen: Observation) -> bool:
    """Whether the target's own controller goes back with a higher floor than the rollback has by now."""
    if seen.own_unavailable is None or seen.replicas < 1 or state.before is None or not state.before.lowered:
        return False
    return seen.own_unavailable < resolve_budget(rules.strategy, seen.replicas).unavailable


def _all_old(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if not state.claimed:
        return Decision(act=Act.FINISH, why="nothing was changed yet")
    whole = seen.old.total >= seen.replicas and _is_restored(rules, state, seen, now, seen.replicas)
    if seen.engaged or not whole or _blocked(state) or (seen.new.total and not _remains(rules, state, seen, now)):
        return None
    lacks = seen.old.proven < seen.replicas
    ready = f" and {seen.old.proven} of {seen.replicas} are ready, as before the rollout" if lacks else ""
    return Decision(act=Act.FINISH, why=f"every replica runs the baseline again{ready}")


def _remains(rules: Rules, state: State, seen: Observation, now: float) -> bool:
    """Whether the operator kept unready new replicas until the deadline, and nothing else is left of the new side.

    The controller of its Deployment keeps them while as many old replicas are not ready, as they were before.
    """
    is_operators = seen.autonomous and not seen.numbered and not seen.new.ready
    return is_operators and bool(state.lacking(seen.replicas)) and now >= _deadline_at(rules, state, seen)


def _is_restored(rules: Rules, state: State, seen: Observation, now: float, wanted: int) -> bool:
    """Whether the baseline is as ready as before the rollout; after the deadline, whether no more of it is unready.

    After a drop of R, replicas that were not ready before may have stayed in the place of ready ones.
    """
    missing, before = wanted - seen.old.proven, state.before
    if missing <= state.lacking(seen.replicas):
        return True
    most = before.replicas - before.ready if before is not None and seen.old.proven else 0
    return missing <= most and now >= _deadline_at(rules, state, seen)


def _alarm(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    # A gap in what was observed postpones the alarm, but it is no progress that ends one.
    known = seen.model_copy(update={"seen_since": 0.0}) if state.needs_human else seen
    late = now >= _deadline_at(rules, state, known)
    if late == state.needs_human or state.foreign is not None:
        return None
    if not late:
        return Decision(act=Act.CALM, why="the rollback makes progress again")
    problem = seen.problem or Problem(
        cause=Cause.DEADLINE, message=_awaited(state, seen) or shortfall_back(rules, seen, now)
    )
    return Decision(act=Act.ALARM, why=f"the rollback makes no progress: {problem}", problem=problem)


def _waiting(rules: Rules, state: State, seen: Observation, now: float) -> Decision:
    hopeless_from = _hopeless_from(state, seen.problem) if seen.problem else None
    waits = [seen.next_proven_at, hopeless_from, tried_again_at(state)]
    if state.goal is Goal.BACK:
        why = _awaited(state, seen) or to_be_available(state, seen, now) or shortfall_back(rules, seen, now)
        why += _in_the_way(state, seen)
    elif state.stopped:
        why = state.stopped
    else:
        why = to_stop(seen, now) or to_be_available(state, seen, now) or shortfall(rules, state, seen, now)
    if not state.stopped and not (state.goal is Goal.BACK and state.needs_human):
        waits.append(_deadline_at(rules, state, seen))
    wake = [w for w in waits if w is not None and w > now]
    return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=min(wake, default=None))


def _in_the_way(state: State, seen: Observation) -> str:
    """Return what keeps old replicas from coming back: the status already has the failure as its reason."""
    problem = seen.problem
    if problem is None or problem.cause is Cause.UNREADY or state.needs_human:
        return ""
    return f": {problem}"


def _blocked(state: State) -> bool:
    return state.foreign is not None and not state.overrules


def _deadline_at(rules: Rules, state: State, seen: Observation) -> float:
    waited = (state.progress_at, seen.progress_at, seen.seen_since, seen.freed_by, seen.available_by)
    began = max(*waited, kept_until(rules.strategy, state))
    return began + rules.readiness.deadline.total_seconds()


def movable_since(rules: Rules, state: State, seen: Observation) -> float:
    """Return since when a move waits only for Segue: seconds since the epoch; 0 while no replica is proven.

    That is the latest proof of readiness, or the later moment at which a person, a hold or a gate released the rollout.
    """
    if not seen.progress_at:
        return 0.0
    return max(seen.progress_at + rules.readiness.min_ready.total_seconds(), state.progress_at)


_FORWARD: tuple[Case, ...] = (
    _fenced, _unpaused, _foreign, _asleep, _frozen, _failed, _breached, _unrouted, _measuring, _routed, _accepted,
    _resized, _settled, _regained, _lost, _unaccepted, _whole, _retaining, _crowded, _draining, _all_new, _waypoint,
    _move, _lower_floor, _late, _waiting,
)  # fmt: skip
_BACK: tuple[Case, ...] = (
    _fenced, _foreign, _routed, _accepted, _undo, _resized, _retaining, _return, _unpaused, _all_old, _lower_floor,
    _alarm, _waiting,
)  # fmt: skip
