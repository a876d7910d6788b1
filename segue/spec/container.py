"""Containers in a spec: environment and resources, and the check that no secret is in plain text."""

import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from segue.spec.base import ConfigKey, Model, ObjectName, wrong

SECRET_NAME = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)$", re.IGNORECASE
)


class KeyRef(Model):
    """One key of a Secret or ConfigMap."""

    name: ObjectName
    key: ConfigKey
    optional: bool | None = None


class ValueFrom(Model):
    """The source of an environment variable's value, so that the spec never contains the value."""

    secretKeyRef: KeyRef | None = None  # noqa: N815 - Kubernetes' own name
    configMapKeyRef: KeyRef | None = None  # noqa: N815

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.secretKeyRef is None) == (self.configMapKeyRef is None):
            raise ValueError("names no single place of the value; give exactly one of secretKeyRef and configMapKeyRef")
        return self


class EnvFrom(Model):
    """An environment variable whose value comes from a Secret or ConfigMap."""

    valueFrom: ValueFrom  # noqa: N815


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "examples": [2, "500m"]}),
]
"""A quantity as Kubernetes takes it: accelerators are usually written as a number, without quotes."""


class Resources(Model):
    """A container's requests and limits, by resource name, as Kubernetes quantities."""

    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=32)


def refuse_literal_secret(
    where: str, name: str, value: Any, fix: str = "use valueFrom: {secretKeyRef: {name: ..., key: ...}}"
) -> None:
    """Refuse a plain-text value whose name is that of a secret.

    Raises:
        PydanticCustomError: without the value, which the message never shows.
    """
    if isinstance(value, str) and value and SECRET_NAME.search(name):
        # The spec becomes part of the workflow's history, which many can read.
        raise wrong(where, "***", "looks like a secret written as plain text", fix)
