"""Compares histograms, by the number of events over each edge and by ranks."""

import math
from collections.abc import Sequence

from segue.judging import eprocess
from segue.judging.buckets import above, place, pooled, quantile, superiority
from segue.judging.counts import Bound, Tilted, tilted
from segue.judging.judged import percent, with_unit
from segue.judging.sides import Sides, SidesFound, slack_of
from segue.spec.judgement import Compare

MIDDLE, TAIL = 0.5, 0.99
_MIDDLE_SHARE = 0.2
"""Without tails, edges that a smaller share of the old side's events exceeds are left out."""
MAX_IN_ONE, MAX_IN_TWO = 0.7, 0.9
"""With a larger share of events in one bucket, or in two neighbours, their position in it is too uncertain: if all are
close to an edge, 2 % slower moves most of them over it."""


class Histograms:
    """Compares the number of events over each edge, at all edges: the middle and the tail together.

    Worse: new over ``le`` against old over ``le / (1 + tolerance)``, the mean over all edges. Not worse: new over
    ``(1 + effect) x`` against old over x, at the old side's median and its 99th percentile; both must show it.
    """

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges

    def __call__(self, way: Compare, sides: Sides) -> SidesFound:
        """Return the evidence, and the quantiles of both sides."""
        bound = Bound(1.0, slack_of(way))
        tilts = tilted([(o[-1], n[-1]) for o, n in sides.pairs], bound, bound)
        old, new = (pooled(side) for side in zip(*sides.pairs, strict=True))
        levels = (MIDDLE, TAIL) if way.tails else (MIDDLE,)
        numbers: dict[str, float] = {}
        parts = []
        for level in levels:
            before, now = (quantile(self._edges, side, level) for side in (old, new))
            name = f"p{level * 100:g}"
            numbers |= {f"{name}_old": before, f"{name}_new": now}
            parts.append(f"{name} new {self._shown(now, sides)}, old {self._shown(before, sides)}")
        coarse = self._coarse(old, way)
        lacks = coarse or self._endless(old, max(levels), sides)
        return SidesFound(
            worse=self._worse(way, sides, tilts, old, fine=not coarse),
            fine=-math.inf if lacks else self._fine(way, sides, tilts, old, levels),
            numbers=numbers | {"edges": len(self._edges)},
            shown="; ".join(parts),
            lacks=lacks,
        )

    def _shown(self, value: float, sides: Sides) -> str:
        if math.isinf(value):
            return f"over {with_unit(self._edges[-1], sides.unit)}"
        return with_unit(value, sides.unit)

    def _endless(self, old: Sequence[float], level: float, sides: Sides) -> str:
        if math.isfinite(quantile(self._edges, old, level)):
            return ""
        last = with_unit(self._edges[-1], sides.unit)
        return f"the old side exceeds the last bucket edge ({last}); add edges to judge its tail"

    def _coarse(self, old: Sequence[float], way: Compare) -> str:
        """Return which buckets are too coarse to compare; empty if none is."""
        bounds = (min(0.0, self._edges[0]), *self._edges)
        for most, width in ((MAX_IN_ONE, 1), (MAX_IN_TWO, 2)):
            for at in range(width, len(bounds)):
                lower, upper = bounds[at - width], bounds[at]
                share = (old[at - 1] - (old[at - 1 - width] if at > width else 0.0)) / old[-1]
                if share > most and upper > lower * (1 + way.effect) ** width:
                    where = f"between the edges {with_unit(lower)} and {with_unit(upper)}"
                    return (
                        f"{percent(share)} of the old side's requests are {where}, too coarse to tell; add edges there"
                    )
        return ""

    def _worse(self, way: Compare, sides: Sides, tilts: Tilted, old: Sequence[float], *, fine: bool) -> float:
        """Return the mean evidence over all edges; without ``fine`` buckets, conservatively by the edges alone."""
        logs = []
        for edge in self._edges:
            before = edge / (1 + way.tolerance) if edge > 0 else edge
            if not fine:
                before = max((each for each in self._edges if each <= before), default=-math.inf)
            if way.tails or above(old, place(self._edges, before)) >= _MIDDLE_SHARE * old[-1]:
                logs.append(self._at(sides, before, edge, tilts.worse, way.alpha))
            else:
                logs.append(-math.inf)  # left out, yet counted in the mean: the data decides which edges are the tail
        ranks = eprocess.bets(self._ranks(sides, way.tolerance)) if fine else -math.inf
        return eprocess.log_mean_exp([ranks, eprocess.log_mean_exp(logs)])

    def _fine(self, way: Compare, sides: Sides, tilts: Tilted, old: Sequence[float], levels: Sequence[float]) -> float:
        found = []
        for level in levels:
            now = min(quantile(self._edges, old, level) * (1 + way.effect), self._edges[-1])
            found.append(self._at(sides, now / (1 + way.effect), now, tilts.fine, way.beta))
        ranks = eprocess.bets([-each for each in self._ranks(sides, way.effect)])
        return min([eprocess.log_mean_exp([found[0], ranks]), *found[1:]])

    def _ranks(self, sides: Sides, part: float) -> list[float]:
        """Return by interval the probability, less 1/2, that a new event is over ``1 + part`` times an old one."""
        befores = [place(self._edges, edge / (1 + part) if edge > 0 else edge) for edge in self._edges]
        nows = [place(self._edges, edge) for edge in self._edges]
        return [
            superiority([o[-1], *(above(o, at) for at in befores)], [n[-1], *(above(n, at) for at in nows)])
            for o, n in sides.pairs
        ]

    def _at(self, sides: Sides, before: float, now: float, effects: list[eprocess.Tilts], error: float) -> float:
        """Compare new events over ``now`` with old events over ``before``."""
        at_old, at_new = place(self._edges, before), place(self._edges, now)
        bad_old = [above(o, at_old) for o, _ in sides.pairs]
        bad_new = [above(n, at_new) for _, n in sides.pairs]
        history = [above(each, at_old) for each in sides.history]
        inflation = eprocess.dispersion(history, [each[-1] for each in sides.history])
        return eprocess.rates(bad_old, bad_new, effects, inflation, error)
