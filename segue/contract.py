"""The contract between workflow, activities and clients: names, inputs and results.

Names are explicit, so that code can move without breaking running histories. Every message has one input and one
result model, so that fields can be added later.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import Field

from segue.decide import Decision
from segue.gates import Verdict
from segue.history import Note
from segue.lint.findings import Linted
from segue.observation import Frozen, Observation, Routed, Version
from segue.plan import Plan
from segue.room import Demand
from segue.spec import AnyTarget, Change, Rules, Spec, Target
from segue.spec.lint_rule import LintRule
from segue.state import Mark, State

WORKFLOW = "Rollout"
TASK_QUEUE = "segue"
STATUS_QUERY = "status"
REPORT_QUERY = "report"
PREPARED_UPDATE = "prepared"

PHASE_ATTRIBUTE = "SeguePhase"
TARGET_ATTRIBUTE = "SegueTarget"
OUTCOME_ATTRIBUTE = "SegueOutcome"
NEEDS_HUMAN_ATTRIBUTE = "SegueNeedsHuman"


def workflow_id(cluster: str, target: Target) -> str:
    """Return the one id that a rollout of this target can have, so that a second start collides."""
    kind, namespace, name = target.key
    return f"rollout/{cluster}/{namespace}/{kind}/{name}"


class Tuning(Frozen):
    """Times and sizes that an operator may need to change; seconds and events."""

    heartbeat_s: float = Field(default=15.0, gt=0)
    """A watch that does not report for so long is given to another worker."""
    attempt_s: float = Field(default=600.0, gt=0)
    """One attempt of a watch."""
    write_s: float = Field(default=30.0, gt=0)
    """One attempt of a write."""
    recheck_s: float = Field(default=10.0, gt=0)
    """How soon an inconclusive gate is asked again."""
    history_events: int = Field(default=4_000, gt=0)
    """Continue as new after so many events."""


class Task(Frozen):
    """The workflow's input."""

    spec: Spec
    name: str
    cluster: str = "default"
    by: str = "someone"
    tuning: Tuning = Tuning()
    state: State | None = None
    """After continue-as-new."""
    plans: tuple[Plan, ...] = ()
    started_at: float = 0.0


class PrepareInput(Frozen):
    """Look at the target, and let the API server try the change without doing it."""

    target: AnyTarget
    owner: str
    change: Change
    rules: Rules
    name: str = ""
    """The rollout's own, as its spec gives it."""
    accept: tuple[LintRule, ...] = ()
    """Rules of lint whose errors do not refuse it."""
    baseline: Version | None = None
    """Given on a retarget: the change is applied to this version, which the target carries."""
    wanted: Version | None = None
    """Given on a retarget to another strategy only: the version that stays the wanted one."""


class Prepared(Frozen):
    """What a rollout starts from."""

    baseline: Version
    wanted: Version
    replicas: int
    old: int
    """Replicas that do not run the wanted version; of a pair, those of the old side."""
    new: int = 0
    """Replicas that run it; of a pair, those of the new side."""
    superseded: bool = False
    """Whether those of the new side run another version than the wanted one, and must go before it comes."""
    owner: str
    """Whose writes the target takes: ours, or that of a former run which left it in the middle, taken over."""
    claimed: bool = False
    """The target was left in the middle by a former run; its baseline is kept."""
    mark: Mark = Mark()
    warnings: tuple[str, ...] = ()
    linted: Linted | None = None
    demand: Demand | None = None
    """What a new replica asks of a node; none where that is not known."""
    ready: int | None = None
    """How many replicas are Ready; None where the target was found in the middle of a rollout."""


class WatchInput(Frozen):
    """Watch the target until something is to be done."""

    target: AnyTarget
    rules: Rules
    state: State
    attempt_s: float = 600.0


class Watched(Frozen):
    """What is to be done, and what was seen."""

    decision: Decision
    seen: Observation
    verdicts: tuple[Verdict, ...] = ()
    """Answers of gates that are not recorded yet."""


class Beat(Frozen):
    """A heartbeat's details: where the watch is."""

    seen: Observation | None = None
    why: str = ""
    at: float = 0.0


class WriteInput(Frozen):
    """Do what was decided."""

    target: AnyTarget
    rules: Rules
    state: State
    decision: Decision
    change: Change | None = None
    """Only while the template is not written yet."""
    generation: int = 0
    """Of the target, when it was decided."""
    note: Note | None = None
    """What the version's revision shall keep of this rollout; only where that changes."""
    routed: Routed | None = None
    """Where the traffic went when it was decided."""
    ready_at: float = 0.0
    """Since when the move waits only for its write: seconds since the epoch; 0 when it is not known."""


class Written(Frozen):
    """What a write did. ``done`` is false when the world had changed, and nothing was written."""

    done: bool
    why: str = ""
    writes: int = 0
    mark: Mark | None = None
    moved_at: float = 0.0
    """When a move was written, where more was written after it: seconds since the epoch; 0 otherwise."""
    routed: Routed | None = None
    """Where the traffic goes, after a write of that."""
    altered: str = ""
    """Which fields the API server made something else of than was sent: an admission policy or webhook does so."""


class VerifyInput(Frozen):
    """Ask all gates."""

    target: AnyTarget
    rules: Rules
    state: State


class Verified(Frozen):
    """All answers."""

    verdicts: tuple[Verdict, ...]


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
