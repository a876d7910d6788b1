"""The plan: the stages that a rollout passes, shown before it changes anything.

The code that drives the rollout makes it, with every replica ready as soon as it is requested.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from segue.arithmetic import barrier_at, takes_the_last, toward
from segue.budget import Budget, resolve_budget
from segue.errors import Refused
from segue.groups import group_stages
from segue.observation import Counts, Frozen, Observation, Routed, Side
from segue.spec import Order, Strategy, Target, Waypoint
from segue.state import State
from segue.traffic import NONE, must_stay, wanted_share
from segue.units import format_duration

START, SCALE_NEW, SCALE_OLD, SCALE_BOTH, ROUTE = "start", "scaleNew", "scaleOld", "scaleBoth", "route"
GROUPS = "groups"
"""The controller of a LeaderWorkerSet makes this move, within the budget."""
OPERATOR = "operator"
"""The target's own operator makes this move, in its own steps."""


MAX_PLANS, MAX_STAGES = 20, 4_000
"""How many plans a rollout keeps, and how many stages they have together: about half a megabyte."""


class Stage(Frozen):
    """A state in which every requested replica is ready, and the action that led there."""

    old: int
    new: int
    action: str
    waypoint: dict[str, Any] | None = None
    traffic: int | None = None
    """Percent of the traffic to the new side; None if only replicas determine it."""
    retain: str | None = None
    """How long the old side keeps all replicas from here on."""
    partition: int | None = None
    """For a target with numbered replicas: replicas from this number on are new."""


class Plan(Frozen):
    """All stages, from (replicas, 0) to (0, replicas) unless a retarget, or the spec, says otherwise."""

    replicas: int
    floor: int
    ceiling: int
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = Field(default=(), description="What will be lost, or is unusual.")
    parent: str = Field(default="", description="The version wanted before the retarget that made this plan.")

    @property
    def extra(self) -> int:
        """The most replicas above R that run at one time."""
        return max(s.old + s.new for s in self.stages) - self.replicas


def kept(plans: Sequence[Plan]) -> tuple[Plan, ...]:
    """Return the first plan and the latest ones, as many as a rollout keeps; always the first and the last."""
    latest, stages = [plans[-1]], len(plans[0].stages) + len(plans[-1].stages)
    for plan in reversed(plans[1:-1]):
        stages += len(plan.stages)
        if stages > MAX_STAGES or len(latest) + 1 >= MAX_PLANS:
            break
        latest.append(plan)
    return (*plans[:1], *reversed(latest)) if len(plans) > 1 else tuple(plans)


def make_plan(
    strategy: Strategy, replicas: int, *, old: int | None = None, new: int = 0, superseded: bool = False,
    parent: str = "", warnings: tuple[str, ...] = (), target: Target | None = None,
    autonomous: bool = False,
) -> Plan:  # fmt: skip
    """Return the plan for ``replicas``, from ``old`` old ones (None for all) and ``new`` new ones.

    ``superseded`` new replicas run a version that is not wanted: they go before the first wanted one starts.

    For an ``autonomous`` target only the first and the last stage are known, except for a LeaderWorkerSet: its
    controller is predictable.

    Raises:
        Refused: if there are no replicas, or the budget allows no move from these counts.
    """
    budget = resolve_budget(strategy, replicas)
    counts = Counts(replicas if old is None else old, new)
    leading = _Leading(strategy, budget)
    in_place = target is not None and target.numbered
    stages = [_row(counts, START)]
    if autonomous:
        stages = _group_rows(budget) if in_place else [*stages, _row(Counts(0, replicas), OPERATOR)]
        counts = Counts(0, replicas)
    if superseded and new:
        stages += _stages(strategy, budget._replace(kept=replicas), counts, {})
        counts = Counts(replicas, 0)
    stages = [stage.model_copy(update={"traffic": leading.shown}) for stage in stages]
    waypoints = _by_barrier(strategy, budget)
    behind = [each for barrier in sorted(waypoints) if barrier <= counts.new for each in waypoints.pop(barrier)]
    stages = _stopped(stages, behind, counts, counts.new, leading)  # the rollout has not passed them either
    stages += _stages(strategy, budget, counts, waypoints, leading, in_place=in_place)
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
    strategy: Strategy, budget: Budget, counts: Counts, waypoints: dict[int, list[Waypoint]],
    leading: "_Leading | None" = None, *, in_place: bool = False,
) -> list[Stage]:  # fmt: skip
    """Return the stages from ``counts`` to the budget's end, with their waypoints.

    ``in_place``: replicas are replaced under their own numbers, by a partition.
    """
    stages: list[Stage] = []
    while counts != budget.end:
        barrier = min(waypoints, default=None)
        stages += leading.stages(counts, barrier) if leading else []
        keep = leading.kept(counts) if leading else 0
        wanted = toward(budget, strategy.order, settled(budget, counts), barrier, keep=keep)
        if wanted == counts:
            _refuse_unmovable(strategy, budget, counts)
        rows = [_row(wanted, SCALE_BOTH, wanted.old)] if in_place else _rows(strategy.order, counts, wanted)
        shown = {"traffic": leading.shown if leading else None}
        stages += [row.model_copy(update=shown) for row in rows]
        counts = wanted
        if barrier is not None and counts.new >= barrier:
            stages = _stopped(stages, waypoints.pop(barrier), counts, barrier, leading)
    return stages


def _stopped(
    stages: list[Stage], waypoints: Sequence[Waypoint], counts: Counts, barrier: int, leading: "_Leading | None"
) -> list[Stage]:
    """Return the stages with the waypoints at this number of new replicas, which the rollout passes one by one.

    Those between which the traffic does not change are shown as one.
    """
    here: Waypoint | None = None
    for waypoint in waypoints:
        here = waypoint if here is None else _with(here, waypoint)
        stages[-1] = stages[-1].model_copy(update={"waypoint": _shown(here)})
        routed = leading.reach(waypoint, counts, barrier) if leading else []
        here = None if routed else here
        stages += routed
    return stages


def _with(before: Waypoint, waypoint: Waypoint) -> Waypoint:
    """Return a waypoint with the next one at the same number: both holds, one after the other, and any approval."""
    weight = before.weight if waypoint.weight is None else waypoint.weight
    both = {"hold": before.hold + waypoint.hold, "approval": before.approval or waypoint.approval, "weight": weight}
    return before.model_copy(update=both)


class _Leading:
    """The traffic along the plan."""

    def __init__(self, strategy: Strategy, budget: Budget) -> None:
        self._strategy, self._budget = strategy, budget
        self._share, self._weight = NONE, NONE

    @property
    def shown(self) -> int | None:
        """The share for a stage; None if only replicas determine it."""
        return None if self._strategy.traffic is None else self._share

    def reach(self, waypoint: Waypoint, counts: Counts, barrier: int) -> list[Stage]:
        """Apply the weight of a waypoint, and return the stages that follow from it."""
        self._weight = self._weight if waypoint.weight is None else waypoint.weight
        return self.stages(counts, barrier)

    def kept(self, counts: Counts) -> int:
        """Return how many old replicas must stay."""
        after_retain = float("inf")
        return must_stay(self._strategy, State(owner=""), self._seen(counts), after_retain)

    def stages(self, counts: Counts, barrier: int | None) -> list[Stage]:
        """Return the stage in which the traffic changes before the next move; empty if it does not change."""
        if self._strategy.traffic is None:
            return []
        strategy, seen = self._strategy, self._seen(counts)
        last = takes_the_last(self._budget, strategy.order, seen, barrier)
        share = wanted_share(
            strategy, seen, back=False, weight=self._weight, verified=True, ahead=barrier is not None, last=last
        )
        if share == self._share:
            return []
        self._share = share
        retain = format_duration(strategy.retain) if strategy.retain else None
        return [Stage(old=counts.old, new=counts.new, action=ROUTE, traffic=share, retain=retain)]

    def _seen(self, counts: Counts) -> Observation:
        return settled(self._budget, counts).model_copy(update={"routed": Routed(share=self._share)})


def _refuse_unmovable(strategy: Strategy, budget: Budget, counts: Counts) -> None:
    if strategy.traffic is None:
        raise Refused(
            f"allows no move from {counts} to {budget.end}",
            field="spec.strategy",
            fix="raise maxSurge or maxUnavailable, or scale the target first",
        )
    raise Refused(
        f"leaves no room for a replica of each side at {budget.replicas} replicas, so traffic cannot shift",
        field="spec.strategy.maxSurge",
        value=strategy.max_surge,
        fix="write `maxSurge: 1` or more",
    )


def _group_rows(budget: Budget) -> list[Stage]:
    """Return the stages that the controller of a LeaderWorkerSet passes."""
    first, *passed = group_stages(budget)
    rows = [_row(Counts(first.replicas, 0), START, first.partition)]
    for partition, running in passed:
        old = min(partition, budget.replicas)
        rows.append(_row(Counts(old, running - old), GROUPS, partition))
    return rows


def settled(budget: Budget, counts: Counts) -> Observation:
    """Return the observation in which every requested replica is ready."""
    return Observation(
        replicas=budget.replicas,
        old=Side(total=counts.old, ready=counts.old, proven=counts.old),
        new=Side(total=counts.new, ready=counts.new, proven=counts.new),
        requested=counts,
        template="",
    )


def _rows(order: Order, before: Counts, after: Counts) -> list[Stage]:
    """Split one move into its states: one side shrinks, then the other grows; both at once if simultaneous."""
    if before.old == after.old:
        return [_row(after, SCALE_NEW)]
    if before.new == after.new:
        return [_row(after, SCALE_OLD)]
    if order is Order.SCALE_SIMULTANEOUSLY:
        return [_row(after, SCALE_BOTH)]
    if after.old > before.old:  # the new side shrinks
        return [
            Stage(old=before.old, new=after.new, action=SCALE_NEW),
            Stage(old=after.old, new=after.new, action=SCALE_OLD),
        ]
    return [
        Stage(old=after.old, new=before.new, action=SCALE_OLD),
        Stage(old=after.old, new=after.new, action=SCALE_NEW),
    ]


def _by_barrier(strategy: Strategy, budget: Budget) -> dict[int, list[Waypoint]]:
    """Key the waypoints by their number of new replicas, in the order of the spec."""
    found: dict[int, list[Waypoint]] = {}
    for waypoint in strategy.waypoints:
        found.setdefault(min(barrier_at(waypoint, budget.replicas), budget.end.new), []).append(waypoint)
    return found


def _shown(waypoint: Waypoint) -> dict[str, Any]:
    return waypoint.model_dump(mode="json", exclude_none=True)
