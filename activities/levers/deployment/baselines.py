"""Recovers the saved baseline of a Deployment after somebody removed or damaged it. Pure.

The controller copies the Deployment's annotations to the ReplicaSet of the present template. It keeps the copy of a
removed annotation, and overwrites that of a damaged one. The former ReplicaSet has the former template; nothing else
keeps the former strategy.
"""

import copy
from typing import NamedTuple

from activities.cluster import Object
from activities.levers.deployment.reading import HOLD_MIN_READY_S, REVISION, Objects
from activities.levers.ownership import (
    BASELINE,
    CAUSE,
    CHANGE,
    OWNER,
    annotations_of,
    as_saved,
    has_baseline,
    ready_before,
)
from activities.levers.template import HASH_LABEL, fingerprint
from segue.state import State

DEADLINE_S = 600
"""The default of ``progressDeadlineSeconds``."""


class FoundBaseline(NamedTuple):
    """A baseline that is not on the Deployment as it was saved."""

    saved: str
    """The annotation's value; empty if none was found."""
    warning: str = ""
    """What it lacks, for a person."""


NOTHING = FoundBaseline("")


def lost_baseline(objects: Objects, state: State, budget: Object) -> FoundBaseline:
    """Return this rollout's baseline if somebody removed or damaged it; ``NOTHING`` if it is intact or cannot be found.

    ``budget`` is the strategy to restore if the former one is not known.
    """
    present = annotations_of(objects.deployment)
    if present.get(OWNER) != state.owner or not state.claimed or has_baseline(objects.deployment):
        return NOTHING
    copies = [rs for rs in objects.replicasets if annotations_of(rs).get(OWNER) == state.owner and has_baseline(rs)]
    if copies:
        return FoundBaseline(annotations_of(copies[0])[BASELINE])
    former = [rs for rs in objects.replicasets if fingerprint(rs["spec"]["template"]) == state.baseline.template]
    return rebuilt(objects.deployment, former, budget, ready_before(state))


def rebuilt(
    deployment: Object, replicasets: list[Object], budget: Object, ready: dict[str, int] | None = None
) -> FoundBaseline:
    """Return the baseline made from the newest ReplicaSet that no rollout held; ``NOTHING`` if there is none."""
    own = [rs for rs in replicasets if rs["spec"].get("minReadySeconds") != HOLD_MIN_READY_S]
    if not own:
        return NOTHING
    newest = max(own, key=lambda rs: int(annotations_of(rs).get(REVISION, "0")))
    template = copy.deepcopy(newest["spec"]["template"])
    template["metadata"].get("labels", {}).pop(HASH_LABEL, None)
    annotations = annotations_of(newest)
    saved = {
        "template": template,
        "strategy": budget,
        "minReadySeconds": newest["spec"].get("minReadySeconds", 0),
        "progressDeadlineSeconds": DEADLINE_S,
        "paused": False,
        "budget": budget,
        "revision": annotations.get(REVISION, ""),
        **(ready or {}),
    }
    rolling = budget["rollingUpdate"]
    warning = (
        f"the annotation {BASELINE} was removed or damaged; the former version is that of ReplicaSet "
        f"{newest['metadata']['name']}. Its strategy and deadline are not known: set RollingUpdate with "
        f"maxSurge {rolling['maxSurge']} and maxUnavailable {rolling['maxUnavailable']}, and "
        f"progressDeadlineSeconds {DEADLINE_S}; correct them after the rollout"
    )
    notes = {name: annotations.get(name) for name in (CAUSE, CHANGE)}
    return FoundBaseline(as_saved(deployment, saved, notes), warning)
