"""What becomes of the state after each decision: the whole of it, and the lines of the report."""

from typing import Any

import pytest

from segue.contract import Prepared, Written
from segue.decision import Act, Decision
from segue.draining import Emptying
from segue.errors import Refused
from segue.gates import Result, Verdict
from segue.gates.tally import ALONG, Tally
from segue.messages import Abort, Resume, receive
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Routed, Side, Version
from segue.room import Demand
from segue.spec import Change, Rules, Strategy, Waypoint
from segue.state import Before, Goal, Mark, Outcome, Phase, Reached, Retarget, State, requested
from segue.transition import (
    applied,
    attempted,
    begun,
    is_wanted_already,
    is_written,
    judged,
    learned,
    retargeted,
    stuck,
)  # fmt: skip

NOW, EARLIER = 1_000.0, 900.0
OLD_MARK, MARK = Mark(template="v0", token="4 0"), Mark(template="v1", token="3 1", generation=7)
PROBLEM = Problem(cause=Cause.CRASH_LOOP, message="it crashes", hopeless=True)
FOREIGN = Foreign(who="she", what="the image", template="v9")
GATE = {"name": "ours", "webhook": {"name": "ours"}}
PAUSES = Rules(on_failure="pause")
RULES = Rules(strategy=Strategy(max_surge=1, waypoints=[{"at": 1, "hold": "30s"}, {"at": "50%", "approval": True}]))
ASKS = Rules.model_validate({"gates": [GATE, {**GATE, "name": "theirs"}]})

STATE = State(
    owner="us", baseline=Version(template="v0"), wanted=Version(template="v1"), claimed=True, mark=OLD_MARK,
    progress_at=EARLIER, fits=3, moves=2, writes=5, ending=Outcome.COMPLETED,
)  # fmt: skip
"""In the middle: moved twice."""
BACK = STATE.going_back(Outcome.ROLLED_BACK, PROBLEM, EARLIER)
SEEN = Observation(replicas=4, old=Side(total=3), new=Side(total=1), requested=Counts(3, 1), template="v1", owner="us")
TALLIES = (Tally(gate="ours", opened=EARLIER, sitting=1, conclusive=1),)
COUNTS, EMPTYING = Counts(2, 2), Emptying(old=2, since=EARLIER)
DONE = Written(done=True, writes=2, mark=MARK)
TURNED: dict[str, Any] = {
    "goal": Goal.BACK, "ending": Outcome.ROLLED_BACK, "failure": PROBLEM, "progress_at": NOW,
}  # fmt: skip


def decided(act: Act, **more: Any) -> Decision:
    return Decision(act=act, why="why", **more)


Row = tuple[State, Decision, Written, dict[str, Any], list[tuple[str, str]]]
"""The state before, what was decided and written, the fields that change, and what and detail of each new line."""

ROWS: dict[str, Row] = {
    "wait": (STATE, decided(Act.WAIT), DONE, {}, []),
    "verify": (STATE, decided(Act.VERIFY), DONE, {}, []),
    "fail": (STATE, decided(Act.FAIL, problem=PROBLEM), DONE, TURNED, [("going back", str(PROBLEM))]),
    "fail without a problem": (
        STATE, decided(Act.FAIL), DONE,
        TURNED | {"failure": Problem(cause=Cause.DEADLINE, message="why")}, [("going back", "Deadline: why")],
    ),
    "fail that stays": (
        STATE.but(waypoint=Reached(index=0, at="1", hold_until=NOW, approved=True)),
        decided(Act.FAIL, problem=PROBLEM, rolls_back=False), DONE,
        {"unresolved": PROBLEM, "waypoint": None}, [("failed", str(PROBLEM))],
    ),
    "foreign change": (
        STATE.but(overrules=True), decided(Act.FOREIGN), DONE,
        {"foreign": FOREIGN, "overrules": False}, [("held", "she changed the image")],
    ),
    "foreign change gone": (
        STATE.but(foreign=FOREIGN, overrules=True), decided(Act.FOREIGN_GONE), DONE,
        {"foreign": None, "overrules": False, "progress_at": NOW}, [("foreign change gone", "")],
    ),
    "sleep": (STATE, decided(Act.SLEEP), DONE, {"asleep": True, "progress_at": NOW}, [("waits", "why")]),
    "wake": (
        STATE.but(asleep=True), decided(Act.WAKE), DONE, {"asleep": False, "progress_at": NOW}, [("continues", "why")]
    ),
    "crowded": (STATE, decided(Act.CROWDED), DONE, {"crowded": "why", "progress_at": NOW}, [("waits", "room: why")]),
    "roomy": (
        STATE.but(crowded="full"), decided(Act.ROOMY), DONE,
        {"crowded": "", "progress_at": NOW}, [("continues", "there is room again")],
    ),
    "frozen": (STATE, decided(Act.FREEZE), DONE, {"frozen": "why", "progress_at": NOW}, [("frozen", "why")]),
    "thawed": (
        STATE.but(frozen="weekend"), decided(Act.THAW), DONE,
        {"frozen": "", "progress_at": NOW}, [("continues", "no freeze is in effect")],
    ),
    "alarm": (BACK, decided(Act.ALARM), DONE, {"needs_human": True}, [("needs a person", "why")]),
    "lower-floor": (
        BACK.but(before=Before(replicas=4, ready=3, reached=4)), decided(Act.LOWER_FLOOR), DONE,
        {"before": Before(replicas=4, ready=3, reached=4, lowered=True), "progress_at": NOW},
        [("floor lowered", "why")],
    ),
    "calm": (
        BACK.but(needs_human=True), decided(Act.CALM), DONE, {"needs_human": False}, [("recovered", "")]
    ),
    "drain": (
        STATE, decided(Act.DRAIN, counts=COUNTS), DONE,
        {"emptying": Emptying(old=2, since=NOW), "progress_at": NOW}, [("drains", "why")],
    ),
    "drain no more": (
        STATE.but(emptying=EMPTYING), decided(Act.DRAIN), DONE,
        {"emptying": None, "progress_at": NOW}, [("stays", "why")],
    ),
    "fenced": (
        STATE, decided(Act.FENCED), DONE,
        {"outcome": Outcome.ABORTED, "failure": Problem(cause=Cause.FENCED, message="why")}, [("fenced off", "why")],
    ),
    "scale": (
        STATE.but(overrules=True, verified=True), decided(Act.SCALE, counts=COUNTS), DONE,
        {"mark": MARK, "progress_at": NOW, "moves": 3, "writes": 7, "overrules": False, "verified": False},
        [("scaled", "why (2 old, 2 new)")],
    ),
    "scale for the first time": (
        STATE.but(claimed=False, mark=Mark()), decided(Act.SCALE, counts=COUNTS, fits=5), DONE,
        {"claimed": True, "mark": MARK, "progress_at": NOW, "moves": 3, "writes": 7, "fits": 5},
        [("scaled", "why (2 old, 2 new)")],
    ),
    "scale that was done before": (
        STATE, decided(Act.SCALE, counts=COUNTS), Written(done=True),
        {"progress_at": NOW, "moves": 3}, [("scaled", "why (2 old, 2 new)")],
    ),
    "scale after drain": (
        STATE.but(emptying=EMPTYING), decided(Act.SCALE, counts=COUNTS, emptied="2 empty"), DONE,
        {"mark": MARK, "progress_at": NOW, "moves": 3, "writes": 7, "emptying": None},
        [("scaled", "why (2 old, 2 new)"), ("drained", "2 empty")],
    ),
    "scale after drain is cut": (
        STATE.but(emptying=EMPTYING), decided(Act.SCALE, counts=COUNTS, emptied="1 is not", cut=True), DONE,
        {"mark": MARK, "progress_at": NOW, "moves": 3, "writes": 7, "emptying": None},
        [("scaled", "why (2 old, 2 new)"), ("warning", "1 is not")],
    ),
    "scale not written": (
        STATE, decided(Act.SCALE, counts=COUNTS), Written(done=False, why="it moved"), {}, [("not written", "it moved")]
    ),
    "pause the controller": (
        STATE, decided(Act.PAUSE_CONTROLLER), DONE,
        {"mark": MARK, "controller_paused_at": NOW, "writes": 7}, [("controller paused", "why")],
    ),
    "make configuration again": (
        STATE, decided(Act.CONFIGURE), Written(done=True, writes=1), {"progress_at": NOW, "writes": 6},
        [("warning", "why")],
    ),
    "settle": (
        STATE.but(settling=True, unresolved=PROBLEM), decided(Act.SETTLE, counts=COUNTS), DONE,
        {"mark": MARK, "settling": False, "paused": "settled", "unresolved": None, "resolved_at": NOW, "writes": 7},
        [("settled", "(2 old, 2 new)")],
    ),
    "route for the first time": (
        STATE.but(overrules=True), decided(Act.ROUTE, share=0), Written(done=True, writes=1),
        {"routed": Routed(share=0), "overrules": False, "progress_at": NOW, "writes": 6},
        [("traffic", "0 % to new: why")],
    ),
    "route on": (
        STATE.but(routed=Routed(share=5, since=EARLIER), verified=True), decided(Act.ROUTE, share=50),
        Written(done=True, writes=1, routed=Routed(share=50, version=9)),
        {"routed": Routed(share=50, version=9, since=NOW, accepted=50), "progress_at": NOW, "writes": 6},
        [("traffic", "50 % to new: why")],
    ),
    "route back": (
        STATE.but(routed=Routed(share=50, since=EARLIER), verified=True), decided(Act.ROUTE, share=5),
        Written(done=True, writes=1),
        {"routed": Routed(share=5, since=NOW, accepted=5), "verified": False, "progress_at": NOW, "writes": 6},
        [("traffic", "5 % to new: why")],
    ),
    "route as it is": (
        STATE.but(routed=Routed(share=50, since=EARLIER), verified=True), decided(Act.ROUTE, share=50),
        Written(done=True, writes=1, routed=Routed(share=50, version=9)),
        {"routed": Routed(share=50, version=9, since=EARLIER, accepted=50), "progress_at": NOW, "writes": 6}, [],
    ),
    "route, and a gateway has to accept it": (
        STATE.but(routed=Routed(share=5, since=EARLIER, accepted=5)), decided(Act.ROUTE, share=50),
        Written(done=True, writes=1, routed=Routed(share=50, generation=7, gateways=("a",), pending="a", refusal="no")),
        {
            "routed": Routed(share=50, generation=7, gateways=("a",), pending="a", since=NOW, accepted=5),
            "progress_at": NOW, "writes": 6,
        },
        [("traffic", "50 % to new: why")],
    ),
    "it accepts": (
        STATE.but(
            routed=Routed(share=50, gateways=("a",), pending="a", since=EARLIER, accepted=5),
            waypoint=Reached(index=0, at="1", hold_until=EARLIER + 30, approved=False, expires_at=EARLIER + 60),
        ),
        decided(Act.ACCEPTED), DONE,
        {
            "routed": Routed(share=50, gateways=("a",), since=NOW, accepted=50), "progress_at": NOW,
            "waypoint": Reached(index=0, at="1", hold_until=NOW + 30, approved=False, expires_at=NOW + 60),
        },
        [("traffic accepted", "why")],
    ),
    "route as it is, and a gateway has to accept it": (
        STATE.but(routed=Routed(share=50, since=EARLIER, accepted=50)), decided(Act.ROUTE, share=50),
        Written(done=True, writes=1, routed=Routed(share=50, version=9, pending="a")),
        {"routed": Routed(share=50, version=9, pending="a", since=NOW, accepted=50), "progress_at": NOW, "writes": 6},
        [],
    ),
    "nothing to accept": (STATE, decided(Act.ACCEPTED), DONE, {}, []),
    "resize": (
        STATE.but(resize=6, verified=True), decided(Act.RESIZE, replicas=6), DONE,
        {"mark": MARK, "resize": None, "progress_at": NOW, "verified": False, "writes": 6},
        [("resized", "6 replicas")],
    ),
    "resize to what is not wanted any more": (
        STATE.but(resize=8), decided(Act.RESIZE, replicas=6), DONE,
        {"mark": MARK, "progress_at": NOW, "writes": 6}, [("resized", "6 replicas")],
    ),
    "resize before the first move": (
        STATE.but(claimed=False, resize=6), decided(Act.RESIZE, replicas=6), DONE,
        {"mark": MARK.model_copy(update={"token": ""}), "resize": None, "progress_at": NOW, "writes": 6},
        [("resized", "6 replicas")],
    ),
    "undo": (
        BACK.but(overrules=True, foreign=FOREIGN), decided(Act.UNDO), DONE,
        {"mark": MARK, "overrules": False, "foreign": None, "writes": 7, "progress_at": NOW},
        [("undone", "back to v0")],
    ),
    "undo while it is scaled to 0": (
        STATE.but(asleep=True, verified=True, waypoint=Reached(index=0, at="1", hold_until=NOW, approved=True)),
        decided(Act.UNDO), DONE,
        {"mark": MARK, "writes": 7, "progress_at": NOW, "verified": False, "waypoint": None}, [("undone", "why")],
    ),
    "undo a step": (
        BACK, decided(Act.UNDO, counts=COUNTS), DONE,
        {"mark": MARK, "writes": 7, "progress_at": NOW}, [("undone", "why (2 old, 2 new)")],
    ),
    "finish": (
        BACK.but(needs_human=True), decided(Act.FINISH), DONE,
        {"outcome": Outcome.ROLLED_BACK, "needs_human": False, "writes": 7}, [("RolledBack", "")],
    ),
    "finish of what a person was needed for": (
        STATE.but(unresolved=PROBLEM), decided(Act.FINISH), DONE,
        {"outcome": Outcome.COMPLETED, "unresolved": None, "writes": 7}, [("Completed", "")],
    ),
    "finish without a write": (
        BACK.but(claimed=False), decided(Act.FINISH), Written(done=True),
        {"outcome": Outcome.ROLLED_BACK}, [("RolledBack", "")],
    ),
}  # fmt: skip


def new_lines(before: State, after: State) -> list[tuple[str, str]]:
    assert after.log[: len(before.log)] == before.log
    return [(entry.what, entry.detail) for entry in after.log[len(before.log) :]]


def assert_changed(before: State, after: State, fields: dict[str, Any], lines: list[tuple[str, str]]) -> None:
    """Of the whole state, these fields and no others changed."""
    assert after.but(log=(), wrote=(), sized=None) == before.but(log=(), **fields)
    assert new_lines(before, after) == lines
    assert all(entry.at == NOW for entry in after.log[len(before.log) :])


@pytest.mark.parametrize("name", ROWS)
def test_transition(name: str) -> None:
    before, decision, written, fields, lines = ROWS[name]
    seen = SEEN.model_copy(update={"foreign": FOREIGN if decision.act is Act.FOREIGN else None})
    assert_changed(before, applied(RULES, before, seen, decision, NOW, written), fields, lines)


MIRRORED = Mark(template="v9", token="3 1", generation=8)
CHANGED = Written(done=True, writes=1, mark=MIRRORED, altered="spec.image a → mirror/a")


def test_what_the_api_server_made_of_the_wanted_version_is_wanted() -> None:
    """The report names the field, and a second time a person has to look."""
    decision = decided(Act.SCALE, counts=COUNTS)
    once = applied(RULES, STATE.but(tallies=TALLIES), SEEN, decision, NOW, CHANGED)
    assert (once.wanted.template, once.baseline.template, once.unresolved) == ("v9", "v0", None)
    assert once.tallies == (), "no gate was asked about this version"
    assert "mirror/a" in new_lines(STATE, once)[0][1]
    same = applied(RULES, once, SEEN, decision, NOW, CHANGED)
    assert same.unresolved is None
    other = Written(done=True, writes=1, mark=MIRRORED.model_copy(update={"template": "v10"}))
    again = applied(RULES, once, SEEN, decision, NOW, other)
    assert again.wanted.template == "v10"
    assert again.unresolved is not None


def test_what_admission_would_make_of_the_wanted_version_is_wanted() -> None:
    """Once. Then a person has to look, as for the baseline; a rollback is not touched."""
    made, decision = Version(template="v9", images={"server": "mirror/a"}), decided(Act.SCALE, counts=COUNTS)
    answer = Written(done=False, why="a policy changes it", made=made)
    before = STATE.but(verified=True, passed=(0,), tallies=TALLIES)
    once = applied(RULES, before, SEEN, decision, NOW, answer)
    assert (once.wanted, once.unresolved, once.verified, once.passed) == (made, None, False, (0,))
    assert once.tallies == (), "no gate was asked about this version"
    assert new_lines(STATE, once)[-1] == (
        "warning",
        f"the rollout continues with the version that admission makes of the change: {made}",
    )
    other = answer.model_copy(update={"made": Version(template="v10")})
    for before, written in ((once, other), (STATE, answer.model_copy(update={"made": STATE.baseline}))):
        failed = applied(RULES, before, SEEN, decision, NOW, written)
        assert (failed.wanted, str(failed.unresolved).partition(";")[0]) == (
            before.wanted,
            "Configuration: a policy changes it",
        )
    assert applied(RULES, BACK, SEEN, decision, NOW, answer).wanted == BACK.wanted
    resumed = receive(Resume(), applied(RULES, once, SEEN, decision, NOW, other), NOW)
    assert applied(RULES, resumed, SEEN, decision, NOW, other).wanted.template == "v10"


def test_what_the_api_server_made_of_the_baseline_is_the_baseline() -> None:
    """The way back ends with it; a message that turns the rollout round in between changes nothing about that."""
    back = applied(RULES, BACK, SEEN, decided(Act.UNDO), NOW, CHANGED)
    assert (back.wanted.template, back.baseline.template) == ("v1", "v9")
    turned = applied(RULES, BACK, SEEN, decided(Act.SCALE, counts=COUNTS), NOW, CHANGED)
    assert (turned.wanted.template, turned.baseline.template) == ("v9", "v0")
    kept = applied(RULES, BACK, SEEN, decided(Act.UNDO), NOW, DONE)  # the answer still is the wanted version
    assert kept.baseline.template == "v0"


def test_a_write_that_was_begun_before_an_abort_holds_no_rollback() -> None:
    """What stops a rollout would keep the way back from waiting for gateways and proxies."""
    aborted = receive(Abort(), STATE.but(settling=True, altered=1), NOW)
    for decision, written in ((decided(Act.SETTLE, counts=COUNTS), DONE), (decided(Act.SCALE, counts=COUNTS), CHANGED)):
        after = applied(RULES, aborted, SEEN, decision, NOW, written)
        assert (after.stopped, after.phase) == ("", Phase.ROLLING_BACK)


def test_a_write_without_effect_is_told_the_second_time() -> None:
    once = applied(RULES, BACK, SEEN, decided(Act.UNDO), NOW, DONE)
    twice = applied(RULES, once, SEEN, decided(Act.UNDO), NOW, DONE)
    assert ("warning", "the same write a second time: why") in new_lines(once, twice)


def test_every_act_has_a_row() -> None:
    acts = {decision.act for _, decision, *_ in ROWS.values()}
    assert acts == set(Act) - {Act.MEASURE}  # its gates have a test of their own


def test_what_is_written_is_recorded_after_its_write() -> None:
    """Only the end of a rollout that has not touched the target needs no write."""
    moves = {Act.SCALE, Act.PAUSE_CONTROLLER, Act.CONFIGURE, Act.RESIZE, Act.SETTLE, Act.ROUTE, Act.UNDO}
    assert {act for act in Act if is_written(STATE, decided(act))} == moves | {Act.FINISH}
    assert {act for act in Act if is_written(STATE.but(claimed=False), decided(act))} == moves


def test_a_failure_follows_the_gate_and_else_the_spec() -> None:
    for rules, rolls_back, goal in (
        (RULES, None, Goal.BACK),
        (PAUSES, None, Goal.FORWARD),
        (PAUSES, True, Goal.BACK),
        (RULES, False, Goal.FORWARD),
    ):
        decision = decided(Act.FAIL, problem=PROBLEM, rolls_back=rolls_back)
        after = applied(rules, STATE, SEEN, decision, NOW)
        assert (after.goal, after.unresolved) == (goal, None if goal is Goal.BACK else PROBLEM)


def test_only_the_named_gates_are_opened() -> None:
    stops = applied(ASKS, STATE.but(passed=(0, 1)), SEEN, decided(Act.MEASURE, gates=("theirs",), stops=True), NOW)
    assert [(t.gate, t.opened, t.sitting, t.since) for t in stops.tallies] == [("theirs", NOW, 2, NOW)]
    along = applied(ASKS, STATE, SEEN, decided(Act.MEASURE, gates=("ours", "theirs")), NOW)
    assert [(t.gate, t.sitting) for t in along.tallies] == [("ours", ALONG), ("theirs", ALONG)]


# --- verification -----------------------------------------------------------------------------------------


def verdict(result: Result, problem: Problem | None = None) -> Verdict:
    return Verdict(gate="readiness", result=result, why="so", problem=problem)


HERE = Reached(index=0, at="1", hold_until=NOW + 30, approved=True, at_s=NOW)
ANSWER = ("gate readiness", "pass: so")


def test_a_waypoint_that_passes_is_held() -> None:
    after = judged(RULES, STATE, SEEN, decided(Act.VERIFY, waypoint=0), [verdict(Result.PASS)], NOW)
    assert_changed(STATE, after, {"waypoint": HERE}, [ANSWER, ("verified", "waypoint 1")])


@pytest.mark.parametrize(("old", "expected"), [(0, "every replica is new"), (3, "the new side is complete")])
def test_the_end_that_passes_is_verified(old: int, expected: str) -> None:
    seen = SEEN.model_copy(update={"old": Side(total=old)})
    after = judged(RULES, STATE, seen, decided(Act.VERIFY), [verdict(Result.PASS)], NOW)
    assert_changed(STATE, after, {"verified": True}, [ANSWER, ("verified", expected)])


@pytest.mark.parametrize(("rules", "goal"), [(RULES, Goal.BACK), (PAUSES, Goal.FORWARD)])
def test_a_failed_verification_goes_by_the_spec(rules: Rules, goal: Goal) -> None:
    verdicts = [verdict(Result.PASS), verdict(Result.FAIL, PROBLEM)]
    after = judged(rules, STATE, SEEN, decided(Act.VERIFY), verdicts, NOW)
    assert (after.goal, after.failure or after.unresolved) == (goal, PROBLEM)
    assert new_lines(STATE, after)[:2] == [ANSWER, ("gate readiness", "fail: so")]


def test_an_inconclusive_verification_is_only_noted() -> None:
    after = judged(RULES, STATE, SEEN, decided(Act.VERIFY), [verdict(Result.INCONCLUSIVE)], NOW)
    assert_changed(STATE, after, {}, [("gate readiness", "inconclusive: so")])


def test_a_rollout_that_was_turned_round_forgets_the_answers() -> None:
    assert judged(RULES, BACK, SEEN, decided(Act.VERIFY), [verdict(Result.FAIL)], NOW) is BACK


# --- the start, a retarget, and what waiting does not mend ----------------------------------------------


def test_a_lost_answer_of_the_first_write_is_made_good() -> None:
    """The owner on the target tells whose write it was; what is ours already stays as it is."""
    unclaimed = STATE.but(claimed=False, mark=Mark())
    assert learned(unclaimed, SEEN) == unclaimed.but(claimed=True, mark=Mark(template="v1"))
    for other in ("somebody", None):
        assert learned(unclaimed, SEEN.model_copy(update={"owner": other})) is unclaimed
    assert learned(STATE, SEEN) is STATE


def test_an_end_whose_rest_is_not_written_is_known() -> None:
    """No message turns it round then: a released target would look like another's."""
    freed = SEEN.model_copy(update={"owner": None})
    ending = STATE.but(finishing=True)
    assert learned(ending, freed).released
    for state, seen in (
        (STATE, freed), (ending, SEEN), (ending, freed.model_copy(update={"engaged": True})),
        (ending, freed.model_copy(update={"gone": True})),
    ):  # fmt: skip
        assert not learned(state, seen).released
    with pytest.raises(Refused, match="except for what cannot be written beside its target"):
        receive(Abort(), learned(ending, freed), NOW)


def prepared(wanted: str, baseline: str = "v0", **more: Any) -> Prepared:
    return Prepared(
        baseline=Version(template=baseline), wanted=Version(template=wanted), replicas=4, old=4, owner="them",
        mark=MARK, demand=Demand(), **more,
    )  # fmt: skip


def test_the_start_is_recorded() -> None:
    start = State(owner="us")
    after = begun(start, prepared("v1", claimed=True, warnings=("it costs",)), NOW, "she")
    fields = {
        "owner": "them", "claimed": True, "mark": MARK, "baseline": Version(template="v0"),
        "wanted": Version(template="v1"), "demand": Demand(), "began_at": NOW, "progress_at": NOW,
    }  # fmt: skip
    assert_changed(start, after, fields, [("prepared", "from v0 to v1"), ("warning", "it costs")])


WISH = Retarget(change=Change(images={"server": "v2"}), by="she")
BUSY = STATE.but(
    retarget=WISH, passed=(0,), waypoint=HERE, verified=True, tallies=(Tally(gate="ours", opened=EARLIER),),
    unresolved=PROBLEM, settling=True, emptying=EMPTYING, crowded="full", foreign=FOREIGN, overrules=True,
)  # fmt: skip
ANEW: dict[str, Any] = {
    "retarget": None, "wanted": Version(template="v2"), "demand": Demand(), "fits": None, "crowded": "", "passed": (),
    "waypoint": None, "verified": False, "tallies": (), "unresolved": None, "settling": False, "emptying": None,
    "began_at": NOW, "progress_at": NOW,
}  # fmt: skip


def test_a_retarget_begins_anew_from_here() -> None:
    """What it came from stays; what somebody else changed is written over, since she requested it."""
    after = retargeted(BUSY, WISH, prepared("v2", baseline="v9"), NOW)
    assert_changed(BUSY, after, ANEW, [("retargeted", "v2")])
    assert after.log[-1].who == "she"


def test_a_retarget_of_what_is_not_touched_takes_what_is_there_for_the_baseline() -> None:
    before = BUSY.but(claimed=False)
    after = retargeted(before, WISH, prepared("v2", baseline="v9"), NOW)
    taken = {"baseline": Version(template="v9"), "mark": MARK, "foreign": None, "overrules": False}
    assert_changed(before, after, ANEW | taken, [("retargeted", "v2")])


def test_a_retarget_to_the_baseline_goes_back() -> None:
    after = retargeted(BUSY, WISH, prepared("v0"), NOW)
    assert (after.goal, after.ending, after.retarget) == (Goal.BACK, Outcome.ROLLED_BACK, None)
    assert after.failure == requested("retargeted to the baseline by she")
    assert after.overrules
    assert (after.log[-1].what, after.log[-1].who) == ("going back", "she")


def test_a_retarget_to_what_is_wanted_changes_nothing() -> None:
    """Another strategy is another request, and so is writing over somebody else's change."""
    before = BUSY.but(foreign=None)
    after = retargeted(before, WISH, prepared("v1"), NOW)
    assert_changed(before, after, {"retarget": None}, [("retargeted", "to the wanted version: nothing changes")])
    assert is_wanted_already(before, WISH, prepared("v1"))
    for state, retarget, template in (
        (before, WISH, "v2"),
        (before, Retarget(strategy=Strategy(max_surge=2), by="she"), "v1"),
        (BUSY, WISH, "v1"),
    ):
        assert not is_wanted_already(state, retarget, prepared(template))
        assert retargeted(state, retarget, prepared(template), NOW).passed == ()


def test_what_waiting_does_not_mend_needs_a_person() -> None:
    """Forward it is held, backward it is an alarm; a repetition adds nothing."""
    problem = Problem(cause=Cause.CONFIGURATION, message="no right")
    forward = stuck(STATE, "no right", NOW)
    assert_changed(STATE, forward, {"unresolved": problem}, [("failed", str(problem))])
    assert forward.needs_person
    assert stuck(forward, "no right", NOW + 1) is forward
    assert stuck(forward, "no quota", NOW + 1).unresolved == Problem(cause=Cause.CONFIGURATION, message="no quota")
    back = stuck(BACK, "no right", NOW)
    assert_changed(BACK, back, {"needs_human": True}, [("needs a person", str(problem))])
    assert back.needs_person
    assert stuck(back, "no right", NOW + 1) is back


def test_waypoints_with_approvals_are_asked_for() -> None:
    after = judged(RULES, STATE, SEEN, decided(Act.VERIFY, waypoint=1), [verdict(Result.PASS)], NOW)
    assert after.waypoint == Reached(index=1, at="50%", hold_until=NOW, approved=False, at_s=NOW)
    assert isinstance(RULES.strategy.waypoints[1], Waypoint)


@pytest.mark.parametrize(
    ("theirs", "baseline"),
    [pytest.param("v9", "v0", id="another-left-it"), pytest.param("v8", "v9", id="the-answer-to-our-write")],
)
def test_what_somebody_else_wrote_is_no_answer(theirs: str, baseline: str) -> None:
    """An undo that only holds the target leaves another's template there: it does not become the baseline.

    Seed 46918 of the simulation went back to it for ever.
    """
    state = BACK.but(overrules=True, foreign=FOREIGN)
    seen = SEEN.model_copy(update={"foreign": FOREIGN.model_copy(update={"template": theirs}), "template": theirs})
    after = applied(RULES, state, seen, decided(Act.UNDO), NOW, Written(done=True, mark=Mark(template="v9")))
    assert (after.baseline.template, after.wanted.template) == (baseline, "v1")


def test_a_pause_of_the_controller_is_no_answer_either() -> None:
    """It leaves the template alone: what somebody else wrote does not become the wanted version."""
    seen = SEEN.model_copy(update={"foreign": FOREIGN, "template": "v9"})
    written = Written(done=True, writes=1, mark=Mark(template="v9"))
    assert applied(RULES, STATE, seen, decided(Act.PAUSE_CONTROLLER), NOW, written).wanted.template == "v1"


def test_an_answer_of_a_gate_that_is_not_open_is_left_out() -> None:
    """A retarget came in between: the gate is not opened yet, or the spec has it no more."""
    verdicts = [Verdict(gate=name, result=Result.FAIL, why="why") for name in ("ours", "gone")]
    state = STATE.but(tallies=(Tally(gate="gone", opened=EARLIER),))
    assert state.after_record(ASKS.repeated_gates, verdicts, NOW) == state


@pytest.mark.parametrize(("template", "side"), [("v0", "baseline"), ("v1", "wanted")])
def test_what_admission_makes_of_a_resize_is_the_version_that_was_there(template: str, side: str) -> None:
    """By the template that the resize leaves in place, not by the goal: a message may have reversed the rollout."""
    written = Written(done=True, writes=1, mark=Mark(template="made"))
    state = STATE.but(mark=Mark(template=template), resize=6)
    after = applied(RULES, state, SEEN, decided(Act.RESIZE, replicas=6), NOW, written)
    assert {"baseline": after.baseline.template, "wanted": after.wanted.template} == {
        "baseline": "v0", "wanted": "v1", side: "made"
    }  # fmt: skip


@pytest.mark.parametrize("done", [True, False])
def test_what_could_not_be_written_beside_the_target_is_told(done: bool) -> None:
    """Whether the write itself was made or not."""
    written = Written(done=done, mark=MARK, warning="the autoscaler was not written")
    after = applied(RULES, STATE, SEEN, decided(Act.SCALE, counts=COUNTS), NOW, written)
    assert (after.log[0].what, after.log[0].detail) == ("warning", "the autoscaler was not written")


def test_each_write_has_the_next_number() -> None:
    assert attempted(STATE.but(attempts=3), decided(Act.SCALE), SEEN).attempts == 4
    assert attempted(STATE, decided(Act.FINISH), SEEN).finishing
    assert not attempted(STATE, decided(Act.UNDO), SEEN).finishing


def test_who_overrules_a_forgotten_write_continues_after_it() -> None:
    forgot = SEEN.model_copy(update={"foreign": Foreign(who="it", what="later", attempts=9)})
    assert attempted(STATE.but(attempts=3, overrules=True), decided(Act.UNDO), forgot).attempts == 10


@pytest.mark.parametrize(("owner", "attempts"), [("us", 0), ("a former run", 7)])
def test_only_a_former_runs_writes_are_taken_over(owner: str, attempts: int) -> None:
    """A target that the rollout itself holds, before it has read it, was written before its workflow was reset."""
    found = prepared("v1", claimed=True, attempts=7).model_copy(update={"owner": owner})
    assert begun(State(owner="us"), found, NOW, "she").attempts == attempts
