"""Reads from events why the controller of a numbered or Supervised target cannot create a pod.

A ReplicaSet reports it in a condition, which an operator's target does not show. A StatefulSet reports it only in
events, as does a LeaderWorkerSet, whose groups are StatefulSets. The events are listed beside the watch, and only while
a replica is missing. The right to list them is in ``deploy/rbac.yaml``; without it, the rollout learns of a missing
replica at its deadline.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from activities.cluster import Cluster, Object
from activities.ended_pods import seconds_of
from activities.events import happened, refusal_of
from activities.failure_details import SKEW_S
from segue.contract import WatchInput
from segue.errors import NotAllowed, SegueError
from segue.missing import Missing, with_missing
from segue.observation import Observation, Side
from segue.replica import Replica
from segue.state import Goal

ASK_S, MOST_S = 2.0, 30.0
"""The first and the longest wait between two lists of events; each wait is twice as long as the one before."""
LINGER_S = 10.0
"""A rollout not observed for this long is watched by another worker, or has ended."""
MAX_GROUPS = 3
"""The most groups whose workers' events are listed at a time."""
_FAILED = "FailedCreate"

log = logging.getLogger(__name__)


class _Absent(NamedTuple):
    """The replicas that do not exist, or lack pods, and what is to create them."""

    coming: int = 0
    """On the side that grows."""
    leaving: int = 0
    sets: tuple[str, ...] = ()
    """The StatefulSets that are to create them."""
    makers: tuple[str, ...] = ()
    """Names that begin those of an operator's ReplicaSets and StatefulSets."""

    def __bool__(self) -> bool:
        return bool(self.sets or self.makers)


class Unmade:
    """All rollouts of a worker with a replica that is missing, and whose controller tells it only in events."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[str, _Missing] = {}

    def look(self, request: WatchInput, seen: Observation, wake: Callable[[], None]) -> Observation:
        """Return the observation with why a replica is missing, if that is known. Each news calls ``wake``."""
        owner, absent = request.state.owner, _absent_of(request, seen)
        if not absent:
            self._stop(owner)
            return seen
        found, now = self._open.get(owner), self._cluster.clock.now()
        if found is None or found.is_idle or found.is_outdated(absent, seen):
            self._stop(owner)
            # A pod was created since: what was before has passed.
            since = now if found is not None and not found.is_idle else min(request.state.progress_at, now) - SKEW_S
            found = self._open[owner] = _Missing(self._cluster, request, absent, seen, since)
        why, since = found.latest(absent, seen, wake)
        if not why:
            return seen
        coming = Missing(absent.coming, why, since) if absent.coming else None
        leaving = Missing(absent.leaving, why, since) if absent.leaving and not absent.coming else None
        deadline_s = request.rules.readiness.deadline.total_seconds()
        return with_missing(seen, coming, leaving, deadline_s, now)

    def _stop(self, owner: str) -> None:
        if owner in self._open:
            self._open.pop(owner).stop()

    def close(self) -> None:
        """Stop asking."""
        for owner in list(self._open):
            self._stop(owner)


class _Missing:
    """One rollout with a missing replica."""

    def __init__(self, cluster: Cluster, request: WatchInput, absent: _Absent, seen: Observation, since: float) -> None:
        self._cluster, self._namespace = cluster, request.target.namespace
        self._since, self._began = since, cluster.clock.now()
        self._absent, self._known, self._looked_at = absent, _uids(seen), time.monotonic()
        self._message, self._first = "", 0.0
        self._wake: Callable[[], None] = lambda: None
        self._may = True
        self._task = asyncio.create_task(self._ask_on(), name=f"unmade-{request.target}")

    @property
    def is_idle(self) -> bool:
        """Whether it stopped because nothing observed the rollout."""
        return self._task.done() and self._may

    def is_outdated(self, absent: _Absent, seen: Observation) -> bool:
        """Whether a pod was created since."""
        before = self._absent
        fewer = absent.coming + absent.leaving < before.coming + before.leaving
        return fewer or not _uids(seen) <= self._known

    def latest(self, absent: _Absent, seen: Observation, wake: Callable[[], None]) -> tuple[str, float]:
        """Return why a pod is missing, empty if that is not known, and since when: seconds since the epoch."""
        self._absent, self._wake, self._looked_at = absent, wake, time.monotonic()
        return self._message, max(self._began, self._first)

    def stop(self) -> None:
        self._task.cancel()

    async def _ask_on(self) -> None:
        wait_s = ASK_S  # a replica is also missing while its controller replaces it
        while time.monotonic() < self._looked_at + LINGER_S + wait_s:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_S)
            try:
                latest = await self._latest()
            except NotAllowed as error:
                self._may = False
                log.info("cannot read why a replica is missing: %s", error)
                return
            except SegueError as error:
                log.info("no events in %s: %s", self._namespace, error)
                continue
            message = refusal_of(latest) if latest else ""
            self._first = seconds_of(latest.get("firstTimestamp")) if latest else 0.0
            if message != self._message:
                self._message = message
                self._wake()

    async def _latest(self) -> Object | None:
        """Return the latest event of a controller that could not create a pod; None without one."""
        absent = self._absent
        each = [await self._cluster.warnings(self._namespace, "StatefulSet", name) for name in absent.sets]
        if absent.makers:
            found = await self._cluster.warnings_of(self._namespace, _FAILED)
            each.append([event for event in found if _made_by(event, absent.makers)])
        recent = [
            event
            for events in each
            for event in events
            if event.get("reason") == _FAILED and seconds_of(happened(event)) >= self._since
        ]
        return max(recent, key=happened, default=None)


def _made_by(event: Object, makers: tuple[str, ...]) -> bool:
    """Whether an event is about one of these, or about a ReplicaSet of it: its name has a hash more."""
    name = str(event.get("involvedObject", {}).get("name", ""))
    return name in makers or name.rpartition("-")[0] in makers


def _uids(seen: Observation) -> frozenset[str]:
    return frozenset(each.uid for side in seen.pods for each in side)


def _absent_of(request: WatchInput, seen: Observation) -> _Absent:
    """Return the replicas that do not exist, as far as can be seen; often none."""
    back = request.state.goal is Goal.BACK
    if seen.makers:
        there = len(seen.pods.old if back else seen.pods.new)
        missing = (seen.replicas if back else seen.requested.new) - there
        return _Absent(missing, makers=seen.makers) if missing > 0 else _Absent()
    if not seen.numbered:
        return _Absent()
    sides = ((seen.old, seen.pods.old), (seen.new, seen.pods.new))
    leaving, coming = (_absent_on(side, pods) for side, pods in (reversed(sides) if back else sides))
    if not coming and not leaving:
        return _Absent()
    groups = [each.name for side in seen.pods for each in side if each.lacks][:MAX_GROUPS]
    return _Absent(coming, leaving, (request.target.name, *groups))


def _absent_on(side: Side, replicas: tuple[Replica, ...]) -> int:
    """Return how many replicas of a side do not exist, or lack pods of their group."""
    return max(0, side.total - len(replicas)) + sum(each.lacks > 0 for each in replicas)
