"""Load failures in a spec: which models of a new replica may fail to load."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from segue.spec.base import Model, Name, wrong
from segue.spec.serving import Port, UrlName
from segue.units import Duration, format_duration

MAX_PERIOD = timedelta(hours=1)


_PORTS = {"openInference": 8080, "torchServe": 8081, "tfServing": 8501, "modelMesh": 2112}
_TLS = {"modelMesh"}


class LoadFailures(Model):
    """Which models of new replicas may fail to load, and where the replicas report it."""

    protocol: Literal["openInference", "torchServe", "tfServing", "modelMesh"] = Field(
        description="Where replicas report: repository index, management API, model status, or ModelMesh's metrics."
    )
    port: Port | None = Field(
        default=None,
        description="Port of the pod: a number, or a container port's name. Default: the protocol's own: "
        "openInference 8080, torchServe 8081, tfServing 8501, modelMesh 2112.",
    )
    scheme: Literal["http", "https"] | None = Field(
        default=None, description="Default: https for modelMesh, http otherwise. Certificates are not verified."
    )
    credential: Name | None = Field(default=None, description="Name of a credential in the worker's settings.")
    models: tuple[UrlName, ...] = Field(
        default=(), max_length=100, strict=False, description="tfServing only: the models whose states are requested."
    )
    bootstrap_period: Duration = Field(
        default=timedelta(seconds=180),
        alias="bootstrapPeriod",
        description="Time after a replica's start in which load failures count.",
    )
    critical_limit: int = Field(
        default=2, alias="criticalLimit", ge=0, le=10_000, description="Critical failures that a replica may have."
    )
    general_limit: int = Field(
        default=20,
        alias="generalLimit",
        ge=0,
        le=100_000,
        description="Load outcomes up to which the share of failures is not judged.",
    )
    load_timeout: Duration = Field(
        default=timedelta(seconds=90), alias="loadTimeout", description="How long one load may take."
    )
    known_after: Duration = Field(
        default=timedelta(minutes=30),
        alias="knownAfter",
        description="How long a model must have failed on other replicas for its failures not to count.",
    )
    interval: Duration = Field(default=timedelta(seconds=3), description="Time between two reads of a replica.")

    @property
    def place(self) -> tuple[Port, str]:
        """The port and the scheme at which the states are reported."""
        scheme = self.scheme or ("https" if self.protocol in _TLS else "http")
        return self.port if self.port is not None else _PORTS[self.protocol], scheme

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for name, shortest, longest, fix in (
            ("bootstrap_period", timedelta(seconds=1), MAX_PERIOD, "write 1s to 1h"),
            ("load_timeout", timedelta(0), MAX_PERIOD, "write 0s to 1h"),
            ("known_after", timedelta(0), timedelta(days=1), "write 0s to 24h"),
            ("interval", timedelta(seconds=1), timedelta(minutes=1), "write 1s to 1m"),
        ):
            value: timedelta = getattr(self, name)
            if not shortest <= value <= longest:
                field_name = LoadFailures.model_fields[name].alias or name
                raise wrong(field_name, format_duration(value), "is out of range", fix)
        if (self.protocol == "tfServing") != bool(self.models):
            why, fix = ("are required: tfServing lists none", "name the models") if not self.models else (
                f"are not for {self.protocol}", "leave them out: it lists its own")  # fmt: skip
            raise wrong("models", list(self.models) or None, why, fix)
        return self
