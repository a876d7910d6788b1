"""Reads a target whose replicas have numbers, and which a partition holds. Pure; see ``partition`` for the lever.

The controller moves replicas from the partition on to the newest version, the highest number first; those below keep
their version. A replica is replaced under its own number, so old and new replicas always add up to R.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from activities.cluster import Object
from activities.ended_pods import Gone, has_ended, read_ended
from activities.levers.controllers import idle
from activities.levers.ownership import BASELINE, OWNER, annotations_of, replicas_of, saved_baseline
from activities.levers.pods import (
    ANY_RESTARTS,
    freed_by,
    is_ready,
    made_at,
    overdue,
    read_replica,
    stop_requested_at,
    stuck,
)
from activities.levers.template import at_revision, fingerprint, fingerprinting_once
from segue.as_before import as_before
from segue.budget import resolve_budget
from segue.ended_pods import judged, taken_at
from segue.failures import diagnose, worst
from segue.hindrance import Hindrance, hindrance_of, with_stuck
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version
from segue.replica import Ended, Pods, Replica, lost_since
from segue.spec import Change, Rules
from segue.state import Goal, State

HOLD = 1_000_000
"""A partition far above any number of replicas: with a partition of R, added replicas would come up new."""


class Taken(NamedTuple):
    """A pod that has the name of a missing one."""

    number: int
    """The replica of the missing one."""
    is_left: bool = False
    """Whether it is what is left of the former replica, and not somebody else's."""


class Numbered(NamedTuple):
    """A target as it is now, with what runs under each number."""

    found: Object
    template: Object
    partition: int
    running: Mapping[int, Replica]
    """By number from 0, without those that are stopping or not created yet."""
    awaited: Mapping[int, Object]
    """By number, the pod whose readiness the controller waits for."""
    pods: list[Object]
    """All pods, including those that are stopping."""
    trusted: int
    """How many stopping ones its controller still counts as ready."""
    heeded: bool
    """Whether its controllers have observed the present spec, so that none acts on an earlier one."""
    revisions: list[Object]
    """The revisions that the target's controller keeps."""
    templates: Mapping[str, Object]
    """Their templates, by the revision's name."""
    token: str
    """The fields that hold it, in a form that can be compared."""
    ended: Mapping[str, tuple[Ended, ...]] = MappingProxyType({})
    """By version: its pods that ended, including removed ones."""
    removed: Mapping[str, float] = MappingProxyType({})
    """By version: when its latest pod was removed, in seconds since the epoch, if a watch observed it."""
    controlled: tuple[Object, ...] = ()
    """The objects beside the target whose controllers move its replicas."""
    in_order: bool = False
    """Whether its controller replaces no replica while another one is not ready."""
    at_most: int | None = None
    """While so many are not ready, on either side, its controller replaces none. None if it does not count them."""
    below: str = ""
    """The version in which its controller creates replicas below the partition; empty if that is not known."""
    rolls: bool = True
    """Whether its controller replaces replicas at all, and not only those that somebody deletes."""
    taken: Mapping[str, Taken] = MappingProxyType({})
    """By name, the pods that keep missing ones from being created."""

    @property
    def version(self) -> str:
        """The fingerprint of the pod template."""
        return fingerprint(self.template)

    @property
    def engaged(self) -> bool:
        """Whether a rollout holds the target: it has begun, and its rollback is not written."""
        if BASELINE not in annotations_of(self.found):
            return False
        return self.partition > 0 or self.version != fingerprint(saved_baseline(self.found)["template"])

    @property
    def newest(self) -> Object | None:
        """The newest revision: that of the template, once its controller has observed it."""
        return max(self.revisions, key=lambda each: int(each["revision"]), default=None)

    def revision(self, version: str) -> Object | None:
        """Return the revision of a version. Returns None if it does not exist yet."""
        names = {fingerprint(template): name for name, template in self.templates.items()}
        return next((r for r in self.revisions if r["metadata"]["name"] == names.get(version)), None)

    def replicas(self, state: State) -> list[Replica]:
        """Return the replica of each number; for a missing one, what its controller will create."""
        versions = (self.version, state.baseline.template)
        numbers = range(replicas_of(self.found))
        return [self.running.get(i) or Replica("", versions[i < self.partition]) for i in numbers]

    def going(self, baseline: str) -> set[int]:
        """Return the old numbers that its controller may replace, and has not replaced yet."""
        if self.version == baseline:
            return set()
        return {i for i, each in self.running.items() if i >= self.partition and each.version != self.version}

    def broken(self, versions: set[str], since: int = 0) -> list[Object]:
        """Return the awaited pods from a number on that are unready, and not of these versions."""
        numbers = [i for i, each in self.running.items() if i >= since and each.version not in versions]
        return [self.awaited[i] for i in numbers if not is_ready(self.awaited[i])]


def name_taken(numbered: Numbered) -> str:
    """Return which pod keeps the target's controller from making any move; empty if none does.

    It has the name of a missing replica. A StatefulSet's controller fails to create that one first at each try.
    """
    found = sorted((kept.number, name) for name, kept in numbered.taken.items() if kept.number not in numbered.running)
    return _told_taken(numbered, found[0][1]) if found else ""


def _told_taken(numbered: Numbered, name: str) -> str:
    if numbered.taken[name].is_left:
        leader = name.rpartition("-")[0]
        return (
            f"pod {name} of the former leader still exists, and no other pod can have its name: delete it; if it comes "
            f"back, delete StatefulSet {leader} and then pod {leader}"
        )
    return (
        f"pod {name} exists and is not the target's (somebody changed its labels, or created it), and no other pod can "
        "have its name: delete it, or restore its labels"
    )


def _worker_taken(numbered: Numbered, coming: Iterable[Replica]) -> Hindrance:
    """Return the pods that have the name of a missing worker as what blocks their groups."""
    there = numbered.running
    kept = {there[each.number].name: name for name, each in numbered.taken.items() if each.number in there}
    if not kept:
        return Hindrance()
    return Hindrance(sum(each.name in kept for each in coming), _told_taken(numbered, kept[min(kept)]))


def _explained(problem: Problem | None, why: str) -> Problem | None:
    """Return the problem, with why pods cannot be created: that a replica is not ready says less."""
    vague = problem is None or (not problem.hopeless and problem.cause in {Cause.UNREADY, Cause.DEADLINE})
    if not why or not vague:
        return problem
    also = f"; {problem}" if problem is not None and problem.cause is Cause.UNREADY else ""
    return Problem(cause=Cause.DEADLINE, message=f"{why}{also}")


def comes_back_older(numbered: Numbered, baseline: str) -> bool:
    """Whether a replica below the partition that is lost would come back in a version older than the baseline.

    A StatefulSet's controller takes another version for current only when all replicas run it and are ready, and with
    ``OnDelete`` never.
    """
    return numbered.below not in {"", baseline}


def comes_back_as(numbered: Numbered, version_of: Callable[[Object], Version]) -> str:
    """Return a warning if lost replicas come back in a version older than the one that runs; empty otherwise."""
    unready = sum(each.ready_since is None for each in numbered.running.values())
    if not unready or not comes_back_older(numbered, numbered.version):
        return ""
    kept = numbered.revision(numbered.below)
    older = version_of(numbered.templates[kept["metadata"]["name"]]) if kept is not None else "an older version"
    return (
        f"its controller has not ended the rollout before this one, because {unready} of "
        f"{len(numbered.running)} replicas are not ready: a replica that is lost before its turn comes back as "
        f"{older}, and stays so until its turn"
    )


def _out_of_order(numbered: Numbered, state: State) -> Problem | None:
    """Return the problem of an old replica that keeps its controller from replacing the next one."""
    going = numbered.going(state.baseline.template)
    absent = replicas_of(numbered.found) - len(numbered.running)
    if state.goal is Goal.BACK or not (going or absent > 0):
        return None
    unready = {i for i, each in numbered.running.items() if each.ready_since is None and i not in going}
    stay = sorted(i for i in unready if numbered.running[i].version != numbered.version)
    if not stay:
        return None
    if numbered.in_order:
        why = "with podManagementPolicy OrderedReady its controller makes no other replica before that"
    elif numbered.at_most is not None and len(stay) >= numbered.at_most and len(stay) == len(unready) + absent:
        why = f"its controller replaces no other replica before that (maxUnavailable {numbered.at_most})"
    else:
        return None
    fix = "mend or delete it; if its version is the reason, change the StatefulSet without Segue, then delete this pod"
    message = f"is not ready, and {why}; {fix}"
    return Problem(cause=Cause.DEADLINE, message=message, replica=numbered.running[stay[0]].name)


def may_go_back(numbered: Numbered, rules: Rules, baseline: str) -> bool:
    """Whether the controller can roll back without going under the floor.

    Replicas that the partition releases and that are not replaced yet can stop at any moment, so they do not count.
    Neither do those beyond R, which the controller removes first. The controller replaces the first ready replica
    whatever else is not ready. Until then everything is held, and broken replicas come back as the baseline.
    """
    if numbered.partition >= HOLD and not numbered.heeded:
        return False
    ready = {i: r for i, r in numbered.running.items() if r.ready_since is not None}
    going = numbered.going(baseline) & ready.keys()
    if not going and all(r.version == baseline for r in ready.values()):
        return True
    replicas = replicas_of(numbered.found)
    staying = [r for i, r in ready.items() if i < replicas and i not in going]
    floor = resolve_budget(rules.strategy, max(replicas, 1)).floor
    if sum(r.version == baseline for r in staying) >= floor:
        return True
    return not numbered.trusted and (len(staying) > floor or len(staying) == replicas)


def shrinks_under(numbered: Numbered, rules: Rules, replicas: int) -> str:
    """Return why R must not drop to ``replicas`` now; empty if it may.

    The highest numbers stop, ready or not: if the lower ones are being replaced, too few would be ready.
    """
    present = replicas_of(numbered.found)
    ready = [i for i, each in numbered.running.items() if each.ready_since is not None and i < present]
    staying = sum(i < replicas for i in ready)
    floor = resolve_budget(rules.strategy, max(replicas, 1)).floor
    if staying == len(ready) or staying >= floor:
        return ""
    return f"{replicas} replicas would leave {staying} ready, under the floor of {floor}: the highest numbers stop"


@fingerprinting_once()
def read(
    numbered: Numbered,
    rules: Rules,
    state: State,
    foreign: Foreign | None,
    now: float,
    *,
    autonomous: bool = False,
    own_unavailable: int | None = None,
) -> Observation:
    """Return the observation that the core decides on. Pure; ``now`` is in seconds since the epoch."""
    back, found = state.goal is Goal.BACK, numbered.found
    replicas = numbered.replicas(state)
    pivot = state.baseline.template if back else state.wanted.template
    coming, others = [r for r in replicas if r.version == pivot], [r for r in replicas if r.version != pivot]
    old, new = (coming, others) if back else (others, coming)
    # A controller that moves by itself adds its surge above R, and does not continue while that fails.
    surge = [r for i, r in numbered.running.items() if i >= len(replicas) and r.version == pivot]
    beside = surge if autonomous and not back else []
    restarts = ANY_RESTARTS if back else rules.readiness.max_restarts
    min_ready_s = rules.readiness.min_ready.total_seconds()
    since = [r.ready_since for r in coming if r.ready_since is not None]
    proven = [r.ready_since for r in coming if r.proven(min_ready_s, restarts, now) and r.ready_since]
    leaving = [at for pod in numbered.pods if (at := stop_requested_at(pod)) is not None]
    # Broken replicas of a bad version can block its controller: the lever still holds.
    broken = back and bool(numbered.broken({pivot}))
    # The baseline as admission stored it counts as the baseline, though the saved one differs.
    is_undone = back and numbered.partition == 0 and numbered.version == pivot
    relaxed = as_before(rules, state, len(replicas))
    absent, worker = idle((found, *numbered.controlled), now) or name_taken(numbered), _worker_taken(numbered, coming)
    hindrance = hindrance_of(others, coming)
    if absent or not hindrance.hindrance:
        hindrance = Hindrance(max(1, len(coming)), absent) if absent else worker
    # No other pod gets its name before it is gone.
    kept = stuck(numbered.pods, rules.readiness.deadline.total_seconds(), now, waits=True)
    hindrance = with_stuck(hindrance, kept, sum(not each.name for each in coming))
    rising, ended = [r for r in (*coming, *beside) if r.name], numbered.ended.get(pivot, ())
    can_return = numbered.partition < HOLD or may_go_back(numbered, relaxed, state.baseline.template)
    problem = judged(rising, ended, restarts, state.judged_from, others=others)
    problems = (problem, overdue(numbered.pods, now), _out_of_order(numbered, state))
    return Observation(
        replicas=len(replicas),
        old=_side(old, min_ready_s, ANY_RESTARTS, now, spare=_spare(old)),
        new=_side(new, min_ready_s, rules.readiness.max_restarts, now),
        requested=_requested_counts(numbered, replicas, state),
        template=numbered.version,
        generation=found["metadata"].get("generation", 0),
        owner=annotations_of(found).get(OWNER),
        engaged=(numbered.engaged and not is_undone) or broken,
        pinned=not broken and not can_return,
        autonomous=autonomous,
        own_unavailable=own_unavailable if autonomous and not back and numbered.engaged else None,
        numbered=True,
        unshrinkable=shrinks_under(numbered, relaxed, len(replicas) if state.resize is None else state.resize),
        foreign=foreign,
        problem=_explained(worst(problems), absent or worker.hindrance),
        progress_at=max((*proven, *(r.placed_late_at for r in coming), taken_at(ended)), default=0.0),
        # A replica is replaced under its own number: the new one is created when the old one has ended.
        freed_by=max(
            freed_by(numbered.pods, (), waits=bool(leaving)),
            0.0,
            *(at for version, at in numbered.removed.items() if version != pivot),
        ),
        available_by=max(proven, default=0.0) + found["spec"].get("minReadySeconds", 0),
        **hindrance._asdict(),
        lost_since=lost_since(new),
        leaving=len(leaving),
        leaving_since=min(leaving, default=0.0),
        next_proven_at=min((at + min_ready_s for at in since if at + min_ready_s > now), default=None),
        pods=Pods(*(tuple(r for r in side if r.name) for side in (old, new, beside))),
    )


def _side(replicas: list[Replica], min_ready_s: float, max_restarts: int, now: float, spare: int = 0) -> Side:
    return Side(
        total=len(replicas),
        ready=sum(r.ready_since is not None for r in replicas),
        proven=sum(r.proven(min_ready_s, max_restarts, now) for r in replicas),
        spare=spare,
    )


def _spare(old: list[Replica]) -> int:
    """Count the unready old replicas that stop before any ready one. The highest numbers stop first, ready or not."""
    ready = [i for i, r in enumerate(reversed(old)) if r.ready_since is not None]
    return ready[0] if ready else len(old)


def _requested_counts(numbered: Numbered, replicas: list[Replica], state: State) -> Counts:
    old = _old_numbers(replicas, state)
    if state.goal is Goal.BACK or not (numbered.engaged and numbered.version == state.wanted.template):
        return Counts(len(old), 0)
    kept = sum(i < numbered.partition for i in old)
    return Counts(kept, len(replicas) - kept)


def _old_numbers(replicas: list[Replica], state: State) -> list[int]:
    pivot, back = (state.baseline, True) if state.goal is Goal.BACK else (state.wanted, False)
    return [i for i, r in enumerate(replicas) if (r.version == pivot.template) is back]


def partition_for(numbered: Numbered, state: State, old: int) -> int:
    """Return the partition that keeps ``old`` old replicas."""
    numbers = _old_numbers(numbered.replicas(state), state)
    return numbers[old] if old < len(numbers) else HOLD


def partition_at(numbered: Numbered, state: State, replicas: int) -> int:
    """Return the partition for another R: what is not replaced yet stays until the next decision.

    Added replicas come up old. A smaller R can remove the unready replica that the controller waits for. Then it would
    replace a ready one, however many of the lower numbers are not ready.
    """
    present = replicas_of(numbered.found)
    if replicas > present:
        return HOLD if numbered.engaged and state.goal is Goal.FORWARD else numbered.partition
    kept = range(numbered.partition, replicas)
    waiting = [i for i, each in numbered.running.items() if i in kept and each.version != numbered.version]
    if not waiting or not state.claimed:
        return numbered.partition
    return max(waiting) + 1 if max(waiting) + 1 < replicas else HOLD


def ended_by_version(
    pods: Iterable[Object], gone: Iterable[Gone], version_of: Callable[[Object], str], *, recreates: bool = False
) -> dict[str, tuple[Ended, ...]]:
    """Return the ended pods by version, of the present and the removed ones.

    ``recreates``: the controller deletes a group when a container of it restarts, so the restart shows nowhere else.
    """
    ended: dict[str, tuple[Ended, ...]] = {}
    there, removed = list(pods), list(gone)
    for version in {version_of(pod) for pod in (*there, *(each.pod for each in removed))}:
        mine = [pod for pod in there if version_of(pod) == version]
        former = [each for each in removed if version_of(each.pod) == version]
        leaving = [pod for pod in mine if "deletionTimestamp" in pod["metadata"]]
        restarted = _restarted((*leaving, *(each.pod for each in former))) if recreates else ()
        ended[version] = (*read_ended(mine, former), *restarted)
    return ended


def removed_by_version(gone: Iterable[Gone], version_of: Callable[[Object], str]) -> dict[str, float]:
    """Return by version when its latest pod was removed: seconds since the epoch."""
    found: dict[str, float] = {}
    for each in gone:
        version = version_of(each.pod)
        found[version] = max(each.at, found.get(version, 0.0))
    return found


def _restarted(deleted: Iterable[Object]) -> Iterator[Ended]:
    """Yield the deleted pods whose containers had restarted, as ended."""
    for pod in deleted:
        replica = read_replica(pod, "")
        problem = diagnose(replica, 0) if any(c.own_restarts and not c.has_passed for c in replica.containers) else None
        if problem is not None and not has_ended(pod):
            yield Ended(replica.name, "RecreateGroup", problem.message, made_at=made_at(pod))


def start_of(numbered: Numbered, change: Change | None, start: Object) -> Object:
    """Return the template that a change is applied to: ``start``, unless the change names a revision.

    Raises:
        Refused: for a revision that the target's controller does not keep.
    """
    if change is None or change.revision is None:
        return start
    named = {str(each["revision"]): numbered.templates[each["metadata"]["name"]] for each in numbered.revisions}
    return at_revision(change, named)
