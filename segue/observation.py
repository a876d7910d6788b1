"""What is seen of a target, in the rollout's own words. No Kubernetes object gets past this point."""

from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from segue.replica import Pods


class Frozen(BaseModel):
    """An immutable value that travels between workflow and activities."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may have added fields


class Counts(NamedTuple):
    """How many replicas of each side: ``Counts(old=2, new=2)``."""

    old: int
    new: int

    def __str__(self) -> str:
        return f"({self.old} old, {self.new} new)"


class Cause(StrEnum):
    """Why a new replica, or a rollout, fails: the most telling first.

    One that has a place and is not ready tells more of its version than one that has none.
    """

    IMAGE_PULL = "ImagePull"
    CRASH_LOOP = "CrashLoop"
    OUT_OF_MEMORY = "OutOfMemory"
    ENDED = "Ended"
    """Its pods end: they are evicted, or rejected by the kubelet."""
    CONFIGURATION = "Configuration"
    SERVING = "Serving"
    """It says that it is ready, and does not answer as it should."""
    LOADING = "Loading"
    """It loads its models, or cannot."""
    UNREADY = "Unready"
    NODE = "Node"
    """Its node does not answer."""
    UNSCHEDULABLE = "Unschedulable"
    RESTARTED = "Restarted"
    DEADLINE = "Deadline"
    GATE = "Gate"
    REJECTED = "Rejected"
    REQUESTED = "Requested"
    FENCED = "Fenced"
    """The target was deleted, released, or taken by another."""


class Problem(Frozen):
    """What is wrong, with which replica, in words for a person."""

    cause: Cause
    message: str
    replica: str = ""
    hopeless: bool = False
    """Waiting will not help: fail now instead of at the deadline."""

    def __str__(self) -> str:
        return f"{self.cause}: {self.replica + ': ' if self.replica else ''}{self.message}"


class Foreign(Frozen):
    """Somebody else's change of what this rollout holds."""

    who: str
    what: str
    template: str = ""
    """Fingerprint of the pod template that they left."""

    def __str__(self) -> str:
        return f"{self.who} changed {self.what}"


RELEASED_BY = "released by "
"""How the owner begins that a release writes on its target."""


def belonging(owner: str | None) -> str:
    """Say whose a target is that a rollout may not write any more."""
    if owner and owner.startswith(RELEASED_BY):
        return f"the target was {owner}"
    return f"the target belongs to {owner or 'nobody'} now"


class Routed(Frozen):
    """What the traffic is led by: where it goes, as written or as seen."""

    share: int
    """Percent that the new side gets."""
    version: int = 0
    """The object's resource version: what is older was read before the write."""
    since: float = 0.0
    """When this share was written: seconds since the epoch; 0 where it is only seen."""
    saved: str = ""
    """What led the traffic before the rollout, in the router's own words."""


class Side(Frozen):
    """The replicas of one side."""

    total: int = 0
    """Replicas that the target's controller is told to run."""
    ready: int = 0
    """Of those, how many will still be Ready when the controller has done what it was told."""
    proven: int = 0
    """Of those, Ready for at least ``readiness.minReady`` without too many restarts."""
    spare: int = 0
    """Unready ones which the controller is sure to remove before any ready one."""


class Emptiness(Frozen):
    """How far the replicas that go next are with it."""

    number: int
    """How many go next."""
    out: bool = False
    """Whether no Service knows any of them."""
    running: float = 0.0
    """Requests that run or wait on those that tell it."""
    unknown: str = ""
    """Why it is not known of all of them."""
    since: float | None = None
    """Since when all of them have been out and empty: seconds since the epoch; none while they are not."""

    def __str__(self) -> str:
        if self.unknown:
            return f"{self.running:g} requests running or queued, and not known of all: {self.unknown}"
        return f"{self.running:g} requests running or queued" + ("" if self.out else ", still in their Services")


class Observation(Frozen):
    """The target at one moment."""

    replicas: int
    old: Side
    new: Side
    asked: Counts
    """What the lever holds: (replicas, 0) while it holds nothing."""
    home: Counts | None = None
    """Where the way back leads, for a target whose own controller does not go there: it is gone step by step.

    Such a target can also be held at any counts, and its new side never runs two versions.
    """
    template: str
    """Fingerprint of the target's pod template."""
    generation: int = 0
    """The target's ``metadata.generation``: what was decided on one may only be written on the same."""
    owner: str | None = None
    gone: bool = False
    """Whether the target was deleted."""
    held: bool = False
    """Whether the lever is engaged; left alone, the target's controller moves nothing."""
    unpaused: bool = False
    """Whether the target's controller should be paused and is not: a foreign template would remove ready replicas."""
    pinned: bool = False
    """Whether the lever holds it on its way back, until its controller can be let go on above the floor."""
    autonomous: bool = False
    """Whether the target's own controller or operator moves within the budget: begun once, there is nothing to ask."""
    numbered: bool = False
    """Whether a new replica that is taken back becomes an old one again: there is never one more or less of both."""
    foreign: Foreign | None = None
    routed: Routed | None = None
    """Where the traffic goes; none where replicas alone lead it, or while it cannot be told."""
    problem: Problem | None = None
    """The worst problem of a replica of the side that is being brought up."""
    progress_at: float = 0.0
    """Seconds since the epoch of the latest sign of progress that the target itself shows."""
    seen_since: float = 0.0
    """From when on the target has been seen without a gap: what it did while nobody saw it is not held against it."""
    lost_since: float = 0.0
    """Since when the first of the new replicas that are not Ready now is not: seconds since the epoch."""
    unplaced: int = 0
    """Replicas that are there and that the scheduler finds no node for."""
    unplaced_since: float = 0.0
    """When the first of them was tried: seconds since the epoch."""
    unplaced_why: str = ""
    """The scheduler's word on one of them, with its name."""
    hindered: int = 0
    """Replicas of the side that is brought up which cannot become ready for what is no matter of their version."""
    hindrance: str = ""
    """What is in the way of them, or of the other side: a scheduling gate, a lost node. Empty where nothing is."""
    freed_by: float = 0.0
    """When stopping replicas of the side that is left have set free what they hold: seconds since the epoch.

    In the future while the other side waits for that.
    """
    room: int | None = None
    """How many more replicas find a place; none where that is not known, or was not asked."""
    room_why: str = ""
    """What the next one lacks."""
    can_pend: bool = False
    """Whether the room was counted, and a pod that finds no place can be made: no quota refuses it."""
    leaving: int = 0
    """Replicas that were told to stop, and have not ended."""
    leaving_since: float = 0.0
    """When the first of them was told: seconds since the epoch."""
    emptiness: Emptiness | None = None
    """How far the old replicas that go next have ended what they had begun; none where that is not asked."""
    next_proven_at: float | None = None
    """When the next ready replica becomes proven, if it stays ready: seconds since the epoch."""
    pods: SkipValidation[Pods] = Field(default=Pods(), exclude=True, repr=False)
    """The replicas themselves, for what asks them; they are not recorded."""

    @property
    def counts(self) -> Counts:
        """The replicas of each side, as the controller is told."""
        return Counts(self.old.total, self.new.total)


class Version(Frozen):
    """One version of the target: its pod template, by fingerprint, and what a person knows it by."""

    template: str
    images: dict[str, str] = Field(default_factory=dict)
    """Of the containers that serve or stand beside one that does."""
    more_images: dict[str, str] = Field(default_factory=dict)
    """Of init containers, native sidecars among them, and of workers whose leader's container has another image."""

    @property
    def all_images(self) -> dict[str, str]:
        """Every image of it, by the container's name."""
        return {**self.more_images, **self.images}

    def __str__(self) -> str:
        return ", ".join(f"{c}={i}" for c, i in sorted(self.all_images.items())) or self.template
