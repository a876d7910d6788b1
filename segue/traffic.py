"""The new side's share of the traffic, and how many replicas must stay on a side that receives traffic. Pure.

Traffic is separate from replicas. Without ``traffic`` in the strategy, one Service spreads it over both sides; with it,
Segue writes the percent to the new side. A side without a ready replica never receives traffic, and a side that
receives traffic is never emptied. A share of an HTTPRoute counts once its gateways accepted it.
"""

from segue.observation import Observation
from segue.spec import Strategy, Way
from segue.state import Goal, State

NONE, ALL = 0, 100
AGAIN_S = 60.0
"""How long the accepted share stays before a refused one is tried again: the gateway's reason may have passed."""


def leaves_new(state: State, seen: Observation) -> bool:
    """Whether the new side is being removed: during a rollback, or for another version after a retarget."""
    return state.goal is Goal.BACK or (seen.template != state.wanted.template and seen.new.total > 0)


def share_of(seen: Observation) -> int:
    """Return the percent of the traffic that the new side has now."""
    return seen.routed.share if seen.routed is not None else NONE


def reached_weight(strategy: Strategy, state: State) -> int:
    """Return the weight of the latest reached and verified waypoint that has a weight; 0 without one."""
    reached = (*state.passed, *((state.waypoint.index,) if state.waypoint else ()))
    weights = [strategy.waypoints[i].weight for i in reached]
    return next((w for w in reversed(weights) if w is not None), NONE)


def wanted_share(
    strategy: Strategy, seen: Observation, *, back: bool, weight: int, verified: bool, ahead: bool, last: bool,
    excused: int = 0,
) -> int:  # fmt: skip
    """Return the percent of the traffic that the new side should have.

    ``back``: the new side is being removed. ``weight``: that of the latest waypoint. ``verified``: every new replica is
    verified. ``ahead``: a waypoint is still to come. ``last``: the next move removes the last old replicas.
    ``excused``: how many new replicas need not be proven.
    """
    now = share_of(seen)
    if is_stranded(seen):
        return ALL if seen.new.ready else NONE
    if back:
        wanted = _share_back(now, seen)
    elif strategy.type is Way.BLUE_GREEN:
        whole = verified and not ahead and seen.new.proven >= seen.replicas - excused
        wanted = ALL if now == ALL or whole else NONE
    else:
        wanted = ALL if not ahead and (now == ALL or (last and seen.new.proven)) else weight
        wanted = ALL if wanted and not seen.old.ready else wanted
    gains_nothing_ready = (wanted > now and not seen.new.ready) or (wanted < now and not seen.old.ready)
    return now if gains_nothing_ready else wanted


def is_stranded(seen: Observation) -> bool:
    """Whether traffic goes to a side without a ready replica while the other side has ready ones.

    A new side that had no traffic before does not receive any for that: it is not verified.
    """
    now = share_of(seen)
    return now > NONE and bool(
        (not seen.new.ready and seen.old.ready) or (now < ALL and not seen.old.ready and seen.new.ready)
    )


def acceptance(state: State, pending: str = "") -> str:
    """Return that the latest write waits for gateways; empty if it waits for none.

    ``pending`` says which, as it is observed; by default those of the time of the write.
    """
    if state.routed is None or not state.unaccepted:
        return ""
    return f"the gateways to accept {state.routed.share} % to new: {pending or state.unaccepted}"


def pending_of(state: State, seen: Observation | None) -> str:
    """Return which gateway has not accepted the latest write, as it was observed after it; empty if it was not yet."""
    written, found = state.routed, seen.routed if seen is not None else None
    return found.pending if written is not None and found is not None and found.share == written.share else ""


def refusal_of(seen: Observation) -> str:
    """Return which gateway refuses the traffic as written, in its own words; empty if none does."""
    return seen.routed.refusal if seen.routed is not None else ""


def instead_of_refused(state: State, seen: Observation, wanted: int, now: float) -> int:
    """Return ``wanted``, or in place of a share that a gateway refuses, the one that it accepted last.

    A refused share is tried again only after ``AGAIN_S``, and the accepted one not if that is refused by now too.
    """
    if state.routed is None:
        return wanted
    share, present = state.routed.accepted, share_of(seen)
    if not refusal_of(seen):
        return present if wanted != present and now < tried_again_at(state, wanted) else wanted
    if share is None or wanted != present:
        return wanted
    is_empty = (share > NONE and not seen.new.ready) or (share < ALL and not seen.old.ready)
    return wanted if is_empty else share


def tried_again_at(state: State, wanted: int | None = None) -> float:
    """Return when a refused share is tried again, if it is ``wanted``: seconds since the epoch; 0 if none was refused.

    Without ``wanted``, that of any share.
    """
    routed = state.routed
    if (
        routed is None
        or routed.refused is None
        or routed.refused == routed.share
        or wanted not in {None, routed.refused}
    ):
        return 0.0
    return routed.since + AGAIN_S


def _share_back(now: int, seen: Observation) -> int:
    """Return all traffic to the old side; if it has none yet, wait until it has as many ready replicas as the new."""
    return NONE if now < ALL or seen.old.ready >= seen.new.ready else now


def must_stay(strategy: Strategy, state: State, seen: Observation, now: float) -> int:
    """Return how many replicas must stay on the side being removed: the old one forward, else the new one."""
    if strategy.traffic is None:
        return 0
    share, is_blue_green = share_of(seen), strategy.type is Way.BLUE_GREEN
    is_kept = now < kept_until(strategy, state) or bool(state.unaccepted)
    if leaves_new(state, seen):
        stays_there = is_blue_green or (state.routed is not None and state.routed.refused is not None)
        return 1 if share and not stays_there else seen.new.total if share or is_kept else 0
    if share < ALL:
        return max(seen.old.total, seen.replicas) if is_blue_green else 1
    is_free = not is_kept and (not is_blue_green or seen.new.proven >= seen.replicas - state.excused(seen.replicas))
    return 0 if is_free else seen.old.total


def kept_until(strategy: Strategy, state: State) -> float:
    """Return until when a side without traffic keeps all replicas: seconds since the epoch; 0 if none does.

    Proxies need a moment to update; after the switch of blueGreen, ``retain`` applies too.
    """
    routed, traffic = state.routed, strategy.traffic
    if traffic is None or routed is None or not routed.since or NONE < routed.share < ALL:
        return 0.0
    is_retained = strategy.retain is not None and routed.share == ALL and not state.promoted
    kept_for = max(traffic.lag, strategy.retain) if is_retained and strategy.retain else traffic.lag
    return routed.since + kept_for.total_seconds()


def objection(strategy: Strategy, seen: Observation, share: int) -> str:
    """Return why ``share`` would send traffic to a side without a ready replica; empty if it would not.

    An independent check of ``wanted_share``, on an observation made right before the write.
    """
    if share > NONE and not seen.new.ready:
        return f"{share} % to the new side, which has no ready replica"
    if share < ALL and not seen.old.ready:
        return f"{ALL - share} % to the old side, which has no ready replica"
    if strategy.type is Way.BLUE_GREEN and share not in (NONE, ALL):
        return f"{share} % to the new side, but blueGreen allows only 0 % or 100 %"
    return ""


def objection_to_counts(share: int, old: int, new: int) -> str:
    """Return why these counts would empty a side that receives traffic; empty if they would not."""
    if share < ALL and not old and new:
        return f"{ALL - share} % of the traffic goes to the old side, which would have no replica"
    if share > NONE and not new and old:
        return f"{share} % of the traffic goes to the new side, which would have no replica"
    return ""
