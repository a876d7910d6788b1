"""How LeaderWorkerSet's own controller rolls: the partition and the replicas of its leaders' StatefulSet.

The arithmetic follows ``pkg/controllers/leaderworkerset_controller.go`` (v0.9). A group is *done* when all its pods
run the newest version and are ready.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from segue.budget import Budget


class GroupStage(NamedTuple):
    """The partition and the replicas of the leaders' StatefulSet."""

    partition: int
    replicas: int


@dataclass(frozen=True)
class Groups:
    """The groups of one LeaderWorkerSet, and what its controller wrote to the leaders' StatefulSet."""

    wanted: int
    surge: int
    unavailable: int
    partition: int
    running: int
    """The requested groups, with the surge."""
    scaled_for: int
    """The number of wanted groups when the controller last reconciled."""
    ready: frozenset[int]
    updated: frozenset[int]

    @classmethod
    def at_rest(cls, budget: Budget) -> Self:
        """Return the groups while no rollout runs: all of them ready."""
        wanted, everyone = budget.replicas, frozenset(range(budget.replicas))
        return cls(wanted, budget.surge, budget.unavailable, 0, wanted, wanted, everyone, everyone)

    @property
    def stage(self) -> GroupStage:
        """The partition and the replicas that the controller wrote."""
        return GroupStage(self.partition, self.running)

    def changed(self) -> Self:
        """Return the groups after the controller reconciled another template."""
        partition = min(self.wanted, self.running)
        running = self.wanted if self.running < self.wanted else self._running_for(self.wanted)
        return replace(self, updated=frozenset(), partition=partition, running=running, scaled_for=self.wanted)

    def with_done(self, *groups: int) -> Self:
        """Return the same groups, with these recreated and ready."""
        return replace(self, ready=self.ready | {*groups}, updated=self.updated | {*groups})

    def without_ready(self, *groups: int) -> Self:
        """Return the same groups, with these not ready."""
        return replace(self, ready=self.ready - {*groups})

    def resized(self, wanted: int) -> Self:
        """Return the same groups, with another number of wanted ones."""
        return replace(self, wanted=wanted)

    def reconciled(self) -> Self:
        """Return the groups after the controller reconciles once; the same if there is nothing to do."""
        if self.running == self.wanted and self.partition == 0:
            return replace(self, scaled_for=self.wanted)
        if self.running < self.wanted:
            return replace(self, running=self.wanted, scaled_for=self.wanted)
        missing = sum(not self._done(i) for i in range(self.wanted))
        most = self.wanted + min(self.surge, self.wanted)
        partition = min(self.partition, most) if self.scaled_for != self.wanted else self._next_partition(most)
        return replace(self, partition=partition, running=self._running_for(missing), scaled_for=self.wanted)

    def settled(self) -> Self:
        """Return the groups after the controller reconciles until nothing changes."""
        after = self.reconciled()
        return self if after == self else after.settled()

    def _done(self, group: int) -> bool:
        return group < self.running and group in self.ready and group in self.updated

    def _running_for(self, missing: int) -> int:
        """Return the replicas with the surge that is needed while more groups are missing than may be unavailable."""
        surge = min(self.surge, self.wanted)
        return self.wanted + (surge if missing > surge else max(0, missing - self.unavailable))

    def _next_partition(self, most: int) -> int:
        step = self.unavailable + min(self.surge, self.wanted) - (most - self.running)
        tail = next((n for n, i in enumerate(reversed(range(self.running))) if not self._done(i)), self.running)
        lowest = max(0, self.running - tail - step)
        partition = lowest + sum(i not in self.ready for i in range(lowest))
        for group in range(min(partition, self.running - 1), lowest - 1, -1):
            if group in self.ready and group not in self.updated:
                break
            partition = group
        return min(partition, self.partition)


def group_stages(budget: Budget, *, surge_together: bool = False) -> list[GroupStage]:
    """Return the stages of a rollout in which one group after the other becomes ready, the highest first.

    With ``surge_together``, as in LeaderWorkerSet's documentation, the surge groups become ready together.
    R=4, maxSurge 2, maxUnavailable 2:

    ==============  ============================================
    one by one      (0,4) (4,6) (2,6) (1,6) (0,6) (0,5) (0,4)
    surge together  (0,4) (4,6) (2,6) (0,6) (0,5) (0,4)
    ==============  ============================================

    Surge groups are removed one by one here; the controller can remove them together.
    """
    groups = Groups.at_rest(budget)
    stages = [groups.stage]
    groups = groups.changed()
    while True:
        _pass(stages, groups.stage)
        after = groups.reconciled()
        if after == groups:
            released = [i for i in reversed(range(groups.partition, groups.running)) if not groups._done(i)]
            if not released:
                return stages
            surge = [i for i in released if i >= groups.wanted]
            after = groups.with_done(*(surge if surge and surge_together else released[:1]))
        groups = after


def _pass(stages: list[GroupStage], stage: GroupStage) -> None:
    running = stages[-1].replicas
    stages += [GroupStage(stage.partition, fewer) for fewer in range(running - 1, stage.replicas, -1)]
    if stages[-1] != stage:
        stages.append(stage)
