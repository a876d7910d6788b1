"""A target of whatever kind, in what rules ask of it; and how the kinds differ."""

from collections.abc import Iterator, Mapping
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
    """Where the pod's spec stands in the target's spec."""
    patch: tuple[str, ...]
    """Where it stands in a spec's ``change.patch``."""
    spec: Object
    """The pod's spec that is judged: with a spec, the one that its change makes."""
    labels: Mapping[str, str]
    """Of the pods; those that the target's controller gives them too."""
    serving: frozenset[str]
    """The names of its containers that serve users."""
    old: Stopping
    new: Stopping
    demand: Demand
    number: int = 1
    """So many pods of it are one replica."""
    old_class: str = ""
    """The priority class of the pods that run; empty where they name none. That of the new ones is in ``spec``."""

    def containers(self) -> Iterator[Object]:
        """Yield the containers that serve."""
        yield from (c for c in self.spec.get("containers", []) if c["name"] in self.serving)

    def field(self, container: str, kind: str = "containers", field: str = "") -> str:
        """Return the path of a container's field, for a person."""
        return f"{'.'.join(('spec', *self.path))}.{kind}[{container}]{'.' + field if field else ''}"


class Own(NamedTuple):
    """How the controller of a kind rolls by itself, by fields of the target's spec."""

    rolling: tuple[str, ...] = ()
    """Where its budget stands; empty where it has none of its own."""
    surge: Amount | None = None
    """Its default; none where there is never one more."""
    unavailable: Amount = 1
    deadline: bool = False
    """Whether it has ``progressDeadlineSeconds``."""
    history: bool = False
    """Whether it has ``revisionHistoryLimit``."""
    merges: bool = False
    """Whether it is a custom resource: it is patched by JSON merge, which replaces lists whole."""


KINDS: Mapping[str, Own] = {
    "Deployment": Own(("strategy", "rollingUpdate"), "25%", "25%", deadline=True, history=True),
    "StatefulSet": Own(("updateStrategy", "rollingUpdate"), history=True),
    "LeaderWorkerSet": Own(("rolloutStrategy", "rollingUpdateConfiguration"), 0, merges=True),
}
"""The kinds that are rolled by a budget; a custom resource of any other is its operator's."""
_OPERATED = Own(merges=True)


@dataclass(frozen=True, kw_only=True)
class LintSubject:
    """A target as it is when no rollout holds it, with the pod templates that are judged."""

    kind: str
    found: Object
    replicas: int
    pods: tuple[PodTemplate, ...]
    """The one whose pods serve first."""
    selector: Object
    """What selects all of them."""
    untried: str = ""
    """Why the template that the change makes is not known; empty where it is."""

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
