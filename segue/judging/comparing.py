"""``compare``: two sides, interval by interval, by e-processes for both "it is worse" and "it is not"."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from segue.gates.verdict import Result
from segue.judging import eprocess
from segue.judging.buckets import above, on_edges, place, pooled, quantile, share_around, superiority
from segue.judging.clean import Clean, clean
from segue.judging.eprocess import BETTER, WORSE
from segue.judging.evidence import Count, CountSeries, Evidence, HistogramSeries, ValueSeries
from segue.judging.judged import Judged, evidence_of, finite, inconclusive, percent, said, times
from segue.judging.spec import Compare

DEFAULT_SLACK = 0.001
"""Of requests: one more of a thousand is never a reason to go back."""
MIDDLE, TAIL = 0.5, 0.99
_MIDDLE_SHARE = 0.2
"""Without tails, edges that fewer of the old side's events were over are left out."""
MAX_IN_ONE_BUCKET = 0.7
"""With more of all events between two edges, a histogram cannot tell where their middle is."""


class _Sides(NamedTuple):
    """The usable intervals that both sides have, aligned; and all of the old side's, which show its noise."""

    pairs: list[tuple[Any, Any]]
    history: list[Any]
    notes: str


class _Found(NamedTuple):
    """The evidence of one comparison, as logarithms, and what it was found on."""

    worse: float
    fine: float
    numbers: dict[str, float]
    shown: str
    lacks: str = ""
    """Why a pass is impossible, whatever the evidence."""


def compare(way: Compare, evidence: Evidence) -> Judged:
    """Compare both sides; both have data of one kind."""
    old, new = evidence.old, evidence.new
    assert old is not None and new is not None, "checked before"
    sides = _aligned(clean(old), clean(new), way.warmup)
    if isinstance(old, CountSeries):
        return _judged(way, _counts, sides, evidence)
    if isinstance(old, HistogramSeries) and isinstance(new, HistogramSeries):
        common = tuple(sorted(set(old.edges) & set(new.edges)))
        if not common:
            return inconclusive("old and new have no bucket edge in common, so that nothing can be compared")
        pairs = [(on_edges(old.edges, o, common), on_edges(new.edges, n, common)) for o, n in sides.pairs]
        history = [on_edges(old.edges, each, common) for each in sides.history]
        return _judged(way, _Histograms(common), _Sides(pairs, history, sides.notes), evidence)
    return _judged(way, _values, sides, evidence)


def _aligned(old: Clean, new: Clean, warmup: int) -> _Sides:
    warm = [i for i, each in enumerate(new.intervals) if each is not None][warmup:]
    first = warm[0] if warm else len(new.intervals)
    warmed = [None] * first + list(new.intervals[first:])
    both = zip(reversed(old.intervals), reversed(warmed), strict=False)
    pairs = [(o, n) for o, n in both if o is not None and n is not None and _requests(o) > 0 and _requests(n) > 0]
    notes = "; ".join(f"{name}: {side.said} left out" for name, side in (("old", old), ("new", new)) if side.faults)
    return _Sides(pairs[::-1], old.usable, notes)


_Look = Callable[[Compare, _Sides, Evidence], _Found]


def _judged(way: Compare, look: _Look, sides: _Sides, evidence: Evidence) -> Judged:
    if len(sides.pairs) < way.min_samples:
        why = f"{len(sides.pairs)} intervals with data of both sides, and {way.min_samples} are needed (minSamples)"
        return inconclusive(_noted(why, sides), {"samples": len(sides.pairs)})
    traffic = _traffic(sides, evidence)
    few = min(traffic, key=lambda name: traffic[name], default="")
    if traffic and traffic[few] < way.min_traffic:
        why = f"{said(traffic[few])} requests of the {few} side, and {way.min_traffic} are needed (minTraffic)"
        return inconclusive(_noted(why, sides), {"samples": len(sides.pairs)} | _named(traffic))
    found = look(way, sides, evidence)
    result, why = _decided(way, found)
    numbers = {"samples": len(sides.pairs), "alpha": way.alpha, "beta": way.beta} | _named(traffic) | found.numbers
    numbers |= {"evidence_worse": evidence_of(found.worse), "evidence_fine": evidence_of(found.fine)}
    return Judged(result=result, why=_noted(why, sides), numbers=finite(numbers))


def _decided(way: Compare, found: _Found) -> tuple[Result, str]:
    worse, fine = evidence_of(found.worse), evidence_of(found.fine)
    if found.worse >= -math.log(way.alpha):
        rule = f"worse by more than {percent(way.tolerance)} (evidence {times(worse)}, {1 / way.alpha:g} needed)"
        return Result.FAIL, f"{found.shown}: {rule}"
    if found.lacks:
        return Result.INCONCLUSIVE, f"{found.shown}: {found.lacks}"
    if found.fine >= -math.log(way.beta):
        rule = f"not worse by {percent(way.effect)} (evidence {times(fine)}, {1 / way.beta:g} needed)"
        return Result.PASS, f"{found.shown}: {rule}"
    undecided = f"evidence {times(worse)} of {1 / way.alpha:g} that it is worse by more than {percent(way.tolerance)}"
    return (
        Result.INCONCLUSIVE,
        f"{found.shown}: {undecided}, {times(fine)} of {1 / way.beta:g} that it is not by {percent(way.effect)}",
    )


def _traffic(sides: _Sides, evidence: Evidence) -> dict[str, float]:
    if isinstance(evidence.old, ValueSeries):
        return {}
    return {name: sum(_requests(pair[at]) for pair in sides.pairs) for at, name in enumerate(("old", "new"))}


def _requests(interval: Any) -> float:
    """Return how many requests an interval of counts or of a histogram has; a value has none, and counts."""
    if isinstance(interval, Count):
        return interval.total
    return float(interval[-1]) if isinstance(interval, tuple) else 1.0


def _named(traffic: dict[str, float]) -> dict[str, float]:
    return {f"traffic_{name}": value for name, value in traffic.items()}


def _noted(why: str, sides: _Sides) -> str:
    return f"{why} ({sides.notes})" if sides.notes else why


# --- rates ------------------------------------------------------------------------------------------------


class _Tilted(NamedTuple):
    """What can be shared by all edges of a histogram: they have the same requests."""

    worse: list[eprocess.Tilts]
    fine: list[eprocess.Tilts]


def _tilted(totals: Sequence[tuple[float, float]], slack: float, worse: float, fine: float) -> _Tilted:
    return _Tilted(
        [eprocess.tilts(totals, worse, slack, effect) for effect in WORSE],
        [eprocess.tilts(totals, fine, slack, effect) for effect in BETTER],
    )


def _counts(way: Compare, sides: _Sides, evidence: Evidence) -> _Found:
    pairs = sides.pairs
    slack = DEFAULT_SLACK if way.slack is None else way.slack
    tilted = _tilted([(o.total, n.total) for o, n in pairs], slack, 1 + way.tolerance, 1 + way.effect)
    inflation = eprocess.dispersion([o.bad for o in sides.history], [o.total for o in sides.history])
    bad = [o.bad for o, _ in pairs], [n.bad for _, n in pairs]
    old, new = (_summed([pair[side] for pair in pairs]) for side in (0, 1))
    return _Found(
        worse=eprocess.rates(*bad, tilted.worse, inflation),
        fine=eprocess.rates(*bad, tilted.fine, inflation),
        numbers={"old": old.bad / old.total, "new": new.bad / new.total, "inflation": inflation},
        shown=f"new {_rate(new)}, old {_rate(old)}",
    )


def _summed(counts: Sequence[Count]) -> Count:
    return Count(bad=sum(each.bad for each in counts), total=sum(each.total for each in counts))


def _rate(count: Count) -> str:
    return f"{percent(count.bad / count.total)} ({said(count.bad)} of {said(count.total)})"


# --- histograms -------------------------------------------------------------------------------------------


class _Histograms:
    """Compares by how many events were over an edge, at all edges: the middle and the tail in one.

    Worse: new over ``le`` against old over ``le / (1 + tolerance)``, the mean over all edges. Not worse: new over
    ``(1 + effect) x`` against old over x, at the old side's median and its 99th percentile; both have to say so.
    """

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges

    def __call__(self, way: Compare, sides: _Sides, evidence: Evidence) -> _Found:
        slack = DEFAULT_SLACK if way.slack is None else way.slack
        tilted = _tilted([(o[-1], n[-1]) for o, n in sides.pairs], slack, 1.0, 1.0)
        old, new = (pooled(side) for side in zip(*sides.pairs, strict=True))
        levels = (MIDDLE, TAIL) if way.tails else (MIDDLE,)
        numbers: dict[str, float] = {}
        parts = []
        for level in levels:
            before, now = (quantile(self._edges, side, level) for side in (old, new))
            name = f"p{level * 100:g}"
            numbers |= {f"{name}_old": before, f"{name}_new": now}
            parts.append(f"{name} new {self._said(now, evidence)}, old {self._said(before, evidence)}")
        lacks = self._lacks(old, [numbers[f"p{level * 100:g}_old"] for level in levels])
        return _Found(
            worse=self._worse(way, sides, tilted, old),
            fine=-math.inf if lacks else self._fine(way, sides, tilted, old, levels),
            numbers=numbers | {"edges": len(self._edges)},
            shown="; ".join(parts),
            lacks=lacks,
        )

    def _said(self, value: float, evidence: Evidence) -> str:
        if math.isinf(value):
            return f"over {said(self._edges[-1], evidence.unit)}"
        return said(value, evidence.unit)

    def _lacks(self, old: Sequence[float], quantiles: Sequence[float]) -> str:
        if any(math.isinf(each) for each in quantiles):
            return f"the old side goes over the last bucket edge ({said(self._edges[-1])}); add edges to judge its tail"
        lower, upper, share = share_around(self._edges, old, quantiles[0])
        if share > MAX_IN_ONE_BUCKET:
            where = f"between the edges {said(lower)} and {said(upper)}"
            return f"{percent(share)} of the old side's requests are {where}, too coarse to tell; add edges there"
        return ""

    def _worse(self, way: Compare, sides: _Sides, tilted: _Tilted, old: Sequence[float]) -> float:
        befores = [edge / (1 + way.tolerance) if edge > 0 else edge for edge in self._edges]
        logs = []
        for before, edge in zip(befores, self._edges, strict=True):
            if way.tails or above(old, place(self._edges, before)) >= _MIDDLE_SHARE * old[-1]:
                logs.append(self._at(sides, before, edge, tilted.worse))
            else:
                logs.append(-math.inf)  # left out, and yet counted: which edges are the tail is known from the data
        ranks = eprocess.bets(self._ranks(sides, way.tolerance))
        return eprocess.log_mean_exp([ranks, eprocess.log_mean_exp(logs) if max(logs) > -math.inf else -math.inf])

    def _fine(
        self, way: Compare, sides: _Sides, tilted: _Tilted, old: Sequence[float], levels: Sequence[float]
    ) -> float:
        found = []
        for level in levels:
            now = min(quantile(self._edges, old, level) * (1 + way.effect), self._edges[-1])
            found.append(self._at(sides, now / (1 + way.effect), now, tilted.fine))
        ranks = eprocess.bets([-each for each in self._ranks(sides, way.effect)])
        return min(eprocess.log_mean_exp([found[0], ranks]), *found[1:], math.inf)

    def _ranks(self, sides: _Sides, part: float) -> list[float]:
        """Return, interval by interval, how probable it is that a new event is over ``1 + part`` times an old one."""
        befores = [place(self._edges, edge / (1 + part) if edge > 0 else edge) for edge in self._edges]
        nows = [place(self._edges, edge) for edge in self._edges]
        return [
            superiority([o[-1], *(above(o, at) for at in befores)], [n[-1], *(above(n, at) for at in nows)])
            for o, n in sides.pairs
        ]

    def _at(self, sides: _Sides, before: float, now: float, effects: list[eprocess.Tilts]) -> float:
        """Compare new events over ``now`` with old ones over ``before``."""
        at_old, at_new = place(self._edges, before), place(self._edges, now)
        bad_old = [above(o, at_old) for o, _ in sides.pairs]
        bad_new = [above(n, at_new) for _, n in sides.pairs]
        history = [above(each, at_old) for each in sides.history]
        inflation = eprocess.dispersion(history, [each[-1] for each in sides.history])
        return eprocess.rates(bad_old, bad_new, effects, inflation)


# --- values -----------------------------------------------------------------------------------------------


def _values(way: Compare, sides: _Sides, evidence: Evidence) -> _Found:
    """By the logarithm of new over old, interval by interval: what both share cancels."""
    slack = way.slack or 0.0
    worse = [_gap(way, o, n, way.tolerance, slack) for o, n in sides.pairs]
    fine = [-_gap(way, o, n, way.effect, slack) for o, n in sides.pairs]
    # Neighbours that resemble each other count once. A drift of both sides is no such thing, nor is a new side that
    # becomes worse on the way: what is meant shows in the old side's values and in the differences.
    inflation = min(eprocess.persistence(sides.history), eprocess.persistence(worse))
    old, new = (sorted(side)[len(sides.pairs) // 2] for side in zip(*sides.pairs, strict=True))
    idle = all(gap == 0 for gap in fine)
    return _Found(
        worse=eprocess.differences(worse, inflation),
        fine=eprocess.differences(fine, inflation),
        numbers={"old": old, "new": new, "inflation": inflation},
        shown=f"median of new {said(new, evidence.unit)}, of old {said(old, evidence.unit)}",
        lacks="both are always 0, of which nothing can be more or less; give `slack`" if idle else "",
    )


_FAR = 3.0
"""A ratio of e^3 is far enough: more says nothing more, and 0 has no logarithm."""


def _gap(way: Compare, old: float, new: float, part: float, slack: float) -> float:
    """Return the logarithm of how far the new value is beyond its bound; negative when it keeps to it."""
    better, worse = (old, new) if way.worse == "higher" else (new, old)
    bound = (1 + part) * better + slack
    if bound <= 0 or worse <= 0:
        return _FAR * ((worse > 0) - (bound > 0))
    return max(-_FAR, min(_FAR, math.log(worse / bound)))
