"""What all protocols share: a request, how to read its answer, and the expected answer."""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from segue.gates.serving_answers import ExpectedAnswer, ParsedReply, Reply, bounded
from segue.spec.serving import Port


class ProbeRequest(NamedTuple):
    """One HTTP request to a pod."""

    method: str
    path: str
    body: Any = None
    """JSON or text."""
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False
    port: Port | None = None
    """A port other than that of the whole check."""
    credential: str | None = None
    """A credential other than that of the whole check, by its name in the worker's settings."""
    limit: int = 1_048_576
    """The most bytes of the answer to read."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


Read = Callable[[Reply], ParsedReply]

REFUSALS = frozenset({401, 403})
"""Statuses by which a server refuses the client. They do not mean that it is loading."""


class Step(NamedTuple):
    """One request to a replica, with the expected answer."""

    request: ProbeRequest
    read: Read
    wanted: ExpectedAnswer = ExpectedAnswer()
    repeats: bool = False
    """Whether it is a request as users send it: then it is also sent for warm-up, and several times."""


MAX_DEPTH = 100
"""The deepest JSON that is read: what judges it is recursive."""


def json_of(text: str) -> Any:
    """Return a text as JSON; None if it is not JSON, or nested too deeply."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if _is_too_deep(found) else found


def _is_too_deep(found: Any) -> bool:
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [item for each in level for item in _items(each)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def document_of(reply: Reply) -> Any:
    """Return the answer as JSON; None if it is not JSON, or nested too deeply."""
    return json_of(reply.text)


def parse_document(reply: Reply) -> ParsedReply:
    """Read any JSON answer. A server that reports that it is loading is trusted."""
    return ParsedReply(document=document_of(reply), loading=says_loading(reply))


def parse_object(reply: Reply) -> ParsedReply:
    """Read an answer that must be a JSON object if its status is a success."""
    parsed = parse_document(reply)
    is_answer = 200 <= reply.status < 300
    return parsed._replace(broken="no JSON object" if is_answer and not isinstance(parsed.document, dict) else "")


def says_loading(reply: Reply) -> str:
    """Return the server's words if it is loading: status 503 and *loading*, as from llama.cpp and others."""
    return bounded(reply.text) if reply.status == 503 and "loading" in reply.text.lower() else ""


def parse_ready(reply: Reply) -> ParsedReply:
    """Read a readiness answer: anything but 200 means not ready yet, except a refusal, which means nothing."""
    says = reply.status == 200 or reply.status in REFUSALS
    return ParsedReply(loading="" if says else bounded(f"status {reply.status} {reply.text}"))


def text_or_none(value: Any) -> str | None:
    """Return a name or a version as text; None if there is none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
