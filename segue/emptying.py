"""When an old replica has ended what it had begun: by its server's own numbers of running and queued requests. Pure."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import Field, StringConstraints, model_validator

from segue.gates.serving import Port
from segue.observation import Frozen
from segue.replica import Replica
from segue.specmodel import Model, wrong

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=256)]


class Preset(StrEnum):
    """Servers whose numbers are known."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_CPP = "llamacpp"


class Numbers(NamedTuple):
    """Where a server tells what it has to do: gauges that are all 0 when it is empty."""

    metrics: tuple[str, ...]
    port: int


PRESETS: Mapping[Preset, Numbers] = {
    # https://docs.vllm.ai/en/latest/usage/metrics.html
    Preset.VLLM: Numbers(("vllm:num_requests_running", "vllm:num_requests_waiting"), 8000),
    # https://docs.sglang.ai/references/production_metrics.html, with --enable-metrics
    Preset.SGLANG: Numbers(("sglang:num_running_reqs", "sglang:num_queue_reqs"), 30000),
    # https://huggingface.co/docs/text-generation-inference/en/reference/metrics
    Preset.TGI: Numbers(("tgi_batch_current_size", "tgi_queue_size"), 80),
    # https://github.com/ggml-org/llama.cpp/tree/master/tools/server, with --metrics
    Preset.LLAMA_CPP: Numbers(("llamacpp:requests_processing", "llamacpp:requests_deferred"), 8080),
}
"""Triton and TorchServe have no gauge of what is running (Triton's ``nv_inference_pending_request_count`` counts only
what waits), so that they cannot be told to be empty by their metrics."""


class Until(Model):
    """What must be 0 before an old replica is told to stop."""

    preset: Preset | None = Field(default=None, strict=False)
    metrics: tuple[MetricName, ...] = Field(
        default=(), max_length=16, strict=False, description="Gauges whose sum is what the server has to do."
    )
    port: Port | None = Field(default=None, description="A number or a name; otherwise the preset's, or 8000.")
    path: str = Field(default="/metrics", pattern=r"^/[-A-Za-z0-9._~/]*$", max_length=256)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.preset is None) == (not self.metrics):
            raise ValueError(f"give exactly one of preset ({', '.join(Preset)}) and metrics")
        if len({*self.metrics}) != len(self.metrics):
            raise wrong("metrics", "...", "names one twice", "name each once")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are added up."""
        return PRESETS[self.preset].metrics if self.preset else self.metrics

    @property
    def where(self) -> int | str:
        """The port that tells them."""
        return self.port if self.port is not None else PRESETS[self.preset or Preset.VLLM].port


class Emptying(Frozen):
    """Old replicas are out of their Services, and are to end what they have begun before they are told to stop."""

    old: int
    """How many old replicas are to stay."""
    since: float
    """Seconds since the epoch."""


def next_to_empty(old: Sequence[Replica], baseline: str, number: int) -> tuple[Replica, ...]:
    """Return those of ``number`` old replicas that go next which serve, or did until they were marked.

    As the controller goes: what is unready anyway, then what is marked, then superseded versions from the oldest on.
    """
    began: dict[str, float] = {}
    for replica in old:
        began[replica.version] = min(began.get(replica.version, float("inf")), replica.started_at or float("inf"))

    def turn(replica: Replica) -> tuple[bool, bool, bool, float, bool, str]:
        serves, version = replica.ready_since is not None, replica.version
        return serves or replica.marked, serves, version == baseline, began[version], not replica.first, replica.name

    going = sorted(old, key=turn)[: max(number, 0)]
    return tuple(replica for replica in going if replica.ready_since is not None or replica.marked)


def added_up(until: Until, found: Mapping[str, float]) -> tuple[float, str]:
    """Return what a server has to do, and which of its numbers are missing, in words."""
    missing = [name for name in until.names if name not in found]
    return sum(found.get(name, 0.0) for name in until.names), f"no metric {', '.join(missing)}" if missing else ""
