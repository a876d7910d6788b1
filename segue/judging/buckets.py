"""Arithmetic of classic histograms: cumulative counts by ``le``, the last one of ``+Inf``.

Inside a bucket events are taken as spread evenly, and the lowest one begins at 0, as Prometheus' ``histogram_quantile``
does it (prometheus.io/docs/prometheus/latest/querying/functions). It cannot be known better; finer buckets help.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

Edges = Sequence[float]
Cumulative = Sequence[float]


def above(edges: Edges, cumulative: Cumulative, bound: float) -> float:
    """Return how many events were over ``bound``; over the last finite edge, all that were over that edge."""
    total = cumulative[-1]
    at = bisect_left(edges, bound)
    if at == len(edges):
        return total - cumulative[len(edges) - 1]
    lower, under = (edges[at - 1], cumulative[at - 1]) if at else (min(0.0, edges[0]), 0.0)
    width = edges[at] - lower
    part = (bound - lower) / width if width > 0 else 1.0
    return total - under - (cumulative[at] - under) * min(1.0, max(0.0, part))


def quantile(edges: Edges, cumulative: Cumulative, level: float) -> float:
    """Return the quantile; NaN without events, infinity where it is over the last finite edge."""
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


def share_around(edges: Edges, cumulative: Cumulative, value: float) -> tuple[float, float, float]:
    """Return the bucket that holds ``value``: its bounds, and which share of all events is in it."""
    at = bisect_left(edges, value)
    lower, under = (edges[at - 1], cumulative[at - 1]) if at else (min(0.0, edges[0]), 0.0)
    upper = edges[at] if at < len(edges) else math.inf
    return lower, upper, (cumulative[at] - under) / cumulative[-1]


def on_edges(edges: Edges, cumulative: Cumulative, common: Edges) -> tuple[float, ...]:
    """Return the same counts by the ``common`` edges only."""
    if len(common) == len(edges):
        return tuple(cumulative)
    places = {edge: place for place, edge in enumerate(edges)}
    return (*(cumulative[places[edge]] for edge in common), cumulative[-1])
