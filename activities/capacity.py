"""One summary for each worker of the nodes, and of what pods request on them.

Two watches keep the sums current, so no rollout lists the pods of the cluster. A worker that may list but not watch
lists again on demand, at most once in ``FRESH_S`` or in 20 times as long as the list took.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import lru_cache
from typing import ClassVar, NamedTuple

from kubernetes.utils.quantity import parse_quantity

from activities.cluster import Cluster, Object
from activities.exclusive import exclusive_of, is_exclusive
from activities.following import Followed, Kept
from segue.errors import Unreachable
from segue.room import Node

ALIVE = "status.phase!=Succeeded,status.phase!=Failed"
READ_S = 10.0
"""The time limit of a caller for the first list of nodes and pods."""
UNREACHABLE = "node.kubernetes.io/unreachable"
"""The taint of a node that does not answer."""
FRESH_S = 3.0
"""How long a list is used while nothing is watched."""

Numbers = dict[str, Decimal]
Amounts = tuple[tuple[str, Decimal], ...]


class Taken(NamedTuple):
    """What one pod takes of a node."""

    uid: str
    node: str
    """Empty while the pod is not scheduled."""
    amounts: Amounts
    """With 1 of each thing that no other pod of the node may take (``activities.exclusive``)."""


class Sums:
    """What the nodes have, and what their pods request of it. A change costs the same in a cluster of any size."""

    def __init__(self) -> None:
        self._nodes: dict[str, Object] = {}
        self.lost = set[str]()
        """The names of the nodes that do not answer."""
        self._pods: dict[str, Taken] = {}
        self._taken: dict[str, Numbers] = {}
        self._counted: dict[str, Node] = {}
        """The result for each node, until it or one of its pods changes."""

    def nodes(self) -> list[Node]:
        """Return every schedulable node, with what it has left."""
        return [self._node(name) for name, node in self._nodes.items() if not node["spec"].get("unschedulable")]

    def _node(self, name: str) -> Node:
        if name not in self._counted:
            self._counted[name] = node_of(self._nodes[name], self._taken.get(name, {}))
        return self._counted[name]

    def put_node(self, node: Object) -> None:
        """Add or replace a node."""
        name = node["metadata"]["name"]
        self._nodes[name] = node
        self._counted.pop(name, None)
        is_lost = any(taint.get("key") == UNREACHABLE for taint in node["spec"].get("taints", []))
        (self.lost.add if is_lost else self.lost.discard)(name)

    def drop_node(self, name: str) -> None:
        """Remove a node."""
        self._nodes.pop(name, None)
        self._counted.pop(name, None)
        self.lost.discard(name)

    def replace_nodes(self, nodes: list[Object]) -> None:
        """Take the complete list of nodes."""
        self._nodes, self._counted = {}, {}
        self.lost.clear()
        for node in nodes:
            self.put_node(node)

    def put_pod(self, pod: Taken) -> None:
        """Add or replace what a pod takes."""
        before = self._pods.get(pod.uid)
        if before == pod:
            return
        self.drop_pod(pod.uid)
        if pod.node:
            self._pods[pod.uid] = pod
            self._add(pod, 1)

    def drop_pod(self, uid: str) -> None:
        """Remove a pod."""
        before = self._pods.pop(uid, None)
        if before is not None:
            self._add(before, -1)

    def replace_pods(self, pods: list[Taken]) -> None:
        """Take the complete list of pods."""
        self._pods, self._taken, self._counted = {}, {}, {}
        for pod in pods:
            self.put_pod(pod)

    def _add(self, pod: Taken, sign: int) -> None:
        total = self._taken.setdefault(pod.node, {})
        for name, amount in pod.amounts:
            left = total.get(name, Decimal(0)) + sign * amount
            if left:
                total[name] = left
            else:
                total.pop(name, None)
        if not total:
            del self._taken[pod.node]
        self._counted.pop(pod.node, None)


class _OnDemand(Followed[Kept]):
    """A part of the summary. After an error it lists again only when somebody asks."""

    level: ClassVar[int] = logging.INFO
    """Most workers have no right to list nodes; lint reports it to the person whom it concerns."""

    def __init__(self, cluster: Cluster, kind: str, sums: Sums, fields: str = "") -> None:
        super().__init__(cluster, kind, fields=fields)
        self._sums = sums
        self._answered, self._wanted = asyncio.Event(), asyncio.Event()
        self._is_listed, self._took_s = False, 0.0

    async def answer(self) -> None:
        """Wait for the first list, and for a new one if the last is too old.

        Raises:
            NotAllowed, Unreachable.
        """
        if not self._answered.is_set():
            self._wanted.set()
            await self._answered.wait()
        if not self._is_listed and self.error is not None:
            raise self.error

    def moved(self) -> None:
        """Answer: it is listed, or that failed, or the watch failed after it."""
        self._is_listed |= self.current
        self._answered.set()

    async def pause(self, failures: int) -> None:
        """Use the last answer for a while, and then wait until somebody asks."""
        await asyncio.sleep(max(FRESH_S, 20 * self._took_s))
        self._answered.clear()
        self._wanted.clear()
        await self._wanted.wait()
        self._is_listed = False

    async def _list(self) -> str:
        began = time.monotonic()
        version = await super()._list()
        self._took_s = time.monotonic() - began
        return version


class _Nodes(_OnDemand[Object]):
    def keep(self, found: Object) -> Object:
        """Return only the fields that are needed to count the free room."""
        metadata, spec = found["metadata"], found["spec"]
        return {
            "metadata": {"name": metadata["name"], "labels": metadata.get("labels", {})},
            "spec": {name: spec[name] for name in ("unschedulable", "taints") if name in spec},
            "status": {"allocatable": found.get("status", {}).get("allocatable", {})},
        }

    def replace(self, kept: list[Object]) -> None:
        """Take all nodes."""
        self._sums.replace_nodes(kept)

    def apply(self, event: str, found: Object) -> None:
        """Take a node's change."""
        if event == "DELETED":
            self._sums.drop_node(found["metadata"]["name"])
        else:
            self._sums.put_node(self.keep(found))


class _Pods(_OnDemand[Taken]):
    def keep(self, found: Object) -> Taken:
        """Return what the pod takes."""
        return taken_by(found)

    def replace(self, kept: list[Taken]) -> None:
        """Take all pods."""
        self._sums.replace_pods(kept)

    def apply(self, event: str, found: Object) -> None:
        """Take a pod's change. A pod that ends leaves the watch's field selector: the event is DELETED."""
        if event == "DELETED":
            self._sums.drop_pod(found["metadata"]["uid"])
        else:
            self._sums.put_pod(taken_by(found))


class Capacity:
    """The nodes of the cluster with what they have left, for all rollouts of a worker."""

    def __init__(self, cluster: Cluster) -> None:
        self._sums = Sums()
        self._parts: tuple[_Nodes, _Pods] = (
            _Nodes(cluster, "nodes", self._sums),
            _Pods(cluster, "pods", self._sums, ALIVE),
        )
        self._is_started = False

    async def nodes(self) -> list[Node]:
        """Return every schedulable node, with what it has left. The first call starts the watches.

        Raises:
            NotAllowed: if the worker may not list nodes or all pods.
            Unreachable: also if they could not be read within ``READ_S``.
        """
        if not self._is_started:
            self._is_started = True
            for part in self._parts:
                part.start()
        try:
            async with asyncio.timeout(READ_S):
                for part in self._parts:
                    await part.answer()
        except TimeoutError:
            raise Unreachable(f"nodes and pods of the cluster could not be read within {READ_S:g} s") from None
        return self._sums.nodes()

    @property
    def lost(self) -> Collection[str]:
        """The names of the nodes that do not answer. It is empty until a watch has read the nodes."""
        return self._sums.lost if self._parts[0].current else ()

    async def close(self) -> None:
        """Stop the watches."""
        for part in self._parts:
            await part.stop()


@asynccontextmanager
async def counting(cluster: Cluster) -> AsyncIterator[Capacity]:
    """Yield a summary, and stop it after the block."""
    capacity = Capacity(cluster)
    try:
        yield capacity
    finally:
        await capacity.close()


def node_of(node: Object, taken: Mapping[str, Decimal]) -> Node:
    """Return a node with what it has left."""
    allocatable = numbers_of(node.get("status", {}).get("allocatable", {}))
    free = {name: amount - taken.get(name, Decimal(0)) for name, amount in allocatable.items()}
    metadata, taints = node["metadata"], tuple(node["spec"].get("taints", []))
    exclusive = frozenset(filter(is_exclusive, taken))
    return Node(metadata["name"], metadata.get("labels", {}), taints, free, allocatable, exclusive)


def taken_by(pod: Object) -> Taken:
    """Return what a pod takes of its node: its requests, one place, and what only one pod there may take."""
    metadata, spec = pod["metadata"], pod["spec"]
    exclusive = exclusive_of(spec, metadata.get("labels", {}), metadata.get("namespace", ""))
    amounts = {**requested(spec, "requests"), "pods": Decimal(1), **dict.fromkeys(exclusive, Decimal(1))}
    return Taken(metadata["uid"], spec.get("nodeName", ""), _shared(tuple(sorted(amounts.items()))))


@lru_cache(maxsize=4096)
def _shared(amounts: Amounts) -> Amounts:
    """Return one object for equal amounts: most pods of a cluster request the same as many others."""
    return amounts


def requested(pod: Object, kind: str) -> Numbers:
    """Return what the scheduler counts for a pod's spec: its containers, or the largest init container.

    ``kind`` is ``requests`` or ``limits``.
    """
    total: Numbers = {}
    peak: Numbers = {}
    for container in pod.get("initContainers", []):
        own = _of(container, kind)
        if container.get("restartPolicy") == "Always":  # a sidecar: it stays
            _add(total, own)
            own = {}
        for name in {*total, *own}:
            peak[name] = max(peak.get(name, Decimal(0)), total.get(name, Decimal(0)) + own.get(name, Decimal(0)))
    for container in pod.get("containers", []):
        _add(total, _of(container, kind))
    amounts = {name: max(total.get(name, Decimal(0)), peak.get(name, Decimal(0))) for name in {*total, *peak}}
    # Set for the pod as a whole. There, a limit is the request only of what no container requests.
    whole = pod.get("resources") or {}
    amounts = {**numbers_of(whole.get("limits") or {}), **amounts} if kind == "requests" else amounts
    amounts |= numbers_of(whole.get(kind) or {})
    _add(amounts, numbers_of(pod.get("overhead", {})))
    return amounts


def _of(found: Object, kind: str) -> Numbers:
    """Return a container's requests or limits; a limit without a request counts as the request."""
    resources = found.get("resources") or {}
    limits = resources.get("limits") or {}
    return numbers_of(limits if kind == "limits" else {**limits, **(resources.get("requests") or {})})


def numbers_of(quantities: Mapping[str, str]) -> Numbers:
    """Return amounts as numbers."""
    return {name: _number(text) for name, text in quantities.items()}


@lru_cache(maxsize=4096)
def _number(text: str) -> Decimal:
    return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]


def _add(total: Numbers, more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount
