"""The target that a rollout changes: one class for each kind."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from segue.spec.base import ClusterName, Model, Name, ObjectName, wrong


class Target(Model):
    """The target that a rollout changes: what all kinds have in common."""

    numbered: ClassVar[bool] = False
    """Whether its replicas have numbers, and a partition sets from which number on they are new."""

    kind: str
    cluster: ClusterName | None = Field(
        default=None, description="The cluster, by its name in the workers' settings. Null where there is only one."
    )
    namespace: Name = "default"
    name: ObjectName

    @field_validator("kind", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in KINDS:
            raise PydanticCustomError(
                "unknown_kind", "is not a kind of target; write one of: {known}", {"known": ", ".join(KINDS)}
            )
        return value

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies it in its cluster: kind, namespace and name."""
        return self.kind, self.namespace, self.name

    @classmethod
    def surges(cls, *, stops: bool) -> bool:
        """Whether extra replicas can run for a while; ``stops``: whether there are waypoints."""
        return True

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}"
        return f"{self.cluster}/{place}" if self.cluster else place


class DeploymentTarget(Target):
    """One Deployment, in place."""

    kind: Literal["Deployment"] = "Deployment"


class StatefulSetTarget(Target):
    """One StatefulSet, in place: a replica is replaced under its own number, so it cannot surge."""

    numbered: ClassVar[bool] = True

    kind: Literal["StatefulSet"]

    @classmethod
    def surges(cls, *, stops: bool) -> bool:
        """Never."""
        return False


class LeaderWorkerSetTarget(Target):
    """One LeaderWorkerSet, in place: its replicas are groups of pods.

    With waypoints it is held by its partition; without them its own controller rolls, within the spec's budget.
    """

    numbered: ClassVar[bool] = True

    kind: Literal["LeaderWorkerSet"]

    @classmethod
    def surges(cls, *, stops: bool) -> bool:
        """Only without waypoints: surge groups start new, whatever the partition is."""
        return not stops


class SupervisedTarget(Target):
    """A custom resource whose own operator rolls."""

    kind: Literal["Supervised"] = "Supervised"
    resource: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,62}$")] = Field(
        description="InferenceService, ServingRuntime, or a kind that the worker's settings describe."
    )

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies it: two resources may have objects of the same name."""
        return self.resource, self.namespace, self.name


MADE_LABEL = "segue.dev/deployment"
"""The label on the pods and in the selector of a new Deployment that Segue made; the old one's labels stay too."""


class PairTarget(Target):
    """Two Deployments: replicas move from one to the other. The old one gives the name."""

    kind: Literal["DeploymentPair"] = "DeploymentPair"
    name: ObjectName = Field(default="", description="The name of `old`; may be left out.")
    old: ObjectName = Field(description="The Deployment that serves now.")
    new: ObjectName = Field(
        description="The Deployment that is to serve. Segue makes it from the old one if it does not exist."
    )

    @model_validator(mode="before")
    @classmethod
    def _named_by_old(cls, data: Any) -> Any:
        return {"name": data.get("old"), **data} if isinstance(data, dict) and "old" in data else data

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.old == self.new:
            raise wrong("new", self.new, "is the old one too", "name another Deployment, which need not exist")
        if self.name != self.old:
            raise wrong("name", self.name, f"is not the name of old ({self.old})", "leave it out")
        return self


KINDS: dict[str, type[Target]] = {
    "Deployment": DeploymentTarget,
    "DeploymentPair": PairTarget,
    "StatefulSet": StatefulSetTarget,
    "LeaderWorkerSet": LeaderWorkerSetTarget,
    "Supervised": SupervisedTarget,
}
"""Every kind of target, by the name that a spec gives it."""


def kind_of(given: Any) -> str:
    """Return the kind that a spec names; Deployment when it names none or an unknown one."""
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return kind if isinstance(kind, str) and kind in KINDS else "Deployment"  # whose validation then reports the error


AnyTarget = Annotated[
    Annotated[DeploymentTarget, Tag("Deployment")]
    | Annotated[PairTarget, Tag("DeploymentPair")]
    | Annotated[StatefulSetTarget, Tag("StatefulSet")]
    | Annotated[LeaderWorkerSetTarget, Tag("LeaderWorkerSet")]
    | Annotated[SupervisedTarget, Tag("Supervised")],
    Discriminator(kind_of),
]
