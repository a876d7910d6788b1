"""The rule about room: whether the replicas that a rollout adds find a place.

Node selectors, taints and what is requested are respected; affinities, spread and priorities are not, so that it may
say nothing where a replica finds no place, but never the other way round.
"""

from collections.abc import Iterable
from decimal import Decimal

from segue.lint.facts import NEEDS, Amounts, Demand, Facts, Node, Quota
from segue.lint.findings import Found, Mend, Object, Severity

_GIB = Decimal(2**30)
_BYTES = {"memory", "ephemeral-storage"}
_KEEPS_OFF = {"NoSchedule", "NoExecute"}


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
    limits = [left for quota in facts.quotas if (left := _left(quota, facts.demand)) is not None]
    if NEEDS.nodes not in facts.unknown:
        limits.append(sum(_on(node, facts.demand.requests) for node in _open(facts)))
    return min(limits, default=None)


def _open(facts: Facts) -> list[Node]:
    """Return the nodes that take the target's pods."""
    pod = facts.template["spec"]
    wanted, tolerations = pod.get("nodeSelector", {}), pod.get("tolerations", [])
    return [
        node
        for node in facts.nodes
        if wanted.items() <= node.labels.items()
        and all(_tolerated(t, tolerations) for t in node.taints if t["effect"] in _KEEPS_OFF)
    ]


def _tolerated(taint: Object, tolerations: Iterable[Object]) -> bool:
    return any(_tolerates(t, taint) for t in tolerations)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _on(node: Node, requests: Amounts) -> int:
    needed = {**requests, "pods": Decimal(1)}
    return min(max(0, int(node.free.get(name, Decimal(0)) // need)) for name, need in needed.items() if need > 0)


def _left(quota: Quota, demand: Demand) -> int | None:
    """Return how many more replicas a quota allows; none where it limits nothing that they ask for."""
    allowed = [max(0, int(left // need)) for name, left in quota.left.items() if (need := _needed(name, demand)) > 0]
    return min(allowed, default=None)


def _needed(name: str, demand: Demand) -> Decimal:
    if name in {"pods", "count/pods"}:
        return Decimal(1)
    kind, _, resource = name.partition(".")
    if kind == "limits":
        return demand.limits.get(resource, Decimal(0))
    return demand.requests.get(resource if kind == "requests" else name, Decimal(0))


def _because(facts: Facts, surge: int) -> str:
    asks = ", ".join(f"{name} {_shown(name, need)}" for name, need in sorted(facts.demand.requests.items()) if need)
    short = [quota.name for quota in facts.quotas if (left := _left(quota, facts.demand)) is not None and left < surge]
    parts = [f"each requests {asks or 'nothing but a place'}"]
    if short:
        parts.append(f"the ResourceQuota {', '.join(short)} has less left")
    if NEEDS.nodes not in facts.unknown:
        nodes = _open(facts)
        room = sum(_on(node, facts.demand.requests) for node in nodes)
        parts.append(
            f"the {len(nodes)} of {len(facts.nodes)} nodes that its selector and tolerations allow have room for {room}"
        )
    return "; ".join(parts)


def _shown(name: str, amount: Decimal) -> str:
    if name in _BYTES:
        return f"{float(amount / _GIB):.3g}Gi"
    return f"{amount.normalize():f}"


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
