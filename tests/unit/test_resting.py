"""A rollout that waits is observed again only when time alone can change its decision; its heartbeats are rare."""

from contextlib import AbstractContextManager
from typing import Any

import pytest

from activities.beating import BEAT_S, OF_TIMEOUT, TICK_S, Heart, due_at, interval_s
from activities.turns import Turn, Turns
from segue.contract import Beat
from segue.decide import decide
from segue.decision import Act
from segue.gates.tally import Tally
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version
from segue.resting import next_look_at, rests
from segue.spec import Rules
from segue.state import Goal, Outcome, Reached, State

NOW = 10_000.0
APPROVAL = Reached(index=0, at="1", hold_until=0.0, approved=False)
ROLLING = State(
    owner="us", claimed=True, baseline=Version(template="v1"), wanted=Version(template="v2"), progress_at=NOW - 60
)
WAITING = ROLLING.but(waypoint=APPROVAL)
STRATEGY = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
RULES = Rules.model_validate({"strategy": STRATEGY, "readiness": {"minReady": "0s"}})
GATED = RULES.model_copy(
    update={"gates": Rules.model_validate({"gates": [{"name": "g", "webhook": {"name": "w"}}]}).gates}
)


def seen(**fields: Any) -> Observation:
    return Observation(
        **{
            "replicas": 4, "old": Side(total=4, ready=4, proven=4), "new": Side(total=1, ready=1, proven=1),
            "requested": Counts(4, 1), "template": "v2", "engaged": True, "owner": "us", **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(WAITING, True, id="approval"),
        pytest.param(ROLLING.but(waypoint=APPROVAL.model_copy(update={"approved": True})), True, id="hold"),
        pytest.param(ROLLING.but(paused="by ann"), True, id="paused"),
        pytest.param(ROLLING.but(unresolved=Problem(cause=Cause.GATE, message="")), True, id="held"),
        pytest.param(ROLLING.but(foreign=Foreign(who="kim", what="image")), True, id="foreign"),
        pytest.param(ROLLING.but(asleep=True), True, id="asleep"),
        pytest.param(ROLLING, False, id="moves"),
        pytest.param(ROLLING.but(crowded="no accelerator"), False, id="waits-for-room"),
        pytest.param(WAITING.but(goal=Goal.BACK), False, id="back"),
        pytest.param(WAITING.but(outcome=Outcome.COMPLETED), False, id="ended"),
    ],
)
def test_what_rests(state: State, expected: bool) -> None:
    assert rests(state) is expected


@pytest.mark.parametrize(
    ("state", "observed", "expected"),
    [
        pytest.param(WAITING, seen(), None, id="an event or a message only"),
        pytest.param(WAITING, seen(next_proven_at=NOW + 3), NOW + 3, id="a replica becomes proven"),
        pytest.param(WAITING, seen(frozen="until Mon 06:00"), NOW + 20, id="a freeze may end at a full minute"),
        pytest.param(WAITING, seen(new=Side(total=1)), NOW, id="a new replica is lost"),
        pytest.param(WAITING, seen(unplaced=1), NOW, id="unplaced"),
        pytest.param(WAITING, seen(leaving=1), NOW, id="stopping"),
        pytest.param(WAITING, seen(unpaused=True), NOW, id="somebody resumed the controller"),
        pytest.param(ROLLING, seen(), NOW, id="moves"),
        pytest.param(
            ROLLING.but(unresolved=Problem(cause=Cause.CRASH_LOOP, message="")), seen(new=Side(total=1)), None,
            id="held because of the lost replica",
        ),
        pytest.param(
            ROLLING.but(foreign=Foreign(who="kim", what="image")), seen(new=Side(total=1)), None,
            id="somebody else's change decides, whatever is lost",
        ),
        pytest.param(
            ROLLING.but(foreign=Foreign(who="kim", what="image"), overrules=True), seen(new=Side(total=1)), NOW,
            id="a change that is overruled decides nothing",
        ),
        pytest.param(
            WAITING.but(foreign=Foreign(who="kim", what="image"), overrules=True), seen(new=Side(total=1)), NOW,
            id="nor does it at a waypoint",
        ),
        pytest.param(
            ROLLING.but(asleep=True), seen(new=Side(total=1)), None, id="asleep, and its replicas go",
        ),
    ],
)  # fmt: skip
def test_when_time_changes_the_decision(state: State, observed: Observation, expected: float | None) -> None:
    assert next_look_at(RULES, state, observed, None, NOW) == expected


def test_the_decisions_own_time_counts() -> None:
    """The end of a hold, for example."""
    assert next_look_at(RULES, WAITING, seen(), NOW + 7, NOW) == NOW + 7
    assert next_look_at(RULES, WAITING, seen(), NOW, NOW) is None, "what is due now is decided on already"


def test_a_due_gate_ends_the_rest() -> None:
    """A continuous gate is evaluated at its interval also while a person decides."""
    tally = Tally(gate="g", opened=NOW - 90, since=NOW - 90, next_at=NOW + 5)
    assert next_look_at(GATED, WAITING.but(tallies=(tally,)), seen(), None, NOW) == NOW + 5
    overdue = tally.model_copy(update={"next_at": NOW - 1})  # under way: its answer wakes the watch
    deadline_s = GATED.repeated_gates[0].deadline.total_seconds()
    at = next_look_at(GATED, WAITING.but(tallies=(overdue,)), seen(), None, NOW)
    assert at == (NOW - 90 + deadline_s if deadline_s > 90 else None)


@pytest.mark.parametrize("later_s", [1.0, 60.0, 86_400.0, 30 * 86_400.0])
@pytest.mark.parametrize(
    "state",
    [
        pytest.param(WAITING, id="approval"),
        pytest.param(ROLLING.but(paused="by ann"), id="paused"),
        pytest.param(ROLLING.but(unresolved=Problem(cause=Cause.GATE, message="")), id="held"),
        pytest.param(ROLLING.but(asleep=True), id="asleep"),
    ],
)
def test_where_nothing_is_due_the_decision_stays(state: State, later_s: float) -> None:
    """The rest is safe: thirty days later the same state and observation still decide to wait."""
    at_0 = {"replicas": 0, "old": Side(), "new": Side(), "requested": Counts(0, 0), "template": "v1"}
    observed = seen(**at_0) if state.asleep else seen()
    assert next_look_at(RULES, state, observed, None, NOW) is None
    assert [decide(RULES, state, observed, at).act for at in (NOW, NOW + later_s)] == [Act.WAIT, Act.WAIT]


@pytest.mark.parametrize(
    ("timeout_s", "resting", "expected"),
    [(60.0, True, 48.0), (4.0, True, 3.2), (15.0, False, BEAT_S), (60.0, False, BEAT_S), (None, True, BEAT_S)],
)
def test_heartbeats_by_phase(timeout_s: float | None, resting: bool, expected: float) -> None:
    """A resting rollout sends them as rarely as its timeout allows, with a fifth of it for a late event loop."""
    assert interval_s(timeout_s, rests=resting) == pytest.approx(expected)
    assert OF_TIMEOUT <= 0.8


def test_a_heartbeat_is_sent_for_a_change_or_when_due() -> None:
    sent: list[Beat] = []
    now = 0.0
    heart = Heart(lambda: 20.0, sent.append, lambda: now)
    heart.beat(Beat(why="approval", at=1))
    heart.beat(Beat(why="approval", at=2))
    assert [beat.at for beat in sent] == [1]
    heart.beat(Beat(why="approval", seen=seen(), at=3))
    assert [beat.at for beat in sent] == [1, 3]
    assert heart.due_in_s == 20
    now = 20.1
    heart.beat(Beat(why="approval", seen=seen(), at=4))
    assert [beat.at for beat in sent] == [1, 3, 4]


@pytest.mark.parametrize(
    ("now", "interval_s", "expected"),
    [(100.3, 48.0, 148.0), (100.9, 48.0, 148.0), (148.001, 48.0, 196.0), (100.9, BEAT_S, 102.0), (100.9, 1.5, 102.4)],
)
def test_the_watches_of_a_worker_are_due_at_one_time(now: float, interval_s: float, expected: float) -> None:
    """At whole seconds, and never later than after the interval."""
    assert due_at(now, interval_s) == pytest.approx(expected)


def test_watches_that_begin_at_one_time_are_due_at_different_times() -> None:
    hearts = [Heart(lambda: 48.0, lambda _: None, lambda: 0.0) for _ in range(100)]
    for heart in hearts:
        heart.beat(Beat(why="approval"))
    assert len({heart.due_in_s // TICK_S for heart in hearts}) > 10


def test_the_next_activity_ends_the_former_watch() -> None:
    """Only that of the same rollout, and wakes it; a watch that ends late leaves the next one's turn alone."""
    turns, woken = Turns(slots=10), list[str]()
    with turns.take("a", lambda: woken.append("first")) as first, turns.take("b", lambda: None) as other:
        with turns.take("a", lambda: None) as second:
            assert woken == ["first"]
            assert (first.is_over, second.is_over, other.is_over) == (True, False, False)
            turns.end("a")
            assert second.is_over
        with turns.take("a", lambda: None) as third:
            pass
    assert not third.is_over and not turns._open


def test_a_full_worker_frees_slots_soon() -> None:
    """From 80 % of the slots on, a cancelled watch must not keep its slot until a rare heartbeat."""
    turns = Turns(slots=5)

    def take(workflow_id: str) -> AbstractContextManager[Turn]:
        return turns.take(workflow_id, lambda: None)

    with take("a"), take("b"), take("c"):
        assert not turns.are_tight
        with take("d"):
            assert turns.are_tight
