"""Why replicas cannot become ready although their version is not the reason: a scheduling gate, a lost node. Pure."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from segue.observation import Cause, Observation, Problem
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


def with_lost_nodes(seen: Observation, nodes: Collection[str], *, back: bool) -> Observation:
    """Return the observation with the replicas of lost nodes as lost.

    The node lifecycle controller changes only pods that were Ready. A pod that still loads shows nothing: its node
    shows it, by ``nodes``, or by another replica there.
    """
    gone = {each.node for side in seen.pods for each in side if each.is_lost} | set(nodes)
    if not any(_is_there(each, gone) for side in seen.pods for each in side):
        return seen
    pods = type(seen.pods)(*(tuple(each._replace(is_lost=each.is_lost or _is_there(each, gone)) for each in side)
                             for side in seen.pods))  # fmt: skip
    leaving, coming = (pods.new, pods.old) if back else (pods.old, (*pods.new, *pods.beside))
    lost = {each.name: each for each in coming if each.is_lost}
    problem = seen.problem
    if problem is not None and problem.cause is Cause.UNREADY and problem.replica in lost:
        problem = Problem(cause=Cause.NODE, message=reason(lost[problem.replica]), replica=problem.replica)
    return seen.model_copy(update={"pods": pods, "problem": problem, **hindrance_of(leaving, coming)._asdict()})


def _is_there(replica: Replica, nodes: Collection[str]) -> bool:
    return replica.ready_since is None and not replica.is_lost and bool(replica.node) and replica.node in nodes


def reason(replica: Replica) -> str:
    """Return what keeps one replica from becoming ready; empty if nothing does."""
    if replica.gates:
        gates, plural = ", ".join(replica.gates), "s" if len(replica.gates) > 1 else ""
        return f"the scheduling gate{plural} {gates} must be removed before the scheduler places it"
    return f"its node {replica.node} does not answer" if replica.is_lost else ""
