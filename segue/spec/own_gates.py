"""Own gates in a spec: a Job, a webhook or a Python plugin that gives the same three verdicts.

``question`` defines what all three receive and may answer.
"""

import json
import re
from datetime import timedelta
from typing import Any, Self

from pydantic import Field, JsonValue, model_validator

from segue.spec.base import EnvName, Image, Model, Name, ObjectName, Text, wrong
from segue.spec.container import EnvFrom, Resources, refuse_literal_secret
from segue.spec.gate_policy import GatePolicy
from segue.units import Duration, format_duration

MAX_GIVEN = 16_384
MAX_PLUGIN_TIME = timedelta(seconds=60)
RESERVED_ENV = "SEGUE_"
_OPTION = re.compile(r"-{0,2}(?P<name>[\w.-]+)=(?P<value>(?!\$\().+)")
"""``--name=value``, when the value is not a reference to a variable."""


class JobGate(Model):
    """A Kubernetes Job in the target's namespace: Complete passes, Failed fails."""

    image: Image
    command: tuple[Text, ...] = Field(default=(), max_length=64, strict=False)
    args: tuple[Text, ...] = Field(default=(), max_length=64, strict=False)
    env: dict[EnvName, Text | EnvFrom] = Field(default_factory=dict, max_length=64)
    resources: Resources = Field(default_factory=Resources)
    active_deadline_s: int = Field(
        default=600,
        alias="activeDeadlineSeconds",
        ge=1,
        le=86_400,
        description="Time limit of the Job's pod, from its start on a node.",
    )
    service_account: ObjectName | None = Field(
        default=None, alias="serviceAccountName", description="Without one, the pod gets no service account token."
    )
    run_as_user: int | None = Field(default=None, alias="runAsUser", ge=1, le=2**31 - 1)
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        default=(), alias="imagePullSecrets", max_length=8, strict=False, description="Names of Secrets."
    )
    labels: dict[str, str] = Field(default_factory=dict, max_length=32, description="Labels of the Job's pod.")
    node_selector: dict[str, str] = Field(default_factory=dict, alias="nodeSelector", max_length=32)

    @model_validator(mode="after")
    def _harmless(self) -> Self:
        for name, value in self.env.items():
            if name.startswith(RESERVED_ENV):
                raise wrong(f"env.{name}", "...", "is set by Segue", "take another name")
            refuse_literal_secret(f"env.{name}", name, value)
        for field, texts in (("command", self.command), ("args", self.args)):
            for index, text in enumerate(texts):
                option = _OPTION.fullmatch(text)
                if option is not None:
                    fix = "set it in env by valueFrom, and write $(NAME) here"
                    refuse_literal_secret(f"{field}[{index}]", option["name"].replace("-", "_"), option["value"], fix)
        for name in self.labels:
            if name.startswith(("segue.dev/gate", "batch.kubernetes.io/")):
                raise wrong(f"labels.{name}", "...", "is set by Segue or Kubernetes", "leave it out")
        return self


class WebhookGate(Model):
    """An address in the worker's settings, by name; a spec cannot make the worker call another."""

    name: Name


class PluginGate(Model):
    """A Python entry point of the group ``segue.gates``, installed where the worker runs."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][-.A-Za-z0-9_]*$", max_length=128)
    given: dict[str, JsonValue] = Field(
        default_factory=dict, alias="with", max_length=64, description="Passed to the plugin unchanged."
    )
    timeout: Duration = timedelta(seconds=10)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.timeout <= MAX_PLUGIN_TIME:
            raise wrong("timeout", format_duration(self.timeout), "is out of range", "write 1s to 60s")
        size = len(json.dumps(self.given))
        if size > MAX_GIVEN:
            raise wrong("with", "...", f"has {size} characters as JSON", f"keep it within {MAX_GIVEN}")
        _refuse_secrets("with", self.given)
        return self


def _refuse_secrets(where: str, node: Any) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            fix = "name a file or a variable that the worker has, and read it in the plugin"
            refuse_literal_secret(f"{where}.{name}", name, value, fix)
            _refuse_secrets(f"{where}.{name}", value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _refuse_secrets(f"{where}[{index}]", value)


class OwnGate(GatePolicy):
    """One gate that you supply: exactly one of ``job``, ``webhook`` and ``plugin``."""

    job: JobGate | None = None
    webhook: WebhookGate | None = None
    plugin: PluginGate | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        kinds = {"job": self.job, "webhook": self.webhook, "plugin": self.plugin}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) != 1:
            why = f"gives {' and '.join(given)}" if given else "has no job, webhook or plugin"
            raise wrong("name", self.name, why, f"give exactly one of {', '.join(kinds)}")
        return self
