"""The plan: the stages a rollout passes, shown before anything is touched.

It is made by the code that drives the rollout, with every replica ready the moment it is wanted.
"""

from typing import Any

from pydantic import Field

from segue.budget import Budget, resolve_budget
from segue.decide import barrier_at, toward
from segue.groups import group_stages
from segue.observation import Counts, Frozen, Observation, Side
from segue.spec import Order, Strategy, Target, Waypoint

START, SCALE_NEW, SCALE_OLD, SCALE_BOTH = "start", "scaleNew", "scaleOld", "scaleBoth"
GROUPS = "groups"
"""The group controller of a LeaderWorkerSet goes there, within the budget."""
OPERATOR = "operator"
"""The target's own operator goes there, by ways of its own."""


class Stage(Frozen):
    """A state in which everything that is wanted is ready, and the action that led there."""

    old: int
    new: int
    action: str
    waypoint: dict[str, Any] | None = None
    partition: int | None = None
    """Of a target whose replicas have numbers: those from here on are new."""


class Plan(Frozen):
    """All stages, from (replicas, 0) to (0, replicas) unless a retarget, or the spec, says otherwise."""

    replicas: int
    floor: int
    ceiling: int
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = Field(default=(), description="What will be lost, or is unusual; for a person to read.")
    parent: str = Field(default="", description="What was wanted before a retarget made this plan.")

    @property
    def extra(self) -> int:
        """How many replicas more than before run at the worst moment."""
        return max(s.old + s.new for s in self.stages) - self.replicas


def make_plan(
    strategy: Strategy, replicas: int, *, old: int | None = None, new: int = 0, superseded: bool = False,
    parent: str = "", warnings: tuple[str, ...] = (), target: Target | None = None,
    autonomous: bool = False,
) -> Plan:  # fmt: skip
    """Return the plan for ``replicas``, from ``old`` old ones (all, unless more or fewer are found) and ``new`` new.

    ``superseded`` new ones are of a version that is not wanted: they go before the first of the wanted version comes.

    Of an ``autonomous`` target only the ends are known, but for a LeaderWorkerSet: its controller is predictable.

    Raises:
        Refused: for no replicas.
    """
    budget = resolve_budget(strategy, replicas)
    counts = Counts(replicas if old is None else old, new)
    in_place = target is not None and target.numbered
    stages = [_row(counts, START)]
    if autonomous:
        stages = _group_rows(budget) if in_place else [*stages, _row(Counts(0, replicas), OPERATOR)]
        counts = Counts(0, replicas)
    if superseded and new:
        stages += _stages(strategy, budget._replace(kept=replicas), counts, {})
        counts = Counts(replicas, 0)
    stages += _stages(strategy, budget, counts, _by_barrier(strategy, budget), in_place=in_place)
    return Plan(
        replicas=replicas,
        floor=budget.floor,
        ceiling=budget.ceiling,
        stages=tuple(stages),
        parent=parent,
        warnings=warnings,
    )


def _row(counts: Counts, action: str, partition: int | None = None) -> Stage:
    return Stage(old=counts.old, new=counts.new, action=action, partition=partition)


def _stages(
    strategy: Strategy, budget: Budget, counts: Counts, waypoints: dict[int, Waypoint], *, in_place: bool = False
) -> list[Stage]:
    """Return the stages from ``counts`` to the budget's end; those of the waypoints say so.

    ``in_place``, replicas are replaced under their own numbers, by a partition.
    """
    stages: list[Stage] = []
    waypoints = {barrier: waypoint for barrier, waypoint in waypoints.items() if barrier > counts.new}
    while counts != budget.end:
        barrier = min(waypoints, default=None)
        wanted = toward(budget, strategy.order, settled(budget, counts), barrier)
        if wanted == counts:
            raise AssertionError(f"no move from {counts} within {budget}")
        stages += [_row(wanted, SCALE_BOTH, wanted.old)] if in_place else _rows(strategy.order, counts, wanted)
        counts = wanted
        if barrier is not None and counts.new >= barrier:
            last = stages[-1]
            stages[-1] = last.model_copy(update={"waypoint": _shown(waypoints.pop(barrier))})
    return stages


def _group_rows(budget: Budget) -> list[Stage]:
    """Return the stages by which the controller of a LeaderWorkerSet goes."""
    first, *passed = group_stages(budget)
    rows = [_row(Counts(first.replicas, 0), START, first.partition)]
    for partition, running in passed:
        old = min(partition, budget.replicas)
        rows.append(_row(Counts(old, running - old), GROUPS, partition))
    return rows


def settled(budget: Budget, counts: Counts) -> Observation:
    """Return what would be seen if everything that is asked for were ready."""
    return Observation(
        replicas=budget.replicas,
        old=Side(total=counts.old, ready=counts.old, proven=counts.old),
        new=Side(total=counts.new, ready=counts.new, proven=counts.new),
        asked=counts,
        template="",
    )


def _rows(order: Order, before: Counts, after: Counts) -> list[Stage]:
    """Split one move into the states that are passed: one side goes, then the other comes; at once in that order."""
    if before.old == after.old:
        return [_row(after, SCALE_NEW)]
    if before.new == after.new:
        return [_row(after, SCALE_OLD)]
    if order is Order.SCALE_SIMULTANEOUSLY:
        return [_row(after, SCALE_BOTH)]
    if after.old > before.old:  # new ones are the ones to go
        return [
            Stage(old=before.old, new=after.new, action=SCALE_NEW),
            Stage(old=after.old, new=after.new, action=SCALE_OLD),
        ]
    return [
        Stage(old=after.old, new=before.new, action=SCALE_OLD),
        Stage(old=after.old, new=after.new, action=SCALE_NEW),
    ]


def _by_barrier(strategy: Strategy, budget: Budget) -> dict[int, Waypoint]:
    """Key the waypoints by the number of new replicas; of two at the same number the longer, asking one holds."""
    found: dict[int, Waypoint] = {}
    for waypoint in strategy.waypoints:
        barrier = min(barrier_at(waypoint, budget.replicas), budget.end.new)
        other = found.get(barrier)
        if other is not None:
            hold, approval = max(other.hold, waypoint.hold), other.approval or waypoint.approval
            found[barrier] = other.model_copy(update={"hold": hold, "approval": approval})
        else:
            found[barrier] = waypoint
    return found


def _shown(waypoint: Waypoint) -> dict[str, Any]:
    return waypoint.model_dump(mode="json")
