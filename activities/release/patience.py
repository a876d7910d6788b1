"""Waits in a release: for a write without a conflict, and for a Deployment's own controllers.

The status of a Deployment is what its controllers counted last. One that is away, or has just come back, counts pods
that are gone, so the pods themselves are counted too.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from activities.cluster import Cluster, Object
from activities.levers.controllers import is_observed
from activities.levers.deployment.fetching import read_with_pods
from activities.levers.deployment.reading import Objects, yet_to_remove
from activities.levers.ownership import BASELINE, annotations_of, being_deleted, replicas_of, saved_baseline
from activities.levers.pods import is_active, is_ready
from segue.errors import Conflict, Fenced, TimedOut
from segue.units import counted

POLL_S = 0.5
_ATTEMPTS = 10

T = TypeVar("T")
Way = Literal["baseline", "wanted"]
"""Where a release goes."""


async def until_written(write: Callable[[], Awaitable[T]], what: str) -> T:
    """Read and write, again after each conflict: others write at the same moment."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(Conflict):
            return await write()
    raise Conflict(f"{what} changes faster than it can be written; try again")


class Waiting:
    """Waits for at most ``timeout_s`` in all, and reports like ``kubectl rollout status``."""

    def __init__(self, timeout_s: float, tell: Callable[[str], None]) -> None:
        self._ends_at, self._timeout_s = time.monotonic() + timeout_s, timeout_s
        self.tell = tell

    async def until_complete(self, cluster: Cluster, namespace: str, name: str) -> None:
        """Wait until the controllers are done, and its pods are ready.

        Raises:
            Fenced: when the Deployment is being deleted: its controller does nothing more.
            TimedOut: when they are not done in time.
        """
        reported = ""
        while True:
            found = await cluster.get("deployments", namespace, name)
            if why := being_deleted(found):
                raise Fenced(f"{namespace}/{name}: {why}")
            left = _left(found) or _not_as_counted(await read_with_pods(cluster, found))
            if not left:
                return
            if left != reported:
                self.tell(left)
                reported = left
            if time.monotonic() >= self._ends_at:
                why = f"{namespace}/{name}: {left} after {self._timeout_s:g} s"
                raise TimedOut(f"{why}; run the same command again to continue")
            await asyncio.sleep(POLL_S)


def _left(deployment: Object) -> str:
    """Return what its controller still has to do, and why it cannot; empty if nothing is left."""
    left = _still_to_do(deployment)
    conditions = deployment.get("status", {}).get("conditions", [])
    failed = next((c for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)
    return f"{left}; no pod can be created: {failed.get('message', '')}" if left and failed else left


def _still_to_do(deployment: Object) -> str:
    status = deployment.get("status", {})
    replicas, updated = replicas_of(deployment), status.get("updatedReplicas", 0)
    if not is_observed(deployment):
        return "the Deployment controller has not observed the change yet"
    if updated < replicas:
        return f"{updated} of {replicas} replicas updated"
    if status.get("replicas", 0) > updated:
        return f"{counted(status['replicas'] - updated, 'other replica')} still to be removed"
    available = status.get("availableReplicas", 0)
    return (
        f"{available} of {replicas} replicas available" if available < _requested_replicas(deployment, replicas) else ""
    )


def _not_as_counted(objects: Objects) -> str:
    """Return why its pods are not yet what the status of a Deployment that is done says; empty if they are."""
    for each in objects.replicasets:
        if not is_observed(each):
            return f"the controller of replicaset {each['metadata']['name']} has not observed the change yet"
    if pending := yet_to_remove(objects):
        return pending
    replicas = replicas_of(objects.deployment)
    ready = sum(is_active(pod) and is_ready(pod) for pod in objects.pods)
    return f"{ready} of {replicas} replicas ready" if ready < _requested_replicas(objects.deployment, replicas) else ""


def _requested_replicas(deployment: Object, replicas: int) -> int:
    """Return how many must be available: at most as many as were ready before the rollout."""
    if BASELINE not in annotations_of(deployment):
        return replicas
    saved = saved_baseline(deployment)
    ready, before = saved.get("ready"), saved.get("replicas")
    if before is None:  # a pair saves the replicas of each side
        before = saved["old"] + saved["new"]
    return replicas if ready is None or ready >= before else min(ready, replicas)
