"""What all protocols have in common: a request, how its answer is read, and what it must say."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from segue.gates.serving_answers import Reply, Told, Wanted, bounded
from segue.spec.serving import Port


class Request(NamedTuple):
    """One HTTP request of a pod."""

    method: str
    path: str
    body: Any = None
    """JSON, or text."""
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False
    port: Port | None = None
    """Another than that of the whole check."""
    credential: str | None = None
    """Another than that of the whole check, by its name in the worker's settings."""
    limit: int = 1_048_576
    """Bytes of the answer that are read."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


Read = Callable[[Reply], Told]

REFUSALS = frozenset({401, 403})
"""Statuses by which a server refuses who asks: they do not say that it loads."""


class Step(NamedTuple):
    """One thing that is asked of a replica."""

    request: Request
    read: Read
    wanted: Wanted = Wanted()
    repeats: bool = False
    """Whether it is what users ask: then warm-ups and several requests are made of it."""


def document_of(reply: Reply) -> Any:
    """The answer as JSON; none when it is not."""
    try:
        return json.loads(reply.text)
    except (ValueError, RecursionError):
        return None


def told_document(reply: Reply) -> Told:
    """Read JSON in general; a server that says itself that it loads is believed."""
    return Told(document=document_of(reply), loading=says_loading(reply))


def told_object(reply: Reply) -> Told:
    """Read a protocol's answer that is a JSON object, where one may be expected."""
    told = told_document(reply)
    is_answer = 200 <= reply.status < 300
    return told._replace(broken="no JSON object" if is_answer and not isinstance(told.document, dict) else "")


def says_loading(reply: Reply) -> str:
    """Its own word that it loads: status 503 with such a word, as llama.cpp and others answer."""
    return bounded(reply.text) if reply.status == 503 and "loading" in reply.text.lower() else ""


def told_ready(reply: Reply) -> Told:
    """Read a question for readiness: anything but a plain yes says that it is not ready yet; a refusal says nothing."""
    says = reply.status == 200 or reply.status in REFUSALS
    return Told(loading="" if says else bounded(f"status {reply.status} {reply.text}"))


def text_or_none(value: Any) -> str | None:
    """A name or a version as text; none where there is none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
