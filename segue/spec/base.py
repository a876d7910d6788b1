"""The base of every part of a spec: the strict model, bounded names, and errors that name a field."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"

Name = Annotated[str, StringConstraints(pattern=_DNS_LABEL)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
ClusterName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?$")]
Image = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=1024)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=256)]
ConfigKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
Text = Annotated[str, StringConstraints(max_length=32_768)]
MAX_CONFIG_BYTES = 1_048_576
"""Kubernetes' limit for one ConfigMap. Temporal's limit for one message, which holds the whole spec, is 2 MiB."""
ConfigText = Annotated[str, StringConstraints(max_length=MAX_CONFIG_BYTES)]

BELOW = "wrong_below"
"""The type of an error by which a check of a whole model blames one of its fields."""


def wrong(field: str, shown: Any, why: str, fix: str) -> PydanticCustomError:
    """Return an error of a whole-model check that blames one field."""
    context = {"field": field, "shown": shown, "why": why, "fix": fix}
    return PydanticCustomError(BELOW, "{why}; {fix}", context)


def below(field: str, error: PydanticCustomError) -> PydanticCustomError:
    """Return ``error``, as ``wrong`` made it, with its field placed below ``field``."""
    context: dict[str, Any] = dict(error.context or {})
    return wrong(f"{field}.{context['field']}", context["shown"], context["why"], context["fix"])


class Model(BaseModel):
    """A strict, immutable piece of a spec."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
