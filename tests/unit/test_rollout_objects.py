"""A Rollout in Kubernetes: what the controller does next, what the status tells, and the definition of the kind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from segue.errors import Failing, Refused, Unreachable
from segue.messages import Approve, Pause, Resume, Scale, message_of
from segue.rollout_object import FINALIZER, RETRY
from segue.rollout_object.crd import Definition, definition, file_of, manifest
from segue.rollout_object.deciding import (
    LOST,
    REFUSED,
    SUPERSEDED,
    ObjectAct,
    Owner,
    Run,
    decide,
    handled_now,
    retry_pause_s,
    workflow_at_rest,
    workflow_to_read,
)
from segue.rollout_object.desired import DesiredRollout, desired_rollout, status_of
from segue.rollout_object.events import STEP, order_event, status_events, target_reference
from segue.rollout_object.orders import GUARDED, ORDERS, AnnotatedOrder, person_in
from segue.rollout_object.showing import Seen, document, is_news, show
from segue.rollout_object.status import Kind, ObjectStatus
from segue.spec import OwnProfile, read_object, read_rollout
from segue.spec.own_profile import read_own_profile
from segue.spec.refusals import NamedProfile
from segue.state import Phase
from segue.status import Status
from worker.controller.controller import BACKOFF_S, MOST_BACKOFF_S, after_acts_s, backoff_s
from worker.controller.engine import request_id
from worker.controller.objects import RolloutObjects

ROOT = Path(__file__).parents[2]
ID = "rollout/east/serving/Deployment/chat"
NOW = "2026-11-28T18:00:00Z"
CHANGE: dict[str, Any] = {"images": {"server": "example/chat:2"}}


def found(
    generation: int = 1, *, claimed: bool = True, deleted: bool = False, retry: str = "", notes: Any = None, **spec: Any
) -> Any:
    """Return an object as the API server has it."""
    metadata: dict[str, Any] = {"name": "chat", "namespace": "serving", "uid": "u1", "generation": generation}
    metadata |= {"resourceVersion": "7", "creationTimestamp": NOW, "managedFields": []}
    metadata |= {"finalizers": [FINALIZER]} if claimed else {}
    metadata |= {"deletionTimestamp": NOW} if deleted else {}
    metadata |= {"annotations": {RETRY: retry} if retry else {}}
    metadata["annotations"] |= notes or {}
    body = {"target": {"name": "chat"}, "change": CHANGE, **spec}
    return {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": metadata, "spec": body}


def wants(generation: int = 1, **given: Any) -> DesiredRollout:
    return desired_rollout(found(generation, **given), "east")


def record(of: DesiredRollout | None = None, **fields: Any) -> ObjectStatus:
    """Return the status of an object whose rollout was started for ``of``."""
    handled = handled_now(of) if of else None
    return ObjectStatus(workflow_id=ID, run_id="r1" if of else "", handled=handled, **fields)


def status(phase: Phase = Phase.PROGRESSING, can: str = "pause retarget abort", **fields: Any) -> Status:
    return Status(id=ID, name="chat", target="serving/chat", phase=phase, can=tuple(can.split()), **fields)


def run(of: DesiredRollout | None, *, uid: str = "u1", ended: str = "", **fields: Any) -> Run:
    """Return the run that was started for ``of``; by a person for None."""
    owner = Owner(uid, "serving", "chat", handled_now(of)) if of else None
    given = {"status": status(), **fields}
    return Run(ID, "r1", is_running=not ended, owner=owner, outcome=ended, **given)


OTHER = {"images": {"server": "example/chat:3"}}
FIRST, SECOND = wants(), wants(2, change=OTHER)
BAD = wants(2, change={"images": {"server": " "}})
STRATEGY, RULES = wants(2, strategy={"maxSurge": 2}), wants(2, readiness={"deadline": "5m"})
PAUSED, RETRIED = wants(2, paused=True), wants(1, retry="now")
DELETED = wants(2, deleted=True)
MOVED = wants(2, target={"name": "other"})
PAUSED_STATUS = status(Phase.PAUSED, "pause resume retarget abort", pause="pause@1a")
OWN_PAUSE = status(Phase.PAUSED, "pause resume retarget abort", reason=f"paused by {PAUSED.by}: spec.paused")
BACK = status(Phase.ROLLING_BACK, "abort")
LEFT = replace(FIRST, uid="u2")
"""Created again after it was deleted with ``onDelete: leave``, or its finalizer was removed."""
ADOPTED = replace(LEFT, recorded_run="r1")

NOTES = {"segue.dev/approve": "50%@1a fine", "segue.dev/approve-by": "alice"}
APPROVED = wants(notes=NOTES)
APPROVED_BAD = replace(BAD, orders=APPROVED.orders)
[ORDER] = APPROVED.orders
ANSWERED = record(FIRST).answering(ORDER, "approve: now Progressing", taken=True)

TABLE: dict[str, tuple[DesiredRollout, ObjectStatus, Run | None, ObjectAct]] = {
    # Nothing runs.
    "new": (wants(claimed=False), ObjectStatus(), None, ObjectAct.CLAIM),
    "only the finalizer was written": (FIRST, ObjectStatus(), None, ObjectAct.CLAIM),
    "claimed": (FIRST, record(starting=1), None, ObjectAct.START),
    "new and paused": (wants(claimed=False, paused=True), ObjectStatus(), None, ObjectAct.REST),
    "bad": (replace(BAD, is_claimed=False), ObjectStatus(), None, ObjectAct.REST),
    "completed": (FIRST, record(FIRST, outcome="Completed"), None, ObjectAct.RELEASE),
    "completed, then edited": (SECOND, record(FIRST, outcome="Completed"), None, ObjectAct.CLAIM),
    "completed, then edited, claimed": (SECOND, record(FIRST, outcome="Completed", starting=2), None, ObjectAct.START),
    "completed, then edited, claimed, and edited back": (
        wants(3), record(FIRST, outcome="Completed", starting=2), None, ObjectAct.RELEASE,
    ),
    "completed, then other rules": (RULES, record(FIRST, outcome="Completed"), None, ObjectAct.RELEASE),
    "completed, then another strategy": (STRATEGY, record(FIRST, outcome="Completed"), None, ObjectAct.RELEASE),
    "completed, then moved": (MOVED, record(FIRST, outcome="Completed"), None, ObjectAct.CLAIM),
    "completed, then retried": (RETRIED, record(FIRST, outcome="Completed"), None, ObjectAct.RELEASE),
    "rolled back": (FIRST, record(FIRST, outcome="RolledBack"), None, ObjectAct.RELEASE),
    "rolled back, then other rules": (RULES, record(FIRST, outcome="RolledBack"), None, ObjectAct.CLAIM),
    "rolled back, then other rules, claimed": (
        RULES, record(FIRST, outcome="RolledBack", starting=2), None, ObjectAct.START,
    ),
    "rolled back, then retried": (RETRIED, record(FIRST, outcome="RolledBack"), None, ObjectAct.CLAIM),
    "rolled back, then edited and paused": (
        wants(2, change=OTHER, paused=True), record(FIRST, outcome="RolledBack"), None, ObjectAct.RELEASE,
    ),
    # A controller that was killed finds its own start, and never repeats it.
    "killed after the start": (FIRST, record(), run(FIRST), ObjectAct.WAIT),
    "killed after the start, and it ended": (FIRST, record(), run(FIRST, ended="Completed"), ObjectAct.RELEASE),
    "killed after the start, and it rolled back": (FIRST, record(), run(FIRST, ended="RolledBack"), ObjectAct.RELEASE),
    "killed after the start, which was refused": (FIRST, record(), run(FIRST, ended=REFUSED), ObjectAct.RELEASE),
    "killed after the start of an edit, which ended": (
        SECOND, record(FIRST, outcome="Completed", starting=2), run(SECOND, ended="RolledBack"), ObjectAct.RELEASE,
    ),
    "killed after a start, and edited back since": (
        wants(3), record(FIRST, outcome="Completed", starting=2), run(SECOND, ended="Completed"), ObjectAct.CLAIM,
    ),
    "killed after a retarget, and it ended": (
        SECOND, record(FIRST), run(FIRST, ended="Completed", retargeted_by=frozenset({SECOND.by})), ObjectAct.RELEASE,
    ),
    "its retarget never arrived, and it ended": (SECOND, record(FIRST), run(FIRST, ended="Completed"), ObjectAct.CLAIM),
    "Temporal has no trace of it": (FIRST, record(FIRST), None, ObjectAct.RELEASE),
    "retried, runs": (RETRIED, record(FIRST, outcome="RolledBack", starting=1), run(RETRIED), ObjectAct.WAIT),
    "retried, and rolled back again": (
        RETRIED, record(FIRST, outcome="RolledBack", starting=1), run(RETRIED, ended="RolledBack"), ObjectAct.RELEASE,
    ),
    # Somebody else's rollout.
    "another rollout runs": (FIRST, record(), run(None), ObjectAct.WAIT),
    "another rollout ended": (FIRST, record(starting=1), run(None, ended="Completed"), ObjectAct.START),
    "an object of the same name was deleted": (
        FIRST, record(starting=1), run(FIRST, uid="u0", ended="Aborted"), ObjectAct.START,
    ),
    "an object of the same name left it": (LEFT, record(), run(FIRST), ObjectAct.ADOPT),
    "it left it, adopted": (ADOPTED, record().but(run_id="r1"), run(FIRST), ObjectAct.RETARGET),
    "it left it at a later generation, adopted and retargeted": (ADOPTED, record(LEFT), run(SECOND), ObjectAct.WAIT),
    "it left it, adopted, ended": (ADOPTED, record(LEFT), run(SECOND, ended="RolledBack"), ObjectAct.RELEASE),
    "it left it, adopted, ended before the retarget": (
        ADOPTED, record().but(run_id="r1"), run(FIRST, ended="Completed"), ObjectAct.CLAIM,
    ),
    # Its own rollout runs.
    "runs": (FIRST, record(FIRST), run(FIRST), ObjectAct.WAIT),
    "runs, edited": (SECOND, record(FIRST), run(FIRST), ObjectAct.RETARGET),
    "runs, edited, retargeted": (SECOND, record(SECOND), run(FIRST), ObjectAct.WAIT),
    "runs, another strategy": (STRATEGY, record(FIRST), run(FIRST), ObjectAct.RETARGET),
    "runs, edited, killed, and edited back": (wants(3), record(FIRST, retargeting=2), run(FIRST), ObjectAct.RETARGET),
    "runs, edited, killed, and edited back, is going back": (
        wants(3), record(FIRST, retargeting=2), run(FIRST, status=BACK), ObjectAct.WAIT,
    ),
    "runs, edited, killed, and edited back, and it ended": (
        wants(3), record(FIRST, retargeting=2), run(FIRST, ended="Completed"), ObjectAct.CLAIM,
    ),
    "its status is emptied": (FIRST, ObjectStatus(), run(FIRST), ObjectAct.ADOPT),
    "its finalizer is removed": (wants(claimed=False), record(FIRST), run(FIRST), ObjectAct.ADOPT),
    "runs, other rules": (RULES, record(FIRST), run(FIRST), ObjectAct.WAIT),
    "runs, edited, its retarget was refused": (SECOND, record(FIRST, refused_generation=2), run(FIRST), ObjectAct.WAIT),
    "runs, edited, is going back": (SECOND, record(FIRST), run(FIRST, status=BACK), ObjectAct.WAIT),
    "runs, moved": (MOVED, record(FIRST), run(FIRST), ObjectAct.WAIT),
    "runs, and is bad now": (BAD, record(FIRST), run(FIRST), ObjectAct.WAIT),
    "runs, paused": (PAUSED, record(FIRST), run(FIRST), ObjectAct.PAUSE),
    "runs, paused, is so": (PAUSED, record(FIRST, paused=True), run(FIRST, status=PAUSED_STATUS), ObjectAct.WAIT),
    "runs, paused, and somebody resumed it": (PAUSED, record(FIRST, paused=True), run(FIRST), ObjectAct.PAUSE),
    "runs, not paused any more": (
        FIRST, record(FIRST, paused=True), run(FIRST, status=PAUSED_STATUS), ObjectAct.RESUME,
    ),
    "runs, paused, and somebody resumed it at a stop": (
        PAUSED, record(FIRST, paused=True), run(FIRST, status=status(Phase.AWAITING_APPROVAL)), ObjectAct.PAUSE,
    ),
    "runs, paused, killed, and not paused any more": (
        wants(3), record(FIRST), run(FIRST, status=OWN_PAUSE), ObjectAct.RESUME,
    ),
    "runs, a person paused it": (FIRST, record(FIRST), run(FIRST, status=PAUSED_STATUS), ObjectAct.WAIT),
    "runs, resumed": (FIRST, record(FIRST, paused=True), run(FIRST), ObjectAct.FORGET_PAUSE),
    "runs, not paused any more, but held": (
        FIRST, record(FIRST, paused=True), run(FIRST, status=status(Phase.HELD, "resume abort")),
        ObjectAct.FORGET_PAUSE,
    ),
    "runs, and is bad and paused now": (
        replace(BAD, standing=PAUSED.standing), record(FIRST), run(FIRST), ObjectAct.PAUSE,
    ),
    "runs, paused, and is bad but not paused now": (
        BAD, record(FIRST, paused=True), run(FIRST, status=PAUSED_STATUS), ObjectAct.WAIT,
    ),
    "runs, moved and paused": (replace(MOVED, standing=PAUSED.standing), record(FIRST), run(FIRST), ObjectAct.PAUSE),
    "runs, paused, moved, and not paused any more": (
        MOVED, record(FIRST, paused=True), run(FIRST, status=PAUSED_STATUS), ObjectAct.RESUME,
    ),
    # Orders by annotations.
    "ordered": (APPROVED, record(FIRST), run(FIRST), ObjectAct.ORDER),
    "ordered, and answered": (APPROVED, ANSWERED, run(FIRST), ObjectAct.WAIT),
    "ordered by another, after an answer": (
        wants(notes={**NOTES, "segue.dev/approve-by": "bob"}), ANSWERED, run(FIRST), ObjectAct.ORDER,
    ),
    "ordered, and bad now": (APPROVED_BAD, record(FIRST), run(FIRST), ObjectAct.ORDER),
    "ordered, but another runs": (APPROVED, record(), run(None), ObjectAct.ORDER),
    "deleted, ordered": (replace(DELETED, orders=APPROVED.orders), record(FIRST), run(FIRST), ObjectAct.ABORT),
    # Deleted.
    "deleted, runs": (DELETED, record(FIRST), run(FIRST), ObjectAct.ABORT),
    "deleted, its status is emptied": (DELETED, ObjectStatus(), run(FIRST), ObjectAct.ABORT),
    "deleted, aborts": (DELETED, record(FIRST, aborted=True), run(FIRST, status=BACK), ObjectAct.WAIT),
    "deleted, aborted": (DELETED, record(FIRST, aborted=True), run(FIRST, ended="Aborted"), ObjectAct.RELEASE),
    "deleted, ended": (DELETED, record(FIRST, outcome="Completed"), None, ObjectAct.RELEASE),
    "deleted, another runs": (DELETED, record(FIRST), run(None), ObjectAct.RELEASE),
    "deleted, left": (wants(2, deleted=True, onDelete="leave"), record(FIRST), None, ObjectAct.RELEASE),
    "deleted, bad, runs": (replace(BAD, is_deleted=True), record(FIRST), run(FIRST), ObjectAct.ABORT),
    "deleted, released": (replace(DELETED, is_claimed=False), record(FIRST), None, ObjectAct.REST),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_next_action(case: str) -> None:
    given, recorded, ran, act = TABLE[case]
    assert decide(given, recorded, ran) is act
    if ran is not None:
        assert workflow_to_read(given, recorded) == (
            "" if given.standing.on_delete == "leave" and given.is_deleted else ID
        )


@pytest.mark.parametrize("case", [case for case, row in TABLE.items() if row[-1] is ObjectAct.RELEASE])
def test_an_object_at_rest_has_no_finalizer(case: str) -> None:
    """It can be deleted without a controller, and with its namespace, whose roles may go first."""
    given, recorded, ran, _ = TABLE[case]
    assert decide(replace(given, is_claimed=False), recorded, ran) is ObjectAct.REST


def test_the_orders_of_an_object() -> None:
    """Those that go back or stop come first; the value is the id and then the reason, and the stamp names the user."""
    notes = {**NOTES, "segue.dev/abort": " 1f ", "segue.dev/reject": " ", "example.com/pause": "1f"}
    abort, approve = wants(notes=notes).orders
    assert (abort.verb, abort.value, abort.user) == ("abort", "1f", "")
    assert approve.message == Approve(by="kubernetes user alice", about="50%@1a", reason="fine")
    long = AnnotatedOrder("approve", "x" * 99 + " " + "y" * 9_999, "u" * 999).message
    assert (len(long.by), len(long.reason), long.about) == (246, 1000, "x" * 99)
    with pytest.raises(Refused, match="about"):
        _ = AnnotatedOrder("approve", "x" * 999, "alice").message
    by = {"by": "kubernetes user alice", "reason": "more users"}
    assert AnnotatedOrder("scale", "1f  8 more users", "alice").message == Scale(about="1f", replicas=8, **by)
    assert AnnotatedOrder("resume", "pause@2e more users", "alice").message == Resume(about="pause@2e", **by)
    for bad in ("1f", "1f many", "1f 0"):
        with pytest.raises(Refused, match="replicas"):
            _ = AnnotatedOrder("scale", bad, "alice").message


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        pytest.param("aprove", "perhaps you mean segue.dev/approve", id="mistyped"),
        pytest.param("Retry", "perhaps you mean segue.dev/retry", id="capital"),
        pytest.param("pause", "set spec.paused to true", id="a-message-without-an-annotation"),
        pytest.param("team", "after segue.dev/ it reads retry, abort, reject, settle, scale, approve", id="another"),
    ],
)
def test_an_annotation_that_segue_does_not_read_is_answered(name: str, fix: str) -> None:
    """It would be ignored without a word, and its author would wait for an order that nobody obeys."""
    desired = wants(notes={**NOTES, f"segue.dev/{name}": "yes", "segue.dev/edit-by": "alice"})
    approve, unknown = desired.orders
    assert approve.unknown is None
    says = f"segue.dev/{name}: is not an annotation that Segue reads, so it has no effect; {fix}"
    assert str(unknown.unknown).startswith(says)
    event = order_event(found(), unknown, says, NOW, taken=False)
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "AnnotationUnknown", says)
    answered = record(FIRST).answering(approve, "x", taken=True).answering(unknown, says, taken=False)
    assert decide(desired, answered, None) is not ObjectAct.ORDER
    assert [each.verb for each in answered.without_removed([]).orders] == ["approve"]


def test_each_verb_keeps_its_latest_answer() -> None:
    later = replace(ORDER, value="80%@2b")
    recorded = ANSWERED.answering(later, "x", taken=False)
    assert (len(recorded.orders), recorded.has_answered(later), recorded.has_answered(ORDER)) == (1, True, False)
    assert decide(APPROVED, recorded.answering(replace(ORDER, verb="abort"), "x", taken=True), None) is ObjectAct.ORDER


def test_who_wrote_the_spec_is_the_requester() -> None:
    """A start and a retarget name the author; what was handled is recognised with and without it."""
    written = wants(2, change=OTHER, notes={"segue.dev/edit-by": "alice"})
    assert written.chosen_by == "Rollout serving/chat generation 2 by kubernetes user alice"
    assert (written.by, SECOND.chosen_by) == (SECOND.by, SECOND.by)
    assert person_in(written.chosen_by) == ("kubernetes user alice", SECOND.by)
    assert person_in(SECOND.by) == ("", SECOND.by) and person_in("bob by kubernetes user alice")[0] == ""
    for who, act in ((SECOND.by, ObjectAct.RELEASE), (written.chosen_by, ObjectAct.RELEASE), ("bob", ObjectAct.CLAIM)):
        ended = run(FIRST, ended="Completed", retargeted_by=frozenset({who}))
        for given in (SECOND, written):
            assert decide(given, record(FIRST), ended) is act
    assert not wants(2, notes={"segue.dev/edit-by": "alice"}).is_requester(wants(20).by)


def test_the_longest_requester_fits_into_a_message() -> None:
    longest = replace(SECOND, namespace="n" * 63, name="r" * 253, generation=10**9, author="u" * 999)
    assert message_of(Pause, by=longest.chosen_by).by == longest.chosen_by


def test_an_answer_has_an_event() -> None:
    made = order_event(found(), ORDER, "no approval is pending", NOW, taken=False)
    assert (made["type"], made["reason"]) == ("Warning", "ApproveRefused")
    assert made["message"] == "approve by kubernetes user alice: no approval is pending"
    unproven = order_event(found(), replace(ORDER, user=""), "no policy", NOW, taken=False)
    assert unproven["message"] == "approve by somebody whom nothing proves: no policy"
    taken = order_event(found(), ORDER, "approve: now Progressing", NOW, taken=True)
    assert (taken["type"], taken["reason"]) == ("Normal", "ApproveTaken")


def test_the_policies_guard_each_order() -> None:
    """They name the orders of the code, and refuse a forged stamp by the words that the controller looks for."""
    policies = list(yaml.safe_load_all((ROOT / "deploy/admission/steering.yaml").read_text()))
    text = json.dumps([each["spec"] for each in policies])
    for verb in ORDERS:
        assert text.count(f'\\"{verb}\\"') == 2, verb
    assert GUARDED in text


def test_nothing_is_read_of_an_object_at_rest() -> None:
    """Ten thousand completed objects cost Temporal nothing."""
    assert workflow_to_read(FIRST, record(FIRST, outcome="Completed")) == ""
    assert workflow_to_read(RULES, record(FIRST, outcome="Completed")) == ""
    assert workflow_to_read(SECOND, record(FIRST, outcome="Completed")) == ID
    assert workflow_to_read(wants(deleted=True, onDelete="leave"), record(FIRST)) == ""
    assert workflow_to_read(BAD, record(FIRST, outcome="Completed")) == ""


def test_a_bad_spec_still_obeys_paused() -> None:
    """Whoever stops a rollout in a hurry may have made a mistake elsewhere."""
    for change in (CHANGE, {"images": {"server": " "}}):
        assert [wants(change=change, paused=each).standing.paused for each in (True, False)] == [True, False]
    assert not wants(paused="yes").standing.paused


def test_a_bad_spec_still_obeys_on_delete() -> None:
    left = wants(deleted=True, onDelete="leave", chnage={})
    assert left.refusal and decide(left, record(FIRST), None) is ObjectAct.RELEASE


def test_marks_are_of_what_is_written() -> None:
    """Neither the order of keys, nor paused or onDelete, nor a release with other defaults looks like an edit."""
    spec = {"change": CHANGE, "target": {"name": "chat"}, "paused": True, "onDelete": "leave"}
    other = {**found(3), "spec": spec}
    assert desired_rollout(other, "east").marks == FIRST.marks
    assert FIRST.marks.change != SECOND.marks.change and FIRST.marks.strategy != STRATEGY.marks.strategy
    assert FIRST.marks.rules != RULES.marks.rules and FIRST.marks.rules != RETRIED.marks.rules


def test_an_object_is_rolled_in_its_own_cluster() -> None:
    """It may name the cluster that has it, and no other; a cluster with workers of its own needs no name."""
    named, other = found(target={"name": "chat", "cluster": "east"}), found(target={"name": "chat", "cluster": "west"})
    for read, cluster in (
        (desired_rollout(found(), "east"), None), (desired_rollout(found(), "east", is_named=True), "east"),
        (desired_rollout(named, "east"), "east"),
    ):  # fmt: skip
        assert read.rollout is not None and read.rollout.spec.target.cluster == cluster
        assert read.workflow_id == ID
    refused = desired_rollout(other, "east", is_named=True)
    assert refused.rollout is None and refused.workflow_id == ""
    assert "spec.target.cluster: 'west': is not cluster east, which has this object; leave it out" in refused.refusal


def shown(given: DesiredRollout, recorded: ObjectStatus, ran: Run | None, error: Any = None) -> ObjectStatus:
    return show(Seen(given, ran, is_read=error is None and ran is not None, error=error), recorded, NOW)


HELD = run(FIRST, status=status(Phase.NEEDS_HUMAN, reason="a person must look"))
ROLLED_BACK = run(FIRST, ended="RolledBack", status=status(Phase.ROLLED_BACK, "", reason="CrashLoop: x"))
SHOWN: dict[str, tuple[ObjectStatus, Kind, str, str]] = {
    "new": (shown(FIRST, record(), None), Kind.RECONCILING, "Pending", "Pending"),
    "runs": (shown(FIRST, record(FIRST), run(FIRST)), Kind.RECONCILING, "Progressing", "Progressing"),
    "needs a person": (shown(FIRST, record(FIRST), HELD), Kind.STALLED, "NeedsHuman", "NeedsHuman"),
    "completed": (
        shown(FIRST, record(FIRST), run(FIRST, ended="Completed", status=status(Phase.COMPLETED, ""))),
        Kind.READY, "Completed", "Completed",
    ),
    "runs the version already": (
        shown(FIRST, record(), run(FIRST, ended="Completed", status=None)), Kind.READY, "Completed", "Completed",
    ),
    "rolled back": (shown(FIRST, record(FIRST), ROLLED_BACK), Kind.STALLED, "RolledBack", "RolledBack"),
    "refused": (
        shown(FIRST, record(), run(FIRST, ended=REFUSED, status=None, why="no such Deployment")),
        Kind.STALLED, REFUSED, REFUSED,
    ),
    "bad": (shown(BAD, ObjectStatus(), None), Kind.STALLED, "Invalid", "Invalid"),
    "bad now": (shown(BAD, record(FIRST), run(FIRST)), Kind.STALLED, "Invalid", "Progressing"),
    "paused": (shown(wants(paused=True), record(), None), Kind.RECONCILING, "Paused", "Paused"),
    "another runs": (shown(FIRST, record(), run(None)), Kind.RECONCILING, "OtherRollout", "Waiting"),
    "Temporal is away": (
        shown(FIRST, record(FIRST, phase="Progressing"), None, Unreachable("away")),
        Kind.RECONCILING, "Unreachable", "Progressing",
    ),
    "its code fails": (
        shown(FIRST, record(FIRST, phase="Progressing"), None, Failing("x")), Kind.STALLED, "Failing", "Progressing",
    ),
    "lost": (
        show(Seen(FIRST, None, is_read=True), record(FIRST, phase="Progressing"), NOW), Kind.STALLED, LOST, LOST,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHOWN)
def test_the_conditions(case: str) -> None:
    """Exactly one of Ready, Reconciling and Stalled is True, for the object's generation, as kstatus reads them."""
    given, true, reason, phase = SHOWN[case]
    conditions = {each.type: each for each in given.conditions}
    assert {kind for kind in (Kind.READY, Kind.RECONCILING, Kind.STALLED) if conditions[kind].status == "True"} == {
        true
    }
    assert (conditions[true].reason, given.phase) == (reason, phase)
    assert {each.observed_generation for each in given.conditions} == {given.observed_generation}
    refused = case in {"bad", "bad now", "refused"}
    assert conditions[Kind.ACCEPTED].status == ("False" if refused else "True")
    assert bool(conditions[Kind.ACCEPTED].message) is refused


def later(left: str, of: DesiredRollout | None = None, ended: str = "Completed", **fields: Any) -> Run:
    """Return a rollout of somebody else that left this version, after the object's own."""
    seen = status(Phase.COMPLETED, "", change=f"server={left}", runs={"template": left}, **fields)
    owner = Owner("u9", "serving", "b", handled_now(of)) if of else None
    return replace(run(of, ended=ended, status=seen), run_id="r9", owner=owner)


LATER: dict[str, tuple[str, str, Run | None, str]] = {
    "none": ("Completed", "v2", None, "Completed"),
    "another version": ("Completed", "v2", later("v3"), SUPERSEDED),
    "another object's": ("Completed", "v2", later("v3", SECOND), SUPERSEDED),
    "the same version": ("Completed", "v2", later("v2"), "Completed"),
    "rolled back": ("Completed", "v2", later("v3", ended="RolledBack"), "Completed"),
    "refused": ("Completed", "v2", replace(run(None, ended=REFUSED), status=None), "Completed"),
    "of a release before, the same": ("Completed", "", later("v2"), "Completed"),
    "of a release before, another": ("Completed", "", later("v3"), SUPERSEDED),
    "superseded, no answer": (SUPERSEDED, "v2", None, SUPERSEDED),
    "superseded, and put back": (SUPERSEDED, "v2", later("v2"), "Completed"),
    "it had rolled back itself": ("RolledBack", "v1", later("v3"), "RolledBack"),
}  # fmt: skip


def condition_of(status: ObjectStatus, kind: Kind) -> str:
    """Return the status of a condition; empty without it."""
    found = status.condition(kind)
    return found.status if found is not None else ""


@pytest.mark.parametrize("case", LATER)
def test_a_later_rollout_that_leaves_another_version_supersedes(case: str) -> None:
    """Ready means that the target runs the version, also after `segue start`, `segue undo`, or a second object."""
    outcome, version, ran, expected = LATER[case]
    given = replace(FIRST, is_claimed=False)
    recorded = record(given, outcome=outcome, version=version, change="server=v2", reason="before")
    after = show(Seen(given, ran, is_read=ran is not None), recorded, NOW)
    kind = Kind.READY if expected == "Completed" else Kind.STALLED
    assert (after.outcome, after.phase, condition_of(after, kind)) == (expected, expected, "True")
    assert decide(given, recorded, ran) is ObjectAct.REST
    if outcome == "Completed" and expected == SUPERSEDED and ran is not None:
        assert ran.origin in after.reason and "segue.dev/retry" in after.reason
        assert decide(replace(RETRIED, is_claimed=False), after, ran) is ObjectAct.CLAIM
        assert show(Seen(given, None, is_read=False), after, NOW) == after


def test_an_object_at_rest_looks_only_for_later_rollouts() -> None:
    completed = record(FIRST, outcome="Completed")
    assert (workflow_to_read(FIRST, completed), workflow_at_rest(FIRST, completed)) == ("", ID)
    assert workflow_at_rest(FIRST, record(FIRST, outcome="RolledBack")) == "" == workflow_at_rest(DELETED, completed)


def test_an_object_before_its_target_starts_again() -> None:
    """At first soon, then ever more rarely; another refusal needs an edit."""
    missing = record(FIRST, outcome=REFUSED, missing=True)
    pauses = [retry_pause_s(FIRST, missing.but(retries=n)) or 0.0 for n in range(2000)]
    assert (pauses[0], pauses[1], pauses[-1]) == (5.0, 10.0, 3600.0) and pauses == sorted(pauses)
    for given, recorded in (
        (FIRST, missing.but(missing=False)), (FIRST, missing.but(outcome="RolledBack")), (PAUSED, missing),
        (BAD, missing), (DELETED, missing),
    ):  # fmt: skip
        assert retry_pause_s(given, recorded) is None
    ended = replace(run(FIRST, ended=REFUSED, status=None), is_missing=True)
    recorded = shown(FIRST, record(FIRST), ended)
    assert recorded.missing and decide(replace(FIRST, is_claimed=False), recorded, None) is ObjectAct.REST
    again = desired_rollout({**found(claimed=False), "status": document(recorded.but(retries=1))}, "east")
    assert decide(again, recorded.but(retries=1), None) is ObjectAct.CLAIM
    assert request_id(again) != request_id(FIRST), "Temporal would answer the same request with the refused run"


def test_what_starts_again_is_accepted() -> None:
    """The former refusal is over; the next answer of the cluster counts."""
    retried = shown(RETRIED, record(FIRST, outcome=REFUSED, starting=1), None)
    assert (retried.phase, condition_of(retried, Kind.ACCEPTED)) == ("Pending", "True")


def test_it_says_whose_rollout_it_waits_for() -> None:
    other = replace(run(FIRST), owner=Owner("u9", "serving", "second", handled_now(FIRST)))
    texts = [str(shown(FIRST, record(), each).condition(Kind.RECONCILING)) for each in (run(None), other)]
    assert "started by a command or a program" in texts[0] and "that of Rollout serving/second" in texts[1]


def test_the_counts_and_the_record_survive_an_outage() -> None:
    counted = status(replicas=4, floor=4, old={"replicas": 3, "ready": 3}, new={"replicas": 1, "ready": 0})
    before = shown(FIRST, record(FIRST), run(FIRST, status=counted))
    after = shown(FIRST, before, None, Unreachable("Temporal does not answer"))
    assert after.but(conditions=()) == before.but(conditions=())
    assert (after.old.ready, after.new.replicas, after.floor) == (3, 1, 4)
    assert "does not answer" in str(after.condition(Kind.RECONCILING))


def test_a_refused_retarget_is_told_until_the_next_start() -> None:
    refused = record(FIRST, refused_generation=2)
    assert shown(SECOND, refused, run(FIRST)).condition(Kind.ACCEPTED).reason == "RetargetRefused"  # type: ignore[union-attr]
    assert shown(SECOND, refused, run(SECOND)).condition(Kind.ACCEPTED).status == "True"  # type: ignore[union-attr]


def test_a_retarget_to_the_running_version_completes() -> None:
    """An edit back to the version that ran before rolls back, and that is what the object requests."""
    why = f"retargeted to the baseline by {SECOND.by}"
    back = run(FIRST, ended="RolledBack", status=status(Phase.ROLLED_BACK, "", reason=why))
    back = replace(back, retargeted_by=frozenset({SECOND.by}))
    assert shown(SECOND, record(SECOND), back).condition(Kind.READY).status == "True"  # type: ignore[union-attr]
    assert decide(SECOND, record(FIRST), back) is ObjectAct.RELEASE


def test_a_new_start_forgets_what_was_recorded_about_the_former() -> None:
    recorded = record(FIRST, outcome="Completed", paused=True, aborted=True, starting=2)
    after = shown(SECOND, recorded, run(SECOND))
    assert (after.paused, after.aborted, after.outcome, after.starting) == (False, False, "", 0)


def test_a_transition_time_stays_while_the_status_of_a_condition_does() -> None:
    first = shown(FIRST, record(FIRST), run(FIRST))
    later = show(Seen(FIRST, ROLLED_BACK, is_read=True), first, "2026-11-28T19:00:00Z")
    times = {each.type: each.last_transition_time[11:13] for each in later.conditions}
    assert times == {Kind.ACCEPTED: "18", Kind.READY: "18", Kind.RECONCILING: "19", Kind.STALLED: "19"}


def test_only_texts_are_no_news() -> None:
    """A wait's remaining seconds do not write the status at each reading."""
    one, other = (shown(FIRST, record(FIRST), run(FIRST, status=status(waiting_for=f"{n} s"))) for n in (9, 8))
    assert one != other and not is_news(one, other)
    assert is_news(one, shown(FIRST, record(FIRST), run(FIRST, status=status(new={"replicas": 1, "ready": 1}))))


def test_an_event_for_each_change_of_phase() -> None:
    before, after = shown(FIRST, record(), None), shown(FIRST, record(FIRST), ROLLED_BACK)
    assert status_events(found(), before, before, NOW) == []
    [made] = status_events(found(), before, after, NOW)
    assert (made["type"], made["reason"], made["message"]) == ("Warning", "RolledBack", "serving/chat: CrashLoop: x")
    assert status_events(found(), before, after, NOW) == [made]
    [back] = status_events(found(), after, before, NOW)
    assert made["metadata"]["name"] != back["metadata"]["name"]


def test_each_step_has_an_event_about_the_object_and_the_target() -> None:
    """`kubectl describe deployment` shows who moves it: events are found by kind, name and uid."""

    def counted(old: int, new: int) -> ObjectStatus:
        sides: Any = {"old": {"replicas": old, "ready": old}, "new": {"replicas": new, "ready": 0}}
        return shown(FIRST, record(FIRST), run(FIRST, status=status(replicas=4, **sides)))

    assert FIRST.rollout is not None
    target = target_reference(FIRST.rollout.spec.target, "t1")
    of_object, of_target = made = status_events(found(), counted(4, 0), counted(3, 1), NOW, target)
    assert {each["reason"] for each in made} == {STEP}
    assert of_object["message"] == "serving/chat: old 4 → 3, new 0 → 1 replicas"
    assert of_target["message"] == "Rollout chat: old 4 → 3, new 0 → 1 replicas"
    assert of_target["involvedObject"] == {
        "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "serving", "name": "chat", "uid": "t1",
    }  # fmt: skip
    assert of_object["metadata"]["name"] != of_target["metadata"]["name"]
    first = shown(FIRST, record(), None)
    assert [each["reason"] for each in status_events(found(), first, counted(4, 0), NOW)] == ["Progressing"]


TARGETS = {
    "pair": (
        {"kind": "DeploymentPair", "old": "a", "new": "b"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"},
    ),
    "own resource": (
        {"kind": "Supervised", "resource": "InferenceService", "name": "a"}, {"kind": "InferenceService", "name": "a"},
    ),
    "groups": (
        {"kind": "LeaderWorkerSet", "name": "a"},
        {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "a"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TARGETS)
def test_the_target_of_an_event(case: str) -> None:
    given, expected = TARGETS[case]
    rollout = wants(target=given).rollout
    assert rollout is not None
    assert target_reference(rollout.spec.target, "t1") == {**expected, "namespace": "serving", "uid": "t1"}
    assert target_reference(rollout.spec.target, "") is None


def test_the_status_reads_back() -> None:
    for given, *_ in SHOWN.values():
        assert status_of({"status": json.loads(json.dumps(document(given)))}) == given
    assert status_of({"status": {"handled": "x"}}) == ObjectStatus() == status_of({})


def test_pauses_between_attempts_are_bounded() -> None:
    waits = [backoff_s(failures) for failures in range(1, 2000)]
    assert waits[0] == BACKOFF_S and waits == sorted(waits) and waits[-1] == MOST_BACKOFF_S
    assert after_acts_s(1) == 0 and 0 < after_acts_s(10) < after_acts_s(1000) <= MOST_BACKOFF_S


def test_only_what_others_change_wakes() -> None:
    """The controller's own write of the status does not make it reconcile again."""
    woken: list[Any] = []
    objects = RolloutObjects(cast("Any", None), "serving", woken.append)
    key = ("serving", "chat")
    objects.replace([found()])
    written = {**found(), "status": {"phase": "Progressing"}}
    written["metadata"] |= {"resourceVersion": "8"}
    objects.apply("MODIFIED", written)
    assert (woken, objects.get(key)) == ([key], objects.keep(written))
    objects.apply("MODIFIED", found(2))
    objects.apply("MODIFIED", found(2, retry="now"))
    objects.apply("MODIFIED", found(2, retry="now", deleted=True))
    objects.apply("DELETED", found(2))
    assert (len(woken), objects.get(key)) == (5, None)


# --- a profile of a team ----------------------------------------------------------------------------------

NAMED: dict[str, Any] = {"profile": {"name": "ours"}}


def ours(step: int) -> OwnProfile:
    spec = {"strategy": {"step": step}}
    head = {"apiVersion": "segue.dev/v1alpha1", "kind": "RolloutProfile", "metadata": {"name": "ours"}}
    return read_own_profile({**head, "spec": spec}, "RolloutProfile serving/ours")


def test_a_profile_is_needed_only_until_the_request_was_handled() -> None:
    """Neither an edit nor a deletion of the profile changes what was started, and what rests stays as it is."""
    first = desired_rollout(found(**NAMED), "east", ours(1))
    assert first.rollout is not None and first.rollout.spec.strategy.step == 1
    assert desired_rollout(found(**NAMED), "east", ours(2)).marks == first.marks
    status = document(record(first, outcome="Completed"))
    later = desired_rollout({**found(**NAMED), "status": status}, "east")
    assert (later.is_bare, later.refusal, later.workflow_id) == (True, "", first.workflow_id)
    assert decide(later, record(first), run(first)) is ObjectAct.WAIT
    assert decide(later, record(first, outcome="Completed"), None) is ObjectAct.RELEASE
    edited = desired_rollout({**found(2, **NAMED, change=OTHER), "status": status}, "east")
    assert (edited.is_bare, edited.rollout, edited.profile) == (False, None, NamedProfile("serving", "ours"))
    assert "no profile of this name was found for namespace serving" in edited.refusal


def test_a_profile_that_cannot_be_used_refuses_what_starts() -> None:
    refused = desired_rollout(
        found(onDelete="leave", **NAMED), "east", "RolloutProfile serving/ours: spec.x: is not a field"
    )
    assert refused.refusal == "RolloutProfile serving/ours: spec.x: is not a field"
    assert refused.standing.on_delete == "leave"
    assert decide(refused, ObjectStatus(), None) is ObjectAct.RELEASE
    assert show(Seen(refused, None, is_read=False), ObjectStatus(), NOW).phase == "Invalid"


# --- the definition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(Definition))
def test_the_committed_definition_is_current(name: Definition) -> None:
    """Run `make crd` after a change of the spec's models."""
    assert (ROOT / file_of(name)).read_text() == manifest(name)
    assert (ROOT / "deploy/chart/crds" / Path(file_of(name)).name).read_text() == manifest(name)


def nodes(schema: Any, path: str = "") -> Any:
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from nodes(each, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if part in schema:
            yield from nodes(schema[part], f"{path}[]")


@pytest.mark.parametrize("name", list(Definition))
def test_the_schema_is_structural(name: Definition) -> None:
    """Every node has one type, or says that it has none; what the API server would write as a user's is absent."""
    [version] = definition(name)["spec"]["versions"]
    for path, node in nodes(version["schema"]["openAPIV3Schema"]):
        free = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"} & node.keys()
        assert free or isinstance(node["type"], str), path
        assert not {"$ref", "anyOf", "oneOf", "default", "title", "const"} & node.keys(), path
        assert not ("properties" in node and "additionalProperties" in node), path


def test_every_field_of_a_spec_is_in_the_schema() -> None:
    [version] = definition()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert {"target", "change", "strategy", "metrics", "profile", "paused", "onDelete"} <= spec.keys()
    assert spec["strategy"]["properties"]["maxSurge"]["x-kubernetes-int-or-string"] is True
    assert "Default: 25%." in spec["strategy"]["properties"]["maxSurge"]["description"]
    assert spec["metrics"]["nullable"] is True  # null leaves out a profile's


# --- the file ---------------------------------------------------------------------------------------------


def test_one_file_is_for_both_kubectl_and_segue() -> None:
    text = (ROOT / "examples/rollout.yaml").read_text()
    body = yaml.safe_load(text)
    body["metadata"] |= {"namespace": "serving", "labels": {"a": "b"}, "annotations": {"c": "d"}}
    body["spec"]["onDelete"] = "leave"
    del body["spec"]["target"]["namespace"]
    assert read_rollout(body).spec == read_rollout(yaml.safe_load(text)).spec
    _, standing = read_object(body)
    assert (standing.paused, standing.on_delete) == (False, "leave")


@pytest.mark.parametrize(
    ("metadata", "spec", "expected"),
    [
        ({}, {"paused": True}, "spec.paused: true: is only for a Rollout in Kubernetes; leave it out"),
        ({}, {"onDelete": "x"}, "a.yaml: spec.onDelete: 'x': is not one of the choices; write 'abort' or 'leave'"),
        ({}, {"paused": "yes"}, "a.yaml: spec.paused: 'yes': is neither true nor false"),
        ({"namespace": "a"}, {"target": {"name": "x", "namespace": "b"}},
         "a.yaml: spec.target.namespace: 'b': is not the namespace of the Rollout, which is 'a'; move the Rollout"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_say(metadata: Any, spec: Any, expected: str) -> None:
    body = {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "chat", **metadata}}
    with pytest.raises(Refused) as caught:
        read_rollout({**body, "spec": {"target": {"name": "chat"}, "change": CHANGE, **spec}}, "a.yaml")
    assert str(caught.value).startswith(expected)
