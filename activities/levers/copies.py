"""Creates and prunes the immutable copies of configuration that pod templates refer to."""

from collections.abc import Iterable

from activities.cluster import Cluster, Object
from activities.levers.configs import COPY_OF, config_maps_of, copies_of, is_copy, owned_by, owner_uid
from segue.spec import Change


async def make_copies(cluster: Cluster, change: Change | None, owner: Object, *, dry_run: bool = False) -> int:
    """Create the copies that a change needs, owned by the target; return how many were created."""
    namespace = owner["metadata"]["namespace"]
    copies = [owned_by(copy, owner) for copy in copies_of(change).values()] if change else []
    made = [await cluster.create_absent("configmaps", namespace, copy, dry_run=dry_run) for copy in copies]
    return sum(each is not None for each in made)


async def prune_copies(cluster: Cluster, owner: Object, templates: Iterable[Object]) -> int:
    """Delete the copies that no revision's template refers to; return how many."""
    used = {name for template in templates for name in config_maps_of(template)}
    if not any(map(is_copy, used)):
        return 0  # without copies a worker needs no right to ConfigMaps
    namespace = owner["metadata"]["namespace"]
    found = (await cluster.list("configmaps", namespace, COPY_OF))["items"]
    own = [each["metadata"]["name"] for each in found if owner_uid(each) == owner["metadata"]["uid"]]
    unused = [name for name in own if name not in used]
    for name in unused:
        await cluster.delete("configmaps", namespace, name)
    return len(unused)
