"""Serving checks, as a spec writes them: the requests to a new replica and the answers that it must give."""

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
"""Characters of a request's body: a spec is repeated in a workflow's history."""


_OUTSIDE = re.compile(r"(^|/)\.\.?(/|$)|%2e|%2f", re.IGNORECASE)


def _port(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= 65_535:
        raise PydanticCustomError("port", "is no port; write 1 to 65535, or a container port's name")
    return value


Port = Annotated[int | Name, BeforeValidator(_port)]
Path = Annotated[str, StringConstraints(pattern=r"^/[!$&-;=?-Z_a-z~{}%]*$", max_length=1024)]
"""Begins with a slash, and cannot name another host or leave its place (``Asks`` refuses dots as segments)."""
UrlName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9{][A-Za-z0-9._:@{}-]*$", max_length=256)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9{][A-Za-z0-9._:@/{}-]*$", max_length=256)]
VersionText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class JsonValue(Model):
    """What one value of an answer in JSON must be."""

    path: Annotated[str, StringConstraints(max_length=256)] = Field(
        description="JSONPath (RFC 9535) of one value, such as $.outputs[0].data[0]."
    )
    equals: Any = Field(default=None, description="The value itself; null is written `matches: ^null$`.")
    matches: Pattern | None = Field(default=None, description="A regular expression for the value as text.")
    near: float | None = Field(default=None, description="A number, or of a list all of its numbers.")
    tolerance: float = Field(default=0.0, ge=0, description="How far it may be from `near`.")
    shape: list[int] | None = Field(
        default=None, max_length=16, description="The lengths of nested lists; -1 for any length."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        _refuse_path(self.path)
        given = [v for v in (self.equals, self.matches, self.near, self.shape) if v is not None]
        if len(given) != 1:
            raise ValueError("is not one question; give exactly one of equals, matches, near and shape")
        _refuse_pattern("matches", self.matches)
        for field, number in (("near", self.near), ("tolerance", self.tolerance)):
            if number is not None and not math.isfinite(number):
                raise wrong(field, number, "is no number to compare with", "write a finite one")
        return self


def _refuse_path(path: str) -> None:
    try:
        query = jsonpath_rfc9535.compile(path)
    except (jsonpath_rfc9535.JSONPathError, ValueError) as error:
        raise wrong("path", path, f"is no JSONPath ({str(error)[:80]})", "write one such as $.model_name") from error
    if not query.singular_query():
        raise wrong("path", path, "can name several values", "name one, such as $.data[0].id")


def _refuse_pattern(field: str, pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise wrong(field, pattern, f"is no regular expression ({error})", "correct it") from error


class Expected(Model):
    """What an answer must be, beside what its protocol says already."""

    status: int = Field(default=200, ge=100, le=599)
    values: tuple[JsonValue, ...] = Field(default=(), alias="json", max_length=20, strict=False)
    matches: Pattern | None = Field(default=None, description="A regular expression for the whole answer.")
    within: Duration | None = Field(default=None, description="How long the whole answer may take.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _refuse_pattern("matches", self.matches)
        if self.within is not None and not timedelta(0) < self.within <= MAX_TIMEOUT:
            raise wrong("within", format_duration(self.within), "is out of range", "write 1ms to 5m")
        return self


class Asks(Model):
    """What all protocols have."""

    expect: Expected = Field(default_factory=Expected)

    @model_validator(mode="after")
    def _small(self) -> Self:
        size = len(json.dumps(self.model_dump(mode="json")))
        if size > MAX_BODY:
            raise ValueError(f"is {size} characters long; keep the whole of it within {MAX_BODY}")
        return self


class OpenInference(Asks):
    """The Open Inference Protocol v2 over HTTP: KServe, MLServer, Triton, OpenVINO."""

    model: UrlName
    version: VersionText | None = Field(default=None, description="What `model_version` must be.")
    request: dict[str, Any] | None = Field(
        default=None, description="Body of an inference; without it, the model's metadata are asked for."
    )


class TorchServe(Asks):
    """TorchServe: a prediction, and by its management API the version that serves it."""

    model: UrlName
    version: VersionText | None = Field(default=None, description="What `modelVersion` must be.")
    request: Any = Field(default=None, description="Body of a prediction: JSON, or text.")
    management: Port | None = Field(default=None, description="Port of the management API, where it may be asked.")
    management_credential: Name | None = Field(
        default=None,
        alias="managementCredential",
        description="What the management API needs, where that is another than `serving.credential`.",
    )

    @model_validator(mode="after")
    def _tells(self) -> Self:
        if self.version is not None and self.management is None:
            raise wrong("version", self.version, "is told by the management API only", "write `management: 8081`")
        if self.management_credential is not None and self.management is None:
            why = "is for the management API, which is not asked"
            raise wrong("managementCredential", self.management_credential, why, "write `management: 8081`")
        return self


class TfServing(Asks):
    """TensorFlow Serving's REST API."""

    model: UrlName
    version: VersionText | None = Field(default=None, description="The version that must be AVAILABLE.")
    request: dict[str, Any] | None = Field(default=None, description="Body of a prediction.")


class OpenAI(Asks):
    """What answers as OpenAI's API does: vLLM, TGI, SGLang, llama.cpp."""

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
            raise wrong("firstToken", format_duration(self.first_token), "is of a stream", "write `stream: true`")
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
    body: Any = Field(default=None, description="JSON, or text.")

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
                why = "may carry a secret, or lead elsewhere"
                raise wrong(f"headers.{name}", "***", why, "use `serving.credential`, by the worker's settings")
        return self


_PROTOCOLS = ("openInference", "torchServe", "tfServing", "openAI", "http")


class Check(Model):
    """One question, in one protocol."""

    name: Name | None = None
    open_inference: OpenInference | None = Field(default=None, alias="openInference")
    torch_serve: TorchServe | None = Field(default=None, alias="torchServe")
    tf_serving: TfServing | None = Field(default=None, alias="tfServing")
    open_ai: OpenAI | None = Field(default=None, alias="openAI")
    http: Http | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.given) != 1:
            raise ValueError(f"is not one question; give exactly one of {', '.join(_PROTOCOLS)}")
        return self

    @property
    def given(self) -> list[Asks]:
        """The protocols that are written."""
        each = (self.open_inference, self.torch_serve, self.tf_serving, self.open_ai, self.http)
        return [asks for asks in each if asks is not None]

    @property
    def asks(self) -> Asks:
        """The one question."""
        return self.given[0]


class Serving(Model):
    """What a new replica is asked before it is believed, at the pod itself."""

    checks: tuple[Check, ...] = Field(min_length=1, max_length=10, strict=False)
    port: Port = Field(default=8080, description="Of the pod: a number, or a container port's name.")
    scheme: Literal["http", "https"] = Field(
        default="http", description="https: encrypted, and not verified, as pods have no names of their own."
    )
    container: Name | None = Field(
        default=None, description="Whose image's tag `{tag}` is; may be left out where there is only one."
    )
    warmup: int = Field(default=0, ge=0, le=1000, description="Requests to begin with whose answers do not count.")
    requests: int = Field(default=1, ge=1, le=100, description="Requests that count; every answer must be right.")
    tries: int = Field(default=3, ge=1, le=20, description="So many failed tries in a row fail the version.")
    backoff: Duration = Field(default=timedelta(seconds=1), description="Between two tries; it doubles each time.")
    timeout: Duration = Field(default=timedelta(seconds=10), description="Of each request.")
    credential: Name | None = Field(
        default=None, description="A credential in the worker's settings, by its name there."
    )

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
