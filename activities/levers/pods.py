"""Reads a pod from the API server into the facts that the core decides on."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from activities.cluster import Object
from activities.ended_pods import Gone, seconds_of
from activities.levers.template import sidecars_of
from segue.failures import can_start
from segue.observation import Cause, Problem
from segue.replica import ContainerFacts, Replica

DRAINING = "Draining"
"""The reason of a Ready condition that is False because Segue takes the pod out of its Services."""
DELETION_COST, FIRST = "controller.kubernetes.io/pod-deletion-cost", "-2147483648"
"""Of two equal pods a ReplicaSet's controller removes the one with this annotation."""
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")
_NODE_REASONS = {"NodeNotReady", "NodeLost", "NodeStatusUnknown"}
"""The reasons that other node controllers give."""
_ENDED_BY_NODE = {"ContainerStatusUnknown", "Unknown"}
"""The reasons of a kubelet, and of containerd, for a container that they no longer found: its node was restarted."""
_NOT_STARTED = {"StartError", "ContainerCannotRun"}
"""The reasons of containerd and Docker for a container that never ran."""
ANY_RESTARTS = 1_000_000
"""The limit for replicas of the baseline: they may have restarted long ago."""
OVERDUE_S = 2.0
"""A pod that still exists so long after it was to be killed does not go by itself soon."""
STUCK_S = 8.0
"""A replica for which there is no room is held up by such a pod: a kubelet may need some seconds more than it said."""
_SCHEDULING_S = 2.0
"""A pod that got its node later than this after its creation had to wait for a place."""


def is_active(pod: Object) -> bool:
    """Whether the pod counts as a replica: it is neither being deleted nor ended."""
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in {
        "Failed",
        "Succeeded",
    }


def goes_first(pod: Object) -> bool:
    """Whether the pod is marked to be removed before equal ones."""
    return bool(pod["metadata"].get("annotations", {}).get(DELETION_COST) == FIRST)


def stop_requested_at(pod: Object) -> float | None:
    """Return when the stop of a running pod was requested, in seconds since the epoch. Returns None if it was not."""
    metadata = pod["metadata"]
    has_ended = pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}
    if "deletionTimestamp" not in metadata or has_ended or _is_abandoned(pod):
        return None
    # The deletion timestamp is the time at which the pod will be killed.
    return seconds_of(metadata["deletionTimestamp"]) - float(metadata.get("deletionGracePeriodSeconds", 0))


def _is_abandoned(pod: Object) -> bool:
    """Whether the pod's node is lost: nothing ends the pod, and nothing gets its resources."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "DisruptionTarget" and c.get("reason") == "DeletionByTaintManager" for c in conditions)


def killed_at(pod: Object) -> float | None:
    """Return when a stopping pod is killed at the latest, in seconds since the epoch. Returns None for other pods."""
    return None if stop_requested_at(pod) is None else seconds_of(pod["metadata"]["deletionTimestamp"])


def overdue(pods: Iterable[Object], now: float) -> Problem | None:
    """Return the problem of the first pod that still exists after it was to be killed. Returns None without one.

    No other pod gets its name before it is gone. A finalizer keeps it, or its kubelet does not answer.
    """
    stuck = (each["metadata"] for each in pods if "deletionTimestamp" in each["metadata"])
    late = [each for each in stuck if seconds_of(each["deletionTimestamp"]) + OVERDUE_S < now]
    first = min(late, key=lambda each: str(each["name"]), default=None)
    if first is None:
        return None
    keepers = ", ".join(first.get("finalizers", []))
    why = f"its finalizers keep it: {keepers}" if keepers else "check whether its node answers"
    message = f"was to be gone by {first['deletionTimestamp']}, and still exists; {why}"
    return Problem(cause=Cause.DEADLINE, message=message, replica=str(first["name"]))


def stuck(pods: Iterable[Object], deadline_s: float, now: float, *, waits: bool) -> Problem | None:
    """Return the problem of the first pod that should be gone and keeps its place, if others wait for room."""
    later_s = max(0.0, min(STUCK_S, deadline_s / 2) - OVERDUE_S)
    return overdue((pod for pod in pods if stop_requested_at(pod) is not None), now - later_s) if waits else None


def freed_by(stopping: Iterable[Object], removed: Iterable[Gone], *, waits: bool) -> float:
    """Return when stopping pods free their resources at the latest: seconds since the epoch, or 0 without any.

    Without ``waits`` (nothing waits for that) only removed pods count.
    """
    killed = [at for pod in stopping if (at := killed_at(pod)) is not None] if waits else []
    return max((*killed, *(each.at for each in removed)), default=0.0)


def made_at(pod: Object) -> float:
    """Return when a pod was created, in seconds since the epoch."""
    return seconds_of(pod["metadata"].get("creationTimestamp"))


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is True."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def read_replica(pod: Object, version: str, own: Collection[str] = ()) -> Replica:
    """Read one pod of the template with fingerprint ``version``; ``own`` are its containers, if they are known."""
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
        # While the scheduler fails (SchedulerError: a volume is not bound in time, say), no kubelet gives a reason.
        unready="" if is_ready(pod) else ready.get("message") or scheduled.get("message", ""),
        containers=tuple(_containers(pod, own)),
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
        unstarted_since=_unstarted_since(pod, scheduled),
        placed_late_at=_placed_late_at(pod, scheduled),
    )


def _is_lost(conditions: Mapping[str, Object]) -> bool:
    """Whether the pod's node does not answer.

    The node lifecycle controller then sets only the condition Ready to False. The kubelet, which would give a reason
    and also set ContainersReady, no longer reports (``pkg/controller/util/node``, MarkPodsNotReady).
    """
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    explained = ready.get("reason") or ready.get("message")
    if ready.get("status") == "Unknown" or ready.get("reason") in _NODE_REASONS:
        return True
    return ready.get("status") == "False" and not explained and containers.get("status") == "True"


def _unstarted_since(pod: Object, scheduled: Object) -> float | None:
    """Return when a pod got its node. Returns None once its kubelet has written a status."""
    is_waiting = scheduled.get("status") == "True" and not pod.get("status", {}).get("startTime")
    return seconds_of(scheduled.get("lastTransitionTime")) if is_waiting else None


def _placed_late_at(pod: Object, scheduled: Object) -> float:
    """Return when a pod got its node, if it waited longer than a scheduler needs; else 0."""
    placed_at = seconds_of(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else 0.0
    return placed_at if placed_at > seconds_of(pod["metadata"].get("creationTimestamp")) + _SCHEDULING_S else 0.0


def _is_unready(ready: Object) -> bool:
    return ready.get("status") == "False" and bool(ready.get("lastTransitionTime"))


def named_ports(spec: Object) -> Iterator[tuple[str, int]]:
    """Yield the named ports of the containers that run as long as the pod, including native sidecars."""
    for container in (*spec.get("containers", []), *sidecars_of(spec)):
        for port in container.get("ports", []):
            if "name" in port:
                yield port["name"], port["containerPort"]


def _containers(pod: Object, own: Collection[str]) -> Iterator[ContainerFacts]:
    """Read all containers, init containers first: they can keep the others from starting."""
    changes = max(0, pod["metadata"].get("generation", 1) - 1)
    written = {c["name"]: c for kind in ("initContainers", "containers") for c in pod.get("spec", {}).get(kind, [])}
    inits = {c["name"] for c in pod.get("spec", {}).get("initContainers", []) if c.get("restartPolicy") != "Always"}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in pod.get("status", {}).get(kind, []):
            name = status["name"]
            read = _container(status, written.get(name, {}), changes)
            yield read._replace(is_init=name in inits, is_added=bool(own) and name not in own)


def _container(status: dict[str, Any], written: dict[str, Any], changes: int) -> ContainerFacts:
    state, last = status.get("state", {}), status.get("lastState", {})
    waiting = state.get("waiting", {})
    ended = state.get("terminated") or last.get("terminated") or {}
    return ContainerFacts(
        name=status["name"],
        restarts=_restarts(status, ended),
        by_node=max(_restarts_by_node(status, ended), _restarts_by_resizes(status, written, changes)),
        waiting=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        ended=ended.get("reason", ""),
        exit_code=ended.get("exitCode"),
        start_error=ended.get("message", "") if ended.get("reason") in _NOT_STARTED else "",
        image=written.get("image", ""),
        digest=found[1] if (found := _DIGEST.search(status.get("imageID", ""))) else "",
        ready=status.get("ready", False),
        memory_limit=str(written.get("resources", {}).get("limits", {}).get("memory", "")),
    )


def _restarts(status: dict[str, Any], ended: dict[str, Any]) -> int:
    """Return how often a container restarted after it had ended.

    If the kubelet dies between a container's creation and its start, it creates the container again and counts that
    (its ``ShouldContainerBeRestarted``). Such a container has no end, and is no evidence about its version.
    """
    count: int = status.get("restartCount", 0)
    return count if ended else max(count - 1, 0)


def _restarts_by_resizes(status: dict[str, Any], written: dict[str, Any], changes: int) -> int:
    """Return how many restarts may come from resizes of the running pod: ``changes`` of its spec since it was made.

    A person or an autoscaler resizes it in place, and its ``resizePolicy`` may demand a restart for that.
    """
    restarts = any(each.get("restartPolicy") == "RestartContainer" for each in written.get("resizePolicy", []))
    return min(changes, status.get("restartCount", 0)) if restarts else 0


def _restarts_by_node(status: dict[str, Any], ended: dict[str, Any]) -> int:
    """Return how many restarts say nothing about the container's version.

    Its node ended it: it was restarted, or its kubelet or runtime was. Or the container never ran, for a reason that
    may pass: it failed in the same way before. If it ran and ended, that is the latest end.
    """
    restarts: int = status.get("restartCount", 0)
    message = ended.get("message", "")
    if ended.get("reason") in _NOT_STARTED:
        return restarts if message and can_start(message) else 0
    return min(restarts, 1) if ended.get("reason") in _ENDED_BY_NODE else 0
