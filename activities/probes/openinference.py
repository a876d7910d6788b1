"""The Open Inference Protocol v2 over HTTP.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from activities.probes.base import ProbeRequest, Read, Step, document_of, parse_object, parse_ready, text_or_none
from segue.gates.loading import LoadStanding, ModelSeen
from segue.gates.serving_answers import ExpectedAnswer, ParsedReply, Reply, bounded
from segue.spec.serving import Expected, OpenInference

INDEX = ProbeRequest("POST", "/v2/repository/index", {})
"""Part of Triton's repository extension, which MLServer also has."""

_UNLOADED = {"unloaded", "unloading"}
_WORST = (LoadStanding.LOADING, LoadStanding.FAILED, LoadStanding.UNAVAILABLE, LoadStanding.LOADED)
"""A load that is under way decides first."""


def steps(asks: OpenInference) -> list[Step]:
    """Return the steps: live, ready, model ready, then an inference, or the model's metadata without one."""
    model = f"/v2/models/{asks.model}"
    wanted = ExpectedAnswer(asks.expect, asks.model, asks.version)
    last = (
        Step(ProbeRequest("GET", model), _metadata(asks), wanted)
        if asks.request is None
        else Step(ProbeRequest("POST", f"{model}/infer", asks.request), inference, wanted, repeats=True)
    )
    return [
        Step(ProbeRequest("GET", "/v2/health/live"), parse_ready, ExpectedAnswer(Expected())),
        Step(ProbeRequest("GET", "/v2/health/ready"), parse_ready),
        Step(ProbeRequest("GET", f"{model}/ready"), parse_ready),
        last,
    ]


def inference(reply: Reply) -> ParsedReply:
    """Read the answer to an inference."""
    parsed = parse_object(reply)
    if not isinstance(parsed.document, dict):
        return parsed
    has_outputs = isinstance(parsed.document.get("outputs"), list)
    broken = parsed.broken or ("" if has_outputs or reply.status != 200 else "no outputs")
    model, version = (text_or_none(parsed.document.get(key)) for key in ("model_name", "model_version"))
    return parsed._replace(model=model, version=version, broken=broken)


def _metadata(asks: OpenInference) -> Read:
    """Return a reader of metadata, which lists all versions: the expected one must be among them."""

    def read(reply: Reply) -> ParsedReply:
        parsed = parse_object(reply)
        if not isinstance(parsed.document, dict):
            return parsed
        versions = parsed.document.get("versions")
        known = [str(v) for v in versions] if isinstance(versions, list) else []
        version = asks.version if asks.version in known else ", ".join(known)
        return parsed._replace(model=text_or_none(parsed.document.get("name")), version=version)

    return read


def states(reply: Reply) -> list[ModelSeen] | None:
    """Read a repository index; returns None if the reply is not one.

    An index has an entry for each version of a model. All must be loaded, so the worst one is the model's state.
    """
    document = document_of(reply)
    if reply.status != 200 or not isinstance(document, list):
        return None
    items = [item for item in document if isinstance(item, dict) and item.get("name")]
    worst: dict[str, ModelSeen] = {}
    for seen in filter(None, map(_state, items)):
        before = worst.setdefault(seen.name, seen)
        if _WORST.index(seen.standing) < _WORST.index(before.standing):
            worst[seen.name] = seen
    return list(worst.values())


def _state(item: dict[str, object]) -> ModelSeen | None:
    name, state, why = str(item["name"]), str(item.get("state") or ""), bounded(str(item.get("reason") or ""))
    standing = {"READY": LoadStanding.LOADED, "LOADING": LoadStanding.LOADING, "UNKNOWN": LoadStanding.LOADING}.get(
        state
    )
    if state == "UNAVAILABLE" and why not in _UNLOADED:
        standing = LoadStanding.FAILED if why else LoadStanding.UNAVAILABLE
    # A model without a state was never requested.
    return ModelSeen(name, standing, why) if standing is not None else None
