"""One stream per namespace and kind, shared by all rollouts of a worker.

A rollout reads through a ``NamespaceWatch``, which remembers what was read: a name, the objects of an owner, those of a
selector. A change wakes the rollouts that read the object, before or after the change, and no others. While a stream is
down nothing may be decided: the watch is not current.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

from activities.cluster import Cluster, Object
from activities.ended_pods import Gone, has_ended
from activities.following import Followed
from activities.kept_fields import kept
from segue.errors import SegueError

LINGER_S = 60.0
PULSE_S = 0.5
"""The interval at which the watches record that this process runs."""
GAP_S = 2.5
"""A process that did not run for longer was frozen: its objects are old, and its streams may hold unread events."""
MAX_GONE = 1000
"""How many removed pods of a namespace a watch remembers."""

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


class _Read(NamedTuple):
    """What a rollout read of a kind: ``by`` is name, owner, selector, or all."""

    by: str
    value: str = ""


_ALL = _Read("all")


class KindWatch(Followed[Object]):
    """The objects of one kind in one namespace, by name, by their controller's uid, and by selector."""

    def __init__(self, cluster: Cluster, kind: str, namespace: str) -> None:
        super().__init__(cluster, kind, namespace)
        self.users = 0
        self._objects: dict[str, Object] = {}
        self._owned: dict[str, dict[str, Object]] = {}
        self._selected: dict[str, dict[str, Object]] = {}
        """Only for the selectors that somebody reads."""
        self._selectors: dict[str, set[str]] = {}
        """The same selectors by their first part, which is ``name=value`` or ``name``."""
        self._readers: dict[_Read, set[NamespaceWatch]] = {}
        self._gone: deque[Gone] = deque()
        """The latest removed pods: some controllers remove a pod right after it ended."""
        self._gone_of: dict[str | None, deque[Gone]] = {}
        """The same by their controller's uid."""
        self._ended: dict[str, Object] = {}
        """Ended pods by uid, as they were then: their later deletion looks like any other."""

    # --- reading ----------------------------------------------------------------------------------------

    def get(self, name: str) -> Object | None:
        """Return one object as last seen."""
        return self._objects.get(name)

    def all(self) -> list[Object]:
        """Return all objects as last seen."""
        return list(self._objects.values())

    def owned(self, owner: str) -> Iterable[Object]:
        """Return the objects whose controller has this uid."""
        return self._owned.get(owner, {}).values()

    def labelled(self, selector: str) -> Iterable[Object]:
        """Return the objects that a selector of ``name=value`` and ``name`` matches."""
        if selector not in self._selected:
            self._selectors.setdefault(_first(selector), set()).add(selector)
            self._selected[selector] = {name: o for name, o in self._objects.items() if _matches(o, selector)}
        return self._selected[selector].values()

    def gone_owned(self, owner: str) -> Iterable[Gone]:
        """Return the latest removed pods whose controller has this uid."""
        return self._gone_of.get(owner, ())

    def gone_labelled(self, selector: str) -> Iterable[Gone]:
        """Return the latest removed pods that a selector matches."""
        return (each for each in self._gone if _matches(each.pod, selector))

    def note(self, reader: "NamespaceWatch", read: _Read) -> None:
        """Wake a reader from now on when an object changes that it read."""
        self._readers.setdefault(read, set()).add(reader)

    def forget(self, reader: "NamespaceWatch", read: _Read) -> None:
        """Wake it no more; drop the index of a selector that nobody reads."""
        readers = self._readers.get(read, set())
        readers.discard(reader)
        if readers:
            return
        self._readers.pop(read, None)
        if read.by == "selector" and self._selected.pop(read.value, None) is not None:
            first = _first(read.value)
            self._selectors[first].discard(read.value)
            if not self._selectors[first]:
                del self._selectors[first]

    # --- following --------------------------------------------------------------------------------------

    def keep(self, found: Object) -> Object:
        """Return the fields that levers read."""
        return kept(self.kind, found)

    def replace(self, found: list[Object]) -> None:
        """Take the complete list, and wake all: what changed in the meantime is not known."""
        self._objects, self._owned = {}, {}
        self._selected = {selector: {} for selector in self._selected}
        for each in found:
            self._link(each)
        if self.kind == "pods":
            self._ended = {each["metadata"]["uid"]: each for each in found if has_ended(each)}
        self.moved()

    def apply(self, event: str, found: Object) -> None:
        """Take one change, and wake those that read the object before or after it."""
        found = self.keep(found)
        if self.kind == "pods":
            self._remember(event, found)
        reads = set(self._reads_of(found))
        before = self._objects.get(found["metadata"]["name"])
        if before is not None:
            reads.update(self._reads_of(before))
            self._unlink(before)
        if event != "DELETED":
            self._link(found)
        for read in reads:
            for reader in self._readers.get(read, ()):
                reader.wake()

    def moved(self) -> None:
        """Wake all readers: the whole kind is current, or is not."""
        for readers in self._readers.values():
            for reader in readers:
                reader.wake()

    def _remember(self, event: str, pod: Object) -> None:
        uid = pod["metadata"].get("uid", "")
        if event == "DELETED":
            self._bury(Gone(self._ended.pop(uid, pod), self._cluster.clock.now()))
        elif has_ended(pod):
            self._ended[uid] = pod

    def _bury(self, gone: Gone) -> None:
        self._gone.append(gone)
        self._gone_of.setdefault(controller_uid(gone.pod), deque()).append(gone)
        if len(self._gone) > MAX_GONE:
            owner = controller_uid(self._gone.popleft().pod)
            self._gone_of[owner].popleft()
            if not self._gone_of[owner]:
                del self._gone_of[owner]

    def _reads_of(self, found: Object) -> Iterator[_Read]:
        """Yield each way in which an object may have been read."""
        yield _ALL
        yield _Read("name", found["metadata"]["name"])
        owner = controller_uid(found)
        if owner is not None:
            yield _Read("owner", owner)
        for selector in self._selectors_of(found):
            yield _Read("selector", selector)

    def _selectors_of(self, found: Object) -> Iterator[str]:
        """Yield the read selectors that match an object."""
        for name, value in found["metadata"].get("labels", {}).items():
            for first in (name, f"{name}={value}"):
                yield from (s for s in self._selectors.get(first, ()) if _matches(found, s))

    def _link(self, found: Object) -> None:
        name, owner = found["metadata"]["name"], controller_uid(found)
        self._objects[name] = found
        if owner is not None:
            self._owned.setdefault(owner, {})[name] = found
        for selector in self._selectors_of(found):
            self._selected[selector][name] = found

    def _unlink(self, found: Object) -> None:
        name, owner = found["metadata"]["name"], controller_uid(found)
        del self._objects[name]
        if owner is not None:
            del self._owned[owner][name]
            if not self._owned[owner]:
                del self._owned[owner]
        for selector in self._selectors_of(found):
            del self._selected[selector][name]


class NamespaceWatch:
    """One rollout's view of some kinds of a namespace: a change of what it read wakes it."""

    def __init__(self, watches: "Watches", kinds: dict[str, KindWatch]) -> None:
        self._watches, self._kinds = watches, kinds
        self._changed = asyncio.Event()
        self._reads: set[tuple[str, _Read]] = set()

    def notice_gap(self) -> None:
        """Begin an observation: what changes from now on ends the next wait.

        If this process was frozen, or its clock jumped, everything is listed again; until then nothing is current.
        """
        self._watches.notice_gap()
        self._changed.clear()

    @property
    def trouble(self) -> SegueError | None:
        """Why the watch is not current. None while it is, or while it is starting."""
        return next((kind.error for kind in self._kinds.values() if kind.error is not None), None)

    @property
    def current(self) -> bool:
        """Whether all streams are up."""
        return all(kind.current for kind in self._kinds.values())

    @property
    def current_since(self) -> float:
        """Since when all have been current without a gap: seconds since the epoch."""
        return max(kind.current_since for kind in self._kinds.values())

    def list_again(self) -> None:
        """List all kinds again; until then nothing is current."""
        for kind in self._kinds.values():
            kind.restart()

    def get(self, kind: str, name: str) -> Object | None:
        """Return one object as last seen."""
        return self._read(kind, _Read("name", name)).get(name)

    def all(self, kind: str) -> list[Object]:
        """Return all objects of a kind as last seen. Any change of the kind then wakes this rollout."""
        return self._read(kind, _ALL).all()

    def owned(self, kind: str, owners: set[str]) -> list[Object]:
        """Return the objects whose controller has one of these uids."""
        return [found for uid in sorted(owners) for found in self._read(kind, _Read("owner", uid)).owned(uid)]

    def labelled(self, kind: str, selector: str) -> list[Object]:
        """Return the objects that a selector of ``name=value`` and ``name`` matches."""
        return list(self._read(kind, _Read("selector", selector)).labelled(selector))

    def gone_owned(self, owners: set[str]) -> list[Gone]:
        """Return the latest removed pods whose controller has one of these uids."""
        return [each for uid in sorted(owners) for each in self._kinds["pods"].gone_owned(uid)]

    def gone_labelled(self, selector: str) -> list[Gone]:
        """Return the latest removed pods that such a selector matches."""
        return list(self._kinds["pods"].gone_labelled(selector))

    def _read(self, kind: str, read: _Read) -> KindWatch:
        if (kind, read) not in self._reads:
            self._reads.add((kind, read))
            self._kinds[kind].note(self, read)
        return self._kinds[kind]

    async def changed(self, timeout_s: float) -> None:
        """Return when something changed since ``notice_gap``, or after ``timeout_s``."""
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._changed.wait()
        except TimeoutError:
            return

    @property
    def is_changed(self) -> bool:
        """Whether something changed since ``notice_gap``."""
        return self._changed.is_set()

    def wake(self) -> None:
        """End the wait: something that the rollout read, or an answer that it waits for, has changed."""
        self._changed.set()

    def leave(self) -> None:
        """Be woken no more."""
        for kind, read in self._reads:
            self._kinds[kind].forget(self, read)
        self._reads.clear()


_Key = tuple[str, str]


class Watches:
    """All streams of a worker, by namespace and kind; a stream outlives its last user by ``LINGER_S``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[_Key, KindWatch] = {}
        self._views: set[NamespaceWatch] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._pulse: asyncio.Task[None] | None = None
        self._pulsed = Clocks.now()

    @asynccontextmanager
    async def use(self, namespace: str, kinds: tuple[str, ...]) -> AsyncIterator[NamespaceWatch]:
        """Yield a view of a namespace. Its streams start for the first user, and stop ``LINGER_S`` after the last.

        Between two steps of a rollout they have no user for some milliseconds; listing again each time would cost more.
        """
        self._begin()
        streams = {kind: self._stream(namespace, kind) for kind in kinds}
        watch = NamespaceWatch(self, streams)
        self._views.add(watch)
        for stream in streams.values():
            stream.users += 1
        try:
            yield watch
        finally:
            self._views.discard(watch)
            watch.leave()
            for stream in streams.values():
                self._release(stream)

    def wake(self) -> None:
        """End the wait of every user: something that they all go by has changed."""
        for watch in self._views:
            watch.wake()

    async def until(
        self, namespace: str, kinds: tuple[str, ...], shows: Callable[[NamespaceWatch], bool], limit_s: float
    ) -> None:
        """Return when a watch shows a state, after ``limit_s``, or at once while the watch is not current.

        A watch may lag behind: the caller reads afresh before it acts.
        """
        ends_at = time.monotonic() + limit_s
        async with self.use(namespace, kinds) as watch:
            while time.monotonic() < ends_at:
                watch.notice_gap()
                if not watch.current or shows(watch):
                    return
                await watch.changed(ends_at - time.monotonic())

    def _stream(self, namespace: str, kind: str) -> KindWatch:
        key = (namespace, kind)
        if key not in self._open:
            self._open[key] = KindWatch(self._cluster, kind, namespace)
            self._open[key].start()
        return self._open[key]

    def _release(self, stream: KindWatch) -> None:
        stream.users -= 1
        if not stream.users:
            asyncio.get_running_loop().call_later(LINGER_S, self._leave, stream)

    def _leave(self, stream: KindWatch) -> None:
        key = (stream.namespace, stream.kind)
        if not stream.users and self._open.get(key) is stream:
            del self._open[key]
            task = asyncio.create_task(stream.stop())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _begin(self) -> None:
        if self._pulse is None:
            self._pulsed = Clocks.now()
            self._pulse = asyncio.create_task(self._run(), name="watch-pulse")

    async def _run(self) -> None:
        """Record that this process runs."""
        while True:
            self.notice_gap()
            await asyncio.sleep(PULSE_S)

    def notice_gap(self) -> None:
        """List everything again if this process was frozen, or if its clock jumped."""
        now = Clocks.now()
        before, self._pulsed = self._pulsed, now
        if not now.is_gap(before):
            return
        log.warning(
            "watches: this process did not run for %.1f s, or its clock jumped; all objects are listed again",
            now.wall - before.wall,
        )
        for stream in self._open.values():
            stream.restart()

    async def close(self) -> None:
        """Stop all streams."""
        if self._pulse is not None:
            self._pulse.cancel()
        await asyncio.gather(*(stream.stop() for stream in self._open.values()), *self._leaving)
        self._open.clear()


def _first(selector: str) -> str:
    return selector.partition(",")[0]


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
