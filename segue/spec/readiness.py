"""When a new replica counts as proven."""

from datetime import timedelta
from typing import Self

from pydantic import (
    Field,
    model_validator,
)

from segue.spec.base import Model, wrong
from segue.units import Duration, format_duration

MAX_DEADLINE = timedelta(days=1)


class Readiness(Model):
    """When a new replica is proven."""

    min_ready: Duration = Field(
        default=timedelta(seconds=5), alias="minReady", description="How long a new pod must stay Ready."
    )
    deadline: Duration = Field(default=timedelta(minutes=10), description="How long the rollout may make no progress.")
    max_restarts: int = Field(default=0, alias="maxRestarts", ge=0, le=100, description="Restarts a new pod may have.")
    loading: Duration = Field(
        default=timedelta(minutes=30), description="Maximum load time of a new pod while it makes progress."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.deadline <= MAX_DEADLINE:
            raise wrong("deadline", format_duration(self.deadline), "is out of range", "write 1s to 24h")
        if not timedelta(seconds=1) <= self.loading <= MAX_DEADLINE:
            raise wrong("loading", format_duration(self.loading), "is out of range", "write 1s to 24h")
        if self.min_ready >= self.deadline:
            why = f"is not shorter than the deadline of {format_duration(self.deadline)}"
            raise wrong("minReady", format_duration(self.min_ready), why, "shorten it, or write a longer deadline")
        return self
