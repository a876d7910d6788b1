"""What Segue observes of a target, in its own terms. No Kubernetes object passes this point."""

from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    SkipValidation,
    model_serializer,
)

from segue.replica import Pods


class Frozen(BaseModel):
    """An immutable value that travels between workflow and activities."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may have added fields


class Counts(NamedTuple):
    """The number of replicas of each side: ``Counts(old=2, new=2)``."""

    old: int
    new: int

    def __str__(self) -> str:
        return f"({self.old} old, {self.new} new)"


class Cause(StrEnum):
    """Why a new replica, or a rollout, fails: the most specific first.

    An unready replica on a node says more about its version than one without a node.
    """

    IMAGE_PULL = "ImagePull"
    CRASH_LOOP = "CrashLoop"
    OUT_OF_MEMORY = "OutOfMemory"
    ENDED = "Ended"
    """Its pods end: evicted, or rejected by the kubelet."""
    CONFIGURATION = "Configuration"
    SERVING = "Serving"
    """It is Ready, but fails its serving checks."""
    LOADING = "Loading"
    """It is still loading its models, or cannot load them."""
    UNREADY = "Unready"
    NODE = "Node"
    """Its node does not answer."""
    UNSCHEDULABLE = "Unschedulable"
    RESTARTED = "Restarted"
    DEADLINE = "Deadline"
    TRAFFIC = "Traffic"
    """A gateway refuses the route of the traffic."""
    GATE = "Gate"
    REJECTED = "Rejected"
    REQUESTED = "Requested"
    FENCED = "Fenced"
    """The target was deleted, released, or taken by another."""


class Problem(Frozen):
    """What is wrong with which replica, for a person."""

    cause: Cause
    message: str
    replica: str = ""
    hopeless: bool = False
    """Waiting will not help: fail now instead of at the deadline."""
    hopeless_from: float = 0.0
    """From when on waiting will not help, if it may until then: seconds since the epoch."""

    @property
    def told(self) -> str:
        """What is wrong, without its cause in one word."""
        return f"{self.replica + ': ' if self.replica else ''}{self.message}"

    def __str__(self) -> str:
        return f"{self.cause}: {self.told}"


class Foreign(Frozen):
    """Somebody else's change of a target that this rollout owns."""

    who: str
    what: str
    template: str = ""
    """Fingerprint of the pod template that they left."""
    attempts: int = 0
    """The number of the rollout's own latest write, if its workflow does not know of it; else 0."""

    def __str__(self) -> str:
        return f"{self.who} changed {self.what}"


RELEASED_BY = "released by "
"""The start of the owner that a release writes on its target."""


def belonging(owner: str | None) -> str:
    """Return who owns a target that a rollout may no longer write."""
    if owner and owner.startswith(RELEASED_BY):
        return f"the target was {owner}"
    if not owner:
        return (
            "the target belongs to nobody now: a release, or somebody else such as an operator, removed its annotation "
            "segue.dev/rollout; or the rollout had ended, and its workflow was reset or restored from a backup. "
            "If the target is still held, run `segue release`"
        )
    return f"the target belongs to {owner} now"


class Routed(Frozen):
    """Where the traffic goes, as written or as observed."""

    share: int
    """Percent of the traffic to the new side."""
    version: int = 0
    """The object's resource version: an older one was read before the write."""
    since: float = 0.0
    """When this share was written: seconds since the epoch; 0 if it is only observed."""
    saved: str = ""
    """The routing before the rollout, in the router's own notation."""
    generation: int = 0
    """The object's generation after the write; 0 if it is not known."""
    uid: str = ""
    """The object's uid at the write; empty if it is not known."""
    gateways: tuple[str, ...] = ()
    """The gateways that have to accept the write before it counts; none for a Service."""
    pending: str = ""
    """Which of them has not accepted it yet; empty once all have."""
    refusal: str = ""
    """Which of them refuses it, in its own words; empty if none does. Only observed."""
    accepted: int | None = 0
    """Percent of the traffic to the new side that the gateways accepted last; None if they refuse that by now. Only
    recorded."""
    refused: int | None = None
    """Percent that they refused, if ``accepted`` was written in its place. Only recorded."""


class Side(Frozen):
    """The replicas of one side."""

    total: int = 0
    """Replicas that the target's controller is to run."""
    ready: int = 0
    """Of those, how many will still be Ready when the controller has reconciled."""
    proven: int = 0
    """Of those, Ready for at least ``readiness.minReady`` without too many restarts."""
    spare: int = 0
    """Unready ones that the controller will remove before any ready one."""


class Emptiness(Frozen):
    """How far the replicas that stop next have finished their requests."""

    number: int
    """How many stop next."""
    out: bool = False
    """Whether no Service has any of them as an endpoint."""
    running: float = 0.0
    """Running and queued requests of the replicas that report them."""
    unknown: str = ""
    """Why the number is not known for all of them; empty if it is."""
    since: float | None = None
    """Since when all of them have been out and empty: seconds since the epoch; None while they are not."""

    def __str__(self) -> str:
        if self.unknown:
            return f"{self.running:g} requests running or queued, and not known of all: {self.unknown}"
        return f"{self.running:g} requests running or queued" + ("" if self.out else ", still in their Services")


class Observation(Frozen):
    """The target at one moment."""

    replicas: int
    old: Side
    new: Side
    frozen: str = ""
    """Which freeze of the policy holds the rollout, and until when; empty if none does."""
    requested: Counts
    """The requested counts: those of the lever while it is engaged, and otherwise (replicas, 0)."""
    home: Counts | None = None
    """The counts of a rollback, for a target whose own controller does not go there: Segue moves it step by step.

    Such a target can be held at any counts, and its new side never runs two versions.
    """
    own_unavailable: int | None = None
    """How many replicas the own controller lets be unavailable; None while a lever moves them, or not known."""
    template: str
    """Fingerprint of the target's pod template."""
    generation: int = 0
    """The target's ``metadata.generation``: a decision may only be written on the generation it was made on."""
    owner: str | None = None
    gone: bool = False
    """Whether the target was deleted."""
    gone_why: str = ""
    """What has its name now; empty if nothing has."""
    engaged: bool = False
    """Whether the lever is engaged, so that the target's controller moves nothing."""
    emptied: bool = False
    """Whether an engaged Deployment has no ReplicaSet: somebody deleted them, and its controller creates none."""
    unreturnable: bool = False
    """Whether an engaged Deployment has no ReplicaSet of its baseline: only a rollback makes it come back."""
    unpaused: bool = False
    """Whether the target's controller should be paused but is not: a foreign template would remove ready replicas."""
    pinned: bool = False
    """Whether the lever holds it, and its controller could not yet go back above the floor."""
    autonomous: bool = False
    """Whether the target's own controller or operator moves within the budget; Segue only starts it."""
    numbered: bool = False
    """Whether a removed new replica becomes an old one again, so that the total never changes."""
    unshrinkable: str = ""
    """Why the requested smaller R must wait: its numbers are not ready; empty if it need not."""
    foreign: Foreign | None = None
    routed: Routed | None = None
    """Where the traffic goes; None if only replicas determine it, or while it is unknown."""
    problem: Problem | None = None
    """The worst problem of a replica on the side that is scaled up."""
    progress_at: float = 0.0
    """When the target last showed progress: seconds since the epoch."""
    seen_since: float = 0.0
    """Since when the target has been observed without a gap: seconds since the epoch. The deadline counts from here."""
    lost_since: float = 0.0
    """Since when the first of the unready new replicas is not Ready: seconds since the epoch."""
    unplaced: int = 0
    """Replicas that exist but are unschedulable."""
    unplaced_since: float = 0.0
    """When the scheduler first failed to place one: seconds since the epoch."""
    unplaced_why: str = ""
    """The scheduler's message for one of them, with its name."""
    hindered: int = 0
    """Replicas on the side that is scaled up that a hindrance keeps from becoming ready."""
    hindrance: str = ""
    """What blocks them, or the other side: a scheduling gate, a lost node; empty if nothing does."""
    inert: bool = False
    """Whether the hindrance is the target's controller, which does not act on what is written."""
    freed_by: float = 0.0
    """When the stopping replicas have freed their resources at the latest: seconds since the epoch.

    In the future while the other side waits for these resources.
    """
    available_by: float = 0.0
    """When the target's controller counts the latest proven replica as available: seconds since the epoch; else 0.

    In the future while the controller waits for the target's own ``minReadySeconds``.
    """
    room: int | None = None
    """How many more replicas fit; None if that is not known or was not counted."""
    room_why: str = ""
    """What the next replica lacks."""
    can_pend: bool = False
    """Whether the room was counted and a pod that does not fit can be created: no quota refuses it."""
    leaving: int = 0
    """Replicas that are stopping and have not ended."""
    leaving_since: float = 0.0
    """When the first of them began to stop: seconds since the epoch."""
    emptiness: Emptiness | None = None
    """How far the old replicas that stop next have finished their requests; None if that was not observed."""
    next_proven_at: float | None = None
    """When the next ready replica becomes proven if it stays ready: seconds since the epoch."""
    pods: SkipValidation[Pods] = Field(default=Pods(), exclude=True, repr=False)
    """The replicas themselves, for the checks that call them; not recorded."""

    makers: SkipValidation[tuple[str, ...]] = Field(default=(), exclude=True, repr=False)
    """Names of what an operator lets create the replicas, such as its Deployments; not recorded."""

    @property
    def counts(self) -> Counts:
        """The replicas of each side that the controller is to run."""
        return Counts(self.old.total, self.new.total)

    @property
    def is_bare(self) -> bool:
        """Whether no replica exists, although some are requested."""
        return self.replicas > 0 and not any(self.pods)


FOR_PEOPLE = "for people"
"""The context in which JSON is written that no workflow reads again."""


class Version(Frozen):
    """One version of the target: the fingerprint of its pod template, and its images for a person."""

    template: str
    images: dict[str, str] = Field(default_factory=dict)
    """Images of the containers, by the container's name."""
    more_images: dict[str, str] = Field(default_factory=dict)
    """Images of init containers (also native sidecars), and of workers if the leader's container has another image."""

    @property
    def all_images(self) -> dict[str, str]:
        """Every image of the version, by the container's name."""
        return {**self.more_images, **self.images}

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Name the fields for a person as Kubernetes does; histories keep the name that they have."""
        found: dict[str, Any] = write(self)
        if info.context == FOR_PEOPLE and "more_images" in found:
            found["moreImages"] = found.pop("more_images")
        return found

    def __str__(self) -> str:
        return ", ".join(f"{c}={i}" for c, i in sorted(self.all_images.items())) or self.template
