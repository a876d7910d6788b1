"""What a rollout waits for, in words that follow *waits for*."""

from segue.arithmetic import floor_of, ready_of
from segue.observation import Counts, Observation, Side
from segue.spec import Rules
from segue.state import Goal, State
from segue.units import counted

AHEAD_S = 2.0
"""A replica that is Ready since a time so far ahead shows that the clocks of its node and of the API server differ."""

_CATCH_UP = "the target's controller to catch up"


def to_stop(seen: Observation, now: float) -> str:
    """Return for which stopping replicas the new side waits; empty if it waits for none."""
    if not seen.leaving or seen.freed_by <= now:
        return ""
    stops = f"{counted(seen.leaving, 'replica')} to stop and free the resources for new ones"
    return f"{stops}, at most {seen.freed_by - now:.0f} s more ({seen.unplaced_why or 'each is replaced in place'})"


def to_be_available(state: State, seen: Observation, now: float) -> str:
    """Return that the target's controller waits for its minReadySeconds; empty if it does not."""
    going = seen.new.total if state.goal is Goal.BACK else seen.old.total - seen.requested.old
    if going <= 0 or seen.available_by <= now:
        return ""
    left = f"{seen.available_by - now:.0f} s more (minReadySeconds)"
    return f"the target's controller to count the latest ready replica as available, {left}"


def shortfall(rules: Rules, state: State, seen: Observation, now: float) -> str:
    """Return what the requested counts lack on the way forward."""
    if seen.autonomous and not seen.new.total and seen.requested.new:
        return "the target's own operator or controller to create the first new replica"
    if seen.old.total > seen.requested.old:
        return f"{counted(seen.old.total - seen.requested.old, 'old replica')} to stop"
    missing = seen.requested.new - seen.new.proven
    if missing <= 0:
        return _old_to_be_ready(rules, state, seen)
    return _proof("new", missing, seen.new, seen.requested.new) + _ahead(rules, seen, now)


def _old_to_be_ready(rules: Rules, state: State, seen: Observation) -> str:
    """Return which old replicas keep the rollout at the floor; if none does, that the controller has to catch up."""
    floor, unready = floor_of(rules, state, seen), [each.name for each in seen.pods.old if each.ready_since is None]
    absent = seen.old.total - len(seen.pods.old) if seen.numbered else 0
    if not (unready or absent > 0) or ready_of(seen) > floor:
        return _CATCH_UP
    ready = f"{ready_of(seen)} of {seen.replicas} replicas are ready, and {floor} must stay ready"
    if not unready:
        return f"the target's controller to create {counted(absent, 'old replica')} again: {ready}"
    more = f" and {len(unready) - 1} more" if len(unready) > 1 else ""
    return f"old replica {min(unready)}{more} to be ready: {ready}"


def shortfall_back(rules: Rules, seen: Observation, now: float) -> str:
    """Return what the baseline lacks on the way back."""
    home = seen.home or Counts(seen.replicas, 0)
    missing, extra = home.old - seen.old.proven, seen.new.total - home.new
    parts = [_proof("old", missing, seen.old, home.old) + _ahead(rules, seen, now)] * (missing > 0)
    parts += [f"{counted(extra, 'new replica')} to stop"] * (extra > 0)
    return " and ".join(parts) or _CATCH_UP


def _ahead(rules: Rules, seen: Observation, now: float) -> str:
    """Return that a replica is Ready since a time that is to come: one of the clocks is wrong; empty otherwise."""
    if seen.next_proven_at is None:
        return ""
    ahead_s = seen.next_proven_at - rules.readiness.min_ready.total_seconds() - now
    if ahead_s < AHEAD_S:
        return ""
    return f"; by the clock of its node the next one became Ready {ahead_s:.0f} s from now: synchronize both clocks"


def _proof(name: str, missing: int, side: Side, wanted: int) -> str:
    """Return how many replicas of a side are still to be proven."""
    return f"{counted(missing, f'{name} replica')} to be proven ({side.ready} of {wanted} ready, {side.proven} proven)"
