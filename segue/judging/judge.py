"""``judge``: one judgement of the evidence. It never raises for measurable data, and never passes by default."""

import math
from typing import Any, NamedTuple

from segue.gates.verdict import Result
from segue.judging.buckets import quantile
from segue.judging.clean import MAX_AGE, Clean, clean, edges_fault
from segue.judging.comparing import compare
from segue.judging.evidence import CountSeries, Evidence, HistogramSeries, Series
from segue.judging.judged import Judged, finite, inconclusive, percent, with_unit
from segue.spec.judgement import DEFAULT_QUANTILE, Compare, Judgement, Ratio, Threshold


def judge(judgement: Judgement, evidence: Evidence) -> Judged:
    """Return the result of this judgement on the evidence.

    It depends on the evidence alone: call it again with more. ``compare`` keeps its ``alpha`` however often it is
    called, as long as the evidence begins where the comparison began.
    """
    lacking = _lacking(judgement, evidence)
    if lacking:
        return inconclusive(lacking)
    way = judgement.way
    if isinstance(way, Compare):
        return compare(way, evidence)
    return _threshold(way, evidence) if isinstance(way, Threshold) else _ratio(way, evidence)


def _lacking(judgement: Judgement, evidence: Evidence) -> str:
    """Return why the evidence cannot be judged; empty if it can."""
    sides = [("new", evidence.new)] + [("old", evidence.old)] * judgement.needs_old
    for name, series in sides:
        if series is None or not any(each is not None for each in series.intervals):
            return f"no data of the {name} side"
        if isinstance(series, HistogramSeries) and edges_fault(series):
            return f"the {name} side's histogram has {edges_fault(series)}"
        side = clean(series, signed=judgement.threshold is not None)
        if side.mostly_faulty:
            return f"most of the {name} side's data is invalid: {side.faults_found}"
        if side.latest is None:
            return f"no usable data of the {name} side in the last {MAX_AGE} intervals{_left_out(side)}"
    if judgement.needs_old and len({series.kind for _, series in sides if series is not None}) > 1:
        return "the two sides have data of different kinds"
    return ""


def _left_out(side: Clean) -> str:
    return f" ({side.faults_found})" if side.faults else ""


class _Reading(NamedTuple):
    """One side's latest interval as one number."""

    value: float
    traffic: float
    what: str
    text: str
    last_edge: float = math.inf


def _threshold(way: Threshold, evidence: Evidence) -> Judged:
    assert evidence.new is not None, "checked in _lacking"
    new = _read(way, evidence.new, evidence.unit, signed=True)
    numbers = {"new": new.value, "traffic_new": new.traffic} | _bounds(way.min, way.max)
    unknown = _unknown(way, {"new": new})
    return inconclusive(unknown, numbers) if unknown else _against(way.min, way.max, new, numbers, evidence)


def _ratio(way: Ratio, evidence: Evidence) -> Judged:
    assert evidence.new is not None and evidence.old is not None, "checked in _lacking"
    new = _read(way, evidence.new, evidence.unit, signed=False)
    old = _read(way, evidence.old, evidence.unit, signed=False)
    base = max(old.value, way.floor)
    numbers = {"new": new.value, "old": old.value, "traffic_new": new.traffic, "traffic_old": old.traffic}
    unknown = _unknown(way, {"new": new, "old": old})
    if not unknown and base <= 0:
        unknown = "the old side is 0, so `ratio` has no bound; give `floor`"
    if unknown:
        return inconclusive(unknown, numbers)
    least, most = (None if factor is None else factor * base for factor in (way.min, way.max))
    floored = " (its floor)" * (base > old.value)
    text = f"{new.text}, of the old side {_shown(base, evidence)}{floored}"
    return _against(least, most, new._replace(text=text), numbers | _bounds(least, most), evidence)


def _against(least: float | None, most: float | None, new: _Reading, numbers: dict[str, float], of: Evidence) -> Judged:
    if most is not None and new.value > most:
        result, rule = Result.FAIL, f"over {_shown(most, of)}"
    elif least is not None and new.value < least:
        result, rule = Result.FAIL, f"under {_shown(least, of)}"
    else:
        bounds = (("at most", most), ("at least", least))
        result, rule = Result.PASS, " and ".join(f"{word} {_shown(b, of)}" for word, b in bounds if b is not None)
    return Judged(result=result, why=f"{new.what} of the new side is {new.text}: {rule}", numbers=finite(numbers))


def _unknown(way: Threshold | Ratio, readings: dict[str, _Reading]) -> str:
    for side, reading in readings.items():
        if reading.traffic < way.min_traffic:
            few = f"{with_unit(reading.traffic)} requests in the latest interval"
            return f"the {side} side has {few}; {way.min_traffic} are needed (minTraffic)"
        if math.isinf(reading.value):
            return (
                f"{reading.what} of the {side} side is over the last bucket edge "
                f"({with_unit(reading.last_edge)}); add edges"
            )
    return ""


def _read(way: Threshold | Ratio, series: Series, unit: str, *, signed: bool) -> _Reading:
    latest: Any = clean(series, signed=signed).latest
    if isinstance(series, CountSeries):
        rate = latest.bad / latest.total if latest.total > 0 else 0.0
        shown = f"{percent(rate)} ({with_unit(latest.bad)} of {with_unit(latest.total)})"
        return _Reading(rate, latest.total, "the share", shown)
    if isinstance(series, HistogramSeries):
        level = way.quantile or DEFAULT_QUANTILE
        found = quantile(series.edges, latest, level)
        what = f"the {level * 100:g}th percentile"
        return _Reading(found, latest[-1], what, with_unit(found, unit), series.edges[-1])
    return _Reading(latest, math.inf, "the value", with_unit(latest, unit))


def _shown(value: float, evidence: Evidence) -> str:
    return percent(value) if isinstance(evidence.new, CountSeries) else with_unit(value, evidence.unit)


def _bounds(least: float | None, most: float | None) -> dict[str, float]:
    return {name: value for name, value in (("min", least), ("max", most)) if value is not None}
