"""What all repeated gates have in common: when and how often they are evaluated, and what their verdicts cause.

The words are those of Argo Rollouts' analyses, with the same meaning except for inconclusive answers: ``docs/gates.md``
compares them.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from segue.spec.base import Model, Name, wrong
from segue.units import Duration, format_duration

MIN_INTERVAL, MAX_INTERVAL = timedelta(seconds=1), timedelta(hours=1)
MAX_WAIT = timedelta(days=7)


class Reaction(StrEnum):
    """What a gate's verdict causes."""

    ROLLBACK = "rollback"
    PAUSE = "pause"
    """Pause, and wait for a person."""
    HOLD = "hold"
    """Hold, and continue when the gate passes."""


class GatePolicy(Model):
    """One gate: measured ``count`` times, an ``interval`` apart, at every waypoint and at the end."""

    name: Name
    interval: Duration = Field(default=timedelta(seconds=30), description="Time between two measurements.")
    count: int = Field(default=1, ge=1, le=1000, description="Conclusive measurements at each waypoint.")
    initial_delay: Duration = Field(
        default=timedelta(0), alias="initialDelay", description="Time before the first measurement."
    )
    failure_limit: int = Field(
        default=0,
        alias="failureLimit",
        ge=0,
        le=1000,
        description="Measurements that may fail; one more fails the gate.",
    )
    inconclusive_limit: int | None = Field(
        default=None,
        alias="inconclusiveLimit",
        ge=0,
        le=100_000,
        description="Measurements that may be inconclusive; one more, or the `deadline`, triggers onInconclusive.",
    )
    consecutive_error_limit: int = Field(
        default=4,
        alias="consecutiveErrorLimit",
        ge=0,
        le=100_000,
        description="Measurements in a row that may get no answer; one more triggers onInconclusive.",
    )
    deadline: Duration = Field(
        default=timedelta(minutes=30), description="How long the gate may stay undecided at a waypoint."
    )
    on_failure: Reaction = Field(default=Reaction.ROLLBACK, alias="onFailure", strict=False)
    on_inconclusive: Reaction = Field(default=Reaction.PAUSE, alias="onInconclusive", strict=False)
    continuous: bool = Field(
        default=False, description="Also measured throughout, from the first new replica on: a failure acts at once."
    )
    weight: int | None = Field(
        default=None, ge=1, le=100, description="Share in the common score; a gate without a weight is critical."
    )
    dry_run: bool = Field(default=False, alias="dryRun", description="Record the verdict, without any consequence.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not MIN_INTERVAL <= self.interval <= MAX_INTERVAL:
            raise wrong("interval", format_duration(self.interval), "is out of range", "write 1s to 1h")
        for field, value in (("initialDelay", self.initial_delay), ("deadline", self.deadline)):
            if value > MAX_WAIT:
                raise wrong(field, format_duration(value), "is over 7 days", "write a shorter time")
        if self.deadline <= self.initial_delay:
            why = f"is not longer than initialDelay ({format_duration(self.initial_delay)})"
            raise wrong("deadline", format_duration(self.deadline), why, "write a longer deadline")
        return self
