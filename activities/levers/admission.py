"""Refuses a write that admission would change, before anything of it is written. Pure."""

from activities.cluster import Object
from activities.levers.ownership import BASELINE, OWNER, annotations_of, replicas_of
from segue.errors import Refused
from segue.spec import Target

ADMISSION = "an admission policy or webhook"
"""Who changed a write before the API server stored it; the API server does not record the name."""
CHANGES = f"{ADMISSION} changes what the rollout is about to write"
START_FIX = "change that policy or webhook, then try again"
"""What to do before the first write."""
MOVE_FIX = "change that policy and run `segue resume`, accept its change with `segue retarget`, or run `segue abort`"
"""What to do after it."""
BACK_FIX = "change that policy: the rollout then continues by itself"
"""What to do on the way back, and at the end."""


def refuse_lost(target: Target, found: Object, patch: Object, stored: Object, fix: str) -> None:
    """Refuse a write if admission would remove or change an annotation of Segue that it sets, or that is there.

    Without the owner the rollout would be fenced off from a target that it holds; without the baseline nothing could
    roll it back.

    Raises:
        Refused: naming what it would change.
    """
    meant = {**annotations_of(found), **patch.get("metadata", {}).get("annotations", {})}
    kept = annotations_of(stored)
    lost = [name for name in (OWNER, BASELINE) if meant.get(name) is not None and kept.get(name) != meant[name]]
    if lost:
        raise changed_by_admission(target, f"the annotations {', '.join(lost)}", fix)


def refuse_resized(target: Target, found: Object, patch: Object, stored: Object, fix: str) -> None:
    """Refuse a write if admission would change the number of replicas: fewer would take ready ones away.

    A difference proves nothing if somebody else wrote the target after it was read.

    Raises:
        Refused: naming both numbers.
    """
    meant, kept = replicas_of({"spec": {**found["spec"], **patch["spec"]}}), replicas_of(stored)
    is_same = found["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
    if meant != kept and is_same:
        raise changed_by_admission(target, f"replicas={meant} to replicas={kept}", fix)


def changed_by_admission(target: Target, changed: str, fix: str) -> Refused:
    """Return the refusal of a write that admission would change."""
    return Refused(
        f"{CHANGES}: {changed}; nothing was written",
        field=f"{target.kind} {target}",
        fix=fix,
    )
