"""The measurements of both sides, in intervals: the input of a judgement, from which its verdict can be repeated.

The last interval is the newest. The sides' intervals are paired from the newest backwards. An interval without data
(nothing scraped, NaN, stale) is None. Evidence holds all intervals since the comparison began: a judgement that may be
repeated at any time needs everything that was observed, not a sliding window.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, field_validator

from segue.observation import Frozen
from segue.spec.judgement import MAX_INTERVALS

MAX_EDGES = 512


class Count(Frozen):
    """The bad events and all events of one interval. Prometheus' ``increase`` also returns fractions."""

    bad: float
    total: float


class _Series(Frozen):
    query: str = ""
    """The query, in the language of its source."""
    source: str = ""
    """Where the data is from: a server's address or a file."""


class CountSeries(_Series):
    """Bad events of all events: an error rate, a share of slow requests."""

    kind: Literal["counts"] = "counts"
    intervals: tuple[Count | None, ...] = Field(default=(), max_length=MAX_INTERVALS)

    @field_validator("intervals", mode="after")
    @classmethod
    def _finite(cls, given: tuple[Count | None, ...]) -> tuple[Count | None, ...]:
        return tuple(None if c is None or not _all_finite((c.bad, c.total)) else c for c in given)


class HistogramSeries(_Series):
    """A Prometheus classic histogram: its increase in each interval."""

    kind: Literal["histogram"] = "histogram"
    edges: tuple[float, ...] = Field(default=(), max_length=MAX_EDGES)
    """The finite upper bounds ``le``, ascending."""
    intervals: tuple[tuple[float, ...] | None, ...] = Field(default=(), max_length=MAX_INTERVALS)
    """Cumulative counts, one for each edge; the last one is ``+Inf``: all events."""

    @field_validator("intervals", mode="after")
    @classmethod
    def _finite(cls, given: tuple[tuple[float, ...] | None, ...]) -> tuple[tuple[float, ...] | None, ...]:
        return tuple(None if c is None or not _all_finite(c) else c for c in given)


class ValueSeries(_Series):
    """One number for each interval: a gauge, a quantile, a mean."""

    kind: Literal["values"] = "values"
    intervals: tuple[float | None, ...] = Field(default=(), max_length=MAX_INTERVALS)

    @field_validator("intervals", mode="after")
    @classmethod
    def _finite(cls, given: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return tuple(None if v is None or not math.isfinite(v) else v for v in given)


Series = Annotated[CountSeries | HistogramSeries | ValueSeries, Discriminator("kind")]


class Evidence(Frozen):
    """The measurements of both sides since the comparison began."""

    old: Series | None = None
    new: Series | None = None
    unit: str = ""
    """The unit of the values (or of a histogram's edges), such as ``s``; for a person."""
    interval_s: float = Field(default=30.0, gt=0)

    def until(self, count: int) -> "Evidence":
        """Return the evidence as it was ``count`` intervals after the beginning."""
        late = self.length - count
        kept = {name: _without_newest(series, late) for name, series in (("old", self.old), ("new", self.new))}
        return self.model_copy(update=kept)

    @property
    def length(self) -> int:
        """The number of intervals of the longer side."""
        return max((len(side.intervals) for side in (self.old, self.new) if side is not None), default=0)


def _without_newest(series: Any, late: int) -> Any:
    if series is None or late <= 0:
        return series
    return series.model_copy(update={"intervals": series.intervals[: max(0, len(series.intervals) - late)]})


def _all_finite(numbers: tuple[float, ...]) -> bool:
    return all(math.isfinite(n) for n in numbers)
