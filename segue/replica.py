"""A replica: the facts of a pod, or of a group of pods by its leader."""

from collections.abc import Iterable
from typing import NamedTuple

_WAITING_TO_START = {"", "ContainerCreating", "PodInitializing"}
_REPORTED_S = 5.0
"""A kubelet reports the conditions of a pod so long after its start."""


class ContainerFacts(NamedTuple):
    """The facts of a container's status."""

    name: str
    restarts: int = 0
    waiting: str = ""
    waiting_message: str = ""
    ended: str = ""
    """Reason of the present or the latest termination."""
    exit_code: int | None = None
    start_error: str = ""
    """Why it could not be started, if it never ran."""
    image: str = ""
    digest: str = ""
    """The digest of the image that runs, if its node reports one."""
    memory_limit: str = ""
    """Its memory limit, as a Kubernetes quantity."""
    is_init: bool = False
    """Whether it runs to its end before the others start: an init container, and no sidecar."""
    by_node: int = 0
    """How many of the restarts its node, or a resize in place, caused: they say nothing about its version."""
    ready: bool = False
    """Whether its own probes pass; for an init container, whether it succeeded."""
    is_added: bool = False
    """Whether it is not in the template of its version: admission added it when the pod was created."""
    pod: str = ""
    """The pod that it is in; empty for that of the replica's name, the leader of a group."""

    @property
    def own_restarts(self) -> int:
        """The restarts that its node did not cause."""
        return self.restarts - self.by_node

    @property
    def has_passed(self) -> bool:
        """Whether it is an init container that succeeded: its restarts are no evidence against its version."""
        return self.is_init and self.exit_code == 0 and not self.waiting


class Replica(NamedTuple):
    """The facts of one replica."""

    name: str
    version: str
    """Fingerprint of the template it was made from."""
    ready_since: float | None = None
    """Seconds since the epoch; None while it is not Ready."""
    unschedulable: str = ""
    """The scheduler's message if it finds no node; else empty."""
    unplaced_since: float | None = None
    """Since when the scheduler finds no node: seconds since the epoch."""
    unready: str = ""
    """Why it is not Ready, as its conditions state it."""
    containers: tuple[ContainerFacts, ...] = ()
    uid: str = ""
    address: str = ""
    """The pod's address; for a group, the leader's."""
    ports: tuple[tuple[str, int], ...] = ()
    """Named ports of its containers."""
    marked: bool = False
    """Whether Segue set it to not Ready: it leaves its Services and finishes its requests."""
    first: bool = False
    """Whether the controller removes it before equal others: it was marked, now or before."""
    unready_since: float | None = None
    """Seconds since the epoch; None while it is Ready, or if that is not known."""
    started_at: float | None = None
    """When the pod started on its node: seconds since the epoch."""
    gates: tuple[str, ...] = ()
    """Its scheduling gates: the scheduler does not place a pod that has one."""
    claims: tuple[str, ...] = ()
    """The volume claims of its number, if the scheduler waits until they are bound."""
    node: str = ""
    """The node that it runs on; empty while it has none."""
    more_nodes: tuple[str, ...] = ()
    """The nodes of a group's other pods that are not Ready."""
    is_lost: bool = False
    """Whether its node does not answer, so that its state is unknown."""
    unstarted_since: float | None = None
    """When it got its node, if the kubelet there has not taken it up since: seconds since the epoch."""
    adopted: bool = False
    """Whether its ReplicaSet did not make it, so that it may run another version: somebody changed its labels."""
    lacks: int = 0
    """How many pods of its group do not exist."""
    placed_late_at: float = 0.0
    """When it got its node, if it had to wait for one: seconds since the epoch; else 0."""

    @property
    def incarnation(self) -> str:
        """The pod's identity until one of its containers restarts; results of serving checks apply to it only."""
        return f"{self.uid}/{self.restarts}"

    @property
    def restarts(self) -> int:
        """The restarts of all its containers."""
        return sum(c.restarts for c in self.containers)

    def is_starting(self, deadline_s: float, now: float) -> bool:
        """Whether it has not been Ready yet, or not since its node restarted it, and nothing is wrong for now."""
        if self.ready_since is not None or self.is_lost or self.gates or self.unplaced_since is not None:
            return False
        if any(c.own_restarts or c.waiting not in _WAITING_TO_START for c in self.containers):
            return False
        if self.started_at is None:  # it was created a moment ago
            return True
        since = self.unready_since or self.started_at
        is_first = since <= self.started_at + _REPORTED_S or any(c.by_node for c in self.containers)
        return is_first and now < since + deadline_s

    def proven(self, min_ready_s: float, max_restarts: int, now: float) -> bool:
        """Whether it has been Ready for ``min_ready_s`` seconds with at most ``max_restarts`` restarts.

        Restarts that its node caused, and those of an init container that succeeded, do not count. An adopted replica
        never counts.
        """
        if self.adopted:
            return False
        restarts = sum(c.own_restarts for c in self.containers if not c.has_passed)
        return self.ready_since is not None and now >= self.ready_since + min_ready_s and restarts <= max_restarts


class Ended(NamedTuple):
    """A pod that has ended for good."""

    name: str
    reason: str = ""
    """The reason of its status, as the kubelet wrote it."""
    message: str = ""
    disruption: str = ""
    """The reason of its condition DisruptionTarget: who removed it; empty without one."""
    made_at: float = 0.0
    """Seconds since the epoch."""
    is_left: bool = False
    """Whether the Failed pod still exists."""
    disrupted_at: float = 0.0
    """When somebody began to remove it: seconds since the epoch; 0 if nobody did."""


def passed_after(replicas: Iterable[Replica]) -> dict[str, int]:
    """Return the most restarts after which an init container succeeded, by its name, on any of these replicas."""
    found: dict[str, int] = {}
    for container in (c for replica in replicas for c in replica.containers if c.has_passed):
        found[container.name] = max(found.get(container.name, 0), container.restarts)
    return found


def lost_since(replicas: Iterable[Replica]) -> float:
    """Return since when the first unready replica is not Ready: seconds since the epoch; 0 if all are Ready."""
    return min((r.unready_since for r in replicas if r.unready_since is not None), default=0.0)


class Pods(NamedTuple):
    """The replicas of each side."""

    old: tuple[Replica, ...] = ()
    new: tuple[Replica, ...] = ()
    beside: tuple[Replica, ...] = ()
    """New ones that a controller added for its surge; they do not count as replicas of the target."""
