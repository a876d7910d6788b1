"""The rule about room: whether the replicas that a rollout adds find a place (``segue.room`` counts them)."""

from segue.lint.facts import NEEDS, Facts
from segue.lint.findings import Found, Mend, Severity
from segue.room import left_in, nodes_for, places_on, shown


def surge_does_not_fit(facts: Facts) -> list[Found]:
    """Find a surge that nodes or quotas have no room for."""
    if not facts.replicas:
        return []
    surge, fits = facts.budget.surge, fitting(facts)
    if fits is None or fits >= surge:
        return []
    said = f"{fits or 'none'} of {surge} more would fit: {_because(facts, surge)}"
    if facts.rollout is not None:
        return [Found(Severity.WARNING, facts.spec_ref, "spec.strategy.maxSurge", said, _respecified(facts, fits))]
    field = "spec.strategy.rollingUpdate.maxSurge"
    return [Found(Severity.WARNING, facts.ref, field, said, _patched(facts, fits))]


def fitting(facts: Facts) -> int | None:
    """Return how many more replicas fit; none where neither nodes nor quotas could be asked, or nothing limits."""
    return facts.room.more


def _because(facts: Facts, surge: int) -> str:
    asks = ", ".join(f"{name} {shown(name, need)}" for name, need in sorted(facts.demand.requests.items()) if need)
    short = [
        quota.name for quota in facts.quotas if (left := left_in(quota, facts.demand)) is not None and left < surge
    ]
    parts = [f"each requests {asks or 'nothing but a place'}"]
    if short:
        parts.append(f"the ResourceQuota {', '.join(short)} has less left")
    if NEEDS.nodes not in facts.unknown:
        nodes = nodes_for(facts.demand, facts.nodes)
        room = sum(places_on(node, facts.demand) for node in nodes)
        parts.append(
            f"the {len(nodes)} of {len(facts.nodes)} nodes that its selector and tolerations allow have room for {room}"
        )
    return "; ".join(parts)


def _note(facts: Facts, fits: int) -> str:
    if fits:
        return ""
    away = "nothing serves meanwhile" if facts.replicas == 1 else "one replica is away meanwhile"
    return f"nothing is added, and {away}; or make room, where no autoscaler of nodes does"


def _respecified(facts: Facts, fits: int) -> Mend:
    old_first = {"order": "scaleInPriority", "maxSurge": 0, "maxUnavailable": max(1, facts.budget.unavailable)}
    return facts.respecified({"strategy": {"maxSurge": fits} if fits else old_first}, _note(facts, fits))


def _patched(facts: Facts, fits: int) -> Mend:
    rolling = {"maxSurge": fits} if fits else {"maxSurge": 0, "maxUnavailable": max(1, facts.budget.unavailable)}
    return facts.patched({"strategy": {"rollingUpdate": rolling}}, _note(facts, fits))
