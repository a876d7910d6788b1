"""How a rollout moves: order, budget, step, waypoints and end."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from segue.spec.base import (
    Model,
    wrong,
)
from segue.spec.traffic import ByService, Traffic
from segue.units import Amount, Duration, format_duration

ZERO: tuple[Any, ...] = (0, "0%")
_BOTH_WHOLE: dict[str, Any] = {"order": "scaleOutPriority", "maxSurge": "100%", "maxUnavailable": 0}
"""What blueGreen means for the replicas."""
MAX_HOLD = timedelta(days=30)


class Order(StrEnum):
    """Which side moves first."""

    SCALE_OUT_PRIORITY = "scaleOutPriority"
    """New first: no old replica is removed before a new one is proven."""
    SCALE_IN_PRIORITY = "scaleInPriority"
    """Old first: no extra accelerator is needed."""
    SCALE_SIMULTANEOUSLY = "scaleSimultaneously"
    """Both at once."""


class Pace(StrEnum):
    """When the next move begins."""

    AS_READY = "asReady"
    """As soon as some replica that became ready allows it: fastest, with smaller moves than the plan's."""
    EXACT = "exact"
    """When the whole step is done: the moves are those of the plan, one after the other."""


class Way(StrEnum):
    """How users get from the old side to the new."""

    ROLLING = "rolling"
    """Gradually, as replicas are replaced."""
    BLUE_GREEN = "blueGreen"
    """All at once: the new side is brought to full size without traffic, verified, and then gets all of it."""


class Default(StrEnum):
    """The answer that applies when no person gives one."""

    REJECT = "reject"
    APPROVE = "approve"


class Approval(Model):
    """An approval that expires; then the default applies."""

    expires: Duration = Field(description="How long the rollout waits for an answer after it reaches the waypoint.")
    default: Default = Field(
        default=Default.REJECT, strict=False, description="The answer that applies when nobody answered."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.expires <= MAX_HOLD:
            raise wrong("expires", format_duration(self.expires), "is out of range", "write 1s to 720h")
        return self


def _approval_of(given: Any) -> str:
    return "timed" if isinstance(given, dict | Approval) else "plain"


class Waypoint(Model):
    """A number of new replicas at which the rollout stops: to verify, to wait, or to request an approval."""

    at: Amount = Field(description="Count or percentage of new replicas; a percentage rounds up.")
    hold: Duration = Field(default=timedelta(0), description="How long the rollout waits there, at most 30 days.")
    approval: Annotated[
        Annotated[bool, Tag("plain")] | Annotated[Approval, Tag("timed")], Discriminator(_approval_of)
    ] = Field(default=False, description="Request an approval; true waits without a limit.")
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


class End(Model):
    """Where a rollout of a pair ends: with this many replicas of one side, and the rest of the other."""

    old: Amount | None = Field(
        default=None, description="Count or percentage of replicas that stay old; a percentage rounds down."
    )
    new: Amount | None = Field(
        default=None, description="Count or percentage of replicas that become new; a percentage rounds up."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.old is None) == (self.new is None):
            fix = "give exactly one of old and new: the other side has the rest of the replicas"
            raise ValueError(f"is not the end of one side; {fix}")
        if self.new in ZERO:
            raise wrong("new", self.new, "is where every rollout starts", "write 1 or more; `segue abort` goes back")
        return self


class Strategy(Model):
    """How the rollout moves. The defaults are safe for a model server.

    When neither ``maxSurge`` nor ``maxUnavailable`` is set, scaleOutPriority adds first and never goes below the
    replicas that ran before (maxSurge = step, or 25%; maxUnavailable 0). The other orders need no extra capacity
    (maxSurge 0; maxUnavailable = step, or 25%), nor does any order when the target cannot surge: a StatefulSet.
    ``type: blueGreen`` needs room for both sides (maxSurge 100%).
    """

    type: Way = Field(default=Way.ROLLING, strict=False)
    order: Order = Field(default=Order.SCALE_OUT_PRIORITY, strict=False)
    max_surge: Amount = Field(
        default="25%", alias="maxSurge", description="Replicas that may run in addition to the requested ones."
    )
    max_unavailable: Amount = Field(
        default=0,
        alias="maxUnavailable",
        description="Requested replicas that may be unready.",
    )
    step: int | None = Field(default=None, ge=1, le=100_000, description="The most replicas that move at once.")
    pace: Pace = Field(
        default=Pace.AS_READY,
        strict=False,
        description="asReady moves on as soon as some new replica is proven; exact waits for the whole step.",
    )
    waypoints: tuple[Waypoint, ...] = Field(default=(), max_length=50, strict=False)
    traffic: Traffic | None = Field(
        default=None, description="What routes traffic to each side. Without it, one Service covers both sides."
    )
    retain: Duration | None = Field(
        default=None,
        description="blueGreen: how long the old side keeps all its replicas after the switch. Default: 10m.",
    )
    to: End | None = Field(
        default=None, description="For a DeploymentPair: where the rollout ends, if not with new replicas only."
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
        # One bound alone: the other is what keeps the rollout movable, and otherwise 0.
        surge = (share if unavailable in ZERO else 0) if surge is None else surge
        unavailable = (share if surge in ZERO else 0) if unavailable is None else unavailable
        rest = {k: v for k, v in data.items() if k not in {"max_surge", "max_unavailable"}}
        return {**rest, "maxSurge": surge, "maxUnavailable": unavailable}

    @model_validator(mode="after")
    def _movable(self) -> Self:
        if self.max_surge in ZERO and self.max_unavailable in ZERO:
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
                why = f"does not fit blueGreen: both sides are whole at the switch, so it needs {_BOTH_WHOLE[field]}"
                return wrong(field, value, why, "leave it out")
        if self.to is not None:
            return wrong("to", "...", "ends between the sides, but blueGreen ends with all on one", "leave it out")
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
