"""Whether the controller of an object acts: what it has observed of the object's spec. Pure."""

from collections.abc import Iterable

from activities.cluster import Object
from activities.ended_pods import seconds_of

IDLE_S = 10.0
"""A controller that runs observes a change of the spec within so many seconds."""


def is_observed(found: Object) -> bool:
    """Whether an object's controller has observed its present spec."""
    seen: int = found.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= found["metadata"].get("generation", 0))


def never_observes(found: Object) -> bool:
    """Whether a controller writes a status, but not the generation that it has observed."""
    status = found.get("status", {})
    return bool(status.get("replicas")) and "observedGeneration" not in status


def idle(objects: Iterable[Object], now: float, kind: str = "StatefulSet") -> str:
    """Return which object's controller has not acted on its spec for ``IDLE_S``; empty if each has.

    ``kind`` is that of objects from a list, which do not name it.
    """
    for found in objects:
        changes = found["metadata"].get("managedFields", [])
        changed_at = max((seconds_of(m.get("time")) for m in changes if m.get("subresource") != "status"), default=now)
        if not is_observed(found) and now >= changed_at + IDLE_S:
            what = f"{str(found.get('kind', kind)).lower()} {found['metadata']['name']}"
            since = f"for {now - changed_at:.0f} s"
            fix = "check that this controller runs, and what it logs"
            return f"the controller of {what} has not acted on its spec {since}: {fix}"
    return ""
