"""Waits for a Deployment's own controller, and reports its progress."""

import asyncio
import time
from collections.abc import Callable

from activities.cluster import Cluster, Object
from activities.levers.ownership import BASELINE, annotations_of, being_deleted, saved_baseline
from segue.errors import Fenced, TimedOut
from segue.units import counted

POLL_S = 0.5


class Waiting:
    """Waits for at most ``timeout_s`` in all, and reports like ``kubectl rollout status``."""

    def __init__(self, timeout_s: float, tell: Callable[[str], None]) -> None:
        self._ends_at, self._timeout_s = time.monotonic() + timeout_s, timeout_s
        self.tell = tell

    async def until_complete(self, cluster: Cluster, namespace: str, name: str) -> None:
        """Wait until the controller is done.

        Raises:
            Fenced: when the Deployment is being deleted: its controller does nothing more.
            TimedOut: when the controller is not done in time.
        """
        reported = ""
        while True:
            found = await cluster.get("deployments", namespace, name)
            if why := being_deleted(found):
                raise Fenced(f"{namespace}/{name}: {why}")
            left = _left(found)
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
    spec, status = deployment["spec"], deployment.get("status", {})
    replicas, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "the Deployment controller has not observed the change yet"
    if updated < replicas:
        return f"{updated} of {replicas} replicas updated"
    if status.get("replicas", 0) > updated:
        return f"{counted(status['replicas'] - updated, 'other replica')} still to be removed"
    available = status.get("availableReplicas", 0)
    return (
        f"{available} of {replicas} replicas available" if available < _requested_replicas(deployment, replicas) else ""
    )


def _requested_replicas(deployment: Object, replicas: int) -> int:
    """Return how many must be available: at most as many as were ready before the rollout."""
    if BASELINE not in annotations_of(deployment):
        return replicas
    saved = saved_baseline(deployment)
    ready, before = saved.get("ready"), saved.get("replicas")
    if before is None:  # a pair saves the replicas of each side
        before = saved["old"] + saved["new"]
    return replicas if ready is None or ready >= before else min(ready, replicas)
