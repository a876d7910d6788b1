"""Follows the objects of one kind: it lists them in pages, and then watches from the list's resource version."""

import asyncio
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from activities.cluster import Cluster, Object
from activities.limits import Urgency, urgent
from segue.errors import Expired, SegueError

_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SOON_S = 1.0
"""A stream that ends sooner, without an error, may do so each time: a proxy closes it, or its version has expired."""

log = logging.getLogger(__name__)

Kept = TypeVar("Kept")


class Followed(ABC, Generic[Kept]):
    """The objects of one kind, in one namespace or in the cluster (namespace ``""``); a subclass keeps what it needs.

    It lists again when the version of the watch expires, and after every error.
    """

    level: ClassVar[int] = logging.WARNING
    """The level at which errors are logged."""

    def __init__(self, cluster: Cluster, kind: str, namespace: str = "", fields: str = "") -> None:
        self.kind, self.namespace = kind, namespace
        self._cluster, self._fields = cluster, fields
        self._task: asyncio.Task[None] | None = None
        self.current = False
        """Whether it was listed, and its stream is up."""
        self.current_since = 0.0
        """Since when it has been current without a gap: seconds since the epoch."""
        self.error: SegueError | None = None
        """Why it is not current. None while it is, or while it is starting."""
        self._logged = ""

    @abstractmethod
    def keep(self, found: Object) -> Kept:
        """Return what is kept of a listed object."""

    @abstractmethod
    def replace(self, kept: list[Kept]) -> None:
        """Take the complete list."""

    @abstractmethod
    def apply(self, event: str, found: Object) -> None:
        """Take one event: ADDED, MODIFIED or DELETED."""

    def moved(self) -> None:
        """React to a change of ``current`` or ``error``."""

    def start(self) -> None:
        """Start listing and watching."""
        self._task = asyncio.create_task(self._run(), name=f"follow-{self.namespace or 'cluster'}-{self.kind}")

    def restart(self) -> None:
        """List everything again; until then it is not current."""
        if self._task is not None:
            self._task.cancel()
        self.current = False
        self.start()

    async def stop(self) -> None:
        """End the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def pause(self, failures: int) -> None:
        """Wait before it lists again after an error.

        After an outage of the API server all streams of all workers list again: the random part keeps them apart.
        """
        await asyncio.sleep(pause_s(failures) * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def _run(self) -> None:
        with urgent(Urgency.PROGRESS):  # not that of the activity which happened to start it
            await self._follow()

    async def _follow(self) -> None:
        failures, listed_at = 0, math.inf
        while True:
            began = time.monotonic()
            try:
                version = await self._list()
                listed_at = time.monotonic()
                while True:
                    began = time.monotonic()
                    version = await self._stream(version)
                    failures = 0
                    await _not_sooner(began)
            except Expired:
                await _not_sooner(began)
            except Exception as error:
                # Any error, also a fault of ours: if the task ended, its old objects would look current.
                # Listed again in any case: without events nothing would show that the watch is current again.
                self.current, self.error = False, _as_ours(error)
                self.moved()
                self._log(error)
                if time.monotonic() - listed_at >= pause_s(failures):
                    failures = 0  # it was up for a while: occasional broken streams must not add up
                await self.pause(failures)
                failures, listed_at = failures + 1, math.inf

    def _log(self, error: Exception) -> None:
        """Log an error once, and not each time that it repeats: a missing right may stay for ever."""
        ours = _as_ours(error)
        if str(ours) != self._logged:
            trace = None if ours is error else error
            where = self.namespace or "the cluster"
            log.log(self.level, "watch of %s in %s: %s", self.kind, where, ours, exc_info=trace)
        self._logged = str(ours)

    async def _list(self) -> str:
        kept: list[Kept] = []
        version = ""
        async for page in self._cluster.pages(self.kind, self.namespace, self._fields):
            kept += [self.keep(each) for each in page["items"]]
            version = str(page["metadata"]["resourceVersion"])
        self.replace(kept)
        self._up()
        return version

    def _up(self) -> None:
        if self.current:
            return
        self.current, self.current_since, self.error = True, self._cluster.clock.now(), None
        self.moved()

    async def _stream(self, version: str) -> str:
        async for event, found in self._cluster.watch(self.kind, self.namespace, version, self._fields):
            version = found["metadata"]["resourceVersion"]
            if event != "BOOKMARK":
                self.apply(event, found)
        return version


def _as_ours(error: Exception) -> SegueError:
    if isinstance(error, SegueError):
        return error
    return SegueError(f"unexpected {type(error).__name__}: {error}")


async def _not_sooner(began: float) -> None:
    """Return ``SOON_S`` after the beginning of what has ended: in a loop it would take all of a worker's time."""
    await asyncio.sleep(began + SOON_S - time.monotonic())


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row, in seconds, before the random part."""
    return _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
