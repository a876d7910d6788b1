"""Reads recorded series: Segue's own, and answers of Prometheus' ``query_range``.

Counts need two queries: ``{"bad": ..., "total": ...}`` holds the answer to each. Each value is that of one interval, as
of ``increase(...[30s])`` at a step of 30 s. Raw counters would look like a rise in every interval.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import ValidationError

from segue.errors import Refused
from segue.judging.evidence import Count, CountSeries, HistogramSeries, Series, ValueSeries
from segue.spec import refusal
from segue.spec.judgement import MAX_INTERVALS, Kind

_SERIES: dict[Kind, type[Series]] = {"counts": CountSeries, "histogram": HistogramSeries, "values": ValueSeries}
_MAX_TIME_S = 1e12
_HOW = "give a series that Segue recorded, or the JSON answer of Prometheus' /api/v1/query_range"
_Column = dict[int, float]
"""Values by the index of their interval."""


class RecordedGrid(NamedTuple):
    """The ends of intervals: from ``start`` on, every ``step_s`` seconds."""

    start: float
    step_s: float
    size: int

    def at(self, time: float) -> int:
        """Return the index of the interval that ends at this time."""
        return round((time - self.start) / self.step_s)


class Recorded(NamedTuple):
    """One side as recorded, with its times if it has any."""

    series: Series
    grid: RecordedGrid | None = None


def read_recorded(document: Any, kind: Kind, source: str) -> Recorded:
    """Read one side.

    Raises:
        Refused: names what cannot be read.
    """
    if not isinstance(document, dict):
        raise Refused("is not a mapping", field=source, fix=_HOW)
    if "intervals" in document:
        return Recorded(_own(document, kind, source))
    if kind == "counts":
        parts = {name: _matrix(document.get(name), f"{source}: {name}") for name in ("bad", "total")}
        return _counts(parts, source)
    return _prometheus(_matrix(document, source), kind, source)


def aligned(old: Recorded, new: Recorded) -> tuple[Series, Series]:
    """Return both series with their newest intervals aligned, by their times if both have them.

    Raises:
        Refused: if they were recorded at different steps, or at different times.
    """
    if old.grid is None or new.grid is None:
        return old.series, new.series
    if not math.isclose(old.grid.step_s, new.grid.step_s):
        steps = f"{old.grid.step_s:g} s and {new.grid.step_s:g} s"
        raise Refused(
            f"were recorded at different steps ({steps})", field="--old, --new", fix="record both at one step"
        )
    late = new.grid.at(old.grid.start) + old.grid.size - new.grid.size
    if abs(late) > MAX_INTERVALS:
        raise Refused("were recorded at different times", field="--old, --new", fix="record both over the same time")
    return _later(old.series, max(0, -late)), _later(new.series, max(0, late))


def _later(series: Series, missing: int) -> Series:
    return series.model_copy(update={"intervals": (*series.intervals, *([None] * missing))})


def _own(document: dict[str, Any], kind: Kind, source: str) -> Series:
    given = document.get("kind", kind)
    if given != kind:
        raise Refused(f"is not {kind}", field=f"{source}: kind", value=given, fix="name the file of this metric")
    try:
        return _SERIES[kind].model_validate({"source": source, **document})
    except ValidationError as error:
        raise refusal(error, source) from error


def _matrix(document: Any, source: str) -> list[Any]:
    data = document.get("data", document) if isinstance(document, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise Refused("has no data.result", field=source, fix=_HOW)
    if data.get("resultType", "matrix") != "matrix":
        raise Refused("is not a matrix", field=f"{source}: resultType", value=data["resultType"], fix="use query_range")
    return list(data["result"])


def _counts(parts: Mapping[str, list[Any]], source: str) -> Recorded:
    for name, found in parts.items():
        _refuse_many(found, f"{source}: {name}")
    grid = _grid([*parts["bad"], *parts["total"]], source)
    bad, total = (_column(found[0], grid, source) if found else {} for found in (parts["bad"], parts["total"]))
    # A counter of bad events does not exist before the first one: no data of it beside events counts as 0.
    intervals = tuple(Count(bad=bad.get(i, 0.0), total=total[i]) if i in total else None for i in range(grid.size))
    return Recorded(CountSeries(intervals=intervals, source=source), grid)


def _prometheus(found: list[Any], kind: Kind, source: str) -> Recorded:
    grid = _grid(found, source)
    if kind == "histogram":
        return Recorded(_histogram(found, grid, source), grid)
    _refuse_many(found, source)
    column = _column(found[0], grid, source) if found else {}
    return Recorded(ValueSeries(intervals=tuple(column.get(i) for i in range(grid.size)), source=source), grid)


def _refuse_many(found: list[Any], source: str) -> None:
    if len(found) > 1:
        raise Refused(
            f"has {len(found)} series", field=source, fix="aggregate them to one in the query, as by sum(...)"
        )


def _histogram(found: list[Any], grid: RecordedGrid, source: str) -> HistogramSeries:
    columns: dict[float, _Column] = {}
    for each in found:
        edge = _edge(each, source)
        if edge in columns:
            raise Refused("has several series of one le", field=source, value=edge, fix="sum by (le) in the query")
        columns[edge] = _column(each, grid, source)
    if found and math.inf not in columns:
        raise Refused("has no series with le=+Inf", field=source, fix="query all buckets")
    edges = sorted(columns)
    rows = [[columns[edge].get(i) for edge in edges] for i in range(grid.size)]
    whole = tuple(tuple(n for n in row if n is not None) if None not in row else None for row in rows)
    return HistogramSeries(edges=tuple(e for e in edges if e != math.inf), intervals=whole, source=source)


def _edge(series: Any, source: str) -> float:
    labels = series.get("metric") if isinstance(series, dict) else None
    given: Any = labels.get("le") if isinstance(labels, dict) else None
    try:
        edge = float(given)
    except (TypeError, ValueError, OverflowError):
        edge = math.nan
    if math.isnan(edge) or edge == -math.inf:
        fix = "query the buckets, summed by (le)"
        raise Refused("is not a bucket edge", field=f"{source}: le", value=given or "", fix=fix)
    return edge


def _grid(found: list[Any], source: str) -> RecordedGrid:
    times = sorted({time for each in found for time, _ in _points(each, source)})
    if len(times) < 2:
        return RecordedGrid(times[0] if times else 0.0, 1.0, len(times))
    step = min(b - a for a, b in pairwise(times))
    size = round((times[-1] - times[0]) / step) + 1
    if size > MAX_INTERVALS:
        raise Refused(f"has over {MAX_INTERVALS} intervals", field=source, fix="record fewer, or with a longer step")
    return RecordedGrid(times[0], step, size)


def _column(series: Any, grid: RecordedGrid, source: str) -> _Column:
    values = ((grid.at(time), value) for time, value in _points(series, source))
    return {at: value for at, value in values if math.isfinite(value)}


def _points(series: Any, source: str) -> list[tuple[float, float]]:
    try:
        points = [(float(time), float(value)) for time, value in series["values"]]
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise Refused("has a series without [time, value] pairs", field=source, fix=_HOW) from error
    wrong = next((time for time, _ in points if not abs(time) <= _MAX_TIME_S), None)
    if wrong is not None:
        raise Refused("is not a time in seconds since the epoch", field=source, value=wrong, fix=_HOW)
    return points
