"""Durations and amounts as Kubernetes users write them: ``30s``, ``1h30m``, ``2``, ``25%``."""

import re
from datetime import timedelta
from typing import Annotated, Any

import durationpy
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"(\d+(\.\d+)?(h|m|s|ms))+", re.ASCII)
_PERCENT = re.compile(r"\d{1,3}%", re.ASCII)


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 move``, ``2 moves``, ``0 moves``."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def parse_duration(value: Any) -> timedelta:
    """Read a Go-style duration such as ``30s``, ``500ms`` or ``1h30m``.

    Raises:
        ValueError: for anything else, such as a number without a unit or a negative duration.
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError(f"{value!r} is not a duration; write a number with its unit, such as 30s, 5m or 1h30m")
    try:
        return durationpy.from_str(value)
    except (durationpy.DurationError, OverflowError):
        raise ValueError(f"{value!r} is longer than any duration; write less, such as 1h30m") from None


def format_duration(value: timedelta) -> str:
    """Write a duration as ``parse_duration`` reads it: ``timedelta(seconds=90)`` is ``1m30s``."""
    if not value or value.microseconds % 1000 == 0:
        return durationpy.to_str(value) if value else "0s"
    # The library rounds these to six digits, or writes a unit that is refused.
    whole = value - timedelta(microseconds=value.microseconds, seconds=value.seconds % 60)
    minutes = durationpy.to_str(whole) if whole else ""
    return f"{minutes}{value.seconds % 60}.{value.microseconds:06}".rstrip("0") + "s"


def parse_amount(value: Any) -> int | str:
    """Read a count (``2``) or a percentage (``25%``).

    Raises:
        ValueError: for a negative count, a fraction, a percentage over 100, or a percentage without its sign.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(  # noqa: TRY004 - pydantic turns only a ValueError into a refusal
            f"{value!r} is neither a count nor a percentage; write 2 or 25%"
        )
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative; write 0 or more")
        return value
    if not _PERCENT.fullmatch(value) or int(value[:-1]) > 100:
        raise ValueError(f"{value!r} is not a whole percentage; write 0% to 100%, or a count without quotes")
    return f"{int(value[:-1])}%"


def resolve(amount: int | str, replicas: int, *, round_up: bool) -> int:
    """Return an amount as a count of ``replicas``; percentages round up or down (Kubernetes' intstr rule)."""
    if isinstance(amount, int):
        return amount
    share = int(amount[:-1]) * replicas
    return -(-share // 100) if round_up else share // 100


def share(count: int, replicas: int, *, round_up: bool) -> int | str:
    """Return the percentage that is exactly this count of ``replicas``; the count itself if there is none.

    Above 100 replicas, some counts have no whole percentage.
    """
    percent = 100 * count // replicas if round_up else -(-100 * count // replicas)
    is_exact = resolve(f"{percent}%", replicas, round_up=round_up) == count
    return f"{percent}%" if count and is_exact else count


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["30s", "1h30m"]}),
]
Amount = Annotated[
    int | str,
    BeforeValidator(parse_amount),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d{1,3}%$"}],
            "examples": [1, "25%"],
        }
    ),
]
