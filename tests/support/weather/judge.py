"""The judge: floor, ceiling and end of a rollout, from what was observed of it. It shares no code with Segue."""

import collections
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

IN_FLIGHT_S = 10.0
"""A change of the replicas is known everywhere after so long: until then, what was decided before it still arrives."""
LATE_S = 2.0
"""The watch of the target may be so much later than that of the pods."""
PASSING, PASSING_S = 2, 1.0
"""Decision 6: so many pods may exceed the ceiling for so long, where a controller adds and removes at once."""
BACKLOG_S = 5.0
"""After an outage of a controller or the API server, any number of pods may pass for so long."""
OVERDUE_S = 10.0
"""They may for so long while the controller of a ReplicaSet has yet to remove pods that it no longer requests."""
CATCHES_UP_S = 45.0
"""A controller may learn of changes so long after an outage: each of its streams tries again at growing intervals."""
SPOILED_S = 40.0
_UNREADABLE = re.compile(r"Traceback|object at 0x|\bNone\b|<class|pydantic|KeyError|AttributeError|asyncio")


class Pod(NamedTuple):
    """One pod after an event."""

    version: str
    is_ready: bool
    """Whether it is Ready, and neither ended nor terminating."""
    is_live: bool
    """Whether it has neither ended nor begun to terminate."""
    is_drained: bool = False
    """Whether the rollout itself took it out of its Services, before it stops."""
    name: str = ""
    owner: str = ""
    """The uid of its controller."""


class Moment(NamedTuple):
    """All pods of the target after one event, by uid."""

    at: float
    """Monotonic seconds."""
    pods: Mapping[str, Pod]
    event: str = ""
    revision: int = 0
    """The API server's count of all writes, which orders the events of different kinds."""

    @property
    def ready(self) -> int:
        """Return the number of ready pods."""
        return sum(pod.is_ready for pod in self.pods.values())

    @property
    def versions(self) -> set[str]:
        """Return the versions of its pods."""
        return {pod.version for pod in self.pods.values()}

    @property
    def total(self) -> int:
        """Return the number of live pods."""
        return sum(pod.is_live for pod in self.pods.values())

    def __str__(self) -> str:
        counts: dict[str, list[int]] = {}
        for pod in self.pods.values():
            count = counts.setdefault(pod.version, [0, 0])
            count[0] += pod.is_live
            count[1] += pod.is_ready
        parts = ", ".join(f"{version}: {live} ({ready} ready)" for version, (live, ready) in sorted(counts.items()))
        return f"{self.at:.2f} {self.event}: {parts}"


class Lead(NamedTuple):
    """Which sides get users from a write on."""

    at: float
    """Monotonic seconds."""
    revision: int
    sides: frozenset[str]


class Size(NamedTuple):
    """The requested replicas from a time on."""

    at: float
    replicas: int


class Requested(NamedTuple):
    """How many pods each ReplicaSet of the target requests from a write on, by its uid."""

    revision: int
    replicas: Mapping[str, int]


@dataclass(frozen=True)
class Budget:
    """``maxSurge`` and ``maxUnavailable`` as written."""

    surge: int | str
    unavailable: int | str

    def floor(self, replicas: int) -> int:
        """Return the fewest ready replicas."""
        return replicas - self._resolved(replicas)[1]

    def ceiling(self, replicas: int) -> int:
        """Return the most replicas."""
        return replicas + self._resolved(replicas)[0]

    def passing(self, replicas: int) -> int:
        """Return how many pods one write may remove and add at once: without a surge, as many as may be unavailable."""
        surge, unavailable = self._resolved(replicas)
        return 0 if surge else unavailable

    def moved(self, replicas: int) -> int:
        """Return how many replicas one write may remove beyond the surge, which the controller replaces at once."""
        return self._resolved(replicas)[1]

    def _resolved(self, replicas: int) -> tuple[int, int]:
        surge = min(replicas, _resolve(self.surge, replicas, math.ceil))
        unavailable = min(replicas, _resolve(self.unavailable, replicas, math.floor))
        return (surge, unavailable) if surge or unavailable else (0, 1)


def _resolve(amount: int | str, replicas: int, rounded: Any) -> int:
    if isinstance(amount, int):
        return amount
    # As the API server does it: whole numbers only, so that no rounding error of a fraction counts.
    share = int(amount.rstrip("%")) * replicas
    return -(-share // 100) if rounded is math.ceil else share // 100


@dataclass
class Seen:
    """What was observed of one rollout."""

    moments: Sequence[Moment]
    sizes: Sequence[Size]
    budget: Budget
    requested: Sequence[Requested] = ()
    """In the order of their revisions; none for a target without ReplicaSets."""
    taken: Collection[str] = ()
    """The uids of the pods that a fault deleted."""
    spoiled: Collection[float] = ()
    """When somebody else changed the template while its controller was not paused: what follows is theirs."""
    catching_up: Collection[float] = ()
    """When an outage ended, if only its own controllers move it: the floor does not bind them while they catch up."""
    misleading: Collection[float] = ()
    """When somebody else changed what leads users."""
    passing: int = PASSING
    outages: Collection[tuple[float, float]] = ()
    """When servers of the cluster were away: controllers learn of a change of the replicas only afterwards."""
    unready_before: int = 0
    """How many replicas had lost their readiness before the rollout: it needs no more ready ones than before."""


def breaches(seen: Seen) -> list[str]:
    """Return each moment under the floor or over the ceiling, less what a fault took."""
    return [*_under(seen), *_over(seen)]


def unready_before(moments: Sequence[Moment], *, by_name: bool = False) -> int:
    """Return how many pods were not ready, and had been, at the time of the decision for the first new version.

    It is not known when exactly in the last ``LATE_S`` before that version's first pod: the most of that time count.
    With ``by_name``, a pod counts as the one that it replaced.
    """

    def key(uid: str, pod: Pod) -> str:
        return pod.name if by_name else uid

    first = next((moment.versions for moment in moments if moment.pods), set())
    before = [*itertools.takewhile(lambda moment: moment.versions <= first, moments)]
    known = {key(uid, pod) for moment in before for uid, pod in moment.pods.items() if pod.is_ready}
    earlier = [moment for moment in before if moment.at < before[-1].at - LATE_S]
    decided = before[max(0, len(earlier) - 1) :]
    return max(
        (sum(key(uid, pod) in known and pod.is_live and not pod.is_ready for uid, pod in moment.pods.items())
         for moment in decided), default=0,
    )  # fmt: skip


def successors(moments: Sequence[Moment], taken: Collection[str]) -> set[str]:
    """Return the uids of the pods that replaced the taken ones, by their names.

    The controller of a LeaderWorkerSet can remove a group's new leader again, if a worker of the lost group goes late.
    """
    latest: dict[str, str] = {}
    found = set[str]()
    for moment in moments:
        for uid, pod in moment.pods.items():
            former = latest.get(pod.name, uid)
            if former != uid and former in taken:
                found.add(uid)
            latest[pod.name] = uid
    return found


def _replicas(sizes: Sequence[Size], since: float, until: float) -> list[int]:
    """Return the requested replicas of a span of time."""
    before = [size.replicas for size in sizes if size.at <= since][-1:] or [sizes[0].replicas]
    return before + [size.replicas for size in sizes if since < size.at <= until]


def _known_since(seen: Seen, at: float) -> float:
    """Return since when controllers may not have learned of changes of the replicas: monotonic seconds."""
    return min((began for began, ended in seen.outages if began <= at <= ended + CATCHES_UP_S), default=at)


def _under(seen: Seen) -> Iterable[str]:
    required = lost = 0
    earlier: Moment | None = None
    ready_since: dict[str, float] = {}
    for moment in seen.moments:
        before = {} if earlier is None else earlier.pods
        lost += sum(
            _was_taken(uid, pod, moment, seen.taken) or _was_unready(uid, pod, moment, ready_since)
            for uid, pod in before.items()
        )
        gained = sum(pod.is_ready and not (uid in before and before[uid].is_ready) for uid, pod in moment.pods.items())
        ready_since = {uid: ready_since.get(uid, moment.at) for uid, pod in moment.pods.items() if pod.is_ready}
        lost = max(0, lost - gained)
        known_since = min(_known_since(seen, moment.at) - LATE_S, moment.at - IN_FLIGHT_S)
        sizes = _replicas(seen.sizes, known_since, moment.at + LATE_S)
        floor = max(0, min(map(seen.budget.floor, sizes)) - seen.unready_before)
        if any(at - LATE_S <= moment.at <= at + SPOILED_S for at in (*seen.spoiled, *seen.catching_up)):
            required = 0
        # Once that many were ready, and never more than the floor.
        required = max(min(required, floor), min(floor, moment.ready))
        if moment.ready < required - lost:
            yield f"{moment.ready} ready, under the floor of {required} less {lost} that a fault took: {moment}"
            required = moment.ready
        earlier = moment


def misled(seen: Seen, leads: Sequence[Lead], old: Collection[str]) -> Iterator[str]:
    """Yield each moment at which users were led to a side without a ready pod, unless a fault just took one of it.

    ``old`` has the versions of the old side.
    """
    events: list[Moment | Lead] = [*seen.moments, *leads]
    pods: Mapping[str, Pod] = {}
    led: Collection[str] = ()
    empty: set[str] = set()
    hit: dict[str, float] = {}
    for event in sorted(events, key=lambda event: event.revision):
        if isinstance(event, Lead):
            led = event.sides
        else:
            lost = {_side(pod, old) for uid, pod in pods.items() if _was_taken(uid, pod, event, seen.taken)}
            hit.update(dict.fromkeys(lost, event.at))
            pods = event.pods
        now_empty = set(led) - {_side(pod, old) for pod in pods.values() if pod.is_ready}
        others = [*seen.spoiled, *seen.misleading]
        spoiled = any(at - LATE_S <= event.at <= at + SPOILED_S for at in others)
        for side in sorted(now_empty - empty):
            if pods and not spoiled and event.at - hit.get(side, -math.inf) > IN_FLIGHT_S:
                yield f"users are led to the {side} side, which has no ready pod: {event}"
        empty = now_empty


def _side(pod: Pod, old: Collection[str]) -> str:
    return "old" if pod.version in old else "new"


def _was_unready(uid: str, pod: Pod, after: Moment, ready_since: Mapping[str, float]) -> bool:
    """Return whether a ready pod is removed that was not ready a moment ago: its removal was decided before."""
    now = after.pods.get(uid)
    is_removed = pod.is_ready and (now is None or not now.is_live)
    return is_removed and after.at < ready_since.get(uid, -math.inf) + LATE_S


def _was_taken(uid: str, pod: Pod, after: Moment, taken: Collection[str]) -> bool:
    """Return whether a ready pod was lost by a fault: deleted by one, or no longer ready without being deleted.

    A pod that the rollout drains was not lost by a fault: without it, the floor must hold too.
    """
    now = after.pods.get(uid)
    if not pod.is_ready or (now is not None and now.is_ready):
        return False
    return uid in taken or (now is not None and now.is_live and not now.is_drained)


def _over(seen: Seen) -> Iterable[str]:
    allowed = most = 0
    over_since: float | None = None
    for moment in seen.moments:
        known_since = _known_since(seen, moment.at) - LATE_S
        ceiling = max(map(seen.budget.ceiling, _replicas(seen.sizes, known_since, moment.at + LATE_S)))
        if any(at - LATE_S <= moment.at <= at + SPOILED_S for at in seen.spoiled):
            ceiling = max(ceiling, moment.total)
        # Fewer replicas were requested: what was there goes, and nothing comes.
        allowed = max(ceiling, min(allowed, most))
        over_since = (over_since or moment.at) if moment.total > allowed else None
        # A controller that was away works off its backlog in any order.
        was_away = known_since < moment.at - LATE_S
        overdue = _overdue(seen.requested, moment)
        is_late = moment.total - overdue <= allowed
        limit_s = OVERDUE_S if is_late else BACKLOG_S if was_away else PASSING_S
        is_passing = over_since is not None and moment.at - over_since < limit_s
        passing = math.inf if was_away else max(seen.passing, _passing(seen, moment.at, overdue if is_late else 0))
        if moment.total > allowed + (passing if is_passing else 0):
            yield f"{moment.total} pods, over the ceiling of {allowed}: {moment}"
        most = moment.total


def _overdue(requested: Sequence[Requested], moment: Moment) -> int:
    """Return how many live pods are no longer requested: the write that asks to remove them is known."""
    known = next((each.replicas for each in reversed(requested) if each.revision <= moment.revision), {})
    live = collections.Counter(pod.owner for pod in moment.pods.values() if pod.is_live)
    return sum(max(0, live[owner] - replicas) for owner, replicas in known.items())


def _passing(seen: Seen, at: float, overdue: int) -> int:
    """Return how many pods may pass: a move under way has its share of R, and grows with it if somebody changes R."""
    sizes = _replicas(seen.sizes, at - IN_FLIGHT_S, at + LATE_S)
    moved = [(max(seen.budget.passing(size), min(overdue, seen.budget.moved(size))), size) for size in sizes if size]
    return max((math.ceil(passing * max(sizes) / size) for passing, size in moved), default=0)


@dataclass
class End:
    """How a rollout ended, and what it left."""

    outcome: str | None
    """None while it has not ended."""
    allowed: Collection[str]
    status: str = ""
    images: Collection[str] = ()
    """The images of its live pods."""
    expected_image: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The images that may run, by outcome."""
    ready: int = 0
    replicas: int = 0
    differences: Collection[str] = ()
    """The settings that are not what they were."""
    leftovers: Collection[str] = ()
    """Holds, annotations, copies, jobs."""
    replay_error: str = ""
    events: int = 0
    writes: int = 0
    moves: int = 0
    disturbances: int = 0
    """Faults, messages and outages: each may cost some events and writes."""
    reasons: Collection[str] = ()
    hook: str = ""
    """How its gate's webhook answers; empty without a gate."""
    calls: int = 0
    """How many questions the webhook got about it."""
    alarms: Collection[str] = ()
    """Lines of the worker's log that must not be there."""


EVENTS_OF_ONE, EVENTS_AT_LEAST = 60, 300
WRITES_OF_ONE, WRITES_AT_LEAST = 6, 30


def faults_of(end: End) -> list[str]:
    """Return what is wrong with an end."""
    if end.outcome is None:
        return [f"does not end: {end.status}"]
    found = [f"{end.outcome} is not one of {', '.join(sorted(end.allowed))}: {end.status}"] * (
        end.outcome not in end.allowed
    )
    images = set(end.expected_image.get(end.outcome, end.images))
    if not set(end.images) <= images:
        found.append(f"{end.outcome} leaves pods of {sorted(end.images)}, not only {sorted(images)}")
    if end.ready != end.replicas:
        found.append(f"{end.outcome} leaves {end.ready} of {end.replicas} replicas ready")
    found += [f"{end.outcome} changes {each}" for each in end.differences]
    found += [f"leaves {each}" for each in end.leftovers]
    if end.outcome == "Completed" and end.hook and (end.hook != "passing" or not end.calls):
        found.append(f"Completed with a gate that answers {end.hook!r} and was called {end.calls} times")
    if end.replay_error:
        found.append(f"its history does not replay: {end.replay_error}")
    steps = end.moves + end.disturbances
    for what, count, least, each in (
        ("events", end.events, EVENTS_AT_LEAST, EVENTS_OF_ONE),
        ("writes", end.writes, WRITES_AT_LEAST, WRITES_OF_ONE),
    ):
        if count > least + each * steps:
            found.append(f"{count} {what} for {end.moves} moves and {end.disturbances} disturbances: a loop")
    found += [f"a reason that a person cannot read: {each!r}" for each in end.reasons if unreadable(each)]
    found += [f"the worker logs {each}" for each in end.alarms]
    return found


def unreadable(reason: str) -> bool:
    """Return whether a person cannot read a reason."""
    return not reason.strip() or _UNREADABLE.search(reason) is not None
