"""A rollout need not make replicas ready that were not ready before it, forward or back. Pure."""

from segue.budget import resolve_budget
from segue.observation import Observation
from segue.spec import Rules
from segue.state import Before, Goal, State
from segue.units import share


def as_before(rules: Rules, state: State, replicas: int) -> Rules:
    """Return the rules, with a lower floor if not all replicas were ready before the rollout.

    The floor is the number ready before the rollout, or at one time since, less ``maxUnavailable``. In a rollback,
    replicas that were starting before count as ready ones. Without progress, forward or back, only those that were
    ready before count. The floor is a percentage, and follows R: a number could let all replicas be unavailable after
    somebody scaled the target down.
    """
    return _lowered(rules, _absent(state, replicas), replicas)


def for_way_back(rules: Rules, state: State, replicas: int) -> Rules:
    """Return the rules by which a release goes back, from those of ``as_before``.

    What the new version reached says nothing about the baseline: it may never have as many ready replicas.
    """
    return _lowered(rules, state.lacking(replicas) - _absent(state, replicas), replicas)


def _lowered(rules: Rules, lacking: int, replicas: int) -> Rules:
    if not lacking:
        return rules
    budget = resolve_budget(rules.strategy, replicas)
    unavailable = min(replicas, budget.unavailable + lacking)
    changes = {"max_unavailable": share(unavailable, replicas, round_up=False), "step": budget.step}
    return rules.model_copy(update={"strategy": rules.strategy.model_copy(update=changes)})


def can_lower(state: State, replicas: int) -> bool:
    """Whether a rollout without progress can go on with what was ready before it.

    A rollback cannot if its floor counts no replicas that were only starting before.
    """
    before = state.before
    is_lower = before is None or before.lowered or (state.goal is Goal.BACK and not before.starting)
    return not is_lower and state.lacking(replicas) > 0


def is_undone(seen: Observation, baseline: str, unavailable: int) -> bool:
    """Whether the target's own controller is going back already, with as many replicas unavailable as it may."""
    free = seen.own_unavailable  # None while a lever is engaged
    return free is not None and seen.template == baseline and free >= unavailable


def allows_too_many_unavailable(rules: Rules, seen: Observation) -> bool:
    """Whether the target's own controller may make more replicas unavailable than the floor allows by now."""
    free = seen.own_unavailable
    return seen.engaged and free is not None and free > resolve_budget(rules.strategy, seen.replicas).unavailable


def with_ready(state: State, seen: Observation) -> State:
    """Return the state after an observation: replicas that became ready must be ready from here on."""
    before = state.before
    if before is None or seen.gone or seen.replicas < 1 or (before.ready >= before.replicas and not before.shrunk):
        return state
    before = _resized(before, state.goal, seen)
    is_baseline = state.goal is Goal.BACK or seen.home is not None or not before.mixed
    # If somebody added old replicas, these can be the ready ones.
    added = max(0, seen.old.total - seen.replicas) if seen.foreign is not None else 0
    old_ready = seen.old.ready - added
    ready = min(before.replicas, max(before.ready, old_ready if is_baseline else 0))
    reached = min(before.replicas, max(before.reached, old_ready + seen.new.ready))
    found = before.model_copy(update={"ready": ready, "reached": reached})
    return state if found == state.before else state.but(before=found)


def is_outdated(state: State, seen: Observation) -> bool:
    """Whether more replicas are ready now than ``state`` knows of, so that the floor is higher than it allows for."""
    known = with_ready(state, seen)
    return _absent(known, seen.replicas) < _absent(state, seen.replicas)


def _absent(state: State, replicas: int) -> int:
    before = state.before
    if before is None or before.lowered:
        return state.lacking(replicas)
    if state.goal is Goal.FORWARD:
        return state.unreached(replicas)
    return max(0, state.lacking(replicas) - before.starting)


def _resized(before: Before, goal: Goal, seen: Observation) -> Before:
    """Return the same for another R.

    Added replicas may become ready, while those that were not ready before still are not. A smaller R removes unready
    replicas first; if R rises again before the target's controller has acted, they stay. If others lost their readiness
    meanwhile, these can be the ones that go, and those that were not ready before can stay. On the way back, unready
    replicas of the baseline are starting: all that can be are to be ready. If the replicas have numbers, the highest
    numbers go, and these may be the ready ones.
    """
    gone = before.replicas - seen.replicas
    if gone <= 0:
        return before.model_copy(update={"replicas": seen.replicas})
    if seen.numbered:
        fewer = {"ready": max(0, before.ready - gone), "reached": max(0, before.reached - gone)}
        return before.model_copy(update={"replicas": seen.replicas, "shrunk": True, **fewer})
    if goal is Goal.BACK:
        return before
    stay = min(before.replicas - before.ready, max(0, seen.old.total - seen.old.ready))
    most = max(min(before.ready, 1), seen.replicas - stay)
    fewer = {"ready": min(before.ready, most), "reached": min(before.reached, most)}
    return before.model_copy(update={"replicas": seen.replicas, "shrunk": True, **fewer})
