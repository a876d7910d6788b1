"""What a watch tells: gaps of its own process, removed pods, and changes to those that read the object."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, cast

import pytest

from activities import watching
from activities.clock import Clock
from activities.cluster import Cluster
from activities.ended_pods import Gone, read_ended
from activities.watching import GAP_S, PULSE_S, Clocks, NamespaceWatch, Watches, controller_uid
from segue.errors import Expired

Object = dict[str, Any]

BEFORE = Clocks(monotonic=100.0, wall=5_000.0)


@pytest.mark.parametrize(
    ("monotonic_s", "wall_s", "gap"),
    [
        pytest.param(PULSE_S, PULSE_S, False, id="runs"),
        pytest.param(GAP_S, GAP_S, False, id="slow"),
        pytest.param(10.0, 10.0, True, id="frozen"),
        pytest.param(PULSE_S, 3_600.0, True, id="suspended-machine"),
        pytest.param(PULSE_S, 600.0, True, id="clock-set-forward"),
        pytest.param(PULSE_S, -600.0, True, id="clock-set-back"),
    ],
)
def test_a_gap_is_told_by_both_clocks(monotonic_s: float, wall_s: float, gap: bool) -> None:
    """Either clock tells: one stands still in a suspended machine, the other can be set."""
    now = Clocks(BEFORE.monotonic + monotonic_s, BEFORE.wall + wall_s)
    assert now.is_gap(BEFORE) is gap


def pod(phase: str, *, stops: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "chat-0", "uid": "u", "resourceVersion": "1", "labels": {"app": "chat"}}
    return {"metadata": {**metadata, **({"deletionTimestamp": "..."} if stops else {})}, "status": {"phase": phase}}


class _Events:
    """The API server: a list, which is empty unless a test fills it, and then the events that a test sends."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.there: dict[str, dict[str, Object]] = defaultdict(dict)
        self._events: dict[str, asyncio.Queue[tuple[str, Object]]] = defaultdict(asyncio.Queue)
        self.lists: list[tuple[str, str]] = []

    async def pages(self, kind: str, namespace: str, fields: str) -> AsyncIterator[Object]:
        self.lists.append((kind, namespace))
        yield {"items": [*self.there[kind].values()], "metadata": {"resourceVersion": "1"}}

    async def watch(self, kind: str, namespace: str, version: str, fields: str) -> AsyncIterator[tuple[str, Object]]:
        while True:
            yield await self._events[kind].get()

    async def send(self, kind: str, *events: tuple[str, Object]) -> None:
        """Send events, and wait until the watch took them."""
        for event in events:
            self._events[kind].put_nowait(event)
        while self._events[kind].qsize():
            await asyncio.sleep(0)
        await asyncio.sleep(0)


class Served(NamedTuple):
    """Watches, the API server behind them, and the views of three rollouts, all current."""

    server: _Events
    watches: Watches
    views: list[NamespaceWatch]

    def woken(self) -> list[int]:
        """Return which rollouts a change woke, and begin the next observation of all."""
        found = [n for n, view in enumerate(self.views) if view.is_changed]
        for view in self.views:
            view.notice_gap()
        return found


KINDS = ("deployments", "replicasets", "pods")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    server = _Events()
    watches = Watches(cast("Cluster", server))
    async with AsyncExitStack() as opened:
        views = [await opened.enter_async_context(watches.use("n", KINDS)) for _ in range(3)]
        while not all(view.current for view in views):
            await asyncio.sleep(0)
        for view in views:
            view.notice_gap()
        yield Served(server, watches, views)
    await watches.close()


def made(name: str, owner: str = "", **labels: str) -> Object:
    metadata: Object = {"name": name, "uid": f"uid of {name}", "resourceVersion": "1", "labels": labels}
    if owner:
        metadata["ownerReferences"] = [{"uid": f"uid of {owner}", "name": owner, "controller": True}]
    return {"metadata": metadata, "status": {"phase": "Running"}}


async def test_a_pod_that_ended_is_remembered_though_its_controller_deletes_it_at_once(served: Served) -> None:
    """The deletion is shown before the pod is gone, and then looks like that of any stopping pod."""
    failed, stopped = pod("Failed"), pod("Failed", stops=True)
    events = (("ADDED", pod("Running")), ("MODIFIED", failed), ("MODIFIED", stopped), ("DELETED", stopped))
    await served.server.send("pods", *events)
    gone = served.views[0].gone_labelled("app=chat")
    assert [e.name for e in read_ended((), gone)] == ["chat-0"]
    assert served.views[0].gone_owned({"another"}) == []


async def test_only_the_latest_removed_pods_are_remembered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_GONE", 3)
    owners = "aabab"
    await served.server.send("pods", *(("DELETED", made(f"p{n}", owner, app="x")) for n, owner in enumerate(owners)))

    def names(found: list[Gone]) -> list[str]:
        return [each.pod["metadata"]["name"] for each in found]

    view = served.views[0]
    assert names(view.gone_labelled("app=x")) == ["p2", "p3", "p4"]
    assert names(view.gone_owned({"uid of a"})) == ["p3"]
    assert names(view.gone_owned({"uid of a", "uid of b"})) == ["p3", "p2", "p4"]


async def test_the_streams_of_a_namespace_are_shared(served: Served) -> None:
    """Each kind is listed once, whichever kinds a rollout needs beside it."""
    async with served.watches.use("n", ("statefulsets", "pods")) as view:
        while not view.current:
            await asyncio.sleep(0)
    assert sorted(served.server.lists) == sorted((kind, "n") for kind in (*KINDS, "statefulsets"))


async def test_a_change_wakes_the_rollouts_that_read_the_object(served: Served) -> None:
    """By its name, its owner or its labels; also an object that did not exist when it was read."""
    server, (a, b, c) = served.server, served.views
    assert a.get("deployments", "a") is None and b.get("deployments", "b") is None
    assert a.owned("pods", {"uid of a-1"}) == [] and c.labelled("pods", "app=c,track") == []
    await server.send("deployments", ("ADDED", made("a")))
    assert served.woken() == [0] and a.get("deployments", "a")
    await server.send("deployments", ("ADDED", made("other")))
    assert served.woken() == []
    await server.send("pods", ("ADDED", made("p", "a-1")), ("ADDED", made("q", "b-1", app="b")))
    assert served.woken() == [0]
    assert [each["metadata"]["name"] for each in a.owned("pods", {"uid of a-1", "uid of another"})] == ["p"]
    await server.send("pods", ("MODIFIED", made("q", "b-1", app="c", track="x")))
    assert served.woken() == [2]
    assert [each["metadata"]["name"] for each in c.labelled("pods", "app=c,track")] == ["q"]
    await server.send("pods", ("MODIFIED", made("q", "b-1", app="b")))
    assert served.woken() == [2], "it left the selector"
    assert c.labelled("pods", "app=c,track") == []
    await server.send("pods", ("DELETED", made("p", "a-1")))
    assert served.woken() == [0] and a.owned("pods", {"uid of a-1"}) == []


async def test_an_unexpected_error_never_leaves_old_objects_that_look_current(served: Served) -> None:
    """The watch says so, wakes its readers, and lists again."""
    view, before = served.views[0], len(served.server.lists)
    view.all("pods")
    view.notice_gap()
    await served.server.send("pods", ("MODIFIED", {"metadata": {"resourceVersion": "2"}}))
    assert not view.current and "unexpected KeyError" in str(view.trouble)
    assert view.is_changed
    async with asyncio.timeout(30):
        while not view.current:
            await asyncio.sleep(0.01)
    assert len(served.server.lists) == before + 1 and view.trouble is None


@pytest.mark.parametrize("expires", [False, True], ids=["is-closed", "expires"])
async def test_a_stream_that_ends_at_once_is_not_opened_in_a_loop(expires: bool) -> None:
    """A broken proxy closes each one. Requests without a pause would be a load for the API server and the worker."""

    class Ending(_Events):
        opened = 0

        async def watch(self, *_: str) -> AsyncIterator[tuple[str, Object]]:
            self.opened += 1
            await asyncio.sleep(0)
            if expires:
                raise Expired("pods: too old resource version")
            for event in list[tuple[str, Object]]():
                yield event

    server = Ending()
    watches = Watches(cast("Cluster", server))
    async with watches.use("n", ("pods",)) as view:
        for _ in range(200):
            await asyncio.sleep(0)
        assert view.current and (server.opened, len(server.lists)) == (1, 1)
    await watches.close()


async def test_who_reads_all_of_a_kind_is_woken_by_all_of_it(served: Served) -> None:
    assert served.views[1].all("pods") == []
    await served.server.send("pods", ("ADDED", made("p", "unknown")))
    assert served.woken() == [1]


async def test_a_change_between_the_observation_and_the_wait_ends_the_wait(served: Served) -> None:
    """What changed since the observation began is not waited for."""
    view = served.views[0]
    view.get("deployments", "a")
    await served.server.send("deployments", ("ADDED", made("a")))
    await asyncio.wait_for(view.changed(600), 10)


async def test_a_rollout_that_ended_leaves_no_index(served: Served) -> None:
    """The readers and the index of a selector go with the last rollout that reads it."""
    async with served.watches.use("n", KINDS) as view:
        view.labelled("pods", "app=x")
        view.labelled("pods", "app")
        await served.server.send("pods", ("ADDED", made("p", app="x")))
        assert len(view.labelled("pods", "app=x")) == len(view.labelled("pods", "app")) == 1
    stream = served.watches._open["n", "pods"]
    assert not stream._readers and not stream._selected and not stream._selectors


async def test_the_indexes_equal_a_search_after_any_changes(served: Served) -> None:
    """Pods come, go, change their labels and their owner, and are listed again."""
    # Served by the list too: a process that starves takes that for a gap, and lists again.
    chance, view, there = random.Random(3), served.views[0], served.server.there["pods"]
    for n in range(600):
        name = f"p{chance.randrange(12)}"
        found = made(name, chance.choice(["", "a", "b"]), **chance.choice([{}, {"app": "x"}, {"app": "y", "t": "1"}]))
        if chance.random() < 0.3:
            await served.server.send("pods", ("DELETED", there.pop(name, found)))
        else:
            there[name] = found
            await served.server.send("pods", ("MODIFIED", found))
        if n % 100 == 50:
            stream = served.watches._open["n", "pods"]
            stream.replace([stream.keep(each) for each in there.values()])
        for selector in ("app=x", "app", "app=y,t=1", "t,app=y"):
            assert _names(view.labelled("pods", selector)) == _names(_chosen(there, selector))
        for owner in ("a", "b"):
            own = [each for each in there.values() if controller_uid(each) == f"uid of {owner}"]
            assert _names(view.owned("pods", {f"uid of {owner}"})) == _names(own)


def _chosen(there: dict[str, Object], selector: str) -> list[Object]:
    wanted = dict.fromkeys(selector.split(","))
    return [
        each
        for each in there.values()
        if all(part in {*(f"{k}={v}" for k, v in each["metadata"]["labels"].items()), *each["metadata"]["labels"]}
               for part in wanted)
    ]  # fmt: skip


def _names(found: Iterable[Object]) -> list[str]:
    return sorted(each["metadata"]["name"] for each in found)


async def test_a_wait_ends_with_the_event_that_shows_it(served: Served) -> None:
    """Events of other objects do not end it; a limit does."""

    def is_there(view: NamespaceWatch) -> bool:
        return view.get("deployments", "a") is not None

    waiting = asyncio.create_task(served.watches.until("n", KINDS, is_there, 60.0))
    await served.server.send("deployments", ("ADDED", made("other")))
    assert not waiting.done()
    await served.server.send("deployments", ("ADDED", made("a")))
    await waiting
    await served.watches.until("n", KINDS, is_there, 60.0)
    await served.watches.until("n", KINDS, lambda _: False, 0.01)


async def test_a_wait_by_a_watch_that_is_not_current_ends_at_once(served: Served) -> None:
    """The caller then reads the target itself: an outage of the watch must not delay a write."""
    await served.watches.until("another", KINDS, lambda _: False, 60.0)
