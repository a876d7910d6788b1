"""Reads the two Deployments of a pair with their pods. Pure; see ``pair`` for the lever."""

import json
from typing import NamedTuple

from pydantic import Field

from activities.cluster import FIELD_MANAGER, Object
from activities.levers.deployment_reading import Objects
from activities.levers.ownership import BASELINE, OWNER, annotations_of, latest_of, replicas_of, unpacked, writers_of
from activities.levers.pods import is_active, read_replica, told_to_stop_at
from activities.levers.template import fingerprint
from segue.failures import diagnose, worst
from segue.observation import Counts, Foreign, Frozen, Observation, Side
from segue.replica import Pods, Replica
from segue.spec import Rules
from segue.state import Goal, Mark, State

REPLICAS = "segue.dev/replicas"
"""R, on the old Deployment: neither of the two has it as its own ``replicas``."""
_ANY_RESTARTS = 1_000_000


class Pair(NamedTuple):
    """The old Deployment, and the new one where it is there."""

    old: Objects
    new: Objects | None

    @property
    def counts(self) -> Counts:
        """What each is told to run."""
        return Counts(replicas_of(self.old.deployment), replicas_of(self.new.deployment) if self.new else 0)

    @property
    def baseline(self) -> "Baseline | None":
        """What was there before; none while no rollout holds it."""
        saved = annotations_of(self.old.deployment).get(BASELINE)
        return Baseline.model_validate_json(unpacked(saved)) if saved else None

    @property
    def replicas(self) -> int:
        """R: as recorded, or of both together while nothing is."""
        recorded = annotations_of(self.old.deployment).get(REPLICAS, "")
        return int(recorded) if recorded.isdecimal() else sum(self.counts)

    @property
    def template(self) -> str:
        """Fingerprint of the new Deployment's template; empty where there is none."""
        return fingerprint(self.new.deployment["spec"]["template"]) if self.new else ""

    @property
    def generation(self) -> int:
        """Grows with every change of what either is told."""
        both = [self.old.deployment, *([self.new.deployment] if self.new else [])]
        return sum(each["metadata"].get("generation", 0) for each in both)


class Baseline(Frozen):
    """What a pair was before the rollout; kept on the old Deployment."""

    old: int
    new: int
    name: str
    """Of the new Deployment."""
    made: bool
    """The new Deployment was not there: undo removes it."""
    template: str = ""
    """The new Deployment's own pod template as JSON, where the rollout changes it."""
    notes: dict[str, str | None] = Field(default_factory=dict)
    """What is noted on the new Deployment of the rollout that made its own version."""

    def home(self, pair: Pair) -> Counts:
        """Return the counts to go back to, in proportion to R, one thing after the other.

        While the new side runs what it did not run before, all of it goes first.
        """
        replicas = pair.replicas
        new = self.new * replicas // (self.old + self.new)
        if self.template and pair.template != fingerprint(json.loads(self.template)) and pair.counts.new:
            new = 0
        return Counts(replicas - new, new)


def read(pair: Pair, rules: Rules, state: State, now: float) -> Observation:
    """Turn the objects into what the core decides on. Pure; ``now`` is in seconds since the epoch."""
    back, written = state.goal is Goal.BACK, pair.template == state.wanted.template
    min_ready_s, restarts = rules.readiness.min_ready.total_seconds(), rules.readiness.max_restarts
    # Replicas of the baseline may have restarted long ago; only new ones are judged by it.
    judged = _ANY_RESTARTS if back else restarts
    old, new = _replicas(pair.old), _replicas(pair.new)
    rising = [] if not (back or written) else (old if back else new)
    counts, baseline = pair.counts, pair.baseline
    since = [p.ready_since for p in (*old, *new) if p.ready_since is not None]
    unplaced = [p.unplaced_since for p in (*old, *new) if p.unplaced_since is not None]
    leaving = [at for pod in _pods(pair) if (at := told_to_stop_at(pod)) is not None]
    new_side = _side(pair.new, new, counts.new, min_ready_s, judged, now)
    return Observation(
        replicas=pair.replicas,
        old=_side(pair.old, old, counts.old, min_ready_s, _ANY_RESTARTS, now),
        new=new_side if back or written else new_side.model_copy(update={"proven": 0}),
        asked=counts,
        home=baseline.home(pair) if baseline else counts,
        template=pair.template,
        generation=pair.generation,
        owner=annotations_of(pair.old.deployment).get(OWNER),
        held=baseline is not None,
        foreign=_foreign(pair, state),
        problem=worst(diagnose(p, judged) for p in rising),
        progress_at=max((at for at in since if at + min_ready_s <= now), default=0.0),
        unplaced=len(unplaced),
        unplaced_since=min(unplaced, default=0.0),
        leaving=len(leaving),
        leaving_since=min(leaving, default=0.0),
        next_proven_at=min((at + min_ready_s for at in since if at + min_ready_s > now), default=None),
        pods=Pods(tuple(old), tuple(new) if back or written else ()),
    )


def mark_of(pair: Pair) -> Mark:
    """Return what tells this write from others."""
    return Mark(
        template=pair.template,
        hold=_hold(pair.counts),
        generation=pair.generation,
        uid=pair.old.deployment["metadata"]["uid"],
    )


def _hold(counts: Counts) -> str:
    return f"old={counts.old} new={counts.new}"


def _pods(pair: Pair) -> list[Object]:
    return [*pair.old.pods, *(pair.new.pods if pair.new else [])]


def _replicas(objects: Objects | None) -> list[Replica]:
    return [read_replica(p, "") for p in objects.pods if is_active(p)] if objects else []


def _side(
    objects: Objects | None, pods: list[Replica], asked: int, min_ready_s: float, restarts: int, now: float
) -> Side:
    total = max(asked, len(pods))  # those that are to go count until they do: else the other side would come too soon
    ready = sum(p.ready_since is not None for p in pods)
    active = [rs for rs in objects.replicasets if rs["spec"].get("replicas")] if objects else []
    return Side(
        total=total,
        ready=ready,
        proven=sum(p.proven(min_ready_s, restarts, now) for p in pods),
        # A ReplicaSet that must shrink removes its unready pods first; of several nobody knows.
        spare=total - ready if len(active) <= 1 or not ready else 0,
    )


def _foreign(pair: Pair, state: State) -> Foreign | None:
    mark, old = state.mark, pair.old.deployment
    if state.baseline.template and fingerprint(old["spec"]["template"]) != state.baseline.template:
        template = fingerprint(old["spec"]["template"])
        return Foreign(
            who=latest_of(writers_of(old, ("f:template",))), what="the old Deployment's pod template", template=template
        )
    baseline = pair.baseline
    own = fingerprint(json.loads(baseline.template)) if baseline and baseline.template else ""
    if pair.new is None:
        if baseline and not baseline.made and state.goal is Goal.FORWARD:
            return Foreign(who="somebody", what="the new Deployment: it is gone")
        return None
    if pair.template not in {mark.template, state.wanted.template, own}:
        who = latest_of(writers_of(pair.new.deployment, ("f:template",)))
        return Foreign(who=who, what="the new Deployment's pod template", template=pair.template)
    return _foreign_counts(pair, mark)


def _foreign_counts(pair: Pair, mark: Mark) -> Foreign | None:
    if not mark.hold or mark.hold == _hold(pair.counts):
        return None
    before = dict(part.split("=") for part in mark.hold.split())
    sides = {"old": pair.old, "new": pair.new}
    for side, objects in sides.items():
        told = str(getattr(pair.counts, side))
        if objects is None or told == before[side]:
            continue
        writers = writers_of(objects.deployment, ("f:replicas",), scale=True)
        if {w["manager"] for w in writers} - {FIELD_MANAGER}:  # else it is our own write whose answer was lost
            what = f"the {side} Deployment's replicas to {told}"
            return Foreign(who=latest_of(writers), what=what, template=pair.template)
    return None
