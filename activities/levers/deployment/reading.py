"""Reads a Deployment with its ReplicaSets and pods. Pure; see ``lever`` for the lever."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from activities.cluster import Object
from activities.ended_pods import Gone, read_ended, seconds_of
from activities.levers import ownership
from activities.levers.authors import Fields, foreign_fields, foreign_template
from activities.levers.controllers import idle
from activities.levers.ownership import (
    OWNER,
    annotations_of,
    has_baseline,
    replicas_of,
    revision_of,
    rewound,
    saved_baseline,
    written_of,
)
from activities.levers.pods import ANY_RESTARTS, freed_by, is_active, is_ready, read_replica, stop_requested_at, stuck
from activities.levers.template import containers_of, fingerprint, fingerprinting_once, version_of
from activities.watching import NamespaceWatch, controller_uid
from segue.ended_pods import judged, taken_at
from segue.failures import of_stuck, unmade
from segue.hindrance import hindrance_of, with_stuck
from segue.history import Revision
from segue.missing import Missing, denying_both, excused, unplaced_of, with_absent, with_full_quota, with_kept_away
from segue.observation import Counts, Foreign, Observation, Problem, Side
from segue.replica import Ended, Pods, Replica, lost_since
from segue.spec import Rules
from segue.state import Goal, Mark, State
from segue.units import counted, resolve

HOLD_MIN_READY_S = 2_147_483_646
REVISION = "deployment.kubernetes.io/revision"
_ORDINARY = ("strategy", "minReadySeconds", "progressDeadlineSeconds")


class Objects(NamedTuple):
    """A Deployment with its ReplicaSets and their pods."""

    deployment: Object
    replicasets: list[Object]
    pods: list[Object]
    gone: Sequence[Gone] = ()
    """The latest removed pods, if a watch observed the removal."""


class _Set(NamedTuple):
    """One ReplicaSet: its version, its requested replicas, and its pods."""

    version: str
    replicas: int
    pods: tuple[Replica, ...]
    unmade: str = ""
    """Why the controller cannot create pods: a quota, an admission webhook."""
    unmade_since: float = 0.0
    """Since when it cannot: seconds since the epoch."""
    created: str = ""
    available: int = 0
    """How many the controller counts as available. It removes others first, starting at the oldest ReplicaSet."""

    @property
    def problem(self) -> Problem | None:
        return unmade(self.unmade)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """The pods that the controller cannot create, if there are any."""
        number = self.replicas - len(self.pods)
        return (Missing(number, self.unmade, self.unmade_since),) if self.unmade and number > 0 else ()

    @property
    def ready(self) -> int:
        # A ReplicaSet that must shrink removes its unready pods first.
        return min(self.replicas, sum(p.ready_since is not None for p in self.pods))

    def proven(self, min_ready_s: float, max_restarts: int, now: float) -> int:
        return min(self.replicas, sum(p.proven(min_ready_s, max_restarts, now) for p in self.pods))


NOTICED_S = 2.0
"""A way back waits so long until its controllers have counted the pods that they just removed."""


def unnoticed(objects: Objects, *, grows: bool = False) -> str:
    """Return the ReplicaSet whose controller has not noticed a lost or unready pod yet; empty if it has noticed all.

    After an outage of the API server its picture can be old for many seconds. If it is to remove a pod then, it counts
    the lost one as there, or the unready one as ready, and may remove a ready one instead. With ``grows``, ReplicaSets
    may be scaled up again: then the pods that were just removed, or are still to be removed, count for them, too.
    """
    if grows and (pending := yet_to_remove(objects)):
        return pending
    there = pods_there(objects)
    ready = Counter(controller_uid(pod) for pod in objects.pods if is_active(pod) and is_ready(pod))
    for each in objects.replicasets:
        uid, status, wanted = each["metadata"]["uid"], each.get("status", {}), each["spec"].get("replicas", 0)
        for number, known, pods in (
            (there[uid], status.get("replicas", 0), "pods"),
            (ready[uid], status.get("readyReplicas", 0), "ready pods"),
        ):
            if number < (known if grows else min(wanted, known)):
                name = each["metadata"]["name"]
                return f"the controller of replicaset {name} still counts {known} {pods} instead of {number}"
    return ""


def pods_there(objects: Objects) -> Counter[str | None]:
    """Return how many pods each ReplicaSet has, by its uid, without those that have ended or are being removed."""
    return Counter(controller_uid(pod) for pod in objects.pods if is_active(pod))


def yet_to_remove(objects: Objects) -> str:
    """Return the ReplicaSet whose controller has not removed all pods that it is to remove; empty if all have."""
    there = pods_there(objects)
    for each in objects.replicasets:
        pods = there[each["metadata"]["uid"]] - each["spec"].get("replicas", 0)
        if pods > 0:
            return f"the controller of replicaset {each['metadata']['name']} has yet to remove {counted(pods, 'pod')}"
    return ""


def with_pods(watch: NamespaceWatch, deployment: Object, replicasets: list[Object]) -> Objects:
    """Return a Deployment with the pods of its ReplicaSets, including ended and removed ones."""
    owners = {rs["metadata"]["uid"] for rs in replicasets}
    return Objects(deployment, replicasets, watch.owned("pods", owners), watch.gone_owned(owners))


def ordinary(deployment: Object) -> Object:
    """Return a Deployment with its own settings, also while a rollout holds it."""
    if not is_engaged(deployment):
        return deployment
    own = {name: value for name, value in saved_baseline(deployment).items() if name in _ORDINARY}
    return {**deployment, "spec": {**deployment["spec"], **own}}


def revisions(objects: Objects) -> list[Revision]:
    """Return the versions that the controller keeps, the oldest first."""
    current = fingerprint(objects.deployment["spec"]["template"])
    versions = [(each, version_of(each["spec"]["template"])) for each in objects.replicasets]
    found = [
        revision_of(
            each, each, int(annotations_of(each).get(REVISION, "0")), version, each["spec"].get("replicas", 0),
            current=version.template == current,
        )
        for each, version in versions
    ]  # fmt: skip
    return sorted(found, key=lambda revision: revision.revision)


@fingerprinting_once()
def read(objects: Objects, rules: Rules, state: State, now: float) -> Observation:
    """Return the observation that the core decides on. Pure; ``now`` is in seconds since the epoch."""
    deployment = objects.deployment
    back = state.goal is Goal.BACK
    sets = [read_set(rs, objects.pods) for rs in objects.replicasets]
    pivot = state.baseline.template if back else state.wanted.template
    coming, others = [s for s in sets if s.version == pivot], [s for s in sets if s.version != pivot]
    old, new = (coming, others) if back else (others, coming)
    rising, falling = ([p for s in side for p in s.pods] for side in (coming, others))
    restarts = ANY_RESTARTS if back else rules.readiness.max_restarts
    min_ready_s = rules.readiness.min_ready.total_seconds()
    proven_times = [p.ready_since for p in rising if p.proven(min_ready_s, restarts, now) and p.ready_since]
    due = [p.ready_since + min_ready_s for p in rising if p.ready_since is not None]
    leaving = [at for pod in objects.pods if (at := stop_requested_at(pod)) is not None]
    ended = ended_of(objects, pivot)
    unplaced = unplaced_of((*falling, *rising), [m for s in sets for m in s.missing], rising)
    lacking = [m for s in coming for m in s.missing]
    deadline_s = rules.readiness.deadline.total_seconds()
    deniers = denying_both(lacking, (m for s in others for m in s.missing))
    hindrance = with_kept_away(hindrance_of(falling, rising), lacking, deadline_s, now, deniers=deniers)
    short = replicas_of(deployment) + unplaced.unplaced - sum(s.replicas for s in sets)
    hindrance = with_full_quota(hindrance, lacking, short, deadline_s, now)
    waits = unplaced_of(rising, lacking, ()).waits
    kept = stuck(objects.pods, deadline_s, now, waits=waits)
    hindrance, absent = with_absent(with_stuck(hindrance, kept), idle((deployment,), now, "Deployment"), len(rising))
    denied = [excused(s.problem, deniers) for s in coming]
    problem = judged(rising, ended, restarts, state.judged_from, absent, *denied, others=falling)
    old_side = _side(old, min_ready_s, ANY_RESTARTS, now, spare=_spare(old))
    new_side = _side(new, min_ready_s, rules.readiness.max_restarts, now)
    return Observation(
        replicas=replicas_of(deployment),
        old=old_side,
        new=new_side,
        requested=_requested_counts(objects, state, Counts(old_side.total, new_side.total)),
        own_unavailable=None if is_engaged(deployment) else own_unavailable(deployment),
        template=fingerprint(deployment["spec"]["template"]),
        generation=deployment["metadata"].get("generation", 0),
        owner=annotations_of(deployment).get(OWNER),
        # Somebody else can restore all other fields: on the way back a paused controller moves nothing either.
        engaged=is_engaged(deployment) or (back and is_paused(deployment)),
        emptied=is_engaged(deployment) and not objects.replicasets,
        unreturnable=is_engaged(deployment) and all(s.version != state.baseline.template for s in sets),
        unpaused=_is_unpaused(objects, state),
        foreign=_foreign(objects, state),
        problem=of_stuck(problem, kept),
        progress_at=max((*proven_times, *(p.placed_late_at for p in rising), taken_at(ended))),
        lost_since=lost_since(p for s in new for p in s.pods),
        **unplaced._asdict(),
        freed_by=_freed_by(objects, pivot, waits=waits),
        available_by=max(proven_times, default=0.0) + _waits_s(deployment) if back else 0.0,
        **hindrance._asdict(),
        inert=absent is not None,
        leaving=len(leaving),
        leaving_since=min(leaving, default=0.0),
        next_proven_at=min((at for at in due if at > now), default=None),
        pods=Pods(*(tuple(p for s in side for p in s.pods) for side in (old, new))),
    )


def own_unavailable(deployment: Object) -> int:
    """Return how many replicas the controller lets be unavailable by the Deployment's present strategy."""
    strategy, replicas = deployment["spec"].get("strategy", {}), replicas_of(deployment)
    if strategy.get("type") == "Recreate":
        return replicas
    budget = strategy.get("rollingUpdate", {})
    surge = resolve(budget.get("maxSurge", 0), replicas, round_up=True)
    unavailable = resolve(budget.get("maxUnavailable", 0), replicas, round_up=False)
    return unavailable if surge else max(unavailable, 1)


def _waits_s(deployment: Object) -> int:
    """Return how long a ready replica is not available for the controller, in seconds; 0 while a rollout holds it."""
    return 0 if is_engaged(deployment) else int(deployment["spec"].get("minReadySeconds", 0))


def read_set(replicaset: Object, pods: list[Object]) -> _Set:
    """Read one ReplicaSet, with the pods that it owns."""
    uid = replicaset["metadata"]["uid"]
    version = fingerprint(replicaset["spec"]["template"])
    named = containers_of(replicaset["spec"]["template"])
    own = tuple(
        read_replica(p, version, named)._replace(adopted=is_adopted(p, replicaset))
        for p in pods
        if controller_uid(p) == uid and is_active(p)
    )
    conditions = {c["type"]: c for c in replicaset.get("status", {}).get("conditions", []) if c["status"] == "True"}
    failure = conditions.get("ReplicaFailure", {})
    return _Set(
        version,
        replicaset["spec"].get("replicas", 0),
        own,
        failure.get("message", ""),
        seconds_of(failure.get("lastTransitionTime")),
        created=replicaset["metadata"].get("creationTimestamp", ""),
        available=replicaset.get("status", {}).get("availableReplicas", 0),
    )


def is_adopted(pod: Object, replicaset: Object) -> bool:
    """Whether its ReplicaSet did not make the pod: the controller names each pod after its ReplicaSet."""
    made_as: str = pod["metadata"].get("generateName", "").rstrip("-")
    return made_as != str(replicaset["metadata"]["name"]).rstrip("-")


def _of_version(objects: Objects, version: str) -> set[str]:
    return {rs["metadata"]["uid"] for rs in objects.replicasets if fingerprint(rs["spec"]["template"]) == version}


def _freed_by(objects: Objects, coming: str, *, waits: bool) -> float:
    owners = _of_version(objects, coming)
    removed = [each for each in objects.gone if controller_uid(each.pod) not in owners]
    return freed_by(objects.pods, removed, waits=waits)


def ended_of(objects: Objects, version: str) -> tuple[Ended, ...]:
    """Return the ended pods of one version."""
    owners = _of_version(objects, version)
    return read_ended(
        [pod for pod in objects.pods if controller_uid(pod) in owners],
        [each for each in objects.gone if controller_uid(each.pod) in owners],
    )


def _side(sets: list[_Set], min_ready_s: float, max_restarts: int, now: float, spare: int = 0) -> Side:
    return Side(
        total=sum(s.replicas for s in sets),
        ready=sum(s.ready for s in sets),
        proven=sum(s.proven(min_ready_s, max_restarts, now) for s in sets),
        spare=spare,
    )


def _spare(old: list[_Set]) -> int:
    """Count unready old replicas that the controller is sure to remove before any ready one.

    The controller cleans up from the oldest ReplicaSet on: first its unready pods, then its ready pods that are not
    available (those of a superseded version). Only the pods before the first such ready pod are sure.
    """
    spare = 0
    for each in sorted(old, key=lambda s: s.created):
        spare += each.replicas - each.ready
        if each.ready > each.available:
            break
    return spare


def _requested_counts(objects: Objects, state: State, counts: Counts) -> Counts:
    deployment = objects.deployment
    written = fingerprint(deployment["spec"]["template"]) == state.wanted.template
    if state.goal is Goal.BACK or not (is_engaged(deployment) and written):
        return Counts(counts.old, 0)
    # At rest, paused or resumed, the controller keeps the present sizes: the fields move nothing.
    return counts if is_paused(deployment) or _rests(deployment, objects.replicasets) else requested(deployment)


def requested(deployment: Object) -> Counts:
    """Return the counts that the lever's fields request."""
    replicas, (surge, unavailable) = replicas_of(deployment), _budget_fields(deployment)
    down = resolve(unavailable, replicas, round_up=False)
    return Counts(replicas - down, resolve(surge, replicas, round_up=True) + down)


def is_engaged(deployment: Object) -> bool:
    """Whether the lever is engaged: new pods never count as available."""
    return bool(deployment["spec"].get("minReadySeconds") == HOLD_MIN_READY_S)


def is_paused(deployment: Object) -> bool:
    """Whether the Deployment is paused: its controller then moves nothing, whoever changes the template."""
    return bool(deployment["spec"].get("paused"))


def can_be_paused(deployment: Object, replicasets: list[Object], ours: Collection[str]) -> bool:
    """Whether to pause an engaged Deployment now: its ReplicaSets have the requested sizes, or its template is foreign.

    A paused controller still scales all ReplicaSets in proportion, up to R + maxSurge together. If it were paused
    during a move, it would replace the replicas that the move removes, and remove ready ones of the other side.
    """
    if fingerprint(deployment["spec"]["template"]) not in ours:
        return True
    return _rests(deployment, replicasets)


def _rests(deployment: Object, replicasets: list[Object]) -> bool:
    """Whether the controller of an engaged Deployment has nothing to move, paused or not."""
    sizes, counts = _sizes(deployment, replicasets), requested(deployment)
    is_whole = sizes == (0, replicas_of(deployment)) and sum(sizes) < sum(counts)  # it adds no replica to these
    return sizes.old <= counts.old and (sum(sizes) == sum(counts) or is_whole)


def is_moving(deployment: Object, replicasets: list[Object]) -> bool:
    """Whether the controller of an engaged Deployment that is not paused is still making a move.

    It never makes more new replicas than R, whatever the fields allow, and removes none for being too many.
    """
    sizes, counts = _sizes(deployment, replicasets), requested(deployment)
    can_grow = sum(sizes) < sum(counts) and sizes.new < replicas_of(deployment)
    return sizes.old > counts.old or can_grow


def _sizes(deployment: Object, replicasets: list[Object]) -> Counts:
    """Return the sizes of the ReplicaSets of other templates, together, and of the present one."""
    template, sizes = fingerprint(deployment["spec"]["template"]), {True: 0, False: 0}
    for replicaset in replicasets:
        sizes[fingerprint(replicaset["spec"]["template"]) == template] += replicaset["spec"].get("replicas", 0)
    return Counts(sizes[False], sizes[True])


def _is_unpaused(objects: Objects, state: State) -> bool:
    deployment, sets = objects.deployment, objects.replicasets
    at_work = is_engaged(deployment) and not is_paused(deployment) and replicas_of(deployment) > 0
    # After a retarget, the template is still that of the latest write, and the controller may not have made that move.
    return at_work and can_be_paused(deployment, sets, {state.wanted.template, state.mark.template})


def _budget_fields(deployment: Object) -> tuple[int | str, int | str]:
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
    return rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 0)


_LEVER_FIELDS: Fields = {
    "minReadySeconds": ("f:minReadySeconds",),
    "maxSurge": ("f:strategy", "f:rollingUpdate", "f:maxSurge"),
    "maxUnavailable": ("f:strategy", "f:rollingUpdate", "f:maxUnavailable"),
    "type": ("f:strategy", "f:type"),
    "paused": ("f:paused",),
}


def lever_token(deployment: Object) -> str:
    """Return the fields that hold the Deployment, in a form that can be compared."""
    spec = deployment["spec"]
    surge, unavailable = _budget_fields(deployment)
    return (
        f"minReadySeconds={spec.get('minReadySeconds', 0)} maxSurge={surge} maxUnavailable={unavailable} "
        f"type={spec.get('strategy', {}).get('type')} paused={bool(spec.get('paused'))}"
    )


def with_paused(mark: Mark, *, paused: bool) -> Mark:
    """Return the mark with the field ``paused`` set."""
    return mark.model_copy(update={"token": mark.token.replace(f"paused={not paused}", f"paused={paused}")})


def mark_after_pause(mark: Mark, generation: int) -> Mark:
    """Return the mark after the controller was paused, which stored the target as this generation.

    If another write came between the mark and the pause, the mark keeps its generation: that write may be our own move
    whose answer was lost, and at the new generation its counts would look like a change by an admission policy.
    """
    paused = with_paused(mark, paused=True)
    return paused.model_copy(update={"generation": generation}) if generation <= mark.generation + 1 else paused


def mark_of(deployment: Object) -> Mark:
    """Return the mark of this write."""
    return ownership.mark_of(deployment, fingerprint(deployment["spec"]["template"]), lever_token(deployment))


def _foreign(objects: Objects, state: State) -> Foreign | None:
    deployment, template = objects.deployment, objects.deployment["spec"]["template"]
    known = [rs["spec"]["template"] for rs in objects.replicasets]
    if not is_paused(deployment):  # the rollout does not hold when somebody resumes it: it is paused again
        state = state.but(mark=with_paused(state.mark, paused=False))
    now, own = lever_token(deployment), _own_token(deployment, state)
    return (
        rewound(deployment, written_of(deployment), fingerprint(template), state)
        or foreign_template(deployment, template, known, "f:template", state)
        or foreign_fields(deployment, fingerprint(template), now, _LEVER_FIELDS, state, own=own)
    )


def _own_token(deployment: Object, state: State) -> str:
    """Return the fields as they were before the rollout, as ``lever_token`` does; empty except on the way back."""
    if state.goal is not Goal.BACK or not has_baseline(deployment):
        return ""
    saved = saved_baseline(deployment)
    return lever_token({"spec": {name: saved.get(name) for name in ("strategy", "minReadySeconds", "paused")}})
