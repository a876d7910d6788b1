"""The budget: the most replicas at one time, and the fewest that must be ready."""

from typing import NamedTuple

from segue.errors import Refused
from segue.observation import Counts, Observation
from segue.room import Room
from segue.spec import End, Strategy
from segue.units import resolve

NO_FLOOR = "the floor is 0: the budget allows a time without any ready replica"
"""The warning about a budget whose floor is 0."""


class Budget(NamedTuple):
    """``maxSurge`` and ``maxUnavailable``, resolved for a number of replicas."""

    replicas: int
    surge: int
    unavailable: int
    step: int
    kept: int = 0
    """Old replicas that stay at the end."""

    @property
    def end(self) -> Counts:
        """The counts at the end of the rollout."""
        return Counts(self.kept, self.replicas - self.kept)

    @property
    def ceiling(self) -> int:
        """The most old and new replicas at one time."""
        return self.replicas + self.surge

    @property
    def floor(self) -> int:
        """The fewest ready old and new replicas at one time, once that many were ready."""
        return self.replicas - self.unavailable


def resolve_budget(strategy: Strategy, replicas: int) -> Budget:
    """Resolve a strategy for ``replicas`` as the Deployment controller does (its ``ResolveFenceposts``).

    =========  =============  ===================
    rule       maxSurge       maxUnavailable
    =========  =============  ===================
    rounds     up             down
    capped at  replicas       replicas
    both zero  0              1 (rounding made it so; both *written* as zero is refused by the spec)
    =========  =============  ===================

    Raises:
        Refused: for a target with no replicas: there is no path from 0 to 0.
    """
    if replicas < 1:
        raise Refused(
            "has no replicas, so there is nothing to roll",
            field="target.replicas",
            value=replicas,
            fix="scale it to 1 or more first, or change its template with kubectl",
        )
    surge = min(resolve(strategy.max_surge, replicas, round_up=True), replicas)
    unavailable = min(resolve(strategy.max_unavailable, replicas, round_up=False), replicas)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Budget(replicas, surge, unavailable, strategy.step or surge + unavailable, _kept(strategy.to, replicas))


def _kept(end: End | None, replicas: int) -> int:
    if end is None:
        return 0
    if end.old is not None:
        return min(resolve(end.old, replicas, round_up=False), replicas)
    return replicas - min(resolve(end.new or 0, replicas, round_up=True), replicas)


def foresee(room: Room, budget: Budget, *, whole: bool) -> tuple[str, ...]:
    """Return warnings if the surge does not fit; ``whole``: the new side must be complete before the switch."""
    if room.more is None or room.more >= budget.surge:
        return ()
    if room.more:
        text = f"there is room for {room.more} of the {budget.surge} replicas of the surge: {room.why}"
        return (f"{text}; the new side must be complete: it will hold until there is room",) if whole else (text,)
    head = f"there is no room to add a replica ({room.why})"
    if budget.unavailable:
        return (f"{head}: old ones go first, up to {budget.unavailable} at once, as with scaleInPriority",)
    return (f"{head}, and maxUnavailable 0 lets no old one go first: the rollout will hold until there is room",)


def resized(strategy: Strategy, seen: Observation, replicas: int) -> Counts:
    """Return the counts to hold after a change of the replicas: both sides keep their share of them.

    The target's controller then scales all versions in proportion, whether their replicas are ready or not. If some are
    not ready, fewer replicas would take ready ones: as many stay as the ceiling allows, and the next moves remove the
    others, unready ones first.
    """
    total, ceiling = sum(seen.counts), resolve_budget(strategy, replicas).ceiling
    old = min(-(-seen.old.total * replicas // seen.replicas), replicas)
    share = -(-total * replicas // seen.replicas)
    if seen.old.ready + seen.new.ready < total:
        share = max(share, total)
    total = max(min(share, ceiling), replicas)
    if old == total == replicas:
        # maxSurge and maxUnavailable cannot both be 0, so one new replica is allowed for.
        total, old = (total + 1, old) if ceiling > total else (total, old - 1)
    return Counts(old, total - old)


def objection(budget: Budget, seen: Observation, counts: Counts) -> str:
    """Return why ``counts`` would break the budget; empty if they would not.

    An independent check of the property that ``decide`` keeps, on an observation made right before the write.
    """
    # A Deployment's lever cannot remove new replicas, and more than requested can be there since the decision.
    stay = 0 if seen.home is not None or seen.numbered else seen.new.total
    total = counts.old + max(counts.new, stay)
    grows = counts.new > seen.new.total or counts.old > seen.old.total
    if total > budget.ceiling and grows:  # replicas above it after a drop of R may only be removed
        return f"{counts} would be {total} replicas, over the ceiling of {budget.ceiling}"
    old = max(0, seen.old.total - counts.old - seen.old.spare)
    # Without a home, the target's own controller removes new replicas: unready ones.
    new = max(0, seen.new.total - counts.new - seen.new.spare) if seen.home is not None else 0
    for leaving, taken, coming, also in ((seen.old, old, seen.new, new), (seen.new, new, seen.old, old)):
        serving = leaving.ready - taken + max(0, coming.proven - also)
        if taken and serving < budget.floor:
            return f"{counts} would leave {serving} serving, under the floor of {budget.floor}"
    return ""
