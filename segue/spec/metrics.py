"""Metrics as gates in a spec: what Prometheus is queried for, and how the answer is judged.

A spec names its provider but cannot give its address: otherwise whoever writes specs could send the worker anywhere.
"""

import re
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from segue.spec.base import Model, Name, wrong
from segue.spec.gate_policy import GatePolicy
from segue.spec.judgement import MAX_INTERVALS, Judgement
from segue.spec.judgement import Kind as EvidenceKind
from segue.spec.metric_presets import PRESETS, Preset
from segue.units import Duration, format_duration

MAX_WARMUP = timedelta(hours=1)
MAX_METRICS = 20
VARIABLES = ("namespace", "target", "side", "pods", "revision", "service", "interval")
"""The variables that a query may have between double braces; ``docs/metrics.md`` explains each."""

_HOLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_SELECTOR = re.compile(
    r"^\s*([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(\{(?:[^\"'`{}\[\]()]|\{\{\s*\w+\s*\}\}|\"(?:[^\"\\]|\\.)*\")*\})?\s*$"
)
_TRY = "{{side}}, {{namespace}}, {{target}}, {{pods}}, {{revision}}, {{service}} or {{interval}}"


def _known(query: str) -> str:
    for name in holes(query):
        if name not in VARIABLES:
            raise PydanticCustomError(
                "unknown_variable",
                "has an unknown variable {name}; write one of {known}",
                {"name": name, "known": _TRY},
            )
    if not query.strip():
        raise PydanticCustomError("empty_query", "is empty; write a series, or an expression")
    return query


Query = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_known)]


def holes(query: str) -> list[str]:
    """Return the names between double braces, in order."""
    return _HOLE.findall(query)


def filled(query: str, values: dict[str, str]) -> str:
    """Return the query with each variable replaced by its value.

    Raises:
        KeyError: naming a variable without a value.
    """
    return _HOLE.sub(lambda found: values[found.group(1)], query)


def is_series(query: str) -> bool:
    """Whether the query is a series (a name, labels) and not an expression."""
    return bool(query.strip()) and _SELECTOR.match(query) is not None


class EventCounts(Model):
    """Two counters: how many were bad, of how many."""

    bad: Query = Field(description="A counter's series, or an expression over [{{interval}}].")
    total: Query = Field(description="The same of all events, bad ones too.")

    @model_validator(mode="after")
    def _over_intervals(self) -> Self:
        for field, query in (("bad", self.bad), ("total", self.total)):
            _refuse_without_interval(field, query)
        return self


def _refuse_without_interval(field: str, query: str) -> None:
    if not is_series(query) and "interval" not in holes(query):
        fix = "write a series, which is summed for you, or an expression such as sum(increase(x[{{interval}}]))"
        raise wrong(field, query, "is an expression without an interval", fix)


class Metric(GatePolicy):
    """One metric, measured on both sides: a preset or your own queries, and how they are judged."""

    provider: Name = Field(default="default", description="A Prometheus that the worker's settings know by this name.")
    preset: str | None = Field(
        default=None,
        max_length=64,
        description="Such as vllm/ttft; docs/metrics.md lists them.",
        examples=["vllm/ttft"],
    )
    counts: EventCounts | None = Field(default=None, description="Bad events as a share of all events: a rate.")
    histogram: Query | None = Field(
        default=None, description="A histogram's `_bucket` series, or an expression by le over [{{interval}}]."
    )
    value: Query | None = Field(default=None, description="An expression with one number for each side.")
    unit: str = Field(default="", max_length=16, description="Unit of a value or of a histogram's edges, for people.")
    judgement: Judgement = Field(alias="judge")
    warmup: Duration = Field(
        default=timedelta(0),
        description="Time to leave out after each new replica's start: caches fill, code is compiled.",
    )
    lookback: Duration | None = Field(
        default=None, description="How far back evidence reaches. Default: to the gate's beginning. Not for compare."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("preset", "counts", "histogram", "value") if getattr(self, name) is not None]
        if len(given) > 1:
            raise wrong(
                given[1], "...", f"cannot be combined with {given[0]}", "keep one; a second metric can have the other"
            )
        if not given:
            raise ValueError("has nothing to measure; give one of preset, counts, histogram and value")
        if self.preset is not None and self.preset not in PRESETS:
            near = [name for name in PRESETS if name.split("/")[0] == self.preset.split("/")[0]] or sorted(
                {name.split("/")[0] + "/..." for name in PRESETS}
            )
            raise wrong("preset", self.preset, "is not a preset", f"write one of: {', '.join(near)}")
        if self.preset is not None and self.unit:
            raise wrong("unit", self.unit, "is already part of the preset", "leave it out")
        if self.histogram is not None:
            _refuse_without_interval("histogram", self.histogram)
        return self

    @model_validator(mode="after")
    def _judged(self) -> Self:
        try:
            self.judgement.refuse_for(self.kind)
        except PydanticCustomError as error:
            raise _below("judge", error) from None
        return self

    @model_validator(mode="after")
    def _times(self) -> Self:
        if self.warmup > MAX_WARMUP:
            raise wrong("warmup", format_duration(self.warmup), "is over 1 hour", "write a shorter time")
        if self.lookback is None:
            return self
        shown = format_duration(self.lookback)
        if self.judgement.compare is not None:
            why = "would drop evidence, and compare is sound only over all evidence"
            raise wrong("lookback", shown, why, "leave it out")
        if not self.interval <= self.lookback <= self.interval * MAX_INTERVALS:
            longest = format_duration(self.interval * MAX_INTERVALS)
            raise wrong("lookback", shown, "is out of range", f"write {format_duration(self.interval)} to {longest}")
        return self

    @property
    def known(self) -> Preset | None:
        """The named preset. None when the spec gives queries."""
        return None if self.preset is None else PRESETS[self.preset]

    @property
    def kind(self) -> EvidenceKind:
        """The kind of evidence that the answers are."""
        if self.known is not None:
            return "values" if self.known.kind == "value" else self.known.kind
        return "counts" if self.counts is not None else "histogram" if self.histogram is not None else "values"

    @property
    def templates(self) -> tuple[str, ...]:
        """The queries with their variables: bad and total events, or one expression."""
        if self.known is not None:
            return self.known.queries
        if self.counts is not None:
            return _summed(self.counts.bad), _summed(self.counts.total)
        if self.histogram is not None:
            return (_summed(self.histogram, "by (le) "),)
        assert self.value is not None, "a metric without a source was validated"
        return (self.value,)

    @property
    def shown_unit(self) -> str:
        """The unit of its values."""
        return self.known.unit if self.known is not None else self.unit

    @property
    def needs(self) -> set[str]:
        """The variables in its queries."""
        return {name for query in self.templates for name in holes(query)}


def _summed(query: str, by: str = "") -> str:
    return (
        f"sum {by}(increase({query.strip()}[{{{{interval}}}}]))".replace("sum (", "sum(") if is_series(query) else query
    )


def _below(field: str, error: PydanticCustomError) -> PydanticCustomError:
    context: dict[str, Any] = dict(error.context or {})
    return wrong(f"{field}.{context['field']}", context["shown"], context["why"], context["fix"])
