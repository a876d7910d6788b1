"""Reads a target whose replicas have numbers, and which a partition holds. Pure; see ``partition`` for the lever.

Replicas from the partition on are brought to the newest version, the highest number first; those below stay what they
are. A replica is replaced under its own number, so old and new ones are always as many as there are replicas.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from activities.cluster import Object
from activities.ended_pods import Gone, read_ended
from activities.levers.ownership import BASELINE, OWNER, annotations_of, replicas_of, saved_baseline
from activities.levers.pods import freed_by, is_ready, told_to_stop_at
from activities.levers.template import fingerprint
from segue.as_before import as_before
from segue.budget import resolve_budget
from segue.ended_pods import judged
from segue.errors import Refused
from segue.hindrance import hindrance_of
from segue.observation import Counts, Foreign, Observation, Side
from segue.replica import Ended, Pods, Replica, lost_since
from segue.spec import Change, Rules
from segue.state import Goal, State

HOLD = 1_000_000
"""A partition far above any number of replicas: one of as many as there are would let added replicas come up new."""
_ANY_RESTARTS = 1_000_000


class Numbered(NamedTuple):
    """A target as it is now, with what runs under each number."""

    found: Object
    template: Object
    partition: int
    running: Mapping[int, Replica]
    """By number from 0; not those that are on their way out or in."""
    awaited: Mapping[int, Object]
    """Of each, the pod whose readiness the controller waits for."""
    pods: list[Object]
    """All of them, also those that are told to stop."""
    trusted: int
    """How many on their way out its controller still takes for ready."""
    heeded: bool
    """Whether its controllers have seen what it is told: none goes any more by what it was told before."""
    revisions: list[Object]
    """The versions that the target's controller keeps."""
    templates: Mapping[str, Object]
    """Their templates, by the revision's name."""
    hold: str
    """What it is held by, in a form that can be compared."""
    ended: Mapping[str, tuple[Ended, ...]] = MappingProxyType({})
    """By version: its pods that ended, also those that are gone."""

    @property
    def version(self) -> str:
        """The fingerprint of the pod template."""
        return fingerprint(self.template)

    @property
    def engaged(self) -> bool:
        """Whether a rollout holds the target: it has begun, and the way back is not written."""
        if BASELINE not in annotations_of(self.found):
            return False
        return self.partition > 0 or self.version != fingerprint(saved_baseline(self.found)["template"])

    @property
    def newest(self) -> Object | None:
        """The newest revision: that of the template, once its controller has taken it up."""
        return max(self.revisions, key=lambda each: int(each["revision"]), default=None)

    def revision(self, version: str) -> Object | None:
        """Return the revision of a version; none where there is none yet."""
        names = {fingerprint(template): name for name, template in self.templates.items()}
        return next((r for r in self.revisions if r["metadata"]["name"] == names.get(version)), None)

    def replicas(self, state: State) -> list[Replica]:
        """Return what each number runs; where nothing does, what its controller will make there."""
        told = (self.version, state.baseline.template)
        numbers = range(replicas_of(self.found))
        return [self.running.get(i) or Replica("", told[i < self.partition]) for i in numbers]

    def going(self, baseline: str) -> set[int]:
        """Return the numbers that its controller was let take on the way forward, and has not taken yet."""
        if self.version == baseline:
            return set()
        return {i for i, each in self.running.items() if i >= self.partition and each.version != self.version}

    def broken(self, versions: set[str], since: int = 0) -> list[Object]:
        """Return the pods that are waited for, not of these versions and not ready, from a number on."""
        numbers = [i for i, each in self.running.items() if i >= since and each.version not in versions]
        return [self.awaited[i] for i in numbers if not is_ready(self.awaited[i])]


def is_observed(found: Object) -> bool:
    """Whether an object's controller has seen what it is told."""
    seen: int = found.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= found["metadata"].get("generation", 0))


def may_go_back(numbered: Numbered, rules: Rules, baseline: str) -> bool:
    """Whether its controller can be let go back without going under the floor.

    What is released forward and not replaced yet can go at any moment, so it does not count; nor does what is there
    beside the replicas, which its controller takes first. Alone it takes the first ready one whatever else is not
    ready. Until then everything is held, and what is broken comes back as the baseline.
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


def read(
    numbered: Numbered, rules: Rules, state: State, foreign: Foreign | None, now: float, *, autonomous: bool = False
) -> Observation:
    """Turn what is there into what the core decides on. Pure; ``now`` is in seconds since the epoch."""
    back, found = state.goal is Goal.BACK, numbered.found
    replicas = numbered.replicas(state)
    pivot = state.baseline.template if back else state.wanted.template
    coming, others = [r for r in replicas if r.version == pivot], [r for r in replicas if r.version != pivot]
    old, new = (coming, others) if back else (others, coming)
    # A controller that moves by itself adds its surge beside the numbers, and goes no further while that fails.
    surge = [r for i, r in numbered.running.items() if i >= len(replicas) and r.version == pivot]
    beside = surge if autonomous and not back else []
    restarts = _ANY_RESTARTS if back else rules.readiness.max_restarts
    min_ready_s = rules.readiness.min_ready.total_seconds()
    since = [r.ready_since for r in coming if r.ready_since is not None]
    proven = [r.ready_since for r in coming if r.proven(min_ready_s, restarts, now) and r.ready_since]
    leaving = [at for pod in numbered.pods if (at := told_to_stop_at(pod)) is not None]
    # What is broken of a bad version can keep its controller from going on: the lever has not let go yet.
    broken = back and bool(numbered.broken({pivot}))
    # What the API server made of the baseline is the baseline, though the saved one differs.
    is_undone = back and numbered.partition == 0 and numbered.version == pivot
    relaxed = as_before(rules, state, len(replicas))
    pinned = back and not broken and numbered.partition >= HOLD and not may_go_back(numbered, relaxed, pivot)
    return Observation(
        replicas=len(replicas),
        old=_side(old, min_ready_s, _ANY_RESTARTS, now, spare=_spare(old)),
        new=_side(new, min_ready_s, rules.readiness.max_restarts, now),
        asked=_asked(numbered, replicas, state),
        template=numbered.version,
        generation=found["metadata"].get("generation", 0),
        owner=annotations_of(found).get(OWNER),
        held=(numbered.engaged and not is_undone) or broken,
        pinned=pinned,
        autonomous=autonomous,
        numbered=True,
        foreign=foreign,
        problem=judged(
            [r for r in (*coming, *beside) if r.name], numbered.ended.get(pivot, ()), restarts, state.began_at
        ),
        progress_at=max((*proven, *(r.placed_late_at for r in coming)), default=0.0),
        # A replica is replaced under its own number: the new one is made when the old one has ended.
        freed_by=freed_by(numbered.pods, (), waits=bool(leaving)),
        **hindrance_of(others, coming)._asdict(),
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
    """Count the unready old replicas that go before any ready one: the highest numbers go first, ready or not."""
    ready = [i for i, r in enumerate(reversed(old)) if r.ready_since is not None]
    return ready[0] if ready else len(old)


def _asked(numbered: Numbered, replicas: list[Replica], state: State) -> Counts:
    old = _old_numbers(replicas, state)
    if state.goal is Goal.BACK or not (numbered.engaged and numbered.version == state.wanted.template):
        return Counts(len(old), 0)
    kept = sum(i < numbered.partition for i in old)
    return Counts(kept, len(replicas) - kept)


def _old_numbers(replicas: list[Replica], state: State) -> list[int]:
    pivot, back = (state.baseline, True) if state.goal is Goal.BACK else (state.wanted, False)
    return [i for i, r in enumerate(replicas) if (r.version == pivot.template) is back]


def partition_for(numbered: Numbered, state: State, old: int) -> int:
    """Return the partition that keeps so many of the old replicas."""
    numbers = _old_numbers(numbered.replicas(state), state)
    return numbers[old] if old < len(numbers) else HOLD


def ended_by_version(
    pods: Iterable[Object], gone: Iterable[Gone], version_of: Callable[[Object], str]
) -> dict[str, tuple[Ended, ...]]:
    """Return the pods that ended, of all that are there and that were removed."""
    there, removed = list(pods), list(gone)
    versions = {version_of(pod) for pod in (*there, *(each.pod for each in removed))}
    return {
        version: read_ended(
            [pod for pod in there if version_of(pod) == version],
            [each for each in removed if version_of(each.pod) == version],
        )
        for version in versions
    }


def start_of(numbered: Numbered, change: Change | None, start: Object) -> Object:
    """Return the template that a change is applied to: ``start``, unless the change names a revision.

    Raises:
        Refused: for a revision that the target's controller does not have (any more).
    """
    if change is None or change.revision is None:
        return start
    known = {each["revision"]: numbered.templates[each["metadata"]["name"]] for each in numbered.revisions}
    if change.revision not in known:
        raise Refused(
            "is not a revision of the target",
            field="spec.change.revision",
            value=change.revision,
            fix=f"use one of: {', '.join(map(str, sorted(known)))} (see `segue history`)",
        )
    return copy.deepcopy(known[change.revision])
