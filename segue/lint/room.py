"""Rules about room: whether the replicas that a rollout adds fit, and at whose cost."""

from segue.budget import Budget
from segue.lint.facts import NEEDS, Facts
from segue.lint.findings import Found, How, Mend, Object, Ref, Severity
from segue.lint.target import PodTemplate
from segue.room import Exceeded, exceeded, left_in, nodes_for, places_on, shown

_UNSHARED = {"ReadWriteOnce", "ReadWriteOncePod"}
_ONE_NODE = "removes an old replica first; or use a volume that is ReadWriteMany or ReadOnlyMany"


def exceeds_quota(facts: Facts) -> list[Found]:
    """Find a replica that requests more than a quota allows in all."""
    return [
        _exceeding(facts, pods, found)
        for pods in facts.pods
        for quota in facts.quotas
        for found in exceeded(quota, pods.demand)
    ]


def _exceeding(facts: Facts, pods: PodTemplate, found: Exceeded) -> Found:
    quota, resource = found.quota, found.resource
    extra = max(1, facts.budget.surge if facts.budget and facts.can_surge else 1)
    enough = max(found.need, quota.hard[resource] - quota.left[resource] + extra * found.need)
    body = {"spec": {"hard": {resource: f"{enough.normalize():f}"}}}
    ref = Ref(kind="ResourceQuota", namespace=facts.ref.namespace, name=quota.name)
    note = "raises the quota; or request less"
    field = ".".join(("spec", *pods.path, "containers"))
    return Found(Severity.ERROR, facts.ref, field, str(found), Mend(how=How.PATCH, object=ref, body=body, note=note))


def surge_does_not_fit(facts: Facts) -> list[Found]:
    """Find a surge that nodes or quotas have no room for."""
    budget, fits = facts.budget, fitting(facts)
    if budget is None or fits is None or fits >= budget.surge:
        return []
    why = f"{fits or 'none'} of {budget.surge} extra replicas would fit: {_because(facts, budget.surge)}"
    if facts.rollout is not None:
        mend = facts.respecified({"strategy": _respecified(budget, fits)}, _note(facts, fits))
        return [Found(Severity.WARNING, facts.spec_ref, "spec.strategy.maxSurge", why, mend)]
    mend = facts.patched(facts.rebudgeted(**_smaller(budget, fits)), _note(facts, fits))
    return [Found(Severity.WARNING, facts.ref, facts.rolling("maxSurge"), why, mend)]


def preempts_old_replicas(facts: Facts) -> list[Found]:
    """Find a change to a higher priority in a surge: the scheduler makes room by removing old replicas."""
    budget = facts.budget
    if budget is None or not budget.surge or not facts.can_surge or facts.rollout is None:
        return []
    return [_preempting(facts, budget, pods) for pods in facts.pods if may_preempt(facts, pods)]


def _preempting(facts: Facts, budget: Budget, pods: PodTemplate) -> Found:
    new = pods.spec.get("priorityClassName", "")
    why = f"is {_class(facts, new)}, but the running pods have {_class(facts, pods.old_class)}"
    # When the worker counts room, it adds a replica only when it fits.
    is_counted = NEEDS.nodes not in facts.unknown and facts.target.kind == "Deployment"
    note = (
        "removes old replicas first; or keep the priority class; or let the worker count nodes (deploy/rbac-room.yaml)"
    )
    mend = facts.respecified({"strategy": _respecified(budget, 0)}, note)
    field = ".".join(("spec", *pods.path, "priorityClassName"))
    return Found(Severity.WARNING if is_counted else Severity.ERROR, facts.ref, field, why, mend)


def may_preempt(facts: Facts, pods: PodTemplate) -> bool:
    """Whether the new pods have, or may have, a higher priority than those that run."""
    old, new = pods.old_class, pods.spec.get("priorityClassName", "")
    if old == new or pods.spec.get("preemptionPolicy") == "Never" or new in facts.never_preempting:
        return False
    before, after = facts.priorities.get(old), facts.priorities.get(new)
    if before is None or after is None:
        return bool(new)
    return after > before


def _class(facts: Facts, name: str) -> str:
    value = facts.priorities.get(name)
    return f"{name or 'no class'} ({'of unknown value' if value is None else value})"


def volume_not_shared(facts: Facts) -> list[Found]:
    """Find claims that one node or pod at a time can use, when a surge needs them twice."""
    budget = facts.budget
    if budget is None or not budget.surge or not facts.can_surge:
        return []
    modes = {claim["metadata"]["name"]: claim["spec"].get("accessModes", []) for claim in facts.claims}
    return [
        _unshared(facts, budget, pods, claim, modes[claim])
        for pods in facts.pods
        for claim in _claims(pods)
        if modes.get(claim) and set(modes[claim]) <= _UNSHARED
    ]


def _claims(pods: PodTemplate) -> list[str]:
    volumes = pods.spec.get("volumes", [])
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def _unshared(facts: Facts, budget: Budget, pods: PodTemplate, claim: str, modes: list[str]) -> Found:
    why = f"the claim {claim} is {', '.join(modes)}, but a surge of {budget.surge} would need it at the same time"
    if facts.rollout is not None:
        mend = facts.respecified({"strategy": _respecified(budget, 0)}, _ONE_NODE)
    else:
        mend = facts.patched(facts.rebudgeted(**_smaller(budget, 0)), _ONE_NODE)
    return Found(Severity.WARNING, facts.ref, ".".join(("spec", *pods.path, "volumes")), why, mend)


def fitting(facts: Facts) -> int | None:
    """Return how many more replicas fit; None when nothing limits them or nothing could be read."""
    return facts.room.more


def _because(facts: Facts, surge: int) -> str:
    pods = facts.pods[0]
    if pods.demand.exclusive:
        return facts.room.why
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
    away = "nothing serves meanwhile" if facts.replicas == 1 else "one replica is unavailable meanwhile"
    return f"no replica is added, and {away}; or make room, unless a node autoscaler does"


def _respecified(budget: Budget, fits: int) -> Object:
    return _smaller(budget, fits) if fits else {"order": "scaleInPriority", **_smaller(budget, fits)}


def _smaller(budget: Budget, fits: int) -> dict[str, int]:
    return {"maxSurge": fits} if fits else {"maxSurge": 0, "maxUnavailable": max(1, budget.unavailable)}
