"""Reads a profile of a team from the cluster."""

from activities.cluster import Cluster, Object, connected
from segue.clusters import Access
from segue.errors import NotAllowed, NotFound
from segue.rollout_object import CLUSTER_PROFILES, PROFILES
from segue.spec import OwnProfile
from segue.spec.own_profile import CLUSTER_WIDE, NAMESPACED, read_own_profile
from segue.spec.profile import ProfileName
from segue.spec.refusals import NamedProfile

FIELD = "spec.profile.name"


async def find_profile(cluster: Cluster, wanted: NamedProfile) -> OwnProfile | None:
    """Return the RolloutProfile of this name beside the target, else the ClusterRolloutProfile; None without both.

    Raises:
        Refused: when the object is not a valid profile.
        NotAllowed, Unreachable: when it cannot be read.
    """
    for kind, resource, namespace in (NAMESPACED, PROFILES, wanted.namespace), (CLUSTER_WIDE, CLUSTER_PROFILES, ""):
        try:
            found = await cluster.get(resource, namespace, wanted.name)
        except NotFound:
            continue
        except NotAllowed as error:
            if namespace:
                raise
            why = f"is no RolloutProfile of namespace {wanted.namespace}, and a ClusterRolloutProfile cannot be read"
            fix = f"check the name (built-in are {', '.join(ProfileName)}), or {error.fix}"
            raise NotAllowed(f"{why} ({error.why})", field=FIELD, value=wanted.name, fix=fix) from error
        return _read(found, kind, namespace)
    return None


async def read_profile(wanted: NamedProfile, access: Access) -> OwnProfile | None:
    """Return the same by the user's own connection to the target's cluster."""
    async with connected(access) as cluster:
        return await find_profile(cluster, wanted)


def _read(found: Object, kind: str, namespace: str) -> OwnProfile:
    metadata = {"name": found["metadata"]["name"], **({"namespace": namespace} if namespace else {})}
    document = {"apiVersion": found["apiVersion"], "kind": kind, "metadata": metadata, "spec": found.get("spec")}
    return read_own_profile(document, f"{kind} {f'{namespace}/' if namespace else ''}{metadata['name']}")
