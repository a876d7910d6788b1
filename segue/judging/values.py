"""Compares values: one number for each interval."""

import math

from segue.judging import eprocess
from segue.judging.judged import with_unit
from segue.judging.sides import Sides, SidesFound
from segue.spec.judgement import Compare


def compare_values(way: Compare, sides: Sides) -> SidesFound:
    """Compare by the logarithm of new over old in each interval: what both sides share cancels."""
    slack = way.slack or 0.0
    worse = [_gap(way, o, n, way.tolerance, slack) for o, n in sides.pairs]
    fine = [-_gap(way, o, n, way.effect, slack) for o, n in sides.pairs]
    # Neighbours that resemble each other count once. A drift of both sides is not such a resemblance, and neither is a
    # new side that becomes worse over time: the resemblance shows in both the old side's values and the differences.
    inflation = min(eprocess.persistence(sides.history), eprocess.persistence(worse))
    old, new = (sorted(side)[len(sides.pairs) // 2] for side in zip(*sides.pairs, strict=True))
    idle = all(gap == 0 for gap in fine)
    return SidesFound(
        worse=eprocess.differences(worse, inflation),
        fine=eprocess.differences(fine, inflation),
        numbers={"old": old, "new": new, "inflation": inflation},
        shown=f"median of new {with_unit(new, sides.unit)}, of old {with_unit(old, sides.unit)}",
        lacks="both sides are always 0, so they have no ratio; give `slack`" if idle else "",
    )


_FAR = 3.0
"""Logarithms are limited to a ratio of e^3: a larger ratio adds nothing, and 0 has no logarithm."""


def _gap(way: Compare, old: float, new: float, part: float, slack: float) -> float:
    """Return the logarithm of the new value over its bound; negative if it is within the bound."""
    better, worse = (old, new) if way.worse == "higher" else (new, old)
    bound = (1 + part) * better + slack
    if bound <= 0 or worse <= 0:
        return _FAR * ((worse > 0) - (bound > 0))
    return max(-_FAR, min(_FAR, math.log(worse) - math.log(bound)))  # the quotient of very different values can be 0
