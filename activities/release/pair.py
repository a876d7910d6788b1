"""Releases a pair of Deployments without Temporal.

No controller rolls back both, so this scales each side in turn: it brings the side that will serve to its full size,
waits for it, and then scales the other one down. That never goes under the floor, and needs room for both meanwhile.
"""

import json
from collections.abc import Callable

from activities.cluster import Cluster, Object
from activities.levers.deployment.reading import Objects
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    REPLICAS,
    WRITES,
    noted,
    refuse_another_kind,
    replicas_of,
)
from activities.levers.pair.reading import Baseline, Pair, is_made, left_to_others, recorded_replicas
from activities.levers.template import fingerprint
from activities.levers.writing import clean_revisions
from activities.release.others import refuse_unwritten, tell_of_others
from activities.release.patience import Waiting, Way, until_written
from activities.release.remains import note_left, released_note
from activities.routers import Routers
from segue.errors import NotFound
from segue.observation import RELEASED_BY
from segue.spec import Target


async def release_pair(cluster: Cluster, target: Target, to: Way, by: str, waiting: Waiting) -> str:
    """Bring the pair to its baseline, or on to the new side; the same command again continues.

    Raises:
        NotFound: when the old Deployment has no saved baseline, so there is nothing to release, or when the new one has
            no wanted version to go on to.
        TimedOut: when a side is not available in time; the serving side keeps serving.
    """
    old = await cluster.get("deployments", target.namespace, target.name)
    refuse_another_kind(old, target.kind)
    baseline = Pair(Objects(old, [], []), None).baseline
    if baseline is None:
        raise NotFound(
            "has no saved baseline: no rollout holds it", field=f"deployment {target}", fix="nothing to release"
        )
    recorded = recorded_replicas(old)
    replicas = baseline.old + baseline.new if recorded is None else recorded
    taken = await _found(cluster, target.namespace, baseline.name)
    if to == "wanted":
        refuse_missing(taken, baseline, target)
    # From here on a rollout that still runs ends without writing.
    released: Object = {"metadata": {"annotations": {OWNER: f"{RELEASED_BY}{by}"}}}
    await _patch(cluster, target.namespace, target.name, released)
    waiting.tell(f"{target} is released from its rollout, and moves to the {to} version")
    if taken is not None and to == "wanted":
        tell_of_others(taken, waiting.tell)
    if to == "baseline":
        await _back(cluster, target, baseline, replicas, waiting)
    else:
        await _scale(cluster, target.namespace, baseline.name, replicas, waiting)
        await Routers(cluster).release(target, "after")
        await _scale(cluster, target.namespace, target.name, 0, waiting)
    freed = await _freed(cluster, target.namespace, baseline.name, waiting, keeps=to == "wanted")
    if taken is not None and freed is not None:
        await note_left(cluster, taken, freed, by)
    # The saved baseline goes last, so that the same command can continue.
    await _freed(cluster, target.namespace, target.name, waiting, keeps=False)
    return f"{target} runs the {to} version"


def refuse_missing(new: Object | None, baseline: Baseline, target: Target) -> None:
    """Refuse to go on to a version that the new Deployment does not have.

    Raises:
        NotFound: if it does not exist, or still has the template from before the rollout.
    """
    field = f"deployment {target.namespace}/{baseline.name}"
    if new is None:
        why = "does not exist, so there is no wanted version to go on to"
        raise NotFound(why, field=field, fix="go back with `--to baseline`")
    if baseline.template:
        refuse_unwritten(fingerprint(new["spec"]["template"]), fingerprint(json.loads(baseline.template)), field)


async def _back(cluster: Cluster, target: Target, baseline: Baseline, replicas: int, waiting: Waiting) -> None:
    new = baseline.new * replicas // (baseline.old + baseline.new)
    await _scale(cluster, target.namespace, target.name, replicas, waiting)
    await Routers(cluster).release(target, "before")
    found = await _found(cluster, target.namespace, baseline.name)
    if found is not None and baseline.made:
        await remove(cluster, found, baseline, waiting.tell)
    elif found is not None:
        await _scale(cluster, target.namespace, baseline.name, new, waiting, _own_version(baseline))
        await _scale(cluster, target.namespace, target.name, replicas - new, waiting)


async def remove(cluster: Cluster, new: Object, baseline: Baseline, tell: Callable[[str], None]) -> None:
    """Remove the Deployment that the rollout made; one that somebody else created meanwhile stays."""
    if is_made(new):
        metadata = new["metadata"]
        await cluster.delete("deployments", metadata["namespace"], metadata["name"], metadata["uid"])
    else:
        tell(f"warning: {left_to_others(new, baseline)}")


def _own_version(baseline: Baseline) -> Object:
    """Return the patch that gives the new Deployment its own version back, with the notes of that; empty if none."""
    if not baseline.template:
        return {}
    template = {**json.loads(baseline.template), "$patch": "replace"}
    return {"metadata": {"annotations": dict(baseline.notes)}, "spec": {"template": template}}


async def _freed(cluster: Cluster, namespace: str, name: str, waiting: Waiting, *, keeps: bool) -> Object | None:
    """Release one Deployment; note the outcome if it ``keeps`` the rollout's version. Returns None if it is gone."""
    found = await _found(cluster, namespace, name)
    if found is None:
        return None
    note = released_note(found) if keeps else None
    annotations = {**dict.fromkeys((OWNER, BASELINE, REPLICAS, WRITES)), **(noted(note) if note else {})}
    freed = await _patch(cluster, namespace, name, {"metadata": {"annotations": annotations}})
    cleaned = await clean_revisions(cluster, freed)
    if cleaned.left:
        waiting.tell(f"warning: {cleaned.left}")
    return freed


async def _scale(
    cluster: Cluster, namespace: str, name: str, replicas: int, waiting: Waiting, version: Object | None = None
) -> None:
    """Set a Deployment's replicas, and its version if one is given; wait until they are available."""
    if version or replicas_of(await cluster.get("deployments", namespace, name)) != replicas:
        patch = version or {}
        await _patch(cluster, namespace, name, {**patch, "spec": {**patch.get("spec", {}), "replicas": replicas}})
    await waiting.until_complete(cluster, namespace, name)


async def _found(cluster: Cluster, namespace: str, name: str) -> Object | None:
    try:
        return await cluster.get("deployments", namespace, name)
    except NotFound:
        return None


async def _patch(cluster: Cluster, namespace: str, name: str, patch: Object) -> Object:
    async def written() -> Object:
        found = await cluster.get("deployments", namespace, name)
        metadata = {**patch.get("metadata", {}), "resourceVersion": found["metadata"]["resourceVersion"]}
        return await cluster.patch("deployments", namespace, name, {**patch, "metadata": metadata})

    return await until_written(written, f"deployment {namespace}/{name}")
