"""Reads what a Rollout in Kubernetes requests. Pure."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from segue import contract
from segue.errors import Refused
from segue.rollout_object import FINALIZER, RETRY
from segue.rollout_object.orders import Order, orders_of
from segue.rollout_object.status import Marks, ObjectStatus
from segue.spec import OnDelete, Rollout, Standing, read_object
from segue.spec.standing import FIELDS

Object = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The request of one object at one generation."""

    uid: str
    namespace: str
    name: str
    generation: int
    is_deleted: bool
    """Whether it is being deleted: it stays until its finalizers are gone."""
    is_claimed: bool
    """Whether it has the controller's finalizer."""
    marks: Marks
    standing: Standing
    rollout: Rollout | None
    """None if the spec is refused."""
    workflow_id: str
    """The id of its rollout's workflow; empty if the spec is refused."""
    refusal: str
    """Why the spec is refused, with field, value and fix; empty if it is not."""
    orders: tuple[Order, ...] = ()
    """What its annotations order."""

    @property
    def by(self) -> str:
        """The requester, in reports."""
        return f"Rollout {self.namespace}/{self.name} generation {self.generation}"


def asked(found: Object, cluster: str) -> Asked:
    """Return what an object requests, as the API server returned it."""
    metadata, spec = found["metadata"], found.get("spec") or {}
    rollout, standing, refusal = _read(found)
    annotations = metadata.get("annotations", {})
    return Asked(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 0)),
        is_deleted="deletionTimestamp" in metadata,
        is_claimed=FINALIZER in metadata.get("finalizers", []),
        marks=_marks(spec, annotations.get(RETRY, "")),
        standing=standing,
        rollout=rollout,
        workflow_id=contract.workflow_id(cluster, rollout.spec.target) if rollout else "",
        refusal=refusal,
        orders=orders_of(annotations),
    )


def status_of(found: Object) -> ObjectStatus:
    """Return the status that the controller wrote; an empty one if there is none that it can read."""
    try:
        return ObjectStatus.model_validate(found.get("status") or {})
    except ValidationError:
        return ObjectStatus()


def _read(found: Object) -> tuple[Rollout | None, Standing, str]:
    metadata = found["metadata"]
    own = {"name": metadata["name"], "namespace": metadata["namespace"]}
    document = {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": own, "spec": found.get("spec")}
    try:
        rollout, standing = read_object(document)
    except Refused as error:
        return None, _standing_alone(found.get("spec")), str(error)
    return rollout, standing, ""


def _standing_alone(spec: Any) -> Standing:
    """Return an object's own fields if the rest of its spec is refused: a deletion still obeys them."""
    leaves = isinstance(spec, dict) and spec.get("onDelete") == OnDelete.LEAVE
    return Standing(on_delete=OnDelete.LEAVE if leaves else OnDelete.ABORT)


def _marks(spec: Object, retry: str) -> Marks:
    rules = {name: value for name, value in spec.items() if name not in {"target", "change", "strategy", *FIELDS}}
    return Marks(
        change=_hash([spec.get("target"), spec.get("change")]),
        strategy=_hash(spec.get("strategy")),
        rules=_hash([rules, retry]),
    )


def _hash(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
