"""What only a Rollout in Kubernetes has: the object stays, while a rollout ends."""

from enum import StrEnum

from pydantic import Field

from segue.spec.base import Model


class OnDelete(StrEnum):
    """What happens to the rollout under way when its object is deleted."""

    ABORT = "abort"
    LEAVE = "leave"


class Standing(Model):
    """The fields of ``spec`` beside the rollout's own."""

    paused: bool = Field(
        default=False, description="Start nothing, and stop the progress of a rollout under way; gates still run."
    )
    on_delete: OnDelete = Field(
        default=OnDelete.ABORT,
        alias="onDelete",
        strict=False,
        description="What happens to a rollout under way when this object is deleted: abort rolls back, and the object "
        "stays until that has ended; leave lets the rollout continue.",
    )


FIELDS = frozenset(field.alias or name for name, field in Standing.model_fields.items())
"""Their names in a document."""
