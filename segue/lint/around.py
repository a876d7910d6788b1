"""Rules about how replicas are moved, and about what else moves them."""

from segue.lint.facts import Facts
from segue.lint.findings import Found, How, Mend, Object, Ref, Severity
from segue.lint.room import fitting
from segue.units import resolve

_FEW = 3
_HISTORY = 10
"""Kubernetes' own default."""


def unavailable_on_few_replicas(facts: Facts) -> list[Found]:
    """Find a rollout that takes away what few replicas cannot spare."""
    if not facts.replicas:
        return []
    taken, replicas = facts.budget.unavailable, facts.replicas
    if taken == 0 or (replicas > _FEW and taken < replicas):
        return []
    crowded = fitting(facts) == 0
    severity = Severity.ERROR if taken >= replicas else Severity.WARNING
    note = "one more replica does not fit now: make room for it first" if crowded else ""
    said = f"up to {taken} of {replicas} replicas may be away at once"
    surge = max(1, facts.budget.surge)
    if facts.rollout is not None:
        mend = facts.respecified({"strategy": {"maxSurge": surge, "maxUnavailable": 0}}, note)
        return [Found(severity, facts.spec_ref, "spec.strategy.maxUnavailable", said, mend)]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}}
    field = "spec.strategy.type" if facts.is_recreated else "spec.strategy.rollingUpdate.maxUnavailable"
    return [Found(severity, facts.ref, field, said, facts.patched({"strategy": rolling}, note))]


def revision_history_too_low(facts: Facts) -> list[Found]:
    """Find targets whose former versions are forgotten."""
    limit = facts.deployment["spec"].get("revisionHistoryLimit", _HISTORY)
    if limit >= 2:
        return []
    severity = Severity.WARNING if limit else Severity.ERROR
    mend = facts.patched({"revisionHistoryLimit": _HISTORY})
    return [Found(severity, facts.ref, "spec.revisionHistoryLimit", f"is {limit}", mend)]


def no_disruption_budget(facts: Facts) -> list[Found]:
    """Find targets of which a node's drain may take every replica at once."""
    if facts.replicas <= 1 or _own_budgets(facts):
        return []
    taken = {budget["metadata"]["name"] for budget in facts.budgets}
    name = facts.ref.name if facts.ref.name not in taken else f"{facts.ref.name}-budget"
    ref = Ref(kind="PodDisruptionBudget", namespace=facts.ref.namespace, name=name)
    body = {
        "apiVersion": "policy/v1",
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"maxUnavailable": 1, "selector": facts.deployment["spec"]["selector"]},
    }
    said = f"no PodDisruptionBudget selects its {facts.replicas} replicas"
    return [Found(Severity.WARNING, facts.ref, "spec.selector", said, Mend(how=How.CREATE, object=ref, body=body))]


def blocking_disruption_budget(facts: Facts) -> list[Found]:
    """Find budgets that let no replica go, ever."""
    if not facts.replicas:
        return []
    return [found for budget in _own_budgets(facts) for found in _blocking(facts, budget)]


def _blocking(facts: Facts, budget: Object) -> list[Found]:
    spec = budget["spec"]
    # A budget may select more than this target; its own controller has counted that.
    pods = max(facts.replicas, int(budget.get("status", {}).get("expectedPods", 0)))
    if "minAvailable" in spec:
        field, blocks = "minAvailable", resolve(spec["minAvailable"], pods, round_up=True) >= pods
    else:
        field, blocks = "maxUnavailable", resolve(spec.get("maxUnavailable", 1), pods, round_up=True) == 0
    if not blocks:
        return []
    ref = _ref(budget, "PodDisruptionBudget")
    body: Object = {"spec": {"minAvailable": None, "maxUnavailable": 1}}
    note = "with one replica that is an outage at each drain: run two" if facts.replicas == 1 else ""
    mend = Mend(how=How.PATCH, object=ref, body=body, note=note)
    said = f"is {spec[field]} of {pods} replicas, so none may be evicted"
    return [Found(Severity.ERROR, ref, f"spec.{field}", said, mend)]


def autoscaler_fights(facts: Facts) -> list[Found]:
    """Find autoscalers that change the replicas while they are rolled, or can change nothing."""
    found = []
    for autoscaler in facts.autoscalers:
        spec = autoscaler["spec"]
        aim = spec["scaleTargetRef"]
        if (aim["kind"], aim["name"]) != (facts.ref.kind, facts.ref.name):
            continue
        low, high = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
        said = _quarrel(low, high, facts.replicas)
        if said:
            ref = _ref(autoscaler, "HorizontalPodAutoscaler")
            least = min(low, facts.replicas) or low
            most = max(high, facts.replicas, least + 1)
            body = {"spec": {"minReplicas": least, "maxReplicas": most}}
            mend = Mend(how=How.PATCH, object=ref, body=body)
            found.append(Found(Severity.WARNING, ref, "spec", said, mend))
    return found


def _quarrel(low: int, high: int, replicas: int) -> str:
    if replicas and not low <= replicas <= high:  # with 0 replicas an autoscaler is off
        return f"wants {low} to {high} replicas, and the target is told to run {replicas}"
    return f"minReplicas and maxReplicas are both {low}" if low == high else ""


def _own_budgets(facts: Facts) -> list[Object]:
    labels = facts.deployment["spec"]["template"].get("metadata", {}).get("labels", {})
    return [b for b in facts.budgets if _selects(b["spec"].get("selector"), labels)]


def _selects(selector: Object | None, labels: Object) -> bool:
    """Whether a label selector takes these labels; an empty one takes all, none takes nothing."""
    if selector is None:
        return False
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return equal and all(_meets(e, labels) for e in selector.get("matchExpressions", []))


def _meets(expression: Object, labels: Object) -> bool:
    key, values = expression["key"], expression.get("values", [])
    meets = {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }
    return meets[expression["operator"]]


def _ref(found: Object, kind: str) -> Ref:
    return Ref(kind=kind, namespace=found["metadata"]["namespace"], name=found["metadata"]["name"])
