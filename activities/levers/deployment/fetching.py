"""Reads a Deployment afresh, with its ReplicaSets and pods; ``reading`` makes an observation of them."""

import asyncio
import time
from typing import NamedTuple

from activities.cluster import Cluster, Object
from activities.levers.deployment.reading import Objects
from activities.levers.ownership import selector_of
from activities.watching import controller_uid
from segue.spec import Target

_FRESH_S = 0.2
"""Pods that were listed longer ago are listed again before a write."""


class Matched(NamedTuple):
    """The objects that the target's selector matches, whoever owns them."""

    selector: str
    replicasets: list[Object]
    pods: list[Object]


async def read_with_pods(cluster: Cluster, deployment: Object) -> Objects:
    """Read the ReplicaSets and pods of a Deployment that was read already."""
    return _own(deployment, await _listed(cluster, deployment["metadata"]["namespace"], selector_of(deployment)))


async def _listed(cluster: Cluster, namespace: str, selector: str) -> Matched:
    found = await asyncio.gather(
        cluster.list("replicasets", namespace, selector), cluster.list("pods", namespace, selector)
    )
    return Matched(selector, *(each["items"] for each in found))


def _own(deployment: Object, listed: Matched) -> Objects:
    """Return a Deployment with the listed objects that it owns."""
    own = [rs for rs in listed.replicasets if controller_uid(rs) == deployment["metadata"]["uid"]]
    owners = {rs["metadata"]["uid"] for rs in own}
    return Objects(deployment, own, [p for p in listed.pods if controller_uid(p) in owners])


class Fetcher:
    """Reads Deployments by requests to the API server."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._selectors: dict[Target, str] = {}

    async def fetch(self, target: Target) -> Objects:
        """Read the Deployment with its ReplicaSets and pods.

        Reads the Deployment last: the shorter the time between reading and writing it, the fewer conflicts. If the
        API server delays that, pods may have changed since they were listed, and the Deployment's version does not
        show it: then lists them again.
        """
        began = time.monotonic()
        objects = await self.completed(target, await self.listed(target))
        if time.monotonic() - began < _FRESH_S:
            return objects
        return _own(objects.deployment, await self.listed(target))

    async def listed(self, target: Target) -> Matched:
        """Read the ReplicaSets and pods that its selector matches."""
        return await _listed(self._cluster, target.namespace, await self._selector(target))

    async def completed(self, target: Target, listed: Matched) -> Objects:
        """Read the Deployment too, and return it with the listed objects that it owns."""
        deployment = await self._cluster.get("deployments", target.namespace, target.name)
        if selector_of(deployment) != listed.selector:  # it was deleted, and created again with another selector
            del self._selectors[target]
            return await self.fetch(target)
        return _own(deployment, listed)

    async def with_sets(self, target: Target) -> tuple[Object, list[Object]]:
        """Read the ReplicaSets and then the Deployment, and return it with its own ones."""
        found = await self._cluster.list("replicasets", target.namespace, await self._selector(target))
        deployment = await self._cluster.get("deployments", target.namespace, target.name)
        uid = deployment["metadata"]["uid"]
        return deployment, [each for each in found["items"] if controller_uid(each) == uid]

    async def _selector(self, target: Target) -> str:
        """Return the target's label selector, which is immutable; each worker reads it once."""
        if target not in self._selectors:
            self._selectors[target] = selector_of(await self._cluster.get("deployments", target.namespace, target.name))
        return self._selectors[target]
