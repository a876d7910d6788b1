"""Reads what a Rollout in Kubernetes requests. Pure."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from segue import contract
from segue.errors import Refused
from segue.rollout_object import FINALIZER, RETRY
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

    @property
    def by(self) -> str:
        """The requester, in reports."""
        return f"Rollout {self.namespace}/{self.name} generation {self.generation}"


def asked(found: Object, cluster: str, *, is_named: bool = False) -> Asked:
    """Return what an object requests, as the API server returned it.

    ``cluster`` is the one that has the object, and so its target. With ``is_named``, the cluster has workers of its
    own, which roll the target also if the object does not name the cluster.
    """
    metadata, spec = found["metadata"], found.get("spec") or {}
    rollout, standing, refusal = _read(found, cluster, is_named=is_named)
    return Asked(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 0)),
        is_deleted="deletionTimestamp" in metadata,
        is_claimed=FINALIZER in metadata.get("finalizers", []),
        marks=_marks(spec, metadata.get("annotations", {}).get(RETRY, "")),
        standing=standing,
        rollout=rollout,
        workflow_id=contract.workflow_id(cluster, rollout.spec.target) if rollout else "",
        refusal=refusal,
    )


def status_of(found: Object) -> ObjectStatus:
    """Return the status that the controller wrote; an empty one if there is none that it can read."""
    try:
        return ObjectStatus.model_validate(found.get("status") or {})
    except ValidationError:
        return ObjectStatus()


def _read(found: Object, cluster: str, *, is_named: bool) -> tuple[Rollout | None, Standing, str]:
    metadata = found["metadata"]
    own = {"name": metadata["name"], "namespace": metadata["namespace"]}
    document = {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": own, "spec": found.get("spec")}
    try:
        rollout, standing = read_object(document)
    except Refused as error:
        return None, _standing_alone(found.get("spec")), str(error)
    named = rollout.spec.target.cluster
    if named not in {None, cluster}:
        fix = f"leave it out, or apply this object in cluster {named}"
        why = f"is not cluster {cluster}, which has this object"
        return None, standing, str(Refused(why, field="spec.target.cluster", value=named, fix=fix))
    return rollout.in_cluster(cluster) if is_named else rollout, standing, ""


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
