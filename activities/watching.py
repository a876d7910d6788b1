"""One watch per namespace and set of kinds, shared by all rollouts of a worker that need the same.

A watch lists the objects, then watches from the list's resource version. It lists again when that version expires.
Each change of an object wakes all waiters. While a stream is down nothing may be decided: the watch is not current.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

from activities.cluster import Cluster, Object
from activities.ended_pods import Gone, has_ended
from segue.errors import Expired, SegueError

LINGER_S = 60.0
PULSE_S = 0.5
"""The interval at which a watch records that this process runs."""
GAP_S = 2.5
"""A process that did not run for longer was frozen: its objects are old, and its streams may hold unread events."""
MAX_GONE = 500
"""How many removed pods of a namespace a watch remembers."""
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

log = logging.getLogger(__name__)


class Clocks(NamedTuple):
    """The time of both clocks of this process, in seconds."""

    monotonic: float
    """This clock stops while the machine is suspended."""
    wall: float
    """This clock can be set."""

    @classmethod
    def now(cls) -> Self:
        """Return the present time."""
        return cls(time.monotonic(), time.time())

    def is_gap(self, before: "Clocks") -> bool:
        """Whether one of the clocks moved further than it does while this process runs."""
        return self.monotonic - before.monotonic > GAP_S or abs(self.wall - before.wall) > GAP_S


class NamespaceWatch:
    """The objects of some kinds of one namespace, kept current."""

    def __init__(self, cluster: Cluster, namespace: str, kinds: tuple[str, ...]) -> None:
        self.namespace = namespace
        self._cluster = cluster
        self._objects: dict[str, dict[str, Object]] = {kind: {} for kind in kinds}
        self._current: dict[str, bool] = dict.fromkeys(kinds, False)
        self._errors: dict[str, SegueError] = {}
        self.current_since = 0.0
        """Since when the watch has been current without a gap: seconds since the epoch."""
        self._changed = asyncio.Event()
        self._streams: list[asyncio.Task[None]] = []
        self._pulse: asyncio.Task[None] | None = None
        self._pulsed = Clocks.now()
        self.users = 0
        self._gone: deque[Gone] = deque(maxlen=MAX_GONE)
        self._ended: dict[str, Object] = {}
        """Ended pods by uid, as they were then: their later deletion looks like any other."""

    def start(self) -> None:
        """Start listing and watching."""
        self._pulsed = Clocks.now()
        self._pulse = asyncio.create_task(self._run(), name=f"watch-{self.namespace}-pulse")
        self._follow_all()

    def _follow_all(self) -> None:
        self._streams = [
            asyncio.create_task(self._follow(kind), name=f"watch-{self.namespace}-{kind}") for kind in self._objects
        ]

    async def stop(self) -> None:
        """End all streams."""
        tasks = [*self._streams, *([self._pulse] if self._pulse else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        """Record that this process runs."""
        while True:
            self.notice_gap()
            await asyncio.sleep(PULSE_S)

    def notice_gap(self) -> None:
        """List everything again if this process was frozen, or if its clock jumped.

        Call this before you read the watch, which is then not current until the lists are complete.
        """
        now = Clocks.now()
        before, self._pulsed = self._pulsed, now
        if not now.is_gap(before):
            return
        log.warning(
            "watch of %s: this process did not run for %.1f s, or its clock jumped",
            self.namespace,
            now.wall - before.wall,
        )
        for task in self._streams:
            task.cancel()
        self._current = dict.fromkeys(self._objects, False)
        self._follow_all()

    @property
    def trouble(self) -> SegueError | None:
        """Why the watch is not current. None while it is, or while it is starting."""
        return next(iter(self._errors.values()), None)

    @property
    def current(self) -> bool:
        """Whether all streams are up."""
        return all(self._current.values())

    def get(self, kind: str, name: str) -> Object | None:
        """Return one object as last seen."""
        return self._objects[kind].get(name)

    def all(self, kind: str) -> list[Object]:
        """Return all objects of a kind as last seen."""
        return list(self._objects[kind].values())

    @property
    def gone(self) -> list[Gone]:
        """Return the latest removed pods: some controllers remove a pod right after it ended."""
        return list(self._gone)

    def owned(self, kind: str, owners: set[str]) -> list[Object]:
        """Return the objects whose controller has one of these uids."""
        return [o for o in self._objects[kind].values() if controller_uid(o) in owners]

    def labelled(self, kind: str, selector: str) -> list[Object]:
        """Return the objects that a selector of ``name=value`` and ``name`` matches."""
        return [found for found in self._objects[kind].values() if _matches(found, selector)]

    def gone_labelled(self, selector: str) -> list[Gone]:
        """Return the latest removed pods that such a selector matches."""
        return [each for each in self._gone if _matches(each.pod, selector)]

    async def changed(self, timeout_s: float) -> None:
        """Return at the next change, or after ``timeout_s``."""
        event = self._changed
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await event.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Wake all waiters: something other than the objects has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self, kind: str) -> None:
        failures, listed_at = 0, math.inf
        while True:
            try:
                version = await self._list(kind)
                listed_at = time.monotonic()
                while True:
                    version = await self._stream(kind, version)
                    failures = 0
            except Expired:
                continue
            except SegueError as error:
                # Listed again in any case: without events nothing would show that the watch is current again.
                self._current[kind] = False
                self._errors[kind] = error
                self.wake()
                if time.monotonic() - listed_at >= _pause_s(failures):
                    failures = 0  # it was up for a while: occasional broken streams must not add up
                await asyncio.sleep(_pause_s(failures))
                failures, listed_at = failures + 1, math.inf
                log.warning("watch of %s in %s: %s", kind, self.namespace, error)

    async def _list(self, kind: str) -> str:
        found = await self._cluster.list(kind, self.namespace)
        self._objects[kind] = {o["metadata"]["name"]: o for o in found["items"]}
        if kind == "pods":
            self._ended = {o["metadata"]["uid"]: o for o in found["items"] if has_ended(o)}
        self._up(kind)
        return str(found["metadata"]["resourceVersion"])

    def _up(self, kind: str) -> None:
        was_current = self.current
        self._current[kind] = True
        if self.current and not was_current:
            self.current_since = time.time()
        self._errors.pop(kind, None)
        self.wake()

    async def _stream(self, kind: str, version: str) -> str:
        objects = self._objects[kind]
        async for event, found in self._cluster.watch(kind, self.namespace, version):
            version = found["metadata"]["resourceVersion"]
            if kind == "pods":
                self._remember(event, found)
            if event == "DELETED":
                objects.pop(found["metadata"]["name"], None)
            elif event != "BOOKMARK":
                objects[found["metadata"]["name"]] = found
            self._up(kind)
        return version

    def _remember(self, event: str, pod: Object) -> None:
        uid = pod["metadata"].get("uid", "")
        if event == "DELETED":
            self._gone.append(Gone(self._ended.pop(uid, pod), time.time()))
        elif event != "BOOKMARK" and has_ended(pod):
            self._ended[uid] = pod


def _pause_s(failures: int) -> float:
    return _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]


_Key = tuple[str, tuple[str, ...]]


class Watches:
    """All watches of a worker, by namespace and kinds; a watch outlives its last user by ``LINGER_S``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[_Key, NamespaceWatch] = {}
        self._leaving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self, namespace: str, kinds: tuple[str, ...]) -> AsyncIterator[NamespaceWatch]:
        """Yield the watch of a namespace. It starts for the first user, and stops ``LINGER_S`` after the last.

        Between two steps of a rollout it has no user for some milliseconds; listing again each time would cost more.
        """
        key = (namespace, kinds)
        watch = self._open.get(key)
        if watch is None:
            watch = self._open[key] = NamespaceWatch(self._cluster, namespace, kinds)
            watch.start()
        watch.users += 1
        try:
            yield watch
        finally:
            watch.users -= 1
            if not watch.users:
                asyncio.get_running_loop().call_later(LINGER_S, self._leave, key, watch)

    def _leave(self, key: _Key, watch: NamespaceWatch) -> None:
        if not watch.users and self._open.get(key) is watch:
            del self._open[key]
            self._leaving = asyncio.create_task(watch.stop())

    async def close(self) -> None:
        """Stop all watches."""
        await asyncio.gather(*(w.stop() for w in self._open.values()))
        self._open.clear()


def _matches(found: Object, selector: str) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = [part.partition("=") for part in selector.split(",")]
    return all(name in labels and (not equals or labels[name] == value) for name, equals, value in wanted)


def controller_uid(found: Object) -> str | None:
    """Return the uid of the controller that owns an object."""
    return _controller(found).get("uid")


def controller_name(found: Object) -> str:
    """Return the name of the controller that owns an object; empty if none does."""
    return str(_controller(found).get("name", ""))


def _controller(found: Object) -> dict[str, Any]:
    owners: list[dict[str, Any]] = found["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), {})
