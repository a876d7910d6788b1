"""Load failures: whether a new replica may be believed although some of its models did not load.

The rules are those of ModelMesh's fail-fast of an upgrade, for every server that tells its models' states. Only what
happens within the bootstrap period after a replica's start counts. Each failed load is

- *known*, when the model has failed on other replicas for long already: not counted;
- *critical*, when the model is loaded on another replica, for at least as long as a load may take: the new version is
  at fault, and more than ``criticalLimit`` of them fail it;
- *general* otherwise: more than ``generalLimit`` outcomes, of which more than half failed, fail it.

A verdict is final until the replica restarts. Pure: the states are asked for in ``activities/gates``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from segue.gates.serving import Port, UrlName, bounded
from segue.observation import Cause, Problem
from segue.replica import Replica
from segue.specmodel import Model, wrong
from segue.units import Duration, format_duration

MAX_PERIOD = timedelta(hours=1)
FAILED_SHARE = 0.5


class LoadFailures(Model):
    """Which models of new replicas may fail to load, and where they tell it."""

    protocol: Literal["openInference", "torchServe", "tfServing", "modelMesh"] = Field(
        description="Repository index, management API, model status, or ModelMesh's Prometheus metrics."
    )
    port: Port = Field(default=8080, description="Of the pod: a number, or a container port's name.")
    scheme: Literal["http", "https"] = "http"
    models: tuple[UrlName, ...] = Field(
        default=(), max_length=100, strict=False, description="tfServing: whose states are asked for."
    )
    bootstrap_period: Duration = Field(
        default=timedelta(seconds=180),
        alias="bootstrapPeriod",
        description="After a replica's start; later nothing counts.",
    )
    critical_limit: int = Field(
        default=2, alias="criticalLimit", ge=0, le=10_000, description="Critical failures that a replica may have."
    )
    general_limit: int = Field(
        default=20, alias="generalLimit", ge=0, le=100_000, description="Outcomes up to which no share is judged."
    )
    load_timeout: Duration = Field(
        default=timedelta(seconds=90), alias="loadTimeout", description="How long a load may take."
    )
    known_after: Duration = Field(
        default=timedelta(minutes=30), alias="knownAfter", description="How long a model must have failed elsewhere."
    )
    interval: Duration = Field(default=timedelta(seconds=3), description="Between two looks at a replica.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for name, shortest, longest, fix in (
            ("bootstrap_period", timedelta(seconds=1), MAX_PERIOD, "write 1s to 1h"),
            ("load_timeout", timedelta(0), MAX_PERIOD, "write 0s to 1h"),
            ("known_after", timedelta(0), timedelta(days=1), "write 0s to 24h"),
            ("interval", timedelta(seconds=1), timedelta(minutes=1), "write 1s to 1m"),
        ):
            value: timedelta = getattr(self, name)
            if not shortest <= value <= longest:
                field_name = LoadFailures.model_fields[name].alias or name
                raise wrong(field_name, format_duration(value), "is out of range", fix)
        if (self.protocol == "tfServing") != bool(self.models):
            why, fix = ("are needed: it lists none", "name them") if not self.models else (
                f"are not for {self.protocol}", "leave them out: it lists its own")  # fmt: skip
            raise wrong("models", list(self.models) or None, why, fix)
        return self


class Outcome(NamedTuple):
    """One load that came to an end, on one replica."""

    at_s: float
    """Seconds since the replica's start."""
    failed: bool
    model: str = ""
    loaded_elsewhere_s: float | None = None
    """For how long the model has been loaded on another replica; none where it is on none."""
    failed_elsewhere_s: float | None = None
    why: str = ""


class Tally(NamedTuple):
    """The outcomes of one replica that count."""

    loaded: int = 0
    failed: int = 0
    critical: int = 0

    @property
    def outcomes(self) -> int:
        """All of them."""
        return self.loaded + self.failed


def tally_of(rules: LoadFailures, outcomes: Iterable[Outcome]) -> Tally:
    """Count the outcomes that count: within the period, and not of a model that is known to fail."""
    loaded = failed = critical = 0
    for outcome in outcomes:
        if outcome.at_s >= rules.bootstrap_period.total_seconds():
            continue
        if not outcome.failed:
            loaded += 1
            continue
        elsewhere_s, known_s = outcome.loaded_elsewhere_s, outcome.failed_elsewhere_s
        if known_s is not None and known_s >= rules.known_after.total_seconds():
            continue
        failed += 1
        critical += elsewhere_s is not None and elsewhere_s >= rules.load_timeout.total_seconds()
    return Tally(loaded, failed, critical)


def judge_loads(rules: LoadFailures, outcomes: Sequence[Outcome]) -> str:
    """Say why a replica fails by its loads so far; empty while it does not."""
    tally = tally_of(rules, outcomes)
    names = sorted(o.model for o in outcomes if o.failed and o.model)
    told = f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})" if names else ""
    why = next((f": {o.why}" for o in outcomes if o.failed and o.why), "")
    if tally.critical > rules.critical_limit:
        what = f"{tally.critical} models that are loaded on other replicas did not load{told}"
        return bounded(f"{what}; {rules.critical_limit} may fail{why}")
    if tally.outcomes > rules.general_limit and tally.failed > FAILED_SHARE * tally.outcomes:
        return bounded(f"{tally.failed} of {tally.outcomes} models did not load{told}{why}")
    return ""


# --- what is seen of models, and what came of it since the latest look ----------------------------------------


class Standing(StrEnum):
    """Where one model on one replica stands."""

    LOADED = "loaded"
    LOADING = "loading"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    """Not loaded, and its server does not say why: failed, or not begun."""


class ModelSeen(NamedTuple):
    """One model, as its server tells it."""

    name: str
    standing: Standing
    why: str = ""


@dataclass
class _Model:
    standing: Standing
    since: float
    """Seconds since the epoch."""
    counted: bool = False
    """Whether its end is among the outcomes."""


@dataclass
class _Loads:
    """What is known of one replica's present incarnation."""

    started_at: float
    models: dict[str, _Model] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    looked: bool = False
    changed_at: float = 0.0
    """When one of its models was last seen to come on, or to fail: seconds since the epoch."""
    verdict: str = ""


class Ledger:
    """What the replicas of a target told of their models; times are given, in seconds since the epoch."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Loads] = {}
        self.grew_at = 0.0
        """When a model was last seen to have been loaded on a replica that was looked at before."""

    def keep(self, replicas: Iterable[Replica]) -> None:
        """Forget all others."""
        known = {r.incarnation for r in replicas}
        self._replicas = {name: loads for name, loads in self._replicas.items() if name in known}

    def note(self, rules: LoadFailures, replica: Replica, seen: Iterable[ModelSeen], now: float) -> None:
        """Take note of a look at one replica."""
        loads = self._replicas.setdefault(replica.incarnation, _Loads(replica.started_at or now))
        # What is there at the first look has been so since it became ready, or at the longest since its start.
        since = now if loads.looked else min(now, replica.ready_since or now)
        for model in seen:
            self._note_model(rules, loads, model, since, now)
        loads.looked = True
        loads.verdict = loads.verdict or judge_loads(rules, loads.outcomes)

    def note_counts(self, rules: LoadFailures, replica: Replica, loaded: int, failed: int, now: float) -> None:
        """Take note of a look at one that tells only how many loads ended well and how many did not."""
        loads = self._replicas.setdefault(replica.incarnation, _Loads(replica.started_at or now))
        before = [sum(o.failed is failed_ for o in loads.outcomes) for failed_ in (False, True)]
        for is_failed, count in ((False, loaded - before[0]), (True, failed - before[1])):
            loads.outcomes += [Outcome(now - loads.started_at, is_failed)] * min(max(count, 0), 1000)
        if loads.looked and loaded > before[0]:
            self.grew_at = now
        loads.looked = True
        loads.verdict = loads.verdict or judge_loads(rules, loads.outcomes)

    def _note_model(self, rules: LoadFailures, loads: _Loads, seen: ModelSeen, since: float, now: float) -> None:
        before = loads.models.get(seen.name)
        if before is None or before.standing is not seen.standing:
            loads.models[seen.name] = _Model(seen.standing, since)
            loads.changed_at = now
            if seen.standing is Standing.LOADED:
                self.grew_at = max(self.grew_at, now if loads.looked else 0.0)
        model = loads.models[seen.name]
        if not model.counted and _has_ended(rules, loads, model, now):
            model.counted = True
            elsewhere = [r for r in self._replicas.values() if r is not loads]
            failed = seen.standing is not Standing.LOADED
            outcome = Outcome(
                now - loads.started_at,
                failed,
                seen.name,
                _longest(elsewhere, seen.name, {Standing.LOADED}, now) if failed else None,
                _longest(elsewhere, seen.name, {Standing.FAILED, Standing.UNAVAILABLE}, now) if failed else None,
                seen.why,
            )
            loads.outcomes.append(outcome)

    def problem(self, rules: LoadFailures, replica: Replica, now: float) -> Problem | None:
        """Say why a replica is not to be believed, or not yet; none when its models do not speak against it."""
        loads = self._replicas.get(replica.incarnation)
        if loads is not None and loads.verdict:
            return Problem(cause=Cause.LOADING, message=loads.verdict, replica=replica.name, hopeless=True)
        if not in_bootstrap(rules, replica, now):
            return None
        if loads is None or not loads.looked:
            why = "its models' states are not told yet"
        else:
            open_ = sorted(name for name, model in loads.models.items() if _is_pending(model))
            if not open_:
                return None
            there = sum(m.standing is Standing.LOADED for m in loads.models.values())
            why = f"{there} of {len(loads.models)} models loaded, waiting for {', '.join(open_[:5])}"
        return Problem(cause=Cause.LOADING, message=bounded(why), replica=replica.name)


def _has_ended(rules: LoadFailures, loads: _Loads, model: _Model, now: float) -> bool:
    """Whether a load has ended, well or not.

    A server that gives no reason does not tell a model that failed from one whose turn has not come: it is taken for
    failed when nothing has come on at its replica for as long as a load may take.
    """
    if model.standing is Standing.UNAVAILABLE:
        return now >= loads.changed_at + rules.load_timeout.total_seconds()
    return model.standing is not Standing.LOADING


def _is_pending(model: _Model) -> bool:
    return model.standing is Standing.LOADING or (model.standing is Standing.UNAVAILABLE and not model.counted)


def _longest(replicas: Iterable[_Loads], name: str, standings: set[Standing], now: float) -> float | None:
    """For how long a model has been so on another replica, at the longest; none where it is on none."""
    models = [r.models[name] for r in replicas if name in r.models]
    return max((now - m.since for m in models if m.standing in standings), default=None)


def in_bootstrap(rules: LoadFailures, replica: Replica, now: float) -> bool:
    """Whether what its models do counts."""
    started_at = replica.started_at if replica.started_at is not None else now
    return now < started_at + rules.bootstrap_period.total_seconds()
