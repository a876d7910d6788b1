"""A simulated pair of Deployments: two sets of pods, each with its own number; no controller goes back alone."""

import random
from typing import Any

from simulation import NEVER, ReplicaSet, Target, Wrong, observed

from segue.budget import objection, resolve_budget
from segue.decision import Decision
from segue.observation import Counts, Foreign, Observation
from segue.spec import End, Rules, Strategy
from segue.state import Goal, Mark, Outcome, State


class PairTarget(Target):
    """The old Deployment runs v0; the new one is made, and runs one version at a time."""

    initial = ""

    def __init__(self, strategy: Strategy, replicas: int, seed: random.Random) -> None:
        super().__init__(strategy, replicas, seed)
        self.old, self.new = self.sets["v0"], ReplicaSet("", 1)
        self.sets = {"v0": self.old, "new": self.new}
        self.quality[""] = "good"
        self.template = ""

    @classmethod
    def respecified(cls, rules: Rules, dice: random.Random) -> Rules:
        """Let some rollouts end where both sides serve."""
        if dice.random() < 0.5:
            return rules
        amount = dice.choice((1, 2, 3, "25%", "50%", "100%"))
        to = End(old=amount) if dice.random() < 0.5 else End(new=amount)
        return rules.model_copy(update={"strategy": rules.strategy.model_copy(update={"to": to})})

    @property
    def counts(self) -> Counts:
        return Counts(self.old.replicas, self.new.replicas)

    @property
    def token(self) -> str:
        return str(self.counts)

    @property
    def mark(self) -> Mark:
        return Mark(template=self.template, token=self.token if self.engaged else "")

    @property
    def mixed(self) -> bool:
        return False

    def sync(self) -> bool:
        """Let both make and remove pods; neither has anything else to do."""
        self.reconcile_sets()
        return False

    def break_something(self) -> None:
        """Crash, unready or delete a pod; let somebody else scale one side, or change what the new one runs."""
        luck = self.random.random()
        pods = [(s, p) for s in self.sets.values() for p in s.pods]
        if luck < 0.12 and pods:
            replicaset, pod = self.random.choice(pods)
            self.lost += pod.ready_since is not None
            pod.restarts += luck < 0.04
            if luck < 0.08:
                pod.ready_since, pod.ready_at = None, self._ready_at(replicaset.version)
            else:
                replicaset.pods.remove(pod)
        elif luck < 0.13 and self.before_foreign is None and self.engaged:
            self.before_foreign, self.tampered = tuple(self.counts), True
            side = self.random.choice((self.old, self.new))
            side.replicas = self.random.randint(0, 12)
        elif luck < 0.18:
            self.take_back()

    def take_back(self) -> None:
        """Let the other take back what they wrote."""
        if self.before_foreign is not None:
            self.old.replicas, self.new.replicas = self.before_foreign
            self.before_foreign = None

    def observe(self, rules: Rules, state: State) -> Observation:
        """Show the pair in the rollout's words."""
        back, written = state.goal is Goal.BACK, self.template == state.wanted.template
        since = self.now - rules.readiness.min_ready.total_seconds()
        restarts = 1_000_000 if back else rules.readiness.max_restarts
        old = self._side([self.old], since, 1_000_000, self.old.replicas - self.old.ready)
        new = self._side([self.new], since, restarts, self.new.replicas - self.new.ready)
        ready = [p.ready_since for s in self.sets.values() for p in s.pods if p.ready_since is not None]
        soon = [at for at in ready if at > since]
        rising = self.old if back else self.new
        judged = back or written
        return observed(
            replicas=self.replicas,
            old=old,
            new=new if judged else new.model_copy(update={"proven": 0}),
            requested=self.counts,
            home=Counts(self.replicas, 0),
            template=self.template,
            owner=self.owner,
            engaged=self.engaged,
            foreign=self._foreign(state),
            problem=self._problem(rising.version, rising.pods, restarts) if judged else None,
            progress_at=max((at for at in ready if at <= since), default=0.0),
            next_proven_at=min(soon) + self.now - since if soon else None,
        )

    def _foreign(self, state: State) -> Foreign | None:
        if self.before_foreign is None:
            return None
        return Foreign(who="somebody", what=f"the replicas to {self.counts}", template=self.template)

    def scale(self, rules: Rules, state: State, decision: Decision) -> str:
        """Tell both their counts; a new version only while the new side is empty."""
        seen, counts = self.observe(rules, state), decision.counts
        assert counts is not None
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        problem = objection(resolve_budget(rules.strategy, self.replicas), seen, counts)
        if problem:
            return problem
        if state.goal is Goal.FORWARD and counts.new > self.new.replicas and self.template != state.wanted.template:
            if self.new.replicas:
                return "the new Deployment still runs another version"
            self.template = self.new.version = state.wanted.template
            self.new.pods = []
        self.engaged, self.owner = True, state.owner
        self._tell(rules, counts)
        return ""

    settle = undo = scale

    def _tell(self, rules: Rules, counts: Counts) -> None:
        total, ready = self.total, self.ready
        self.strategy = rules.strategy
        self.served, self.lost, self.written_for = ready, 0, self.replicas
        self.tampered, self.before_foreign = False, None
        self.old.replicas, self.new.replicas = counts
        for side in (self.old, self.new):  # what goes is gone before what comes is requested
            side.pods.sort(key=lambda p: NEVER if p.ready_since is None else p.ready_since)
            del side.pods[side.replicas :]
        self._check(total, ready)

    def resize(self, rules: Rules, state: State, decision: Decision) -> str:
        """Record the new R, and tell both their share."""
        seen, replicas = self.observe(rules, state), decision.replicas
        assert replicas is not None
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        if replicas == self.replicas:
            return ""
        old = min(-(-self.old.replicas * replicas // self.replicas), replicas)
        ceiling = resolve_budget(rules.strategy, replicas).ceiling
        total = max(min(-(-self.total * replicas // self.replicas), ceiling), replicas)
        self.replicas = replicas
        self.old.replicas, self.new.replicas = old, total - old
        if not self.engaged:
            self.old.replicas, self.new.replicas = replicas, 0
        return ""

    def finish(self, rules: Rules, state: State, decision: Decision) -> str:
        """Give both free."""
        if not self.engaged:
            return ""
        seen = self.observe(rules, state)
        if seen.foreign is not None and not state.overrules:
            return str(seen.foreign)
        back = state.goal is Goal.BACK
        if self.counts != (seen.home if back else resolve_budget(rules.strategy, self.replicas).end):
            return "the replicas have not reached their final counts yet"
        self.engaged, self.owner = False, None
        if back:
            self.template = self.new.version = ""
        return ""

    def check_end(self, outcome: Outcome, state: State, rules: Rules) -> None:
        """Raise what is wrong with where a rollout left it."""
        completed = outcome is Outcome.COMPLETED
        end: Any = resolve_budget(rules.strategy, self.replicas).end if completed else (self.replicas, 0)
        version = state.wanted.template if completed else ""
        another = self.template != version and bool(end[1] or not completed)  # of none there may be any version
        if self.counts != end or another or self.engaged or self.owner is not None:
            raise Wrong(f"{outcome} should leave {end} of {version or 'v0'}: {self}")
