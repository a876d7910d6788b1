"""Load failures: decides whether to believe a new replica although some of its models did not load.

The rules are those of ModelMesh's fail-fast of an upgrade, for every server that reports the states of its models. Only
what happens within the bootstrap period after a replica's start counts. Each failed load is, in this order,

- *critical* if the model has been loaded on another replica for at least as long as a load may take: the new version
  is at fault, and more than ``criticalLimit`` critical failures fail it;
- *known* if the model has already failed on other replicas for ``knownAfter``: it does not count;
- *general* otherwise: the version fails if more than ``generalLimit`` loads ended or are under way, and more than half
  of them failed.

A model that is not loaded when the period ends counts as a failed load, whatever its server reports: some servers
report a failed load as *loading*. Within the limits, Segue still does not believe the replica before the model is
loaded, unless the old version does not load it either. Segue does not believe a replica that did not report its models'
states.

A verdict is final until the replica restarts. Pure: ``activities/gates`` requests the states."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from segue.gates.serving_answers import bounded
from segue.observation import Cause, Problem
from segue.replica import Replica
from segue.spec.load_failures import LoadFailures
from segue.units import format_duration

FAILED_SHARE = 0.5


class LoadOutcome(NamedTuple):
    """One load that ended on one replica."""

    at_s: float
    """Seconds since the replica's start."""
    failed: bool
    model: str = ""
    loaded_elsewhere_s: float | None = None
    """How long the model has been loaded on another replica; None if no other replica has it loaded."""
    failed_elsewhere_s: float | None = None
    """How long it has been unloaded on another replica that has it; None if no such replica exists."""
    why: str = ""
    under_way: int = 0
    """Other loads of the replica that were still under way then."""
    late: bool = False
    """The model was not loaded when the period ended. This counts whenever it is observed."""


class LoadTally(NamedTuple):
    """The counted outcomes of one replica."""

    loaded: int = 0
    general: int = 0
    critical: int = 0

    @property
    def failed(self) -> int:
        """All failed loads."""
        return self.general + self.critical

    @property
    def outcomes(self) -> int:
        """All counted outcomes."""
        return self.loaded + self.failed

    def plus(self, kind: str) -> "LoadTally":
        """Return the tally with one more of a kind, given as the name of a field."""
        return self._replace(**{kind: getattr(self, kind) + 1})


def kind_of(rules: LoadFailures, outcome: LoadOutcome) -> str:
    """Return how an outcome counts: ``loaded``, ``general`` or ``critical``; empty if it does not count."""
    if outcome.at_s >= rules.bootstrap_period.total_seconds() and not outcome.late:
        return ""
    if not outcome.failed:
        return "loaded"
    elsewhere_s, known_s = outcome.loaded_elsewhere_s, outcome.failed_elsewhere_s
    if elsewhere_s is not None and elsewhere_s >= rules.load_timeout.total_seconds():
        return "critical"
    return "" if known_s is not None and known_s >= rules.known_after.total_seconds() else "general"


def judge_loads(rules: LoadFailures, outcomes: Sequence[LoadOutcome]) -> str:
    """Return why a replica fails by its loads so far, checked at each failure in turn as in ModelMesh; empty if not."""
    tally = LoadTally()
    for number, outcome in enumerate(outcomes, 1):
        kind = kind_of(rules, outcome)
        if not kind:
            continue
        tally = tally.plus(kind)
        loads = tally.outcomes + outcome.under_way
        if kind == "critical" and tally.critical > rules.critical_limit:
            what = f"{tally.critical} models that are loaded on other replicas did not load"
            return _summary(rules, outcomes[:number], {kind}, what, f"; {rules.critical_limit} may fail")
        if kind == "general" and loads > rules.general_limit and tally.failed > FAILED_SHARE * loads:
            what = f"{tally.failed} of {loads} models did not load"
            return _summary(rules, outcomes[:number], {"general", "critical"}, what)
    return ""


def _summary(rules: LoadFailures, outcomes: Sequence[LoadOutcome], kinds: set[str], what: str, limit: str = "") -> str:
    """Return the verdict in words, with the names of the failed models and the first reason that a server gave."""
    failed = [o for o in outcomes if kind_of(rules, o) in kinds]
    names = sorted(o.model for o in failed if o.model)
    shown = f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})" if names else ""
    why = next((f": {o.why}" for o in failed if o.why), "")
    return bounded(f"{what}{shown}{limit}{why}")


# --- observed models, and what changed since the latest observation --------------------------------------------


class LoadStanding(StrEnum):
    """The load state of one model on one replica."""

    LOADED = "loaded"
    LOADING = "loading"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    """Not loaded, without a reason from its server: the load failed, or has not begun."""


class ModelSeen(NamedTuple):
    """One model, as its server reports it."""

    name: str
    standing: LoadStanding
    why: str = ""


@dataclass
class _Model:
    standing: LoadStanding
    since: float
    """Seconds since the epoch."""
    counted: bool = False
    """Whether the outcomes include its end."""

    @property
    def pending(self) -> bool:
        """Whether it is unknown if the model is loaded or has failed."""
        unknown = self.standing is LoadStanding.UNAVAILABLE and not self.counted
        return self.standing is LoadStanding.LOADING or unknown


@dataclass
class _Loads:
    """What is known about one replica's present incarnation."""

    started_at: float
    models: dict[str, _Model] = field(default_factory=dict)
    outcomes: list[LoadOutcome] = field(default_factory=list)
    looked: bool = False
    settled: bool = False
    """Whether no model was pending at an observation after the period. Later loads are not judged."""
    untold: Problem | None = None
    """Why it did not report its models' states."""
    changed_at: float = 0.0
    """When a model's load state was last observed to change: seconds since the epoch."""
    verdict: str = ""

    @property
    def pending(self) -> list[str]:
        """The models that are not loaded and have not failed yet."""
        return sorted(name for name, model in self.models.items() if model.pending)


class Ledger:
    """Records what the replicas of a target report about their models. Times are in seconds since the epoch."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Loads] = {}
        self._old: set[str] = set()
        self.grew_at = 0.0
        """When a known replica was last observed to have loaded a model."""

    def keep(self, old: Iterable[Replica], new: Iterable[Replica]) -> None:
        """Forget all other replicas."""
        self._old = {r.incarnation for r in old}
        known = self._old | {r.incarnation for r in new}
        self._replicas = {name: loads for name, loads in self._replicas.items() if name in known}

    def note(self, rules: LoadFailures, replica: Replica, seen: Sequence[ModelSeen], now: float) -> None:
        """Record the models of one replica, as observed now."""
        loads = self._of(replica, now)
        is_over = not in_bootstrap(rules, replica, now)
        # States of the first observation have held since the replica became ready, or at the longest since its start.
        since = now if loads.looked else min(now, replica.ready_since or now)
        for model in seen:
            self._note_standing(loads, model, since, now)
        under_way = sum(model.standing is LoadStanding.LOADING for model in seen)
        for model in seen:
            under_way -= self._note_end(rules, loads, model, is_over, under_way, now)
        loads.looked, loads.untold = True, None
        loads.settled = loads.settled or (is_over and not self._awaited(rules, loads, now))
        loads.verdict = loads.verdict or judge_loads(rules, loads.outcomes)

    def note_counts(self, rules: LoadFailures, replica: Replica, loaded: int, failed: int, now: float) -> None:
        """Record the counts of a replica that reports only how many loads succeeded and how many failed."""
        loads = self._of(replica, now)
        before = [sum(o.failed is failed_ for o in loads.outcomes) for failed_ in (False, True)]
        for is_failed, count in ((False, loaded - before[0]), (True, failed - before[1])):
            loads.outcomes += [LoadOutcome(now - loads.started_at, is_failed)] * min(max(count, 0), 1000)
        if loads.looked and loaded > before[0]:
            self.grew_at = now
        loads.looked, loads.untold = True, None
        loads.settled = not in_bootstrap(rules, replica, now)
        loads.verdict = loads.verdict or judge_loads(rules, loads.outcomes)

    def note_untold(self, replica: Replica, why: Problem, now: float) -> None:
        """Record why a replica did not report its models' states."""
        self._of(replica, now).untold = why

    def _of(self, replica: Replica, now: float) -> _Loads:
        return self._replicas.setdefault(replica.incarnation, _Loads(replica.started_at or now))

    def _note_standing(self, loads: _Loads, seen: ModelSeen, since: float, now: float) -> None:
        before = loads.models.get(seen.name)
        if before is None or before.standing is not seen.standing:
            # A failed load that is tried again is not counted again.
            counted = (
                before is not None and before.counted and LoadStanding.LOADED not in {before.standing, seen.standing}
            )
            loads.models[seen.name] = _Model(seen.standing, since, counted)
            loads.changed_at = now
            if seen.standing is LoadStanding.LOADED:
                self.grew_at = max(self.grew_at, now if loads.looked else 0.0)

    def _note_end(
        self, rules: LoadFailures, loads: _Loads, seen: ModelSeen, is_over: bool, under_way: int, now: float
    ) -> bool:
        """Count a load that has ended; return whether its server still reports it as under way."""
        model = loads.models[seen.name]
        timed_out = is_over and not loads.settled and model.standing is LoadStanding.LOADING
        if model.counted or not (timed_out or _has_ended(rules, loads, model, now)):
            return False
        model.counted = True
        failed = model.standing is not LoadStanding.LOADED
        late = f"not loaded within its bootstrap period of {format_duration(rules.bootstrap_period)}"
        outcome = LoadOutcome(
            now - loads.started_at,
            failed,
            seen.name,
            self._longest(loads, seen.name, now, loaded=True) if failed else None,
            self._longest(loads, seen.name, now, loaded=False) if failed else None,
            seen.why or (late if timed_out else ""),
            max(0, under_way - timed_out),
            late=failed and is_over and not loads.settled,
        )
        loads.outcomes.append(outcome)
        return timed_out

    def _awaited(self, rules: LoadFailures, loads: _Loads, now: float) -> list[str]:
        """Return the pending models, except those that the old version does not load either."""
        return [name for name in loads.pending if not self._failed_before(rules, name, now)]

    def _failed_before(self, rules: LoadFailures, name: str, now: float) -> bool:
        found = [(self._replicas[key].models[name], key in self._old) for key in self._replicas
                 if name in self._replicas[key].models]  # fmt: skip
        if any(model.standing is LoadStanding.LOADED for model, _ in found):
            return False
        return any(is_old and now - model.since >= rules.load_timeout.total_seconds() for model, is_old in found)

    def _longest(self, loads: _Loads, name: str, now: float, *, loaded: bool) -> float | None:
        """Return the longest time a model has been loaded (or not) on another replica; None if no replica matches."""
        models = [r.models[name] for r in self._replicas.values() if r is not loads and name in r.models]
        return max((now - m.since for m in models if (m.standing is LoadStanding.LOADED) is loaded), default=None)

    def is_open(self, rules: LoadFailures, replica: Replica, now: float) -> bool:
        """Return whether loads of this replica still count, or are still pending."""
        loads = self._replicas.get(replica.incarnation)
        return in_bootstrap(rules, replica, now) or loads is None or not (loads.settled or loads.verdict)

    def problem(self, rules: LoadFailures, replica: Replica, now: float) -> Problem | None:
        """Return why a replica is not believed, or not yet; None if its models are no reason against it."""
        loads = self._replicas.get(replica.incarnation)
        if loads is not None and loads.verdict:
            return Problem(cause=Cause.LOADING, message=loads.verdict, replica=replica.name, hopeless=True)
        if loads is not None and loads.settled:
            return None
        if loads is None or not loads.looked:
            untold = loads.untold if loads is not None else None
            not_yet = Problem(cause=Cause.LOADING, message="has not reported the states of its models yet")
            return (untold or not_yet).model_copy(update={"replica": replica.name})
        is_over = not in_bootstrap(rules, replica, now)
        awaited = self._awaited(rules, loads, now) if is_over else loads.pending
        if not awaited:
            return None
        there = sum(m.standing is LoadStanding.LOADED for m in loads.models.values())
        over = f"; its bootstrap period of {format_duration(rules.bootstrap_period)} is over" if is_over else ""
        why = bounded(f"{there} of {len(loads.models)} models loaded, waiting for {', '.join(awaited[:5])}{over}")
        return Problem(cause=Cause.LOADING, message=why, replica=replica.name)


def _has_ended(rules: LoadFailures, loads: _Loads, model: _Model, now: float) -> bool:
    """Return whether a load has ended, successfully or not.

    A server that gives no reason does not distinguish a failed model from one that is not loading yet. The model counts
    as failed when no model of its replica changed its state for as long as a load may take.
    """
    if model.standing is LoadStanding.UNAVAILABLE:
        return now >= loads.changed_at + rules.load_timeout.total_seconds()
    return model.standing is not LoadStanding.LOADING


def in_bootstrap(rules: LoadFailures, replica: Replica, now: float) -> bool:
    """Return whether the replica is still in its bootstrap period."""
    started_at = replica.started_at if replica.started_at is not None else now
    return now < started_at + rules.bootstrap_period.total_seconds()
