"""Whether a namespace is being deleted: its pods go first, its rights and targets later, and nothing can be created."""

from activities.cluster import Cluster
from segue.errors import SegueError


async def ending_namespace(cluster: Cluster, namespace: str) -> str:
    """Return that a namespace is being deleted, for a person; empty if it is not, or if that is not known."""
    try:
        found = await cluster.get("namespaces", namespace, namespace)
    except SegueError:
        return ""
    at = found["metadata"].get("deletionTimestamp")
    return f"the namespace {namespace} is being deleted since {at}" if at else ""
