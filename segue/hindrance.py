"""Why replicas cannot become ready although their version is not the reason. Pure.

A scheduling gate keeps them, a volume claim of their number cannot be bound, or their node is lost.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from segue.observation import Cause, Observation, Problem
from segue.replica import Pods, Replica

IGNORED_S = 15.0
"""A kubelet that runs writes a first status within so many seconds, before it pulls an image."""


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


def with_stuck(found: Hindrance, stuck: Problem | None, waiting: int = 0) -> Hindrance:
    """Return the hindrance, or else the pod that was to be gone and keeps its place: others wait for room.

    ``waiting`` is how many wait that no count of the room knows.
    """
    if stuck is None or found.hindrance:
        return found
    return Hindrance(found.hindered + waiting, stuck.told)


def with_lost_nodes(seen: Observation, nodes: Collection[str], *, back: bool, now: float) -> Observation:
    """Return the observation with the replicas of lost nodes as lost.

    The node lifecycle controller changes only pods that were Ready. A pod that still loads shows nothing: its node
    shows it, by ``nodes``, or by another replica there. A pod that its kubelet never took up shows it itself.
    """
    gone = {each.node for side in seen.pods for each in side if each.is_lost} | set(nodes)
    gone |= {each.node for side in seen.pods for each in side if _is_ignored(each, now)}
    pods = type(seen.pods)(*(tuple(_lost(each, gone) for each in side) for side in seen.pods))
    if pods == seen.pods:
        return seen
    _, coming = _sides(pods, back=back)
    lost = {each.name: each for each in coming if each.is_lost}
    problem = seen.problem
    if problem is not None and problem.cause is Cause.UNREADY and problem.replica in lost:
        problem = Problem(cause=Cause.NODE, message=reason(lost[problem.replica]), replica=problem.replica)
    # What else is in the way stays: pods that a webhook keeps away, or a controller that does not act.
    before, found = (hindrance_of(*_sides(each, back=back)) for each in (seen.pods, pods))
    also = Hindrance(
        seen.hindered - before.hindered + found.hindered, seen.hindrance if seen.inert else found.hindrance
    )
    return seen.model_copy(update={"pods": pods, "problem": problem, **also._asdict()})


def _sides(pods: Pods, *, back: bool) -> tuple[tuple[Replica, ...], tuple[Replica, ...]]:
    """Return the replicas that leave, and those that come."""
    return (pods.new, pods.old) if back else (pods.old, (*pods.new, *pods.beside))


def node_in_doubt(problem: Problem | None, seen: Observation) -> str:
    """Return the node whose loss would explain a problem; empty if something else explains it.

    A replica that is Ready there shows that the node answers.
    """
    if problem is None or problem.cause is not Cause.UNREADY or problem.hopeless:
        return ""
    replicas = [each for side in seen.pods for each in side]
    answers = {each.node for each in replicas if each.ready_since is not None}
    return next((each.node for each in replicas if each.name == problem.replica and each.node not in answers), "")


def _is_ignored(replica: Replica, now: float) -> bool:
    return replica.unstarted_since is not None and now >= replica.unstarted_since + IGNORED_S


def _lost(replica: Replica, nodes: Collection[str]) -> Replica:
    """Return the replica as lost if it loads on one of these nodes."""
    if replica.ready_since is not None or replica.is_lost:
        return replica
    node = next((each for each in (replica.node, *replica.more_nodes) if each and each in nodes), None)
    return replica if node is None else replica._replace(is_lost=True, node=node)


def reason(replica: Replica) -> str:
    """Return what keeps one replica from becoming ready; empty if nothing does."""
    if replica.gates:
        gates, plural = ", ".join(replica.gates), "s" if len(replica.gates) > 1 else ""
        return f"the scheduling gate{plural} {gates} must be removed before the scheduler places it"
    if replica.claims:
        claims, plural = ", ".join(replica.claims), "s" if len(replica.claims) > 1 else ""
        fix = "check the storage class and the events there"
        return f"the scheduler waits until the volume claim{plural} {claims} can be bound: {fix}"
    return f"its node {replica.node} does not answer" if replica.is_lost else ""
