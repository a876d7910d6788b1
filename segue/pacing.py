"""Limits how often a rollout writes: a write without effect, or a refused one, backs off, then needs a person. Pure."""

from collections.abc import Sequence

from segue.observation import Frozen

MINUTE_S = 60.0
KEPT = 40
"""How many of the latest writes the state keeps."""
REPEATS = 5
"""How many writes a minute may repeat earlier ones; a rollout that makes progress repeats none."""
FUTILE = 4
"""The same write, so many times in a row on the same observation, has no effect."""


class Wrote(Frozen):
    """One write of a rollout, or one that was tried."""

    at: float
    """Seconds since the epoch."""
    what: str
    """What was written, and on which counts; equal for a repeated write."""
    altered: str = ""
    """The fields that the API server stored differently than they were sent."""
    refused: str = ""
    """Why the worker did not send it; empty if it did."""


def in_a_row(wrote: Sequence[Wrote], what: str) -> int:
    """Return how many of the latest writes in a row are this one."""
    number = 0
    for each in reversed(wrote):
        if each.what != what:
            break
        number += 1
    return number


def is_futile(wrote: Sequence[Wrote], what: str) -> bool:
    """Whether this write was repeated often enough to know that it has no effect."""
    return in_a_row(wrote, what) >= FUTILE


def next_at(wrote: Sequence[Wrote], what: str) -> float:
    """Return the earliest time of this write: seconds since the epoch; 0 for at once.

    ========================  =======================================
    writes in a row           next write
    ========================  =======================================
    0 or 1 times              at once
    2, 3, 4, ... times        2, 4, 8, ... s after the latest, at most 60 s
    ========================  =======================================

    In any order, at most ``REPEATS`` writes a minute repeat earlier ones.
    """
    number = in_a_row(wrote, what)
    backed_off = wrote[-1].at + min(2.0 ** (number - 1), MINUTE_S) if number > 1 else 0.0
    known, repeated = set[str](), list[float]()
    for each in wrote:
        if each.what in known:
            repeated.append(each.at)
        known.add(each.what)
    if what in known and len(repeated) >= REPEATS:
        return max(backed_off, repeated[-REPEATS] + MINUTE_S)
    return backed_off
