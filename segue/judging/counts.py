"""Compares rates: the share of bad events in all events."""

from collections.abc import Sequence
from typing import NamedTuple

from segue.judging import eprocess
from segue.judging.eprocess import BETTER, WORSE
from segue.judging.evidence import Count
from segue.judging.judged import percent, with_unit
from segue.judging.sides import Sides, SidesFound, slack_of
from segue.spec.judgement import Compare


class Tilted(NamedTuple):
    """Tilts that all edges of a histogram share, because they have the same requests."""

    worse: list[eprocess.Tilts]
    fine: list[eprocess.Tilts]


class Bound(NamedTuple):
    """The boundary of a null hypothesis: so many times the old rate, and so much more."""

    times: float
    more: float


def tilted(totals: Sequence[tuple[float, float]], worse: Bound, fine: Bound) -> Tilted:
    """Return the tilts of all effects, for two nulls: a new rate of at most ``worse``, and of at least ``fine``."""
    return Tilted(
        [eprocess.tilts(totals, worse.times, worse.more, effect) for effect in WORSE],
        [eprocess.tilts(totals, fine.times, fine.more, effect) for effect in BETTER],
    )


def compare_counts(way: Compare, sides: Sides) -> SidesFound:
    """Return the evidence, and the rates of both sides."""
    pairs = sides.pairs
    slack = slack_of(way)
    margin = max(slack, way.margin)
    totals = [(o.total, n.total) for o, n in pairs]
    tilts = tilted(totals, Bound(1 + way.tolerance, slack), Bound(1 + way.effect, margin))
    inflation = eprocess.dispersion([o.bad for o in sides.history], [o.total for o in sides.history])
    bad = [o.bad for o, _ in pairs], [n.bad for _, n in pairs]
    old, new = (_summed([pair[side] for pair in pairs]) for side in (0, 1))
    return SidesFound(
        worse=eprocess.rates(*bad, tilts.worse, inflation, way.alpha),
        fine=eprocess.rates(*bad, tilts.fine, inflation, way.beta),
        numbers={"old": old.bad / old.total, "new": new.bad / new.total, "inflation": inflation, "margin": margin},
        shown=f"new {_rate(new)}, old {_rate(old)}",
        plus=f" plus {percent(margin)} of requests" if margin > slack else "",
    )


def _summed(counts: Sequence[Count]) -> Count:
    return Count(bad=sum(each.bad for each in counts), total=sum(each.total for each in counts))


def _rate(count: Count) -> str:
    return f"{percent(count.bad / count.total)} ({with_unit(count.bad)} of {with_unit(count.total)})"
