"""Reads pods that ended or were disrupted. Some are removed at once, so the watch keeps them too."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from activities.cluster import Object
from segue.replica import Ended


class Gone(NamedTuple):
    """A pod that was removed."""

    pod: Object
    """The pod as last observed."""
    at: float
    """When the removal was observed: seconds since the epoch."""


def has_ended(pod: Object) -> bool:
    """Whether a pod failed or was disrupted without its controller stopping it."""
    is_failed = pod.get("status", {}).get("phase") == "Failed" and "deletionTimestamp" not in pod["metadata"]
    return is_failed or bool(_disruption(pod))


def _disruption(pod: Object) -> Object:
    """Return the condition that the pod is disrupted (preemption, eviction, taint); empty if it is not."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), {})


def read_ended(there: Iterable[Object], gone: Iterable[Gone]) -> tuple[Ended, ...]:
    """Return the ended pods of one version, of its present and removed pods."""
    left = [_ended(pod, is_left=True) for pod in there if has_ended(pod)]
    return (*left, *(_ended(each.pod, is_left=False) for each in gone if has_ended(each.pod)))


def _ended(pod: Object, *, is_left: bool) -> Ended:
    metadata, status, disruption = pod["metadata"], pod["status"], _disruption(pod)
    return Ended(
        name=metadata["name"],
        reason=status.get("reason", ""),
        message=status.get("message") or disruption.get("message", ""),
        disruption=disruption.get("reason", ""),
        made_at=seconds_of(metadata.get("creationTimestamp")),
        is_left=is_left and "deletionTimestamp" not in metadata,
        disrupted_at=seconds_of(disruption.get("lastTransitionTime")),
    )


def seconds_of(timestamp: str | None) -> float:
    """Return an API server's timestamp (whole seconds) in seconds since the epoch; 0 without one.

    A condition without its time has always had its status.
    """
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
