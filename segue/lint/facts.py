"""What lint is told: plain objects as the API server gives them, and amounts that are parsed already."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from segue.budget import Budget, resolve_budget
from segue.lint.findings import How, Mend, Object, Ref
from segue.room import Demand, Node, Quota, Room, room_for
from segue.spec import Rollout, Rules, Strategy
from segue.stopping import Stopping

DEFAULT_SHARE = "25%"
"""What a Deployment's maxSurge and maxUnavailable are where they are not written."""


class Needs(NamedTuple):
    """The names of what a caller's rights may not reach; ``Facts.unknown`` says why."""

    template: str = "template"
    budgets: str = "poddisruptionbudgets"
    autoscalers: str = "horizontalpodautoscalers"
    nodes: str = "nodes"
    quotas: str = "resourcequotas"


NEEDS = Needs()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A target, all that stands around it, and the spec where one is given."""

    deployment: Object
    """As it is when no rollout holds it."""
    template: Object
    """The pod template that is judged: with a spec, the one that its change makes."""
    old: Stopping
    new: Stopping
    demand: Demand
    rollout: Rollout | None = None
    digests: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By container and image: the digest that all its running replicas have."""
    budgets: Sequence[Object] = ()
    autoscalers: Sequence[Object] = ()
    nodes: Sequence[Node] = ()
    quotas: Sequence[Quota] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    """By what could not be read (``NEEDS``): why."""

    @property
    def ref(self) -> Ref:
        """The target."""
        metadata = self.deployment["metadata"]
        return Ref(kind="Deployment", namespace=metadata["namespace"], name=metadata["name"])

    @property
    def spec_ref(self) -> Ref:
        """The spec."""
        if self.rollout is None:
            raise ValueError("there is no spec")
        return Ref(kind="Rollout", namespace=self.ref.namespace, name=self.rollout.metadata.name)

    @property
    def rules(self) -> Rules | None:
        """How the spec rolls."""
        return self.rollout.spec.rules if self.rollout else None

    @property
    def room(self) -> Room:
        """What is left for more replicas."""
        return room_for(self.demand, self.nodes if NEEDS.nodes not in self.unknown else None, self.quotas)

    @property
    def replicas(self) -> int:
        """How many the target is told to run."""
        return int(self.deployment["spec"].get("replicas", 1))

    @property
    def is_recreated(self) -> bool:
        """Whether the target's own controller removes all before it makes any, and no spec says otherwise."""
        return self.rollout is None and self.deployment["spec"].get("strategy", {}).get("type") == "Recreate"

    @property
    def budget(self) -> Budget:
        """The spec's budget, or else that of the target's own strategy."""
        if self.rollout is not None:
            return resolve_budget(self.rollout.spec.strategy, self.replicas)
        if self.is_recreated:
            return Budget(self.replicas, 0, self.replicas, self.replicas)
        rolling = self.deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        surge, unavailable = (rolling.get(name, DEFAULT_SHARE) for name in ("maxSurge", "maxUnavailable"))
        # Not validated: the API server took it, and it takes more than a spec may say.
        own = Strategy.model_construct(max_surge=surge, max_unavailable=unavailable, step=None)
        return resolve_budget(own, self.replicas)

    def containers(self) -> Iterator[Object]:
        """Yield the containers that serve."""
        serving = {hook.container for hook in self.new.hooks}
        yield from (c for c in self.template["spec"].get("containers", []) if c["name"] in serving)

    def patched(self, spec: Object, note: str = "") -> Mend:
        """Return a patch of the target's own spec."""
        return Mend(how=How.PATCH, object=self.ref, body={"spec": spec}, note=note)

    def respecified(self, spec: Object, note: str = "") -> Mend:
        """Return a change of the spec file."""
        return Mend(how=How.SPEC, object=self.spec_ref, body={"spec": spec}, note=note)

    def repodded(self, pod: Object, note: str = "") -> Mend:
        """Return a change of the pod: in the spec where that patches the template, or else of the target."""
        if self.rollout is not None and self.rollout.spec.change.patch is not None:
            return self.respecified({"change": {"patch": {"spec": pod}}}, note)
        return self.patched({"template": {"spec": pod}}, note)

    def recontained(self, container: Object, fields: Object, note: str = "") -> Mend:
        """Return a change of one container."""
        return self.repodded({"containers": [{"name": container["name"], **fields}]}, note)
