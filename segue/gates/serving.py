"""Serving checks: what a new replica is asked before it is believed, and what its answers must be.

Ready is what a pod says of itself; serving is that it answers as users will ask it. Pure: requests are made in
``activities/probes`` (a file a protocol), and sent by ``activities/gates``.
"""

import json
import math
import re
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Self

import jsonpath_rfc9535
import regex
from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from segue.observation import Cause, Problem, Version
from segue.specmodel import Model, Name, wrong
from segue.units import Duration, format_duration

TAG = "{tag}"
MAX_TIMEOUT, MAX_BACKOFF = timedelta(minutes=5), timedelta(minutes=1)
MAX_BODY = 16_384
"""Characters of a request's body: a spec is repeated in a workflow's history."""
MAX_TOLD = 300
MATCH_S = 0.2
"""How long an expression of a spec may look at an answer: some never end."""

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


# --- what is expected of the version that is wanted ------------------------------------------------------


def tag_of(image: str) -> str:
    """Return the tag of an image's name; empty for one that has none. A digest is no tag."""
    name = image.partition("@")[0].rpartition("/")[2]
    return name.partition(":")[2]


def wanted_tag(serving: Serving, wanted: Version) -> str:
    """Return what ``{tag}`` stands for: empty where nothing needs it.

    Raises:
        ValueError: naming the field, why it has no tag, and the fix.
    """
    if not serving.names_tag:
        return ""
    images, container = wanted.images, serving.container
    if container is None and len(images) == 1:
        [container] = images
    if container is None or container not in images:
        known = ", ".join(sorted(images)) or "none"
        shown = f"{container!r}: is no container of the target" if container else "is missing, and {tag} needs it"
        raise ValueError(f"spec.serving.container: {shown}; name one of: {known}")
    tag = tag_of(images[container])
    if not tag:
        why = f"its image {images[container]} has no tag"
        raise ValueError(f"spec.serving.container: {container!r}: {why}; write the version instead of {{tag}}")
    return tag


@lru_cache(maxsize=256)
def _resolved(checks: str, tag: str) -> tuple[Check, ...]:
    found = json.loads(checks)
    return tuple(Check.model_validate_json(json.dumps(_replaced(check, tag))) for check in found)


def resolved(serving: Serving, tag: str) -> tuple[Check, ...]:
    """Return the checks with ``{tag}`` replaced, wherever it stands in a text."""
    if not tag:
        return serving.checks
    dumped = [c.model_dump(mode="json", by_alias=True, exclude_unset=True) for c in serving.checks]
    return _resolved(json.dumps(dumped), tag)


def _replaced(value: Any, tag: str) -> Any:
    if isinstance(value, str):
        return value.replace(TAG, tag)
    if isinstance(value, list):
        return [_replaced(item, tag) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, tag) for key, item in value.items()}
    return value


# --- what came back, and what it means ---------------------------------------------------------------------


class Reply(NamedTuple):
    """What came back of one request."""

    status: int = 0
    """HTTP status; 0 where none came."""
    text: str = ""
    took_s: float = 0.0
    first_s: float | None = None
    """Until the first event of a stream."""
    trouble: str = ""
    """Why the server gave no answer: refused, timed out, broken off."""
    unasked: str = ""
    """Why it could not even be asked: no right, no API server. It says nothing of the replica."""


class Told(NamedTuple):
    """What an answer says in its protocol."""

    document: Any = None
    model: str | None = None
    version: str | None = None
    loading: str = ""
    """Why it cannot serve yet, in its own words."""
    broken: str = ""
    """What its protocol does not allow."""


class Wanted(NamedTuple):
    """What an answer must be."""

    expect: Expected = Expected()
    model: str | None = None
    version: str | None = None
    first_token_s: float | None = None


class Sort(StrEnum):
    """What an answer is worth."""

    SERVES = "serves"
    LOADING = "loading"
    """It is not at fault: it says itself that it cannot serve yet."""
    WRONG = "wrong"
    SILENT = "silent"
    """No answer at all: it may have just ended, and its pod will tell why."""
    UNASKED = "unasked"
    """Nobody could ask it."""


class Finding(NamedTuple):
    """What one answer, or all of them, are worth, with the reason for a person."""

    sort: Sort
    why: str = ""

    @property
    def problem(self) -> Problem:
        """What is wrong, as far as it is known now: nobody is hopeless for one answer."""
        cause = Cause.LOADING if self.sort is Sort.LOADING else Cause.SERVING
        return Problem(cause=cause, message=self.why)


SERVES = Finding(Sort.SERVES)


def judge(asked: str, wanted: Wanted, reply: Reply, told: Told) -> Finding:
    """Judge one answer; ``asked`` is what was asked, in a few words. The first thing that is wrong is told."""
    if reply.unasked:
        return Finding(Sort.UNASKED, bounded(f"{asked} could not be asked: {reply.unasked}"))
    if reply.trouble:
        return Finding(Sort.SILENT, bounded(f"{asked}: {reply.trouble}"))
    if told.loading:
        return Finding(Sort.LOADING, bounded(f"{asked} says that it loads: {told.loading}"))
    why = next((why for why in _faults(wanted, reply, told) if why), "")
    return Finding(Sort.WRONG, bounded(f"{asked} {why}")) if why else SERVES


def _faults(wanted: Wanted, reply: Reply, told: Told) -> Iterable[str]:
    """What is wrong, each with what was there: in the order in which a person would look."""
    expect = wanted.expect
    yield "" if reply.status == expect.status else f"answered {reply.status}, not {expect.status}: {reply.text}"
    yield told.broken and f"answered {told.broken}: {reply.text}"
    yield _differs("model", wanted.model, told.model)
    yield _differs("version", wanted.version, told.version)
    for value in expect.values:
        yield _value_fault(value, told.document)
    yield (
        "" if _matches(expect.matches, reply.text) else f"answered what does not match {expect.matches!r}: {reply.text}"
    )
    yield _late("answered", expect.within.total_seconds() if expect.within else None, reply.took_s)
    yield _late("gave the first token", wanted.first_token_s, reply.first_s)


def _differs(what: str, wanted: str | None, told: str | None) -> str:
    if wanted is None or wanted == told:
        return ""
    return f"answered as {what} {told!r}, not {wanted!r}" if told else f"tells no {what}; {wanted!r} is expected"


def _late(what: str, allowed_s: float | None, took_s: float | None) -> str:
    if allowed_s is None:
        return ""
    if took_s is None:
        return "gave no token"
    return f"{what} after {took_s:.3f} s; {allowed_s:g} s are allowed" if took_s > allowed_s else ""


def _value_fault(wanted: JsonValue, document: Any) -> str:
    """Say how one value differs; empty when it is as wanted."""
    found = jsonpath_rfc9535.compile(wanted.path).find(document).values() if document is not None else []
    if not found:
        return f"answered without {wanted.path}: {shown(document)}"
    [value] = found
    head = f"answered {wanted.path} = {shown(value)}"
    if wanted.matches is not None:
        text = value if isinstance(value, str) else json.dumps(value)
        return "" if _matches(wanted.matches, text) else f"{head}, which does not match {wanted.matches!r}"
    if wanted.near is not None:
        numbers = _numbers(value)
        near = bool(numbers) and all(abs(n - wanted.near) <= wanted.tolerance for n in numbers)
        return "" if near else f"{head}, not {wanted.near:g} ± {wanted.tolerance:g}"
    if wanted.shape is not None:
        shape = shape_of(value)
        fits = len(shape) == len(wanted.shape) and all(w in (-1, s) for w, s in zip(wanted.shape, shape, strict=True))
        return "" if fits else f"answered {wanted.path} of shape {shape}, not {wanted.shape}"
    same = value == wanted.equals and isinstance(value, bool) == isinstance(wanted.equals, bool)
    return "" if same else f"{head}, not {shown(wanted.equals)}"


def _numbers(value: Any) -> list[float]:
    """All numbers of a value or of a list, at any depth; none where anything else is among them."""
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        return []
    if not isinstance(value, list):
        return [float(value)]
    below = [_numbers(item) for item in value]
    return [n for numbers in below for n in numbers] if all(below) else []


def shape_of(value: Any) -> list[int]:
    """The lengths of nested lists, by the first of each: ``[[1, 2], [3, 4], [5, 6]]`` is ``[3, 2]``."""
    return [len(value), *(shape_of(value[0]) if value else [])] if isinstance(value, list) else []


def _matches(pattern: str | None, text: str) -> bool:
    if pattern is None:
        return True
    try:
        return regex.search(pattern, text, timeout=MATCH_S) is not None
    except TimeoutError:
        return False


def shown(value: Any) -> str:
    """A value in so few characters that a person can read it at a glance."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def bounded(text: str) -> str:
    """A text on one line, and not too long for a history."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TOLD else f"{line[: MAX_TOLD - 3]}..."
