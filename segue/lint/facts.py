"""The input of lint: plain objects from the API server, and parsed amounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from segue.budget import Budget, resolve_budget
from segue.lint.findings import How, Mend, Object, Ref
from segue.lint.target import LintSubject, PodTemplate
from segue.merging import at, difference, merged_by_name, nested
from segue.room import Node, Quota, Room, room_for_groups
from segue.spec import Rollout, Rules, Strategy


class Needs(NamedTuple):
    """The names of what a caller may have no right to read; ``Facts.unknown`` has the reason."""

    template: str = "template"
    budgets: str = "poddisruptionbudgets"
    autoscalers: str = "horizontalpodautoscalers"
    nodes: str = "nodes"
    quotas: str = "resourcequotas"
    priorities: str = "priorityclasses"
    claims: str = "persistentvolumeclaims"
    deployments: str = "deployments"


NEEDS = Needs()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A target, the objects around it, and the spec if one is given."""

    target: LintSubject
    rollout: Rollout | None = None
    digests: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By container and image: the digest that all its running replicas have."""
    budgets: Sequence[Object] = ()
    autoscalers: Sequence[Object] = ()
    deployments: Sequence[Object] = ()
    """All of the namespace."""
    nodes: Sequence[Node] = ()
    quotas: Sequence[Quota] = ()
    priorities: Mapping[str, int] = field(default_factory=dict)
    """The values of the known PriorityClasses; the empty name has that of pods without a class."""
    never_preempting: frozenset[str] = frozenset()
    """The PriorityClasses whose pods wait for room; the empty name stands for pods without a class."""
    claims: Sequence[Object] = ()
    """The PersistentVolumeClaims of the namespace."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why something could not be read, by its name in ``NEEDS``."""

    @property
    def ref(self) -> Ref:
        """The target."""
        metadata = self.target.found["metadata"]
        return Ref(kind=self.target.kind, namespace=metadata["namespace"], name=metadata["name"])

    @property
    def spec_ref(self) -> Ref:
        """The spec."""
        if self.rollout is None:
            raise ValueError("there is no spec")
        return Ref(kind="Rollout", namespace=self.ref.namespace, name=self.rollout.metadata.name)

    @property
    def rules(self) -> Rules | None:
        """The rules of the spec; None without a spec."""
        return self.rollout.spec.rules if self.rollout else None

    @property
    def replicas(self) -> int:
        """The number of replicas that the target requests."""
        return self.target.replicas

    @property
    def pods(self) -> tuple[PodTemplate, ...]:
        """Its pod templates, the one whose pods serve first."""
        return self.target.pods

    @property
    def room(self) -> Room:
        """What is left for more replicas."""
        nodes = self.nodes if NEEDS.nodes not in self.unknown else None
        return room_for_groups([(each.demand, each.number) for each in self.pods], nodes, self.quotas)

    @property
    def deadline_s(self) -> float | None:
        """How long a rollout may make no progress; None when neither spec nor target sets it."""
        if self.rules:
            return self.rules.readiness.deadline.total_seconds()
        return float(self.target.spec.get("progressDeadlineSeconds", 600)) if self.target.own.deadline else None

    @property
    def is_recreated(self) -> bool:
        """Whether there is no spec, and the target's own controller removes all replicas before it makes any."""
        return self.rollout is None and at(self.target.spec, ("strategy", "type")) == "Recreate"

    @property
    def can_surge(self) -> bool:
        """Whether an extra replica can run for a while."""
        if self.rollout is not None:
            return self.rollout.spec.target.surges(stops=bool(self.rollout.spec.strategy.waypoints))
        return self.target.own.surge is not None

    @property
    def budget(self) -> Budget | None:
        """The spec's budget, or else that of the target's own strategy; None when neither has one."""
        own = self.target.own
        if not own.rolling or not self.replicas:
            return None
        if self.rollout is not None:
            return resolve_budget(self.rollout.spec.strategy, self.replicas)
        if self.is_recreated:
            return Budget(self.replicas, 0, self.replicas, self.replicas)
        if not self.target.rolls:
            return None
        rolling = at(self.target.spec, own.rolling) or {}
        surge, unavailable = rolling.get("maxSurge", own.surge or 0), rolling.get("maxUnavailable", own.unavailable)
        # Not validated: the API server accepts more than a spec may have.
        written = Strategy.model_construct(max_surge=surge, max_unavailable=unavailable, step=None)
        return resolve_budget(written, self.replicas)

    def rolling(self, field: str) -> str:
        """Return the path of a field of the target's own budget, for a person."""
        return ".".join(("spec", *self.target.own.rolling, field))

    def rebudgeted(self, **budget: int) -> Object:
        """Return the fields of the target's spec that give it another budget of its own."""
        way: Object = nested(self.target.own.rolling, budget)
        return merged_by_name(way, {"strategy": {"type": "RollingUpdate"}}) if self.is_recreated else way

    def patched(self, spec: Object, note: str = "") -> Mend:
        """Return a patch of the target's own spec."""
        if not self.target.own.merges:
            return Mend(how=How.PATCH, object=self.ref, body={"spec": spec}, note=note)
        whole = difference(self.target.spec, merged_by_name(self.target.spec, spec))
        notes = (note, "it replaces whole lists: lint again before the next fix" if _has_list(whole) else "")
        return Mend(how=How.MERGE, object=self.ref, body={"spec": whole}, note="; ".join(filter(None, notes)))

    def respecified(self, spec: Object, note: str = "") -> Mend:
        """Return a change of the spec file."""
        return Mend(how=How.SPEC, object=self.spec_ref, body={"spec": spec}, note=note)

    def repodded(self, pods: PodTemplate, pod: Object, note: str = "") -> Mend:
        """Return a change of the pod: in the spec if that patches the template, or else of the target."""
        if self.rollout is None or self.rollout.spec.change.patch is None:
            return self.patched(nested(pods.path, pod), note)
        if self.target.own.merges:
            pod = difference(pods.spec, merged_by_name(pods.spec, pod))
        return self.respecified({"change": {"patch": nested(pods.patch, pod)}}, note)

    def recontained(self, pods: PodTemplate, container: Object, fields: Object, note: str = "") -> Mend:
        """Return a change of one container."""
        return self.repodded(pods, {"containers": [{"name": container["name"], **fields}]}, note)


def _has_list(patch: Object) -> bool:
    return any(isinstance(v, list) or (isinstance(v, dict) and _has_list(v)) for v in patch.values())
