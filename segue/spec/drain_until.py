"""The metrics of a server that must be 0 before an old replica is stopped."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import Field, StringConstraints, model_validator

from segue.spec.base import Model, wrong
from segue.spec.serving import Port

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=256)]


class DrainPreset(StrEnum):
    """Servers whose metrics are known."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_CPP = "llamacpp"


class Numbers(NamedTuple):
    """Where a server reports its work: gauges that are all 0 when it is empty."""

    metrics: tuple[str, ...]
    port: int


PRESETS: Mapping[DrainPreset, Numbers] = {
    # https://docs.vllm.ai/en/latest/usage/metrics.html
    DrainPreset.VLLM: Numbers(("vllm:num_requests_running", "vllm:num_requests_waiting"), 8000),
    # https://docs.sglang.ai/references/production_metrics.html, with --enable-metrics
    DrainPreset.SGLANG: Numbers(("sglang:num_running_reqs", "sglang:num_queue_reqs"), 30000),
    # https://huggingface.co/docs/text-generation-inference/en/reference/metrics
    DrainPreset.TGI: Numbers(("tgi_batch_current_size", "tgi_queue_size"), 80),
    # https://github.com/ggml-org/llama.cpp/tree/master/tools/server, with --metrics
    DrainPreset.LLAMA_CPP: Numbers(("llamacpp:requests_processing", "llamacpp:requests_deferred"), 8080),
}
"""Triton and TorchServe have no gauge of running requests (Triton's ``nv_inference_pending_request_count`` counts only
queued ones), so their metrics cannot show that they are empty."""


class Until(Model):
    """What must be 0 before an old replica is stopped."""

    preset: DrainPreset | None = Field(default=None, strict=False)
    metrics: tuple[MetricName, ...] = Field(
        default=(), max_length=16, strict=False, description="Gauges whose sum is the server's remaining work."
    )
    port: Port | None = Field(default=None, description="A port number or name. Default: the preset's port, or 8000.")
    path: str = Field(default="/metrics", pattern=r"^/[-A-Za-z0-9._~/]*$", max_length=256)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.preset is None) == (not self.metrics):
            raise ValueError(
                f"is not one way to measure; give exactly one of preset ({', '.join(DrainPreset)}) and metrics"
            )
        if len({*self.metrics}) != len(self.metrics):
            raise wrong("metrics", "...", "names one twice", "name each once")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics to add up."""
        return PRESETS[self.preset].metrics if self.preset else self.metrics

    @property
    def where(self) -> int | str:
        """The port that serves the metrics."""
        return self.port if self.port is not None else PRESETS[self.preset or DrainPreset.VLLM].port
