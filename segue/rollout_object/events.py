"""Makes the Kubernetes Events of a Rollout, about the object and about its target. Pure.

``found`` is the object before its status was replaced: its version makes the name of an event unique.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from segue.rollout_object import GROUP, KIND, VERSION
from segue.rollout_object.orders import AnnotatedOrder
from segue.rollout_object.showing import PROBLEMS
from segue.rollout_object.status import MAX_TEXT, ObjectStatus
from segue.spec import PairTarget, SupervisedTarget, Target

Object = dict[str, Any]

STEP = "ReplicasMoved"
_API_VERSIONS = {
    "Deployment": "apps/v1", "StatefulSet": "apps/v1", "LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1",
}  # fmt: skip


class _Said(NamedTuple):
    """What an event says."""

    reason: str
    message: str
    warns: bool
    about: tuple[str, ...]
    """What makes it differ from other events about the same version of the object."""


def status_events(
    found: Object, before: ObjectStatus, after: ObjectStatus, now: str, target: Object | None = None
) -> list[Object]:
    """Return the events of a new status: of a change of phase, and of a step.

    ``target`` is the reference to the target; None while the rollout has not written to it.
    """
    of_object, metadata = _reference(found), found["metadata"]
    made = []
    for said in _said(before, after):
        made.append(_event(found, of_object, said, f"{after.target or metadata['name']}: {said.message}", now))
        if target is not None:
            made.append(_event(found, target, said, f"Rollout {metadata['name']}: {said.message}", now))
    return made


def order_event(found: Object, order: AnnotatedOrder, answer: str, now: str, *, taken: bool) -> Object:
    """Return the event for the answer to an order."""
    reason = f"{order.verb.capitalize()}{'Taken' if taken else 'Refused'}"
    by = order.by if order.user else "somebody whom nothing proves"
    text = f"{order.verb} by {by}: {answer}"
    if order.unknown is not None:
        reason, text = "AnnotationUnknown", answer
    said = _Said(reason, text, not taken, (order.verb, order.value, order.user))
    return _event(found, _reference(found), said, said.message, now)


def target_reference(target: Target, uid: str) -> Object | None:
    """Return the reference to a target, as events have it.

    Returns None without its uid: `kubectl describe` would not find the event.
    """
    if not uid:
        return None
    kind = "Deployment" if isinstance(target, PairTarget) else target.kind
    if isinstance(target, SupervisedTarget):
        kind = target.resource
    version = {"apiVersion": _API_VERSIONS[kind]} if kind in _API_VERSIONS else {}
    return {**version, "kind": kind, "namespace": target.namespace, "name": target.name, "uid": uid}


def _said(before: ObjectStatus, after: ObjectStatus) -> Iterator[_Said]:
    old, new = (before.old.replicas, after.old.replicas), (before.new.replicas, after.new.replicas)
    is_known = after.run_id == before.run_id and bool(old[0] or new[0])
    if is_known and (old[0] != old[1] or new[0] != new[1]):
        yield _Said(STEP, f"{_counts('old', *old)}, {_counts('new', *new)} replicas", False, (STEP, after.run_id))
    if after.phase != before.phase:
        waits = f"waits for {after.waiting_for}" if after.waiting_for else ""
        text = after.reason or waits or after.change or after.phase
        yield _Said(after.phase, text, after.phase in PROBLEMS, (before.phase, after.phase, after.run_id))


def _counts(side: str, before: int, after: int) -> str:
    return f"{side} {before} → {after}" if before != after else f"{side} {after}"


def _reference(found: Object) -> Object:
    metadata = found["metadata"]
    return {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "namespace": metadata["namespace"], "name": metadata["name"],
        "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
    }  # fmt: skip


def _event(found: Object, about: Object, said: _Said, message: str, now: str) -> Object:
    metadata = found["metadata"]
    unique = "/".join([metadata["uid"], metadata["resourceVersion"], about["uid"], *said.about])
    name = f"{about['name'][:200].rstrip('-.')}.{hashlib.sha256(unique.encode()).hexdigest()[:16]}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": about["namespace"]},
        "involvedObject": about,
        "type": "Warning" if said.warns else "Normal",
        "reason": said.reason,
        "message": message if len(message) <= MAX_TEXT else message[: MAX_TEXT - 1] + "…",
        "source": {"component": "segue"},
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    }  # fmt: skip
