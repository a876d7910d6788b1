"""Takes replicas out of their Services before they are told to stop, where no ``preStop`` hook bridges that time.

A pod whose status says that it is not Ready leaves every Service at once, and goes on serving what still reaches it.
Its kubelet reports the truth again within about ten seconds, so that what is begun here and not ended undoes itself.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from datetime import UTC, datetime

from activities.cluster import Cluster, Object
from activities.levers.deployment.reading import Objects
from activities.levers.pods import DELETION_COST, DRAINING, FIRST, goes_first, is_active, is_ready
from activities.levers.template import fingerprint, stopping_of
from activities.watching import controller_uid
from segue.errors import NotFound
from segue.spec import Drain
from segue.state import State

POLL_S = 0.1

log = logging.getLogger(__name__)


def next_to_stop(objects: Objects, state: State, number: int, *, hooked: bool = False) -> list[str]:
    """Name the pods, of ``number`` that go next, which serve and have no hook of their own, or any with ``hooked``.

    The controller takes unready ones first, then those of superseded versions; of two that are alike it takes the one
    that is marked here.
    """
    old = [rs for rs in objects.replicasets if fingerprint(rs["spec"]["template"]) != state.wanted.template]
    rank = {
        rs["metadata"]["uid"]: (fingerprint(rs["spec"]["template"]) == state.baseline.template, at)
        for at, rs in enumerate(sorted(old, key=lambda rs: str(rs["metadata"].get("creationTimestamp", ""))))
    }
    pods = [p for p in objects.pods if controller_uid(p) in rank and is_active(p)]
    going = sorted(pods, key=lambda p: (is_ready(p), rank[controller_uid(p) or ""], not goes_first(p)))[:number]
    return [p["metadata"]["name"] for p in going if is_ready(p) and (hooked or not _has_hooks(p))]


def _has_hooks(pod: Object) -> bool:
    return all(hook.has_pre_stop for hook in stopping_of(pod).hooks)


async def leave_services(cluster: Cluster, namespace: str, names: Collection[str], drain: Drain) -> None:
    """Take pods out of all Services, and return when none has known them for the quiet time, or it took too long."""
    ends_at = time.monotonic() + drain.longest.total_seconds()
    out_since: float | None = None
    while time.monotonic() < ends_at:
        if await are_out(cluster, namespace, names):
            out_since = out_since or time.monotonic()
            # With ``until`` they have been out and empty for that time already: they only must be so still.
            if drain.until is not None or time.monotonic() - out_since >= drain.quiet.total_seconds():
                return
        else:
            out_since = None
        await asyncio.sleep(POLL_S)
    log.warning("%s: these replicas did not leave their Services in time: %s", namespace, ", ".join(sorted(names)))


async def are_out(cluster: Cluster, namespace: str, names: Collection[str]) -> bool:
    """Whether no Service knows them as ready; what their kubelets have put right is said again."""
    pods, slices = await asyncio.gather(cluster.list("pods", namespace), cluster.list("endpointslices", namespace))
    back = [p["metadata"]["name"] for p in pods["items"] if p["metadata"]["name"] in names and is_ready(p)]
    await asyncio.gather(*(_mark(cluster, namespace, name) for name in back))
    endpoints = [e for found in slices["items"] for e in found.get("endpoints") or []]
    served = {e.get("targetRef", {}).get("name") for e in endpoints if e.get("conditions", {}).get("ready")}
    return not back and not served & set(names)


async def _mark(cluster: Cluster, namespace: str, name: str) -> None:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": DRAINING,
        "message": "Segue takes the pod out of its Services before it stops the pod",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    # Of two that are Ready the controller takes this one, too: where its kubelet puts Ready right at the last moment.
    first = {"metadata": {"annotations": {DELETION_COST: FIRST}}}
    try:
        await cluster.patch("pods/status", namespace, name, {**first, "status": {"conditions": [condition]}})
    except NotFound:
        return  # it went by itself
