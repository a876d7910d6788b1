"""What was measured of both sides, in intervals: what a judgement is given, and what a verdict can be replayed from.

Intervals of the two sides belong together from the newest backwards; the last one is the newest. An interval without
data (nothing scraped, NaN, stale) is none. All intervals since the comparison began belong in it: a judgement that may
be repeated at any time rests on all that was seen, not on a window that slides.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, field_validator

from segue.observation import Frozen
from segue.spec.judgement import MAX_INTERVALS

MAX_EDGES = 512


class Count(Frozen):
    """Events of one interval: how many were bad, of how many. Fractions are what Prometheus' ``increase`` gives."""

    bad: float
    total: float


class _Series(Frozen):
    query: str = ""
    """What was asked, in the words of whoever answered."""
    source: str = ""
    """Who answered: a server's address, a file."""


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
    """Cumulative counts, one an edge, and last that of ``+Inf``: all events."""

    @field_validator("intervals", mode="after")
    @classmethod
    def _finite(cls, given: tuple[tuple[float, ...] | None, ...]) -> tuple[tuple[float, ...] | None, ...]:
        return tuple(None if c is None or not _all_finite(c) else c for c in given)


class ValueSeries(_Series):
    """One number an interval: a gauge, a quantile, a mean."""

    kind: Literal["values"] = "values"
    intervals: tuple[float | None, ...] = Field(default=(), max_length=MAX_INTERVALS)

    @field_validator("intervals", mode="after")
    @classmethod
    def _finite(cls, given: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return tuple(None if v is None or not math.isfinite(v) else v for v in given)


Series = Annotated[CountSeries | HistogramSeries | ValueSeries, Discriminator("kind")]


class Evidence(Frozen):
    """What was measured of both sides since the comparison began."""

    old: Series | None = None
    new: Series | None = None
    unit: str = ""
    """What the values (or a histogram's edges) are in, such as ``s``; for a person."""
    interval_s: float = Field(default=30.0, gt=0)

    def until(self, count: int) -> "Evidence":
        """Return what was known ``count`` intervals after the beginning, as both sides' newest belong together."""
        late = self.length - count
        kept = {name: _without_newest(series, late) for name, series in (("old", self.old), ("new", self.new))}
        return self.model_copy(update=kept)

    @property
    def length(self) -> int:
        """How many intervals the longer side has."""
        return max((len(side.intervals) for side in (self.old, self.new) if side is not None), default=0)


def _without_newest(series: Any, late: int) -> Any:
    if series is None or late <= 0:
        return series
    return series.model_copy(update={"intervals": series.intervals[: max(0, len(series.intervals) - late)]})


def _all_finite(numbers: tuple[float, ...]) -> bool:
    return all(math.isfinite(n) for n in numbers)
