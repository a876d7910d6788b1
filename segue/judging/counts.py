"""Compares rates: the share of bad events in all events."""

from collections.abc import Sequence
from typing import NamedTuple

from segue.judging import eprocess
from segue.judging.eprocess import BETTER, WORSE
from segue.judging.evidence import Count
from segue.judging.judged import percent, said
from segue.judging.sides import Sides, SidesFound, slack_of
from segue.spec.judgement import Compare


class Tilted(NamedTuple):
    """Tilts that all edges of a histogram share, because they have the same requests."""

    worse: list[eprocess.Tilts]
    fine: list[eprocess.Tilts]


def tilted(totals: Sequence[tuple[float, float]], slack: float, worse: float, fine: float) -> Tilted:
    """Return the tilts of all effects, for two nulls: at most ``worse`` times the old rate, at least ``fine`` times."""
    return Tilted(
        [eprocess.tilts(totals, worse, slack, effect) for effect in WORSE],
        [eprocess.tilts(totals, fine, slack, effect) for effect in BETTER],
    )


def compare_counts(way: Compare, sides: Sides) -> SidesFound:
    """Return the evidence, and the rates of both sides."""
    pairs = sides.pairs
    tilts = tilted([(o.total, n.total) for o, n in pairs], slack_of(way), 1 + way.tolerance, 1 + way.effect)
    inflation = eprocess.dispersion([o.bad for o in sides.history], [o.total for o in sides.history])
    bad = [o.bad for o, _ in pairs], [n.bad for _, n in pairs]
    old, new = (_summed([pair[side] for pair in pairs]) for side in (0, 1))
    return SidesFound(
        worse=eprocess.rates(*bad, tilts.worse, inflation),
        fine=eprocess.rates(*bad, tilts.fine, inflation),
        numbers={"old": old.bad / old.total, "new": new.bad / new.total, "inflation": inflation},
        shown=f"new {_rate(new)}, old {_rate(old)}",
    )


def _summed(counts: Sequence[Count]) -> Count:
    return Count(bad=sum(each.bad for each in counts), total=sum(each.total for each in counts))


def _rate(count: Count) -> str:
    return f"{percent(count.bad / count.total)} ({said(count.bad)} of {said(count.total)})"
