"""Serving checks: one file for each protocol builds requests and reads answers. The core judges."""

from activities.probes import http, openai, openinference, tfserving, torchserve
from activities.probes.base import ProbeRequest, Step
from segue.spec.serving import Check, Http, OpenAI, OpenInference, TfServing, TorchServe

__all__ = ["ProbeRequest", "Step", "steps_of"]


def steps_of(check: Check) -> list[Step]:
    """Return the steps of one check, in order. The first wrong answer ends the check."""
    match check.asks:
        case OpenInference() as asks:
            return openinference.steps(asks)
        case TorchServe() as asks:
            return torchserve.steps(asks)
        case TfServing() as asks:
            return tfserving.steps(asks)
        case OpenAI() as asks:
            return openai.steps(asks)
        case Http() as asks:
            return http.steps(asks)
        case other:
            raise AssertionError(f"no probe for {type(other).__name__}")
