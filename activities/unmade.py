"""Reads from events why the controller of a numbered target cannot create a pod.

A ReplicaSet reports it in a condition. A StatefulSet reports it only in events, as does a LeaderWorkerSet, whose groups
are StatefulSets. The events are listed beside the watch, and only while a replica is missing. The right to list them is
in ``deploy/rbac.yaml``; without it, the rollout learns of a missing replica at its deadline.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from activities.cluster import Cluster
from activities.ended_pods import seconds_of
from activities.failure_details import SKEW_S, happened
from segue.contract import WatchInput
from segue.errors import NotAllowed, SegueError
from segue.failures import with_unmade
from segue.observation import Observation
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


class Unmade:
    """All rollouts of a worker with a numbered replica that is missing."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[str, _Missing] = {}

    def look(self, request: WatchInput, seen: Observation, wake: Callable[[], None]) -> Observation:
        """Return the observation with why a replica is missing, if that is known. Each news calls ``wake``."""
        owner, names = request.state.owner, _sets_of(request, seen)
        if not names:
            self._stop(owner)
            return seen
        found = self._open.get(owner)
        if found is None or found.is_idle:
            self._stop(owner)
            found = self._open[owner] = _Missing(self._cluster, request, names)
        message = found.latest(names, wake)
        return seen.model_copy(update={"problem": with_unmade(seen.problem, message)}) if message else seen

    def _stop(self, owner: str) -> None:
        if owner in self._open:
            self._open.pop(owner).stop()

    def close(self) -> None:
        """Stop asking."""
        for owner in list(self._open):
            self._stop(owner)


class _Missing:
    """One rollout with a missing replica."""

    def __init__(self, cluster: Cluster, request: WatchInput, names: tuple[str, ...]) -> None:
        self._cluster, self._namespace = cluster, request.target.namespace
        self._since = min(request.state.progress_at, cluster.clock.now()) - SKEW_S
        self._names, self._message, self._looked_at = names, "", time.monotonic()
        self._wake: Callable[[], None] = lambda: None
        self._may = True
        self._task = asyncio.create_task(self._ask_on(), name=f"unmade-{request.target}")

    @property
    def is_idle(self) -> bool:
        """Whether it stopped because nothing observed the rollout."""
        return self._task.done() and self._may

    def latest(self, names: tuple[str, ...], wake: Callable[[], None]) -> str:
        self._names, self._wake, self._looked_at = names, wake, time.monotonic()
        return self._message

    def stop(self) -> None:
        self._task.cancel()

    async def _ask_on(self) -> None:
        wait_s = ASK_S  # a replica is also missing while its controller replaces it
        while time.monotonic() < self._looked_at + LINGER_S + wait_s:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_S)
            try:
                message = await self._latest()
            except NotAllowed as error:
                self._may = False
                log.info("cannot read why a replica is missing: %s", error)
                return
            except SegueError as error:
                log.info("no events in %s: %s", self._namespace, error)
                continue
            if message != self._message:
                self._message = message
                self._wake()

    async def _latest(self) -> str:
        """Return the API server's latest answer to a controller that creates pods; empty without one."""
        each = [await self._cluster.warnings(self._namespace, "StatefulSet", name) for name in self._names]
        recent = [
            event
            for events in each
            for event in events
            if event.get("reason") == _FAILED and seconds_of(happened(event)) >= self._since
        ]
        message = str(max(recent, key=happened).get("message", "")) if recent else ""
        return message.partition(" failed error: ")[2] or message


def _sets_of(request: WatchInput, seen: Observation) -> tuple[str, ...]:
    """Return the StatefulSets that cannot create a pod of the growing side, as far as can be seen; often none."""
    if not seen.numbered:
        return ()
    back = request.state.goal is Goal.BACK
    side, pods = (seen.old, seen.pods.old) if back else (seen.new, seen.pods.new)
    broken = _broken_groups(pods) if request.target.kind == "LeaderWorkerSet" else ()
    return (request.target.name, *broken) if broken or side.total > len(pods) else ()


def _broken_groups(groups: tuple[Replica, ...]) -> tuple[str, ...]:
    """Return the unready groups: a group's workers are created by a StatefulSet with the leader's name."""
    return tuple(group.name for group in groups if group.ready_since is None)[:MAX_GROUPS]
