"""What all gates have in common that are asked again and again: when, how often, and what follows from the answers.

The words are those of Argo Rollouts' analyses, in the same meaning but for inconclusive answers: ``docs/gates.md`` has
them side by side.
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
    """What follows from a gate."""

    ROLLBACK = "rollback"
    PAUSE = "pause"
    """Stop, and ask a person."""
    HOLD = "hold"
    """Stand still, and go on by itself when the gate passes."""


class GatePolicy(Model):
    """One gate: asked ``count`` times, an ``interval`` apart, at every waypoint and at the end."""

    name: Name
    interval: Duration = Field(default=timedelta(seconds=30), description="Time between two measurements.")
    count: int = Field(default=1, ge=1, le=1000, description="Conclusive measurements that each waypoint takes.")
    initial_delay: Duration = Field(default=timedelta(0), alias="initialDelay", description="Before the first one.")
    failure_limit: int = Field(
        default=0, alias="failureLimit", ge=0, le=1000, description="Measurements that may fail; one more fails it."
    )
    inconclusive_limit: int | None = Field(
        default=None,
        alias="inconclusiveLimit",
        ge=0,
        le=100_000,
        description="Measurements that may be inconclusive; with one more, or after `deadline`, see onInconclusive.",
    )
    consecutive_error_limit: int = Field(
        default=4,
        alias="consecutiveErrorLimit",
        ge=0,
        le=100_000,
        description="Times in a row that nobody could be asked; with one more, onInconclusive follows.",
    )
    deadline: Duration = Field(default=timedelta(minutes=30), description="How long it may be undecided at a waypoint.")
    on_failure: Reaction = Field(default=Reaction.ROLLBACK, alias="onFailure", strict=False)
    on_inconclusive: Reaction = Field(default=Reaction.PAUSE, alias="onInconclusive", strict=False)
    continuous: bool = Field(
        default=False, description="Also asked all along, from the first new replica on: a failure acts at once."
    )
    weight: int | None = Field(
        default=None, ge=1, le=100, description="Share in the common score; without it the gate is critical."
    )
    dry_run: bool = Field(default=False, alias="dryRun", description="Recorded, and nothing follows.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not MIN_INTERVAL <= self.interval <= MAX_INTERVAL:
            raise wrong("interval", format_duration(self.interval), "is out of range", "write 1s to 1h")
        for field, value in (("initialDelay", self.initial_delay), ("deadline", self.deadline)):
            if value > MAX_WAIT:
                raise wrong(field, format_duration(value), "is over 7 days", "write a shorter time")
        if self.deadline <= self.initial_delay:
            why = f"is not over initialDelay ({format_duration(self.initial_delay)})"
            raise wrong("deadline", format_duration(self.deadline), why, "write a longer deadline")
        return self
