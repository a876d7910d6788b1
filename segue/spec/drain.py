"""How old replicas finish their requests before the next step."""

from datetime import timedelta
from typing import Self

from pydantic import (
    Field,
    model_validator,
)

from segue.spec.base import (
    Model,
    wrong,
)
from segue.spec.drain_until import Until
from segue.spec.readiness import MAX_DEADLINE
from segue.units import Duration, format_duration

MAX_QUIET = timedelta(seconds=30)
QUIET_BEGINS_IN = timedelta(seconds=10)


class Drain(Model):
    """How old replicas finish the requests that they have begun."""

    quiet: Duration = Field(
        default=timedelta(seconds=3),
        description="How long an old replica without a preStop hook is out of its Services before it gets SIGTERM.",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="How long the next step waits for stopping replicas to finish their requests and streams.",
    )
    until: Until | None = Field(
        default=None,
        description="Stop an old replica when its server reports that it is empty, or after `timeout`.",
    )

    @property
    def longest(self) -> timedelta:
        """The longest delay of a write: the quiet time, and the time until it begins."""
        return self.quiet + QUIET_BEGINS_IN

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(0) < self.quiet <= MAX_QUIET:
            raise wrong("quiet", format_duration(self.quiet), "is out of range", "write 1s to 30s")
        if not timedelta(0) < self.timeout <= MAX_DEADLINE:
            raise wrong("timeout", format_duration(self.timeout), "is out of range", "write 1s to 24h")
        return self
