"""What works without Temporal: giving a target free when a rollout's history is lost.

Everything needed to return to the baseline, or to finish, is written on the target itself.
"""

from collections.abc import Callable
from typing import Literal

from activities import autoscaling
from activities.cluster import Cluster, Object, connected
from activities.levers.deployment_patches import finish_patch, unhold_patch
from activities.levers.ownership import BASELINE, OWNER, note_of
from activities.pair_release import release_pair
from activities.patience import Waiting
from activities.stepped_release import release_stepped
from segue.errors import Conflict, NotFound
from segue.history import RELEASED
from segue.observation import RELEASED_BY
from segue.spec import Target

_ATTEMPTS = 10

Way = Literal["baseline", "wanted"]


async def release(target: Target, to: Way, by: str, timeout_s: float, tell: Callable[[str], None]) -> str:
    """Give a target free: let its own controller go to the baseline, or on to the wanted version; then restore it.

    A rollout that still runs sees that the target is not its own any more, and ends without writing. Killed half-way,
    the same command goes on where it was.

    Raises:
        NotFound: when the target carries no saved baseline, so that there is nothing to release.
        TimedOut: when the controller is not there in time; the target is safe, and goes on by itself.
    """
    async with connected() as cluster:
        if target.kind == "DeploymentPair":
            return await release_pair(cluster, target, to, by, Waiting(timeout_s, tell))
        if target.kind != "Deployment":
            return await release_stepped(cluster, target, to, by, timeout_s, tell)
        await _let_go(cluster, target, to, by)
        await autoscaling.free(cluster, target, tell)
        tell(f"{target} is free of its rollout and goes to the {to} by its own controller")
        await Waiting(timeout_s, tell).until_complete(cluster, target.namespace, target.name)
        await _patch(cluster, target, _finish)
    return f"{target} runs the {to}; its strategy is what it was"


def _finish(deployment: Object) -> Object:
    """Restore everything, and note what became of a version whose rollout did not live to say it."""
    note = note_of(deployment)
    released = note.model_copy(update={"outcome": RELEASED}) if note and not note.outcome else None
    return finish_patch(deployment, released)


async def _let_go(cluster: Cluster, target: Target, to: Way, by: str) -> None:
    def patch(deployment: Object) -> Object:
        made = unhold_patch(deployment, to_baseline=to == "baseline")
        made["metadata"]["annotations"] = {**made["metadata"]["annotations"], OWNER: f"{RELEASED_BY}{by}"}
        return made

    await _patch(cluster, target, patch)


async def _patch(cluster: Cluster, target: Target, make: Callable[[Object], Object]) -> None:
    for _ in range(_ATTEMPTS):
        deployment = await cluster.get("deployments", target.namespace, target.name)
        if BASELINE not in deployment["metadata"].get("annotations", {}):
            raise NotFound(
                "carries no saved baseline: no rollout holds it", field=f"deployment {target}", fix="nothing to release"
            )
        patch = make(deployment)
        patch.setdefault("metadata", {})["resourceVersion"] = deployment["metadata"]["resourceVersion"]
        try:
            await cluster.patch("deployments", target.namespace, target.name, patch)
        except Conflict:
            continue
        return
    raise Conflict(f"deployment {target} changes faster than it can be written; try again")
