"""Notifications in a spec: which events go to which receivers of the worker's settings, by name."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from segue.spec.base import Model, Name

MAX_RECEIVERS = 10


class Event(StrEnum):
    """What a notification reports: a transition of the rollout."""

    STARTED = "started"
    """The rollout is prepared and under way."""
    AWAITING_APPROVAL = "awaitingApproval"
    PAUSED = "paused"
    """A person paused it, or a freeze holds it."""
    NEEDS_PERSON = "needsPerson"
    """It cannot continue without a person, forward or back."""
    ROLLING_BACK = "rollingBack"
    COMPLETED = "completed"
    ROLLED_BACK = "rolledBack"
    """It has rolled back to the baseline, by itself or on a request."""
    REFUSED = "refused"
    """It was refused at its start; the target is unchanged."""


class Notification(Model):
    """A receiver in the worker's settings, by name; a spec holds no address and no secret."""

    name: Name
    events: tuple[Annotated[Event, Field(strict=False)], ...] = Field(
        default=(*Event,), min_length=1, max_length=len(Event), strict=False, description="By default all events."
    )
