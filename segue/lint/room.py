"""The rule about room: whether the replicas that a rollout adds find a place (``segue.room`` counts them)."""

from segue.budget import Budget
from segue.lint.facts import NEEDS, Facts
from segue.lint.findings import Found, Object, Severity
from segue.room import left_in, nodes_for, places_on, shown


def surge_does_not_fit(facts: Facts) -> list[Found]:
    """Find a surge that nodes or quotas have no room for."""
    budget, fits = facts.budget, fitting(facts)
    if budget is None or fits is None or fits >= budget.surge:
        return []
    said = f"{fits or 'none'} of {budget.surge} more would fit: {_because(facts, budget.surge)}"
    if facts.rollout is not None:
        mend = facts.respecified({"strategy": _respecified(budget, fits)}, _note(facts, fits))
        return [Found(Severity.WARNING, facts.spec_ref, "spec.strategy.maxSurge", said, mend)]
    mend = facts.patched(facts.rebudgeted(**_smaller(budget, fits)), _note(facts, fits))
    return [Found(Severity.WARNING, facts.ref, facts.rolling("maxSurge"), said, mend)]


def fitting(facts: Facts) -> int | None:
    """Return how many more replicas fit; none where neither nodes nor quotas could be asked, or nothing limits."""
    return facts.room.more


def _because(facts: Facts, surge: int) -> str:
    pods = facts.pods[0]
    if len(facts.pods) > 1 or pods.number > 1:
        return f"each is a group of {sum(each.number for each in facts.pods)} pods; {facts.room.why}"
    demand = pods.demand
    asks = ", ".join(f"{name} {shown(name, need)}" for name, need in sorted(demand.requests.items()) if need)
    short = [quota.name for quota in facts.quotas if (left := left_in(quota, demand)) is not None and left < surge]
    parts = [f"each requests {asks or 'nothing but a place'}"]
    if short:
        parts.append(f"the ResourceQuota {', '.join(short)} has less left")
    if NEEDS.nodes not in facts.unknown:
        nodes = nodes_for(demand, facts.nodes)
        room = sum(places_on(node, demand) for node in nodes)
        parts.append(
            f"the {len(nodes)} of {len(facts.nodes)} nodes that its selector and tolerations allow have room for {room}"
        )
    return "; ".join(parts)


def _note(facts: Facts, fits: int) -> str:
    if fits:
        return ""
    away = "nothing serves meanwhile" if facts.replicas == 1 else "one replica is away meanwhile"
    return f"nothing is added, and {away}; or make room, where no autoscaler of nodes does"


def _respecified(budget: Budget, fits: int) -> Object:
    return _smaller(budget, fits) if fits else {"order": "scaleInPriority", **_smaller(budget, fits)}


def _smaller(budget: Budget, fits: int) -> dict[str, int]:
    return {"maxSurge": fits} if fits else {"maxSurge": 0, "maxUnavailable": max(1, budget.unavailable)}
