"""The input of a comparison, and its result."""

from typing import Any, NamedTuple

from segue.judging.evidence import Count
from segue.spec.judgement import Compare

DEFAULT_SLACK = 0.001
"""As a share of requests: one more in a thousand is never a reason to roll back."""


class Sides(NamedTuple):
    """The aligned usable intervals of both sides, and all intervals of the old side, which show its noise."""

    pairs: list[tuple[Any, Any]]
    history: list[Any]
    notes: str
    unit: str


class SidesFound(NamedTuple):
    """The evidence of one comparison, as logarithms, and the numbers it is based on."""

    worse: float
    fine: float
    numbers: dict[str, float]
    shown: str
    lacks: str = ""
    """Why a pass is impossible, whatever the evidence."""
    plus: str = ""
    """What must not pass beyond ``effect``, for a person."""


def requests(interval: Any) -> float:
    """Return the number of requests in an interval of counts or a histogram; 1 for a value, which has none."""
    if isinstance(interval, Count):
        return interval.total
    return float(interval[-1]) if isinstance(interval, tuple) else 1.0


def slack_of(way: Compare) -> float:
    """Return the slack of a rate."""
    return DEFAULT_SLACK if way.slack is None else way.slack
