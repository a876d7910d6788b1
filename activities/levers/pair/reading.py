"""Reads the two Deployments of a pair with their pods. Pure; see ``lever`` for the lever."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from activities.cluster import FIELD_MANAGER, Object
from activities.ended_pods import Gone
from activities.levers.authors import latest_of, writers_of
from activities.levers.controllers import idle
from activities.levers.deployment.reading import Objects, ended_of, is_adopted, is_paused, read_set
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    REPLICAS,
    annotations_of,
    damaged,
    refuse_another_kind,
    replicas_of,
    rewound,
    unpacked,
    written_of,
)
from activities.levers.pods import ANY_RESTARTS, freed_by, is_active, read_replica, stop_requested_at, stuck
from activities.levers.template import containers_of, fingerprint, fingerprinting_once
from activities.watching import controller_uid
from segue.ended_pods import judged, taken_at
from segue.failures import of_stuck
from segue.hindrance import hindrance_of, with_stuck
from segue.missing import Missing, denying_both, excused, unplaced_of, with_absent, with_full_quota, with_kept_away
from segue.observation import Cause, Counts, Foreign, Frozen, Observation, Problem, Side
from segue.replica import Ended, Pods, Replica, lost_since
from segue.spec import MADE_LABEL, Rules
from segue.state import Goal, Mark, State
from segue.units import counted


class Pair(NamedTuple):
    """The old Deployment, and the new one if it exists."""

    old: Objects
    new: Objects | None

    @property
    def counts(self) -> Counts:
        """The replicas that each requests."""
        return Counts(replicas_of(self.old.deployment), replicas_of(self.new.deployment) if self.new else 0)

    @property
    def written(self) -> int:
        """The number of the rollout's latest write on either."""
        return max(written_of(side.deployment) for side in (self.old, self.new) if side is not None)

    @property
    def baseline(self) -> "Baseline | None":
        """The state before the rollout. None while no rollout holds the pair."""
        saved = annotations_of(self.old.deployment).get(BASELINE)
        try:
            return Baseline.model_validate_json(unpacked(saved)) if saved else None
        except ValueError as error:
            refuse_another_kind(self.old.deployment, "DeploymentPair")
            raise damaged(self.old.deployment) from error

    @property
    def replicas(self) -> int:
        """R: as recorded, or the sum of both if nothing is recorded."""
        recorded = recorded_replicas(self.old.deployment)
        return sum(self.counts) if recorded is None else recorded

    @property
    def template(self) -> str:
        """Fingerprint of the new Deployment's template; empty if there is no new Deployment."""
        return fingerprint(self.new.deployment["spec"]["template"]) if self.new else ""

    @property
    def generation(self) -> int:
        """Grows with every change of either spec."""
        return sum(each["metadata"].get("generation", 0) for each in _deployments(self))


class Baseline(Frozen):
    """A pair before the rollout; saved on the old Deployment."""

    old: int
    new: int
    name: str
    """The new Deployment's name."""
    made: bool
    """The rollout made the new Deployment, so undo removes it."""
    template: str = ""
    """The new Deployment's own pod template as JSON, if the rollout changes it."""
    notes: dict[str, str | None] = Field(default_factory=dict)
    """The new Deployment's notes of the rollout that made its own version."""
    ready: int | None = None
    """How many replicas of both were Ready before the rollout. None if that is not known."""

    def home(self, pair: Pair, restored: str) -> Counts:
        """Return the counts to roll back to next, in proportion to R.

        While the new side runs another version than before, all of it stops first. ``restored`` is the restored version
        as admission stored it.
        """
        replicas = pair.replicas
        new = self.new * replicas // (self.old + self.new)
        own = {restored, fingerprint(json.loads(self.template))} if self.template else set[str]()
        if own and pair.template not in own and pair.counts.new:
            new = 0
        return Counts(replicas - new, new)


@fingerprinting_once()
def read(pair: Pair, rules: Rules, state: State, now: float) -> Observation:
    """Return the observation that the core decides on. Pure; ``now`` is in seconds since the epoch."""
    back, written = state.goal is Goal.BACK, pair.template == state.wanted.template
    min_ready_s = rules.readiness.min_ready.total_seconds()
    restarts = ANY_RESTARTS if back else rules.readiness.max_restarts
    old, new = _replicas(pair.old), _replicas(pair.new)
    rising, falling = (old, new) if back else (new if written else [], old)
    counts, baseline = pair.counts, pair.baseline
    since = [p.ready_since for p in (*old, *new) if p.ready_since is not None]
    missing = [_missing(pair.old), _missing(pair.new)]
    lacking = missing[not back] if back or written else []
    deadline_s = rules.readiness.deadline.total_seconds()
    unplaced = unplaced_of((*old, *new), [each for side in missing for each in side], (*old, *new))
    deniers = denying_both(*missing)
    hindrance = with_kept_away(hindrance_of(falling, rising), lacking, deadline_s, now, deniers=deniers)
    hindrance = with_full_quota(hindrance, lacking, pair.replicas + unplaced.unplaced - sum(counts), deadline_s, now)
    waits = unplaced_of(rising, lacking, ()).waits
    kept = stuck(_pods(pair), deadline_s, now, waits=waits)
    hindrance, absent = with_absent(
        with_stuck(hindrance, kept), idle(_deployments(pair), now, "Deployment"), len(rising)
    )
    leaving = [at for pod in _pods(pair) if (at := stop_requested_at(pod)) is not None]
    ended, proven_times = _ended(pair, back=back), [at for at in since if at + min_ready_s <= now]
    denied = [excused(each, deniers) for each in _unmade(pair, back=back)]
    problem = judged(rising, ended, restarts, state.judged_from, absent, *denied, others=falling)
    new_side = _side(pair.new, new, counts.new, min_ready_s, restarts, now)
    return Observation(
        replicas=pair.replicas,
        old=_side(pair.old, old, counts.old, min_ready_s, ANY_RESTARTS, now),
        new=new_side if back or written else new_side.model_copy(update={"proven": 0}),
        requested=counts,
        home=baseline.home(pair, state.restored) if baseline else counts,
        template=pair.template,
        generation=pair.generation,
        owner=annotations_of(pair.old.deployment).get(OWNER),
        engaged=baseline is not None,
        foreign=_foreign(pair, state),
        problem=of_stuck(problem, kept),
        progress_at=max(*proven_times, *(p.placed_late_at for p in rising), taken_at(ended), 0.0),
        lost_since=lost_since(new),
        **unplaced._asdict(),
        freed_by=freed_by(_pods(pair), _removed(pair, back=back), waits=waits),
        **hindrance._asdict(),
        inert=absent is not None,
        leaving=len(leaving),
        leaving_since=min(leaving, default=0.0),
        next_proven_at=min((at + min_ready_s for at in since if at + min_ready_s > now), default=None),
        pods=Pods(tuple(old), tuple(new) if back or written else ()),
    )


def recorded_replicas(old: Object) -> int | None:
    """Return R as the rollout recorded it. Returns None if nothing is recorded, or somebody damaged it."""
    recorded = annotations_of(old).get(REPLICAS, "")
    return int(recorded) if recorded.isdecimal() else None


def is_made(deployment: Object) -> bool:
    """Whether a rollout made this Deployment from a pair's old one: its selector has a label with its own name."""
    labels: Object = deployment["spec"]["selector"].get("matchLabels", {})
    return bool(labels.get(MADE_LABEL) == deployment["metadata"]["name"])


def left_to_others(new: Object, baseline: Baseline) -> str:
    """Return that a rollback leaves a Deployment that somebody else created meanwhile; empty if it does not."""
    if not baseline.made or is_made(new):
        return ""
    number = counted(replicas_of(new), "replica")
    why = "somebody else created it during the rollout; delete it if nobody needs it"
    return f"Deployment {baseline.name} stays, with {number}: {why}"


def mark_of(pair: Pair) -> Mark:
    """Return the mark of this write."""
    return Mark(
        template=pair.template,
        token=_token(pair.counts),
        generation=pair.generation,
        uid=pair.old.deployment["metadata"]["uid"],
        new_uid=pair.new.deployment["metadata"]["uid"] if pair.new else "",
        old_template=fingerprint(pair.old.deployment["spec"]["template"]),
    )


def is_behind(pair: Pair, mark: Mark) -> bool:
    """Whether a pair was read before the rollout's latest write.

    If somebody deleted the new Deployment and created it again, its generations start again at 1.
    """
    if pair.new is None:
        return False
    is_another = bool(mark.new_uid) and pair.new.deployment["metadata"]["uid"] != mark.new_uid
    return not is_another and pair.generation < mark.generation


def _token(counts: Counts) -> str:
    return f"old={counts.old} new={counts.new}"


def _deployments(pair: Pair) -> list[Object]:
    return [pair.old.deployment, *([pair.new.deployment] if pair.new else [])]


def _pods(pair: Pair) -> list[Object]:
    return [*pair.old.pods, *(pair.new.pods if pair.new else [])]


def _removed(pair: Pair, *, back: bool) -> Sequence[Gone]:
    """Return the latest removed pods of the side that shrinks."""
    left = pair.new if back else pair.old
    return left.gone if left else ()


def _unmade(pair: Pair, *, back: bool) -> list[Problem | None]:
    """Return why no pod of the growing side can be created."""
    objects = pair.old if back else pair.new
    if objects is None:
        return []
    sets = [rs for rs in objects.replicasets if rs["spec"].get("replicas")]
    return [_paused(objects), *(read_set(rs, []).problem for rs in sets)]


def _missing(objects: Objects | None) -> list[Missing]:
    """Return the pods of one side that its controller cannot create."""
    if objects is None:
        return []
    return [each for rs in objects.replicasets for each in read_set(rs, objects.pods).missing]


def _paused(objects: Objects) -> Problem | None:
    """Return that a paused controller creates no pod of the present template: it only scales former ReplicaSets."""
    if not is_paused(objects.deployment) or _sets_of_present(objects):
        return None
    name = objects.deployment["metadata"]["name"]
    why = f"Deployment {name} is paused, so its controller creates no pod of its present template"
    return Problem(cause=Cause.CONFIGURATION, message=f"{why}; run `kubectl rollout resume deployment/{name}`")


def _sets_of_present(objects: Objects) -> set[str]:
    """Return the uids of the ReplicaSets that run a Deployment's present template."""
    present = fingerprint(objects.deployment["spec"]["template"])
    return {rs["metadata"]["uid"] for rs in objects.replicasets if fingerprint(rs["spec"]["template"]) == present}


def _ended(pair: Pair, *, back: bool) -> tuple[Ended, ...]:
    """Return the ended pods of the growing side."""
    objects = pair.old if back else pair.new
    return ended_of(objects, fingerprint(objects.deployment["spec"]["template"])) if objects else ()


def _replicas(objects: Objects | None) -> list[Replica]:
    if objects is None:
        return []
    sets = {rs["metadata"]["uid"]: rs for rs in objects.replicasets}
    owned = ((pod, sets.get(controller_uid(pod) or "")) for pod in objects.pods if is_active(pod))
    return [_read(pod, rs) for pod, rs in owned]


def _read(pod: Object, replicaset: Object | None) -> Replica:
    if replicaset is None:
        return read_replica(pod, "")
    own = containers_of(replicaset["spec"]["template"])
    return read_replica(pod, "", own)._replace(adopted=is_adopted(pod, replicaset))


def _side(
    objects: Objects | None, pods: list[Replica], requested: int, min_ready_s: float, restarts: int, now: float
) -> Side:
    total = max(requested, len(pods))  # stopping pods count until they are gone, or the other side would come too soon
    ready = sum(p.ready_since is not None for p in pods)
    active = [rs for rs in objects.replicasets if rs["spec"].get("replicas")] if objects else []
    present = _sets_of_present(objects) if objects else set()
    current = {p["metadata"]["name"] for p in objects.pods if controller_uid(p) in present} if objects else set()
    return Side(
        total=total,
        ready=ready,
        # While a Deployment is paused, pods of its former template can still run, and prove nothing about this one.
        proven=sum(p.proven(min_ready_s, restarts, now) for p in pods if p.name in current),
        # A ReplicaSet that must shrink removes its unready pods first; with several the order is unknown.
        spare=total - ready if len(active) <= 1 or not ready else 0,
    )


def _foreign(pair: Pair, state: State) -> Foreign | None:
    mark, old = state.mark, pair.old.deployment
    if late := rewound(old, pair.written, pair.template, state):
        return late
    template = fingerprint(old["spec"]["template"])
    if state.baseline.template and template not in {state.baseline.template, mark.old_template}:
        return Foreign(
            who=latest_of(writers_of(old, ("f:template",))), what="the old Deployment's pod template", template=template
        )
    baseline = pair.baseline
    own = fingerprint(json.loads(baseline.template)) if baseline and baseline.template else ""
    if pair.new is None:
        if baseline and not baseline.made and state.goal is Goal.FORWARD:
            return Foreign(who="somebody", what="the new Deployment: it was deleted")
        return None
    if pair.template not in {mark.template, state.wanted.template, own}:
        who = latest_of(writers_of(pair.new.deployment, ("f:template",)))
        return Foreign(who=who, what="the new Deployment's pod template", template=pair.template)
    return _foreign_counts(pair, mark)


def _foreign_counts(pair: Pair, mark: Mark) -> Foreign | None:
    if not mark.token or mark.token == _token(pair.counts):
        return None
    before = dict(part.split("=") for part in mark.token.split())
    sides = {"old": pair.old, "new": pair.new}
    for side, objects in sides.items():
        requested = str(getattr(pair.counts, side))
        if objects is None or requested == before[side]:
            continue
        writers = writers_of(objects.deployment, ("f:replicas",), scale=True)
        # Only ours: a write whose answer was lost. Nobody's: a scale to 0, whose writer the API server does not record.
        if {w["manager"] for w in writers} != {FIELD_MANAGER}:
            what = f"the {side} Deployment's replicas to {requested}"
            return Foreign(who=latest_of(writers), what=what, template=pair.template)
    return None
