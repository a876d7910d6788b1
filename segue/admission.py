"""Which moves wait for their turn among the moves of other rollouts, and in what order. Pure."""

from typing import NamedTuple

from segue.arithmetic import barrier_at
from segue.decide import movable_since
from segue.decision import Act, Decision
from segue.observation import Observation
from segue.spec import Rules
from segue.state import Goal, State


class MoveOrder(NamedTuple):
    """The place of a move among the moves that wait; the lowest goes first."""

    begins: bool
    """Whether it is the first move of a rollout, or its first one after a waypoint: what is under way ends first."""
    since: float
    """Since when the move is possible, in seconds since the epoch: the oldest goes first."""


def order_of(rules: Rules, state: State, seen: Observation, decision: Decision) -> MoveOrder | None:
    """Return the order of a decided move. Returns None for a decision that never waits.

    These are rollbacks, old replicas that come back, old replicas that already left their Services, and everything
    that moves no replica.
    """
    counts = decision.counts
    if state.goal is Goal.BACK or decision.act not in {Act.SCALE, Act.DRAIN} or counts is None:
        return None
    if counts.old > seen.requested.old or (decision.act is Act.SCALE and decision.empties):
        return None
    return MoveOrder(_begins(rules, state, seen), movable_since(rules, state, seen) or state.progress_at)


def _begins(rules: Rules, state: State, seen: Observation) -> bool:
    """Whether the rollout has not begun, or rests whole at the waypoint that it passed last."""
    if not state.claimed:
        return True
    if not state.passed or sum(seen.requested) < seen.replicas:
        return False
    return seen.requested.new <= barrier_at(rules.strategy.waypoints[state.passed[-1]], seen.replicas)
