"""A simulated target with its controllers and its faults, and a driver in the place of the workflow.

The Deployment controller is rebuilt from its rules (Kubernetes 1.36, ``pkg/controller/deployment``: rolling.go,
sync.go), not from its code: one ``sync`` is one pass. ReplicaSets delete unready pods first. Everything random
comes from one seed, so that a failing rollout can be run again alone.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from segue.arithmetic import next_waypoint
from segue.as_before import as_before, is_undone
from segue.budget import Budget, objection, resized, resolve_budget
from segue.contract import Prepared, Written
from segue.decide import asks_for_room, decide
from segue.decision import Act, Decision
from segue.errors import Refused
from segue.gates import Result, Verdict
from segue.gates.standing import due
from segue.messages import (
    Abort,
    Approve,
    Message,
    Pause,
    Promote,
    Reject,
    Resume,
    RetargetTo,
    Scale,
    Settle,
    receive,
)  # fmt: skip
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version
from segue.room import Demand
from segue.spec import Change, OnFailure, Order, Pace, Readiness, Rules, Strategy, Waypoint
from segue.spec.gate_policy import Reaction
from segue.spec.own_gates import OwnGate, WebhookGate
from segue.state import Before, Goal, Mark, Outcome, Retarget, State
from segue.transition import applied, denied, is_written, judged, learned, retargeted
from segue.units import resolve

FAULTS_END_S = 150.0
LIMIT_S = 4_000.0
NEVER = float("inf")
NO_SIDE = Side()
NOTHING_SEEN = Observation(replicas=0, old=NO_SIDE, new=NO_SIDE, requested=Counts(0, 0), template="")
"""A copy of it is made in a fifth of the time of a new observation, and a simulated rollout makes hundreds."""
MIRRORED = "+mirror"


class Refusal(str):
    """Why a write was refused for good: it needs a person."""


_REWRITTEN = Refusal("an admission policy makes another version of it")
MOST_WRITES = 10
"""So many writes a minute, at most, where nothing moves."""


def observed(**fields: Any) -> Observation:
    """Return an observation with these fields, which are not validated."""
    return NOTHING_SEEN.model_copy(update=fields)


class Wrong(AssertionError):
    """The simulated rollout did what no rollout may do."""


# --- the target -----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Pod:
    """One pod: when it will be Ready, and since when it is."""

    ready_at: float
    born: float
    """When it was made; the time that it needs to become ready counts from when it is placed."""
    placed: bool = True
    ready_since: float | None = None
    unready_since: float | None = None
    restarts: int = 0


@dataclass(slots=True, eq=False)
class ReplicaSet:
    """One version's pods. ``held`` ones never count as available (minReadySeconds at its maximum)."""

    version: str
    born: int
    replicas: int = 0
    held: bool = False
    let_go: bool = False
    """Whether its ready pods count at once, as undo writes it (minReadySeconds 0)."""
    desired: int = 0
    maximum: int = 0
    pods: list[Pod] = field(default_factory=list)

    @property
    def ready(self) -> int:
        ready = sum(p.ready_since is not None for p in self.pods)
        return min(ready, self.replicas)

    def proven(self, since: float, restarts: int) -> int:
        proven = sum(p.ready_since is not None and p.ready_since <= since and p.restarts <= restarts for p in self.pods)
        return min(proven, self.replicas)


class Target:
    """A Deployment with its ReplicaSets, pods and controllers."""

    initial = "v0"
    """The template that a rollout finds where it will write."""
    autonomous = False
    """Whether its own controller or operator moves the replicas."""
    expects_starting = True
    """Whether a rollback expects replicas that were starting before to be ready."""

    @classmethod
    def respecified(cls, rules: Rules, dice: random.Random) -> Rules:
        """Give the rules what only this kind can do."""
        return rules

    @property
    def mixed(self) -> bool:
        """Whether it is in the middle of a rollout of somebody else's."""
        return {s.version for s in self.sets.values() if s.replicas} != {self.template}

    def check_end(self, outcome: Outcome, state: State, rules: Rules) -> None:
        """Raise what is wrong with where a rollout left it."""
        expected = state.wanted.template if outcome is Outcome.COMPLETED else state.baseline.template
        if self.template == expected + MIRRORED:
            expected = self.template  # the policy came with the last write: from here its own controller rolls
        elif self.mixed:
            raise Wrong(f"{outcome} should leave one version: {self}")
        if self.template != expected or self.engaged or self.owner is not None:
            raise Wrong(f"{outcome} should leave {expected} alone: {self}")

    def __init__(self, strategy: Strategy, replicas: int, seed: random.Random) -> None:
        self.strategy, self.random = strategy, seed
        self.now = 1_000.0
        self.replicas = replicas
        self.template = "v0"
        self.quality: dict[str, str] = {"v0": "good", "v5": "good"}
        self.min_ready_s = seed.choice((0.0, 0.0, 3.0))
        self.engaged = self.paused = False
        self.max_surge: int | str = 1
        self.max_unavailable: int | str = 0
        self.owner: str | None = None
        baseline = ReplicaSet("v0", 0, replicas, desired=replicas, maximum=replicas + 1)
        baseline.pods = [Pod(0.0, 0.0, ready_since=0.0) for _ in range(replicas)]
        if seed.random() < 0.12:  # some were not ready before
            for pod in baseline.pods[: seed.randint(1, replicas)]:
                pod.ready_since, pod.ready_at = None, seed.choice((NEVER, self.now + seed.uniform(0, 90)))
        self.sets = {"v0": baseline}
        self.births = 1
        if seed.random() < 0.1:  # a version that ran before the baseline
            self.sets["v1"] = ReplicaSet("v1", -1)
        self.lost = 0
        self.served = baseline.ready
        self.written_for = replicas
        self.before_foreign: tuple[Any, ...] | None = None
        self.tampered = self.spoiled = False
        """Whether somebody else changed it; and so that what follows is theirs: a paused controller moves nothing."""
        self.scaled = False
        """Whether somebody else changed R since the latest move, or Segue did while it does not hold the target."""
        self.mistaken = 0
        """The unready pods beside which ready ones of a third version do not count as available: see ``_write``."""
        self.signed: Mark | None = None
        self.spare_places = seed.choice((None, None, 0, 0, 1, 2))
        """Nodes take so many more than R; any number where it is none."""
        self.counts_room = seed.random() < 0.5
        self.startup_s = seed.choice((2.0, 8.0, 20.0))
        self.calm = False
        self.mirrored_from = seed.uniform(1_000, 1_100) if seed.random() < 0.12 else NEVER
        """From when on an admission policy changes each template that is written."""

    # --- pods and ReplicaSets

    def pass_time(self, seconds: float) -> None:
        """Let pods become ready, and the controllers do some of what they have to."""
        self.now += seconds
        self._schedule()
        for replicaset in self.sets.values():
            for pod in replicaset.pods:
                if pod.placed and pod.ready_since is None and pod.ready_at <= self.now:
                    pod.ready_since = pod.ready_at

    def reconcile_sets(self) -> None:
        """Let every ReplicaSet create and delete: unready pods go first, then the youngest ready ones."""
        for replicaset in self.sets.values():
            surplus = len(replicaset.pods) - replicaset.replicas
            if surplus > 0:
                replicaset.pods.sort(key=lambda p: NEVER if p.ready_since is None else p.ready_since)
                del replicaset.pods[replicaset.replicas :]
            for _ in range(-surplus):
                replicaset.pods.append(Pod(NEVER, self.now, placed=False))
        self._schedule()

    @property
    def places_left(self) -> int | None:
        """How many more pods the nodes take; none where any number."""
        if self.spare_places is None:
            return None
        return max(0, self.replicas + self.spare_places - sum(p.placed for s in self.sets.values() for p in s.pods))

    def _schedule(self) -> None:
        """Place the pods that wait, the oldest first."""
        waiting = [(p.born, s.born, p, s) for s in self.sets.values() for p in s.pods if not p.placed]
        waiting.sort(key=lambda each: each[:2])
        for _, _, pod, replicaset in waiting[: self.places_left]:
            pod.placed, pod.ready_at = True, self._ready_at(replicaset.version)

    def _ready_at(self, version: str) -> float:
        if self.quality[version] in {"good", "flaky"}:
            return self.now + self.random.uniform(1, self.startup_s)
        return NEVER

    def _available(self, replicaset: ReplicaSet) -> int:
        needed_s = 0.0 if replicaset.let_go else self.min_ready_s
        return 0 if replicaset.held else replicaset.proven(self.now - needed_s, 1_000_000)

    # --- the Deployment controller

    @property
    def resizing(self) -> bool:
        """Whether the controller has not scaled to the present number of replicas yet (its own annotation tells)."""
        return any(s.replicas and s.desired != self.replicas for s in self.sets.values())

    @property
    def total(self) -> int:
        return sum(s.replicas for s in self.sets.values())

    @property
    def ready(self) -> int:
        return sum(s.ready for s in self.sets.values())

    def sync(self) -> bool:
        """Do one pass of the Deployment controller; tell whether it did something."""
        self.reconcile_sets()
        if self.paused:
            return self._sync_paused()
        if self.resizing:
            self._scale_in_proportion()
            return True
        newest = self.sets.get(self.template)
        if newest is None:
            newest = self.sets[self.template] = ReplicaSet(self.template, self.births)
            self.births += 1
        newest.held, newest.let_go = self.engaged, False
        total, ready = self.total, self.ready
        done = self._grow(newest) or self._shrink(newest)
        self._check(total, ready)
        return done

    def _sync_paused(self) -> bool:
        """Keep all sizes, as long as they are R + maxSurge together; no set is made for a new template."""
        newest, total, ready = self.sets.get(self.template), self.total, self.ready
        if newest is not None:
            newest.held, newest.let_go = self.engaged, False
            if newest.replicas == newest.desired == self.replicas == self._available(newest):
                for replicaset in self.sets.values():
                    if replicaset is not newest and replicaset.replicas:
                        self._resized(replicaset, 0)
        if self.resizing or self.total != self.replicas + (self.surge if len(self._active) > 1 else 0):
            self._scale_in_proportion()
            ready = self.ready  # in proportion, it may take ready pods of one version beside unready ones of another
        self._check(total, ready)
        return self.total != total

    @property
    def surge(self) -> int:
        """What its fields allow above R now: a percentage follows R, as on the real thing."""
        return resolve(self.max_surge, self.replicas, round_up=True)

    @property
    def unavailable(self) -> int:
        """How many of R its fields let be unavailable now."""
        return resolve(self.max_unavailable, self.replicas, round_up=False)

    def _hold(self, counts: Counts, rules: Rules) -> tuple[int | str, int | str]:
        """Return the fields for these counts, in percent like the lever's: maxSurge only if the spec gives one so."""
        surge, unavailable = sum(counts) - self.replicas, self.replicas - counts.old
        return self._fields(surge, unavailable, rules)

    def _rest(self, counts: Counts, rules: Rules) -> tuple[int | str, int | str]:
        """Return the fields for these counts at rest: they keep the floor when somebody resumes the Deployment."""
        surge, unavailable = sum(counts) - self.replicas, self.replicas - counts.old
        unavailable = min(unavailable, resolve_budget(rules.strategy, self.replicas).unavailable)
        if surge or unavailable:
            return self._fields(surge, unavailable, rules)
        return self._fields(*((0, 1) if counts.old else (1, 0)), rules)  # both cannot be 0

    def _fields(self, surge: int, unavailable: int, rules: Rules) -> tuple[int | str, int | str]:
        written = rules.strategy.max_surge
        added = min(100 * surge // self.replicas, int(written[:-1])) if isinstance(written, str) else 0
        return f"{added}%" if added else surge, f"{-(-100 * unavailable // self.replicas)}%" if unavailable else 0

    @property
    def _active(self) -> list[ReplicaSet]:
        return [s for s in self.sets.values() if s.replicas]

    @property
    def requested(self) -> Counts:
        """What the lever's fields request."""
        return Counts(self.replicas - self.unavailable, self.surge + self.unavailable)

    def unpaused(self, *ours: str) -> bool:
        """Whether it should be paused and is not."""
        return self.engaged and not self.paused and (self.rests or self.template not in ours)

    @property
    def rests(self) -> bool:
        """Whether the controller has nothing to move, paused or not."""
        new = self.sets[self.template].replicas if self.template in self.sets else 0
        is_whole = self.total == new == self.replicas and self.total < sum(self.requested)
        return self.total - new <= self.requested.old and (self.total == sum(self.requested) or is_whole)

    @property
    def moving(self) -> bool:
        """Whether the controller still makes a move: it never makes more new ones than R, whatever the fields allow."""
        new = self.sets[self.template].replicas if self.template in self.sets else 0
        can_grow = self.total < sum(self.requested) and new < self.replicas
        return self.total - new > self.requested.old or can_grow

    def pause_controller(self, rules: Rules, state: State, decision: Decision) -> str:
        """Pause the controller once it has taken up a move."""
        if self.unpaused(state.wanted.template, state.mark.template):
            self.paused = True
            if self._foreign(state) is None:
                self.max_surge, self.max_unavailable = self._rest(self.requested, rules)
                self.signed = self.mark
        return ""

    def _resized(self, replicaset: ReplicaSet, replicas: int) -> None:
        replicaset.replicas = replicas
        replicaset.desired, replicaset.maximum = self.replicas, self.replicas + self.surge

    def _grow(self, newest: ReplicaSet) -> bool:
        if newest.replicas == self.replicas:
            return False
        if newest.replicas > self.replicas:
            self._resized(newest, self.replicas)
            return True
        room = self.replicas + self.surge - self.total
        grown = newest.replicas + min(room, self.replicas - newest.replicas)
        if room <= 0:
            return False
        self._resized(newest, grown)
        return True

    def _shrink(self, newest: ReplicaSet) -> bool:
        others = sorted((s for s in self.sets.values() if s is not newest and s.replicas), key=lambda s: s.born)
        unavailable = 1 if self.surge == self.unavailable == 0 else min(self.unavailable, self.replicas)
        least = self.replicas - unavailable
        room = self.total - least - (newest.replicas - self._available(newest))
        if room <= 0 or not others:
            return False
        available = {s.version: self._available(s) for s in (newest, *others)}
        surplus, before = sum(available.values()) - least, room
        for replicaset in others:
            goes = min(room, replicaset.replicas - available[replicaset.version])
            if goes:
                self._resized(replicaset, replicaset.replicas - goes)
                room -= goes
        for replicaset in others:
            goes = min(replicaset.replicas, max(surplus, 0))
            if goes:
                self._resized(replicaset, replicaset.replicas - goes)
                surplus, room = surplus - goes, room - goes
        return room < before

    def _scale_in_proportion(self) -> None:
        active = self._active or [max(self.sets.values(), key=lambda s: s.born)]
        if len(active) == 1:
            self._resized(active[0], self.replicas)
            return
        size = self.replicas + self.surge if self.replicas else 0
        missing = size - sum(s.replicas for s in active)
        # The largest first; of equals the newest when growing, the oldest when shrinking.
        active.sort(key=lambda s: (-s.replicas, -s.born if missing > 0 else s.born))
        added, wanted = 0, []
        for replicaset in active:
            share = int(replicaset.replicas * size / (replicaset.maximum or size) + 0.5) - replicaset.replicas
            share = 0 if missing == added else share
            share = min(share, missing - added) if missing > 0 else max(share, missing - added)
            share = 0 if missing == 0 else share
            wanted.append(replicaset.replicas + share)
            added += share
        wanted[0] = max(0, wanted[0] + missing - added)
        for replicaset, replicas in zip(active, wanted, strict=True):
            self._resized(replicaset, replicas)

    def _check(self, total: int, ready: int) -> None:
        if self.spoiled or not self.replicas or self.written_for != self.replicas:
            return  # what follows from another's write, or from the drop of R itself, is not ours
        budget = resolve_budget(self.strategy, self.replicas)
        if self.total > total and self.total > budget.ceiling:
            raise Wrong(f"{self.total} replicas, over the ceiling of {budget.ceiling}: {self}")
        if self.scaled:
            return
        if self.ready < ready and self.ready < min(budget.floor, self.served) - self.lost - self.mistaken:
            raise Wrong(f"{ready} ready were taken to {self.ready}, under the floor of {budget.floor}: {self}")

    def __str__(self) -> str:
        sets = ", ".join(f"{s.version}: {s.ready}/{s.replicas}{'h' if s.held else ''}" for s in self.sets.values())
        return (
            f"t={self.now:.0f} R={self.replicas} {self.template} engaged={self.engaged} paused={self.paused} "
            f"maxSurge={self.surge} maxUnavailable={self.unavailable} lost={self.lost} [{sets}]"
        )

    # --- faults

    def break_something(self) -> None:
        """Crash, unready or delete a pod; resize; let somebody else write."""
        luck = self.random.random()
        pods = [(s, p) for s in self.sets.values() for p in s.pods]
        if luck < 0.12 and pods:
            replicaset, pod = self.random.choice(pods)
            self.lost += pod.ready_since is not None
            if luck < 0.04:
                pod.restarts += 1
            if luck < 0.08:
                pod.ready_since, pod.ready_at = None, self._ready_at(replicaset.version)
            else:
                replicaset.pods.remove(pod)
        elif luck < 0.13:
            self._unready_all()
        elif luck < 0.14:
            replicas = self.random.randint(1, 12)
            self.scaled = self.scaled or replicas != self.replicas
            self.replicas = replicas
        elif luck < 0.15 and self.before_foreign is None:
            self.before_foreign = (self.template, self.max_surge, self.max_unavailable)
            self.tampered = True
            self.spoiled = self.spoiled or not self.paused or luck >= 0.145
            if luck < 0.145:
                self.template = "v9"
                self.quality.setdefault("v9", self.random.choice(("good", "never")))
            else:
                self.max_surge = self.surge + 1
        elif luck < 0.18:
            self.take_back()
        elif luck < 0.19 and self.before_foreign is None:
            self.paused = False  # somebody resumes it
        elif luck < 0.2:
            self.spare_places = self.random.choice((None, 0, 1, 2))
        for replicaset in self.sets.values():
            if self.quality[replicaset.version] == "flaky":
                for pod in replicaset.pods:
                    if pod.ready_since is not None and self.random.random() < 0.15:
                        pod.ready_since, pod.restarts = None, pod.restarts + 1
                        pod.ready_at = self._ready_at(replicaset.version)
                        self.lost += 1

    def _unready_all(self) -> None:
        """Let all pods of one version lose their readiness."""
        replicaset = self.random.choice(list(self.sets.values()))
        for pod in replicaset.pods:
            self.lost += pod.ready_since is not None
            if pod.ready_since is not None:
                pod.ready_since, pod.unready_since, pod.ready_at = None, self.now, self._ready_at(replicaset.version)

    def take_back(self) -> None:
        """Let the other take back what they wrote."""
        if self.before_foreign is not None:
            self.template, self.max_surge, self.max_unavailable = self.before_foreign
            self.before_foreign = None

    # --- the lever: what is seen

    def observe(self, rules: Rules, state: State) -> Observation:
        """Show the target in the rollout's words."""
        back = state.goal is Goal.BACK
        pivot = state.baseline.template if back else state.wanted.template
        named = [s for s in self.sets.values() if s.version == pivot]
        others = [s for s in self.sets.values() if s.version != pivot and (s.replicas or s.pods)]
        old, new = (named, others) if back else (others, named)
        since = self.now - rules.readiness.min_ready.total_seconds()
        restarts = rules.readiness.max_restarts
        old_side = self._side(old, since, 1_000_000, _spare(old, self._available))
        new_side = self._side(new, since, restarts, 0)
        coming = [p for s in named for p in s.pods]
        proven = [p.ready_since for p in coming if p.ready_since is not None and p.ready_since <= since]
        soon = [p.ready_since for p in coming if p.ready_since is not None and p.ready_since > since]
        unplaced = [p.born for s in self.sets.values() for p in s.pods if not p.placed]
        ours = self.engaged and self.template == state.wanted.template and not back
        return observed(
            replicas=self.replicas,
            old=old_side,
            new=new_side,
            requested=(Counts(old_side.total, new_side.total) if self.paused or self.rests else self.requested)
            if ours
            else Counts(old_side.total, 0),
            unpaused=self.unpaused(state.wanted.template, state.mark.template),
            own_unavailable=None if self.engaged else self.unavailable,
            template=self.template,
            owner=self.owner,
            engaged=self.engaged,
            foreign=self._foreign(state),
            problem=self._problem(pivot, coming, 1_000_000 if back else restarts),
            progress_at=max(proven, default=0.0),
            lost_since=min(
                (p.unready_since or p.born for s in new for p in s.pods if p.ready_since is None), default=0.0
            ),
            unplaced=len(unplaced),
            unplaced_since=min(unplaced, default=0.0),
            next_proven_at=min(soon) + self.now - since if soon else None,
        )

    def _side(self, sets: list[ReplicaSet], since: float, restarts: int, spare: int) -> Side:
        if not sets:
            return NO_SIDE
        total, ready = sum(s.replicas for s in sets), sum(s.ready for s in sets)
        proven = sum(s.proven(since, restarts) for s in sets)
        return NO_SIDE.model_copy(update={"total": total, "ready": ready, "proven": proven, "spare": spare})

    def _problem(self, version: str, pods: list[Pod], restarts: int) -> Problem | None:
        if self.quality.get(version) == "hopeless" and any(self.now > p.born + 3 for p in pods):
            return Problem(cause=Cause.IMAGE_PULL, message="no such image", hopeless=True)
        if any(p.restarts > restarts for p in pods):
            return Problem(cause=Cause.RESTARTED, message="was restarted", hopeless=True)
        return None

    @property
    def token(self) -> str:
        return f"{self.engaged} {self.max_surge} {self.max_unavailable}"

    @property
    def mark(self) -> Mark:
        return Mark(template=self.template, token=self.token)

    def _foreign(self, state: State) -> Foreign | None:
        # What our latest write left is kept on the target itself: its answer can be lost.
        signed = self.signed or state.mark
        if self.template != signed.template:
            return Foreign(who="somebody", what="the template", template=self.template)
        if signed.token and signed.token != self.token:
            return Foreign(who="somebody", what=f"{signed.token} to {self.token}", template=self.template)
        return None

    # --- the lever: what is written. Each returns why nothing was written; empty when it is done.

    def scale(self, rules: Rules, state: State, decision: Decision) -> str:
        """Hold exactly the decided counts."""
        self.strategy = rules.strategy
        seen = self.observe(rules, state)
        counts = decision.counts
        assert counts is not None
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        if seen.template == state.wanted.template and seen.engaged and seen.requested == counts:
            return ""
        if counts.old > self.replicas or counts.old + counts.new < self.replicas or counts.new == 0:
            return f"cannot be held at {counts}"
        if self.resizing:
            # Another maxSurge would change the proportions by which the controller is about to scale.
            return "the controller has not followed the resize yet"
        problem = objection(resolve_budget(rules.strategy, self.replicas), seen, counts)
        if problem:
            return problem
        if self.admitted(state.wanted.template) != state.wanted.template:
            return _REWRITTEN
        surge, unavailable = self._hold(counts, rules)
        missing = counts.old - seen.old.total
        if seen.engaged and seen.template == state.wanted.template and missing > 0:
            self.sets[state.baseline.template].replicas += missing  # not by the controller: its annotations stay
        self._write(state.wanted.template, surge, unavailable, engaged=True)
        self.owner = state.owner
        if decision.act is Act.SCALE:
            self._take_up(rules, state, decision)
        return ""

    def _take_up(self, rules: Rules, state: State, decision: Decision) -> None:
        """Let the controller take a move up, or some of it, and pause it where it has."""
        for _ in range(self.random.choice((4, 4, 2, 0))):
            self.sync()
        self.pause_controller(rules, state, decision)

    def _write(self, template: str, surge: int | str, unavailable: int | str, *, engaged: bool) -> None:
        answered = self.admitted(template)
        # A policy that arrives in the middle makes a third version; ready pods of the second are not available.
        altered = answered != template
        self.template, self.max_surge, self.max_unavailable, self.engaged = answered, surge, unavailable, engaged
        self.served = self.ready
        self.lost, self.written_for, self.tampered, self.before_foreign = 0, self.replicas, altered, None
        self.paused, self.spoiled, self.scaled = False, False, False
        # Undo could not tell which version it would make: the controller may remove those ready pods for unready ones.
        self.mistaken = self.total - self.ready if altered else 0
        self.signed = self.mark

    def admitted(self, template: str) -> str:
        """Return what the API server makes of a template that is written, or tried."""
        if self.now < self.mirrored_from or template.endswith(MIRRORED):
            return template
        self.quality[template + MIRRORED] = self.quality[template]
        return template + MIRRORED

    def settle(self, rules: Rules, state: State, decision: Decision) -> str:
        """Hold the decided counts, and take back new replicas over them."""
        problem = self.scale(rules, state, decision)
        newest = self.sets.get(state.wanted.template)
        assert decision.counts is not None
        if not problem and newest is not None and newest.replicas > decision.counts.new:
            newest.replicas = decision.counts.new  # not by the controller: its annotations stay
        if not problem:
            self._take_up(rules, state, decision)
        return problem

    def resize(self, rules: Rules, state: State, decision: Decision) -> str:
        """Set the replicas; the controller scales all sides in proportion."""
        seen = self.observe(rules, state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        replicas = decision.replicas
        assert replicas is not None
        if replicas == self.replicas:
            return ""
        if seen.engaged and self.resizing:
            return "the controller has not followed the resize yet"  # its sizes are no shares of the present R
        if seen.engaged and not self.paused and self.moving:
            return "the controller has not made the last move yet"
        self.replicas = self.written_for = replicas
        # Unheld, the added replicas of a superseded version are unready, and the controller takes ready ones first.
        self.scaled = self.scaled or not seen.engaged
        if seen.engaged:
            self.paused = True
            self.max_surge, self.max_unavailable = self._rest(resized(rules.strategy, seen, replicas), rules)
            self.signed = self.mark
        return ""

    def undo(self, rules: Rules, state: State, decision: Decision) -> str:
        """Put the baseline back in one write; the controller does the rest."""
        self.strategy = rules.strategy
        seen = self.observe(rules, state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        budget = resolve_budget(rules.strategy, max(self.replicas, 1))
        if is_undone(seen, state.baseline.template, budget.unavailable):
            return ""
        spare = {state.baseline.template, self.template}
        superseded = [
            s
            for s in self.sets.values()
            if s.replicas and s.version not in spare and (s.held or (self.min_ready_s and not s.let_go))
        ]
        third = self.admitted(state.baseline.template) not in spare  # then the present version is superseded by it
        if (superseded or third) and self.resizing:
            return "the controller has not followed the resize yet"  # it would add unready pods to what is spared
        for replicaset in superseded:
            # Its ready pods count as available, so that unready ones of other versions go first; its own go now.
            replicaset.held, replicaset.let_go, replicaset.replicas = False, True, replicaset.ready
        written = (rules.strategy.max_surge, rules.strategy.max_unavailable)
        surge, unavailable = (w if isinstance(w, str) else n for w, n in zip(written, budget[1:3], strict=True))
        self._write(state.baseline.template, surge, unavailable, engaged=False)
        return ""

    def finish(self, rules: Rules, state: State, decision: Decision) -> str:
        """Give the target free."""
        seen = self.observe(rules, state)
        if seen.owner is None and not seen.engaged:
            return ""
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        if seen.old.total if state.goal is Goal.FORWARD else seen.new.total:
            return "the replicas have not reached their final counts yet"
        before = self.template
        if state.goal is Goal.FORWARD and self.admitted(before) != before:
            return _REWRITTEN
        self._write(before, 1, 0, engaged=False)
        self.owner, self.tampered = None, self.template != before
        self.spoiled = self.tampered  # it rolls by its own budget from here
        return ""


def _spare(old: list[ReplicaSet], available: Callable[[ReplicaSet], int]) -> int:
    """Count the unready that go before any ready one: as the controller cleans up, the oldest ReplicaSet first."""
    spare = 0
    for replicaset in sorted(old, key=lambda s: s.born):
        spare += replicaset.replicas - replicaset.ready
        if replicaset.ready > available(replicaset):
            break
    return spare


# --- the rollout ----------------------------------------------------------------------------------------


def random_rules(dice: random.Random, replicas: int) -> Rules:
    """Make up a strategy that the spec would accept."""
    amounts: tuple[Any, ...] = (1, 2, 3, "10%", "25%", "50%", "100%")
    written: dict[str, Any] = {"order": dice.choice(list(Order))}
    match dice.randrange(4):
        case 0:
            written["maxSurge"] = dice.choice(amounts)
        case 1:
            written["maxUnavailable"] = dice.choice(amounts)
        case 2:
            written |= {"maxSurge": dice.choice(amounts), "maxUnavailable": dice.choice(amounts)}
    if dice.random() < 0.4:
        written["step"] = dice.randint(1, 5)
    written["waypoints"] = tuple(
        Waypoint(
            at=dice.choice((dice.randint(1, replicas + 1), f"{dice.randint(1, 100)}%")),
            hold=timedelta(seconds=dice.choice((0, 0, 10, 40))),
            approval=dice.random() < 0.25,
        )
        for _ in range(dice.choice((0, 0, 1, 2, 3)))
    )
    readiness = Readiness(
        min_ready=timedelta(seconds=dice.choice((0, 2, 5))),
        deadline=timedelta(seconds=60),
        max_restarts=dice.choice((0, 1, 1)),
    )
    gates = tuple(random_gate(dice, name) for name in ("errors", "latency")[: dice.choice((0, 0, 1, 2))])
    return Rules(
        strategy=Strategy(**written), readiness=readiness, on_failure=dice.choice(list(OnFailure)), gates=gates
    )


def _paced(rules: Rules, seed: int) -> Rules:
    """Return the rules with an exact pace for every third seed."""
    pace = Pace.EXACT if seed % 3 == 0 else Pace.AS_READY
    return rules.model_copy(update={"strategy": rules.strategy.model_copy(update={"pace": pace})})


def random_gate(dice: random.Random, name: str) -> OwnGate:
    """Make up a gate that is evaluated again and again."""
    return OwnGate(
        name=name,
        webhook=WebhookGate(name=name),
        interval=timedelta(seconds=dice.choice((1, 5, 20))),
        count=dice.choice((1, 1, 3)),
        initial_delay=timedelta(seconds=dice.choice((0, 0, 10))),
        failure_limit=dice.choice((0, 0, 1)),
        inconclusive_limit=dice.choice((None, None, 5)),
        deadline=timedelta(minutes=dice.choice((1, 30))),
        on_failure=dice.choice(list(Reaction)),
        on_inconclusive=dice.choice(list(Reaction)),
        continuous=dice.random() < 0.4,
        weight=dice.choice((None, None, 10)),
        dry_run=dice.random() < 0.1,
    )


class Driver:
    """Plays the workflow, the pipeline and the person for one rollout."""

    def __init__(self, seed: int, kind: type[Target] = Target) -> None:
        self.random = dice = random.Random(seed)
        replicas = dice.randint(1, 12)
        self.rules = _paced(kind.respecified(random_rules(dice, replicas), dice), seed)
        self.target = kind(self.rules.strategy, replicas, dice)
        for version in ("v1", "v2", "v3"):
            self.target.quality[version] = dice.choices(("good", "never", "hopeless", "flaky"), (70, 12, 9, 9))[0]
        self.faulty = dice.random() < 0.85
        versions = Version(template="v0"), Version(template="v1")
        state = State(owner="us").after_prepare(*versions, self.target.now, Demand())
        starting = dice.randint(0, replicas - self.target.ready) if kind.expects_starting else 0
        before = Before(replicas=replicas, ready=self.target.ready, starting=starting)
        self.state = state.but(mark=Mark(template=kind.initial), before=before, autonomous=kind.autonomous)
        self.ends_at = self.target.now + (FAULTS_END_S if self.faulty else 0)
        self.given_up_at = self.target.now + LIMIT_S
        self.resumes = 0
        self.trace: list[str] = []
        self.acts: set[Act] = set()
        self.tracing = False

    def run(self) -> Outcome:
        """Play until the end.

        Raises:
            Wrong: when the rollout breaks its budget, passes a waypoint, or does not end.
        """
        while self.state.outcome is None:
            self._tick()
            if self.target.now > self.given_up_at:
                raise Wrong(f"does not end: {self.state.phase} {self.state.brief!r}; {self.target}")
        self._check_end(self.state.outcome)
        return self.state.outcome

    def _tick(self) -> None:
        dice, target = self.random, self.target
        faulty = target.now < self.ends_at
        if faulty:
            target.break_something()
            if dice.random() < 0.07:
                self._hear(self._any_message())
        else:
            target.take_back()
            self._help()
        target.pass_time(dice.uniform(0.2, 5))
        for _ in range(dice.randrange(4)):
            if not target.sync():
                break
        if dice.random() < 0.5:
            target.reconcile_sets()
        self._step(faulty=faulty)

    def _say(self, what: object) -> None:
        if self.tracing:
            self.trace.append(f"{what}  {self.target}")

    # --- people

    def _any_message(self) -> Message:
        dice = self.random
        version = f"v{dice.choice((1, 1, 2, 2, 3, 3, 0))}"
        makers = (
            (4, lambda: Pause(by="she")),
            (4, lambda: Resume(by="she")),
            (1, lambda: Abort(by="she")),
            (4, lambda: Scale(by="she", replicas=dice.randint(1, 12))),
            (3, lambda: Settle(by="she")),
            (4, lambda: Approve(by="she")),
            (1, lambda: Reject(by="she")),
            (2, lambda: Promote(by="she")),
            (4, lambda: RetargetTo(by="she", change=Change(images={"server": version}))),
        )
        return dice.choices([m for _, m in makers], [w for w, _ in makers])[0]()

    def _help(self) -> None:
        state = self.state
        if state.needs_human and self.random.random() < 0.3:
            self._hear(RetargetTo(by="she", change=Change(images={"server": "v5"})))
        elif state.crowded or state.needs_human:
            if self.random.random() < 0.3:
                self._hear(Abort(by="she"))
            self.target.spare_places = None
        elif state.waypoint is not None and not state.waypoint.approved:
            self._hear(Approve(by="she"))
        elif state.unresolved is not None or state.paused:
            hopeless = self.target.quality[state.wanted.template] != "good" or self.resumes > 3
            self.resumes += 1
            self._hear(Abort(by="she") if hopeless else Resume(by="she"))

    def _hear(self, message: Message) -> None:
        try:
            self.state = receive(message, self.state, self.target.now)
            self._say(repr(message))
        except Refused:
            pass

    # --- the workflow

    def _step(self, *, faulty: bool) -> None:
        target, dice = self.target, self.random
        self.state = self.state.passing(target.now)
        if self.state.retarget is not None:
            self._retarget(self.state.retarget)
            return
        seen = target.observe(self.rules, self.state)
        self.state = learned(self.state, seen)
        self._ask_gates(faulty=faulty)
        decision = decide(self.rules, self.state, seen, target.now)
        if target.counts_room and asks_for_room(self.state, seen, decision):
            seen = seen.model_copy(update={"room": target.places_left, "room_why": "no place is free"})
            decision = decide(self.rules, self.state, seen, target.now)
        self.acts.add(decision.act)
        self._say(f"{decision.act} {decision.counts or ''} {decision.why}")
        self._check_decision(decision, seen)
        late: Message | None = None
        if faulty and dice.random() < 0.1:
            target.pass_time(dice.uniform(0.2, 8))  # what follows comes late
            target.break_something()
            target.sync()
            if dice.random() < 0.1:
                late = self._any_message()
        # A message before a write drops the decision (tests/replay), and one during it is heard after it. Only a
        # verification records its result in the state after the message.
        if late is not None and decision.act is Act.VERIFY:
            self._hear(late)
            late = None
        self._perform(decision, seen, faulty=faulty)
        if late is not None and self.state.outcome is None:
            self._hear(late)

    def _ask_gates(self, *, faulty: bool) -> None:
        """Answer what is due, or some of it; without faults everything passes."""
        now, due_gates = self.target.now, due(self.rules, self.state, self.target.now)
        answers = [Verdict(gate=gate.name, why="", **self._answer(faulty)) for gate, _ in due_gates]
        if faulty:
            answers = [answer for answer in answers if self.random.random() < 0.7]
        self.state = self.state.after_record(self.rules.repeated_gates, answers, now)
        self._say(answers)

    def _answer(self, faulty: bool) -> dict[str, Any]:
        weights = (85, 3, 8, 4) if faulty else (1, 0, 0, 0)
        results = (Result.PASS, True), (Result.FAIL, True), (Result.INCONCLUSIVE, True), (Result.INCONCLUSIVE, False)
        result, counts = self.random.choices(results, weights)[0]
        return {"result": result, "counts": counts}

    def _retarget(self, retarget: Retarget) -> None:
        assert retarget.change is not None
        target, version = self.target, retarget.change.images["server"]
        if not self.state.claimed and target.mixed:
            self.state = self.state.but(retarget=None, overrules=False)  # refused: in the middle of another's rollout
            return
        found = self.state.baseline if self.state.claimed or not target.template else Version(template=target.template)
        wanted = Version(template=target.admitted(version))
        prepared = Prepared(
            baseline=found, wanted=wanted, replicas=target.replicas, old=target.replicas,
            owner=self.state.owner, mark=Mark(template=target.template), demand=Demand(),
        )  # fmt: skip
        before, self.state = self.state, retargeted(self.state, retarget, prepared, target.now)
        if before.foreign is not None and self.state.foreign is None:
            target.before_foreign = None  # they left it, and we take it for the baseline
        self._say(f"retargeted to {version}")

    def _perform(self, decision: Decision, seen: Observation, *, faulty: bool) -> None:
        if decision.act is Act.VERIFY:
            self._verify(decision, seen, faulty=faulty)
        elif is_written(self.state, decision):
            self._write(decision, seen, faulty=faulty)
        else:
            self.state = applied(self.rules, self.state, seen, decision, self.target.now)

    def _verify(self, decision: Decision, seen: Observation, *, faulty: bool) -> None:
        luck = self.random.random() if faulty else 1.0
        result = Result.FAIL if luck < 0.03 else Result.PASS if luck > 0.3 else Result.INCONCLUSIVE
        verdict = Verdict(gate="readiness", result=result, why="the dice say so")
        self.state = judged(self.rules, self.state, seen, decision, [verdict], self.target.now)

    def _write(self, decision: Decision, seen: Observation, *, faulty: bool) -> None:
        target, state = self.target, self.state
        write = {
            Act.SCALE: target.scale, Act.SETTLE: target.settle, Act.RESIZE: target.resize, Act.UNDO: target.undo,
            Act.FINISH: target.finish, Act.PAUSE_CONTROLLER: target.pause_controller,
        }[decision.act]  # fmt: skip
        luck = self.random.random() if faulty else 1.0
        if luck < 0.05:
            return  # lost
        rules = as_before(self.rules, self.state, seen.replicas)
        problem = write(rules, state, decision)
        self._say(f"  wrote {decision.act}: {problem or 'done'}")
        if luck < 0.12:  # the answer is lost: it is done again
            target.pass_time(self.random.uniform(0.2, 8))
            target.sync()
            problem = write(rules, state, decision)
            self._say(f"  wrote {decision.act} again: {problem or 'done'}")
        if isinstance(problem, Refusal):
            self.state = denied(self.state, seen, decision, problem, target.now)
            return
        if not problem and 0.95 < luck < 1.0 and decision.act is not Act.FINISH:
            self._hear(self._any_message())  # in between the write and its record
        written = Written(done=not problem, why=problem, writes=1, mark=None if problem else target.mark)
        self.state = applied(self.rules, self.state, seen, decision, target.now, written)
        self._check_writes()

    # --- what must hold

    def _check_decision(self, decision: Decision, seen: Observation) -> None:
        state = self.state
        if decision.act is Act.FOREIGN and not self.target.tampered:
            raise Wrong(f"took its own write for another's: {decision.why}; {self.target}")
        if decision.act is Act.SCALE:
            assert decision.counts is not None
            ahead = next_waypoint(self.rules, state, seen.replicas)
            if ahead is not None and decision.counts.new > max(ahead[1], seen.requested.new, seen.new.total):
                raise Wrong(f"{decision.counts} passes the waypoint at {ahead[1]} new; {self.target}")
            budget = resolve_budget(as_before(self.rules, state, seen.replicas).strategy, seen.replicas)
            if not seen.autonomous:
                self._check_counts(budget, seen, decision.counts)
        is_paced = decision.why.startswith("the next try")  # a replica that flaps is not followed each time
        if decision.act is Act.WAIT and seen.replicas and not seen.autonomous and not is_paced:
            self._check_safety(seen, as_before(self.rules, state, seen.replicas))
        if decision.act is Act.VERIFY:
            self._check_evidence()
        if decision.act is Act.FINISH and state.goal is Goal.FORWARD:
            ahead = next_waypoint(self.rules, state, seen.replicas)
            if ahead is not None or not state.verified:
                raise Wrong(f"finishes before its waypoints and its verification; {self.target}")

    def _check_safety(self, seen: Observation, rules: Rules) -> None:
        """Nobody waits while old replicas could come back for ready ones that are missing."""
        state = self.state
        is_held = (
            state.claimed and seen.engaged and seen.template == state.wanted.template and seen.counts == seen.requested
        )
        if not is_held or state.goal is Goal.BACK or (state.foreign is not None and not state.overrules):
            return
        old, total = seen.old.total, sum(seen.counts)
        if seen.home is None and total == seen.replicas == old + 1:
            return  # no fields of a Deployment lead there
        budget = resolve_budget(rules.strategy, seen.replicas)
        sized = seen.replicas if state.sized is None else min(seen.replicas, state.sized)
        floor = resolve_budget(rules.strategy, sized).floor
        if old + seen.new.ready < floor and total < budget.ceiling and old < seen.replicas:
            raise Wrong(f"waits with {seen.old.ready + seen.new.ready} ready, under {floor}; {self.target}")

    def _check_writes(self) -> None:
        """Of the writes of a minute few are on a picture that was there before."""
        minute = [each.what for each in self.state.wrote if each.at > self.target.now - 60]
        if len(minute) - len(set(minute)) > MOST_WRITES:
            raise Wrong(f"writes the same again and again: {minute}; {self.target}")

    def _check_evidence(self) -> None:
        """Nothing passes by default: each critical gate was evaluated often enough here, and did not fail too often."""
        for gate in self.rules.repeated_gates:
            tally = self.state.tally(gate.name)
            if gate.dry_run or gate.weight is not None:
                continue
            few = tally is None or tally.sitting != len(self.state.passed) or tally.conclusive < gate.count
            failed = tally is not None and tally.failed > gate.failure_limit
            if few or (failed and gate.on_failure is not Reaction.HOLD):
                raise Wrong(f"verifies without evidence of {gate.name}: {tally!r}; {self.target}")

    def _check_counts(self, budget: Budget, seen: Observation, counts: Counts) -> None:
        problem = objection(budget, seen, counts)
        if problem:
            raise Wrong(f"asks for what the write must refuse: {problem}; {seen!r}; {self.target}")

    def _check_end(self, outcome: Outcome) -> None:
        target, state = self.target, self.state
        if not state.claimed or Act.FENCED in self.acts:
            return
        target.check_end(outcome, state, self.rules)


def play(seed: int, kind: type[Target] = Target, *, tracing: bool = False) -> tuple[Outcome, set[Act]]:
    """Play the rollout of one seed; return how it ended, and all acts that were decided.

    Raises:
        Wrong: with the seed and what happened.
    """
    driver = Driver(seed, kind)
    driver.tracing = tracing
    try:
        return driver.run(), driver.acts
    except (AssertionError, Refused) as error:
        lines = [*driver.trace, f"seed {seed}: {type(error).__name__} {error}", str(driver.rules)]
        raise Wrong("\n".join(lines)) from error
