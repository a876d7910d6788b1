"""Reads a pod, as the API server shows it, into the facts that the core judges."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from activities.cluster import Object
from segue.replica import ContainerFacts, Replica

DRAINING = "Draining"
"""The reason of a Ready condition that says False because we take the pod out of its Services."""
DELETION_COST, FIRST = "controller.kubernetes.io/pod-deletion-cost", "-2147483648"
"""Of two pods that are alike a ReplicaSet's controller removes the one with this."""


def is_active(pod: Object) -> bool:
    """Whether the pod counts as a replica: neither being deleted nor ended."""
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in {
        "Failed",
        "Succeeded",
    }


def goes_first(pod: Object) -> bool:
    """Whether it was marked to be removed before others that are like it."""
    return bool(pod["metadata"].get("annotations", {}).get(DELETION_COST) == FIRST)


def told_to_stop_at(pod: Object) -> float | None:
    """When a pod that has not ended was told to stop: seconds since the epoch; none for one that was not."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata or pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}:
        return None
    # The API server writes when the pod will be killed.
    return _seconds(metadata["deletionTimestamp"]) - float(metadata.get("deletionGracePeriodSeconds", 0))


def is_ready(pod: Object) -> bool:
    """Whether its Ready condition is true."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def read_replica(pod: Object, version: str) -> Replica:
    """Read one pod that was made from the template with fingerprint ``version``."""
    conditions = {c["type"]: c for c in pod.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready", {})
    scheduled = conditions.get("PodScheduled", {})
    unplaced = scheduled.get("reason") == "Unschedulable"
    return Replica(
        name=pod["metadata"]["name"],
        version=version,
        ready_since=_seconds(ready.get("lastTransitionTime")) if is_ready(pod) else None,
        unschedulable=scheduled.get("message", "") if unplaced else "",
        unplaced_since=_seconds(scheduled.get("lastTransitionTime")) if unplaced else None,
        unready="" if is_ready(pod) else ready.get("message", ""),
        containers=tuple(_containers(pod)),
        marked=ready.get("status") == "False" and ready.get("reason") == DRAINING,
        first=goes_first(pod),
        uid=pod["metadata"].get("uid", ""),
        address=pod.get("status", {}).get("podIP", ""),
        ports=tuple(_ports(pod)),
        unready_since=_seconds(ready["lastTransitionTime"]) if _lost(ready) else None,
        started_at=_seconds(started) if (started := pod.get("status", {}).get("startTime")) else None,
    )


def _lost(ready: Object) -> bool:
    return ready.get("status") == "False" and bool(ready.get("lastTransitionTime"))


def _ports(pod: Object) -> Iterator[tuple[str, int]]:
    for container in pod.get("spec", {}).get("containers", []):
        for port in container.get("ports", []):
            if "name" in port:
                yield port["name"], port["containerPort"]


def _containers(pod: Object) -> Iterator[ContainerFacts]:
    """Read all containers; those that only prepare the others first, where they keep them from beginning."""
    written = {c["name"]: c for kind in ("initContainers", "containers") for c in pod.get("spec", {}).get(kind, [])}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in pod.get("status", {}).get(kind, []):
            yield _container(status, written.get(status["name"], {}))


def _container(status: dict[str, Any], written: dict[str, Any]) -> ContainerFacts:
    state, last = status.get("state", {}), status.get("lastState", {})
    waiting = state.get("waiting", {})
    ended = state.get("terminated") or last.get("terminated") or {}
    return ContainerFacts(
        name=status["name"],
        restarts=_restarts(status, ended),
        waiting=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        ended=ended.get("reason", ""),
        exit_code=ended.get("exitCode"),
        image=written.get("image", ""),
        memory_limit=str(written.get("resources", {}).get("limits", {}).get("memory", "")),
    )


def _restarts(status: dict[str, Any], ended: dict[str, Any]) -> int:
    """Return how often it was begun again after it had ended.

    A container that was made and not started, since the kubelet died in between, is made again and counted (its
    ``ShouldContainerBeRestarted``); it has no end, and tells nothing of its version.
    """
    count: int = status.get("restartCount", 0)
    return count if ended else max(count - 1, 0)


def _seconds(timestamp: str | None) -> float:
    # Kubernetes writes whole seconds; a condition without its time has always been so.
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
