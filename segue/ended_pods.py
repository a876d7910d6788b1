"""Pods that ended: whether their version is the reason, and when there are too many. Pure.

A replica's pod should never end. A ReplicaSet replaces it at once, and leaves the ended pod in place.
"""

import re
from collections.abc import Iterable, Sequence

from segue.failures import diagnose, worst
from segue.gates.serving_answers import bounded
from segue.observation import Cause, Problem
from segue.replica import Ended, Replica, passed_after
from segue.units import counted

MAX_REJECTED = 2
"""How many pods in a row may be rejected before they run: the kubelet of a new node rejects some."""

# Reasons of a pod's status: pkg/kubelet (nodeshutdown, preemption, lifecycle/predicate.go).
_NODES_OWN = frozenset(
    {"NodeShutdown", "Shutdown", "Terminated", "NodeLost", "Preempting", "Preempted", "NodeAffinity"}
)
# Reasons of a pod's condition DisruptionTarget: somebody else removed it.
_TAKEN = frozenset({"PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI", "DeletionByPodGC"})
# pkg/kubelet/eviction/helpers.go: a node lacks a resource, and these containers use more than they requested.
_SHORT = re.compile(r"^(?:Pod was rejected: )?The node (?:was low on resource|had condition)")
_OUTGROWN = re.compile(r"was using \S+, request is (\S+), has larger consumption")
_REJECTED = re.compile(r"^(?:OutOf|UnexpectedAdmissionError|TopologyAffinityError|NodePorts|NodeName|PodOS)")


def is_own(ended: Ended) -> bool:
    """Whether an end counts against the pod's version.

    =============================================================  ===========
    evicted for more than its own limit                            its own
    evicted from a node that is short, above what it requested     its own
    rejected by the kubelet, out of its activeDeadlineSeconds      its own
    evicted from a node that is short, within what it requested    the node's
    preempted, or its node is drained, lost or shut down           the node's
    =============================================================  ===========
    """
    if ended.disruption in _TAKEN or ended.reason in _NODES_OWN:
        return False
    if ended.reason == "Evicted" and _SHORT.search(ended.message):
        # A container that requests none of it exceeds its request with the first byte: no evidence.
        return any(requested != "0" for requested in _OUTGROWN.findall(ended.message))
    return True


def taken_at(ended: Iterable[Ended]) -> float:
    """Return when a pod of a version was last taken for another reason than its version; 0 if none was.

    In seconds since the epoch. The replica in its place starts over, so the deadline does too.
    """
    return max((each.disrupted_at for each in ended if not is_own(each)), default=0.0)


def judged(
    replicas: Sequence[Replica], ended: Iterable[Ended], max_restarts: int, began_at: float, *more: Problem | None,
    others: Sequence[Replica] = (),
) -> Problem | None:  # fmt: skip
    """Return the worst problem of one version: of its replicas, of its pods that ended, or one of ``more``.

    ``others`` are the replicas of other versions: what happens there too is not this version's fault.
    """
    passed = passed_after((*replicas, *others))
    problems = (diagnose(replica, max_restarts, passed) for replica in replicas)
    return worst((*more, *problems, ended_problem(ended, replicas, max_restarts, began_at)))


def ended_problem(
    ended: Iterable[Ended], replicas: Sequence[Replica], max_restarts: int, began_at: float
) -> Problem | None:
    """Return the problem that one version's ended pods since ``began_at`` show; None if they show none.

    An end counts like a restart. Pods that never ran fail the version if more than ``MAX_REJECTED`` are rejected, with
    no replica ready since.
    """
    # Kubernetes writes whole seconds, rounded down.
    mine = sorted((e for e in ended if e.made_at + 1 > began_at), key=lambda e: (e.made_at, e.name))
    own = [e for e in mine if is_own(e)]
    ready_at = max((r.ready_since for r in replicas if r.ready_since is not None), default=0.0)
    ran = [e for e in own if not _is_rejected(e)]
    rejected = [e for e in own if _is_rejected(e) and e.made_at >= ready_at]
    hopeless = len(ran) > max_restarts or len(rejected) > MAX_REJECTED
    others = [e for e in mine if not is_own(e)]
    if not hopeless and all(r.ready_since is not None for r in replicas):
        return None
    if ran or rejected:
        return _problem((ran or rejected)[-1], len(own), mine, hopeless=hopeless)
    note = "; that is not held against the version"
    return _problem(others[-1], len(others), mine, hopeless=False, note=note) if others else None


def _is_rejected(ended: Ended) -> bool:
    return bool(_REJECTED.match(ended.reason)) or ended.message.startswith("Pod was rejected")


def _problem(latest: Ended, number: int, mine: Sequence[Ended], *, hopeless: bool, note: str = "") -> Problem:
    reason = bounded(": ".join(filter(None, (latest.reason or latest.disruption, latest.message))) or "it ended")
    also = f"; {number} pods of this version ended so far" if number > 1 else ""
    left = sum(e.is_left for e in mine)
    litter = f"; {counted(left, 'Failed pod')} of it remain{'s' if left == 1 else ''}" if left else ""
    message = f"{reason}{also}{litter}{note}"
    return Problem(cause=Cause.ENDED, message=message, replica=latest.name, hopeless=hopeless)
