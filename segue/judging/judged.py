"""The result of one judgement, and the format of its numbers for a person."""

import math

from pydantic import Field

from segue.gates.verdict import Result
from segue.observation import Frozen

_LARGEST = 1e12
"""Larger evidence means nothing more, and JSON has no number for it when it overflows."""


class Judged(Frozen):
    """Pass, fail or inconclusive, with a sentence for a person and the numbers behind it."""

    result: Result
    why: str
    numbers: dict[str, float] = Field(default_factory=dict)
    """Estimates of each side, sample sizes, evidence and bounds; always finite."""


def inconclusive(why: str, numbers: dict[str, float] | None = None) -> Judged:
    """Return the result that the evidence does not decide."""
    return Judged(result=Result.INCONCLUSIVE, why=why, numbers=finite(numbers or {}))


def finite(numbers: dict[str, float]) -> dict[str, float]:
    """Return only the finite numbers, which JSON can represent."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def evidence_of(log_evidence: float) -> float:
    """Return the e-value of a natural logarithm, at most 1e12."""
    return _LARGEST if log_evidence > math.log(_LARGEST) else math.exp(log_evidence)


def with_unit(value: float, unit: str = "") -> str:
    """Format a number for a person: three digits, with its unit."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def percent(share: float) -> str:
    """Format a share as a percentage with three digits: ``0.12 %``."""
    return f"{share * 100:.3g} %"


def times(evidence: float) -> str:
    """Format an e-value: ``63.2`` or ``over 1e12``."""
    return f"over {_LARGEST:.0e}".replace("e+", "e") if evidence >= _LARGEST else f"{evidence:,.3g}"
