"""Reads a pod, as the API server shows it, into the facts that the core judges."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from activities.cluster import Object
from activities.ended_pods import Gone, seconds_of
from activities.levers.template import sidecars_of
from segue.replica import ContainerFacts, Replica

DRAINING = "Draining"
"""The reason of a Ready condition that says False because we take the pod out of its Services."""
DELETION_COST, FIRST = "controller.kubernetes.io/pod-deletion-cost", "-2147483648"
"""Of two pods that are alike a ReplicaSet's controller removes the one with this."""
_NODE_REASONS = {"NodeNotReady", "NodeLost", "NodeStatusUnknown"}
"""What other controllers of nodes give for a reason."""
_SCHEDULING_S = 2.0
"""A pod that got its node later than this after it was made had to wait for a place."""


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
    has_ended = pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}
    if "deletionTimestamp" not in metadata or has_ended or _is_abandoned(pod):
        return None
    # The API server writes when the pod will be killed.
    return seconds_of(metadata["deletionTimestamp"]) - float(metadata.get("deletionGracePeriodSeconds", 0))


def _is_abandoned(pod: Object) -> bool:
    """Whether the pod's node was lost: it is told to stop, nobody ends it, and nobody gets what it has."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "DisruptionTarget" and c.get("reason") == "DeletionByTaintManager" for c in conditions)


def killed_at(pod: Object) -> float | None:
    """When a pod that was told to stop is killed at the latest: seconds since the epoch; None for one that was not."""
    return None if told_to_stop_at(pod) is None else seconds_of(pod["metadata"]["deletionTimestamp"])


def freed_by(stopping: Iterable[Object], removed: Iterable[Gone], *, waits: bool) -> float:
    """Return when pods that stop have set free what they hold, at the latest: seconds since the epoch; 0 without any.

    ``waits`` says whether something waits for that: else only those count that are removed.
    """
    killed = [at for pod in stopping if (at := killed_at(pod)) is not None] if waits else []
    return max((*killed, *(each.at for each in removed)), default=0.0)


def made_at(pod: Object) -> float:
    """Return when a pod was made: seconds since the epoch."""
    return seconds_of(pod["metadata"].get("creationTimestamp"))


def is_ready(pod: Object) -> bool:
    """Whether its Ready condition is true."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def read_replica(pod: Object, version: str) -> Replica:
    """Read one pod that was made from the template with fingerprint ``version``."""
    conditions = {c["type"]: c for c in pod.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready", {})
    scheduled = conditions.get("PodScheduled", {})
    gates = () if pod.get("spec", {}).get("nodeName") else pod.get("spec", {}).get("schedulingGates", ())
    unplaced = scheduled.get("reason") == "Unschedulable" and not gates
    return Replica(
        name=pod["metadata"]["name"],
        version=version,
        ready_since=seconds_of(ready.get("lastTransitionTime")) if is_ready(pod) else None,
        unschedulable=scheduled.get("message", "") if unplaced else "",
        unplaced_since=seconds_of(scheduled.get("lastTransitionTime")) if unplaced else None,
        unready="" if is_ready(pod) else ready.get("message", ""),
        containers=tuple(_containers(pod)),
        marked=ready.get("status") == "False" and ready.get("reason") == DRAINING,
        first=goes_first(pod),
        uid=pod["metadata"].get("uid", ""),
        address=pod.get("status", {}).get("podIP", ""),
        ports=tuple(named_ports(pod.get("spec", {}))),
        unready_since=seconds_of(ready["lastTransitionTime"]) if _is_unready(ready) else None,
        started_at=seconds_of(started) if (started := pod.get("status", {}).get("startTime")) else None,
        gates=tuple(gate["name"] for gate in gates),
        node=pod.get("spec", {}).get("nodeName", ""),
        is_lost=_is_lost(conditions),
        placed_late_at=_placed_late_at(pod, scheduled),
    )


def _is_lost(conditions: Mapping[str, Object]) -> bool:
    """Whether the pod's node does not answer.

    The node lifecycle controller then turns the condition Ready False, and nothing else: the kubelet, which gives a
    reason and turns ContainersReady too, says nothing any more (``pkg/controller/util/node``, MarkPodsNotReady).
    """
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    explained = ready.get("reason") or ready.get("message")
    if ready.get("status") == "Unknown" or ready.get("reason") in _NODE_REASONS:
        return True
    return ready.get("status") == "False" and not explained and containers.get("status") == "True"


def _placed_late_at(pod: Object, scheduled: Object) -> float:
    """Return when a pod got its node, where it waited for one for longer than a scheduler needs; else 0."""
    placed_at = seconds_of(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else 0.0
    return placed_at if placed_at > seconds_of(pod["metadata"].get("creationTimestamp")) + _SCHEDULING_S else 0.0


def _is_unready(ready: Object) -> bool:
    return ready.get("status") == "False" and bool(ready.get("lastTransitionTime"))


def named_ports(spec: Object) -> Iterator[tuple[str, int]]:
    """Yield the named ports of the containers that run as long as the pod: of native sidecars too."""
    for container in (*spec.get("containers", []), *sidecars_of(spec)):
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
