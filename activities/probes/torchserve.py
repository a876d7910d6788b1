"""TorchServe's inference and management APIs.

https://github.com/pytorch/serve/blob/master/docs/management_api.md
"""

from typing import Any
from urllib.parse import quote

from activities.probes.base import ProbeRequest, Step, document_of, parse_document, parse_ready, text_or_none
from segue.gates.loading import LoadStanding, ModelSeen
from segue.gates.serving_answers import ExpectedAnswer, ParsedReply, Reply, bounded
from segue.spec.serving import Expected, TorchServe

LIST = ProbeRequest("GET", "/models?limit=100")


def steps(asks: TorchServe) -> list[Step]:
    """Return the steps: healthy, the version if there is a management port, a prediction if there is one."""
    found = [Step(ProbeRequest("GET", "/ping"), _ping)]
    if asks.management is not None:
        described = ProbeRequest(
            "GET", f"/models/{asks.model}", port=asks.management, credential=asks.management_credential
        )
        found.append(Step(described, description, ExpectedAnswer(Expected(), asks.model, asks.version)))
    if asks.request is not None:
        predicts = ProbeRequest("POST", f"/predictions/{asks.model}", asks.request)
        found.append(Step(predicts, parse_document, ExpectedAnswer(asks.expect), repeats=True))
    return found


def _ping(reply: Reply) -> ParsedReply:
    """Read whether the server is healthy. With 400 it refuses a missing or wrong key (InvalidKeyException)."""
    return ParsedReply() if reply.status == 400 else parse_ready(reply)


def description(reply: Reply) -> ParsedReply:
    """Read a model's description. Without a ready worker, the model cannot serve yet."""
    parsed = parse_document(reply)
    model = _first(parsed.document)
    if reply.status != 200 or model is None:
        return parsed._replace(broken="no description of a model" if reply.status == 200 else "")
    loading = parsed.loading or ("" if _workers(model, "READY") else bounded(f"no worker is ready: {reply.text}"))
    name, version = (text_or_none(model.get(key)) for key in ("modelName", "modelVersion"))
    return parsed._replace(model=name, version=version, loading=loading)


def _first(document: Any) -> dict[str, Any] | None:
    models = document if isinstance(document, list) else []
    return next((m for m in models if isinstance(m, dict)), None)


def _workers(model: dict[str, Any], status: str = "") -> list[dict[str, Any]]:
    workers = model.get("workers")
    found = [w for w in workers if isinstance(w, dict)] if isinstance(workers, list) else []
    return [w for w in found if not status or w.get("status") == status]


def names(reply: Reply) -> tuple[list[str], ProbeRequest | None] | None:
    """Return one page of model names and the request for the next page; None if the reply is not a list."""
    document = document_of(reply)
    models = document.get("models") if isinstance(document, dict) and reply.status == 200 else None
    if not isinstance(models, list):
        return None
    token = document.get("nextPageToken")
    following = ProbeRequest("GET", f"{LIST.path}&next_page_token={token}") if str(token or "").isdigit() else None
    return [str(m["modelName"]) for m in models if isinstance(m, dict) and m.get("modelName")], following


def described(name: str) -> ProbeRequest:
    """Return the request for one model's workers.

    A pod chooses its models' names: through the API server's proxy, none may lead to another path than the pod's.
    """
    return ProbeRequest("GET", f"/models/{quote(name, safe='')}")


def states(name: str, reply: Reply) -> list[ModelSeen] | None:
    """Read one model's state: empty if it needs no worker, None if the state is unknown.

    A worker that is loading, one that failed and one that was given up all have the status UNLOADING: the model counts
    as loading until the end of the bootstrap period.
    """
    model = _first(document_of(reply))
    if reply.status != 200 or model is None:
        return None
    if _workers(model, "READY"):
        return [ModelSeen(name, LoadStanding.LOADED)]
    # A model that needs no worker is registered, but not loaded.
    return [ModelSeen(name, LoadStanding.LOADING)] if model.get("minWorkers", 1) else []
