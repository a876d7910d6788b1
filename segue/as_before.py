"""A rollout need not make replicas ready that were not ready before it, forward or back. Pure."""

from segue.budget import resolve_budget
from segue.observation import Observation
from segue.spec import Rules
from segue.state import Goal, State


def as_before(rules: Rules, state: State, replicas: int) -> Rules:
    """Return the rules, with a lower floor if not all replicas were ready before the rollout.

    The floor is at least the number ready before the rollout, or at one time since, less ``maxUnavailable``.
    """
    lacking = state.lacking(replicas) if state.goal is Goal.BACK else state.unreached(replicas)
    if not lacking or replicas < 1:
        return rules
    budget = resolve_budget(rules.strategy, replicas)
    unavailable = min(replicas, budget.unavailable + lacking)
    changes = {"max_surge": budget.surge, "max_unavailable": unavailable, "step": budget.step}
    return rules.model_copy(update={"strategy": rules.strategy.model_copy(update=changes)})


def with_ready(state: State, seen: Observation) -> State:
    """Return the state after an observation: replicas that became ready must be ready from here on."""
    before = state.before
    if before is None or before.ready >= before.replicas or seen.gone:
        return state
    ready = min(before.replicas, max(before.ready, seen.old.ready))
    reached = min(before.replicas, max(before.reached, seen.old.ready + seen.new.ready))
    if (ready, reached) == (before.ready, before.reached):
        return state
    return state.but(before=before.model_copy(update={"ready": ready, "reached": reached}))
