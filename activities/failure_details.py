"""Adds details to a failure: the last lines of a log, a probe's message, the memory observed.

The worker requests them just before it reports the failure, not at each observation. Details that it may not read
(``deploy/rbac-serving.yaml``), or that do not arrive in time, are left out: the failure is reported anyway.
"""

import asyncio
import logging
from collections.abc import Iterable

from activities import autoscaling
from activities.cluster import Cluster, Object
from activities.ended_pods import seconds_of
from activities.events import happened
from activities.memory_peak import Peaks
from segue.errors import SegueError
from segue.failures import culprit, with_event, with_log, with_peak, with_probe, with_warning
from segue.masking import tail
from segue.observation import Cause, Observation, Problem
from segue.replica import ContainerFacts, Replica
from segue.spec import SupervisedTarget, Target

LIMIT_S = 3.5
"""A watch that has something to report must not be delayed for longer."""
SKEW_S = 5.0
"""Events have whole seconds, and times from another machine's clock."""
_PASSES = "the object has been modified"
"""Part of the message of an operator that lost a race with another writer, and will try again."""
_LINES = 10
_ENDED = {Cause.CRASH_LOOP, Cause.RESTARTED, Cause.OUT_OF_MEMORY}
_PROBED = {Cause.UNREADY, Cause.RESTARTED, Cause.DEADLINE}

_STARTING = {Cause.UNREADY, Cause.DEADLINE}
_UNSTARTED = {
    "FailedAttachVolume", "FailedMount", "FailedMapVolume", "FailedMountOnFilesystemMismatch",
    "FailedCreatePodSandBox", "FailedCreatePodContainer", "NetworkNotReady", "FailedPrepareDynamicResources",
}  # fmt: skip
"""Reasons of events (``pkg/kubelet/events``): a volume cannot be attached or mounted, or the pod gets no network,
address, runtime or devices."""

_KILLING = {"Liveness", "Startup"}
"""Probes whose failure ends a container."""

log = logging.getLogger(__name__)


async def explained(
    cluster: Cluster, peaks: Peaks, namespace: str, problem: Problem, seen: Observation
) -> Problem:  # fmt: skip
    """Return the problem with details from its replica's log and events, and from a Prometheus."""
    replica = next((r for r in (*seen.pods.new, *seen.pods.beside) if r.name == problem.replica), None)
    if replica is None:
        return problem
    try:
        async with asyncio.timeout(LIMIT_S):
            if problem.cause in _PROBED:
                kinds = _KILLING if problem.cause is Cause.RESTARTED else _KILLING | {"Readiness"}
                problem = with_probe(problem, await _probe_message(cluster, namespace, replica, kinds))
            if problem.cause in _STARTING and replica.ready_since is None:
                problem = with_event(problem, await _unstarted_message(cluster, namespace, replica))
            if problem.cause is Cause.OUT_OF_MEMORY:
                problem = with_peak(problem, await _most_seen(peaks, namespace, replica, culprit(problem, replica)))
            if problem.cause in _ENDED:
                problem = with_log(problem, await _last_words(cluster, namespace, replica, culprit(problem, replica)))
    except (SegueError, TimeoutError) as error:
        log.info("no further details of %s/%s: %s", namespace, replica.name, error)
    return problem


async def warned(cluster: Cluster, target: Target, problem: Problem, since: float) -> Problem:
    """Return the problem with the latest warning about the target itself since ``since`` (seconds since the epoch).

    Only such a warning shows that KServe cannot carry out a change, or that no ReplicaSet can be created.
    """
    aims = sorted(autoscaling.aims_of(target))
    try:
        async with asyncio.timeout(LIMIT_S):
            found = [event for aim in aims for event in await cluster.warnings(target.namespace, *aim)]
    except (SegueError, TimeoutError) as error:
        log.info("no events of %s: %s", target, error)
        return problem
    recent = [e for e in found if seconds_of(happened(e)) >= since - SKEW_S and _PASSES not in str(e.get("message"))]
    if not recent:
        return problem
    latest = max(recent, key=happened)
    who = "its operator" if isinstance(target, SupervisedTarget) else "its controller"
    return with_warning(problem, who, f"{latest.get('reason', '')}: {latest.get('message', '')}")


async def _most_seen(peaks: Peaks, namespace: str, replica: Replica, killed: ContainerFacts | None) -> str:
    return await peaks.seen(namespace, killed.pod or replica.name, killed.name) if killed else ""


async def _last_words(cluster: Cluster, namespace: str, replica: Replica, container: ContainerFacts | None) -> str:
    """Return the last lines of the log of the container that ended."""
    if container is None:
        return ""
    pod = container.pod or replica.name
    lines = await cluster.pod_log(namespace, pod, container.name, previous=_runs_again(container), lines=_LINES)
    return tail(lines, _LINES)


def _runs_again(container: ContainerFacts) -> bool:
    """Return whether the run that ended is the previous one."""
    return container.restarts > 0 and not container.waiting


async def _probe_message(cluster: Cluster, namespace: str, replica: Replica, kinds: set[str]) -> str:
    """Return the latest failure of a probe of these kinds. The kubelet's message begins with the kind."""
    own = await _events(cluster, namespace, replica, "Unhealthy")
    mine = [e for e in own if str(e.get("message", "")).partition(" ")[0] in kinds]
    return str(max(mine, key=happened)["message"]) if mine else ""


async def _unstarted_message(cluster: Cluster, namespace: str, replica: Replica) -> str:
    return unstarted(await cluster.warnings(namespace, "Pod", replica.name), replica.uid)


def unstarted(warnings: Iterable[Object], uid: str) -> str:
    """Return the latest of these events that tells why the pod with this uid does not start on its node."""
    own = (each for each in warnings if each.get("involvedObject", {}).get("uid") == uid)
    latest = max((each for each in own if each.get("reason") in _UNSTARTED), key=happened, default=None)
    return f"{latest['reason']}: {latest.get('message', '')}" if latest else ""


async def _events(cluster: Cluster, namespace: str, replica: Replica, reason: str) -> list[Object]:
    found = await cluster.events(namespace, replica.name, reason)
    return [e for e in found if e.get("involvedObject", {}).get("uid") == replica.uid]
