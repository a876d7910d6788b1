"""How figures are printed: median, least and most of a few rounds; a machine that is shared has no single time."""

import statistics
from collections.abc import Sequence


def numbers(values: Sequence[float], digits: int) -> list[str]:
    return [f"{f(values):.{digits}f}" for f in (statistics.median, min, max)]


def seconds(values: Sequence[float], digits: int = 3) -> list[str]:
    return [f"{figure} s" for figure in numbers(values, digits)]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print a name and its figures a line."""
    for name, *figures in rows:
        print(f"{name:<76}" + "".join(f"{figure:>12}" for figure in figures))
