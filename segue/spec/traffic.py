"""What sends users to a side: a Service or an HTTPRoute."""

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from segue.spec.base import Model, ObjectName, wrong
from segue.units import Duration, format_duration

MAX_LAG = timedelta(minutes=10)


class _Leads(Model):
    """What all ways to route traffic have in common."""

    lag: Duration = Field(
        default=timedelta(seconds=10),
        description="How long a side keeps all its replicas after its traffic ends: proxies may still send to it.",
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
        default=None, description="A Service that points at the new side during the rollout, to try it."
    )

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.preview == self.service:
            raise wrong("preview", self.preview, "is the Service that users reach", "name another, or leave it out")
        return self


class _OfEachSide(Model):
    """The backend of each side, by name."""

    old: ObjectName
    new: ObjectName
    word: ClassVar[str]

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.old == self.new:
            word = self.word
            raise wrong("new", self.new, f"is the old side's {word} too", f"give each side {_a(word)} of its own")
        return self


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "AEIOU" else f"a {word}"


class RouteServices(_OfEachSide):
    """The Service of each side."""

    word = "Service"


class RoutePools(_OfEachSide):
    """The InferencePool of each side."""

    word = "InferencePool"


class ByRoute(_Leads):
    """Traffic is split by the weights of a Gateway API HTTPRoute's backends: Services, or InferencePools."""

    route: ObjectName = Field(description="The HTTPRoute.")
    rule: int = Field(default=0, ge=0, le=15, description="Index of the rule in it; the API allows 16.")
    services: RouteServices | None = Field(default=None, description="The Service of each side.")
    pools: RoutePools | None = Field(
        default=None, description="Instead: the InferencePool of each side (inference.networking.k8s.io/v1)."
    )
    require_accepted: bool = Field(
        default=False, alias="requireAccepted", description="Refuse the start unless a gateway accepts the route."
    )

    @property
    def backends(self) -> RouteServices | RoutePools:
        """The backends of the two sides."""
        found = self.services or self.pools
        assert found is not None, "one of the two is given"
        return found

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.services is None and self.pools is None:
            raise wrong("services", None, "is missing", "add it, or `pools` if the route's backends are InferencePools")
        if self.services is not None and self.pools is not None:
            raise wrong("pools", "...", "is given beside services", "keep the one that the route's backends are")
        return self


def _traffic_of(given: Any) -> str:
    by_route = "route" in given if isinstance(given, dict) else isinstance(given, ByRoute)
    return "route" if by_route else "service"


Traffic = Annotated[Annotated[ByService, Tag("service")] | Annotated[ByRoute, Tag("route")], Discriminator(_traffic_of)]
