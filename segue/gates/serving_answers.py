"""Judges what a new replica answers to serving checks. Pure.

``activities/probes`` builds the requests (one file for each protocol); ``activities/gates`` sends them.
"""

import json
import math
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import jsonpath_rfc9535
import regex

from segue.observation import Cause, Problem, Version
from segue.spec.serving import TAG, Check, Expected, JsonValue, Serving

MAX_TOLD = 300
MATCH_S = 0.2
"""Time limit for matching an answer: some regular expressions practically never end."""


def tag_of(image: str) -> str:
    """Return the tag of an image's name; empty if it has none. A digest is not a tag."""
    name = image.partition("@")[0].rpartition("/")[2]
    return name.partition(":")[2]


def wanted_tag(serving: Serving, wanted: Version) -> str:
    """Return the value of ``{tag}``; empty if no check uses it.

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
        shown = f"{container!r}: is not a container of the target" if container else "is missing, and {tag} needs it"
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
    """Return the checks with ``{tag}`` replaced in all texts."""
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


# --- replies, and what they mean ---------------------------------------------------------------------------


class Reply(NamedTuple):
    """The reply to one request."""

    status: int = 0
    """HTTP status; 0 if no response arrived."""
    text: str = ""
    took_s: float = 0.0
    first_s: float | None = None
    """Seconds until the first event of a stream."""
    trouble: str = ""
    """Why the server sent no answer: refused, timed out, broken off."""
    unsent: str = ""
    """Why the request could not be sent: no right, no API server. It is not evidence about the replica."""


class ParsedReply(NamedTuple):
    """The content of an answer, read by its protocol."""

    document: Any = None
    model: str | None = None
    version: str | None = None
    loading: str = ""
    """Why the server cannot serve yet, in its own words."""
    broken: str = ""
    """How the answer violates its protocol."""


class ExpectedAnswer(NamedTuple):
    """The expected answer."""

    expect: Expected = Expected()
    model: str | None = None
    version: str | None = None
    first_token_s: float | None = None


class Sort(StrEnum):
    """The result of one answer."""

    SERVES = "serves"
    LOADING = "loading"
    """Not a fault: the server reports that it cannot serve yet."""
    WRONG = "wrong"
    SILENT = "silent"
    """No answer: the container may have just ended, and its pod will report why."""
    UNSENT = "unsent"
    """The request could not be sent."""


class AnswerFinding(NamedTuple):
    """The result of one answer, or of all, with the reason for a person."""

    sort: Sort
    why: str = ""

    @property
    def problem(self) -> Problem:
        """The problem as known so far. One answer alone never makes a replica hopeless."""
        cause = Cause.LOADING if self.sort is Sort.LOADING else Cause.SERVING
        return Problem(cause=cause, message=self.why)


SERVES = AnswerFinding(Sort.SERVES)


def judge(request: str, wanted: ExpectedAnswer, reply: Reply, parsed: ParsedReply) -> AnswerFinding:
    """Judge one answer, and return the first fault. ``request`` names the request in a few words."""
    if reply.unsent:
        return AnswerFinding(Sort.UNSENT, bounded(f"{request} could not be sent: {reply.unsent}"))
    if reply.trouble:
        return AnswerFinding(Sort.SILENT, bounded(f"{request}: {reply.trouble}"))
    if parsed.loading:
        return AnswerFinding(Sort.LOADING, bounded(f"{request} reports that it is loading: {parsed.loading}"))
    why = next((why for why in _faults(wanted, reply, parsed) if why), "")
    return AnswerFinding(Sort.WRONG, bounded(f"{request} {why}")) if why else SERVES


def _faults(wanted: ExpectedAnswer, reply: Reply, parsed: ParsedReply) -> Iterable[str]:
    """Yield each fault with the actual value, in the order in which a person would check."""
    expect = wanted.expect
    yield "" if reply.status == expect.status else f"answered {reply.status}, not {expect.status}: {reply.text}"
    yield parsed.broken and f"answered {parsed.broken}: {reply.text}"
    yield _differs("model", wanted.model, parsed.model)
    yield _differs("version", wanted.version, parsed.version)
    for value in expect.values:
        yield _value_fault(value, parsed.document) if _is_json(parsed, reply) else f"answered no JSON: {reply.text}"
    yield (
        "" if _matches(expect.matches, reply.text) else f"answered what does not match {expect.matches!r}: {reply.text}"
    )
    yield _late("answered", expect.within.total_seconds() if expect.within else None, reply.took_s)
    yield _late("returned the first token", wanted.first_token_s, reply.first_s)


def _is_json(parsed: ParsedReply, reply: Reply) -> bool:
    return parsed.document is not None or reply.text.strip() == "null"


def _differs(what: str, wanted: str | None, actual: str | None) -> str:
    if wanted is None or wanted == actual:
        return ""
    return f"answered as {what} {actual!r}, not {wanted!r}" if actual else f"names no {what}; expected {wanted!r}"


def _late(what: str, allowed_s: float | None, took_s: float | None) -> str:
    if allowed_s is None:
        return ""
    if took_s is None:
        return "returned no token"
    return f"{what} after {took_s:.3f} s; {allowed_s:g} s are allowed" if took_s > allowed_s else ""


def _value_fault(wanted: JsonValue, document: Any) -> str:
    """Return how one value differs from the expected one; empty if it does not."""
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
    """Return all numbers of a value or a list, at any depth; an empty list if anything else is in it."""
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        return []
    if not isinstance(value, list):
        return [_as_float(value)]
    below = [_numbers(item) for item in value]
    return [n for numbers in below for n in numbers] if all(below) else []


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON has whole numbers of any length
        return math.inf


def shape_of(value: Any) -> list[int]:
    """Return the lengths of nested lists, by the first item of each: ``[[1, 2], [3, 4], [5, 6]]`` is ``[3, 2]``."""
    return [len(value), *(shape_of(value[0]) if value else [])] if isinstance(value, list) else []


def _matches(pattern: str | None, text: str) -> bool:
    if pattern is None:
        return True
    try:
        return regex.search(pattern, text, timeout=MATCH_S) is not None
    except TimeoutError:
        return False


def shown(value: Any) -> str:
    """Return a value as JSON, shortened to 120 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def bounded(text: str) -> str:
    """Return a text on one line, shortened to at most ``MAX_TOLD`` characters for the history.

    JSON may hold half of a character (a server may cut a token's text there), which no history can hold.
    """
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= MAX_TOLD else f"{line[: MAX_TOLD - 3]}..."
