"""Servers with OpenAI's API: models, chat and completions, whole or streamed.

https://platform.openai.com/docs/api-reference/chat
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from activities.probes.base import (
    ProbeRequest,
    Read,
    Step,
    document_of,
    json_of,
    parse_object,
    says_loading,
    text_or_none,
)
from segue.gates.serving_answers import ExpectedAnswer, ParsedReply, Reply
from segue.spec.serving import Expected, OpenAI

_DONE = "[DONE]"
_LINE_END = re.compile(r"\r\n|\n|\r")
"""The line ends of server-sent events. A text may hold others, such as U+2028, which JSON needs not escape."""
_ERROR_LINES = ("event:error", "error:")
"""How a line of a stream begins, without spaces, if the data after it, or the line itself, is an error."""
_GIVEN_UP = ("error", "abort")
"""Values of ``finish_reason`` by which a server says that it gave the answer up."""
_TEXTS = ("content", "text", "reasoning_content", "reasoning")


def steps(asks: OpenAI) -> list[Step]:
    """Return the requests for the list of models and one short answer."""
    is_last = asks.endpoint == "models"
    listed = ExpectedAnswer(asks.expect if is_last else Expected(), asks.model)
    models = Step(ProbeRequest("GET", "/v1/models"), _models(asks.model), listed, repeats=is_last)
    if is_last:
        return [models]
    first_s = asks.first_token.total_seconds() if asks.first_token else None
    request = ProbeRequest("POST", _PATHS[asks.endpoint], _body(asks), stream=asks.stream)
    wanted = ExpectedAnswer(asks.expect, asks.model, first_token_s=first_s)
    return [models, Step(request, streamed if asks.stream else whole, wanted, repeats=True)]


_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


def _body(asks: OpenAI) -> dict[str, Any]:
    message = {"messages": [{"role": "user", "content": asks.prompt}]}
    prompt = message if asks.endpoint == "chat" else {"prompt": asks.prompt}
    return {"model": asks.model, **prompt, "max_tokens": asks.max_tokens, "stream": asks.stream, "temperature": 0}


def _models(wanted: str) -> Read:
    def read(reply: Reply) -> ParsedReply:
        parsed = parse_object(reply)
        data = parsed.document.get("data") if isinstance(parsed.document, dict) else None
        known = [str(m.get("id")) for m in data if isinstance(m, dict)] if isinstance(data, list) else []
        return parsed._replace(model=wanted if wanted in known else ", ".join(known))

    return read


def whole(reply: Reply) -> ParsedReply:
    """Read an answer that is not streamed."""
    parsed = parse_object(reply)
    if reply.status != 200 or not isinstance(parsed.document, dict):
        return parsed
    error = _error_in([parsed.document])
    broken = (
        f"an error ({error})" if error
        else "" if _has_token(parsed.document) else "no choices with a text"
    )  # fmt: skip
    return parsed._replace(model=text_or_none(parsed.document.get("model")), broken=parsed.broken or broken)


def streamed(reply: Reply) -> ParsedReply:
    """Read a stream of server-sent events, which must have a token and an end. Its first event is the document."""
    if reply.status != 200:
        return ParsedReply(document=document_of(reply), loading=says_loading(reply))
    lines = [line.removeprefix("data:").strip() for line in _LINE_END.split(reply.text) if line.startswith("data:")]
    events = [event for line in lines if isinstance(event := json_of(line), dict)]
    if not events:
        return ParsedReply(broken="no events")
    error = _error_in(events) or _error_line(reply.text)
    ended = _DONE in lines or any(c.get("finish_reason") for e in events for c in _choices(e))
    broken = (
        f"an error in its stream ({error})" if error
        else "a stream without a token" if not any(_has_token(event) for event in events)
        else "" if ended else "a stream that broke off"
    )  # fmt: skip
    return ParsedReply(document=events[0], model=text_or_none(events[0].get("model")), broken=broken)


def _error_in(documents: Iterable[dict[str, Any]]) -> str:
    """Return the first error that a server reports in an answer with status 200; empty if there is none."""
    for each in documents:
        if each.get("error") or each.get("object") == "error":
            return json.dumps(each.get("error") or each.get("message") or each)
        for choice in _choices(each):
            if (reason := choice.get("finish_reason")) in _GIVEN_UP:
                return f"finish_reason {reason}"
    return ""


def _error_line(text: str) -> str:
    return next((line for line in _LINE_END.split(text) if line.replace(" ", "").startswith(_ERROR_LINES)), "")


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    return [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []


def _has_token(document: dict[str, Any]) -> bool:
    """Return whether the document shows that the model generated a token.

    A token may have no text: servers hold back bytes that are no whole character yet, and a reasoning model's markup.
    An answer that ended at its maximum length has tokens; one that only stopped has none.
    """
    return bool(_texts(document)) or any(c.get("finish_reason") == "length" for c in _choices(document))


def _texts(document: dict[str, Any]) -> list[str]:
    """Return all texts of a document, including reasoning, whose tokens count too."""
    texts = []
    for choice in _choices(document):
        part = choice.get("delta") or choice.get("message") or choice
        each = [part.get(key) for key in _TEXTS] if isinstance(part, dict) else []
        texts += [text for text in each if isinstance(text, str) and text]
    return texts
