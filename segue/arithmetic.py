"""The arithmetic of a rollout: the next counts, the waypoint ahead, and the floor. Shared with the plan."""

from segue.budget import Budget, objection, resolve_budget
from segue.observation import Counts, Observation
from segue.spec import Order, Rules, Waypoint
from segue.state import State
from segue.units import resolve


def next_counts(
    budget: Budget, order: Order, seen: Observation, barrier: int | None = None, *, keep: int = 0, excused: int = 0
) -> Counts:
    """Return the counts to request next; the counts already requested if nothing can move.

    R=4, maxSurge 1, maxUnavailable 0, everything ready at once (intermediate states are in brackets):

    ====================  =========================================================================
    scaleOutPriority      (4,0) (4,1) [3,1] (3,2) [2,2] (2,3) [1,3] (1,4) (0,4)
    ====================  =========================================================================

    R=4, step 2, with the default budget of each order:

    ====================  =========================================
    scaleOutPriority      (4,0) (4,2) [2,2] (2,4) (0,4)
    scaleInPriority       (4,0) [2,0] (2,2) [0,2] (0,4)
    scaleSimultaneously   (4,0) (2,2) (0,4)
    ====================  =========================================

    ``barrier`` is the number of new replicas at the next waypoint. The counts never pass it, and they reach it only
    when all earlier new replicas are proven, so that the rollout stops exactly where the plan says. ``keep`` replicas
    of the side that is being removed stay, because they receive traffic. So many ``excused`` new replicas need not be
    proven before others come.
    """
    old, new = seen.old, seen.new
    # After a change of R the fields on the target give other counts than intended: bring them into range.
    current = _within_budget(budget, seen, kept_old(seen), seen.requested.new)
    expendable = max(0, old.ready + new.proven - budget.floor) + old.spare
    if old.total - expendable > current.old:  # readiness was lost since the request: keep what still runs
        back = _within_budget(budget, seen, min(old.total - expendable, budget.replicas), current.new)
        # After a drop of R the target cannot hold all that would have to stay: never request what a write refuses.
        return seen.requested if objection(budget, seen, back) else back
    if barrier is not None and current.new >= barrier:
        return current
    if order is Order.SCALE_OUT_PRIORITY and budget.surge and not new.proven:
        # Remove no old replica before a new one is proven, except a superseded surplus.
        expendable = min(expendable, max(0, old.total - budget.replicas))
    # What is above R after a drop of R goes in one step: a target without a home cannot be held in between.
    surplus = old.total - budget.replicas if seen.home is None else 0
    lowest = max(old.total - min(expendable, max(budget.step, surplus)), min(max(budget.kept, keep), old.total))
    # What was to stop before and is still there uses the ceiling too. A number is replaced in its place.
    remaining = 0 if seen.numbered else max(0, old.total - seen.requested.old)
    enough = min(new.proven + excused, current.new)
    kept, grown = _within_budget(budget, seen, lowest, _grown(budget, current, enough, lowest + remaining, barrier))
    return current if kept > current.old else Counts(kept, grown)  # more must stay than are requested: nothing can move


def toward(
    budget: Budget, order: Order, seen: Observation, barrier: int | None = None, *, keep: int = 0, excused: int = 0
) -> Counts:
    """Return the next counts toward ``budget.end``, also if new replicas have to be removed.

    Going back is the same as going forward with the sides exchanged, within the same floor and ceiling.
    """
    ahead = seen.counts.new <= budget.end.new and seen.counts.old >= budget.end.old
    if ahead or (seen.home is None and not budget.kept):
        return next_counts(budget, order, seen, barrier, keep=keep, excused=excused)
    exchanged = seen.model_copy(
        update={"old": seen.new, "new": seen.old, "requested": Counts(seen.requested.new, seen.requested.old)}
    )
    leaving, coming = next_counts(budget._replace(kept=budget.end.new), order, exchanged, keep=keep)
    # If somebody scaled the old side above R, both sides lose replicas: wait until enough of the others are proven.
    both = seen.model_copy(update={"home": seen.home or seen.counts})  # a plan has none
    return seen.requested if objection(budget, both, Counts(coming, leaving)) else Counts(coming, leaving)


def kept_old(seen: Observation) -> int:
    """Return how many old replicas are to stay as requested; at most R for a target without a home."""
    kept = max(0, min(seen.requested.old, seen.old.total))
    return kept if seen.home is not None else min(kept, max(seen.replicas, 0))


def _within_budget(budget: Budget, seen: Observation, old: int, new: int) -> Counts:
    """Bring counts into the budget: existing new replicas stay, and removed ones are replaced at once."""
    new = min(max(seen.new.total, min(new, budget.ceiling - old, budget.end.new)), budget.replicas)
    missing = budget.replicas - new
    if seen.home is not None:  # it can hold fewer than R: after a settle, add nothing to the side being removed
        missing = min(missing, seen.old.total)
    return Counts(max(old, missing), new)


def _grown(budget: Budget, current: Counts, proven: int, old: int, barrier: int | None) -> int:
    grown = min(budget.end.new, budget.ceiling - old, proven + budget.step)
    if barrier is not None and grown >= barrier:
        grown = barrier if proven >= current.new else min(grown, barrier - 1)
    return max(grown, current.new)


def takes_the_last(budget: Budget, order: Order, seen: Observation, barrier: int | None = None) -> bool:
    """Whether the next move would remove the last old replica, if none had to stay."""
    return next_counts(budget, order, seen, barrier).old == 0


def barrier_at(waypoint: Waypoint, replicas: int) -> int:
    """Return the number of new replicas at a waypoint; percentages round up, at most all."""
    return max(1, min(resolve(waypoint.at, replicas, round_up=True), replicas))


def next_waypoint(rules: Rules, state: State, replicas: int) -> tuple[int, int] | None:
    """Return (index, new replicas) of the nearest waypoint that is not passed; None after the last."""
    most = resolve_budget(rules.strategy, replicas).end.new if replicas else 0
    ahead = [
        (min(barrier_at(w, replicas), most), i) for i, w in enumerate(rules.strategy.waypoints) if i not in state.passed
    ]
    if not ahead:
        return None
    barrier, index = min(ahead)
    return index, barrier


def ready_of(seen: Observation) -> int:
    """Return how many replicas are ready, old and new."""
    return seen.old.ready + seen.new.ready


def floor_of(rules: Rules, state: State, seen: Observation) -> int:
    """Return how many must be ready, by R at the latest move: replicas that a resize adds still load."""
    replicas = seen.replicas if state.sized is None else min(seen.replicas, state.sized)
    return resolve_budget(rules.strategy, replicas).floor if replicas else 0
