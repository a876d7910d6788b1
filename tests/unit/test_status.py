"""The status that the Temporal UI shows: each field in its line, and none for what is not there."""

from typing import Any

import pytest

from segue.client import live
from segue.contract import Beat
from segue.gates import Result
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version
from segue.spec import Change, DeploymentTarget, Rules
from segue.state import Before, Goal, Outcome, Phase, Reached, State
from segue.status import GateStatus, SideStatus, Status, make_status, reason, to_markdown

RULES = Rules.model_validate({"strategy": {"maxSurge": 1}})
NOTHING = Status(id="i", name="chat", target="serving/chat", phase=Phase.PROGRESSING)


def lines(**fields: Any) -> dict[str, str]:
    """Return the lines of the list, by their names."""
    shown = to_markdown(NOTHING.model_copy(update=fields)).splitlines()
    return dict(line.removeprefix("- **").split(":** ", 1) for line in shown)


def test_each_field_is_in_its_line() -> None:
    sides = {"old": SideStatus(replicas=4, ready=3), "new": SideStatus(replicas=2, ready=1)}
    gate = GateStatus(name="ours", result=Result.PASS, why="fine", measurements=1, conclusive=1, failed=0, dry_run=True)
    shown = lines(
        change="image 2", waiting_for="a <b>", reason="slow", next_waypoint="50% (2 new)", can=("pause", "abort"),
        traffic=0, gates=(gate, gate.model_copy(update={"name": "theirs", "dry_run": False})), floor=3, ceiling=6,
        replicas=5, baseline=Version(template="v0"), wanted=Version(template="v1"), **sides,
    )  # fmt: skip
    assert shown == {
        "Where": "Progressing, serving/chat",
        "Change": "image 2",
        "Waits for": "a \\<b\\>",
        "Why": "slow",
        "Old": "3 ready of 4 — v0",
        "New": "1 ready of 2 — v1",
        "Budget": "at least 3 ready, at most 6 in total (5 requested)",
        "Traffic": "0 % to new",
        "Gate ours": "pass (dry run), fine",
        "Gate theirs": "pass, fine",
        "Next waypoint": "50% (2 new)",
        "You can": "pause, abort",
    }


def test_what_is_not_there_has_no_line() -> None:
    assert lines() == {"Where": "Progressing, serving/chat"}
    one = SideStatus(replicas=1, ready=0)
    assert lines(old=one)["Old"] == lines(new=one)["New"] == "0 ready of 1 — ?"
    assert lines(replicas=1)["Old"] == "0 ready of 0 — ?"


@pytest.mark.parametrize(
    ("outcome", "waits"), [(None, "1 more to be ready"), (Outcome.COMPLETED, ""), (Outcome.ABORTED, "")]
)
def test_the_status_of_a_rollout(outcome: Outcome | None, waits: str) -> None:
    """It has what was observed last, and waits for nothing once it has ended."""
    seen = Observation(
        replicas=4, old=Side(total=3, ready=2), new=Side(total=2, ready=1), requested=Counts(3, 2), template="v1"
    )
    status = made(STATE.but(outcome=outcome), seen)
    assert (status.old, status.new) == (SideStatus(replicas=3, ready=2), SideStatus(replicas=2, ready=1))
    assert (status.replicas, status.floor, status.ceiling, status.waiting_for) == (4, 4, 5, waits)


def test_the_floor_is_the_one_that_holds() -> None:
    """Where not all were ready before, fewer have to be: `segue watch` would say that it is under its floor."""
    old = Side(total=4, ready=3)
    seen = Observation(replicas=4, old=old, new=Side(total=1), requested=Counts(4, 1), template="v1")
    state = STATE.but(before=Before(replicas=4, ready=3, reached=3))
    status = made(state, seen)
    assert (status.floor, status.ceiling) == (3, 5)
    assert made(state.but(before=Before(replicas=4, ready=3, reached=4)), seen).floor == 4, "they were ready since"
    for replicas, floor in ((4, 3), (8, 7)):
        beat = Beat(seen=seen.model_copy(update={"replicas": replicas}), why="", at=2.0)
        assert live(status, beat, RULES.strategy).floor == floor


def test_what_an_earlier_release_left_out_is_nothing() -> None:
    """A pipeline reads no phase, number or wish into a status that lacks the field."""
    sides = {"old", "new"}
    assert {k for k, v in NOTHING.model_dump().items() if v} == {"id", "name", "target", "phase"} | sides
    assert NOTHING.old == NOTHING.new == SideStatus(replicas=0, ready=0)
    assert not GateStatus(name="ours", result=Result.PASS, why="", measurements=1, conclusive=1, failed=0).dry_run


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        pytest.param({}, None, id="not-ended"),
        pytest.param({"outcome": Outcome.COMPLETED}, "v1", id="completed"),
        pytest.param({"outcome": Outcome.ROLLED_BACK}, "v0", id="rolled-back"),
        pytest.param({"outcome": Outcome.ABORTED}, "v0", id="aborted"),
        pytest.param(
            {"outcome": Outcome.ABORTED, "failure": Problem(cause=Cause.FENCED, message="")}, None, id="fenced"
        ),
        pytest.param({"outcome": Outcome.ABORTED, "baseline": Version(template="")}, None, id="never-read"),
    ],
)
def test_the_version_at_the_end(changes: dict[str, Any], version: str | None) -> None:
    state = STATE.but(**{"baseline": Version(template="v0"), "wanted": Version(template="v1"), **changes})
    runs = made(state, None).runs
    assert (runs.template if runs else None) == version


def test_the_status_before_the_target_was_read() -> None:
    status = made(STATE, None)
    assert status.old == status.new == SideStatus(replicas=0, ready=0)
    assert (status.replicas, status.floor, status.ceiling) == (0, 0, 0)
    assert status.waiting_for == "1 more to be ready"


def made(state: State, seen: Observation | None, rules: Rules = RULES) -> Status:
    return make_status(
        workflow_id="i", name="chat", target=DeploymentTarget(namespace="serving", name="chat"),
        change=Change(images={"server": "x:2"}), rules=rules,
        state=state, seen=seen, waits="1 more to be ready", started_at=0.0, updated_at=1.0,
    )  # fmt: skip


def test_the_next_waypoint_is_that_of_a_way_forward() -> None:
    rules = Rules.model_validate({"strategy": {"maxSurge": 1, "waypoints": [{"at": 1}, {"at": "50%"}]}})
    assert made(STATE, SEEN, rules).next_waypoint == "1 (1 new)"
    assert made(STATE.but(passed=(0,)), SEEN, rules).next_waypoint == "50% (2 new)"
    reached = Reached(index=0, at="1", hold_until=60.0, approved=True)
    assert made(STATE.but(waypoint=reached), SEEN, rules).next_waypoint == "50% (2 new)", "it waits at the first"
    last = reached.model_copy(update={"index": 1})
    assert made(STATE.but(passed=(0,), waypoint=last), SEEN, rules).next_waypoint == ""
    assert made(BACK, SEEN, rules).next_waypoint == made(STATE, None, rules).next_waypoint == ""


SLOW = Problem(cause=Cause.DEADLINE, message="slow")
LOST = Problem(cause=Cause.UNSCHEDULABLE, message="no place")
SEEN = Observation(replicas=4, old=Side(), new=Side(), requested=Counts(4, 0), template="v1", problem=LOST)
STATE = State(owner="us")
BACK = STATE.but(goal=Goal.BACK, failure=SLOW)
THEIRS = Foreign(who="she", what="the image")


@pytest.mark.parametrize(
    ("state", "seen", "expected"),
    [
        pytest.param(STATE, None, "", id="nothing"),
        pytest.param(STATE, SEEN, str(LOST), id="a-replica"),
        pytest.param(STATE.but(paused="by her"), SEEN, "by her", id="paused"),
        pytest.param(STATE.but(frozen="weekend"), SEEN, "weekend", id="frozen"),
        pytest.param(STATE.but(crowded="full"), SEEN, "full", id="crowded"),
        pytest.param(STATE.but(unresolved=SLOW, paused="by her"), SEEN, str(SLOW), id="held"),
        pytest.param(STATE.but(foreign=THEIRS, unresolved=SLOW), SEEN, str(THEIRS), id="foreign"),
        pytest.param(BACK, SEEN, str(SLOW), id="going-back"),
        pytest.param(BACK.but(needs_human=True), None, str(SLOW), id="stuck-before-it-is-observed"),
        pytest.param(BACK.but(needs_human=True), SEEN, f"{SLOW}; the rollback makes no progress: {LOST}", id="stuck"),
        pytest.param(BACK.but(needs_human=True, foreign=THEIRS), SEEN, str(THEIRS), id="stuck-by-another"),
        pytest.param(BACK.but(outcome=Outcome.ROLLED_BACK, foreign=THEIRS), SEEN, str(SLOW), id="ended"),
    ],
)
def test_the_reason_is_what_a_person_can_act_on(state: State, seen: Observation | None, expected: str) -> None:
    assert reason(state, seen) == expected
