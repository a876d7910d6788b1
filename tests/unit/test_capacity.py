"""The summary of nodes: what pods request is kept as sums, and never listed for a rollout."""

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities import capacity as capacities
from activities.capacity import UNREACHABLE, Capacity, Sums, taken_by
from activities.clock import Clock
from activities.cluster import Cluster
from activities.room import demand_of
from segue.errors import NotAllowed, SegueError, Unreachable
from segue.room import places_on

Object = dict[str, Any]


def node(name: str, cpu: str = "8", **spec: Any) -> Object:
    allocatable = {"cpu": cpu, "memory": "64Gi", "pods": "10"}
    return {"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec, "status": {"allocatable": allocatable}}


def pod(uid: str, on: str = "a", cpu: str = "100m") -> Object:
    containers = [{"name": "server", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]
    return {"metadata": {"uid": uid, "resourceVersion": "1"}, "spec": {"nodeName": on, "containers": containers}}


def free(sums: Sums) -> dict[str, tuple[Decimal, Decimal]]:
    return {each.name: (each.free["cpu"], each.free["pods"]) for each in sums.nodes()}


def test_the_sums_equal_a_new_count_after_any_changes() -> None:
    """Pods come, go, get a node, change their size, and are reported twice, in any order."""
    chance = random.Random(7)
    sums, there = Sums(), dict[str, Object]()
    sums.replace_nodes([node("a"), node("b")])
    for _ in range(2000):
        uid = f"u{chance.randrange(30)}"
        if chance.random() < 0.3:
            there.pop(uid, None)
            sums.drop_pod(uid)
        else:
            there[uid] = pod(uid, chance.choice(["", "a", "b", "unknown"]), chance.choice(["100m", "0.3", "2", "1e-3"]))
            sums.put_pod(taken_by(there[uid]))
            sums.put_pod(taken_by(there[uid]))
        fresh = Sums()
        fresh.replace_nodes([node("a"), node("b")])
        fresh.replace_pods([taken_by(each) for each in there.values()])
        assert free(sums) == free(fresh)
    assert sums.nodes() == fresh.nodes()


def test_a_node_that_changes_keeps_the_sum_of_its_pods() -> None:
    sums = Sums()
    sums.replace_nodes([node("a")])
    sums.put_pod(taken_by(pod("1", cpu="3")))
    assert free(sums) == {"a": (Decimal(5), Decimal(9))}
    sums.put_node(node("a", cpu="4"))
    assert free(sums) == {"a": (Decimal(1), Decimal(9))}
    sums.put_node(node("a", unschedulable=True))
    assert free(sums) == {}
    sums.drop_node("a")
    sums.put_node(node("a"))
    assert free(sums) == {"a": (Decimal(5), Decimal(9))}, "its pods are still there"


def apart(**term: Any) -> Object:
    rule = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "chat"}}, **term}
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}}


def ported(**port: Any) -> Object:
    return {"containers": [{"name": "server", "ports": [{"containerPort": 80, **port}]}]}


PLACE = "a place without another pod of serving with app=chat (podAntiAffinity)"


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        (ported(hostPort=80), {"hostPort 80/TCP"}),
        (ported(hostPort=80, protocol="UDP", hostIP="0.0.0.0"), {"hostPort 80/UDP"}),
        (ported(hostPort=80, hostIP="10.0.0.1"), set()),
        (ported(), set()),
        ({**ported(), "hostNetwork": True}, {"hostPort 80/TCP"}),
        ({**ported(hostPort=80), "hostNetwork": True}, {"hostPort 80/TCP"}),
        (apart(), {PLACE}),
        (apart(topologyKey="zone"), set()),
        (apart(labelSelector={"matchLabels": {"app": "other"}}), set()),
        (apart(labelSelector=None), set()),
        (apart(matchLabelKeys=["pod-template-hash"]), set()),
        (apart(namespaceSelector={"matchLabels": {"a": "b"}}), set()),
    ],
)
def test_what_only_one_pod_of_a_node_may_take(spec: Object, taken: set[str]) -> None:
    """It is taken as long as such a pod is there, and what the next one demands has the same name."""
    metadata = {"uid": "1", "namespace": "serving", "labels": {"app": "chat", "more": "x"}}
    there = {"metadata": metadata, "spec": {"nodeName": "a", **spec}}
    sums = Sums()
    sums.replace_nodes([node("a")])
    sums.put_pod(taken_by(there))
    (counted,) = sums.nodes()
    assert counted.exclusive == taken == {*demand_of(spec, {"app": "chat"}, "serving").exclusive}
    assert places_on(counted, demand_of(spec, {"app": "chat"}, "serving")) == (0 if taken else 9)
    sums.drop_pod("1")
    assert not sums.nodes()[0].exclusive


@pytest.mark.parametrize(
    ("whole", "each_gib", "gib"),
    [
        ({"limits": {"memory": "64Gi"}}, 8, 16),
        ({"limits": {"memory": "64Gi"}}, 0, 64),
        ({"limits": {"memory": "64Gi"}, "requests": {"memory": "32Gi"}}, 8, 32),
        ({"requests": {"memory": "8Gi"}}, 8, 8),
        (None, 8, 16),
    ],
)
def test_what_a_pod_requests_as_a_whole(whole: Object | None, each_gib: int, gib: int) -> None:
    """Its own limit is its request only of what its containers do not request."""
    own = {"requests": {"memory": f"{each_gib}Gi"}} if each_gib else {}
    containers = [{"name": name, "resources": own} for name in "ab"]
    demand = demand_of({"containers": containers, "resources": whole})
    assert demand.requests == {"memory": gib * 2**30}


def test_one_change_counts_one_node_again() -> None:
    """The others are the same objects as before: the cost of a change does not grow with the cluster."""
    sums = Sums()
    sums.replace_nodes([node(name) for name in "abc"])
    before = {each.name: each for each in sums.nodes()}
    sums.put_pod(taken_by(pod("1", "b")))
    after = {each.name: each for each in sums.nodes()}
    assert [name for name in "abc" if after[name] is not before[name]] == ["b"]


class _Server:
    """The API server's answers for nodes and pods; counts the lists."""

    def __init__(self, *, lists: SegueError | None = None, watches: SegueError | None = None) -> None:
        self.refuses_lists, self.refuses_watches, self.clock = lists, watches, Clock()
        self.listed: list[str] = []
        self.objects = {"nodes": [node("a")], "pods": [pod("1", cpu="2")]}
        self.events: dict[str, asyncio.Queue[tuple[str, Object]]] = {"nodes": asyncio.Queue(), "pods": asyncio.Queue()}

    async def pages(self, kind: str, namespace: str, fields: str) -> AsyncIterator[Object]:
        self.listed.append(kind)
        if self.refuses_lists:
            raise self.refuses_lists
        for each in self.objects[kind]:
            yield {"items": [each], "metadata": {"resourceVersion": "1"}}

    async def watch(self, kind: str, namespace: str, version: str, fields: str) -> AsyncIterator[tuple[str, Object]]:
        if self.refuses_watches:
            raise self.refuses_watches
        while True:
            yield await self.events[kind].get()


async def cpus(capacity: Capacity) -> Decimal:
    (found,) = await capacity.nodes()
    return found.free["cpu"]


async def test_callers_share_one_list_and_then_the_watch() -> None:
    server = _Server()
    capacity = Capacity(cast("Cluster", server))
    assert await asyncio.gather(*(cpus(capacity) for _ in range(50))) == [Decimal(6)] * 50
    server.events["pods"].put_nowait(("ADDED", pod("2", cpu="1")))
    while await cpus(capacity) != Decimal(5):
        await asyncio.sleep(0)
    server.events["pods"].put_nowait(("DELETED", pod("1")))
    while await cpus(capacity) != Decimal(7):
        await asyncio.sleep(0)
    assert sorted(server.listed) == ["nodes", "pods"]
    await capacity.close()


async def test_without_the_right_to_watch_it_lists_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list serves all callers for a while; then the next caller gets a new one."""
    now = [0.0]
    monkeypatch.setattr(capacities, "FRESH_S", 0.05)
    monkeypatch.setattr(capacities, "time", SimpleNamespace(monotonic=lambda: now[0]))
    server = _Server(watches=NotAllowed("cannot watch", field="pods", fix="grant it"))
    capacity = Capacity(cast("Cluster", server))
    now[0] = 1000.0  # a worker may count long after its start: that is not the time that the list takes
    assert await asyncio.gather(*(cpus(capacity) for _ in range(50))) == [Decimal(6)] * 50
    assert sorted(server.listed) == ["nodes", "pods"]
    server.objects["pods"].append(pod("2", cpu="1"))
    async with asyncio.timeout(1):
        while await cpus(capacity) != Decimal(5):
            await asyncio.sleep(0.01)
    assert server.listed.count("pods") == 2
    await capacity.close()


@pytest.mark.parametrize(
    "error",
    [NotAllowed("is forbidden", field="pods", fix="grant it"), Unreachable("does not answer")],
    ids=["refused", "unreachable"],
)
async def test_a_refused_list_is_told_to_all_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, error: SegueError
) -> None:
    monkeypatch.setattr(capacities, "FRESH_S", 0.05)
    server = _Server(lists=error)
    capacity = Capacity(cast("Cluster", server))
    answers = await asyncio.gather(*(capacity.nodes() for _ in range(50)), return_exceptions=True)
    assert answers == [error] * 50 and server.listed.count("nodes") == 1
    server.refuses_lists = None
    while isinstance((await asyncio.gather(capacity.nodes(), return_exceptions=True))[0], SegueError):
        await asyncio.sleep(0.01)
    assert await cpus(capacity) == Decimal(6)
    await capacity.close()


def test_a_node_that_does_not_answer_is_lost_until_it_answers() -> None:
    sums, taints = Sums(), [{"key": UNREACHABLE, "effect": "NoExecute"}]
    sums.replace_nodes([node("a"), node("b", taints=taints), node("c", taints=taints)])
    assert sums.lost == {"b", "c"}
    sums.put_node(node("b"))
    sums.drop_node("c")
    assert not sums.lost
    sums.put_node(node("a", taints=taints))
    sums.replace_nodes([node("a")])
    assert not sums.lost
