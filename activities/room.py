"""Counts the room for more replicas: what nodes and quotas have left, and what a pod requests of them."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

from activities.capacity import FRESH_S, Capacity, numbers_of, requested
from activities.cluster import Cluster, Object
from activities.exclusive import exclusive_of
from segue.errors import NotAllowed, NotFound, Unreachable
from segue.room import Demand, Node, Quota, Room, Scope, room_for

_NO_LABELS: Mapping[str, str] = {}


class Rooms:
    """Counts room for the rollouts of a worker; many rollouts share one count."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.capacity = Capacity(cluster)
        """The nodes of the cluster; lint reads it too."""
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

    async def lost_nodes(self) -> Collection[str] | None:
        """Return the nodes that do not answer, read now if they were not. Returns None if they cannot be read."""
        nodes = await self._nodes()
        return None if nodes is None else self.capacity.lost

    async def close(self) -> None:
        """Cancel all counts in progress, and stop the watches of the cluster."""
        for task in self._counting.values():
            task.cancel()
        await asyncio.gather(*self._counting.values(), return_exceptions=True)
        await self.capacity.close()

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
            return await self.capacity.nodes()
        except (NotAllowed, Unreachable):
            return None

    async def _quotas(self, namespace: str) -> list[Quota]:
        try:
            return quotas_of((await self._cluster.list("resourcequotas", namespace))["items"])
        except (NotAllowed, NotFound, Unreachable):
            return []


def demand_of(pod: Object, labels: Mapping[str, str] = _NO_LABELS, namespace: str = "") -> Demand:
    """Return what a pod with these labels requests, and which nodes may take it."""
    return Demand(
        requests=requested(pod, "requests"),
        limits=requested(pod, "limits"),
        node_selector=pod.get("nodeSelector", {}),
        tolerations=tuple(pod.get("tolerations", ())),
        priority_class=pod.get("priorityClassName", ""),
        exclusive=exclusive_of(pod, labels, namespace),
    )


def quotas_of(quotas: Sequence[Object]) -> list[Quota]:
    """Return what each quota leaves for serving pods."""
    return [_quota(quota) for quota in quotas]


def _scopes(spec: Object) -> tuple[Scope, ...]:
    selected = spec.get("scopeSelector", {}).get("matchExpressions", [])
    by_selector = (Scope(each["scopeName"], each["operator"], tuple(each.get("values", []))) for each in selected)
    return (*map(Scope, spec.get("scopes", [])), *by_selector)


def _quota(quota: Object) -> Quota:
    status = quota.get("status", {})
    hard, used = numbers_of(status.get("hard") or quota["spec"].get("hard", {})), numbers_of(status.get("used", {}))
    left = {name: most - used.get(name, Decimal(0)) for name, most in hard.items()}
    return Quota(quota["metadata"]["name"], left, hard, _scopes(quota["spec"]))
