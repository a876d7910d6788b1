"""Creates and prunes the immutable copies of configuration that pod templates refer to."""

import contextlib
from collections.abc import Iterable

from activities.cluster import Cluster, Object
from activities.ended_pods import seconds_of
from activities.levers.authors import latest_of
from activities.levers.configs import COPY_OF, config_maps_of, copies_of, is_copy, owned_by, owner_uid
from segue.errors import Refused, SegueError
from segue.spec import Change

MAX_READ = 20
"""The most ConfigMaps of one target that are read."""


async def make_copies(cluster: Cluster, change: Change | None, owner: Object, *, dry_run: bool = False) -> int:
    """Create the copies that a change needs, owned by the target; return how many were created."""
    namespace, uid = owner["metadata"]["namespace"], owner["metadata"]["uid"]
    copies = [owned_by(copy, owner) for copy in copies_of(change, uid).values()] if change else []
    made = [await cluster.create_absent("configmaps", namespace, copy, dry_run=dry_run) for copy in copies]
    return sum(each is not None for each in made)


async def lost_copies(cluster: Cluster, owner: Object, names: Iterable[str]) -> list[str]:
    """Return the copies that a target's template refers to, made for these names of a spec, and that are gone."""
    used = {each for each in config_maps_of(owner["spec"]["template"]) if any(is_copy(each, name) for name in names)}
    found = (await cluster.list("configmaps", owner["metadata"]["namespace"], COPY_OF))["items"] if used else []
    return sorted(used - {each["metadata"]["name"] for each in found})


async def prune_copies(cluster: Cluster, owner: Object, templates: Iterable[Object]) -> int:
    """Delete the copies that no revision's template refers to; return how many.

    The target is free already, and what the API server refuses to delete goes with the target.
    """
    used = {name for template in templates for name in config_maps_of(template)}
    if not any(map(is_copy, used)):
        return 0  # without copies a worker needs no right to ConfigMaps
    namespace = owner["metadata"]["namespace"]
    deleted = 0
    with contextlib.suppress(Refused):
        found = (await cluster.list("configmaps", namespace, COPY_OF))["items"]
        own = [each["metadata"]["name"] for each in found if owner_uid(each) == owner["metadata"]["uid"]]
        for name in (each for each in own if each not in used):
            await cluster.delete("configmaps", namespace, name)
            deleted += 1
    return deleted


async def edited_in_place(cluster: Cluster, namespace: str, templates: Iterable[Object], since: float) -> str:
    """Return which ConfigMap of these templates somebody changed after ``since``, for a person; empty if none.

    Nothing else shows it: the pod templates are the same. A missing right or an API server that is away tells nothing.
    """
    used = {name for template in templates for name in config_maps_of(template)}
    for name in sorted(each for each in used if not is_copy(each))[:MAX_READ]:
        try:
            pages = [page async for page in cluster.pages("configmaps", namespace, f"metadata.name={name}")]
        except SegueError:
            return ""
        who = next((_edited_by(found, since) for page in pages for found in page["items"]), "")
        if who:
            return (
                f"configmap {name} was changed in place during the rollout, by {who}: replicas may run different "
                "configuration, and no rollback restores it; restart them all, or change it by `change.configMaps`"
            )
    return ""


def _edited_by(found: Object, since: float) -> str:
    """Return who changed the data of a ConfigMap after ``since``; empty if nobody did."""
    entries = found["metadata"].get("managedFields", [])
    writers = [each for each in entries if {"f:data", "f:binaryData"} & each.get("fieldsV1", {}).keys()]
    later = [each for each in writers if seconds_of(each.get("time")) > since]
    return latest_of(later) if later else ""
