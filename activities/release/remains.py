"""What a release leaves on ReplicaSets if it is interrupted after it has freed the Deployment itself."""

from collections.abc import Callable

from activities.cluster import Cluster
from activities.levers.deployment.reading import is_engaged
from activities.levers.ownership import BASELINE, OWNER, annotations_of
from activities.levers.writing import clean_revisions
from segue.errors import NotFound
from segue.spec import Target


async def cleaned_again(cluster: Cluster, target: Target, tell: Callable[[str], None]) -> bool:
    """Remove the copies of Segue's annotations that an interrupted release left; return whether there were any.

    `kubectl rollout undo` would copy them back. While a rollout or a release holds the Deployment, they stay.
    """
    try:
        deployment = await cluster.get("deployments", target.namespace, target.name)
    except NotFound:
        return False  # the caller reports it
    if is_engaged(deployment) or {OWNER, BASELINE} & annotations_of(deployment).keys():
        return False
    cleaned = await clean_revisions(cluster, deployment)
    if cleaned.left:
        tell(f"warning: {cleaned.left}")
    return bool(cleaned.writes)
