"""A simulated custom resource: its operator rolls a Deployment by its own budget; Segue writes, watches and undoes."""

import random

from simulation import NEVER, Target, Wrong, observed

from segue.decision import Decision
from segue.observation import Counts, Observation
from segue.spec import Rules, Strategy
from segue.state import Goal, Outcome, State


class SupervisedTarget(Target):
    """Never held: the simulated Deployment controller plays the operator, with surge 1."""

    autonomous = True
    expects_starting = False

    def __init__(self, strategy: Strategy, replicas: int, seed: random.Random) -> None:
        super().__init__(strategy, replicas, seed)
        self.mirrored_from, self.spare_places, self.counts_room = NEVER, None, False
        for pod in self.sets["v0"].pods:  # an operator without maxUnavailable never gets past one that is not ready
            pod.ready_since, pod.ready_at = 0.0, 0.0
        self.saved = False
        """Whether the baseline is saved on it, so that a rollout holds it."""

    @classmethod
    def respecified(cls, rules: Rules, dice: random.Random) -> Rules:
        """Nothing can stop it partway."""
        return rules.model_copy(update={"strategy": rules.strategy.model_copy(update={"waypoints": ()})})

    def _check(self, total: int, ready: int) -> None:
        """The budget is the operator's."""

    @property
    def token(self) -> str:
        return ""

    def observe(self, rules: Rules, state: State) -> Observation:
        """Show it in the rollout's words."""
        back, undone = state.goal is Goal.BACK, self.template == state.baseline.template
        written = self.saved and self.template == state.wanted.template and not back
        pivot = state.baseline.template if back else state.wanted.template
        named = [s for s in self.sets.values() if s.version == pivot]
        others = [s for s in self.sets.values() if s.version != pivot and (s.replicas or s.pods)]
        since = self.now - rules.readiness.min_ready.total_seconds()
        restarts = 1_000_000 if back else rules.readiness.max_restarts
        old, new = (named, others) if back else (others, named)
        ready = [p.ready_since for s in named for p in s.pods if p.ready_since is not None]
        soon = [at for at in ready if at > since]
        return observed(
            replicas=self.replicas,
            old=self._side(old, since, 1_000_000, 0),
            new=self._side(new, since, restarts, 0),
            requested=Counts(0, self.replicas) if written else Counts(self.replicas, 0),
            template=self.template,
            owner=self.owner,
            engaged=self.saved and not undone,
            autonomous=True,
            foreign=self._foreign(state),
            problem=self._problem(pivot, [p for s in named for p in s.pods], restarts),
            progress_at=max((at for at in ready if at <= since), default=0.0),
            next_proven_at=min(soon) + self.now - since if soon else None,
        )

    def break_something(self) -> None:
        """Break pods, resize, or let somebody else write another version."""
        luck = self.random.random()
        if luck < 0.14 or luck >= 0.16:
            super().break_something()
            self.paused = False
        elif luck < 0.15 and self.before_foreign is None and self.saved:
            self.before_foreign, self.tampered = (self.template, self.max_surge, self.max_unavailable), True
            self.template = "v9"
            self.quality.setdefault("v9", self.random.choice(("good", "never")))
        else:
            self.take_back()

    def scale(self, rules: Rules, state: State, decision: Decision) -> str:
        """Write the wanted version."""
        return self._put(state, state.wanted.template)

    def undo(self, rules: Rules, state: State, decision: Decision) -> str:
        """Write the baseline back."""
        return self._put(state, state.baseline.template)

    def _put(self, state: State, template: str) -> str:
        foreign = self._foreign(state)
        if foreign is not None and not state.overrules:
            return str(foreign)
        self._write(template, 1, 0, engaged=False)
        self.owner, self.saved = state.owner, True
        return ""

    def settle(self, rules: Rules, state: State, decision: Decision) -> str:
        raise AssertionError("an operator cannot be held in between")

    resize = settle

    def finish(self, rules: Rules, state: State, decision: Decision) -> str:
        """Give the target free."""
        foreign = self._foreign(state)
        if foreign is not None and not state.overrules:
            return str(foreign)
        self.owner, self.saved = None, False
        return ""

    def check_end(self, outcome: Outcome, state: State, rules: Rules) -> None:
        """Raise what is wrong with where a rollout left it."""
        expected = state.wanted.template if outcome is Outcome.COMPLETED else state.baseline.template
        if self.template != expected or self.saved or self.owner is not None:
            raise Wrong(f"{outcome} should leave {expected} alone: {self}")
