"""A whole spec file: target, change, and the rules by which the rollout moves and judges."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from segue.spec.base import (
    Model,
    Name,
    ObjectName,
    wrong,
)
from segue.spec.change import NAME_A_CHANGE, Change
from segue.spec.drain import Drain
from segue.spec.gate_policy import GatePolicy
from segue.spec.lint_rule import LintRule
from segue.spec.load_failures import LoadFailures
from segue.spec.metrics import MAX_METRICS, Metric
from segue.spec.notifications import MAX_RECEIVERS, Notification
from segue.spec.own_gates import OwnGate
from segue.spec.profile import Profile
from segue.spec.readiness import Readiness
from segue.spec.serving import Serving
from segue.spec.strategy import ZERO, Pace, Strategy
from segue.spec.target import KINDS, AnyTarget, LeaderWorkerSetTarget, SupervisedTarget, kind_of
from segue.spec.traffic import ByRoute

API_VERSION = "segue.dev/v1alpha1"


MAX_GATES = 20


class OnFailure(StrEnum):
    """What happens when the new version fails."""

    ROLLBACK = "rollback"
    PAUSE = "pause"


class Autoscaler(StrEnum):
    """What happens to the target's HorizontalPodAutoscaler during a rollout."""

    ADOPT = "adopt"
    """It scales the target, and the rollout follows."""
    HOLD = "hold"
    """It stays at the current replicas. Its original min and max are restored at the end, and in a rollback at once."""


class Rules(Model):
    """How the rollout moves and judges: all that a decision needs, without the change."""

    strategy: Strategy = Field(default_factory=Strategy)
    readiness: Readiness = Field(default_factory=Readiness)
    on_failure: OnFailure = Field(
        default=OnFailure.ROLLBACK,
        alias="onFailure",
        strict=False,
        description="What happens when the new version fails: roll back, or stop and wait for a person.",
    )
    autoscaler: Autoscaler = Field(
        default=Autoscaler.ADOPT,
        strict=False,
        description="adopt: the rollout follows the target's autoscaler; hold: it fixes the autoscaler until the end.",
    )
    drain: Drain | None = Field(
        default=None, description="Wait for old replicas to finish the requests that they have begun."
    )
    serving: Serving | None = Field(
        default=None, description="Serving checks that a new replica must pass to be proven."
    )
    load_failures: LoadFailures | None = Field(
        default=None, alias="loadFailures", description="Which models of a new replica may fail to load."
    )
    gates: tuple[OwnGate, ...] = Field(
        default=(),
        max_length=MAX_GATES,
        strict=False,
        description="Gates that you supply: a Job, a webhook or a plugin.",
    )
    metrics: tuple[Metric, ...] = Field(
        default=(), max_length=MAX_METRICS, strict=False, description="Gates that query Prometheus for both sides."
    )
    pass_score: int = Field(
        default=75, alias="passScore", ge=1, le=100, description="Percentage of the gates' weights that must pass."
    )

    @property
    def repeated_gates(self) -> tuple[GatePolicy, ...]:
        """All repeated gates, in the order of the spec."""
        return (*self.metrics, *self.gates)

    @model_validator(mode="after")
    def _gates_differ(self) -> Self:
        names = [gate.name for gate in self.repeated_gates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            field = "metrics" if twice in {metric.name for metric in self.metrics} else "gates"
            raise wrong(field, twice, "is the name of two gates", "give each its own name")
        return self


class Given(Rules):
    """The fields of a spec that a profile can give."""

    notifications: tuple[Notification, ...] = Field(
        default=(),
        max_length=MAX_RECEIVERS,
        strict=False,
        description="Receivers in the worker's settings that get a message at each transition.",
    )

    @model_validator(mode="after")
    def _notifies_once(self) -> Self:
        names = [each.name for each in self.notifications]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise wrong("notifications", twice, "is given twice", "list all its events under one entry")
        return self


class Spec(Given):
    """What a rollout does: target, change and rules."""

    target: AnyTarget
    change: Change = Field(
        default_factory=Change, description="Optional for a DeploymentPair whose new Deployment exists."
    )
    accept: tuple[Annotated[LintRule, Field(strict=False)], ...] = Field(
        default=(),
        max_length=len(LintRule),
        strict=False,
        description="Lint rules whose errors do not refuse the rollout.",
    )
    profile: Profile | None = Field(
        default=None,
        description="The profile that gives fields of this spec. It is resolved once, before the rollout starts.",
    )

    def accepting(self, rules: Iterable[LintRule]) -> Self:
        """Return the spec with these rules also accepted."""
        return self.model_copy(update={"accept": tuple(dict.fromkeys((*self.accept, *rules)))})

    @model_validator(mode="before")
    @classmethod
    def _without_surge(cls, data: Any) -> Any:
        """Give a target that cannot surge the defaults of a strategy without surge."""
        strategy = data.get("strategy", {}) if isinstance(data, dict) else None
        if not isinstance(strategy, dict) or any(strategy.get(name) is not None for name in ("maxSurge", "max_surge")):
            return data
        kind = KINDS[kind_of(data.get("target"))]
        if kind.surges(stops=bool(strategy.get("waypoints"))):
            return data
        return {**data, "strategy": {**strategy, "maxSurge": 0}}

    @model_validator(mode="after")
    def _drains_by_kind(self) -> Self:
        if self.drain is not None and isinstance(self.target, SupervisedTarget):
            why = "is not for a supervised target: its own operator stops the pods without waiting"
            fix = "leave it out; a preStop hook and terminationGracePeriodSeconds let pods finish their requests"
            raise wrong("drain", "...", why, fix)
        kinds = ("Deployment", "DeploymentPair")
        if self.drain is not None and self.drain.until is not None and self.target.kind not in kinds:
            why = f"is not for a {self.target.kind}: its next replica cannot leave its Services before it stops"
            fix = "leave it out; a preStop hook and terminationGracePeriodSeconds let it finish its streams"
            raise wrong("drain.until", "...", why, fix)
        return self

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.target.kind == "DeploymentPair":
            if self.autoscaler is Autoscaler.HOLD:
                why = "is not for a DeploymentPair: an autoscaler scales one Deployment, but replicas move between two"
                raise wrong("autoscaler", "hold", why, "leave it out, and delete the autoscaler for the rollout")
            return self
        if self.change.is_empty:
            given = "change" in self.model_fields_set
            raise wrong(
                "change",
                "..." if given else None,
                "is empty" if given else "is missing",
                NAME_A_CHANGE if given else "add it",
            )
        if self.strategy.to is not None:
            raise wrong("strategy.to", "...", f"is not for a {self.target.kind}", "leave it out, or use a waypoint")
        if self.strategy.traffic is not None:
            why = f"needs a Deployment for each side, but a {self.target.kind} is one object"
            raise wrong("strategy.traffic", "...", why, "leave it out, or write `kind: DeploymentPair`")
        surge = self.strategy.max_surge
        if surge not in ZERO and not self.target.surges(stops=bool(self.strategy.waypoints)):
            what = f"is more than a {self.target.kind} can have" + " with waypoints" * self.target.surges(stops=False)
            raise wrong("strategy.maxSurge", surge, what, "write maxSurge: 0, and maxUnavailable: 1 or more")
        if self.strategy.pace is Pace.EXACT and self.autonomous:
            why = f"needs each step to be held, and the controller of this {self.target.kind} moves on its own"
            raise wrong("strategy.pace", "exact", why, "add a waypoint, or leave it out")
        if isinstance(self.target, SupervisedTarget):
            _refuse_for_supervised(self.strategy, self.change)
        return self

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        for index, metric in enumerate(self.metrics):
            field = next(f for f in ("preset", "counts", "histogram", "value") if getattr(metric, f) is not None)
            shown = metric.preset or "..."
            traffic = self.strategy.traffic
            if "service" in metric.needs and not (isinstance(traffic, ByRoute) and traffic.services):
                why = "selects by each side's Service, but strategy.traffic names none"
                fix = "write `traffic: {route: NAME, services: {old: NAME, new: NAME}}`, or measure by {{side}}"
                raise wrong(f"metrics[{index}].{field}", shown, why, fix)
            if "revision" in metric.needs and self.target.numbered:
                why = f"needs {{{{revision}}}}, which is not in the pod names of a {self.target.kind}"
                raise wrong(f"metrics[{index}].{field}", shown, why, "select by {{side}}")
        return self

    @property
    def autonomous(self) -> bool:
        """Whether the target's own controller or operator moves the replicas, so Segue cannot hold it."""
        by_groups = isinstance(self.target, LeaderWorkerSetTarget) and not self.strategy.waypoints
        return by_groups or isinstance(self.target, SupervisedTarget)

    @property
    def rules(self) -> Rules:
        """The rules alone, without the change: a history should not repeat the change at every step."""
        return Rules(**{name: getattr(self, name) for name in Rules.model_fields})


def _refuse_for_supervised(strategy: Strategy, change: Change) -> None:
    if strategy != Strategy():
        why = "cannot be set: the target's own operator moves the replicas, by its own budget"
        raise wrong("strategy", "...", why, "leave it out")
    for field in ("annotations", "config_maps", "secrets", "revision"):
        if getattr(change, field):
            name = Change.model_fields[field].alias or field
            raise wrong(f"change.{name}", "...", "is not for a supervised target", "use images, env, args or a patch")


class Metadata(Model):
    """The rollout's name, for people; for an object in Kubernetes, also its namespace and labels."""

    name: ObjectName
    namespace: Name | None = Field(default=None, description="The target's namespace, unless the target names it too.")
    labels: dict[str, str] = Field(default_factory=dict, description="For Kubernetes only.")
    annotations: dict[str, str] = Field(default_factory=dict, description="For Kubernetes only.")


class Rollout(Model):
    """A spec file."""

    apiVersion: Literal["segue.dev/v1alpha1"]  # noqa: N815
    kind: Literal["Rollout"]
    metadata: Metadata
    spec: Spec

    def in_cluster(self, name: str) -> Self:
        """Return the same rollout, of a target that names its cluster."""
        target = self.spec.target.model_copy(update={"cluster": name})
        return self.model_copy(update={"spec": self.spec.model_copy(update={"target": target})})
