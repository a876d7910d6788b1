"""TorchServe's inference and management APIs.

https://github.com/pytorch/serve/blob/master/docs/management_api.md
"""

from typing import Any

from activities.probes.base import Request, Step, document_of, text_or_none, told_document, told_ready
from segue.gates.loading import ModelSeen, Standing
from segue.gates.serving import Expected, Reply, Told, TorchServe, Wanted, bounded

LIST = Request("GET", "/models?limit=100")


def steps(asks: TorchServe) -> list[Step]:
    """Healthy, the version where the management API may be asked, and a prediction where one is given."""
    found = [Step(Request("GET", "/ping"), told_ready)]
    if asks.management is not None:
        described = Request("GET", f"/models/{asks.model}", port=asks.management)
        found.append(Step(described, description, Wanted(Expected(), asks.model, asks.version)))
    if asks.request is not None:
        predicts = Request("POST", f"/predictions/{asks.model}", asks.request)
        found.append(Step(predicts, told_document, Wanted(asks.expect), repeats=True))
    return found


def description(reply: Reply) -> Told:
    """Read a model's description; without a worker that is ready it cannot serve yet."""
    told = told_document(reply)
    model = _first(told.document)
    if reply.status != 200 or model is None:
        return told._replace(broken="no description of a model" if reply.status == 200 else "")
    loading = told.loading or ("" if _workers(model, "READY") else bounded(f"no worker is ready: {reply.text}"))
    name, version = (text_or_none(model.get(key)) for key in ("modelName", "modelVersion"))
    return told._replace(model=name, version=version, loading=loading)


def _first(document: Any) -> dict[str, Any] | None:
    models = document if isinstance(document, list) else []
    return next((m for m in models if isinstance(m, dict)), None)


def _workers(model: dict[str, Any], status: str = "") -> list[dict[str, Any]]:
    workers = model.get("workers")
    found = [w for w in workers if isinstance(w, dict)] if isinstance(workers, list) else []
    return [w for w in found if not status or w.get("status") == status]


def names(reply: Reply) -> list[str] | None:
    """Read the list of models; none when it is none."""
    document = document_of(reply)
    models = document.get("models") if isinstance(document, dict) and reply.status == 200 else None
    if not isinstance(models, list):
        return None
    return [str(m["modelName"]) for m in models if isinstance(m, dict) and m.get("modelName")]


def described(name: str) -> Request:
    """Ask for one model's workers."""
    return Request("GET", f"/models/{name}")


def state(name: str, reply: Reply) -> ModelSeen | None:
    """Read one model's standing; none when it is not told. A worker that ended is begun again, and so on."""
    model = _first(document_of(reply))
    if reply.status != 200 or model is None:
        return None
    if _workers(model, "READY"):
        return ModelSeen(name, Standing.LOADED)
    stopped = _workers(model, "WORKER_STOPPED") or _workers(model, "WORKER_ERROR")
    if stopped:
        return ModelSeen(name, Standing.FAILED, f"its worker is {stopped[0]['status']}")
    wanted = model.get("minWorkers", 1)
    # With no worker wanted it is registered, and not loaded.
    return ModelSeen(name, Standing.LOADING) if wanted else None
