"""Removes invalid intervals from a series, and reports them. They never decide anything."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from segue.judging.evidence import Count, HistogramSeries, Series

MAX_AGE = 3
"""A side counts as no longer measured if its newest data is older than this many intervals."""

_NOISE = 0.01
"""Prometheus extrapolates each bucket separately: smaller contradictions are corrected, not left out."""


class Clean(NamedTuple):
    """One side's usable intervals (others are None), newest last, and why some were left out."""

    intervals: tuple[Any, ...]
    faults: Counter[str]

    @property
    def usable(self) -> list[Any]:
        """The intervals with data."""
        return [each for each in self.intervals if each is not None]

    @property
    def latest(self) -> Any:
        """The newest interval with data; None if there is no such interval, or if it is too old."""
        return next((each for each in reversed(self.intervals[-MAX_AGE:]) if each is not None), None)

    @property
    def faults_found(self) -> str:
        """What was left out, for a person; empty if nothing was."""
        return ", ".join(f"{count} interval{'s' * (count > 1)} with {why}" for why, count in self.faults.items())

    @property
    def mostly_faulty(self) -> bool:
        """Whether more intervals are invalid than valid."""
        return self.faults.total() > len(self.usable)


def clean(series: Series, *, signed: bool = False) -> Clean:
    """Return the usable part of a series. ``signed`` values may be negative."""
    faults: Counter[str] = Counter()
    check = _CHECKS[series.kind]
    kept = tuple(check(each, series, signed, faults.update) for each in series.intervals)
    return Clean(kept, faults)


def edges_fault(series: HistogramSeries) -> str:
    """Return what is wrong with a histogram's edges; empty if they are valid."""
    if not series.edges:
        return "no finite bucket edge"
    return "" if all(a < b for a, b in pairwise(series.edges)) else "bucket edges that do not ascend"


_Blame = Callable[[Sequence[str]], None]


def _count(each: Count | None, _: Series, signed: bool, blame: _Blame) -> Count | None:
    if each is None:
        return None
    if min(each.bad, each.total) < 0:
        blame(["a negative increase (a counter was reset)"])
        return None
    if each.bad > each.total * (1 + _NOISE) + 1:
        blame(["more bad events than events"])
        return None
    return each if each.bad <= each.total else Count(bad=each.total, total=each.total)


def _buckets(
    each: tuple[float, ...] | None, series: HistogramSeries, signed: bool, blame: _Blame
) -> tuple[float, ...] | None:
    if each is None:
        return None
    if len(each) != len(series.edges) + 1:
        blame([f"{len(each)} buckets for {len(series.edges)} edges and +Inf"])
        return None
    if min(each) < 0:
        blame(["a negative increase (a counter was reset)"])
        return None
    mended = tuple(_running_max(each))
    if max(m - e for m, e in zip(mended, each, strict=True)) > _NOISE * mended[-1] + 1:
        blame(["buckets that fall (a counter was reset)"])
        return None
    return mended


def _value(each: float | None, _: Series, signed: bool, blame: _Blame) -> float | None:
    if each is not None and each < 0 and not signed:
        blame(["a negative value, which cannot be compared by a ratio"])
        return None
    return each


_CHECKS: dict[str, Callable[..., Any]] = {"counts": _count, "histogram": _buckets, "values": _value}


def _running_max(numbers: Sequence[float]) -> Iterator[float]:
    highest = 0.0
    for number in numbers:
        highest = max(highest, number)
        yield highest
