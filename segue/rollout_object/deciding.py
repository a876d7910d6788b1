"""Decides what the controller does next for one Rollout in Kubernetes. Pure, and level-triggered.

It compares what the object requests, what its status records, and what Temporal answers. The same input gives the same
action, so a controller that was killed repeats it: each action is safe to repeat.
"""

from dataclasses import dataclass
from enum import StrEnum

from segue.rollout_object.desired import DesiredRollout
from segue.rollout_object.orders import AnnotatedOrder
from segue.rollout_object.status import Handled, ObjectStatus
from segue.spec import OnDelete
from segue.state import PAUSED_BY, Outcome, Phase
from segue.status import Status

REFUSED, LOST = "Refused", "Lost"
"""How a rollout ended that has no report: nothing was started; Temporal has no trace of it."""
SUPERSEDED = "Superseded"
"""How a completed one stands after a later rollout of the target, which is not the object's, left another version."""

FIRST_RETRY_S, MOST_RETRY_S = 5.0, 3600.0
_LEFT = {Outcome.COMPLETED, SUPERSEDED}
"""Outcomes that a later rollout of somebody else changes."""


@dataclass(frozen=True)
class Owner:
    """The object that started a rollout, as the workflow's memo has it."""

    uid: str
    namespace: str
    name: str
    handled: Handled


@dataclass(frozen=True)
class Run:
    """The latest run of a workflow, as Temporal answers."""

    workflow_id: str
    run_id: str
    is_running: bool
    owner: Owner | None
    """The Rollout object that started it; None if a person or a pipeline did."""
    status: Status | None = None
    """Its status; None if it ended without a report."""
    outcome: str = ""
    """How it ended; empty while it runs."""
    why: str = ""
    """Why it ended without a report."""
    retargeted_by: frozenset[str] = frozenset()
    """Who retargeted it, by the report of an ended one."""
    is_missing: bool = False
    """Whether it was refused because its target, or what the spec names beside it, does not exist."""

    @property
    def origin(self) -> str:
        """Who started it, for a person."""
        if self.owner is None:
            return "started by a command or a program"
        return f"that of Rollout {self.owner.namespace}/{self.owner.name}"

    def is_of(self, desired: DesiredRollout) -> bool:
        """Whether this object owns it. A running one that a deleted object of the same name left is adopted."""
        if self.owner is None:
            return False
        same_name = (self.owner.namespace, self.owner.name) == (desired.namespace, desired.name)
        adoptable = self.is_running or self.run_id == desired.recorded_run
        return self.owner.uid == desired.uid or (same_name and adoptable)

    def is_adopted_by(self, desired: DesiredRollout) -> bool:
        """Whether another object of the same name has started it."""
        return self.owner is not None and self.owner.uid != desired.uid and self.is_of(desired)

    def is_paused_by(self, desired: DesiredRollout) -> bool:
        """Whether ``spec.paused`` has paused it, by its own words: a record of that may be lost."""
        return self.status is not None and self.status.reason.startswith(f"{PAUSED_BY} {desired.object_name} ")


class ObjectAct(StrEnum):
    """What the controller does next."""

    REST = "rest"
    """Nothing, until the object changes."""
    WAIT = "wait"
    """Nothing, until Temporal answers something else."""
    CLAIM = "claim"
    """Add the finalizer, and record the workflow's id and that it starts: a killed controller looks for it.

    An object has the finalizer only from here until its rollout has ended: one at rest can be deleted at once, also
    with its namespace, whose roles may go before it."""
    ADOPT = "adopt"
    """Add the finalizer, and record the run under way: somebody removed one of them, or recreated the object."""
    ORDER = "order"
    """Send an order by an annotation to the rollout, and record the answer."""
    START = "start"
    RETARGET = "retarget"
    PAUSE = "pause"
    RESUME = "resume"
    FORGET_PAUSE = "forget pause"
    """Record that spec.paused pauses nothing any more."""
    ABORT = "abort"
    RELEASE = "release"
    """Remove the finalizer: nothing is under way that a deletion must wait for."""


def workflow_to_read(desired: DesiredRollout, recorded: ObjectStatus) -> str:
    """Return the id of the workflow that the decision depends on; empty if it depends on none."""
    if desired.is_deleted:
        aborts = desired.is_claimed and desired.standing.on_delete is OnDelete.ABORT
        return (recorded.workflow_id or desired.workflow_id) if aborts else ""
    if recorded.workflow_id and (recorded.starting or not recorded.outcome):
        return recorded.workflow_id
    return desired.workflow_id if differs(desired, recorded.handled, recorded.outcome) else ""


def workflow_at_rest(desired: DesiredRollout, recorded: ObjectStatus) -> str:
    """Return the id of the workflow that may have left another version since; empty if there is nothing to lose.

    An object at rest needs no answer: while Temporal is away, it stays as it is.
    """
    return desired.workflow_id if recorded.outcome in _LEFT and not desired.is_deleted else ""


def decide(desired: DesiredRollout, recorded: ObjectStatus, run: Run | None) -> ObjectAct:
    """Return the next action; ``run`` is that of ``workflow_to_read``, or None if Temporal has none."""
    if desired.is_deleted:
        return _leave(desired, recorded, run)
    if open_order(desired, recorded) is not None:
        return ObjectAct.ORDER
    if run is not None and run.is_running:
        return _steer(desired, recorded, run) if _is_recorded(desired, recorded, run) else ObjectAct.ADOPT
    outcome = run.outcome if run is not None and run.is_of(desired) else recorded.outcome
    wanted = not desired.refusal and differs(desired, handled(desired, recorded, run), outcome)
    if not wanted or desired.standing.paused:
        return ObjectAct.RELEASE if desired.is_claimed else ObjectAct.REST
    recorded_id = recorded.workflow_id if recorded.starting == desired.generation else ""
    return ObjectAct.START if desired.is_claimed and recorded_id == desired.workflow_id else ObjectAct.CLAIM


def retry_pause_s(desired: DesiredRollout, recorded: ObjectStatus) -> float | None:
    """Return how long after its refusal an object starts again by itself, in seconds; None if it does not.

    Somebody may apply an object before its target: all of a folder at once, say.
    """
    stands = recorded.outcome == REFUSED and recorded.missing and not desired.refusal and not desired.is_deleted
    if not stands or desired.standing.paused:
        return None
    return min(FIRST_RETRY_S * 2.0 ** min(recorded.retries, 20), MOST_RETRY_S)


def outcome_after(recorded: ObjectStatus, run: Run) -> str:
    """Return how the object's own rollout stands after the latest run, which is somebody else's and has ended."""
    if recorded.outcome not in _LEFT or run.outcome != Outcome.COMPLETED or run.status is None:
        return recorded.outcome
    left = run.status.runs.template if run.status.runs else ""
    is_same = left == recorded.version if recorded.version else run.status.change == recorded.change
    return Outcome.COMPLETED if is_same else SUPERSEDED


def open_order(desired: DesiredRollout, recorded: ObjectStatus) -> AnnotatedOrder | None:
    """Return the first order without an answer; None if there is none."""
    return next((each for each in desired.orders if not recorded.has_answered(each)), None)


def handled(desired: DesiredRollout, recorded: ObjectStatus, run: Run | None) -> Handled | None:
    """Return the request of the latest start or retarget, even if a killed controller did not record it.

    Returns None if it is unknown: there was no request, or a retarget may have arrived that was not recorded.
    """
    if run is None or run.owner is None or not run.is_of(desired):
        return recorded.handled
    is_own = not run.is_adopted_by(desired)
    if is_own and any(map(desired.is_requester, run.retargeted_by)):
        return handled_now(desired)
    if recorded.retargeting:
        return None
    if not is_own:  # the generations of another object, and what it retargeted to, say nothing here
        return recorded.handled
    # Of one generation the run's own: a retry starts again without a new generation.
    found = (run.owner.handled, recorded.handled or run.owner.handled)
    return max(found, key=lambda each: each.generation)


def handled_now(desired: DesiredRollout) -> Handled:
    """Return the record of a start or retarget for what the object requests now."""
    return Handled(generation=desired.generation, **desired.marks.model_dump())


def differs(desired: DesiredRollout, handled: Handled | None, outcome: str) -> bool:
    """Whether a rollout must start for what the object requests, if none runs.

    After a completed rollout, only another change does: other rules are for the next one. After any other end, every
    edit starts it again.
    """
    if desired.refusal:
        return False
    if handled is None or handled.change != desired.marks.change:
        return True
    return outcome not in {"", Outcome.COMPLETED} and not handled.is_for(desired.marks)


def _leave(desired: DesiredRollout, recorded: ObjectStatus, run: Run | None) -> ObjectAct:
    if not desired.is_claimed:
        return ObjectAct.REST
    under_way = run is not None and run.is_running and run.is_of(desired)
    if desired.standing.on_delete is OnDelete.LEAVE or not under_way:
        return ObjectAct.RELEASE
    return ObjectAct.WAIT if recorded.aborted else ObjectAct.ABORT


def _is_recorded(desired: DesiredRollout, recorded: ObjectStatus, run: Run) -> bool:
    """Whether the object has what a deletion and the end of this run need; one of somebody else needs nothing."""
    if not run.is_of(desired):
        return True
    is_known = recorded.run_id == run.run_id or not run.is_adopted_by(desired)
    return desired.is_claimed and recorded.workflow_id == run.workflow_id and is_known


def _steer(desired: DesiredRollout, recorded: ObjectStatus, run: Run) -> ObjectAct:
    """Return how the rollout under way follows the object."""
    if not run.is_of(desired) or run.status is None:
        return ObjectAct.WAIT
    can, is_former = run.status.can, run.workflow_id != desired.workflow_id  # of another target, or of a refused spec
    is_edited = not is_former and recorded.refused_generation != desired.generation
    if "retarget" in can and is_edited and any(edits(desired, recorded, run)):
        return ObjectAct.RETARGET
    if desired.standing.paused:
        moves = not recorded.paused or not run.status.pause  # a person may have resumed it
        return ObjectAct.PAUSE if "pause" in can and moves else ObjectAct.WAIT
    if desired.refusal:  # nothing goes on for a spec that nobody understands
        return ObjectAct.WAIT
    is_held = run.status.phase in {Phase.HELD, Phase.NEEDS_HUMAN}  # that is not what spec.paused did
    if "resume" in can and not is_held and (recorded.paused or run.is_paused_by(desired)):
        return ObjectAct.RESUME
    return ObjectAct.FORGET_PAUSE if recorded.paused else ObjectAct.WAIT


def edits(desired: DesiredRollout, recorded: ObjectStatus, run: Run) -> tuple[bool, bool]:
    """Return whether the change, and the strategy, differ from what the rollout under way was given."""
    known = handled(desired, recorded, run)
    if known is None:
        return True, True
    return known.change != desired.marks.change, known.strategy != desired.marks.strategy
