"""``compare``: weighs the evidence that the new side is worse, and that it is not, interval by interval."""

import math
from collections.abc import Callable

from segue.gates.verdict import Result
from segue.judging.buckets import on_edges
from segue.judging.clean import Clean, clean
from segue.judging.counts import compare_counts
from segue.judging.evidence import CountSeries, Evidence, HistogramSeries
from segue.judging.histograms import Histograms
from segue.judging.judged import Judged, evidence_of, finite, inconclusive, percent, times, with_unit
from segue.judging.sides import Sides, SidesFound, requests
from segue.judging.values import compare_values
from segue.spec.judgement import Compare

_Look = Callable[[Compare, Sides], SidesFound]


def compare(way: Compare, evidence: Evidence) -> Judged:
    """Compare both sides, which have data of one kind."""
    old, new = evidence.old, evidence.new
    assert old is not None and new is not None, "checked before"
    sides = _aligned(clean(old), clean(new), way.warmup, evidence.unit)
    if isinstance(old, HistogramSeries) and isinstance(new, HistogramSeries):
        common = tuple(sorted(set(old.edges) & set(new.edges)))
        if not common:
            return inconclusive("old and new have no bucket edge in common, so they cannot be compared")
        pairs = [(on_edges(old.edges, o, common), on_edges(new.edges, n, common)) for o, n in sides.pairs]
        history = [on_edges(old.edges, each, common) for each in sides.history]
        return _judged(way, Histograms(common), sides._replace(pairs=pairs, history=history))
    return _judged(way, compare_counts if isinstance(old, CountSeries) else compare_values, sides)


def _aligned(old: Clean, new: Clean, warmup: int, unit: str) -> Sides:
    warm = [i for i, each in enumerate(new.intervals) if each is not None][warmup:]
    first = warm[0] if warm else len(new.intervals)
    warmed = [None] * first + list(new.intervals[first:])
    both = zip(reversed(old.intervals), reversed(warmed), strict=False)
    pairs = [(o, n) for o, n in both if o is not None and n is not None and requests(o) > 0 and requests(n) > 0]
    notes = "; ".join(
        f"{name}: {side.faults_found} left out" for name, side in (("old", old), ("new", new)) if side.faults
    )
    return Sides(pairs[::-1], old.usable, notes, unit)


def _judged(way: Compare, look: _Look, sides: Sides) -> Judged:
    numbers = {"samples": float(len(sides.pairs))} | _traffic(sides)
    lacking = _lacking(way, numbers)
    if lacking:
        return inconclusive(_noted(lacking, sides), numbers)
    found = look(way, sides)
    result, why = _decided(way, found)
    numbers |= {"alpha": way.alpha, "beta": way.beta} | found.numbers
    numbers |= {"evidence_worse": evidence_of(found.worse), "evidence_fine": evidence_of(found.fine)}
    return Judged(result=result, why=_noted(why, sides), numbers=finite(numbers))


def _lacking(way: Compare, numbers: dict[str, float]) -> str:
    if numbers["samples"] < way.min_samples:
        samples = f"{numbers['samples']:g} intervals with data of both sides"
        return f"{samples}; {way.min_samples} are needed (minSamples)"
    for name in ("old", "new"):
        traffic = numbers.get(f"traffic_{name}", math.inf)
        if traffic < way.min_traffic:
            return f"{with_unit(traffic)} requests of the {name} side; {way.min_traffic} are needed (minTraffic)"
    return ""


def _decided(way: Compare, found: SidesFound) -> tuple[Result, str]:
    worse, fine = evidence_of(found.worse), evidence_of(found.fine)
    effect = f"{percent(way.effect)}{found.plus}"
    if found.worse >= -math.log(way.alpha):
        rule = f"worse by more than {percent(way.tolerance)} (evidence {times(worse)}, {1 / way.alpha:g} needed)"
        return Result.FAIL, f"{found.shown}: {rule}"
    if found.lacks:
        return Result.INCONCLUSIVE, f"{found.shown}: {found.lacks}"
    if found.fine >= -math.log(way.beta):
        rule = f"not worse by {effect} (evidence {times(fine)}, {1 / way.beta:g} needed)"
        return Result.PASS, f"{found.shown}: {rule}"
    undecided = f"evidence {times(worse)} of {1 / way.alpha:g} that it is worse by more than {percent(way.tolerance)}"
    return (
        Result.INCONCLUSIVE,
        f"{found.shown}: {undecided}, {times(fine)} of {1 / way.beta:g} that it is not worse by {effect}",
    )


def _traffic(sides: Sides) -> dict[str, float]:
    """Return the number of requests of each side; empty for values, which have no requests."""
    if not sides.pairs or isinstance(sides.pairs[0][0], float):
        return {}
    return {
        f"traffic_{name}": sum(requests(pair[at]) for pair in sides.pairs) for at, name in enumerate(("old", "new"))
    }


def _noted(why: str, sides: Sides) -> str:
    return f"{why} ({sides.notes})" if sides.notes else why
