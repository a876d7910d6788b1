"""Takes replicas out of their Services before they stop, if no ``preStop`` hook bridges that time.

A pod whose Ready condition is False leaves every Service at once, and still serves the requests that reach it. Its
kubelet reports the true condition again within about ten seconds, so an unfinished drain undoes itself.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

from activities.cluster import Cluster, Object
from activities.levers.deployment.reading import Objects
from activities.levers.pods import DELETION_COST, DRAINING, FIRST, goes_first, is_active, is_ready
from activities.levers.template import fingerprint, stopping_of
from activities.standstill import STOOD_S, standstill_during
from activities.watching import controller_uid
from segue.errors import NotFound
from segue.spec import Drain
from segue.state import State

POLL_S = 0.1

log = logging.getLogger(__name__)


def next_to_stop(objects: Objects, state: State, kept: int, *, hooked: bool = False) -> list[str]:
    """Return the ready pods without hooks among all old ones but ``kept``; with ``hooked``, all ready ones.

    The controller removes replicas without a pod and unready pods first, then those of superseded versions; of two
    equal pods it removes the one that Segue marked.
    """
    old = [rs for rs in objects.replicasets if fingerprint(rs["spec"]["template"]) != state.wanted.template]
    rank = {
        rs["metadata"]["uid"]: (fingerprint(rs["spec"]["template"]) == state.baseline.template, at)
        for at, rs in enumerate(sorted(old, key=lambda rs: str(rs["metadata"].get("creationTimestamp", ""))))
    }
    pods = [p for p in objects.pods if controller_uid(p) in rank and is_active(p)]
    going = sorted(pods, key=lambda p: (is_ready(p), rank[controller_uid(p) or ""], not goes_first(p)))
    going = going[: max(0, len(pods) - kept)]
    return [p["metadata"]["name"] for p in going if is_ready(p) and (hooked or not _has_hooks(p))]


def _has_hooks(pod: Object) -> bool:
    return all(hook.has_pre_stop for hook in stopping_of(pod).hooks)


async def leave_services(cluster: Cluster, namespace: str, names: Collection[str], drain: Drain) -> str:
    """Take pods out of all Services; return when they are out for the quiet time, or at the deadline.

    Returns a warning about Services that they cannot leave; empty without any.
    """
    ends_at = time.monotonic() + drain.longest.total_seconds()
    out_since: float | None = None
    while time.monotonic() < ends_at:
        is_out, stood_s = await standstill_during(_soon_out(cluster, namespace, names))
        if stood_s > STOOD_S:  # this worker did not run: their kubelets restored readiness, and they serve again
            ends_at, out_since = ends_at + stood_s, None
        elif not is_out:
            out_since = None
        else:
            out_since = out_since or time.monotonic()
            # With ``until`` they were out and empty for that time already: here they only must still be out.
            if drain.until is not None or time.monotonic() - out_since >= drain.quiet.total_seconds():
                break
    else:
        log.warning("%s: these replicas did not leave their Services in time: %s", namespace, ", ".join(sorted(names)))
    slices = await cluster.list("endpointslices", namespace)
    return _told(keeping_unready(slices["items"], names))


async def _soon_out(cluster: Cluster, namespace: str, names: Collection[str]) -> bool:
    await asyncio.sleep(POLL_S)
    return await are_out(cluster, namespace, names)


async def are_out(cluster: Cluster, namespace: str, names: Collection[str]) -> bool:
    """Whether no Service has them as ready endpoints; marks again the pods that their kubelets reset."""
    pods, slices = await asyncio.gather(cluster.list("pods", namespace), cluster.list("endpointslices", namespace))
    back = [p["metadata"]["name"] for p in pods["items"] if p["metadata"]["name"] in names and is_ready(p)]
    await asyncio.gather(*(_mark(cluster, namespace, name) for name in back))
    return not back and not serving(slices["items"]) & set(names)


def serving(slices: Iterable[Object]) -> set[str]:
    """Return the pods that Services lead to because they are ready."""
    return {name for _, name, conditions in _ready_endpoints(slices) if conditions.get("serving", True)}


def keeping_unready(slices: Iterable[Object], names: Collection[str]) -> list[str]:
    """Return the Services that lead to pods whether they are ready or not (``publishNotReadyAddresses``)."""
    found = _ready_endpoints(slices)
    return sorted({each for each, name, state in found if name in names and not state.get("serving", True)})


def _ready_endpoints(slices: Iterable[Object]) -> Iterator[tuple[str, str, Object]]:
    """Yield (Service, pod, conditions) of each endpoint that gets requests."""
    for found in slices:
        service = found["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
        for endpoint in found.get("endpoints") or []:
            if endpoint.get("conditions", {}).get("ready"):
                yield service, endpoint.get("targetRef", {}).get("name", ""), endpoint["conditions"]


def _told(services: Collection[str]) -> str:
    if not services:
        return ""
    return (
        f"service {', '.join(services)} publishes the addresses of pods that are not ready (publishNotReadyAddresses), "
        "so drain takes no replica out of it: requests by it may be lost; let users take another Service, or add a "
        "preStop hook"
    )


async def _mark(cluster: Cluster, namespace: str, name: str) -> None:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": DRAINING,
        "message": "Segue takes the pod out of its Services before it stops the pod",
        "lastTransitionTime": datetime.fromtimestamp(cluster.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    # Of two Ready pods the controller also removes this one, if the kubelet resets Ready at the last moment.
    first = {"metadata": {"annotations": {DELETION_COST: FIRST}}}
    try:
        await cluster.patch("pods/status", namespace, name, {**first, "status": {"conditions": [condition]}})
    except NotFound:
        return  # it is deleted already
