"""Joins the answers of all windows into one series of a side, which can be judged. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from segue.gates.asking import Grid
from segue.judging import Count, CountSeries, HistogramSeries, Kind, Series, ValueSeries

Labels = tuple[tuple[str, str], ...]
Values = Mapping[Labels, Sequence[float | None]]


class MeasuredAnswer(NamedTuple):
    """The answers to the queries of one window: by labels, one value for each interval of the window."""

    start: int
    end: int
    found: tuple[Values, ...]
    notes: tuple[str, ...] = ()


class Joined(NamedTuple):
    """A side's series; None if no window has data."""

    series: Series | None
    notes: tuple[str, ...] = ()


def joined(kind: Kind, over: Grid, answers: Iterable[MeasuredAnswer]) -> Joined:
    """Return the series of a side. Intervals that no window covers, or that have no data, are None."""
    given = list(answers)
    notes = tuple(note for answer in given for note in answer.notes)
    if kind == "counts":
        return _counts(over, given, notes)
    return Joined(_histogram(over, given) if kind == "histogram" else _values(over, given), notes)


def _counts(over: Grid, answers: list[MeasuredAnswer], notes: tuple[str, ...]) -> Joined:
    """Count no data of bad events as 0 if there are events: many counters appear with the first bad event."""
    intervals: list[Count | None] = [None] * over.size
    lacking = False
    for answer in answers:
        bad, total = (_only(values, answer.end - answer.start) for values in answer.found)
        for offset, (each, of) in enumerate(zip(bad, total, strict=True)):
            if of is not None:
                lacking |= each is None
                intervals[answer.start + offset] = Count(bad=max(0.0, min(each or 0.0, of)), total=of)
    assumed = ("no series of bad events in some intervals; counted as none",) if lacking else ()
    known = any(each is not None for each in intervals)
    return Joined(CountSeries(intervals=tuple(intervals)) if known else None, (*notes, *assumed))


def _values(over: Grid, answers: list[MeasuredAnswer]) -> Series | None:
    intervals: list[float | None] = [None] * over.size
    for answer in answers:
        intervals[answer.start : answer.end] = _only(answer.found[0], answer.end - answer.start)
    return ValueSeries(intervals=tuple(intervals)) if any(each is not None for each in intervals) else None


def _only(values: Values, length: int) -> Sequence[float | None]:
    return next(iter(values.values()), [None] * length)


def _histogram(over: Grid, answers: list[MeasuredAnswer]) -> Series | None:
    """Return cumulative counts by ``le``, over the edges that every window has. Intervals without ``+Inf`` are None."""
    tables = [(answer, _by_edge(answer.found[0])) for answer in answers]
    filled = [set(table) for _, table in tables if table]
    if not filled:
        return None
    edges = sorted(set.intersection(*filled) - {math.inf})
    intervals: list[tuple[float, ...] | None] = [None] * over.size
    for answer, table in tables:
        if math.inf in table:
            columns = [table[edge] for edge in (*edges, math.inf)]
            for offset in range(answer.end - answer.start):
                intervals[answer.start + offset] = _whole([column[offset] for column in columns])
    return HistogramSeries(edges=tuple(edges), intervals=tuple(intervals))


def _by_edge(values: Values) -> dict[float, Sequence[float | None]]:
    found = {}
    for labels, column in values.items():
        try:
            found[float(dict(labels)["le"])] = column
        except (KeyError, ValueError):
            continue
    return found


def _whole(counts: Sequence[float | None]) -> tuple[float, ...] | None:
    known = [count for count in counts if count is not None]
    return tuple(known) if len(known) == len(counts) else None
