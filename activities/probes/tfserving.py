"""TensorFlow Serving's REST API.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from typing import Any

from activities.probes.base import ProbeRequest, Read, Step, document_of, parse_object
from segue.gates.loading import LoadStanding, ModelSeen
from segue.gates.serving_answers import ExpectedAnswer, ParsedReply, Reply, bounded
from segue.spec.serving import Expected, TfServing

_LOADING = {"START", "LOADING"}
_MAX_DIGITS = 20


def steps(asks: TfServing) -> list[Step]:
    """Return the steps: the status of the model's versions, and a prediction if there is one."""
    status = Step(status_of(asks.model), _status(asks.version), ExpectedAnswer(Expected(), None, asks.version))
    if asks.request is None:
        return [status]
    version = f"/versions/{asks.version}" if asks.version is not None and asks.version.isdigit() else ""
    predicts = ProbeRequest("POST", f"/v1/models/{asks.model}{version}:predict", asks.request)
    return [status, Step(predicts, _prediction, ExpectedAnswer(asks.expect), repeats=True)]


def status_of(model: str) -> ProbeRequest:
    """Return the request for the states of a model's versions."""
    return ProbeRequest("GET", f"/v1/models/{model}")


def _status(version: str | None) -> Read:
    def read(reply: Reply) -> ParsedReply:
        parsed = parse_object(reply)
        versions = _versions(parsed.document)
        available = [v["version"] for v in versions if v["state"] == "AVAILABLE"]
        coming = [v for v in versions if v["state"] in _LOADING and version in (None, v["version"])]
        missing = bool(coming) and (version not in available if version else not available)
        loading = parsed.loading or (
            bounded(f"version {coming[0]['version']} is {coming[0]['state']}") if missing else ""
        )
        is_none = reply.status == 200 and not available and not loading
        broken = parsed.broken or ("no version that is AVAILABLE" if is_none else "")
        return parsed._replace(
            version=version if version in available else ", ".join(available), loading=loading, broken=broken
        )

    return read


def _prediction(reply: Reply) -> ParsedReply:
    parsed = parse_object(reply)
    if reply.status != 200 or not isinstance(parsed.document, dict):
        return parsed
    has = {"predictions", "outputs"} & parsed.document.keys()
    return parsed._replace(broken=parsed.broken or ("" if has else "no predictions"))


def _versions(document: Any) -> list[dict[str, str]]:
    found = document.get("model_version_status") if isinstance(document, dict) else None
    items = [v for v in found if isinstance(v, dict)] if isinstance(found, list) else []
    return [
        {
            "version": str(v.get("version", "")),
            "state": str(v.get("state", "")),
            "why": str(status.get("error_message", "")) if isinstance(status := v.get("status"), dict) else "",
        }
        for v in items
    ]


def state(name: str, reply: Reply) -> ModelSeen | None:
    """Read the state of a named model, which is that of its newest version; None if it is unknown.

    A model that the server does not know, or has unloaded, is unavailable, without a reason.
    """
    document = document_of(reply)
    if reply.status == 404 and isinstance(document, dict) and document.get("error"):
        return ModelSeen(name, LoadStanding.UNAVAILABLE, bounded(str(document["error"])))
    versions = _versions(document)
    if reply.status != 200 or not versions:
        return None
    newest = max(versions, key=lambda v: _number(v["version"]))
    if newest["state"] == "AVAILABLE":
        return ModelSeen(name, LoadStanding.LOADED)
    if newest["state"] in _LOADING:
        return ModelSeen(name, LoadStanding.LOADING)
    return ModelSeen(name, LoadStanding.FAILED if newest["why"] else LoadStanding.UNAVAILABLE, newest["why"])


def _number(version: str) -> int:
    """Return the number of a version, which has at most 64 bits; -1 for any other text."""
    return int(version) if version.isascii() and version.isdigit() and len(version) <= _MAX_DIGITS else -1
