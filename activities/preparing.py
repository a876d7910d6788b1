"""What is read and tried before a rollout, by a worker at its start and by `segue plan`. Nothing is written."""

from activities import autoscaling
from activities.cluster import Cluster
from activities.levers.base import Lever
from activities.routers.base import Router
from segue.contract import Prepared, PrepareInput


async def tried(cluster: Cluster, lever: Lever, router: Router | None, asked: PrepareInput) -> Prepared:
    """Look at the target and at what leads its traffic, and let the API server try the change.

    Raises:
        Refused: for a target that cannot be rolled so.
    """
    prepared = await lever.prepare(asked)
    if router is not None:
        await router.prepare(asked, prepared.owner)
    foretold = await autoscaling.foretell(cluster, asked.target, asked.rules)
    return prepared.model_copy(update={"warnings": (*prepared.warnings, *foretold)})
