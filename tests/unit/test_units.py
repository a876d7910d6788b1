"""Durations and amounts as Kubernetes users write them."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.units import format_duration, parse_amount, parse_duration, resolve


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("500ms", 0.5), ("1h30m", 5400), ("1.5m", 90), ("0s", 0), ("24h", 86_400), ("1.5ms", 0.0015)],
)
def test_a_duration_has_units(text: str, seconds: float) -> None:
    """A duration is read with its units."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["30", 30, "", "-5s", "5 s", "s", "1d", None, True, "5s!"])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    """A bare number, a negative duration and an unknown unit are refused, with what to write."""
    with pytest.raises(ValueError, match="is not a duration; write a number with its unit"):
        parse_duration(value)


@settings(derandomize=True, deadline=None, database=None)
@given(st.integers(0, 90_000_000).map(lambda n: n * 1000) | st.integers(0, 2_000_000) | st.integers(0, 10**13))
def test_a_duration_is_written_the_way_it_is_read(microseconds: int) -> None:
    """Reading what was written gives the same duration: a worker reads the spec that a client wrote."""
    duration = timedelta(microseconds=microseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(("value", "read"), [(0, 0), (7, 7), ("25%", "25%"), ("025%", "25%"), ("100%", "100%")])
def test_an_amount_is_a_count_or_a_percentage(value: int | str, read: int | str) -> None:
    """A count and a percentage are read."""
    assert parse_amount(value) == read


@pytest.mark.parametrize("value", [-1, True, "25", "25.5%", "101%", "-1%", "", "%", 1.5, None, [1]])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    """A negative count, a fraction, and a percentage over 100 or without its sign are refused, with the fix."""
    with pytest.raises(ValueError, match="; write"):
        parse_amount(value)


@pytest.mark.parametrize(
    ("amount", "replicas", "up", "down"),
    [(3, 10, 3, 3), ("25%", 10, 3, 2), ("50%", 4, 2, 2), ("1%", 1, 1, 0), ("100%", 7, 7, 7), ("0%", 9, 0, 0)],
)
def test_a_percentage_is_rounded_as_told(amount: int | str, replicas: int, up: int, down: int) -> None:
    """A percentage of the replicas rounds up or down; a count is itself."""
    assert (resolve(amount, replicas, round_up=True), resolve(amount, replicas, round_up=False)) == (up, down)
