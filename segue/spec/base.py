"""What all pieces of a spec are made of: the strict model, names with their bounds, and how a field is blamed."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"

Name = Annotated[str, StringConstraints(pattern=_DNS_LABEL)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Image = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=1024)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=256)]
ConfigKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
Text = Annotated[str, StringConstraints(max_length=32_768)]
MAX_CONFIG_BYTES = 1_048_576
"""So much Kubernetes takes in one ConfigMap; Temporal takes 2 MiB in one message, which holds all of a spec."""
ConfigText = Annotated[str, StringConstraints(max_length=MAX_CONFIG_BYTES)]

BELOW = "wrong_below"
"""The type of an error that a check of a whole model lays on one of its fields."""


def wrong(field: str, shown: Any, why: str, fix: str) -> PydanticCustomError:
    """Blame one field from a check of the whole model, so that the message names it."""
    context = {"field": field, "shown": shown, "why": why, "fix": fix}
    return PydanticCustomError(BELOW, "{why}; {fix}", context)


def below(field: str, error: PydanticCustomError) -> PydanticCustomError:
    """Blame a field of a field: ``error``, as ``wrong`` made it, lies below ``field``."""
    context: dict[str, Any] = dict(error.context or {})
    return wrong(f"{field}.{context['field']}", context["shown"], context["why"], context["fix"])


class Model(BaseModel):
    """A strict, immutable piece of a spec."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
