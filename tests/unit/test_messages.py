"""What a person or a pipeline can ask of a running rollout, and what it does to the state."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from pydantic import ValidationError

from segue.errors import Refused
from segue.messages import (
    MESSAGES,
    Abort,
    Approve,
    Message,
    Pause,
    Promote,
    Reject,
    Resume,
    RetargetTo,
    Scale,
    Settle,
    answer,
    approval_of,
    message_of,
    pause_of,
    read_message,
    receive,
    rollout_of,
    stops,
)  # fmt: skip
from segue.observation import Cause, Foreign, Problem, Routed, Version
from segue.spec import Approval, Change, DeploymentTarget, Rules, Strategy, Waypoint
from segue.state import Goal, Mark, Outcome, Phase, Reached, State, requested
from segue.status import make_status

NOW = 1_000.0
V2 = Change(images={"server": "v2"})
HERE = Reached(index=0, at="25%", hold_until=NOW, approved=False)
HELD_HERE = HERE.model_copy(update={"hold_until": NOW + 30})

START = State(owner="us", baseline=Version(template="v0"), wanted=Version(template="v1"))
CLAIMED = START.but(claimed=True)
ASKING = CLAIMED.but(waypoint=HERE)
HOLDING = CLAIMED.but(waypoint=HERE.model_copy(update={"approved": True, "hold_until": NOW + 60}))
PAUSED = CLAIMED.but(paused="paused by her")
FAILED = CLAIMED.but(unresolved=Problem(cause=Cause.GATE, message="no"))
FOREIGN = CLAIMED.but(foreign=Foreign(who="him", what="the image", template="v9"))
BACK = CLAIMED.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)
ENDED = CLAIMED.but(outcome=Outcome.COMPLETED)

AUTONOMOUS = CLAIMED.but(autonomous=True)

STATES = {
    "start": START, "moving": CLAIMED, "asking": ASKING, "holding": HOLDING, "paused": PAUSED, "failed": FAILED,
    "foreign": FOREIGN, "back": BACK, "ended": ENDED, "operated": AUTONOMOUS,
}  # fmt: skip
SAID: dict[str, Message] = {
    "pause": Pause(by="her"), "resume": Resume(by="her"), "retarget": RetargetTo(by="her", change=V2),
    "abort": Abort(by="her"), "scale": Scale(by="her", replicas=7), "settle": Settle(by="her"),
    "approve": Approve(by="her"), "reject": Reject(by="her"), "promote": Promote(by="her"),
}  # fmt: skip

# One row a message, one column a state: + taken, - refused.
TAKEN = """
          start moving asking holding paused failed foreign back ended operated
pause       +     +      +      +       +      +      +      -     -    -
resume      -     -      -      -       +      +      -      -     -    -
retarget    +     +      +      +       +      +      +      -     -    +
abort       +     +      +      +       +      +      +      +     -    +
scale       +     +      +      +       +      +      +      +     -    -
settle      -     +      +      +       +      +      +      -     -    -
approve     -     -      +      -       -      -      -      -     -    -
reject      -     -      +      -       -      -      -      -     -    -
promote     +     +      +      +       +      +      +      -     -    +
"""
_HEAD, *_ROWS = [line.split() for line in TAKEN.strip().splitlines()]
MATRIX = [(row[0], name, mark == "+") for row in _ROWS for name, mark in zip(_HEAD, row[1:], strict=True)]


def test_a_message_about_something_else_is_refused() -> None:
    """An approval of a former waypoint, plan or rollout approves no later one, and an abort aborts no later rollout."""
    asks = ASKING.but(run="r1")
    here = approval_of(asks)
    assert here.startswith("25%@") and approval_of(asks) == here
    again = HERE.model_copy(update={"at_s": NOW + 1})
    others = [asks.but(run="r2"), asks.but(began_at=NOW), asks.but(waypoint=again)]
    assert len({here, *map(approval_of, others)}) == 4
    for kind in (Approve, Reject):
        receive(kind(about=here), asks, NOW)
        for state in others:
            with pytest.raises(Refused, match=f"it is for {here}, and now it is 25%@"):
                receive(kind(about=here), state, NOW)
    for message in (Abort, Promote):
        receive(message(about=rollout_of(asks)), asks, NOW)
        with pytest.raises(Refused, match="it is for"):
            receive(message(about=rollout_of(asks)), asks.but(run="r2"), NOW)
    with pytest.raises(Refused, match="none is pending"):
        receive(Approve(about=here), asks.but(waypoint=None), NOW)


def test_a_resume_of_an_earlier_pause_is_refused() -> None:
    """Each pause has an id of its own, and so has each failure that waits for a person, also during a pause."""
    running = CLAIMED.but(run="r1")
    first = receive(Pause(by="her"), running, NOW)
    resumed = receive(Resume(about=pause_of(first)), first, NOW)
    assert pause_of(first).startswith("pause@") and pause_of(running) == pause_of(resumed) == ""
    again = receive(Pause(by="her"), resumed, NOW)
    failed = first.failing(Problem(cause=Cause.GATE, message="no"), NOW, roll_back=False)
    for later in (again, failed, first.but(run="r2")):
        with pytest.raises(Refused, match=f"it is for {pause_of(first)}, and now it is pause@"):
            receive(Resume(about=pause_of(first)), later, NOW)
        assert receive(Resume(about=pause_of(later)), later, NOW).paused == ""
    with pytest.raises(Refused, match="none is pending"):
        receive(Resume(about=pause_of(first)), resumed, NOW)


def test_only_a_pause_on_the_way_forward_has_an_id() -> None:
    """Not one of a rollout that goes back, has ended, or has no run yet."""
    paused = PAUSED.but(run="r1")
    others = (PAUSED, CLAIMED.but(run="r1"), paused.but(goal=Goal.BACK), paused.but(outcome=Outcome.COMPLETED))
    assert pause_of(paused) and [pause_of(other) for other in others] == [""] * len(others)


def test_a_foreign_change_that_is_overruled_holds_no_resume() -> None:
    with pytest.raises(Refused, match="him changed the image"):
        receive(Resume(), FOREIGN.but(paused="paused by her"), NOW)
    assert receive(Resume(), FOREIGN.but(paused="paused by her", overrules=True), NOW).paused == ""


def test_only_a_pending_approval_has_an_id() -> None:
    assert {name: bool(approval_of(state)) for name, state in STATES.items()} == {
        name: name == "asking" for name in STATES
    }


@pytest.mark.parametrize(("name", "state", "taken"), MATRIX, ids=[f"{m}-{s}" for m, s, _ in MATRIX])
def test_a_message_is_taken_where_it_makes_sense(name: str, state: str, taken: bool) -> None:
    """Each message is taken in the states where it makes sense, and refused with a fix in the others."""
    if taken:
        receive(SAID[name], STATES[state], NOW)
        return
    with pytest.raises(Refused) as caught:
        receive(SAID[name], STATES[state], NOW)
    assert caught.value.field == name
    assert caught.value.fix


def generated() -> Iterator[State]:
    """Every combination of what a message is accepted or refused for, and of what is shown beside it."""
    problem, foreign = FAILED.unresolved, FOREIGN.foreign
    for claimed, autonomous, foreign_change, overrules, waypoint, paused, failed, back, outcome in itertools.product(
        (False, True), (False, True), (None, foreign), (False, True), (None, HERE, HOLDING.waypoint),
        ("", "paused by her"), (None, problem), (False, True), (None, *Outcome),
    ):  # fmt: skip
        state = START.but(claimed=claimed, autonomous=autonomous, waypoint=waypoint, paused=paused, unresolved=failed)
        state = state.going_back(Outcome.ROLLED_BACK, requested("why"), NOW) if back else state
        yield state.but(foreign=foreign_change, overrules=overrules, outcome=outcome)


def test_what_is_offered_is_what_is_accepted() -> None:
    """In every state *You can* lists each message that is accepted, and none that is refused."""
    for state in generated():
        offered = make_status(
            workflow_id="rollout/a/b/c/d", name="a", target=DeploymentTarget(name="chat"), change=V2, rules=Rules(),
            state=state, seen=None, waits="", started_at=NOW, updated_at=NOW,
        ).can  # fmt: skip
        assert set(offered) == {name for name, message in SAID.items() if accepts(message, state)}, state


def accepts(message: Message, state: State) -> bool:
    try:
        receive(message, state, NOW)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("message", "state", "expected"),
    [
        (SAID["settle"], CLAIMED, "settle: keeps the replicas that are ready now, and then pauses"),
        (SAID["scale"], CLAIMED, "scale: to 7 replicas, now Progressing"),
        (RetargetTo(baseline=True), CLAIMED, "retarget: now RollingBack"),
        (SAID["pause"], CLAIMED, "pause: now Paused"),
        (SAID["approve"], CLAIMED.but(waypoint=HERE, paused="paused by her"), "approve: now Paused, until a resume"),
        (SAID["approve"], CLAIMED.but(waypoint=HERE, frozen="until Monday"), "approve: now Paused"),
        (SAID["approve"], CLAIMED.but(waypoint=HERE), "approve: now Progressing"),
        (SAID["approve"], CLAIMED.but(waypoint=HELD_HERE), "approve: now Holding"),
        (
            SAID["promote"],
            CLAIMED.but(waypoint=HELD_HERE.model_copy(update={"approved": True})),
            "promote: now Progressing",
        ),
    ],
)
def test_an_answer_says_what_happens_now(message: Message, state: State, expected: str) -> None:
    assert answer(message, receive(message, state, NOW), NOW) == expected


def test_every_message_stands_in_the_table() -> None:
    """No message is forgotten in the table above."""
    assert set(MESSAGES) == {row[0] for row in _ROWS} == set(SAID)


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_repeated_message_changes_nothing_more(name: str) -> None:
    """A message that is delivered twice leaves the state, but for its log, as it was after the first."""
    for state in STATES.values():
        try:
            once = receive(SAID[name], state, NOW)
        except Refused:
            continue
        try:
            twice = receive(SAID[name], once, NOW)
        except Refused:
            continue
        assert twice.brief == once.brief


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_message_leaves_the_given_state_as_it_was(name: str) -> None:
    """A message returns a new state; the old one is not touched."""
    for state in STATES.values():
        before = state.model_copy(deep=True)
        with suppress(Refused):
            receive(SAID[name], state, NOW)
        assert state == before


def test_a_pause_holds_a_waypoint_and_resume_passes_it() -> None:
    """A hold that ends while paused is passed at the resume, not before."""
    waiting = CLAIMED.but(waypoint=HERE.model_copy(update={"approved": True}))
    paused = receive(Pause(by="her"), waiting, NOW)
    assert paused.passing(NOW + 1).waypoint is not None
    resumed = receive(Resume(by="her"), paused, NOW + 2)
    assert resumed.passing(NOW + 2).passed == (0,)


def test_an_approval_passes_only_after_the_hold() -> None:
    """A waypoint with a hold and an approval waits for both."""
    both = CLAIMED.but(waypoint=HERE.model_copy(update={"hold_until": NOW + 60}))
    approved = receive(Approve(by="her"), both, NOW)
    assert approved.passing(NOW + 59).waypoint is not None
    assert approved.passing(NOW + 60).waypoint is None


def asking(default: str, hold_s: float = 0.0) -> State:
    """A state that asks for an hour, with a default."""
    approval = Approval.model_validate({"expires": "1h", "default": default})
    return CLAIMED.after_verify((0, Waypoint(at="25%", approval=approval, hold=timedelta(seconds=hold_s))), NOW)


def test_an_approval_that_expires_takes_its_default() -> None:
    """Nobody answers: it is passed, or goes back, and the report says that nobody did."""
    approved = asking("approve").passing(NOW + 3600)
    assert approved.passed == (0,) and approved.log[-2].who == "nobody (default)"
    rejected = asking("reject").passing(NOW + 3600)
    assert (rejected.goal, rejected.ending) == (Goal.BACK, Outcome.ROLLED_BACK)
    assert str(rejected.failure) == "Rejected: at waypoint 25%: nobody answered within 1h"
    assert asking("reject").passing(NOW + 3599).waypoint is not None


def test_what_an_expiring_approval_waits_for() -> None:
    """It says what comes when nobody answers, and the timer is the nearest of what ends by itself."""
    reached = asking("reject", hold_s=600).waypoint
    assert reached is not None
    assert reached.waits_for(NOW) == "the hold of waypoint 25% and approval at waypoint 25%, else reject in 1h"
    assert reached.waits_for(NOW + 1080.4) == "approval at waypoint 25%, else reject in 42m"
    assert reached.waits_for(NOW + 3000, kept=True).endswith("else reject at 1970-01-01 01:16:40 UTC")
    assert [reached.next_at(NOW + s) for s in (0, 600, 3600)] == [NOW + 600, NOW + 3600, None]


def test_an_answer_in_time_ends_the_waiting() -> None:
    """Who sent it and why is recorded; a hold that is not over is still waited for, and nothing expires any more."""
    approved = receive(Approve(by="her", reason="looks good"), asking("reject", hold_s=7200), NOW + 5)
    assert (approved.log[-1].detail, approved.log[-1].who) == ("waypoint 25%: looks good", "her")
    assert approved.passing(NOW + 3601).goal is Goal.FORWARD
    assert approved.waypoint is not None and approved.waypoint.next_at(NOW + 5) == NOW + 7200
    assert approved.passing(NOW + 7200).passed == (0,)


def test_a_pause_keeps_an_approval_from_expiring() -> None:
    """A person who paused may still answer, also after the resume; nothing is taken for an answer meanwhile."""
    paused = receive(Pause(by="her"), asking("reject", hold_s=7200), NOW + 600).passing(NOW + 600)
    assert paused.passing(NOW + 9999).goal is Goal.FORWARD
    assert receive(Approve(by="her"), paused, NOW + 9999).goal is Goal.FORWARD
    resumed = receive(Resume(by="her"), paused, NOW + 9999).passing(NOW + 9999)
    assert resumed.waypoint is not None and resumed.waypoint.waits_for(NOW + 9999).endswith("else reject in 50m")
    assert resumed.waypoint.hold_until == NOW + 7200, "a hold goes on while it is paused"
    assert resumed.passing(NOW + 12_998).goal is Goal.FORWARD
    assert resumed.passing(NOW + 12_999).goal is Goal.BACK


def test_a_gateway_and_a_pause_keep_an_approval_for_the_longer_of_the_two() -> None:
    """A time in which both hold it counts once."""
    pending = asking("reject").but(routed=Routed(share=5, pending="a", since=NOW))
    paused = receive(Pause(by="her"), pending, NOW + 100).passing(NOW + 100)
    accepted = paused.after_accepted("why", NOW + 300).passing(NOW + 300)
    resumed = receive(Resume(by="her"), accepted, NOW + 400).passing(NOW + 400)
    assert resumed.waypoint is not None and resumed.waypoint.expires_at == NOW + 3600 + 400


def test_a_promote_ends_holds_but_no_approval() -> None:
    """Promote skips the present and all later holds, and no approval."""
    promoted = receive(Promote(by="her"), HOLDING, NOW)
    assert promoted.passing(NOW).waypoint is None
    later = promoted.but(waypoint=None).after_verify((1, Waypoint(at=2, hold=timedelta(hours=1), approval=True)), NOW)
    assert later.waypoint is not None
    assert later.waypoint.hold_until == NOW
    assert later.passing(NOW).waypoint is not None


def test_a_gateway_that_accepts_begins_no_promoted_hold_again() -> None:
    """The hold counts from then on, unless somebody skipped it."""
    pending = HOLDING.but(routed=Routed(share=5, pending="a", since=NOW - 300))
    promoted = receive(Promote(by="her"), pending, NOW)
    assert promoted.after_accepted("why", NOW + 1).passing(NOW + 1).waypoint is None


def test_a_promote_is_for_one_version() -> None:
    """Whoever skips the holds of a version says nothing of the next one."""
    promoted = receive(Promote(by="her"), HOLDING, NOW)
    state = receive(RetargetTo(by="her", change=V2), promoted, NOW).after_retarget(Version(template="v2"), NOW)
    held = state.after_verify((0, Waypoint(at=1, hold=timedelta(hours=1))), NOW)
    assert held.waypoint is not None and held.waypoint.hold_until == NOW + 3600


def test_a_reject_rolls_back() -> None:
    """A rejection at a waypoint rolls back, and the report says who rejected it."""
    state = receive(Reject(by="her", reason="too slow"), ASKING, NOW)
    assert (state.goal, state.ending, state.waypoint) == (Goal.BACK, Outcome.ROLLED_BACK, None)
    assert "her: too slow" in str(state.failure)


def test_an_abort_on_the_way_back_changes_the_ending_only() -> None:
    """An abort while it rolls back ends as Aborted."""
    state = receive(Abort(by="her"), BACK, NOW)
    assert (state.goal, state.ending, state.failure) == (Goal.BACK, Outcome.ABORTED, BACK.failure)


@pytest.mark.parametrize("before", [CLAIMED, BACK.after_alarm("no progress", NOW)], ids=["forward", "back"])
def test_an_abort_withdraws_a_retarget_that_is_being_prepared(before: State) -> None:
    """Also one of a rollback that needs a person: it would go forward again after the abort."""
    state = receive(Abort(by="her"), receive(SAID["retarget"], before, NOW), NOW)
    assert (state.goal, state.ending, state.retarget) == (Goal.BACK, Outcome.ABORTED, None)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(SAID["abort"], id="abort"),
        pytest.param(SAID["retarget"], id="retarget"),
        pytest.param(RetargetTo(by="her", baseline=True), id="retarget-to-the-baseline"),
    ],
)
def test_a_deliberate_message_overrules_a_foreign_change(message: Message) -> None:
    """Abort and retarget write over somebody else's change; nothing else does."""
    assert receive(message, FOREIGN, NOW).overrules
    assert FOREIGN.phase is Phase.HELD


def test_a_resume_does_not_overrule_a_foreign_change() -> None:
    """A resume is refused while somebody else's change stands, and says what can be done."""
    with pytest.raises(Refused, match="take that change back"):
        receive(Resume(by="her"), FOREIGN.but(paused="paused by her"), NOW)


def test_a_retarget_forgets_a_settle() -> None:
    """A settle that was requested before a retarget does not settle the new plan."""
    state = receive(Settle(by="her"), CLAIMED, NOW)
    state = receive(RetargetTo(by="her", change=V2), state, NOW).after_retarget(Version(template="v2"), NOW)
    assert not state.settling


def test_a_settle_before_the_first_move_of_a_retarget_is_refused() -> None:
    """The retarget's first moves would come before it: those of a pair remove what is ready."""
    moving = CLAIMED.but(mark=Mark(template="v1"))
    retargeted = moving.after_retarget(Version(template="v2"), NOW)
    assert accepts(SAID["settle"], moving) and not accepts(SAID["settle"], retargeted)
    assert accepts(SAID["settle"], retargeted.but(mark=Mark(template="v2")))


def test_a_settle_withdraws_a_retarget_that_is_being_prepared() -> None:
    """It would move on, and forget the settle."""
    state = receive(Settle(by="her"), receive(RetargetTo(by="her", change=V2), CLAIMED, NOW), NOW)
    assert (state.settling, state.retarget, state.overrules) == (True, None, False)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Scale(replicas=0), id="scale-to-zero"),
        pytest.param(lambda: Scale(replicas=10_001), id="scale-too-far"),
        pytest.param(RetargetTo, id="retarget-to-nothing"),
        pytest.param(lambda: RetargetTo(change=Change()), id="retarget-to-an-empty-change"),
        pytest.param(lambda: RetargetTo(strategy=Strategy(), baseline=True), id="retarget-back-by-a-strategy"),
        pytest.param(lambda: RetargetTo(change=V2, baseline=True), id="retarget-to-both"),
        pytest.param(lambda: Pause(by="x" * 641), id="long-name"),
        pytest.param(lambda: Abort(reason="x" * 1025), id="long-reason"),
    ],
)
def test_a_message_out_of_bounds_is_refused(make: Callable[[], Message]) -> None:
    """Every field of a message has a bound."""
    with pytest.raises(ValidationError):
        make()


def test_a_long_log_keeps_its_beginning_and_its_end() -> None:
    """A very long report keeps the first and the latest lines."""
    state = START
    for number in range(1_000):
        state = state.noted(number, f"line {number}")
    assert len(state.log) <= 400
    assert (state.log[0].what, state.log[-1].what) == ("line 0", "line 999")


def test_another_version_can_be_rolled_over_a_way_back_that_is_stuck() -> None:
    """A retarget is accepted while the way back needs a person, and refused while it goes on."""
    back = State(owner="us", claimed=True).going_back(Outcome.ROLLED_BACK, requested("why"), 0.0)
    message = RetargetTo(by="she", change=Change(images={"server": "good"}))
    with pytest.raises(Refused):
        receive(message, back, 0.0)
    stuck = receive(message, back.after_alarm("no progress", 0.0), 0.0)
    assert stuck.retarget is not None
    forward = stuck.after_retarget(Version(template="v2"), 0.0)
    assert (forward.goal, forward.ending, forward.failure, forward.needs_human) == (
        Goal.FORWARD, Outcome.COMPLETED, None, False,
    )  # fmt: skip


def test_what_stops_or_goes_back_waits_for_nobody() -> None:
    """No policy is checked for it, so neither a freeze nor a slow worker delays it."""
    stopping = {Pause(by="a"), Abort(by="a"), Reject(by="a"), RetargetTo(by="a", baseline=True)}
    others = {Resume(by="a"), Approve(by="a"), Promote(by="a"), Settle(by="a"), Scale(by="a", replicas=2)}
    assert all(map(stops, stopping)) and not any(map(stops, others)) and not stops(RetargetTo(by="a", change=V2))
    assert {type(each) for each in stopping | others} == set(MESSAGES.values())


@pytest.mark.parametrize("state", [pytest.param(PAUSED, id="paused"), pytest.param(FAILED, id="failed")])
def test_a_resume_leaves_a_freeze(state: State) -> None:
    """A rollout that is paused and frozen resumes into the freeze."""
    after = receive(Resume(by="she"), state.but(frozen="weekend"), NOW)
    assert (after.paused, after.unresolved, after.frozen) == ("", None, "weekend")


def test_a_resume_of_what_is_only_frozen_names_the_freeze() -> None:
    with pytest.raises(Refused, match="is frozen: weekend"):
        receive(Resume(by="she"), CLAIMED.but(frozen="weekend"), NOW)


def test_a_retarget_of_the_strategy_may_leave_the_change_empty_only_onto_the_baseline() -> None:
    """An empty change over the baseline takes the present change back; over the wanted version it says nothing."""
    assert RetargetTo(change=Change(), strategy=Strategy(), onto_baseline=True).change == Change()
    for fields in ({"strategy": Strategy()}, {"onto_baseline": True}):
        with pytest.raises(ValidationError):
            RetargetTo.model_validate({"change": Change(), **fields})


def test_a_freeze_is_overruled_only_with_a_reason() -> None:
    assert message_of(Resume, by="ann", break_glass=True, reason="outage").reason == "outage"
    with pytest.raises(Refused, match="reason: '': is empty, but overruling a freeze needs one; give it"):
        message_of(Resume, by="ann", break_glass=True)


@pytest.mark.parametrize("sent", [b"", b"null", b"{}", b" {} "])
def test_no_input_is_a_message_without_fields(sent: bytes) -> None:
    """As the Temporal UI sends it."""
    assert read_message("abort", sent) == Abort()


def test_what_anybody_sends_is_read_as_json() -> None:
    sent = b'{"by": "her", "replicas": 3, "of a newer release": 1}'
    assert read_message("scale", sent) == Scale(by="her", replicas=3)


def test_what_stops_is_taken_also_with_a_mistyped_field() -> None:
    for name, kind in (("pause", Pause), ("abort", Abort), ("reject", Reject)):
        assert read_message(name, b'{"by": "her", "raeson": "it fails"}') == kind(by="her")


@pytest.mark.parametrize(
    ("name", "sent", "encoding", "words"),
    [
        ("pause", b'"because"', "json/plain", "pause: 'because': is not a JSON object; send one"),
        ("pause", b"{not json", "json/plain", "is not a JSON object"),
        ("pause", b"\xff\xfe", "json/plain", "is not a JSON object"),
        ("pause", b"[" * 100_000, "json/plain", "is not a JSON object"),
        ("pause", b"{}", "json/protobuf", "pause: 'json/protobuf': is not JSON"),
        ("scale", b'{"replicas": "many"}', "json/plain", "scale: replicas: 'many'"),
        ("scale", b"null", "json/plain", "scale: replicas: is missing"),
        (
            "approve",
            b'{"abuot": "50%@1f"}',
            "json/plain",
            "approve: abuot: '50%@1f': is not a field of this",
        ),
        (
            "resume",
            b'{"breakGlass": true, "reason": "x"}',
            "json/plain",
            "breakGlass: true: is not a field of",
        ),
        ("explode", b"", "", "explode: is not a message of a rollout; send one of: pause"),
    ],
)
def test_what_is_no_message_is_refused(name: str, sent: bytes, encoding: str, words: str) -> None:
    """With field, value and fix, whatever it is."""
    with pytest.raises(Refused) as refused:
        read_message(name, sent, encoding)
    assert words in str(refused.value)
