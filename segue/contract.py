"""The contract between workflow, activities and clients: names, inputs and results.

Names are explicit, so that code can move without breaking running histories. Every message has one input model and one
result model, so that later releases can add fields.
"""

from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from pydantic import Field

from segue.as_before import as_before
from segue.decision import Decision
from segue.gates import Verdict
from segue.history import Note
from segue.lint.findings import Linted
from segue.notices import Notice, Noticed
from segue.observation import Counts, Frozen, Observation, Routed, Version
from segue.plan import Plan
from segue.room import Demand
from segue.spec import AnyTarget, Change, Rules, Spec, Strategy, Target
from segue.spec.lint_rule import LintRule
from segue.spec.notifications import Notification
from segue.state import Mark, State

WORKFLOW = "Rollout"
NOTIFICATION_WORKFLOW = "Notification"
TASK_QUEUE = "segue"
STATUS_QUERY = "status"
REPORT_QUERY = "report"
PREPARED_UPDATE = "prepared"
SENDER_SIGNAL = "sender"
LATE_QUERY = "the query arrived together with events that the workflow has not handled yet"
"""Why a worker refuses a query. Another query soon after it is answered."""

PHASE_ATTRIBUTE = "SeguePhase"
TARGET_ATTRIBUTE = "SegueTarget"
OUTCOME_ATTRIBUTE = "SegueOutcome"
NEEDS_HUMAN_ATTRIBUTE = "SegueNeedsHuman"


def workflow_id(cluster: str, target: Target) -> str:
    """Return the only workflow id for a rollout of this target, so that a second start is refused.

    ``cluster`` is the client's; the cluster that the target names takes precedence.
    """
    kind, namespace, name = target.key
    return f"rollout/{target.cluster or cluster}/{namespace}/{kind}/{name}"


def activity_queue(task_queue: str, cluster: str | None) -> str:
    """Return the task queue of the activities in the cluster that a target names: only that cluster's workers poll it.

    Of a target that names no cluster, it is the task queue of the workflows.
    """
    return f"{task_queue}@{cluster}" if cluster else task_queue


def notification_id(notice: Notice, receiver: str) -> str:
    """Return the only workflow id for this notice to this receiver, so that it is sent by one workflow."""
    return f"notification/{notice.workflow_id.removeprefix('rollout/')}/{notice.key}-{notice.event}/{receiver}"


class Tuning(Frozen):
    """Times (seconds) and sizes (events) that an operator may need to change."""

    heartbeat_s: float = Field(default=15.0, gt=0)
    """After this time without a heartbeat, another worker takes over the watch."""
    attempt_s: float = Field(default=600.0, gt=0)
    """The timeout of one attempt of a watch."""
    rest_heartbeat_s: float = Field(default=75.0, gt=0)
    """The same as ``heartbeat_s`` while the rollout waits for a person or for the end of a hold."""
    rest_attempt_s: float = Field(default=3600.0, gt=0)
    """The same as ``attempt_s`` while it waits so."""
    queue_s: float = Field(default=30.0, gt=0)
    """If a move waits for those of other rollouts for so long, its reason is recorded, and heartbeats become rare."""
    write_s: float = Field(default=30.0, gt=0)
    """The timeout of one attempt of a write."""
    recheck_s: float = Field(default=10.0, gt=0)
    """The time until an inconclusive gate is evaluated again."""
    history_events: int = Field(default=4_000, gt=0)
    """The workflow continues as new after so many events."""


class Task(Frozen):
    """The workflow's input."""

    spec: Spec
    name: str
    cluster: str = "default"
    by: str = "someone"
    tuning: Tuning = Tuning()
    state: State | None = None
    """The state after continue-as-new; None at the start."""
    plans: tuple[Plan, ...] = ()
    started_at: float = 0.0
    noticed: Noticed = Noticed()
    break_glass: str = ""
    """Why a freeze of the policy is overruled; empty if it is not."""
    seen: Observation | None = None
    """The latest observation after continue-as-new: a rollout that waits may not observe its target for an hour."""
    waits: str = ""
    """What it waits for, after continue-as-new."""


class Sent(Frozen):
    """The content of an update that its sender is about to send, as a signal: Temporal records a signal's sender."""

    update_id: str
    name: str
    message: Any


class PrepareInput(Frozen):
    """Read the target, and let the API server check the change in a dry run."""

    target: AnyTarget
    owner: str
    change: Change
    rules: Rules
    name: str = ""
    """The rollout's name, as in its spec."""
    accept: tuple[LintRule, ...] = ()
    """Lint rules whose errors do not refuse the rollout."""
    baseline: Version | None = None
    """Set on a retarget: the change applies to this version, which is saved on the target."""
    wanted: Version | None = None
    """Set if a retarget only changes the strategy: the version that stays wanted."""
    notifications: tuple[Notification, ...] = ()
    """The receivers that the worker must know."""
    by: str = ""
    """Who requests it, for the policy."""
    retargets: bool = False
    """Whether the rollout is under way."""
    broke_glass: str = ""
    """Why a freeze of the policy is overruled; empty if it is not."""


class Prepared(Frozen):
    """What a rollout starts from."""

    baseline: Version
    wanted: Version
    replicas: int
    old: int
    """Replicas that do not run the wanted version; for a pair, those of the old side."""
    new: int = 0
    """Replicas that run the wanted version; for a pair, those of the new side."""
    superseded: bool = False
    """Whether the new side runs a superseded version, which must go before the wanted one starts."""
    owner: str
    """The owner whose writes the target accepts: this run, or a former run that this one takes over."""
    claimed: bool = False
    """Whether a former run left the target partway; its baseline is kept."""
    mark: Mark = Mark()
    attempts: int = 0
    """The number of the former run's latest write."""
    warnings: tuple[str, ...] = ()
    linted: Linted | None = None
    demand: Demand | None = None
    """What a new replica requests of a node; None if that is not known."""
    ready: int | None = None
    """How many replicas are Ready; None if a former run left the target partway."""
    starting: int = 0
    """How many of the others are starting, of a target without numbers whose replicas Segue moves."""
    governed: bool = False
    """Whether a rule of the worker's policy holds for the target."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The target's labels; of a pair, those of the old Deployment."""
    namespace_labels: dict[str, str] = Field(default_factory=dict)
    """The namespace's labels; empty unless the policy selects by them."""


class WatchInput(Frozen):
    """Watch the target until there is an action to carry out."""

    target: AnyTarget
    rules: Rules
    state: State
    attempt_s: float = 600.0
    goes_back: bool = False
    """Whether it rolls to an earlier revision, without any new change: then no freeze holds it."""
    configures: tuple[str, ...] = ()
    """The ConfigMaps that the change replaces, by their names in the spec."""
    queued: bool = False
    """Whether the next move waits, or may wait, for those of other rollouts; the watch ends when none waits."""
    queue_s: float = 30.0
    """The watch ends when its move has waited for so long, so that the workflow records it."""


class Restored(Frozen):
    """A target that is older than the rollout's latest write: the cluster was restored from a backup."""

    seen: Observation
    mark: Mark
    """The target as it is, in the place of what the rollout wrote."""
    routed: Routed | None = None
    """The same of the traffic; None if the rollout has routed none."""


class Watched(Frozen):
    """The next decision, and the observation that it was made on."""

    decision: Decision
    seen: Observation
    verdicts: tuple[Verdict, ...] = ()
    """Verdicts of gates that are not recorded yet."""
    governed: bool = False
    """Whether a rule of the worker's policy holds for the target."""
    queued: bool = False
    """Whether the rollout's move waits for those of other rollouts."""
    warning: str = ""
    """What the report says of the replicas at a stop, or at the end; empty if nothing."""
    restored: Restored | None = None
    """What the target is by now, if the cluster was restored from a backup."""


class Beat(Frozen):
    """A heartbeat's details: what the watch observes and waits for."""

    seen: Observation | None = None
    why: str = ""
    at: float = 0.0
    worker: str = ""
    """The identity of the worker that sends it."""


class WriteInput(Frozen):
    """Carry out a decision."""

    target: AnyTarget
    rules: Rules
    """Those of the spec: rules with a lower floor need not be valid ones, which each reader of this input checks."""
    state: State
    decision: Decision
    replicas: int = 0
    """R at the decision, for which the floor is lowered; 0 if ``rules`` stand as they are."""
    change: Change | None = None
    """Set only while the template is not written yet, or to make its configuration again."""
    generation: int = 0
    """The target's generation at the decision."""
    note: Note | None = None
    """What the version's revision keeps of this rollout; None if that does not change."""
    routed: Routed | None = None
    """Where the traffic went at the decision."""
    ready_at: float = 0.0
    """Since when the move waits only for its write: seconds since the epoch; 0 if that is not known."""

    @property
    def goal(self) -> Counts:
        """The counts to move to."""
        if self.decision.counts is None:
            raise ValueError("a move needs counts")
        return self.decision.counts

    @property
    def lowered(self) -> Self:
        """The same with the floor of a target that was not whole before; not to be sent."""
        if not self.replicas:
            return self
        return self.model_copy(update={"rules": as_before(self.rules, self.state, self.replicas), "replicas": 0})


class Written(Frozen):
    """The result of a write. ``done`` is false if the target had changed, and nothing was written."""

    done: bool
    why: str = ""
    writes: int = 0
    mark: Mark | None = None
    moved_at: float = 0.0
    """When the move was written, if other writes followed: seconds since the epoch; else 0."""
    routed: Routed | None = None
    """Where the traffic goes after this write; None if the write did not change it."""
    altered: str = ""
    """The fields that the API server stored differently than sent, by an admission policy or webhook."""
    made: Version | None = None
    """What admission would make of the wanted version by now; then nothing was written."""
    warning: str = ""
    """What could not be written beside the target, for the report; empty if everything was."""

    def with_more(self, writes: int = 0, *warnings: str) -> Self:
        """Return the result with more writes beside it, and with more warnings; an empty one adds none."""
        warning = "; ".join(filter(None, (self.warning, *warnings)))
        return self.model_copy(update={"writes": self.writes + writes, "warning": warning})


class VerifyInput(Frozen):
    """Evaluate all gates."""

    target: AnyTarget
    rules: Rules
    state: State


class Verified(Frozen):
    """The verdicts of all gates."""

    verdicts: tuple[Verdict, ...]


class PermitInput(Frozen):
    """Check a message against the worker's policy."""

    target: AnyTarget
    strategy: Strategy
    message: str
    """The message's name."""
    by: str
    replicas: int | None = None
    """The replicas that a scale requests."""
    breaks_glass: bool = False
    reason: str = ""
    about: str = ""
    """The rollout or the approval that the message is for, as it says itself."""
    update_id: str = ""
    """The update that brings the message; empty for a signal."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The target's labels at the start."""
    namespace_labels: dict[str, str] = Field(default_factory=dict)
    """The namespace's labels at the start."""


class Permitted(Frozen):
    """The policy allows the message."""


class NotifyInput(Frozen):
    """Send a notice to one receiver. It is also the input of the workflow that sends it."""

    receiver: str
    notice: Notice
    heartbeat_s: float = 15.0
    """After this time without a heartbeat, another worker sends it."""
    cluster: str | None = None
    """The cluster that the target names: its workers know the receiver."""


class Notified(Frozen):
    """The receiver has accepted the notice."""

    attempts: int = 1


I = TypeVar("I", bound=Frozen)  # noqa: E741
R = TypeVar("R", bound=Frozen)


@dataclass(frozen=True)
class Activity(Generic[I, R]):
    """An activity by name, with the types of its input and result."""

    name: str
    input: type[I]
    result: type[R]


PREPARE = Activity("prepare", PrepareInput, Prepared)
AWAIT_READY = Activity("await_ready", WatchInput, Watched)
VERIFY = Activity("verify", VerifyInput, Verified)
SCALE_NEW = Activity("scale_new", WriteInput, Written)
SCALE_OLD = Activity("scale_old", WriteInput, Written)
RESIZE = Activity("resize", WriteInput, Written)
SETTLE = Activity("settle", WriteInput, Written)
ROUTE = Activity("route", WriteInput, Written)
UNDO = Activity("undo", WriteInput, Written)
FINISH = Activity("finish", WriteInput, Written)
PERMIT = Activity("permit", PermitInput, Permitted)
NOTIFY = Activity("notify", NotifyInput, Notified)
