"""Rules about how a rollout moves replicas, and about what else moves them."""

from segue.budget import Budget
from segue.lint.facts import Facts
from segue.lint.findings import Found, How, Mend, Object, Ref, Severity
from segue.lint.room import fitting
from segue.lint.target import KINDS
from segue.owner_references import Controller, controller_of
from segue.selecting import selects
from segue.spec import MADE_LABEL, PairTarget
from segue.supervision import SUPERVISIONS
from segue.units import counted, resolve

_FEW = 3
_HISTORY = 10
"""Kubernetes' own default."""


def unavailable_on_few_replicas(facts: Facts) -> list[Found]:
    """Find a budget that makes unavailable what few replicas cannot spare."""
    budget, replicas = facts.budget, facts.replicas
    if budget is None or budget.unavailable == 0 or (replicas > _FEW and budget.unavailable < replicas):
        return []
    taken = budget.unavailable
    severity = Severity.ERROR if taken >= replicas else Severity.WARNING
    why = f"up to {taken} of {replicas} replicas may be unavailable at once"
    mend = _spared(facts, budget) if facts.can_surge else _unsurged(facts, budget)
    if facts.rollout is not None:
        return [Found(severity, facts.spec_ref, "spec.strategy.maxUnavailable", why, mend)]
    field = "spec.strategy.type" if facts.is_recreated else facts.rolling("maxUnavailable")
    return [Found(severity, facts.ref, field, why, mend)]


def _spared(facts: Facts, budget: Budget) -> Mend:
    """Return the fix that adds a replica first and removes none."""
    note = "one more replica does not fit now: make room for it first" if fitting(facts) == 0 else ""
    surge = {"maxSurge": max(1, budget.surge), "maxUnavailable": 0}
    if facts.rollout is not None:
        return facts.respecified({"strategy": surge}, note)
    return facts.patched(facts.rebudgeted(**surge), note)


def _unsurged(facts: Facts, budget: Budget) -> Mend:
    """Return the fix without surge: one unavailable at a time, of enough replicas."""
    note = "a replica is replaced under its own number, so one is always unavailable: run more replicas, or accept this"
    if facts.rollout is None:
        own = facts.rebudgeted(maxUnavailable=1) if budget.unavailable > 1 else {}
        more = {"replicas": _FEW + 1} if facts.replicas <= _FEW else {}
        return facts.patched({**more, **own}, note)
    if budget.unavailable > 1:
        return facts.respecified({"strategy": {"maxUnavailable": 1}}, note if facts.replicas <= _FEW else "")
    return facts.patched({"replicas": _FEW + 1}, note)


def revision_history_too_low(facts: Facts) -> list[Found]:
    """Find targets that do not keep their earlier versions."""
    limit = facts.target.spec.get("revisionHistoryLimit", _HISTORY)
    if limit >= 2 or not facts.target.own.history:
        return []
    severity = Severity.WARNING if limit else Severity.ERROR
    mend = facts.patched({"revisionHistoryLimit": _HISTORY})
    return [Found(severity, facts.ref, "spec.revisionHistoryLimit", f"is {limit}", mend)]


def no_disruption_budget(facts: Facts) -> list[Found]:
    """Find targets that may lose every replica at once to a drain of nodes."""
    if facts.replicas <= 1 or any(
        selects(budget["spec"].get("selector"), pods.labels) for budget in facts.budgets for pods in facts.pods[:1]
    ):
        return []
    taken = {budget["metadata"]["name"] for budget in facts.budgets}
    name = facts.ref.name if facts.ref.name not in taken else f"{facts.ref.name}-budget"
    ref = Ref(kind="PodDisruptionBudget", namespace=facts.ref.namespace, name=name)
    body = {
        "apiVersion": "policy/v1",
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"maxUnavailable": 1, "selector": facts.target.selector},
    }
    why = f"no PodDisruptionBudget selects its {counted(facts.replicas, 'replica')}"
    return [Found(Severity.WARNING, facts.ref, "spec.selector", why, Mend(how=How.CREATE, object=ref, body=body))]


def blocking_disruption_budget(facts: Facts) -> list[Found]:
    """Find disruption budgets that never allow an eviction."""
    found = []
    for budget in facts.budgets if facts.replicas else ():
        counts = [p.number for p in facts.pods if selects(budget["spec"].get("selector"), p.labels)]
        if counts:
            found += _blocking(facts, budget, sum(counts) * facts.replicas)
    return [*found, *_several(facts)]


def _several(facts: Facts) -> list[Found]:
    """Find budgets that select pods of another budget, too: the eviction API refuses to evict such a pod."""
    more: dict[str, tuple[Object, str]] = {}
    for pods in facts.pods if facts.replicas else ():
        both = [each for each in facts.budgets if selects(each["spec"].get("selector"), pods.labels)]
        first, *others = sorted(both, key=lambda each: str(each["metadata"]["name"])) or [{}]
        more |= {each["metadata"]["name"]: (each, first["metadata"]["name"]) for each in others}
    found = []
    for budget, other in more.values():
        ref = _ref(budget, "PodDisruptionBudget")
        why = f"selects pods that {other} selects too: a pod of two budgets can never be evicted"
        mend = Mend(how=How.PATCH, object=ref, body={"spec": {"selector": None}}, note="or delete it, or the other one")
        found.append(Found(Severity.WARNING, ref, "spec.selector", why, mend))
    return found


def _blocking(facts: Facts, budget: Object, own: int) -> list[Found]:
    spec = budget["spec"]
    # A budget may select more than this target; its own controller has counted that.
    pods = max(own, int(budget.get("status", {}).get("expectedPods", 0)))
    if "minAvailable" in spec:
        field, blocks = "minAvailable", resolve(spec["minAvailable"], pods, round_up=True) >= pods
    else:
        field, blocks = "maxUnavailable", resolve(spec.get("maxUnavailable", 1), pods, round_up=True) == 0
    if not blocks:
        return []
    ref = _ref(budget, "PodDisruptionBudget")
    body: Object = {"spec": {"minAvailable": None, "maxUnavailable": 1}}
    note = "with one replica, each drain is an outage: run two" if facts.replicas == 1 else ""
    mend = Mend(how=How.PATCH, object=ref, body=body, note=note)
    what = "replicas" if own == facts.replicas else "pods"
    why = f"is {spec[field]} of {pods} {what}, so none may be evicted"
    return [Found(Severity.ERROR, ref, f"spec.{field}", why, mend)]


def autoscaler_fights(facts: Facts) -> list[Found]:
    """Find autoscalers that change the replicas during a rollout, or can change nothing."""
    found = []
    for autoscaler in facts.autoscalers:
        spec = autoscaler["spec"]
        aim = spec["scaleTargetRef"]
        if (aim["kind"], aim["name"]) != (facts.ref.kind, facts.ref.name):
            continue
        low, high = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
        why = _quarrel(low, high, facts.replicas)
        if why:
            ref = _ref(autoscaler, "HorizontalPodAutoscaler")
            least = min(low, facts.replicas) or low
            most = max(high, facts.replicas, least + 1)
            body = {"spec": {"minReplicas": least, "maxReplicas": most}}
            owner = controller_of(autoscaler)
            note = f"{owner} controls it: change the bounds there" if owner else ""
            mend = Mend(how=How.PATCH, object=ref, body=body, note=note)
            found.append(Found(Severity.WARNING, ref, "spec", why, mend))
    return found


def _quarrel(low: int, high: int, replicas: int) -> str:
    if replicas and not low <= replicas <= high:  # with 0 replicas an autoscaler is off
        return f"allows {low} to {high} replicas, but the target requests {replicas}"
    return f"minReplicas and maxReplicas are both {low}" if low == high else ""


def overlapping_selectors(facts: Facts) -> list[Found]:
    """Find other Deployments that select this target's pods, or whose pods it selects.

    The sides of a pair may overlap.
    """
    if not facts.target.own.rolling:
        return []  # its operator owns the Deployment that selects its pods
    target = facts.rollout.spec.target if facts.rollout else None
    sides = {target.old, target.new} if isinstance(target, PairTarget) else {facts.ref.name}
    others = [each for each in facts.deployments if each["metadata"]["name"] not in sides and not _is_side(each)]
    found = []
    for other in others:
        labels = other["spec"]["template"]["metadata"].get("labels", {})
        if any(selects(other["spec"]["selector"], pods.labels) for pods in facts.pods[:1]):
            found.append(_overlap(other, f"selects the pods of {facts.ref} too"))
        if facts.ref.kind == "Deployment" and selects(facts.target.selector, labels):
            found.append(_overlap(facts.target.found, f"selects the pods of {_ref(other, 'Deployment')} too"))
    return found


def controlled_by_another(facts: Facts) -> list[Found]:
    """Find targets that the controller of another object writes, such as the Deployment of an InferenceService."""
    target = facts.rollout.spec.target if facts.rollout else None
    sides = {target.old, target.new} if isinstance(target, PairTarget) else set()
    named = (each for each in facts.deployments if each["metadata"]["name"] in sides - {facts.ref.name})
    return [
        Found(
            Severity.ERROR, _ref(each, facts.ref.kind), "metadata.ownerReferences", f"{owner} controls it",
            _of_its_controller(facts, owner),
        )
        for each in (facts.target.found, *named)
        if (owner := controller_of(each)) is not None
    ]  # fmt: skip


def _of_its_controller(facts: Facts, owner: Controller) -> Mend:
    """Return the fix: roll the object that controls the target."""
    target = facts.rollout.spec.target if facts.rollout else None
    if target is None or isinstance(target, PairTarget):
        ref = Ref(kind=owner.kind, namespace=facts.ref.namespace, name=owner.name)
        return Mend(how=How.PATCH, object=ref, body={}, note="change the version there; Segue can roll that object")
    if owner.kind in KINDS:
        return facts.respecified({"target": {"kind": owner.kind, "name": owner.name}})
    known = owner.kind in SUPERVISIONS
    note = "" if known else f"first describe {owner.kind} to Segue: see docs/targets/supervised.md"
    return facts.respecified({"target": {"kind": "Supervised", "resource": owner.kind, "name": owner.name}}, note)


def _is_side(deployment: Object) -> bool:
    """Whether Segue made this Deployment from a pair's old one, whose selector also selects its pods."""
    labels: Object = deployment["spec"]["selector"].get("matchLabels", {})
    return MADE_LABEL in labels


def _overlap(wide: Object, why: str) -> Found:
    """Blame the Deployment whose selector is too wide; no patch can change it, so the fix recreates it."""
    ref, spec = _ref(wide, "Deployment"), wide["spec"]
    own = {"app.kubernetes.io/instance": ref.name}
    selector, template = spec["selector"], spec["template"]
    labels = {**template["metadata"].get("labels", {}), **own}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {
            **spec,
            "selector": {**selector, "matchLabels": {**selector.get("matchLabels", {}), **own}},
            "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
        },
    }
    note = (
        "a selector cannot be changed: delete the Deployment first with --cascade=orphan, and its old pods at the end"
    )
    return Found(Severity.WARNING, ref, "spec.selector", why, Mend(how=How.CREATE, object=ref, body=body, note=note))


def _ref(found: Object, kind: str) -> Ref:
    return Ref(kind=kind, namespace=found["metadata"]["namespace"], name=found["metadata"]["name"])
