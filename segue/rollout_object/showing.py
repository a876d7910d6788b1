"""Makes the status of a Rollout in Kubernetes. Pure."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from segue.errors import Exit, SegueError
from segue.rollout_object import RETRY
from segue.rollout_object.deciding import LOST, REFUSED, SUPERSEDED, Run, differs, handled, outcome_after
from segue.rollout_object.desired import DesiredRollout, Object
from segue.rollout_object.status import MAX_TEXT, Condition, Kind, ObjectSide, ObjectStatus
from segue.state import TO_BASELINE, Outcome, Phase
from segue.status import Status

STUCK = {Phase.HELD, Phase.NEEDS_HUMAN}
INVALID, WAITING, PENDING = "Invalid", "Waiting", "Pending"
"""Phases of an object without a rollout of its own: its spec is refused, it waits for another one, it starts."""
PROBLEMS = {
    Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ABORTED, *STUCK, INVALID, REFUSED, LOST, SUPERSEDED, "Terminated",
}  # fmt: skip
"""Phases whose event is a warning."""


class _Verdict(NamedTuple):
    """What the conditions say: exactly one of Ready, Reconciling and Stalled is True."""

    true: Kind
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Seen:
    """What the controller knows when it writes the status."""

    desired: DesiredRollout
    run: Run | None
    """The run of ``workflow_to_read``; None if there is none, or if nothing was read."""
    is_read: bool
    """Whether Temporal answered. If nothing needed to be read, the record is still right."""
    error: SegueError | None = None
    """Why Temporal, or a worker, did not answer."""


def show(seen: Seen, recorded: ObjectStatus, now: str) -> ObjectStatus:
    """Return the status to write at ``now`` (RFC 3339)."""
    desired = seen.desired
    found = _progress(seen, recorded).but(observed_generation=desired.generation)
    if desired.rollout is not None:
        found = found.but(target=str(desired.rollout.spec.target), change=_short(desired.rollout.spec.change.described))
    verdict, phase = _judged(seen, found)
    reason = verdict.message if phase not in {*Phase} else found.reason
    found = found.but(phase=phase, reason=_short(reason))
    accepted = ("False", INVALID, desired.refusal) if desired.refusal else ("True", "Valid", "")
    if not desired.refusal and phase == REFUSED:
        accepted = ("False", REFUSED, verdict.message)
    if not desired.refusal and is_refused(desired, found):
        accepted = ("False", "RetargetRefused", recorded_refusal(recorded))
    conditions = [_condition(recorded, Kind.ACCEPTED, *accepted, desired.generation, now)]
    for kind in (Kind.READY, Kind.RECONCILING, Kind.STALLED):
        value = "True" if verdict.true is kind else "False"
        conditions.append(_condition(recorded, kind, value, verdict.reason, verdict.message, desired.generation, now))
    return found.but(conditions=tuple(conditions))


def is_refused(desired: DesiredRollout, found: ObjectStatus) -> bool:
    """Whether the rollout under way refused this edit, and none has started for it since."""
    known = found.handled
    return found.refused_generation == desired.generation and (known is None or not known.is_for(desired.marks))


def recorded_refusal(recorded: ObjectStatus) -> str:
    """Return why the rollout under way refused an edit, as the status has it."""
    known = recorded.condition(Kind.ACCEPTED)
    return known.message if known is not None else ""


def _progress(seen: Seen, recorded: ObjectStatus) -> ObjectStatus:
    """Return the record with what Temporal answered about the object's own rollout."""
    run = seen.run
    if not seen.is_read:
        return recorded
    if recorded.starting:  # what was recorded about the former rollout ends with it
        recorded = recorded.but(starting=0, retargeting=0, paused=False, aborted=False)
    if run is not None and not run.is_of(seen.desired):
        return recorded if run.is_running else _after(recorded, run)
    if run is None:
        lost = recorded.run_id and not recorded.outcome
        return recorded.but(outcome=LOST, reason="", waiting_for="", approval="", pause="") if lost else recorded
    known = handled(seen.desired, recorded, run)
    found = recorded.but(
        workflow_id=run.workflow_id, run_id=run.run_id, handled=known,
        retargeting=recorded.retargeting if known is None else 0,
        outcome=_outcome(seen.desired, run), missing=run.is_missing,
        waiting_for="", reason=_short(run.why), approval="", pause="",
    )  # fmt: skip
    return found if run.status is None else _counted(found, run.status)


def _after(recorded: ObjectStatus, run: Run) -> ObjectStatus:
    """Return the record after a rollout of somebody else has ended."""
    outcome = outcome_after(recorded, run)
    return recorded if outcome == recorded.outcome else recorded.but(outcome=outcome, reason="")


def _counted(found: ObjectStatus, status: Status) -> ObjectStatus:
    return found.but(
        phase=status.phase, reason=_short(status.reason), waiting_for=_short(status.waiting_for),
        rollout=status.rollout, approval=status.approval, pause=status.pause,
        version=status.runs.template if status.runs else "",
        replicas=status.replicas, floor=status.floor,
        old=ObjectSide(replicas=status.old.replicas, ready=status.old.ready),
        new=ObjectSide(replicas=status.new.replicas, ready=status.new.ready),
    )  # fmt: skip


def _outcome(desired: DesiredRollout, run: Run) -> str:
    """Return how the run ended; a rollback that a retarget to the running version requested is its completion."""
    back = run.status is not None and f"{TO_BASELINE} {desired.by}" in run.status.reason
    return Outcome.COMPLETED if run.outcome == Outcome.ROLLED_BACK and back else run.outcome


def _judged(seen: Seen, found: ObjectStatus) -> tuple[_Verdict, str]:
    """Return what the conditions say, and the phase."""
    desired, run = seen.desired, seen.run
    under_way = run is not None and run.is_running and run.is_of(desired)
    if seen.error is not None:
        kind = Kind.STALLED if seen.error.exit_code is Exit.NEEDS_PERSON else Kind.RECONCILING
        return _Verdict(kind, type(seen.error).__name__, str(seen.error)), found.phase or PENDING
    if desired.refusal:
        return _Verdict(Kind.STALLED, INVALID, desired.refusal), found.phase if under_way else INVALID
    if under_way:
        return _moving(found), found.phase or PENDING
    if run is not None and run.is_running:
        message = f"another rollout of {found.target}, {run.origin}, is under way; this one waits for its end"
        return _Verdict(Kind.RECONCILING, "OtherRollout", message), WAITING
    if differs(desired, found.handled, found.outcome):
        return _starting(desired)
    return _ended(found, run)


def _starting(desired: DesiredRollout) -> tuple[_Verdict, str]:
    if desired.standing.paused:
        return _Verdict(Kind.RECONCILING, "Paused", "spec.paused is true: nothing starts"), str(Phase.PAUSED)
    return _Verdict(Kind.RECONCILING, PENDING, "the rollout starts"), PENDING


def _ended(found: ObjectStatus, run: Run | None) -> tuple[_Verdict, str]:
    outcome = found.outcome or PENDING
    if outcome == Outcome.COMPLETED:
        return _Verdict(Kind.READY, outcome, f"{found.target} runs the version"), outcome
    if outcome == LOST:
        return _Verdict(Kind.STALLED, LOST, "Temporal has no trace of the rollout; edit the spec to start again"), LOST
    if outcome == SUPERSEDED and run is not None and run.status is not None:  # else the record has the words
        later = f"a later rollout of {found.target}, {run.origin}, left another version ({run.status.change})"
        fix = f"to roll this object's version again, edit it, or annotate it with {RETRY}"
        return _Verdict(Kind.STALLED, SUPERSEDED, f"{later}; {fix}"), SUPERSEDED
    return _Verdict(Kind.STALLED, outcome, found.reason), outcome


def _moving(found: ObjectStatus) -> _Verdict:
    message = "; ".join(text for text in (found.reason, found.waiting_for and f"waits for {found.waiting_for}") if text)
    if found.phase in STUCK:
        return _Verdict(Kind.STALLED, found.phase, _short(message))
    return _Verdict(Kind.RECONCILING, found.phase or PENDING, _short(message))


def _condition(
    recorded: ObjectStatus, kind: Kind, value: Any, reason: str, message: str, generation: int, now: str
) -> Condition:
    known = recorded.condition(kind)
    since = known.last_transition_time if known is not None and known.status == value else now
    return Condition(
        type=kind, status=value, reason=reason, message=_short(message), last_transition_time=since,
        observed_generation=generation,
    )  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def is_news(before: ObjectStatus, after: ObjectStatus) -> bool:
    """Whether the status differs in more than the texts of what it waits for: those may wait a little."""
    return _without_texts(before) != _without_texts(after)


def _without_texts(status: ObjectStatus) -> ObjectStatus:
    conditions = tuple(each.model_copy(update={"message": ""}) for each in status.conditions)
    return status.but(waiting_for="", reason="", conditions=conditions)


def document(status: ObjectStatus) -> Object:
    """Return the status as JSON; null removes a field of the former one."""
    found: Object = status.model_dump(mode="json", by_alias=True)
    return found
