"""Reads what a Rollout in Kubernetes requests. Pure."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from segue import contract
from segue.errors import Refused
from segue.rollout_object import FINALIZER, RETRY
from segue.rollout_object.orders import BY, EDIT, OBJECT, AnnotatedOrder, orders_of, person, stamp_of
from segue.rollout_object.status import Marks, ObjectStatus
from segue.spec import OnDelete, OwnProfile, Rollout, Standing, named_profile, read_object, without_rules
from segue.spec.refusals import NamedProfile
from segue.spec.standing import FIELDS

Object = dict[str, Any]


@dataclass(frozen=True)
class DesiredRollout:
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
    profile: NamedProfile | None = None
    """The profile of a team that it names; None for a built-in one."""
    is_bare: bool = False
    """Whether ``rollout`` has only target and change: the request was handled, with the profile as it was then."""
    orders: tuple[AnnotatedOrder, ...] = ()
    """What its annotations order."""
    recorded_run: str = ""
    """The run that its status records."""
    author: str = ""
    """Who wrote the spec, by the object's stamp; empty if it names nobody. The controller checks who guards it."""

    @property
    def object_name(self) -> str:
        """The object at any generation: the beginning of ``by``."""
        return f"{OBJECT}{self.namespace}/{self.name}"

    @property
    def by(self) -> str:
        """The requester, in reports."""
        return f"{self.object_name} generation {self.generation}"

    @property
    def chosen_by(self) -> str:
        """The requester of a start or a retarget, in reports: with the person who wrote the spec."""
        return f"{self.by}{BY}{person(self.author)}" if self.author else self.by

    def is_requester(self, who: str) -> bool:
        """Whether a request in a report is that of this object at this generation, whoever wrote it."""
        return who == self.by or who.startswith(f"{self.by}{BY}")


def desired_rollout(
    found: Object, cluster: str, own: OwnProfile | str | None = None, *, is_named: bool = False
) -> DesiredRollout:
    """Return what an object requests, as the API server returned it.

    ``cluster`` is the one that has the object, and so its target. With ``is_named``, the cluster has workers of its
    own, which roll the target also if the object does not name the cluster.

    ``own`` is the profile of a team that it names, or why that cannot be used. If it is None, a request that was
    handled needs none: a later change of the profile does not change it. Any other one is refused.
    """
    metadata, spec = found["metadata"], found.get("spec") or {}
    annotations = metadata.get("annotations", {})
    recorded = status_of(found)
    # Each attempt is another request: Temporal answers a repeated one with the run that was refused.
    marks = _marks(spec, annotations.get(RETRY, "") + (f"#{recorded.retries}" if recorded.retries else ""))
    known = recorded.handled
    document = _document(found)
    named = named_profile(document)
    is_bare = named is not None and own is None and known is not None and known.is_for(marks)
    if isinstance(own, str):
        rollout, standing, refusal = None, _standing_alone(spec), own
    else:
        rollout, standing, refusal = _read(document, own, is_bare=is_bare)
    if rollout is not None and not refusal:
        rollout, refusal = _placed(rollout, cluster, is_named=is_named)
    return DesiredRollout(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 0)),
        is_deleted="deletionTimestamp" in metadata,
        is_claimed=FINALIZER in metadata.get("finalizers", []),
        marks=marks,
        standing=standing,
        rollout=rollout,
        workflow_id=contract.workflow_id(cluster, rollout.spec.target) if rollout else "",
        refusal=refusal,
        profile=named,
        is_bare=is_bare,
        orders=orders_of(annotations),
        recorded_run=recorded.run_id,
        author=annotations.get(stamp_of(EDIT), ""),
    )


def status_of(found: Object) -> ObjectStatus:
    """Return the status that the controller wrote; an empty one if there is none that it can read."""
    try:
        return ObjectStatus.model_validate(found.get("status") or {})
    except ValidationError:
        return ObjectStatus()


def _document(found: Object) -> Object:
    metadata = found["metadata"]
    own = {"name": metadata["name"], "namespace": metadata["namespace"]}
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": own, "spec": found.get("spec")}


def _read(document: Object, own: OwnProfile | None, *, is_bare: bool) -> tuple[Rollout | None, Standing, str]:
    try:
        rollout, standing = read_object(without_rules(document) if is_bare else document, own=own)
    except Refused as error:
        return None, _standing_alone(document.get("spec")), str(error)
    return rollout, standing, ""


def _placed(rollout: Rollout, cluster: str, *, is_named: bool) -> tuple[Rollout | None, str]:
    """Return the rollout in the object's cluster, or why it is refused: an object rolls only beside itself."""
    named = rollout.spec.target.cluster
    if named not in {None, cluster}:
        fix = f"leave it out, or apply this object in cluster {named}"
        why = f"is not cluster {cluster}, which has this object"
        return None, str(Refused(why, field="spec.target.cluster", value=named, fix=fix))
    return (rollout.in_cluster(cluster) if is_named else rollout), ""


def _standing_alone(spec: Any) -> Standing:
    """Return an object's own fields if the rest of its spec is refused: a deletion and a pause still obey them."""
    given = spec if isinstance(spec, dict) else {}
    leaves = given.get("onDelete") == OnDelete.LEAVE
    return Standing(on_delete=OnDelete.LEAVE if leaves else OnDelete.ABORT, paused=given.get("paused") is True)


def _marks(spec: Object, retry: str) -> Marks:
    rules = {name: value for name, value in spec.items() if name not in {"target", "change", "strategy", *FIELDS}}
    return Marks(
        change=_hash([spec.get("target"), spec.get("change")]),
        strategy=_hash(spec.get("strategy")),
        rules=_hash([rules, retry]),
    )


def _hash(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
