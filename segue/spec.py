"""The spec: what a person or a pipeline asks for, validated before anything is touched.

Every model is strict and refuses unknown fields, and everything a spec can ask for has a bound: a spec is
input from outside. ``segue schema`` publishes these models as JSON Schema.
"""

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from segue.containerspec import EnvFrom, Resources, refuse_literal_secret
from segue.emptying import Until
from segue.errors import Refused
from segue.gates.loading import LoadFailures
from segue.gates.metrics import MAX_METRICS, Metric
from segue.gates.own import OwnGate
from segue.gates.policy import GatePolicy
from segue.gates.serving import Serving
from segue.lintrule import LintRule
from segue.specmodel import (
    BELOW,
    MAX_CONFIG_BYTES,
    ConfigKey,
    ConfigText,
    EnvName,
    Image,
    Model,
    Name,
    ObjectName,
    Text,
    wrong,
)
from segue.units import Amount, Duration, format_duration

API_VERSION = "segue.dev/v1alpha1"

_ZERO: tuple[Any, ...] = (0, "0%")
_BOTH_WHOLE: dict[str, Any] = {"order": "scaleOutPriority", "maxSurge": "100%", "maxUnavailable": 0}
"""What blueGreen means for the replicas."""
MAX_HOLD = timedelta(days=30)
MAX_LAG = timedelta(minutes=10)
MAX_DEADLINE = timedelta(days=1)
MAX_COPIED_NAME = 242  # with a dash and ten digits within Kubernetes' 253
MAX_GATES = 20
MAX_DESCRIBED = 12
MAX_PART = 253
"""Of a field's path in a message; no name that is taken is longer, but for those of variables."""
MAX_QUIET = timedelta(seconds=30)
QUIET_BEGINS_IN = timedelta(seconds=10)

_NAME_A_CHANGE = "name an image or what else changes (`segue schema` lists it), or give a patch"


class Order(StrEnum):
    """Which side moves first."""

    SCALE_OUT_PRIORITY = "scaleOutPriority"
    """New first: nothing old is taken before a new replica is proven."""
    SCALE_IN_PRIORITY = "scaleInPriority"
    """Old first: no extra accelerator is needed."""
    SCALE_SIMULTANEOUSLY = "scaleSimultaneously"
    """Both at once."""


class Way(StrEnum):
    """How users get from the old side to the new."""

    ROLLING = "rolling"
    """Little by little, as replicas are replaced."""
    BLUE_GREEN = "blueGreen"
    """All at once: the new side is brought to full size without traffic, verified, and then gets all of it."""


class OnFailure(StrEnum):
    """What happens when the new version fails."""

    ROLLBACK = "rollback"
    PAUSE = "pause"


class Autoscaler(StrEnum):
    """What becomes of a HorizontalPodAutoscaler of the target while it is rolled."""

    ADOPT = "adopt"
    """It scales the target, and the rollout follows."""
    HOLD = "hold"
    """It is held at the replicas of now, and has its bounds again at the end, and on a way back at once."""


class Change(Model):
    """What differs between the version that runs and the one that is wanted.

    Either named changes by container, or a strategic-merge ``patch`` of the pod template.
    """

    images: dict[Name, Image] = Field(default_factory=dict, max_length=64)
    env: dict[Name, dict[EnvName, Text | EnvFrom | None]] = Field(
        default_factory=dict, max_length=64, description="By container and variable; null removes a variable."
    )
    args: dict[Name, list[Text]] = Field(default_factory=dict, max_length=64)
    resources: dict[Name, Resources] = Field(default_factory=dict, max_length=64)
    annotations: dict[str, Text | None] = Field(
        default_factory=dict, max_length=128, description="Of the pod template; null removes one."
    )
    config_maps: dict[ObjectName, dict[ConfigKey, ConfigText]] = Field(
        default_factory=dict,
        alias="configMaps",
        max_length=16,
        description="By the name that the template refers to: the whole new data, as an immutable copy.",
    )
    secrets: dict[ObjectName, ObjectName] = Field(
        default_factory=dict, max_length=16, description="References to the one Secret become references to the other."
    )
    patch: dict[str, Any] | None = Field(default=None, description="Strategic-merge patch of the pod template.")
    revision: int | None = Field(
        default=None, ge=1, description="An earlier revision of the target, to which the named changes are applied."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.patch is not None and self.named:
            raise wrong("patch", "...", "stands beside named changes", "give one or the other")
        for container, variables in self.env.items():
            for name, value in variables.items():
                refuse_literal_secret(f"env.{container}.{name}", name, value)
        size = sum(len((key + text).encode()) for data in self.config_maps.values() for key, text in data.items())
        if size > MAX_CONFIG_BYTES:
            fix = f"keep all of them within {MAX_CONFIG_BYTES:,} bytes together; larger files belong into a volume"
            raise wrong("configMaps", "...", f"have {size:,} bytes", fix)
        for name, data in self.config_maps.items():
            if not data or len(name) > MAX_COPIED_NAME:
                why = "has no data" if not data else "is too long a name for a copy of it"
                fix = "write its data" if not data else f"keep it within {MAX_COPIED_NAME} characters"
                raise wrong(f"configMaps.{name}", "...", why, fix)
            for key, text in data.items():
                refuse_literal_secret(f"configMaps.{name}.{key}", key, text)
        for name, value in _env_literals(self.patch or {}):
            refuse_literal_secret(f"patch: env {name}", name, value)
        return self

    @property
    def named(self) -> bool:
        """Whether any named change is given."""
        named = (self.images, self.args, self.resources, self.annotations, self.config_maps, self.secrets)
        return any((*named, any(self.env.values()), self.revision))

    @property
    def goes_back(self) -> bool:
        """Whether this is an earlier revision as it was, and nothing new."""
        return self.revision is not None and self == Change(revision=self.revision)

    @property
    def described(self) -> str:
        """What changes, in a line for a person. No value of a variable or a configuration is in it."""
        if self.patch is not None:
            return "a patch of the pod template"
        parts = [f"revision {self.revision}"] if self.revision is not None else []
        parts += [f"{container}={image}" for container, image in sorted(self.images.items())]
        parts += [f"env {c}.{name}" for c, variables in sorted(self.env.items()) for name in sorted(variables)]
        for field in ("args", "resources", "annotations", "config_maps"):
            kind = type(self).model_fields[field].alias or field
            parts += [f"{kind} {name}" for name in sorted(getattr(self, field))]
        parts += [f"secrets {name} → {other}" for name, other in sorted(self.secrets.items())]
        more = [f"and {len(parts) - MAX_DESCRIBED} more"] * (len(parts) > MAX_DESCRIBED)
        return ", ".join([*parts[:MAX_DESCRIBED], *more]) or "replicas only"

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes: only a pair whose new Deployment is there already is rolled so."""
        return not self.patch and not self.named

    def refuse_empty(self) -> None:
        """Refuse a change that changes nothing.

        Raises:
            ValueError: when it is empty.
        """
        if self.is_empty:
            raise ValueError(f"is empty; {_NAME_A_CHANGE}")

    @property
    def containers(self) -> set[str]:
        """The names of all containers that the named changes speak of."""
        return {*self.images, *self.env, *self.args, *self.resources}

    def overlaid(self, newer: "Change") -> "Change":
        """Return this change with ``newer`` laid over it, container by container and key by key.

        Raises:
            ValueError: when either is a patch: two patches have no well-defined sum.
        """
        if self.patch is not None or newer.patch is not None:
            raise ValueError("a patch cannot be combined with another change; abort, and start with the new one")
        if newer.revision is not None:
            return newer  # that version as it was, and not with what was wanted since
        names = {*self.env, *newer.env}
        return Change(
            revision=self.revision,
            images={**self.images, **newer.images},
            env={name: {**self.env.get(name, {}), **newer.env.get(name, {})} for name in sorted(names)},
            args={**self.args, **newer.args},
            resources={**self.resources, **newer.resources},
            annotations={**self.annotations, **newer.annotations},
            config_maps={**self.config_maps, **newer.config_maps},
            secrets={**self.secrets, **newer.secrets},
        )


def _env_literals(node: Any) -> list[tuple[str, Any]]:
    """Find every ``{name, value}`` pair of an ``env`` list, at any depth."""
    if isinstance(node, list):
        return [found for item in node for found in _env_literals(item)]
    if not isinstance(node, dict):
        return []
    env = node.get("env")
    own = (
        [(str(e.get("name", "")), e.get("value")) for e in env if isinstance(e, dict)] if isinstance(env, list) else []
    )
    return own + [found for value in node.values() for found in _env_literals(value)]


class Target(Model):
    """The workload that is rolled: what all kinds of targets have."""

    numbered: ClassVar[bool] = False
    """Whether its replicas have numbers, and a partition says from which on they are new."""

    kind: str
    namespace: Name = "default"
    name: ObjectName

    @field_validator("kind", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in KINDS:
            raise PydanticCustomError(
                "unknown_kind", "is no kind of target; write one of: {known}", {"known": ", ".join(KINDS)}
            )
        return value

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it: kind, namespace and name."""
        return self.kind, self.namespace, self.name

    @classmethod
    def surges(cls, *, stops: bool) -> bool:
        """Whether more replicas than before can run for a while; ``stops`` tells whether there are waypoints."""
        return True

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class DeploymentTarget(Target):
    """One Deployment, in place."""

    kind: Literal["Deployment"] = "Deployment"


class StatefulSetTarget(Target):
    """One StatefulSet, in place: a replica is replaced under its own number, so that there is never one more."""

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
        """Only where it is not held: surge groups come up new whatever holds the others."""
        return not stops


class SupervisedTarget(Target):
    """A custom resource whose own operator rolls."""

    kind: Literal["Supervised"] = "Supervised"
    resource: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,62}$")] = Field(
        description="InferenceService, ServingRuntime, or one that the worker's settings describe."
    )

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it: two resources may have objects of one name."""
        return self.resource, self.namespace, self.name


MADE_LABEL = "segue.dev/deployment"
"""On the pods of a new Deployment that was made, and in its selector: the old one's labels are kept beside it."""


class PairTarget(Target):
    """Two Deployments: replicas go from the one to the other. It is named by the old one."""

    kind: Literal["DeploymentPair"] = "DeploymentPair"
    name: ObjectName = Field(default="", description="That of `old`, which need not be said twice.")
    old: ObjectName = Field(description="The Deployment that serves now.")
    new: ObjectName = Field(description="The one that is to serve; made from the old one where it is not there.")

    @model_validator(mode="before")
    @classmethod
    def _named_by_old(cls, data: Any) -> Any:
        return {"name": data.get("old"), **data} if isinstance(data, dict) and "old" in data else data

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.old == self.new:
            raise wrong("new", self.new, "is the old one too", "name another Deployment, which need not be there")
        if self.name != self.old:
            raise wrong("name", self.name, f"is not that of old ({self.old})", "leave it out")
        return self


KINDS: dict[str, type[Target]] = {
    "Deployment": DeploymentTarget,
    "DeploymentPair": PairTarget,
    "StatefulSet": StatefulSetTarget,
    "LeaderWorkerSet": LeaderWorkerSetTarget,
    "Supervised": SupervisedTarget,
}
"""Every kind of target, by the name that a spec gives it."""


def _kind_of(given: Any) -> str:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return kind if kind in KINDS else "Deployment"  # which then says what is wrong with it


AnyTarget = Annotated[
    Annotated[DeploymentTarget, Tag("Deployment")]
    | Annotated[PairTarget, Tag("DeploymentPair")]
    | Annotated[StatefulSetTarget, Tag("StatefulSet")]
    | Annotated[LeaderWorkerSetTarget, Tag("LeaderWorkerSet")]
    | Annotated[SupervisedTarget, Tag("Supervised")],
    Discriminator(_kind_of),
]


class Default(StrEnum):
    """What is taken for a person's answer where nobody gives one."""

    REJECT = "reject"
    APPROVE = "approve"


class Approval(Model):
    """A person is asked, for so long; then the default is taken."""

    expires: Duration = Field(description="How long is waited for an answer, from when the waypoint is reached.")
    default: Default = Field(default=Default.REJECT, strict=False, description="Taken when nobody answered.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.expires <= MAX_HOLD:
            raise wrong("expires", format_duration(self.expires), "is out of range", "write 1s to 720h")
        return self


def _approval_of(given: Any) -> str:
    return "timed" if isinstance(given, dict | Approval) else "plain"


class Waypoint(Model):
    """A number of new replicas at which the rollout stops: to verify, to wait, or to ask a person."""

    at: Amount = Field(description="Count or percentage of new replicas; a percentage rounds up.")
    hold: Duration = timedelta(0)
    approval: Annotated[
        Annotated[bool, Tag("plain")] | Annotated[Approval, Tag("timed")], Discriminator(_approval_of)
    ] = Field(default=False, description="Ask a person; true asks without an end.")
    weight: int | None = Field(
        default=None, ge=0, le=100, description="Percent of the traffic that the new side gets from here on."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.at in (0, "0%"):
            raise wrong("at", self.at, "is where every rollout starts", "write 1 or more")
        if self.hold > MAX_HOLD:
            hold = format_duration(self.hold)
            raise wrong("hold", hold, "is over 30 days", "write a shorter hold, or approval: true")
        return self


class _Leads(Model):
    """What all ways to lead traffic have."""

    lag: Duration = Field(
        default=timedelta(seconds=10),
        description="How long proxies may still send to a side that gets nothing any more; it stays whole.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.lag > MAX_LAG:
            raise wrong("lag", format_duration(self.lag), "is over 10 minutes", "write a shorter time")
        return self


class ByService(_Leads):
    """Traffic goes where a Service's selector points: to one side or to the other."""

    service: ObjectName = Field(description="The Service that users reach; it selects the old side's pods.")
    preview: ObjectName | None = Field(
        default=None, description="A Service that points at the new side during the rollout, for trying it."
    )

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.preview == self.service:
            raise wrong("preview", self.preview, "is the Service that users reach", "name another, or leave it out")
        return self


class RouteServices(Model):
    """The Service of each side."""

    old: ObjectName
    new: ObjectName

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.old == self.new:
            raise wrong("new", self.new, "is the old side's Service too", "give each side a Service of its own")
        return self


class ByRoute(_Leads):
    """Traffic is split by the weights of a Gateway API HTTPRoute's backends."""

    route: ObjectName = Field(description="The HTTPRoute.")
    rule: int = Field(default=0, ge=0, le=15, description="Index of the rule in it; the API allows 16.")
    services: RouteServices


def _traffic_of(given: Any) -> str:
    by_route = "route" in given if isinstance(given, dict) else isinstance(given, ByRoute)
    return "route" if by_route else "service"


Traffic = Annotated[Annotated[ByService, Tag("service")] | Annotated[ByRoute, Tag("route")], Discriminator(_traffic_of)]


class End(Model):
    """Where a rollout of a pair ends: with so many replicas of one side, and the rest of the other."""

    old: Amount | None = Field(default=None, description="Count or percentage that stays; a percentage rounds down.")
    new: Amount | None = Field(default=None, description="Count or percentage that comes; a percentage rounds up.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.old is None) == (self.new is None):
            raise ValueError("give exactly one of old and new: the other side has the rest of the replicas")
        if self.new in _ZERO:
            raise wrong("new", self.new, "is where every rollout starts", "write 1 or more; `segue abort` goes back")
        return self


class Strategy(Model):
    """How the rollout moves. What is not written is chosen to be safe for a model server.

    When neither ``maxSurge`` nor ``maxUnavailable`` is written: scaleOutPriority adds first and never goes below
    the replicas of before (maxSurge = step, or 25%; maxUnavailable 0); the other orders need no extra capacity
    (maxSurge 0; maxUnavailable = step, or 25%). So does every order where the target cannot surge: a StatefulSet.
    ``type: blueGreen`` needs room for both sides (maxSurge 100%).
    """

    type: Way = Field(default=Way.ROLLING, strict=False)
    order: Order = Field(default=Order.SCALE_OUT_PRIORITY, strict=False)
    max_surge: Amount = Field(default="25%", alias="maxSurge")
    max_unavailable: Amount = Field(default=0, alias="maxUnavailable")
    step: int | None = Field(default=None, ge=1, le=100_000, description="Replicas that move at once.")
    waypoints: tuple[Waypoint, ...] = Field(default=(), max_length=50, strict=False)
    traffic: Traffic | None = Field(
        default=None, description="What sends users to a side; without it, one Service covers the replicas of both."
    )
    retain: Duration | None = Field(
        default=None, description="blueGreen: how long the old side stays whole after the switch; 10m by default."
    )
    to: End | None = Field(
        default=None, description="Where it ends, when not with new replicas only: for a DeploymentPair."
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("type") == Way.BLUE_GREEN:
            named = {"max_surge": "maxSurge", "max_unavailable": "maxUnavailable"}
            given = {named.get(k, k): v for k, v in data.items() if v is not None}
            return {"retain": "10m", **_BOTH_WHOLE, **given}
        surge = data.get("maxSurge", data.get("max_surge"))
        unavailable = data.get("maxUnavailable", data.get("max_unavailable"))
        step = data.get("step")
        share = step if type(step) is int and step > 0 else "25%"  # a wrong step is refused as what it is
        if surge is None and unavailable is None:
            out_first = data.get("order", Order.SCALE_OUT_PRIORITY) == Order.SCALE_OUT_PRIORITY
            surge, unavailable = (share, 0) if out_first else (0, share)
        # One bound alone: the other is what keeps the rollout movable, and otherwise nothing that was not asked for.
        surge = (share if unavailable in _ZERO else 0) if surge is None else surge
        unavailable = (share if surge in _ZERO else 0) if unavailable is None else unavailable
        rest = {k: v for k, v in data.items() if k not in {"max_surge", "max_unavailable"}}
        return {**rest, "maxSurge": surge, "maxUnavailable": unavailable}

    @model_validator(mode="after")
    def _movable(self) -> Self:
        if self.max_surge in _ZERO and self.max_unavailable in _ZERO:
            why = "and maxUnavailable are both 0, so nothing could move"
            raise wrong("maxSurge", self.max_surge, why, "raise one of them to 1")
        return self

    @model_validator(mode="after")
    def _led(self) -> Self:
        problem = self._blue_green_problem() if self.type is Way.BLUE_GREEN else self._rolling_problem()
        if problem is not None:
            raise problem
        return self

    def _blue_green_problem(self) -> PydanticCustomError | None:
        given = {"order": self.order.value, "maxSurge": self.max_surge, "maxUnavailable": self.max_unavailable}
        for field, value in given.items():
            if value != _BOTH_WHOLE[field]:
                why = f"is not how blueGreen goes: both sides are whole at the switch, so it takes {_BOTH_WHOLE[field]}"
                return wrong(field, value, why, "leave it out")
        if self.to is not None:
            return wrong("to", "...", "ends between the sides, and blueGreen has all on one", "leave it out")
        if self.traffic is None:
            return wrong("traffic", None, "is missing: blueGreen has to switch it", "write `traffic: {service: NAME}`")
        if self.retain is not None and self.retain > MAX_HOLD:
            return wrong("retain", format_duration(self.retain), "is over 30 days", "write a shorter time")
        weighted = [i for i, waypoint in enumerate(self.waypoints) if waypoint.weight is not None]
        return _misplaced_weight(self, weighted, "would split what blueGreen switches at once") if weighted else None

    def _rolling_problem(self) -> PydanticCustomError | None:
        if self.retain is not None:
            return wrong("retain", format_duration(self.retain), "is for blueGreen", "leave it out")
        if isinstance(self.traffic, ByService):
            fix = "write `type: blueGreen`, or split it by a route"
            return wrong("traffic.service", self.traffic.service, "can only be switched at once", fix)
        weighted = [i for i, waypoint in enumerate(self.waypoints) if waypoint.weight is not None]
        if weighted and self.traffic is None:
            return _misplaced_weight(self, weighted, "needs something that splits traffic")
        return None


def _misplaced_weight(strategy: Strategy, weighted: list[int], why: str) -> PydanticCustomError:
    first = weighted[0]
    fix = "leave it out, or write `type: rolling` with `traffic: {route: NAME, services: {old: NAME, new: NAME}}`"
    return wrong(f"waypoints[{first}].weight", strategy.waypoints[first].weight, why, fix)


class Readiness(Model):
    """When a new replica is believed."""

    min_ready: Duration = Field(default=timedelta(seconds=5), alias="minReady", description="How long Ready must hold.")
    deadline: Duration = Field(default=timedelta(minutes=10), description="How long there may be no progress.")
    max_restarts: int = Field(default=0, alias="maxRestarts", ge=0, le=100, description="Restarts a new pod may have.")
    loading: Duration = Field(
        default=timedelta(minutes=30), description="How long a new pod may load, as long as it comes on with it."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.deadline <= MAX_DEADLINE:
            raise wrong("deadline", format_duration(self.deadline), "is out of range", "write 1s to 24h")
        if not timedelta(seconds=1) <= self.loading <= MAX_DEADLINE:
            raise wrong("loading", format_duration(self.loading), "is out of range", "write 1s to 24h")
        if self.min_ready >= self.deadline:
            why = f"is not under the deadline of {format_duration(self.deadline)}"
            raise wrong("minReady", format_duration(self.min_ready), why, "shorten it, or write a longer deadline")
        return self


class Drain(Model):
    """How old replicas end what they have begun."""

    quiet: Duration = Field(
        default=timedelta(seconds=3),
        description="How long an old replica without a preStop hook is out of its Services before it is told to stop.",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="How long the next step waits for replicas that were told to stop: their requests and streams.",
    )
    until: Until | None = Field(
        default=None,
        description="Old replicas are told to stop when their servers have nothing to do, or after `timeout`.",
    )

    @property
    def longest(self) -> timedelta:
        """The longest that a write is put off by it: the quiet time, and as long as it may take until it begins."""
        return self.quiet + QUIET_BEGINS_IN

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(0) < self.quiet <= MAX_QUIET:
            raise wrong("quiet", format_duration(self.quiet), "is out of range", "write 1s to 30s")
        if not timedelta(0) < self.timeout <= MAX_DEADLINE:
            raise wrong("timeout", format_duration(self.timeout), "is out of range", "write 1s to 24h")
        return self


class Rules(Model):
    """How the rollout moves and judges: all that a decision needs, and nothing of what changes."""

    strategy: Strategy = Field(default_factory=Strategy)
    readiness: Readiness = Field(default_factory=Readiness)
    on_failure: OnFailure = Field(default=OnFailure.ROLLBACK, alias="onFailure", strict=False)
    autoscaler: Autoscaler = Field(default=Autoscaler.ADOPT, strict=False)
    drain: Drain | None = Field(default=None, description="Wait for old replicas to end what they have begun.")
    serving: Serving | None = Field(default=None, description="What a new replica is asked before it is believed.")
    load_failures: LoadFailures | None = Field(
        default=None, alias="loadFailures", description="Which models of a new replica may fail to load."
    )
    gates: tuple[OwnGate, ...] = Field(
        default=(), max_length=MAX_GATES, strict=False, description="Gates of one's own: a Job, a webhook or a plugin."
    )
    metrics: tuple[Metric, ...] = Field(default=(), max_length=MAX_METRICS, strict=False)
    pass_score: int = Field(
        default=75, alias="passScore", ge=1, le=100, description="Percent of the weights of gates that must pass."
    )

    @property
    def asked_gates(self) -> tuple[GatePolicy, ...]:
        """All gates that are asked again and again, in the order of the spec."""
        return (*self.metrics, *self.gates)

    @model_validator(mode="after")
    def _gates_differ(self) -> Self:
        names = [gate.name for gate in self.asked_gates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            field = "metrics" if twice in {metric.name for metric in self.metrics} else "gates"
            raise wrong(field, twice, "is the name of two gates", "give each a name of its own")
        return self


class Spec(Rules):
    """What a rollout is asked to do."""

    target: AnyTarget
    change: Change = Field(
        default_factory=Change, description="May be left out for a DeploymentPair whose new one is there."
    )
    accept: tuple[Annotated[LintRule, Field(strict=False)], ...] = Field(
        default=(), max_length=len(LintRule), strict=False, description="Rules of lint whose errors do not refuse it."
    )

    def accepting(self, rules: Iterable[LintRule]) -> Self:
        """Return the spec with these rules accepted too."""
        return self.model_copy(update={"accept": tuple(dict.fromkeys((*self.accept, *rules)))})

    @model_validator(mode="before")
    @classmethod
    def _without_surge(cls, data: Any) -> Any:
        """Let a target that cannot surge have the defaults of a strategy that does not."""
        strategy = data.get("strategy", {}) if isinstance(data, dict) else None
        if not isinstance(strategy, dict) or {"maxSurge", "max_surge"} & strategy.keys():
            return data
        kind = KINDS[_kind_of(data.get("target"))]
        if kind.surges(stops=bool(strategy.get("waypoints"))):
            return data
        return {**data, "strategy": {**strategy, "maxSurge": 0}}

    @model_validator(mode="after")
    def _drains_by_kind(self) -> Self:
        if self.drain is not None and isinstance(self.target, SupervisedTarget):
            why = "is not for a supervised target: its own operator stops the pods, and waits for nobody"
            fix = "leave it out; a preStop hook and terminationGracePeriodSeconds let pods end their requests"
            raise wrong("drain", "...", why, fix)
        kinds = ("Deployment", "DeploymentPair")
        if self.drain is not None and self.drain.until is not None and self.target.kind not in kinds:
            why = f"is not for a {self.target.kind}: its next replica cannot leave its Services before it stops"
            fix = "leave it out; a preStop hook and terminationGracePeriodSeconds let it end its streams"
            raise wrong("drain.until", "...", why, fix)
        return self

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.target.kind == "DeploymentPair":
            if self.autoscaler is Autoscaler.HOLD:
                why = "is not for a DeploymentPair: an autoscaler scales one Deployment, and replicas move between two"
                raise wrong("autoscaler", "hold", why, "leave it out, and delete the autoscaler for the rollout")
            return self
        if self.change.is_empty:
            given = "change" in self.model_fields_set
            raise wrong(
                "change",
                "..." if given else None,
                "is empty" if given else "is missing",
                _NAME_A_CHANGE if given else "add it",
            )
        if self.strategy.to is not None:
            raise wrong("strategy.to", "...", f"is not for a {self.target.kind}", "leave it out, or use a waypoint")
        if self.strategy.traffic is not None:
            why = f"needs a Deployment for each side, and a {self.target.kind} is one object"
            raise wrong("strategy.traffic", "...", why, "leave it out, or write `kind: DeploymentPair`")
        surge = self.strategy.max_surge
        if surge not in _ZERO and not self.target.surges(stops=bool(self.strategy.waypoints)):
            what = f"is more than a {self.target.kind} can have" + " with waypoints" * self.target.surges(stops=False)
            raise wrong("strategy.maxSurge", surge, what, "write maxSurge: 0, and maxUnavailable: 1 or more")
        if isinstance(self.target, SupervisedTarget):
            _refuse_for_supervised(self.strategy, self.change)
        return self

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        for index, metric in enumerate(self.metrics):
            field = next(f for f in ("preset", "counts", "histogram", "value") if getattr(metric, f) is not None)
            shown = metric.preset or "..."
            if "service" in metric.needs and not isinstance(self.strategy.traffic, ByRoute):
                why = "selects by each side's Service, and strategy.traffic names none"
                fix = "write `traffic: {route: NAME, services: {old: NAME, new: NAME}}`, or measure by {{side}}"
                raise wrong(f"metrics[{index}].{field}", shown, why, fix)
            if "revision" in metric.needs and self.target.numbered:
                why = f"needs {{{{revision}}}}, which the pods of a {self.target.kind} have not in their names"
                raise wrong(f"metrics[{index}].{field}", shown, why, "select by {{side}}")
        return self

    @property
    def autonomous(self) -> bool:
        """Whether the target's own controller or operator moves, so that it cannot be held in between."""
        by_groups = isinstance(self.target, LeaderWorkerSetTarget) and not self.strategy.waypoints
        return by_groups or isinstance(self.target, SupervisedTarget)

    @property
    def rules(self) -> Rules:
        """The rules alone, without the change: a history should not repeat the change at every step."""
        return Rules(**{name: getattr(self, name) for name in Rules.model_fields})


def _refuse_for_supervised(strategy: Strategy, change: Change) -> None:
    if strategy != Strategy():
        why = "cannot be said: the target's own operator moves, by its own budget"
        raise wrong("strategy", "...", why, "leave it out")
    for field in ("annotations", "config_maps", "secrets", "revision"):
        if getattr(change, field):
            name = Change.model_fields[field].alias or field
            raise wrong(f"change.{name}", "...", "is not for a supervised target", "use images, env, args or a patch")


class Metadata(Model):
    """The rollout's own name, for people."""

    name: ObjectName


class Rollout(Model):
    """A spec file."""

    apiVersion: Literal["segue.dev/v1alpha1"]  # noqa: N815
    kind: Literal["Rollout"]
    metadata: Metadata
    spec: Spec


def read_rollout(document: Any, source: str = "") -> Rollout:
    """Validate one parsed YAML or JSON document.

    Raises:
        Refused: naming the first wrong field, its value and the fix; further ones follow in the same message.
    """
    if not isinstance(document, dict):
        raise Refused("is not a mapping", field=source, fix="write apiVersion, kind, metadata and spec")
    try:
        return Rollout.model_validate(document)
    except ValidationError as error:
        raise refusal(error, source) from error


def refusal(error: ValidationError, source: str = "") -> Refused:
    """Translate pydantic's errors into one that names field, value and fix."""
    found = [_refused(e) for e in error.errors(include_url=False) if not _is_noise(e)]
    head = f"{source}: " if source else ""
    first = found[0]
    first.args = (head + "\n".join(str(refused) for refused in found),)
    return first


def _is_noise(error: Any) -> bool:
    """Tell whether this is only the branch of a union that was not meant: text where a mapping was written, or back."""
    branch, wrong_kind = str(error["loc"][-1:]), error["type"] in {"string_type", "model_type"}
    return wrong_kind and ("constrained-str" in branch if isinstance(error["input"], dict) else "EnvFrom" in branch)


def _path(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the names of a union's branches to the path; they are no fields of the file.
    branches = {"str", "int", "constrained-str", "EnvFrom", "[key]"}
    pairs = zip(("", *loc), loc, strict=False)
    parts = [p for before, p in pairs if p not in branches and p not in _TAGS.get(before, ())]
    named = (f"[{p}]" if isinstance(p, int) else f".{p if len(p) <= MAX_PART else p[:MAX_PART] + '…'}" for p in parts)
    return "".join(named).removeprefix(".")


_TAGS: dict[int | str, tuple[str, ...]] = {
    "target": tuple(KINDS),
    "traffic": ("service", "route"),
    "approval": ("plain", "timed"),
}
"""The names of a union's branches, by the field that it stands in."""

_WHY_AND_FIX = {
    "extra_forbidden": "is not a field that Segue knows; check its spelling (`segue schema` lists all)",
    "missing": "is missing; add it",
    "string_pattern_mismatch": "is not allowed here; it must match {pattern}",
    "string_too_long": "is too long; keep it within {max_length} characters",
    "string_type": "is not text; put it in quotes",
    "int_type": "is not a whole number; write one without quotes",
    "int_from_float": "is not a whole number; write one without a fraction",
    "bool_type": "is neither true nor false; write one of them without quotes",
    "greater_than_equal": "is too small; write {ge} or more",
    "less_than_equal": "is too large; write {le} or less",
    "too_long": "has {actual_length} entries, which is too many; keep to {max_length}",
    "enum": "is none of the choices; write {expected}",
    "literal_error": "cannot be taken; write {expected}",
    "dict_type": "is not a mapping; write `name: value` lines",
    "model_type": "is not a mapping; write `name: value` lines",
    "list_type": "is not a list; write `- value` lines",
    "tuple_type": "is not a list; write `- value` lines",
}


def _refused(error: Any) -> Refused:
    context, shown = error.get("ctx", {}), error["input"]
    own = str(error["msg"]).removeprefix("Value error, ")
    known = _WHY_AND_FIX.get(error["type"])
    why, _, fix = (known.format(**context) if known else own).partition("; ")
    field = _path(error["loc"])
    if error["type"] == BELOW:
        field, shown = f"{field}.{context['field']}" if field else context["field"], context["shown"]
    value = None if error["type"] == "missing" or isinstance(shown, dict | list | BaseModel) else shown
    return Refused(why.removeprefix(f"{value!r} "), field=field, value=value, fix=fix)
