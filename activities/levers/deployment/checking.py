"""What refuses a start or stops a write of a Deployment, and what warns about it. Pure."""

from activities.cluster import Object
from activities.levers.admission import ADMISSION, CHANGES, changed_by_admission, refuse_lost, refuse_resized
from activities.levers.deployment.reading import Objects, is_paused, lever_token
from activities.levers.ownership import replicas_of
from activities.levers.template import differences, fingerprint, stopping_of, version_of
from segue.budget import NO_FLOOR, resolve_budget
from segue.contract import WriteInput
from segue.errors import Refused, Rewritten
from segue.spec import Rules, Target
from segue.stopping import losses


def refuse_unsettled(objects: Objects, target: Target) -> None:
    """Refuse a Deployment that is paused, or in the middle of a rollout of its own.

    Raises:
        Refused: with the command that settles it.
    """
    deployment = objects.deployment
    refuse_paused(deployment, target)
    running = [rs for rs in objects.replicasets if rs["spec"].get("replicas")]
    current = fingerprint(deployment["spec"]["template"])
    if [fingerprint(rs["spec"]["template"]) for rs in running] != [current]:
        raise Refused(
            "is in the middle of a rollout of its own, so there is no proven version to return to",
            field="target",
            value=str(target),
            fix=f"wait until it ends, or run `kubectl rollout undo deployment/{deployment['metadata']['name']}`",
        )


def refuse_paused(deployment: Object, target: Target) -> None:
    """Refuse a Deployment whose controller is paused.

    Raises:
        Refused: with the command that resumes it.
    """
    if is_paused(deployment):
        name = deployment["metadata"]["name"]
        raise Refused(
            "is paused" if name == target.name else f"has a paused Deployment: {name}",
            field="target",
            value=str(target),
            fix=f"run `kubectl rollout resume deployment/{name}`",
        )


def check_unchanged(request: WriteInput, found: Object, patch: Object, tried: Object) -> None:
    """Stop a write if admission changes its template: the controller would make room for it at once.

    Raises:
        Rewritten: naming what admission changes, with the version that it makes.
    """
    stored = tried["spec"]["template"]
    if fingerprint(stored) != request.state.wanted.template:
        meant = patch["spec"].get("template") or found["spec"]["template"]
        changed = ", ".join(differences(meant, stored)) if request.change is None or not request.change.patch else ""
        raise Rewritten(f"{CHANGES}: {changed or 'the pod template'}; nothing was written", version_of(stored))


def check_admitted(target: Target, found: Object, patch: Object, tried: Object, fix: str) -> None:
    """Stop a write if admission changes what holds the Deployment, who does, or its replicas.

    Raises:
        Refused: naming what admission changes.
    """
    refuse_lost(target, found, patch, tried, fix)
    refuse_resized(target, found, patch, tried, fix)
    meant, stored = lever_token(patch), lever_token({"spec": {**tried["spec"], "paused": None}})
    if meant != stored:
        raise changed_by_admission(target, f"{meant} to {stored}", fix)


def warnings_of(deployment: Object, start: Object, tried: Object, rules: Rules) -> tuple[str, ...]:
    """Return what a person should know before the start."""
    budget, wanted = resolve_budget(rules.strategy, replicas_of(deployment)), tried["spec"]["template"]
    found = list(losses(stopping_of(start), stopping_of(wanted), rules, budget.replicas, drainable=True))
    if is_paused(tried):
        found.append(
            f"{ADMISSION} pauses the Deployment when its template changes: the rollout holds until you run "
            f"`kubectl rollout resume deployment/{deployment['metadata']['name']}`"
        )
    if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
        found.append("strategy Recreate becomes RollingUpdate during the rollout, and is restored at its end")
    if budget.floor == 0:
        found.append(NO_FLOOR)
    return tuple(found)
