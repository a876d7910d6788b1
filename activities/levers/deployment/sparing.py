"""Spares the ready pods of superseded versions on the way back to the baseline.

They never count as available, so the controller would remove them before the newest version's unready pods, and go
under the floor (docs/decisions/0004-undo-after-retarget.md).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from activities.cluster import Cluster, Object
from activities.levers.controllers import is_observed
from activities.levers.deployment.reading import HOLD_MIN_READY_S, Objects, own_unavailable, pods_there, read_set
from activities.levers.ownership import replicas_of, selector_of
from activities.levers.template import fingerprint
from segue.errors import Conflict

Fetch = Callable[[], Awaitable[Objects | None]]
"""Reads the objects again; returns None if nothing may be written any more."""
_NOTICES_S, _AVAILABLE_S = 2.0, 5.0
_POLL_S = 0.01
_ATTEMPTS = 10


def left_undone(objects: Objects, baseline: str) -> list[tuple[Object, Object]]:
    """Return fields by which each ReplicaSet requests the pods that it has, if the baseline's has yet to remove some.

    A controller that is away has not removed them. When it is back, it would. The Deployment's controller, which scales
    that ReplicaSet up again, would still count them as ready, and remove as many of the other version.
    """
    there = pods_there(objects)
    keeps, stops = list[tuple[Object, Object]](), list[tuple[Object, Object]]()
    for each in objects.replicasets:
        has, requested = there[each["metadata"]["uid"]], each["spec"].get("replicas", 0)
        if fingerprint(each["spec"]["template"]) == baseline:
            kept = min(has, replicas_of(objects.deployment))
            keeps += [(each, {"replicas": kept})] if kept > requested else []
        else:
            stops += [(each, {"replicas": has})] if has < requested else []
    return [*keeps, *stops] if keeps else []


async def keep(cluster: Cluster, fetch: Fetch, baseline: str) -> int:
    """Let the baseline keep the pods that its controller has yet to remove; return the number of writes."""
    return await _patch_sets(cluster, fetch, lambda objects: left_undone(objects, baseline))


def removes_some(objects: Objects, superseded: list[Object]) -> bool:
    """Whether sparing these ReplicaSets removes unready pods: a paused controller would replace them.

    Only then is it resumed before the write that restores the baseline. Until that write, it acts on the present
    template, which may be somebody else's.
    """
    return any(_ready(each, objects) < each["spec"].get("replicas", 0) for each in superseded)


async def spare(cluster: Cluster, objects: Objects, superseded: list[Object]) -> None:
    """Make the ready pods of these ReplicaSets count as available, and remove the others.

    Raises:
        Conflict: when a ReplicaSet changed since it was read, or its controller does not react.
    """
    for replicaset in superseded:
        # Its unready pods are removed here, or the controller would remove ready ones in their place.
        await patch_set(cluster, replicaset, {"spec": {"minReadySeconds": 0, "replicas": _ready(replicaset, objects)}})
    if superseded:
        uids = {rs["metadata"]["uid"] for rs in superseded}
        await _await(cluster, objects.deployment, uids, _counts_as_available, _AVAILABLE_S)


async def make_room(cluster: Cluster, fetch: Fetch) -> int:
    """Remove the unready pods of other versions if fewer than the floor are ready; return the number of writes.

    The controller would replace them one after the other, at most ``maxSurge`` at a time. It never scales their
    ReplicaSets up again, because the Deployment wants another version.
    """

    def unready(objects: Objects) -> list[tuple[Object, Object]]:
        sets = [(each, read_set(each, objects.pods)) for each in objects.replicasets]
        if sum(own.ready for _, own in sets) >= _floor(objects.deployment):
            return []
        wanted = fingerprint(objects.deployment["spec"]["template"])
        return [
            (each, {"replicas": own.ready}) for each, own in sets if own.version != wanted and own.replicas > own.ready
        ]

    return await _patch_sets(cluster, fetch, unready)


async def count_as_available(cluster: Cluster, fetch: Fetch) -> int:
    """Let ready pods of other versions count as available; return the number of writes.

    A ReplicaSet that was held keeps the large ``minReadySeconds``. The controller takes its ready pods for broken ones:
    when somebody changes the template while it goes back, it removes them before the unready pods of that template.
    """

    def uncounted(objects: Objects) -> list[tuple[Object, Object]]:
        wanted = fingerprint(objects.deployment["spec"]["template"])
        fields = {"minReadySeconds": int(objects.deployment["spec"].get("minReadySeconds", 0))}
        held = [each for each in objects.replicasets if each["spec"].get("minReadySeconds") == HOLD_MIN_READY_S]
        own = [(each, read_set(each, objects.pods)) for each in held]
        return [(each, fields) for each, found in own if found.version != wanted and found.ready]

    return await _patch_sets(cluster, fetch, uncounted)


async def _patch_sets(cluster: Cluster, fetch: Fetch, choose: Callable[[Objects], list[tuple[Object, Object]]]) -> int:
    """Patch the chosen ReplicaSets, each with fields of its spec, until none is left; return the number of writes.

    Their controller writes them at this moment too: after a conflict it reads again.
    """
    writes = 0
    for _ in range(_ATTEMPTS):
        objects = await fetch()
        chosen = choose(objects) if objects is not None else []
        if not chosen:
            break
        with contextlib.suppress(Conflict):
            for replicaset, fields in chosen:
                await patch_set(cluster, replicaset, {"spec": fields})
                writes += 1
    return writes


def _ready(replicaset: Object, objects: Objects) -> int:
    return read_set(replicaset, objects.pods).ready


def _floor(deployment: Object) -> int:
    """Return how many replicas have to be ready by the Deployment's present strategy."""
    return replicas_of(deployment) - own_unavailable(deployment)


async def patch_set(cluster: Cluster, replicaset: Object, patch: Object) -> None:
    """Patch a ReplicaSet as it was read."""
    metadata = replicaset["metadata"]
    precondition = {"metadata": {"resourceVersion": metadata["resourceVersion"]}}
    await cluster.patch("replicasets", metadata["namespace"], metadata["name"], {**precondition, **patch})


async def await_noticed(cluster: Cluster, deployment: Object, uids: set[str]) -> None:
    """Wait until the controller of these ReplicaSets has noticed their present sizes.

    It reads them from where the Deployment's controller does. That one may notice a pause earlier than a new size, and
    a paused controller scales all ReplicaSets in proportion: by the former sizes, it would remove ready pods.

    Raises:
        Conflict: when it does not react.
    """
    await _await(cluster, deployment, uids, is_observed, _NOTICES_S)


async def _await(
    cluster: Cluster, deployment: Object, uids: set[str], reacted: Callable[[Object], bool], within_s: float
) -> None:
    try:
        async with asyncio.timeout(within_s):
            while True:
                found = await cluster.list("replicasets", deployment["metadata"]["namespace"], selector_of(deployment))
                if all(reacted(rs) for rs in found["items"] if rs["metadata"]["uid"] in uids):
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Conflict(f"the ReplicaSet controller did not react within {within_s:g} s") from error


def _counts_as_available(replicaset: Object) -> bool:
    """Whether the controller counts all ready pods as available."""
    status = replicaset.get("status", {})
    return is_observed(replicaset) and status.get("availableReplicas", 0) >= status.get("readyReplicas", 0)
