"""The patches that hold, release and restore a Deployment. Pure; see ``lever`` for the lever."""

from collections.abc import Mapping
from types import MappingProxyType

from activities.cluster import Object
from activities.levers.deployment.reading import (
    HOLD_MIN_READY_S,
    REVISION,
    Objects,
    is_moving,
    is_paused,
    own_unavailable,
    requested,
    unnoticed,
)
from activities.levers.ownership import (
    BASELINE,
    CHANGED,
    OWNER,
    WRITES,
    annotations_of,
    baseline_of,
    noted,
    ready_before,
    rebudgeted,
    replicas_of,
    saved_baseline,
)
from activities.levers.template import HASH_LABEL, apply_change, at_revision, fingerprint, refuse_patch_elsewhere
from segue.as_before import for_way_back
from segue.budget import objection, resized, resolve_budget
from segue.contract import PrepareInput, WriteInput
from segue.errors import Refused, Stale
from segue.history import Note
from segue.observation import Counts, Observation
from segue.spec import Change, Rules, Target
from segue.units import counted, resolve, share

HOLD_DEADLINE_S = 2_147_483_647
"""Must exceed minReadySeconds; its maximum means no deadline."""
DESIRED = "deployment.kubernetes.io/desired-replicas"
"""Set by the Deployment controller on its ReplicaSets: the replicas it has scaled them for."""


def template_patch(request: PrepareInput | WriteInput, deployment: Object, start: Object) -> Object:
    """Return the wanted template as a patch: the whole of it, or the spec's own strategic-merge patch."""
    change = request.change
    if change is None:
        raise Stale(CHANGED)
    if change.patch is None:
        return {**apply_change(start, change, deployment["metadata"]["uid"]), "$patch": "replace"}
    refuse_patch_elsewhere(start, deployment["spec"]["template"])
    return change.patch


def start_of(replicasets: list[Object], change: Change | None, start: Object) -> Object:
    """Return the template that a change is applied to: ``start``, unless the change names a revision.

    Raises:
        Refused: for a revision that the target's controller does not keep.
    """
    if change is None or change.revision is None:
        return start
    numbered = ((annotations_of(each).get(REVISION), each["spec"]["template"]) for each in replicasets)
    template = at_revision(change, {number: template for number, template in numbered if number})
    template["metadata"].get("labels", {}).pop(HASH_LABEL, None)
    return template


def _own(deployment: Object, budget: Object) -> Object:
    """Return what a Deployment needs to return to its present state."""
    spec = deployment["spec"]
    return {
        "template": spec["template"],
        "strategy": spec.get("strategy", {}),
        "minReadySeconds": spec.get("minReadySeconds", 0),
        "progressDeadlineSeconds": spec.get("progressDeadlineSeconds", 600),
        "paused": bool(spec.get("paused")),
        "budget": budget,
        "revision": annotations_of(deployment).get(REVISION, ""),
    }


def claim(
    deployment: Object, rules: Rules, replicas: int, owner: str, ready: Mapping[str, int] = MappingProxyType({})
) -> dict[str, str | None]:
    """Return the annotations of the first write: the owner, and the baseline with how many replicas were ready.

    Raises:
        Refused: when the baseline does not fit in the annotations.
    """
    own = {**_own(deployment, own_budget(rules, replicas)), **ready}
    return {OWNER: owner, BASELINE: baseline_of(deployment, own)}


def refuse_asleep(seen: Observation) -> None:
    """Refuse a move of a target that somebody scaled to 0 since the move was decided.

    Raises:
        Stale: in that case.
    """
    if seen.replicas < 1:
        raise Stale("the target is scaled to 0")


def scale_patch(objects: Objects, seen: Observation, request: WriteInput, counts: Counts) -> Object | None:
    """Return the patch that holds ``counts``. Returns None if they are held already.

    Raises:
        Stale: when the observed state does not allow them.
    """
    refuse_asleep(seen)
    deployment, state = objects.deployment, request.state
    unwritten = seen.template != state.wanted.template
    if not unwritten and seen.engaged and seen.requested == counts:
        return None
    budget = resolve_budget(request.rules.strategy, seen.replicas)
    problem = objection(budget, seen, counts) or unholdable(seen.replicas, counts) or _resizing(objects)
    problem = problem or (unnoticed(objects) if counts.old < seen.old.total else "")
    if problem:
        raise Stale(problem)
    patch = hold_patch(deployment, request.rules, counts.old + counts.new - seen.replicas, seen.replicas - counts.old)
    annotations: dict[str, str | None] = {OWNER: state.owner}
    if unwritten:
        saved = saved_baseline(deployment)["template"] if state.claimed else deployment["spec"]["template"]
        start = start_of(objects.replicasets, request.change, saved)
        patch["spec"]["template"] = template_patch(request, deployment, start)
        annotations |= noted(request.note) if request.note else {}
    if not state.claimed:
        annotations |= claim(deployment, request.rules, seen.replicas, state.owner, ready_before(state))
    else:
        back = for_way_back(request.rules, state, seen.replicas)
        annotations |= rebudgeted(deployment, own_budget(back, seen.replicas))
    patch["metadata"] = {"annotations": annotations}
    return patch


def resize_patch(objects: Objects, seen: Observation, request: WriteInput, replicas: int) -> Object:
    """Return the patch that sets the replicas, and keeps both sides at their share of them.

    It pauses an engaged Deployment: a paused controller scales in proportion, too. Unpaused, it would then remove
    as many replicas that are not available as it just added, those of the oldest ReplicaSet first: that may be a
    superseded version, whose ready replicas never count as available.

    Raises:
        Stale: while the controller follows an earlier resize or a move. Until then, the present sizes are no shares of
            the present replicas, and the controller would make the rest of the move by another proportion.
    """
    patch: Object = {"spec": {"replicas": replicas}}
    if seen.engaged and seen.replicas:
        problem = _resizing(objects) or _moving(objects)
        if problem:
            raise Stale(problem)
        counts = resized(request.rules.strategy, seen, replicas)
        patch["spec"] |= {"paused": True, "strategy": _resting(replicas, counts, request.rules)}
    return patch


def pause_patch(deployment: Object, *, paused: bool) -> Object:
    """Return the patch that pauses or resumes the Deployment, with the read version as its precondition."""
    return {
        "metadata": {"resourceVersion": deployment["metadata"]["resourceVersion"]},
        "spec": {"paused": paused or None},
    }


def resume_patch(deployment: Object, budget: Object) -> Object:
    """Return the patch that resumes a Deployment before it is taken back, with a strategy of at most this budget.

    Somebody else may have written one that lets its controller remove more replicas.
    """
    patch = pause_patch(deployment, paused=False)
    allowed = own_unavailable({"spec": {**deployment["spec"], "strategy": budget}})
    if own_unavailable(deployment) > allowed:
        patch["spec"]["strategy"] = budget
    return patch


def rest_patch(deployment: Object, rules: Rules) -> Object:
    """Return the patch that pauses the Deployment where its fields hold it, with fields that keep the floor.

    Somebody may resume it after a change of its template. The controller then treats the ready new pods as broken, and
    removes as many as ``maxUnavailable`` allows.
    """
    paused = pause_patch(deployment, paused=True)
    strategy = _resting(replicas_of(deployment), requested(deployment), rules)
    return {**paused, "spec": {**paused["spec"], "strategy": strategy}}


def unholdable(replicas: int, counts: Counts) -> str:
    """Return why a Deployment cannot be held at ``counts``; empty if it can."""
    if counts.old > replicas or counts.old + counts.new < replicas or counts == (replicas, 0):
        return f"a Deployment of {counted(replicas, 'replica')} cannot be held at {counts}"
    return ""


def superseded_sets(objects: Objects, baseline: str) -> list[Object]:
    """Return the ReplicaSets of neither the present template nor the baseline whose pods may not count as available.

    Raises:
        Stale: while the controller scales them: it would add unready pods, and then remove ready ones in their place.
    """
    spare = {baseline, fingerprint(objects.deployment["spec"]["template"])}
    found = [
        rs
        for rs in objects.replicasets
        if rs["spec"].get("replicas")
        and rs["spec"].get("minReadySeconds")  # the lever's, or its own if it is from before the rollout
        and fingerprint(rs["spec"]["template"]) not in spare
    ]
    if found:
        refuse_resizing(objects)
    return found


def refuse_resizing(objects: Objects) -> None:
    """Refuse a write while the controller scales the ReplicaSets to the present replicas.

    Raises:
        Stale: while it does.
    """
    problem = _resizing(objects)
    if problem:
        raise Stale(problem)


def refuse_stuck(objects: Objects, target: Target) -> None:
    """Refuse a Deployment whose controller takes it for one that is being scaled, and makes no rollout.

    Raises:
        Refused: with what makes it act again.
    """
    stuck = _stuck(objects)
    if stuck:
        replicas = replicas_of(objects.deployment)
        fix = f"scale it to {replicas + 1} and back to {replicas}: then its controller corrects the annotation"
        raise Refused(stuck, field="target", value=str(target), fix=fix)


def _stuck(objects: Objects) -> str:
    """Return why the controller does nothing: its annotation on the only active ReplicaSet has another R.

    It corrects that only when it scales the set, and this one has R replicas (``scale`` in its ``sync.go``).
    """
    active, replicas = _active(objects), replicas_of(objects.deployment)
    if [rs["spec"]["replicas"] for rs in active] != [replicas]:
        return ""
    desired = annotations_of(active[0]).get(DESIRED, str(replicas))
    found = f"has a stuck controller: on replicaset {active[0]['metadata']['name']}, {DESIRED} is {desired}"
    return "" if desired == str(replicas) else found


def _resizing(objects: Objects) -> str:
    """Return why to wait while the controller scales both sides: other fields would change the proportion."""
    replicas = replicas_of(objects.deployment)
    if stuck := _stuck(objects):
        return f"the Deployment {stuck}"
    if any(annotations_of(rs).get(DESIRED, str(replicas)) != str(replicas) for rs in _active(objects)):
        return f"the controller is still scaling to {counted(replicas, 'replica')}"
    return ""


def _active(objects: Objects) -> list[Object]:
    return [rs for rs in objects.replicasets if rs["spec"].get("replicas")]


def _moving(objects: Objects) -> str:
    """Return why to wait while the controller makes a move; empty if it does not."""
    if is_paused(objects.deployment) or not is_moving(objects.deployment, objects.replicasets):
        return ""
    return "the controller is still making the last move"


def hold_patch(deployment: Object, rules: Rules, surge: int, unavailable: int) -> Object:
    """Return the patch that engages the lever with these two fields, and lets the controller move."""
    return {
        "spec": {
            "paused": None,
            "minReadySeconds": HOLD_MIN_READY_S,
            "progressDeadlineSeconds": HOLD_DEADLINE_S,
            "strategy": _holding(replicas_of(deployment), surge, unavailable, rules),
        }
    }


def _resting(replicas: int, counts: Counts, rules: Rules) -> Object:
    """Return the strategy for a Deployment that is paused at these counts.

    While it is paused, only maxSurge has an effect. If it is resumed, nothing moves either: maxUnavailable is at most
    that of the counts. It is also at most that of the budget, so that the floor holds if the template was changed.
    """
    surge, unavailable = sum(counts) - replicas, replicas - counts.old
    allowed = min(unavailable, resolve_budget(rules.strategy, replicas).unavailable)
    if surge or allowed:
        return _holding(replicas, surge, allowed, rules)
    # Both cannot be 0. With new replicas only, the controller adds no surge of its own.
    return _holding(replicas, 0, 1, rules) if counts.old else _holding(replicas, 1, 0, rules)


def _holding(replicas: int, surge: int, unavailable: int, rules: Rules) -> Object:
    """Return the strategy in percentages that equal these numbers now, and follow a change of the replicas.

    An absolute maxUnavailable would not: at R=8 held at (3, 6), a drop to R=4 would take every old replica. maxSurge
    follows only if the spec gives a percentage, and never by a larger one: 1 of 3 is 25 % as well as 33 %, which is
    3 of 8 where the spec allows 2.
    """
    return _rolling(_share_added(surge, replicas, rules), share(unavailable, replicas, round_up=False))


def _share_added(surge: int, replicas: int, rules: Rules) -> int | str:
    written = rules.strategy.max_surge
    if not isinstance(written, str):
        return surge
    return written if surge == resolve(written, replicas, round_up=True) else share(surge, replicas, round_up=True)


def _rolling(surge: int | str, unavailable: int | str) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def own_budget(rules: Rules, replicas: int) -> Object:
    """Return the spec's budget for the controller: a percentage as written, so that it follows the replicas."""
    # At zero replicas there is nothing to hold, but the API server requires one of the two above zero.
    resolved = resolve_budget(rules.strategy, max(replicas, 1))
    written = (rules.strategy.max_surge, rules.strategy.max_unavailable)
    numbers = (resolved.surge, resolved.unavailable)
    surge, unavailable = (w if isinstance(w, str) else n for w, n in zip(written, numbers, strict=True))
    return _rolling(surge, unavailable)


def unhold_patch(deployment: Object, *, to_baseline: bool, strategy: Object | None = None) -> Object:
    """Return the patch that lets the controller move by itself: to the baseline, or on to the present template.

    The controller moves by ``strategy``; without one, by the budget that was saved at the start.
    """
    saved = saved_baseline(deployment)
    spec = {
        "paused": None,
        "minReadySeconds": saved["minReadySeconds"],
        "progressDeadlineSeconds": saved["progressDeadlineSeconds"],
        "strategy": strategy or saved["budget"],
    }
    annotations: dict[str, str | None] = {}
    if to_baseline:
        spec["template"] = {**saved["template"], "$patch": "replace"}
        annotations = saved.get("notes", {})
    return {"metadata": {"annotations": annotations}, "spec": spec}


def finish_patch(deployment: Object, note: Note | None = None) -> Object:
    """Return the patch that restores what the rollout changed, and notes its end."""
    saved = saved_baseline(deployment)
    strategy = dict(saved["strategy"])
    strategy["$retainKeys"] = list(saved["strategy"])
    return {
        "metadata": {"annotations": {OWNER: None, BASELINE: None, WRITES: None, **(noted(note) if note else {})}},
        "spec": {
            "minReadySeconds": saved["minReadySeconds"],
            "progressDeadlineSeconds": saved["progressDeadlineSeconds"],
            "strategy": strategy,
            "paused": saved.get("paused") or None,
        },
    }
