"""What the command line reads of a target, without Temporal."""

from activities.cluster import Object, connected
from activities.levers import Levers
from activities.levers.base import TargetFacts
from activities.levers.deployment_reading import REVISION
from activities.levers.ownership import CAUSE, annotations_of, note_of, selector_of
from activities.levers.template import fingerprint, version_of
from activities.watching import controller_uid
from segue.history import Revision
from segue.spec import Target


async def read_target(target: Target) -> TargetFacts:
    """Return what a plan needs to know of the target.

    Raises:
        NotFound, NotAllowed, Unreachable.
    """
    async with connected() as cluster:
        return await Levers(cluster).of(target).look(target)


async def read_history(target: Target) -> list[Revision]:
    """Return the revisions that the target's controller has, the oldest first.

    Raises:
        NotFound, NotAllowed, Unreachable.
    """
    async with connected() as cluster:
        deployment = await cluster.get("deployments", target.namespace, target.name)
        found = await cluster.list("replicasets", target.namespace, selector_of(deployment))
    own = [rs for rs in found["items"] if controller_uid(rs) == deployment["metadata"]["uid"]]
    current = fingerprint(deployment["spec"]["template"])
    return sorted((_revision(rs, current) for rs in own), key=lambda revision: revision.revision)


def _revision(replicaset: Object, current: str) -> Revision:
    annotations, template = annotations_of(replicaset), replicaset["spec"]["template"]
    return Revision(
        revision=int(annotations.get(REVISION, "0")),
        created=replicaset["metadata"]["creationTimestamp"],
        images=version_of(template).images,
        replicas=replicaset["spec"].get("replicas", 0),
        current=fingerprint(template) == current,
        cause=annotations.get(CAUSE, ""),
        note=note_of(replicaset),
    )
