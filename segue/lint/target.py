"""A target of any kind, as the rules read it, and how the kinds differ."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from segue.lint.findings import Object
from segue.merging import at
from segue.room import Demand
from segue.stopping import Stopping
from segue.units import Amount


class PodTemplate(NamedTuple):
    """One of a target's pod templates."""

    path: tuple[str, ...]
    """The path of the pod's spec in the target's spec."""
    patch: tuple[str, ...]
    """Its path in a spec's ``change.patch``."""
    spec: Object
    """The pod's spec to check: with a spec, the one that its change makes."""
    labels: Mapping[str, str]
    """The labels of the pods, including those that the target's controller adds."""
    serving: frozenset[str]
    """The names of its containers that serve users."""
    old: Stopping
    new: Stopping
    demand: Demand
    number: int = 1
    """How many of its pods one replica has."""
    old_class: str = ""
    """The priority class of the running pods; empty when they name none. ``spec`` has that of the new ones."""
    old_tolerations: tuple[Object, ...] = ()
    """The tolerations in the template of the running pods; admission may have added others to the pods."""

    def tolerating(self, running: Iterable[Object]) -> "PodTemplate":
        """Return the same with the tolerations that admission added to running pods, by their specs.

        It adds some for accelerators (ExtendedResourceToleration, as on GKE; a webhook): the template has none. Those
        for a limited time, which every pod gets for failures of its node, do not count.
        """
        own = (*self.old_tolerations, *self.demand.tolerations)
        there = (each for spec in running for each in spec.get("tolerations", []) if "tolerationSeconds" not in each)
        found = (each for each in there if each not in own)
        added = {json.dumps(each, sort_keys=True): each for each in found}
        tolerations = (*self.demand.tolerations, *added.values())
        return self._replace(demand=self.demand.model_copy(update={"tolerations": tolerations}))

    def containers(self) -> Iterator[Object]:
        """Yield the containers that serve."""
        yield from (c for c in self.spec.get("containers", []) if c["name"] in self.serving)

    def field(self, container: str, kind: str = "containers", field: str = "") -> str:
        """Return the path of a container's field, for a person."""
        return f"{'.'.join(('spec', *self.path))}.{kind}[{container}]{'.' + field if field else ''}"


class Own(NamedTuple):
    """How the controller of a kind rolls by itself, by fields of the target's spec."""

    rolling: tuple[str, ...] = ()
    """The path of its budget; empty when it has none of its own."""
    surge: Amount | None = None
    """Its default; None when the kind never surges."""
    unavailable: Amount = 1
    deadline: bool = False
    """Whether it has ``progressDeadlineSeconds``."""
    history: bool = False
    """Whether it has ``revisionHistoryLimit``."""
    merges: bool = False
    """Whether it is a custom resource: a JSON merge patch changes it, which replaces whole lists."""


KINDS: Mapping[str, Own] = {
    "Deployment": Own(("strategy", "rollingUpdate"), "25%", "25%", deadline=True, history=True),
    "StatefulSet": Own(("updateStrategy", "rollingUpdate"), history=True),
    "LeaderWorkerSet": Own(("rolloutStrategy", "rollingUpdateConfiguration"), 0, merges=True),
}
"""The kinds that roll by a budget; the operator rolls a custom resource of any other kind."""
_OPERATED = Own(merges=True)


@dataclass(frozen=True, kw_only=True)
class LintSubject:
    """A target as it is when no rollout holds it, with the pod templates to check."""

    kind: str
    found: Object
    replicas: int
    pods: tuple[PodTemplate, ...]
    """The template whose pods serve comes first."""
    selector: Object
    """The selector of all its pods."""
    untried: str = ""
    """Why the template that the change makes is not known; empty when it is known."""

    @property
    def own(self) -> Own:
        """How its controller rolls by itself."""
        return KINDS.get(self.kind, _OPERATED)

    @property
    def spec(self) -> Object:
        """Its spec."""
        spec: Object = self.found["spec"]
        return spec

    @property
    def rolls(self) -> bool:
        """Whether its own controller replaces replicas when the template changes."""
        return bool(self.own.rolling) and at(self.spec, (*self.own.rolling[:1], "type")) != "OnDelete"
