"""Serving checks in a spec: the requests to a new replica and the answers that it must give."""

import json
import math
import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

import jsonpath_rfc9535
import regex
from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from segue.spec.base import Model, Name, wrong
from segue.units import Duration, format_duration

TAG = "{tag}"
MAX_TIMEOUT, MAX_BACKOFF = timedelta(minutes=5), timedelta(minutes=1)
MAX_BODY = 16_384
"""The most characters of a request's body: a workflow's history repeats the spec."""


_OUTSIDE = re.compile(r"(^|/)\.\.?(/|$)|%2e|%2f", re.IGNORECASE)


def _port(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= 65_535:
        raise PydanticCustomError("port", "is not a port; write 1 to 65535, or a container port's name")
    return value


Port = Annotated[int | Name, BeforeValidator(_port)]
Path = Annotated[str, StringConstraints(pattern=r"^/[!$&-;=?-Z_a-z~{}%]*$", max_length=1024)]
"""Begins with a slash, and cannot name another host or leave its place (``Asks`` refuses dots as segments)."""
UrlName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9{][A-Za-z0-9._:@{}-]*$", max_length=256)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9{][A-Za-z0-9._:@/{}-]*$", max_length=256)]
VersionText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class JsonValue(Model):
    """What one value of a JSON answer must be."""

    path: Annotated[str, StringConstraints(max_length=256)] = Field(
        description="JSONPath (RFC 9535) of one value, such as $.outputs[0].data[0]."
    )
    equals: Any = Field(default=None, description="The exact value; for null, write `matches: ^null$`.")
    matches: Pattern | None = Field(default=None, description="A regular expression for the value as text.")
    near: float | None = Field(default=None, description="The expected number; for a list, of all its numbers.")
    tolerance: float = Field(default=0.0, ge=0, description="How far it may be from `near`.")
    shape: list[int] | None = Field(
        default=None, max_length=16, description="The lengths of nested lists; -1 is any length."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        _refuse_path(self.path)
        given = [v for v in (self.equals, self.matches, self.near, self.shape) if v is not None]
        if len(given) != 1:
            raise ValueError("is not one condition; give exactly one of equals, matches, near and shape")
        _refuse_pattern(self.matches)
        for field, number in (("near", self.near), ("tolerance", self.tolerance)):
            if number is not None and not math.isfinite(number):
                raise wrong(field, number, "is not finite", "write a finite number")
        return self


def _refuse_path(path: str) -> None:
    try:
        query = jsonpath_rfc9535.compile(path)
    except (jsonpath_rfc9535.JSONPathError, ValueError) as error:
        raise wrong("path", path, f"is not a JSONPath ({str(error)[:80]})", "write one such as $.model_name") from error
    if not query.singular_query():
        raise wrong("path", path, "can name several values", "name one, such as $.data[0].id")


def _refuse_pattern(pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise wrong("matches", pattern, f"is not a regular expression ({error})", "correct it") from error


class Expected(Model):
    """What an answer must be, in addition to what its protocol requires."""

    status: int = Field(default=200, ge=100, le=599)
    values: tuple[JsonValue, ...] = Field(default=(), alias="json", max_length=20, strict=False)
    matches: Pattern | None = Field(default=None, description="A regular expression for the whole answer.")
    within: Duration | None = Field(default=None, description="How long the whole answer may take.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _refuse_pattern(self.matches)
        if self.within is not None and not timedelta(0) < self.within <= MAX_TIMEOUT:
            raise wrong("within", format_duration(self.within), "is out of range", "write 1ms to 5m")
        return self


class Asks(Model):
    """What all protocols have in common."""

    expect: Expected = Field(default_factory=Expected)

    @model_validator(mode="after")
    def _small(self) -> Self:
        size = len(json.dumps(self.model_dump(mode="json")))
        if size > MAX_BODY:
            raise ValueError(f"is {size} characters long; keep all of it within {MAX_BODY}")
        return self


class OpenInference(Asks):
    """The Open Inference Protocol v2 over HTTP: KServe, MLServer, Triton, OpenVINO."""

    model: UrlName
    version: VersionText | None = Field(default=None, description="Required value of `model_version`.")
    request: dict[str, Any] | None = Field(
        default=None, description="Body of an inference; without it, the check requests the model's metadata."
    )


class TorchServe(Asks):
    """TorchServe: a prediction, and the version that its management API reports."""

    model: UrlName
    version: VersionText | None = Field(default=None, description="Required value of `modelVersion`.")
    request: Any = Field(default=None, description="Body of a prediction: JSON or text.")
    management: Port | None = Field(
        default=None, description="Port of the management API. Without it, Segue does not use that API."
    )
    management_credential: Name | None = Field(
        default=None,
        alias="managementCredential",
        description="Credential for the management API, if it differs from `serving.credential`.",
    )

    @model_validator(mode="after")
    def _tells(self) -> Self:
        if self.version is not None and self.management is None:
            raise wrong("version", self.version, "is reported only by the management API", "write `management: 8081`")
        if self.management_credential is not None and self.management is None:
            why = "is for the management API, which has no port here"
            raise wrong("managementCredential", self.management_credential, why, "write `management: 8081`")
        return self


class TfServing(Asks):
    """TensorFlow Serving's REST API."""

    model: UrlName
    version: VersionText | None = Field(default=None, description="The version that must be AVAILABLE.")
    request: dict[str, Any] | None = Field(default=None, description="Body of a prediction.")


class OpenAI(Asks):
    """Servers with OpenAI's API: vLLM, TGI, SGLang, llama.cpp."""

    model: ModelName
    endpoint: Literal["chat", "completions", "models"] = "chat"
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = "Hello"
    max_tokens: int = Field(default=1, alias="maxTokens", ge=1, le=256)
    stream: bool = Field(default=False, description="Read the answer as a stream, to its end.")
    first_token: Duration | None = Field(
        default=None, alias="firstToken", description="How long the first token of a stream may take."
    )

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.first_token is None:
            return self
        if not self.stream:
            raise wrong("firstToken", format_duration(self.first_token), "is for a stream", "write `stream: true`")
        if not timedelta(0) < self.first_token <= MAX_TIMEOUT:
            raise wrong("firstToken", format_duration(self.first_token), "is out of range", "write 1ms to 5m")
        return self


_HEADER = r"^[A-Za-z0-9-]{1,64}$"
_NOT_HERE = re.compile(r"authorization|cookie|token|secret|key|host|forwarded|impersonate", re.IGNORECASE)


class Http(Asks):
    """Any HTTP request."""

    method: Literal["GET", "POST", "PUT"] = "GET"
    path: Path
    headers: dict[Annotated[str, StringConstraints(pattern=_HEADER)],
                  Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$", max_length=1024)]] = Field(
        default_factory=dict, max_length=16
    )  # fmt: skip
    body: Any = Field(default=None, description="JSON or text.")

    @field_validator("path")
    @classmethod
    def _stays(cls, path: str) -> str:
        if _OUTSIDE.search(path):
            raise ValueError("has a segment of dots, or an escaped one; write the plain path")
        return path

    @model_validator(mode="after")
    def _open(self) -> Self:
        for name in self.headers:
            if _NOT_HERE.search(name):
                why = "may carry a secret or redirect the request"
                raise wrong(
                    f"headers.{name}", "***", why, "use `serving.credential`, which the worker's settings define"
                )
        return self


_PROTOCOLS = ("openInference", "torchServe", "tfServing", "openAI", "http")


class Check(Model):
    """One request, in one protocol."""

    name: Name | None = None
    open_inference: OpenInference | None = Field(default=None, alias="openInference")
    torch_serve: TorchServe | None = Field(default=None, alias="torchServe")
    tf_serving: TfServing | None = Field(default=None, alias="tfServing")
    open_ai: OpenAI | None = Field(default=None, alias="openAI")
    http: Http | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.given) != 1:
            raise ValueError(f"is not one request; give exactly one of {', '.join(_PROTOCOLS)}")
        return self

    @property
    def given(self) -> list[Asks]:
        """The protocols that are written."""
        each = (self.open_inference, self.torch_serve, self.tf_serving, self.open_ai, self.http)
        return [asks for asks in each if asks is not None]

    @property
    def asks(self) -> Asks:
        """The one request."""
        return self.given[0]


class Serving(Model):
    """The serving checks of a new replica, sent to the pod itself."""

    checks: tuple[Check, ...] = Field(min_length=1, max_length=10, strict=False)
    port: Port = Field(default=8080, description="Port of the pod: a number, or a container port's name.")
    scheme: Literal["http", "https"] = Field(
        default="http", description="https is encrypted but not verified, because pods have no names of their own."
    )
    container: Name | None = Field(
        default=None, description="The container whose image tag is `{tag}`; optional when there is only one."
    )
    warmup: int = Field(default=0, ge=0, le=1000, description="First requests, whose answers do not count.")
    requests: int = Field(default=1, ge=1, le=100, description="Requests that count; every answer must be correct.")
    tries: int = Field(default=3, ge=1, le=20, description="Failed tries in a row that fail the version.")
    backoff: Duration = Field(default=timedelta(seconds=1), description="Time between two tries; it doubles each time.")
    timeout: Duration = Field(default=timedelta(seconds=10), description="Timeout of each request.")
    credential: Name | None = Field(default=None, description="Name of a credential in the worker's settings.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(0) < self.timeout <= MAX_TIMEOUT:
            raise wrong("timeout", format_duration(self.timeout), "is out of range", "write 100ms to 5m")
        if self.backoff > MAX_BACKOFF:
            raise wrong("backoff", format_duration(self.backoff), "is over a minute", "write a shorter time")
        return self

    @property
    def names_tag(self) -> bool:
        """Whether an answer depends on the wanted image's tag."""
        return TAG in json.dumps([c.model_dump(mode="json") for c in self.checks])
