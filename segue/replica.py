"""A replica: what a pod, or the leader of a group of pods, tells of itself."""

from collections.abc import Iterable
from typing import NamedTuple


class ContainerFacts(NamedTuple):
    """What a container's status tells."""

    name: str
    restarts: int = 0
    waiting: str = ""
    waiting_message: str = ""
    ended: str = ""
    """Reason of the present or latest termination."""
    exit_code: int | None = None
    image: str = ""
    memory_limit: str = ""
    """What it may have, as a Kubernetes quantity."""


class Replica(NamedTuple):
    """What a pod tells of itself."""

    name: str
    version: str
    """Fingerprint of the template it was made from."""
    ready_since: float | None = None
    """Seconds since the epoch; none while it is not Ready."""
    unschedulable: str = ""
    """The scheduler's word, when it finds no node."""
    unplaced_since: float | None = None
    """Since when it finds none: seconds since the epoch."""
    unready: str = ""
    """Why it is not Ready, in its own words."""
    containers: tuple[ContainerFacts, ...] = ()
    uid: str = ""
    address: str = ""
    """The pod's own; of a group its leader's."""
    ports: tuple[tuple[str, int], ...] = ()
    """Named ports of its containers."""
    marked: bool = False
    """Whether it is not Ready because we say so: it is out of its Services, and serves what it has begun."""
    first: bool = False
    """Whether the controller takes it before others that are like it: it was marked, now or before."""
    unready_since: float | None = None
    """Seconds since the epoch; None while it is Ready, or while nothing says so."""
    started_at: float | None = None
    """When the pod was begun on its node: seconds since the epoch."""
    gates: tuple[str, ...] = ()
    """Its scheduling gates: while it has one, the scheduler does not try to place it."""
    node: str = ""
    """The node that it stands on; empty while it has none."""
    is_lost: bool = False
    """Whether its node does not answer, so that nobody knows how it is."""
    placed_late_at: float = 0.0
    """When it got its node, where it had to wait for one: seconds since the epoch; else 0."""

    @property
    def incarnation(self) -> str:
        """What names the pod as long as none of its containers is restarted: what it answered holds only so long."""
        return f"{self.uid}/{self.restarts}"

    @property
    def restarts(self) -> int:
        """Restarts of all its containers."""
        return sum(c.restarts for c in self.containers)

    def proven(self, min_ready_s: float, max_restarts: int, now: float) -> bool:
        """Whether it has been Ready for long enough without too many restarts."""
        return self.ready_since is not None and now >= self.ready_since + min_ready_s and self.restarts <= max_restarts


class Ended(NamedTuple):
    """A pod that has ended for good: nothing runs in it again."""

    name: str
    reason: str = ""
    """Of its status, as the kubelet wrote it."""
    message: str = ""
    disruption: str = ""
    """Reason of its condition DisruptionTarget: who took it; empty where nobody did."""
    made_at: float = 0.0
    """Seconds since the epoch."""
    is_left: bool = False
    """Whether the Failed pod is still there."""


def lost_since(replicas: Iterable[Replica]) -> float:
    """Return since when the first of those that are not Ready is not: seconds since the epoch; 0 where all are."""
    return min((r.unready_since for r in replicas if r.unready_since is not None), default=0.0)


class Pods(NamedTuple):
    """The replicas of each side."""

    old: tuple[Replica, ...] = ()
    new: tuple[Replica, ...] = ()
    beside: tuple[Replica, ...] = ()
    """New ones that a controller has added for its surge, and which are no replicas of the target."""
