"""When to observe a waiting rollout again if nothing of its own changes. Pure; times are seconds since the epoch."""

from collections.abc import Iterator

from segue.observation import Observation
from segue.spec import Rules
from segue.state import Goal, State

MINUTE_S = 60.0
"""Freezes of a policy begin and end at full minutes."""


def rests(state: State) -> bool:
    """Whether the rollout waits for a person, for the end of a hold, or for replicas, and moves nothing until then.

    A rollout that waits for room does not rest: the room may change without any event of its own.
    """
    if state.goal is Goal.BACK or state.outcome is not None:
        return False
    return state.waypoint is not None or bool(state.stopped_despite_room)


def next_look_at(rules: Rules, state: State, seen: Observation, wake_at: float | None, now: float) -> float | None:
    """Return when the passage of time alone may change the decision to wait; ``wake_at`` is the decision's own time.

    Returns ``now`` while that is not known: the rollout moves, or a replica is missing, unplaced or stopping.
    Returns None if only an event or a message changes the decision.
    """
    if not rests(state) or not _is_steady(state, seen):
        return now
    freeze_at = now + MINUTE_S - now % MINUTE_S if seen.frozen else None
    times = (wake_at, seen.next_proven_at, freeze_at, *_gate_times(rules, state))
    return min((at for at in times if at is not None and at > now), default=None)


def _is_steady(state: State, seen: Observation) -> bool:
    """Whether no deadline runs: all new replicas are ready, or the rollout already waits for a person because of it."""
    if seen.unpaused or seen.leaving or state.emptying is not None:
        return False
    blocked = state.unresolved is not None or (state.foreign is not None and not state.overrules) or state.asleep
    whole = seen.new.ready >= seen.new.total and not seen.unplaced and not seen.hindered
    return blocked or whole


def _gate_times(rules: Rules, state: State) -> Iterator[float]:
    """Yield when a gate is due, or undecided for too long."""
    for gate in rules.repeated_gates:
        tally = state.tally(gate.name)
        if tally is not None:
            yield tally.next_at
            yield tally.since + gate.deadline.total_seconds()
