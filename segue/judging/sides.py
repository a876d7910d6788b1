"""What a comparison is given, and what it finds."""

from typing import Any, NamedTuple

from segue.judging.evidence import Count
from segue.spec.judgement import Compare

DEFAULT_SLACK = 0.001
"""Of requests: one more of a thousand is never a reason to go back."""


class Sides(NamedTuple):
    """The usable intervals that both sides have, aligned; and all of the old side's, which show its noise."""

    pairs: list[tuple[Any, Any]]
    history: list[Any]
    notes: str
    unit: str


class SidesFound(NamedTuple):
    """The evidence of one comparison, as logarithms, and what it was found on."""

    worse: float
    fine: float
    numbers: dict[str, float]
    shown: str
    lacks: str = ""
    """Why a pass is impossible, whatever the evidence."""


def requests(interval: Any) -> float:
    """Return how many requests an interval of counts or of a histogram has; a value has none, and counts."""
    if isinstance(interval, Count):
        return interval.total
    return float(interval[-1]) if isinstance(interval, tuple) else 1.0


def slack_of(way: Compare) -> float:
    """Return the slack of a rate."""
    return DEFAULT_SLACK if way.slack is None else way.slack
