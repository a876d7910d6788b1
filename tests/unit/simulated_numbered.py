"""A simulated StatefulSet with its controller; what is read of it, the lever's own pure code reads.

The controller is rebuilt from its rules (Kubernetes 1.36, ``stateful_set_control.go``, parallel replicas): a missing
number is created new from the partition on, otherwise old; then it deletes replicas of another version from the highest
number down to the partition. With the feature gate ``MaxUnavailableStatefulSet`` it does so while fewer than
``maxUnavailable`` of all are not ready; without it, one at a time, and it waits at the first that is not ready.
"""

import random
from types import MappingProxyType
from typing import Any

from simulation import NEVER, Pod, Target, Wrong

from activities.levers.numbered.ordinals import (
    HOLD,
    Numbered,
    may_go_back,
    partition_at,
    partition_for,
    read,
    shrinks_under,
)
from activities.levers.ownership import OWNER
from segue.budget import objection, resolve_budget
from segue.decision import Decision
from segue.observation import Observation
from segue.replica import ContainerFacts, Replica
from segue.spec import Order, Rules, Strategy
from segue.state import Goal, Outcome, State


class _Read(Numbered):
    """What the lever reads, without the API server's JSON: a version is its template's name."""

    @property
    def version(self) -> str:
        return str(self.template["name"])

    @property
    def engaged(self) -> bool:
        owner, baseline = self.found["metadata"]["annotations"].get(OWNER), self.templates["baseline"]["name"]
        return owner is not None and (self.partition > 0 or self.version != baseline)

    def broken(self, versions: set[str], since: int = 0) -> list[Any]:
        return [
            i for i, r in self.running.items() if i >= since and r.version not in versions and r.ready_since is None
        ]


class NumberedTarget(Target):
    """Replicas with numbers, held by a partition."""

    expects_starting = False

    def __init__(self, strategy: Strategy, replicas: int, seed: random.Random) -> None:
        super().__init__(strategy, replicas, seed)
        self.slots = {i: ("v0", pod) for i, pod in enumerate(self.sets["v0"].pods)}
        self.baseline, self.below, self.partition = "v0", "v0", 0
        self.has_gate = seed.random() < 0.5
        """Whether the cluster has the feature gate."""
        self.max_unavailable = 1
        self.heeded = True
        """Whether the controller has observed the latest write."""
        self.mirrored_from = NEVER  # tests/cluster covers admission for this kind

    @classmethod
    def respecified(cls, rules: Rules, dice: random.Random) -> Rules:
        """It cannot surge, so an old replica goes first."""
        amount: Any = dice.choice((1, 1, 2, 3, "25%", "50%", "100%"))
        changes = {"order": Order.SCALE_IN_PRIORITY, "max_surge": 0, "max_unavailable": amount}
        return rules.model_copy(update={"strategy": rules.strategy.model_copy(update=changes)})

    # --- its replicas

    @property
    def total(self) -> int:
        return self.replicas

    @property
    def ready(self) -> int:
        return sum(pod.ready_since is not None for i, (_, pod) in self.slots.items() if i < self.replicas)

    @property
    def mixed(self) -> bool:
        return {version for version, _ in self.slots.values()} != {self.template}

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for _, pod in self.slots.values():
            if pod.ready_since is None and pod.ready_at <= self.now:
                pod.ready_since = pod.ready_at

    def reconcile_sets(self) -> None:
        """Create what is missing, and remove what is beyond R."""
        for number in [i for i in self.slots if i >= self.replicas]:
            del self.slots[number]
        for number in range(self.replicas):
            if number not in self.slots:
                version = self.template if number >= self.partition else self.below
                self.slots[number] = version, Pod(self._ready_at(version), self.now)

    def sync(self) -> bool:
        """Do one pass of the controller: create, remove what is beyond R, and replace some."""
        self.reconcile_sets()
        self.heeded = True
        if not self.replicas:
            self.below = self.template  # all of 0 replicas run it
        ready, going = self.ready, self._going()
        for number in going:
            del self.slots[number]
        self._check(self.total, ready)
        return bool(going)

    def _going(self) -> list[int]:
        """Return the numbers that it replaces now."""
        numbers = range(self.replicas - 1, self.partition - 1, -1)
        stale = [i for i in numbers if self.slots[i][0] != self.template]
        if self.has_gate:
            unready = sum(pod.ready_since is None for _, pod in self.slots.values())
            return stale[: max(0, max(self.unavailable, 1) - unready)]
        stops = [i for i in numbers if i in stale or self.slots[i][1].ready_since is None]
        return [i for i in stops[:1] if i in stale]

    # --- faults

    def break_something(self) -> None:
        """Crash, unready or delete a pod; resize; let somebody else change the template or the partition."""
        luck = self.random.random()
        if luck < 0.12 and self.slots:
            number = self.random.choice(list(self.slots))
            version, pod = self.slots[number]
            self.lost += pod.ready_since is not None
            pod.restarts += luck < 0.04
            if luck < 0.08:
                pod.ready_since, pod.unready_since, pod.ready_at = None, self.now, self._ready_at(version)
            else:
                del self.slots[number]
        elif luck < 0.14:
            self.replicas = self.random.randint(1, 12)
        elif luck < 0.15 and self.before_foreign is None and self.owner:
            self.before_foreign = (self.template, self.partition)
            self.tampered = self.spoiled = True
            if luck < 0.145:
                self.template = "v9"
                self.quality.setdefault("v9", self.random.choice(("good", "never")))
            else:
                self.partition = self.random.choice((0, self.partition + 1))
        elif luck < 0.2:
            self.take_back()
        for version, pod in self.slots.values():
            if self.quality[version] == "flaky" and pod.ready_since is not None and self.random.random() < 0.15:
                pod.ready_since, pod.restarts, pod.ready_at = None, pod.restarts + 1, self._ready_at(version)
                self.lost += 1

    def take_back(self) -> None:
        if self.before_foreign is not None:
            self.template, self.partition = self.before_foreign
            self.before_foreign = None

    # --- the lever

    @property
    def token(self) -> str:
        return f"partition={self.partition} maxUnavailable={self.max_unavailable}"

    def _read(self, state: State) -> Numbered:
        running = {
            i: Replica(
                str(i), version, pod.ready_since, containers=(ContainerFacts("server", pod.restarts),),
                unready_since=None if pod.ready_since is not None else pod.unready_since or pod.born,
                unready=self.quality[version],
            )
            for i, (version, pod) in sorted(self.slots.items())
        }  # fmt: skip
        owner = {OWNER: self.owner} if self.owner else {}
        return _Read(
            found={"metadata": {"annotations": owner}, "spec": {"replicas": self.replicas}},
            template={"name": self.template},
            partition=self.partition,
            running=running,
            awaited={},
            pods=[],
            trusted=0,
            heeded=self.heeded,
            revisions=[],
            templates={"baseline": {"name": self.baseline}},
            token=self.token,
            ended=MappingProxyType({}),
        )

    def observe(self, rules: Rules, state: State) -> Observation:
        """Show it as the lever's own code reads it."""
        seen = read(self._read(state), rules, state, self._foreign(state), self.now)
        pivot = state.baseline.template if state.goal is Goal.BACK else state.wanted.template
        coming = [pod for version, pod in self.slots.values() if version == pivot]
        restarts = 1_000_000 if state.goal is Goal.BACK else rules.readiness.max_restarts
        return seen.model_copy(update={"problem": self._problem(pivot, coming, restarts)})

    def scale(self, rules: Rules, state: State, decision: Decision) -> str:
        """Set the partition that keeps the decided old replicas, the first time with the template."""
        goal = decision.counts
        assert goal is not None
        self.strategy = rules.strategy
        seen, found = self.observe(rules, state), self._read(state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        gives_up = goal.old > seen.old.total
        if not (seen.template == state.wanted.template and seen.engaged and seen.requested == goal):
            problem = objection(resolve_budget(rules.strategy, self.replicas), seen, goal)
            if problem or sum(goal) != seen.replicas:
                return problem or f"{seen.replicas} numbered replicas cannot be held as {sum(goal)}"
            self._put(state.wanted.template, partition_for(found, state, goal.old), rules)
            self.owner = state.owner
        self._delete_broken({state.wanted.template}, self.partition)
        if gives_up:
            self._delete_broken({state.baseline.template})
        return ""

    def _put(self, template: str, partition: int, rules: Rules) -> None:
        self.template, self.partition = template, partition
        number = resolve_budget(rules.strategy, max(self.replicas, 1)).unavailable
        written = rules.strategy.max_unavailable
        self.max_unavailable = written if isinstance(written, str) else number
        self.served, self.lost, self.written_for = self.ready, 0, self.replicas
        self.tampered = self.spoiled = self.heeded = False
        self.before_foreign, self.signed = None, self.mark

    def _delete_broken(self, versions: set[str], since: int = 0) -> None:
        broken = [
            i for i, (v, pod) in self.slots.items() if i >= since and v not in versions and pod.ready_since is None
        ]
        for number in broken:
            del self.slots[number]

    def settle(self, rules: Rules, state: State, decision: Decision) -> str:
        """Hold everything, and delete the unready new replicas, which come back old."""
        seen = self.observe(rules, state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        if self.partition != HOLD:
            self._put(self.template, HOLD, rules)
        self._delete_broken({state.baseline.template})
        return ""

    def resize(self, rules: Rules, state: State, decision: Decision) -> str:
        """Set R; added replicas come up old."""
        seen = self.observe(rules, state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        assert decision.replicas is not None
        if decision.replicas == self.replicas:
            return ""
        found, ready = self._read(state), self.ready
        problem = shrinks_under(found, rules, decision.replicas)
        if problem:
            return problem
        partition = partition_at(found, state, decision.replicas)
        self.replicas = decision.replicas
        if found.engaged or partition != self.partition:
            self._put(self.template, partition, rules)
        floor = resolve_budget(rules.strategy, self.replicas).floor
        if self.ready < min(ready, floor):
            raise Wrong(f"{ready} ready were scaled to {self.ready}, under the floor of {floor}: {self}")
        return ""

    def undo(self, rules: Rules, state: State, decision: Decision) -> str:
        """Write the baseline, and let its controller go; while it could go under the floor, hold it."""
        self.strategy = rules.strategy
        seen, found, baseline = self.observe(rules, state), self._read(state), state.baseline.template
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        if may_go_back(found, rules, baseline):
            if not (seen.template == baseline and self.partition == 0):
                self._put(baseline, 0, rules)
        elif self.partition < HOLD or seen.foreign is not None:
            self._put(baseline, HOLD, rules)
        self._delete_broken({baseline} | ({self.template} - {state.wanted.template, state.mark.template}))
        return ""

    def finish(self, rules: Rules, state: State, decision: Decision) -> str:
        """Give the target free."""
        if self.owner is None:
            return ""
        seen = self.observe(rules, state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        if (seen.old if state.goal is Goal.FORWARD else seen.new).total:
            return "the replicas have not reached their final counts yet"
        self._put(self.template, 0, rules)
        self.owner, self.baseline, self.below = None, self.template, self.template
        return ""

    def pause_controller(self, rules: Rules, state: State, decision: Decision) -> str:
        raise AssertionError("a numbered target has nothing to pause")

    def check_end(self, outcome: Outcome, state: State, rules: Rules) -> None:
        """Raise what is wrong with where a rollout left it."""
        expected = state.wanted.template if outcome is Outcome.COMPLETED else state.baseline.template
        self.reconcile_sets()
        if self.template != expected or self.mixed or self.owner is not None or self.partition:
            raise Wrong(f"{outcome} should leave {expected} alone: {self}")

    def __str__(self) -> str:
        shown = [
            f"{version}{'' if pod.ready_since is not None else '-'}" for _, (version, pod) in sorted(self.slots.items())
        ]
        return (
            f"t={self.now:.0f} R={self.replicas} {self.template} partition={self.partition} "
            f"maxUnavailable={self.unavailable} gate={self.has_gate} lost={self.lost} [{' '.join(shown)}]"
        )
