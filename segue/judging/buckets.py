"""Arithmetic of classic histograms: cumulative counts by ``le``, of which the last is ``+Inf``.

Events are assumed to be spread evenly within a bucket, and the lowest bucket to begin at 0, as in Prometheus'
``histogram_quantile`` (prometheus.io/docs/prometheus/latest/querying/functions). Finer buckets are more precise.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Edges = Sequence[float]
Cumulative = Sequence[float]


class EdgePlace(NamedTuple):
    """The place of a bound among the edges: its bucket, and the part of that bucket under the bound."""

    bucket: int
    part: float


def place(edges: Edges, bound: float) -> EdgePlace:
    """Return a bound's place. Over the last finite edge, no part of the last bucket is under the bound."""
    at = bisect_left(edges, bound)
    if at == len(edges):
        return EdgePlace(at, 0.0)
    lower = edges[at - 1] if at else min(0.0, edges[0])
    width = edges[at] - lower
    return EdgePlace(at, min(1.0, max(0.0, (bound - lower) / width)) if width > 0 else 1.0)


def above(cumulative: Cumulative, where: EdgePlace) -> float:
    """Return the number of events over the bound at this place."""
    under = cumulative[where.bucket - 1] if where.bucket else 0.0
    return cumulative[-1] - under - (cumulative[where.bucket] - under) * where.part


def quantile(edges: Edges, cumulative: Cumulative, level: float) -> float:
    """Return the quantile; NaN without events, infinity if it is over the last finite edge."""
    total = cumulative[-1]
    if total <= 0:
        return math.nan
    rank = level * total
    at = next((i for i, count in enumerate(cumulative) if count >= rank), len(edges))
    if at == len(edges):
        return math.inf
    lower, under = (edges[at - 1], cumulative[at - 1]) if at else (min(0.0, edges[0]), 0.0)
    inside = cumulative[at] - under
    return lower + (edges[at] - lower) * ((rank - under) / inside if inside > 0 else 1.0)


def pooled(intervals: Sequence[Cumulative]) -> tuple[float, ...]:
    """Return the sum of all intervals, bucket by bucket."""
    return tuple(sum(column) for column in zip(*intervals, strict=True))


def on_edges(edges: Edges, cumulative: Cumulative, common: Edges) -> tuple[float, ...]:
    """Return the counts at the ``common`` edges only."""
    if len(common) == len(edges):
        return tuple(cumulative)
    places = {edge: place for place, edge in enumerate(edges)}
    return (*(cumulative[places[edge]] for edge in common), cumulative[-1])


def superiority(over_old: Sequence[float], over_new: Sequence[float]) -> float:
    """Return the probability that a new event exceeds an old one, less 1/2: from -1/2 to 1/2.

    Both arguments count the events over ascending bounds; the first count is that of all events. Two events between the
    same bounds count half: the statistic of Mann and Whitney, less 1/2.
    """
    found, pairs_old, pairs_new = 0.0, (*over_old, 0.0), (*over_new, 0.0)
    for (old, next_old), (new, next_new) in zip(pairwise(pairs_old), pairwise(pairs_new), strict=True):
        found += (new - next_new) * (over_old[0] - (old + next_old) / 2)
    return found / (over_old[0] * over_new[0]) - 0.5
