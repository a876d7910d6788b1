"""Reads what nodes and quotas have left, and what a pod requests of them."""

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from activities.cluster import Cluster, Object
from segue.errors import NotAllowed, NotFound, Unreachable
from segue.room import Demand, Node, Quota, Room, room_for

ALIVE = "status.phase!=Succeeded,status.phase!=Failed"
READ_S = 10.0
"""The time limit for reading nodes and pods; beyond it the room is unknown."""
FRESH_S = 3.0
"""How long a count is used, or 20 times as long as the counting took if that is longer."""
_SCOPES_OF_SERVERS = {"NotTerminating"}

Numbers = dict[str, Decimal]


class Rooms:
    """Counts room for the rollouts of a worker; many rollouts share one count."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._counting: dict[tuple[str, str], asyncio.Task[Room]] = {}
        self._stale_at: dict[tuple[str, str], float] = {}

    async def count(self, namespace: str, demand: Demand, patience_s: float) -> Room | None:
        """Return the room for more replicas in a namespace. Returns None while it is being counted."""
        key = (namespace, demand.model_dump_json())
        task = self._counting.get(key)
        if task is None or (task.done() and time.monotonic() >= self._stale_at[key]):
            self._forget_stale()
            task = self._counting[key] = asyncio.create_task(self._count(key, demand), name=f"room-{namespace}")
        done, _ = await asyncio.wait({task}, timeout=patience_s)
        return task.result() if done else None

    async def close(self) -> None:
        """Cancel all counts in progress."""
        for task in self._counting.values():
            task.cancel()
        await asyncio.gather(*self._counting.values(), return_exceptions=True)

    def _forget_stale(self) -> None:
        now = time.monotonic()
        for key in [k for k, task in self._counting.items() if task.done() and now >= self._stale_at[k]]:
            del self._counting[key], self._stale_at[key]

    async def _count(self, key: tuple[str, str], demand: Demand) -> Room:
        began = time.monotonic()
        try:
            nodes, quotas = await asyncio.gather(self._nodes(), self._quotas(key[0]))
        finally:
            now = time.monotonic()
            self._stale_at[key] = now + max(FRESH_S, 20 * (now - began))
        return room_for(demand, nodes, quotas)

    async def _nodes(self) -> list[Node] | None:
        try:
            async with asyncio.timeout(READ_S):
                nodes = await self._cluster.list_everywhere("nodes")
                pods = await self._cluster.list_everywhere("pods", ALIVE)
        except (NotAllowed, Unreachable, TimeoutError):
            return None
        return nodes_of(nodes["items"], pods["items"])

    async def _quotas(self, namespace: str) -> list[Quota]:
        try:
            return quotas_of((await self._cluster.list("resourcequotas", namespace))["items"])
        except (NotAllowed, NotFound, Unreachable):
            return []


def demand_of(pod: Object) -> Demand:
    """Return what a pod requests, and which nodes may take it."""
    return Demand(
        requests=_asked(pod, "requests"),
        limits=_asked(pod, "limits"),
        node_selector=pod.get("nodeSelector", {}),
        tolerations=tuple(pod.get("tolerations", ())),
    )


def nodes_of(nodes: Sequence[Object], pods: Sequence[Object]) -> list[Node]:
    """Return every schedulable node, with what it has left."""
    taken: dict[str, Numbers] = {}
    for pod in pods:
        asked = {**_asked(pod["spec"], "requests"), "pods": Decimal(1)}
        _add(taken.setdefault(pod["spec"].get("nodeName", ""), {}), asked)
    taking = [node for node in nodes if not node["spec"].get("unschedulable")]
    return [_node(node, taken.get(node["metadata"]["name"], {})) for node in taking]


def _node(node: Object, taken: Numbers) -> Node:
    allocatable = _numbers(node.get("status", {}).get("allocatable", {}))
    free = {name: amount - taken.get(name, Decimal(0)) for name, amount in allocatable.items()}
    metadata = node["metadata"]
    taints = tuple(node["spec"].get("taints", []))
    return Node(metadata["name"], metadata.get("labels", {}), taints, free, allocatable)


def quotas_of(quotas: Sequence[Object]) -> list[Quota]:
    """Return what each quota leaves for serving pods."""
    return [_quota(quota) for quota in quotas if _counts_servers(quota)]


def _counts_servers(quota: Object) -> bool:
    """Whether a quota counts every serving pod, and not only those of some priority or class."""
    spec = quota["spec"]
    return set(spec.get("scopes", [])) <= _SCOPES_OF_SERVERS and not spec.get("scopeSelector")


def _quota(quota: Object) -> Quota:
    status = quota.get("status", {})
    hard, used = _numbers(status.get("hard") or quota["spec"].get("hard", {})), _numbers(status.get("used", {}))
    return Quota(quota["metadata"]["name"], {name: most - used.get(name, Decimal(0)) for name, most in hard.items()})


def _asked(pod: Object, kind: str) -> Numbers:
    """Return what the scheduler counts for a pod: its containers, or the largest init container."""
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
    asked = {name: max(total.get(name, Decimal(0)), peak.get(name, Decimal(0))) for name in {*total, *peak}}
    asked |= _of(pod, kind)  # set for the pod as a whole
    _add(asked, _numbers(pod.get("overhead", {})))
    return asked


def _of(found: Object, kind: str) -> Numbers:
    """Return a container's requests or limits; a limit without a request counts as the request."""
    resources = found.get("resources") or {}
    limits = resources.get("limits") or {}
    return _numbers(limits if kind == "limits" else {**limits, **(resources.get("requests") or {})})


def _numbers(quantities: dict[str, str]) -> Numbers:
    return {name: Decimal(parse_quantity(text)) for name, text in quantities.items()}  # type: ignore[no-untyped-call]


def _add(total: Numbers, more: Numbers) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount
