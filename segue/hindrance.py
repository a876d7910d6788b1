"""Why replicas cannot become ready although their version is not the reason: a scheduling gate, a lost node. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segue.replica import Replica


class Hindrance(NamedTuple):
    """What blocks a move."""

    hindered: int = 0
    """How many replicas of the side that is scaled up are blocked."""
    hindrance: str = ""
    """Which replica, and which gate or node, for a person; empty if nothing blocks the move."""


def hindrance_of(leaving: Iterable[Replica], coming: Sequence[Replica]) -> Hindrance:
    """Return what blocks both sides: a replica on a lost node is missing too, on either side."""
    kept = [each for each in coming if reason(each)]
    lost = [each for each in leaving if each.is_lost]
    first = min((*kept, *lost), key=lambda each: each.name, default=None)
    if first is None:
        return Hindrance()
    number = len(kept) + len(lost)
    more = f", and {number - 1} more" if number > 1 else ""
    return Hindrance(len(kept), f"{first.name}{more}: {reason(first)}")


def reason(replica: Replica) -> str:
    """Return what keeps one replica from becoming ready; empty if nothing does."""
    if replica.gates:
        gates, plural = ", ".join(replica.gates), "s" if len(replica.gates) > 1 else ""
        return f"the scheduling gate{plural} {gates} must be removed before the scheduler places it"
    return f"its node {replica.node} does not answer" if replica.is_lost else ""
