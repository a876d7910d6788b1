"""The worker's settings: ``SEGUE_...`` in the environment, over a TOML file named by ``SEGUE_SETTINGS``.

Connections are not among them. The SDK reads ``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, TLS, API keys and its own
TOML profiles itself. ``KUBECONFIG``, or the pod's service account, configures the connection to the cluster.
"""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from activities.gates.prometheus import PrometheusSettings
from segue.clusters import Access
from segue.contract import TASK_QUEUE
from segue.errors import NotFound, Refused
from segue.files import POLICY, read_document
from segue.gates.webhook_settings import Webhook
from segue.notices import Receiver
from segue.policy import NO_POLICY, Policy, policy_of
from segue.spec.base import ClusterName
from segue.spec.refusals import refused
from segue.supervision import Supervision
from worker.limits import memory_limit_mib, slots

_VERSION = {"deployment_name": "TEMPORAL_DEPLOYMENT_NAME", "build_id": "TEMPORAL_WORKER_BUILD_ID"}
"""The variables that temporal-worker-controller sets on the workers that it runs."""


class Credential(BaseModel):
    """A header that authenticates the worker; sent to the replicas of every target whose spec names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: SecretStr
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]{1,64}$")

    @field_validator("value")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        """Leave out a last line break, and refuse what no request can carry: each new pod would seem not to serve."""
        text = value.get_secret_value().strip()
        if not text or not text.isprintable():
            raise ValueError("is not one line of text; write the header's value, such as Bearer …")
        return SecretStr(text)

    @property
    def pair(self) -> tuple[str, str]:
        """The header's name and value."""
        return self.header, self.value.get_secret_value()


class Settings(BaseSettings):
    """All settings of a worker. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_", extra="forbid", frozen=True)

    task_queue: str = Field(default=TASK_QUEUE, min_length=1, max_length=1_000)
    health_address: str = Field(default="127.0.0.1:0", description="host:port of /healthz, /readyz and /metrics")
    sdk_metrics_address: str = Field(default="", description="IP:port for the Temporal SDK's own Prometheus metrics")
    otlp_endpoint: str = Field(default="", description="OTLP/gRPC collector for traces and metrics; empty for none")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_format: str = Field(default="json", pattern="^(json|text)$")
    max_cached_workflows: int | None = Field(
        default=None, ge=0, le=10_000, description="Workflows kept in memory; by default one for each slot"
    )
    max_concurrent_activities: int | None = Field(
        default=None, ge=10, le=10_000, description="Slots: each rollout uses one. By default as many as fit in memory"
    )
    moves_at_once: int = Field(
        default=8, ge=1, le=1_000, description="Moves between their decision and their write; further moves wait"
    )
    graceful_shutdown_s: float = Field(default=30.0, ge=0, le=86_400)
    deployment_name: str = Field(default="", description="Temporal worker deployment; empty for an unversioned worker")
    supervised: dict[str, Supervision] = Field(
        default_factory=dict, description="Custom resources that their own operator rolls, by the name that specs use"
    )
    clusters: dict[ClusterName, Access] = Field(
        default_factory=dict, max_length=50,
        description="Clusters, by the name that specs use; without any, the worker rolls what names no cluster",
    )  # fmt: skip
    webhooks: dict[str, Webhook] = Field(
        default_factory=dict, description="Webhooks that gates may call, by the name that specs use"
    )
    notifications: dict[str, Receiver] = Field(
        default_factory=dict, max_length=50, description="Receivers of notifications, by the name that specs use"
    )
    temporal_ui: str = Field(default="", description="Address of the Temporal UI, for links in notifications")
    prometheus: dict[str, PrometheusSettings] = Field(
        default_factory=dict, max_length=20, description="Prometheus servers, by the name that specs use"
    )
    pod_access: Literal["auto", "direct", "proxy"] = Field(
        default="auto",
        description="How to reach pods: at their address, or through the API server; auto is direct inside a cluster",
    )
    serving_credentials: dict[str, Credential] = Field(
        default_factory=dict,
        description="Headers that serving checks and load states may send, by the name that specs use",
    )
    policy: str = Field(default="", description="File of the policy (YAML); empty for none")
    build_id: str = Field(default="", description="This build within the worker deployment")

    @field_validator("clusters")
    @classmethod
    def _one_default(cls, clusters: dict[str, Access]) -> dict[str, Access]:
        defaults = [name for name, each in clusters.items() if each.default]
        if len(defaults) > 1:
            raise ValueError(f"only one cluster can be the default, not {' and '.join(defaults)}")
        return clusters

    @cached_property
    def slots(self) -> int:
        """How many activities run at one time, in all clusters together.

        Raises:
            Refused: when the setting does not fit into the worker's memory.
        """
        return slots(self.max_concurrent_activities, memory_limit_mib())

    @property
    def slots_each(self) -> int:
        """How many of them each cluster has, and targets that name none: they share the memory that slots need."""
        shares = len(self.clusters) + any(each.default for each in self.clusters.values())
        return max(1, self.slots // max(1, shares))

    @cached_property
    def the_policy(self) -> Policy:
        """The policy in the file that ``policy`` names.

        Raises:
            Refused: naming file, field, value and fix.
        """
        return read_policy(self.policy) if self.policy else NO_POLICY

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Read the environment first, then what temporal-worker-controller sets, then the file."""
        path = os.environ.get("SEGUE_SETTINGS")
        file = (TomlConfigSettingsSource(settings_cls, path),) if path else ()
        given = {name: os.environ[variable] for name, variable in _VERSION.items() if os.environ.get(variable)}
        return (init_settings, env_settings, InitSettingsSource(settings_cls, given), *file)


def read_policy(path: str) -> Policy:
    """Return the policy in a file.

    Raises:
        Refused: naming file, field, value and fix.
    """
    try:
        return policy_of(read_document(path, POLICY), path)
    except NotFound as error:
        raise Refused("does not exist", field="SEGUE_POLICY", value=path, fix="name a file, or unset it") from error


_UNREADABLE = re.compile(r'value for field "(\w+)"')
"""Where pydantic's message names the setting that is not JSON."""


_SECRETIVE = {"serving_credentials", "webhooks", "notifications"}
"""Settings whose values are secrets, or addresses that hold one."""
_MISPLACED = {"secret_setting", "extra_forbidden", "model_type", "dict_type"}
"""Errors of a value in a wrong place, such as a token where the name of its file belongs."""


def _may_be_secret(error: str, loc: Sequence[int | str]) -> bool:
    """Whether the wrong value may be, or hold, a secret: the worker's log would keep it."""
    return error in _MISPLACED or (len(loc) > 1 and loc[0] in _SECRETIVE)


def load_settings() -> Settings:
    """Return the worker's settings.

    Raises:
        Refused: naming the setting, its value and the fix.
    """
    path = os.environ.get("SEGUE_SETTINGS")
    if path and not os.path.isfile(path):  # noqa: PTH113 - a string from the environment
        raise Refused("is not a file", field="SEGUE_SETTINGS", value=path, fix="name a TOML file, or unset it")
    try:
        settings = Settings()
        _ = settings.the_policy
    except ValidationError as error:
        first = error.errors()[0]
        wrong = refused(first)
        name = "SEGUE_" + "_".join(str(p) for p in first["loc"] if p != "[key]").upper()
        shown = None if _may_be_secret(first["type"], first["loc"]) else wrong.value
        fix = f"{wrong.fix}{'; ' * bool(wrong.fix)}docs/operating.md lists all settings"
        # Pydantic's own error is not chained: a traceback of it would print every value.
        raise Refused(wrong.why, field=name, value=shown, fix=fix) from None
    except SettingsError as error:
        # Neither the text nor the value is repeated: it may hold a secret.
        named = _UNREADABLE.search(str(error))
        field = f"SEGUE_{named[1].upper()}" if named else "SEGUE_SETTINGS"
        raise Refused("is not JSON", field=field, fix="correct it; docs/operating.md shows its form") from error
    except OSError as error:
        fix = "name a file that this process may read"
        raise Refused(f"cannot be read: {error.strerror}", field="SEGUE_SETTINGS", value=path, fix=fix) from error
    except ValueError as error:
        raise Refused(f"cannot be read: {error}", field="SEGUE_SETTINGS", value=path, fix="write valid TOML") from error
    return settings
