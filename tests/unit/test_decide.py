"""What to do next: the arithmetic by its truth tables, and every case of the decision in its order."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.arithmetic import barrier_at, next_counts, toward
from segue.budget import Budget, objection, resolve_budget
from segue.contract import Written
from segue.decide import asks_for_room, decide, repeatable
from segue.decision import Act, Decision
from segue.failures import APPEARS_S
from segue.gates import Result, Verdict
from segue.gates.standing import due
from segue.gates.tally import Tally
from segue.messages import Resume, Settle, receive
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version
from segue.plan import settled
from segue.replica import Pods, Replica
from segue.room import Demand
from segue.spec import Drain, Order, Rules, Strategy, Waypoint
from segue.state import Before, Goal, Mark, Outcome, Phase, Reached, State, requested
from segue.transition import WRITTEN, applied, denied, learned

OUT, IN, BOTH = Order.SCALE_OUT_PRIORITY, Order.SCALE_IN_PRIORITY, Order.SCALE_SIMULTANEOUSLY
NOW = 1_000.0


def see(
    old: int, new: int, *, ready: int | None = None, proven: int | None = None,
    requested: tuple[int, int] | None = None, spare: int = 0, replicas: int = 4, template: str = "v1", **more: Any,
) -> Observation:  # fmt: skip
    """Return an observation of (old, new) replicas, held as they are and all ready unless given otherwise."""
    ready = old if ready is None else ready
    proven = new if proven is None else proven
    return Observation(
        replicas=replicas,
        old=Side(total=old, ready=ready, proven=ready, spare=spare),
        new=Side(total=new, ready=proven, proven=proven),
        requested=Counts(*(requested or (old, new))),
        template=template,
        **{"engaged": True, "owner": "us", "progress_at": NOW, **more},
    )


# --- the arithmetic -------------------------------------------------------------------------------------


def walk(strategy: Strategy, replicas: int) -> list[tuple[int, int]]:
    """Follow next_counts with everything ready at once."""
    budget = resolve_budget(strategy, replicas)
    path = [Counts(replicas, 0)]
    while path[-1] != (0, replicas):
        path.append(next_counts(budget, strategy.order, settled(budget, path[-1])))
        assert len(path) < 3 * replicas
    return [(c.old, c.new) for c in path]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        pytest.param({"maxSurge": 1, "maxUnavailable": 0}, "40 41 32 23 14 04", id="surge-1"),
        pytest.param({"step": 2}, "40 42 24 04", id="out-step-2"),
        pytest.param({"step": 2, "order": IN}, "40 22 04", id="in-step-2"),
        pytest.param({"step": 2, "order": BOTH}, "40 22 04", id="both-step-2"),
    ],
)
def test_the_truth_tables_of_the_docstring(written: dict[str, Any], path: str) -> None:
    """The rows of next_counts' docstring (but for those in brackets) are the requested counts."""
    assert walk(Strategy(**written), 4) == [(int(step[0]), int(step[1])) for step in path.split()]


ONE = Budget(replicas=4, surge=1, unavailable=0, step=1)
TWO = Budget(replicas=4, surge=2, unavailable=0, step=2)
TAKE = Budget(replicas=4, surge=0, unavailable=2, step=2)
MIXED = Budget(replicas=4, surge=1, unavailable=1, step=2)


@pytest.mark.parametrize(
    ("budget", "order", "seen", "counts"),
    [
        pytest.param(ONE, OUT, see(4, 1, proven=0), (4, 1), id="nothing-goes-before-proof"),
        pytest.param(TWO, OUT, see(4, 2, proven=1), (3, 3), id="one-of-a-batch-is-enough-to-go-on"),
        pytest.param(MIXED, OUT, see(4, 1, proven=0), (4, 1), id="out-first-keeps-all-old-though-one-could-go"),
        pytest.param(MIXED, BOTH, see(4, 1, proven=0), (3, 2), id="simultaneously-takes-what-may-go"),
        pytest.param(TAKE, IN, see(2, 2, proven=0), (2, 2), id="the-floor-holds"),
        pytest.param(TAKE, IN, see(2, 2, proven=1), (1, 3), id="one-proven-lets-one-go"),
        pytest.param(ONE, OUT, see(4, 1, ready=3, proven=1), (4, 1), id="lost-readiness-of-old-holds"),
        pytest.param(ONE, OUT, see(4, 1, ready=3, proven=1, spare=1), (3, 2), id="an-unready-old-one-is-spared-first"),
        pytest.param(TWO, OUT, see(4, 2, ready=4, proven=0, requested=(2, 4)), (4, 2), id="lost-proof-takes-back"),
        pytest.param(TWO, OUT, see(4, 2, proven=2, requested=(2, 4)), (2, 4), id="requested-is-requested-again"),
        pytest.param(ONE, OUT, see(5, 0, ready=5, requested=(5, 0)), (4, 1), id="retarget-takes-the-surplus"),
        pytest.param(ONE, OUT, see(5, 0, ready=4, requested=(5, 0)), (5, 0), id="retarget-waits-at-the-floor"),
        pytest.param(ONE, OUT, see(5, 0, ready=4, spare=1, requested=(5, 0)), (4, 1), id="retarget-takes-unready-ones"),
        pytest.param(TWO, OUT, see(3, 1, requested=(-2, 9)), (3, 3), id="fields-out-of-range-after-a-drop"),
        pytest.param(ONE, OUT, see(0, 4, proven=2), (0, 4), id="nothing-left-to-ask"),
        pytest.param(TAKE, IN, see(6, 2, proven=2, replicas=4), (4, 2), id="paused-with-more-than-r-old-after-a-drop"),
        pytest.param(ONE, OUT, see(6, 0, home=Counts(4, 0)), (5, 0), id="a-pair-with-more-than-r-old"),
        pytest.param(ONE, OUT, see(3, 2, requested=(2, 2)), (2, 2), id="what-has-not-stopped-uses-the-ceiling"),
        pytest.param(ONE, OUT, see(3, 2, requested=(2, 2), home=Counts(4, 0)), (2, 2), id="a-pairs-too"),
        pytest.param(ONE, OUT, see(2, 2, requested=(2, 2), home=Counts(4, 0)), (2, 3), id="then-the-next-one-comes"),
    ],
)
def test_what_is_asked_next(budget: Budget, order: Order, seen: Observation, counts: tuple[int, int]) -> None:
    """Readiness that was gained, lost or never there decides the next requested counts, within floor and ceiling."""
    assert next_counts(budget, order, seen) == counts


@pytest.mark.parametrize(
    ("seen", "barrier", "counts"),
    [
        pytest.param(see(4, 0), 1, (4, 1), id="reached-exactly"),
        pytest.param(see(4, 1), 1, (4, 1), id="not-passed"),
        pytest.param(see(4, 2, proven=1), 3, (3, 2), id="not-reached-before-all-before-it-are-proven"),
        pytest.param(see(4, 2, proven=2), 3, (2, 3), id="reached-when-all-before-it-are-proven"),
        pytest.param(see(2, 3), 2, (2, 3), id="behind-it-after-a-resize"),
    ],
)
def test_a_barrier_is_reached_and_not_passed(seen: Observation, barrier: int, counts: tuple[int, int]) -> None:
    """The rollout stops with exactly the waypoint's number of new replicas."""
    assert next_counts(TWO, OUT, seen, barrier) == counts


def test_nothing_moves_while_more_must_stay_than_are_requested() -> None:
    """Two old ones are requested, and traffic keeps three."""
    assert next_counts(TAKE, IN, see(4, 0, requested=(2, 2)), keep=3) == (2, 2)
    assert next_counts(TAKE, IN, see(4, 0, requested=(4, 0)), keep=3) == (3, 1)


@pytest.mark.parametrize(
    ("at", "replicas", "barrier"), [(1, 4, 1), (9, 4, 4), ("1%", 4, 1), ("26%", 4, 2), ("100%", 7, 7)]
)
def test_a_waypoint_lies_between_one_and_all(at: int | str, replicas: int, barrier: int) -> None:
    """A waypoint's number of new replicas rounds up, is at least one, and at most all."""
    assert barrier_at(Waypoint(at=at), replicas) == barrier


@st.composite
def observations(draw: st.DrawFn) -> tuple[Strategy, Observation]:
    replicas = draw(st.integers(1, 12))
    old, new = draw(st.integers(0, replicas)), draw(st.integers(0, replicas))
    ready = draw(st.integers(0, old))
    strategy = Strategy(
        order=draw(st.sampled_from(list(Order))),
        max_surge=draw(st.integers(0, 4)),
        max_unavailable=draw(st.integers(1, 4)),
    )
    return strategy, see(
        old, new, replicas=replicas, ready=ready, proven=draw(st.integers(0, new)),
        spare=draw(st.integers(0, old - ready)), requested=(draw(st.integers(-3, 12)), draw(st.integers(0, 15))),
    )  # fmt: skip


@settings(derandomize=True, deadline=None, database=None, max_examples=1000)
@given(observations(), st.one_of(st.none(), st.integers(1, 12)))
def test_whatever_is_seen_what_is_asked_is_in_the_budget(
    given_: tuple[Strategy, Observation], barrier: int | None
) -> None:
    """From every observation, however strange, the counts break no budget, and asking again comes to rest."""
    strategy, seen = given_
    budget = resolve_budget(strategy, seen.replicas)
    counts = next_counts(budget, strategy.order, seen, barrier)
    assert objection(budget, seen, counts) == ""
    assert min(counts) >= 0
    assert sum(counts) >= seen.replicas
    assert max(counts) <= seen.replicas
    again = counts
    for _ in range(2):  # counts beyond the budget are taken back first, then it goes on
        so_far = seen.model_copy(update={"requested": again})
        counts, again = again, next_counts(budget, strategy.order, so_far, barrier)
    assert again == counts


# --- the cases ------------------------------------------------------------------------------------------

RULES = Rules(strategy=Strategy(max_surge=1, max_unavailable=0))
DRAINS = Rules(strategy=Strategy(max_surge=1, max_unavailable=0), drain=Drain(timeout=timedelta(seconds=30)))
STOPS = Rules(strategy=Strategy(max_surge=1, max_unavailable=0, waypoints=(Waypoint(at=1),)))
START = State(owner="us", baseline=Version(template="v0"), wanted=Version(template="v1"), progress_at=NOW)
MOVING = START.but(claimed=True)
TURNED = START.going_back(Outcome.ABORTED, requested("why"), NOW)
BACK = MOVING.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)
ENDING = MOVING.but(finishing=True)
TURNED_AT_END = ENDING.going_back(Outcome.ABORTED, requested("why"), NOW)
ATE = Foreign(who="him", what="the image", template="v9")
OVERRULED = BACK.but(foreign=ATE, overrules=True)
GONE = Problem(cause=Cause.IMAGE_PULL, message="no such image", hopeless=True)
HERE = Reached(index=0, at="1", hold_until=NOW + 60, approved=True)
LATE = NOW + 600


@pytest.mark.parametrize(
    ("rules", "state", "seen", "now", "act"),
    [
        pytest.param(RULES, START, see(4, 0, template="v0", engaged=False, owner=None), NOW, Act.SCALE, id="begins"),
        pytest.param(RULES, MOVING, see(4, 1, proven=0), NOW, Act.WAIT, id="waits-for-proof"),
        pytest.param(RULES, MOVING, see(4, 1), NOW, Act.SCALE, id="moves"),
        pytest.param(RULES, MOVING, see(4, 1, owner="them"), NOW, Act.FENCED, id="another-owns-it"),
        pytest.param(RULES, BACK.but(finishing=True), see(4, 0, owner=None, engaged=False), NOW, Act.FINISH,
                     id="released-by-an-earlier-attempt"),
        pytest.param(RULES, ENDING, see(0, 4, owner=None, engaged=False), NOW, Act.FINISH, id="completed-by-one"),
        pytest.param(RULES, ENDING, see(0, 4, owner="them"), NOW, Act.FENCED, id="another-came-at-the-end"),
        pytest.param(RULES, ENDING, see(0, 4, owner=None), NOW, Act.FENCED, id="owner-removed-at-the-end"),
        pytest.param(RULES, TURNED_AT_END, see(0, 4, owner=None, engaged=False), NOW, Act.FENCED, id="released"),
        pytest.param(RULES, START, see(4, 0, template="v0", owner="x", engaged=False), NOW, Act.SCALE, id="not-ours"),
        pytest.param(RULES, MOVING, see(4, 1, foreign=ATE), NOW, Act.FOREIGN, id="foreign-appears"),
        pytest.param(RULES, MOVING.but(foreign=ATE), see(4, 1, foreign=ATE), NOW, Act.WAIT, id="foreign-stays"),
        pytest.param(RULES, MOVING.but(foreign=ATE), see(4, 1), NOW, Act.FOREIGN_GONE, id="foreign-goes"),
        pytest.param(RULES, MOVING, see(4, 1, proven=0, problem=GONE), NOW, Act.FAIL, id="hopeless"),
        pytest.param(RULES, MOVING.but(paused="x"), see(4, 1, problem=GONE), NOW, Act.FAIL, id="hopeless-while-paused"),
        pytest.param(RULES, MOVING.but(unresolved=GONE), see(4, 1, problem=GONE), NOW, Act.WAIT, id="held-waits"),
        pytest.param(RULES, MOVING, see(4, 1, proven=0), LATE, Act.FAIL, id="too-late"),
        pytest.param(RULES, MOVING, see(4, 1, proven=0, seen_since=LATE), LATE, Act.WAIT, id="outage"),
        pytest.param(RULES, MOVING.but(paused="x"), see(4, 1, proven=0), LATE, Act.WAIT, id="a-pause-has-no-deadline"),
        pytest.param(DRAINS, MOVING, see(4, 1, leaving=1, leaving_since=NOW), NOW, Act.WAIT, id="drains"),
        pytest.param(DRAINS, MOVING, see(4, 1, leaving=1, leaving_since=NOW), LATE, Act.SCALE, id="drained-too-long"),
        pytest.param(DRAINS, MOVING, see(4, 1, leaving=1, leaving_since=NOW, problem=GONE), NOW, Act.FAIL,
                     id="a-drain-hides-no-failure"),
        pytest.param(RULES, MOVING.but(resize=7), see(4, 1), NOW, Act.RESIZE, id="resize"),
        pytest.param(RULES, MOVING.but(settling=True), see(4, 1, proven=0), NOW, Act.SETTLE, id="settle"),
        pytest.param(RULES, MOVING.but(settling=True), see(5, 0, template="v9"), NOW, Act.SCALE, id="settle-needs-new"),
        pytest.param(RULES, MOVING.but(paused="x"), see(4, 1), NOW, Act.WAIT, id="paused"),
        pytest.param(STOPS, MOVING, see(4, 1), NOW, Act.VERIFY, id="waypoint-reached"),
        pytest.param(STOPS, MOVING, see(4, 1, proven=0), NOW, Act.WAIT, id="waypoint-not-proven"),
        pytest.param(STOPS, MOVING.but(waypoint=HERE), see(4, 1), NOW, Act.WAIT, id="waypoint-holds"),
        pytest.param(STOPS, MOVING.but(waypoint=HERE), see(4, 1), LATE, Act.WAIT, id="waypoint-has-no-deadline"),
        pytest.param(STOPS, MOVING.but(passed=(0,)), see(4, 1), NOW, Act.SCALE, id="waypoint-passed"),
        pytest.param(RULES, MOVING, see(0, 4), NOW, Act.VERIFY, id="all-new"),
        pytest.param(RULES, MOVING.but(verified=True), see(0, 4), NOW, Act.FINISH, id="all-verified"),
        pytest.param(
            RULES, MOVING.but(verified=True), see(0, 4, template="v2", requested=(0, 0)), NOW, Act.SCALE,
            id="all-are-there-and-the-template-is-not",
        ),
        pytest.param(RULES, MOVING.but(verified=True), see(0, 4, proven=3), NOW, Act.SCALE, id="verified-but-lost-one"),
        pytest.param(RULES, TURNED, see(4, 0), NOW, Act.FINISH, id="abort-at-once"),
        pytest.param(RULES, BACK, see(1, 3), NOW, Act.UNDO, id="undo"),
        pytest.param(RULES, BACK.but(resize=7), see(1, 3), NOW, Act.UNDO, id="undo-before-a-resize"),
        pytest.param(RULES, BACK.but(resize=7), see(2, 3, engaged=False, template="v0"), NOW, Act.RESIZE,
                     id="resize-after-undo"),
        pytest.param(RULES, BACK, see(1, 3, pinned=True), NOW, Act.WAIT, id="undo-waits-above-the-floor"),
        pytest.param(RULES, BACK, see(4, 0, pinned=True), NOW, Act.WAIT, id="pinned-is-not-back"),
        pytest.param(RULES, BACK, see(2, 3, engaged=False, template="v0"), NOW, Act.WAIT, id="undo-under-way"),
        pytest.param(RULES, BACK, see(4, 0, engaged=False, template="v0"), NOW, Act.FINISH, id="all-old-again"),
        pytest.param(RULES, BACK, see(2, 3, engaged=False, template="v0"), LATE, Act.ALARM, id="undo-is-late"),
        pytest.param(RULES, BACK.but(needs_human=True), see(2, 3, engaged=False, template="v0"), LATE, Act.WAIT,
                     id="alarm-once"),
        pytest.param(RULES, BACK.but(needs_human=True), see(2, 3, engaged=False, template="v0", seen_since=LATE), LATE,
                     Act.WAIT, id="a-gap-is-no-progress"),
        pytest.param(RULES, BACK.but(needs_human=True), see(2, 3, engaged=False, template="v0", progress_at=LATE), LATE,
                     Act.CALM, id="goes-on-by-itself"),
        pytest.param(RULES, BACK.but(foreign=ATE), see(1, 3, foreign=ATE), NOW, Act.WAIT, id="undo-asks-first"),
        pytest.param(RULES, OVERRULED, see(1, 3, foreign=ATE), NOW, Act.UNDO, id="overruled"),
    ],
)  # fmt: skip
def test_each_case_in_its_order(rules: Rules, state: State, seen: Observation, now: float, act: Act) -> None:
    """One action follows from what is recorded and seen: done, abnormal, requested, up, down, wait."""
    decision = decide(rules, state, seen, now)
    assert decision.act is act
    assert decision.why
    assert decide(rules, state, seen, now) == decision


def test_a_write_without_effect_ends_at_a_person() -> None:
    """The same write backs off; after some a forward rollout holds, and a way back says that it needs a person."""
    for begun, act, person in ((MOVING, Act.SCALE, Act.FAIL), (BACK, Act.UNDO, Act.ALARM)):
        state, seen, now, acts = begun, see(3, 1, ready=3), NOW, list[Act]()
        while now < NOW + 60:
            decision = decide(RULES, state, seen, now)
            acts.append(decision.act)
            if decision.act is act:
                state = state.after_answer(repeatable(seen, decision), Mark(), "", now, back=False)
                continue
            if decision.act is person:
                break
            assert decision.wake_at is not None and decision.wake_at > now
            now = decision.wake_at
        assert acts == [act, act, Act.WAIT, act, Act.WAIT, act, person]
        assert "no effect" in decision.why
        assert decision.rolls_back is (False if act is Act.SCALE else None)


def test_a_write_that_cannot_be_made_ends_at_a_person() -> None:
    """The worker refuses it again and again: it backs off, may pass, and after the deadline needs a person."""
    for begun, act, person in ((MOVING, Act.SCALE, Act.FAIL), (BACK, Act.UNDO, Act.ALARM)):
        state, seen, now = begun, see(3, 1, ready=3), NOW
        tries = 0
        while (decision := decide(RULES, state, seen, now)).act is not person:
            if decision.act is act:
                tries += 1
                state = applied(RULES, state, seen, decision, now, Written(done=False, why="it is still scaling"))
                continue
            assert decision.wake_at is not None and now < decision.wake_at <= now + 60
            now = decision.wake_at
        assert "it is still scaling" in decision.why and "no progress" in decision.why
        assert decision.rolls_back is (False if act is Act.SCALE else None)
        assert NOW + 600 <= now < NOW + 700 and 6 <= tries < 20
    other = applied(RULES, state, seen, decision.model_copy(update={"act": act}), now, Written(done=False, why="other"))
    assert not [each for each in other.wrote if each.refused == "it is still scaling"], "another reason begins anew"


def test_a_write_that_was_refused_before_is_no_repetition() -> None:
    """Refused several times and then made, it counts once: only writes that were made can be without effect."""
    state, seen = MOVING, see(3, 1, ready=3)
    decision = decide(RULES, state, seen, NOW)
    for _ in range(5):
        state = applied(RULES, state, seen, decision, NOW, Written(done=False, why="it is still scaling"))
    state = state.after_answer(repeatable(seen, decision), Mark(), "", NOW, back=False)
    assert [(each.what, each.refused) for each in state.wrote] == [(repeatable(seen, decision), "")]
    assert decide(RULES, state, seen, NOW).act is Act.SCALE


HALF = Rules(strategy=Strategy(max_surge=3, max_unavailable=0, waypoints=(Waypoint(at="50%", approval=True),)))
ASKED = MOVING.but(waypoint=Reached(index=0, at="50%", hold_until=NOW, approved=False))


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(ASKED, id="approval"),
        pytest.param(ASKED.but(paused="x"), id="pause"),
        pytest.param(MOVING.but(unresolved=Problem(cause=Cause.GATE, message="no")), id="held"),
        pytest.param(MOVING.but(crowded="full"), id="no-room"),
        pytest.param(MOVING, id="under-way"),
    ],
)
def test_old_replicas_come_back_whatever_is_waited_for(state: State) -> None:
    """Of five new ones four turn unready: as many old ones come back as the ceiling allows, and stay."""
    lost = see(5, 5, proven=1, replicas=10, lost_since=NOW)
    decision = decide(HALF, state, lost, NOW)
    assert (decision.act, decision.counts) == (Act.SCALE, (8, 5))
    assert "6 of 10 required" in decision.why
    back = see(8, 5, ready=5, proven=1, spare=3, replicas=10, lost_since=NOW)
    waits = decide(HALF, state.but(regained=8, sized=10), back, NOW)
    assert waits.act in {Act.WAIT, Act.ROOMY}, waits


def test_readiness_that_stays_lost_at_a_stop_is_a_failure() -> None:
    """The deadline counts from the loss, and not from a stop that began long ago."""
    lost = see(5, 5, proven=1, replicas=10, requested=(8, 5), lost_since=LATE)
    assert decide(HALF, ASKED, lost, LATE + 599).act is Act.WAIT
    assert decide(HALF, ASKED, lost, LATE + 600).act is Act.FAIL
    unseen = lost.model_copy(update={"seen_since": LATE + 300})
    assert decide(HALF, ASKED, unseen, LATE + 600).act is Act.WAIT


def test_where_no_old_replica_can_be_added_lost_readiness_is_a_failure() -> None:
    """The controller deleted the old ReplicaSet (revisionHistoryLimit: 0): a rollback makes it create another."""
    lost = see(0, 10, proven=4, replicas=10, requested=(0, 10), lost_since=LATE, unreturnable=True)
    found = decide(HALF, ASKED, lost, LATE)
    assert (found.act, found.rolls_back) == (Act.FAIL, None)
    assert "only 4 of 10 required replicas are ready, and no old one can be added" in found.why, found.why
    starting = see(0, 10, proven=5, replicas=10, requested=(0, 10), lost_since=LATE, unreturnable=True)
    for state, seen in ((ASKED, starting), (MOVING.but(paused="x"), lost)):
        assert decide(HALF, state, seen, LATE + 599).act is Act.WAIT
        failed = decide(HALF, state, seen, LATE + 600)
        assert (failed.act, failed.rolls_back) == (Act.FAIL, None)


def test_what_a_resize_adds_is_not_lost() -> None:
    """Replicas that a resize adds may load: no old one is added for them."""
    grown = see(5, 5, proven=2, replicas=10)
    assert decide(HALF, ASKED.but(sized=7), grown, NOW).act is Act.WAIT


@pytest.mark.parametrize("sized", [0, 4])
def test_what_a_resize_added_is_protected_once_it_is_ready(sized: int) -> None:
    """Also after a sleep, and while nothing moves: the floor is that of the present R."""
    state = ASKED.but(sized=sized)
    loads, whole = see(5, 5, ready=2, replicas=10), see(5, 5, replicas=10)
    lost = see(5, 5, proven=1, replicas=10, lost_since=NOW)
    assert decide(HALF, learned(state, loads), lost, NOW).act is Act.WAIT
    decision = decide(HALF, learned(state, whole), lost, NOW)
    assert (decision.act, decision.counts) == (Act.SCALE, (8, 5))


def test_numbered_replicas_become_old_again_where_new_ones_failed() -> None:
    """A new replica is given up for an old one only after the failure: before, it may become ready again."""
    rules = Rules(strategy=Strategy(max_surge=0, max_unavailable=1, waypoints=(Waypoint(at=2, approval=True),)))
    lost = see(2, 2, proven=0, numbered=True)
    state = ASKED.but(unresolved=Problem(cause=Cause.UNREADY, message="no"))
    assert decide(rules, ASKED, lost, NOW).act is Act.WAIT
    assert decide(rules, state, lost, NOW).counts == (4, 0)
    assert decide(rules, state, see(2, 2, ready=1, proven=1, numbered=True), NOW).counts == (3, 1)


def test_what_a_pair_has_above_r_goes_step_by_step() -> None:
    """After a drop of R, the new side itself is too large."""
    for old in (0, 1):
        assert toward(ONE, OUT, see(old, 6, home=Counts(4, 0))) == (old, 5)


def test_only_a_pair_removes_what_is_above_r_before_its_end() -> None:
    """The controller of a Deployment does it by itself."""
    assert decide(RULES, MOVING, see(0, 6), NOW).act is Act.VERIFY
    assert decide(RULES, MOVING, see(0, 6, home=Counts(4, 0)), NOW).act is Act.SCALE


def test_what_came_back_goes_again_once_the_floor_holds() -> None:
    move = decide(RULES, MOVING.but(regained=4), see(4, 1), NOW)
    assert (move.act, move.counts) == (Act.SCALE, (3, 2))


def test_an_alarm_names_the_problem_that_is_seen() -> None:
    late = see(2, 3, engaged=False, template="v0")
    assert decide(RULES, BACK, late.model_copy(update={"problem": GONE}), LATE).problem == GONE
    found = decide(RULES, BACK, late, LATE).problem
    assert found is not None and found.cause is Cause.DEADLINE


@pytest.mark.parametrize(("rules", "leaving", "late"), [(RULES, 1, False), (DRAINS, 0, False), (DRAINS, 1, True)])
def test_a_move_says_what_did_not_drain_in_time(rules: Rules, leaving: int, late: bool) -> None:
    move = decide(rules, MOVING, see(4, 1, leaving=leaving, leaving_since=NOW - 60), NOW)
    assert (move.act, "did not end in time" in move.why) == (Act.SCALE, late)


def test_a_wait_says_until_when() -> None:
    """While it waits for proof, it looks again when the next replica is proven, or at the deadline."""
    seen = see(4, 1, proven=0, next_proven_at=NOW + 5)
    assert decide(RULES, MOVING, seen, NOW).wake_at == NOW + 5
    assert decide(RULES, MOVING, see(4, 1, proven=0), NOW).wake_at == LATE
    assert decide(RULES, MOVING.but(paused="x"), see(4, 1, proven=0), NOW).wake_at is None, "a pause has no deadline"
    assert decide(RULES, BACK.but(needs_human=True), see(2, 3, engaged=False, template="v0"), LATE).wake_at is None


def test_what_an_action_waits_for_reads_well_after_these_words() -> None:
    """The status shows it while the action is carried out: never *waits for every replica is new and proven*."""
    done = see(0, 4)
    shown = [
        decide(RULES, MOVING, done, NOW),
        decide(RULES, MOVING.but(verified=True), done, NOW),
        decide(RULES, MOVING, see(4, 0), NOW),
        decide(STOPS, MOVING, see(4, 1), NOW),
        decide(RULES, BACK, see(4, 1, template="v1"), NOW),
        decide(RULES, MOVING, see(4, 1, proven=0), NOW),
    ]
    assert [each.waits_for for each in shown] == [
        "verification (every replica is new and proven)",
        "the last write (every replica is new and verified)",
        "the move (new 0→1)",
        "verification (the waypoint at 1 new is reached)",
        "the rollback (restoring the baseline)",
        "1 new replica to be proven (0 of 1 ready, 0 proven)",
    ]


def test_a_wait_names_the_replicas_that_it_waits_for() -> None:
    """In words that a person needs no glossary for: how many, on which side, and how far they are."""
    on = decide(RULES, MOVING, see(4, 1, proven=0), NOW)
    assert on.why == "1 new replica to be proven (0 of 1 ready, 0 proven)"
    back = decide(RULES, BACK, see(3, 2, engaged=False, template="v0"), NOW)
    assert back.why == "1 old replica to be proven (3 of 4 ready, 3 proven) and 2 new replicas to stop"
    assert decide(RULES, BACK, see(4, 1, engaged=False, template="v0"), NOW).why == "1 new replica to stop"


def test_a_clock_that_is_ahead_is_named() -> None:
    """A replica that is Ready since a time to come is not proven before it, and the reason says why."""
    told, seen = "became Ready 3600 s from now", see(4, 1, proven=0)
    ahead = seen.model_copy(update={"next_proven_at": NOW + 3600 + RULES.readiness.min_ready.total_seconds()})
    assert told in decide(RULES, MOVING, ahead, NOW).why
    late = decide(RULES, MOVING, ahead.model_copy(update={"next_proven_at": LATE + 3600}), LATE)
    assert late.act is Act.FAIL and "from now: synchronize both clocks" in late.why, late
    back = see(3, 0, engaged=False, template="v0").model_copy(update={"next_proven_at": NOW + 3600 + 5})
    assert "from now: synchronize both clocks" in decide(RULES, BACK, back, NOW).why
    soon = seen.model_copy(update={"next_proven_at": NOW + RULES.readiness.min_ready.total_seconds()})
    assert "from now" not in decide(RULES, MOVING, soon, NOW).why


def test_what_keeps_old_replicas_from_coming_back_is_named_at_once() -> None:
    """On the way back the status has the failure as its reason, and the alarm has the rest."""
    seen = see(3, 2, engaged=False, template="v0")
    refused = Problem(cause=Cause.CONFIGURATION, message="no pod can be created: a quota")
    expected = "1 old replica to be proven (3 of 4 ready, 3 proven) and 2 new replicas to stop"
    told = decide(RULES, BACK, seen.model_copy(update={"problem": refused}), NOW).why
    assert told == f"{expected}: Configuration: no pod can be created: a quota"
    starting = Problem(cause=Cause.UNREADY, message="is not ready", replica="chat-1")
    assert decide(RULES, BACK, seen.model_copy(update={"problem": starting}), NOW).why == expected
    alarmed = decide(RULES, BACK.but(needs_human=True), seen.model_copy(update={"problem": refused}), LATE + 10_000)
    assert alarmed.why == expected


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        pytest.param(see(4, 2, proven=1), (4, 1), id="what-is-ready-stays"),
        pytest.param(see(4, 2, proven=0), (4, 1), id="one-new-must-stay"),
        pytest.param(see(2, 2, proven=0), (2, 2), id="the-replicas-must-stay"),
        pytest.param(see(3, 2, proven=2, requested=(-1, 5)), (0, 4), id="fields-out-of-range-after-a-drop"),
        pytest.param(see(4, 3), (4, 1), id="no-more-than-the-ceiling-after-a-drop"),
        pytest.param(see(4, 3, ready=2), (2, 3), id="of-what-is-over-it-the-unready-goes-first"),
        pytest.param(see(4, 0), (4, 0), id="paused-with-none-new-after-a-drop"),
        pytest.param(see(6, 1, replicas=4), (4, 1), id="paused-with-more-than-r-old-after-a-drop"),
    ],
)
def test_a_settle_can_be_held(seen: Observation, counts: tuple[int, int]) -> None:
    """A settle asks for what is ready, as far as the lever can hold it."""
    decision = decide(RULES, MOVING.but(settling=True), seen, NOW)
    assert (decision.act, decision.counts) == (Act.SETTLE, counts)


@pytest.mark.parametrize(("claimed", "token"), [(False, ""), (True, "False 2 0")])
def test_a_resize_marks_a_hold_only_where_it_is_ours(claimed: bool, token: str) -> None:
    """Before the claim the owner of the target may change how its own controller rolls it."""
    state = State(owner="us", claimed=claimed).after_resize(5, NOW, Mark(template="v0", token="False 2 0"))
    assert state.mark == Mark(template="v0", token=token)


def test_a_settle_answers_a_failed_gate() -> None:
    """The rollout is paused then; the gate would hold it again at once. The resume evaluates it again."""
    rules = Rules.model_validate({"gates": [{"name": "ours", "webhook": {"name": "ours"}, "onFailure": "pause"}]})
    [gate] = rules.repeated_gates
    failed = Tally(gate="ours", opened=NOW).after(gate, Verdict(gate="ours", result=Result.FAIL, why="no"), NOW)
    state = MOVING.but(tallies=(failed,), waypoint=None)
    held = applied(rules, state, see(2, 2), decide(rules, state, see(2, 2), NOW), NOW)
    assert held.phase is Phase.HELD
    settling = receive(Settle(), held, NOW)
    after = applied(rules, settling, see(2, 2), decide(rules, settling, see(2, 2), NOW), NOW, Written(done=True))
    assert (after.phase, decide(rules, after, see(2, 2), NOW).act) == (Phase.PAUSED, Act.WAIT)
    assert decide(rules, receive(Resume(), after, NOW), see(2, 2), NOW).gates == ("ours",)


def test_a_settled_rollout_goes_on_after_a_resume() -> None:
    """After settle and resume, the next move is requested as usual."""
    state = MOVING.but(settling=True).after_settle(Counts(4, 1), 2, NOW).but(paused="")
    assert decide(RULES, state, see(4, 1), NOW).counts == (3, 2)


def test_the_goal_back_never_moves_forward() -> None:
    """On the way back nothing is scaled by counts: the controller goes back by itself."""
    for old in range(5):
        for engaged in (True, False):
            seen = see(old, 4 - old, engaged=engaged, template="v1" if engaged else "v0")
            assert decide(RULES, BACK, seen, NOW).act in {Act.UNDO, Act.WAIT, Act.FINISH}
    assert BACK.goal is Goal.BACK


def test_the_next_step_waits_for_replicas_that_end_their_requests() -> None:
    """Until they have ended, or until the drain's deadline, which the reason names."""
    seen = see(4, 1, leaving=1, leaving_since=NOW - 10)
    waits = decide(DRAINS, MOVING, seen, NOW)
    assert (waits.act, waits.wake_at) == (Act.WAIT, NOW + 20)
    assert waits.why == "old replicas to end their requests, 1 left (at most 30 s)"
    late = decide(DRAINS, MOVING, seen, NOW + 20)
    assert late.act is Act.SCALE and late.why.endswith("; 1 did not end in time")


# --- a target that is stepped both ways -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "order", "seen", "end", "counts"),
    [
        pytest.param(ONE, OUT, (3, 2), (2, 2), (2, 2), id="to-a-partial-end"),
        pytest.param(ONE, OUT, (2, 2), (4, 0), (3, 2), id="back-adds-old-first"),
        pytest.param(ONE, OUT, (3, 2), (4, 0), (4, 1), id="back-takes-what-is-covered"),
        pytest.param(TAKE, IN, (2, 2), (4, 0), (4, 0), id="back-in-one-where-the-budget-allows"),
        pytest.param(ONE, OUT, (1, 3), (3, 1), (2, 3), id="to-an-end-that-lies-behind"),
        pytest.param(ONE, OUT, (3, 0), (4, 0), (4, 0), id="old-alone-that-are-too-few"),
        pytest.param(ONE, OUT, (1, 1), (2, 2), (2, 1), id="both-too-few-the-old-first"),
    ],
)
def test_toward_any_end(
    budget: Budget, order: Order, seen: tuple[int, int], end: tuple[int, int], counts: tuple[int, int]
) -> None:
    """Going back is going forward with the sides exchanged: the same floor, ceiling and order."""
    now = see(*seen, home=Counts(4, 0))
    assert toward(budget._replace(kept=end[0], step=4), order, now) == counts


def test_back_from_an_old_side_that_somebody_scaled_above_r() -> None:
    """Both sides lose replicas then: it waits until enough old ones are proven that some of them stay."""
    back, scaled = ONE._replace(replicas=1, kept=1), see(5, 1, ready=4, replicas=1, home=Counts(1, 0))
    for proven, counts in ((2, (5, 1)), (4, (1, 0))):
        old = Side(total=5, ready=4, proven=proven, spare=1)
        assert toward(back, OUT, scaled.model_copy(update={"old": old})) == counts


def test_the_way_back_is_stepped_where_no_controller_goes_back() -> None:
    """It asks for counts until the baseline is there and proven, and then gives the target free."""
    rules, back = (
        Rules(strategy=Strategy(max_surge=1)),
        State(owner="us", claimed=True, goal=Goal.BACK, baseline=Version(template="v0"), wanted=Version(template="v1")),
    )
    home = Counts(4, 0)
    step = decide(rules, back, see(3, 2, home=home), NOW)
    assert (step.act, step.counts) == (Act.UNDO, (4, 1))
    assert decide(rules, back, see(4, 0, ready=3, home=home), NOW).act is Act.WAIT
    assert decide(rules, back, see(4, 0, home=home), NOW).act is Act.FINISH


def test_superseded_replicas_go_before_the_wanted_version_comes() -> None:
    """A new side that never runs two versions is emptied, and then filled with the newest requested version."""
    rules = Rules(strategy=Strategy(max_surge=1))
    forward = State(owner="us", claimed=True, baseline=Version(template="v0"), wanted=Version(template="v2"))
    home = Counts(4, 0)
    serving = see(4, 1, home=home).model_copy(update={"new": Side(total=1, ready=1, proven=0)})
    emptied = decide(rules, forward, serving, NOW)
    assert (emptied.act, emptied.counts) == (Act.SCALE, (4, 0))
    filled = decide(rules, forward, see(4, 0, home=home), NOW)
    assert (filled.act, filled.counts) == (Act.SCALE, (4, 1))


def test_a_surplus_after_a_drop_of_r_goes_in_one_step() -> None:
    """A Deployment of 1 replica can be held neither at (2, 0) nor at (1, 0): nothing would ever move."""
    budget = Budget(replicas=1, surge=1, unavailable=0, step=1, kept=0)
    assert next_counts(budget, Order.SCALE_OUT_PRIORITY, see(3, 0, replicas=1), 1) == (1, 1)


# --- room -----------------------------------------------------------------------------------------------

HOLDS: dict[str, Any] = {"maxSurge": 1}
MAY_GO: dict[str, Any] = {"maxSurge": 1, "maxUnavailable": 1}
NO_PLACE = Problem(cause=Cause.UNSCHEDULABLE, message="0/3 nodes", replica="chat-1")
PENDING: dict[str, Any] = {"unplaced": 1, "problem": NO_PLACE}
FULL: dict[str, Any] = {"room": 0, "room_why": "0 of 8 free"}


@pytest.mark.parametrize(
    ("written", "seen", "act", "counts", "why"),
    [
        pytest.param(HOLDS, see(4, 0, **FULL), Act.CROWDED, None, "0 of 8 free", id="counted-and-none-may-go"),
        pytest.param(HOLDS, see(4, 0, room=1), Act.SCALE, (4, 1), "", id="counted-and-it-fits"),
        pytest.param({"maxSurge": 2}, see(4, 0, room=1), Act.SCALE, (4, 1), "room for only 5", id="a-part-of-it-fits"),
        pytest.param(MAY_GO, see(4, 0, **FULL), Act.SCALE, (3, 1), "room for only 4", id="an-old-one-goes-first"),
        pytest.param(HOLDS, see(4, 0, leaving=1, **FULL), Act.SCALE, (4, 1), "", id="what-leaves-makes-room"),
        pytest.param(HOLDS, see(4, 1, proven=0, **PENDING), Act.CROWDED, None, "0/3 nodes", id="pending-none-may-go"),
        pytest.param(MAY_GO, see(4, 1, proven=0, **PENDING), Act.SCALE, (3, 1), "0/3 nodes", id="it-takes-the-place"),
        pytest.param(
            HOLDS, see(4, 1, proven=0, unplaced_since=NOW - 4, **PENDING), Act.WAIT, None, "", id="not-pending-for-long"
        ),
        pytest.param(
            HOLDS, see(4, 1, proven=0, leaving=1, **PENDING), Act.WAIT, None, "", id="pending-until-another-has-ended"
        ),
        pytest.param(
            {"maxSurge": 2}, see(4, 2, proven=0, **PENDING), Act.WAIT, None, "", id="the-other-one-is-still-coming"
        ),
        pytest.param(
            {"maxSurge": 2}, see(4, 2, proven=1, **PENDING), Act.SCALE, (3, 2), "", id="one-that-came-lets-one-go"
        ),
    ],
)  # fmt: skip
def test_room(written: dict[str, Any], seen: Observation, act: Act, counts: Any, why: str) -> None:
    """What does not fit is not requested: an old one goes first where the budget lets it, or else it holds."""
    rules = Rules(strategy=Strategy(**written))
    found = decide(rules, MOVING, seen, NOW + 0.5)
    assert (found.act, found.counts) == (act, counts)
    assert why in found.why


def test_a_hold_for_room_is_not_late_and_ends_with_room() -> None:
    """No deadline runs while there is no room; what was unknown is tried again, and a person can end it."""
    rules = Rules(strategy=Strategy(**HOLDS))
    waiting = MOVING.after_crowded("0 of 8 free", NOW)
    assert waiting.stopped == "room: 0 of 8 free" and waiting.needs_person
    assert decide(rules, waiting, see(4, 0, **FULL), NOW + 1e6).act is Act.WAIT
    assert decide(rules, waiting, see(4, 0, room=1), NOW + 1e6).act is Act.ROOMY
    assert decide(rules, waiting, see(4, 1, proven=0), NOW + 1e6).act is Act.ROOMY, "it was placed"
    in_an_old_ones_place = see(3, 1, proven=0, **PENDING)
    assert decide(Rules(strategy=Strategy(**MAY_GO)), MOVING, in_an_old_ones_place, LATE).act is Act.FAIL
    assert not waiting.going_back(Outcome.ABORTED, requested("by her"), NOW).crowded


def test_where_none_fitted_it_is_remembered() -> None:
    """Without a count each step would ask for a surge again, only to see it pending."""
    rules = Rules(strategy=Strategy(**MAY_GO))
    first = decide(rules, MOVING, see(4, 1, proven=0, **PENDING), NOW)
    assert first.counts is not None and first.fits == 4
    state = MOVING.after_scale(first.counts, first.why, NOW, fits=first.fits)
    assert decide(rules, state, see(3, 1), NOW).counts == (2, 2)
    assert decide(rules, state, see(3, 1, room=1), NOW).counts == (2, 3), "a count is better than a memory"


def test_room_is_only_counted_where_it_matters() -> None:
    """Before a replica is added, and while there was no room."""
    rules, state = Rules(strategy=Strategy(**HOLDS)), MOVING.but(demand=Demand())
    for seen, asks in ((see(4, 0), True), (see(4, 1), False), (see(4, 0, room=3), False)):
        assert asks_for_room(state, seen, decide(rules, state, seen, NOW)) is asks
    assert asks_for_room(state.after_crowded("full", NOW), see(4, 0), decide(rules, state, see(4, 1), NOW))
    waits = Decision(act=Act.WAIT, why="room")
    assert asks_for_room(state.after_crowded("full", NOW), see(4, 0), waits)
    assert not asks_for_room(state, see(4, 0), waits), "nothing is to be added"
    assert not asks_for_room(MOVING, see(4, 0), decide(rules, MOVING, see(4, 0), NOW))


@pytest.mark.parametrize(
    ("demand", "room", "act", "counts"),
    [
        pytest.param(Demand(), {"can_pend": True}, Act.SCALE, (4, 1), id="one-is-left-pending"),
        pytest.param(Demand(), {"can_pend": False}, Act.CROWDED, None, id="a-quota-refuses-it"),
        pytest.param(Demand(preempts=True), {"can_pend": True}, Act.CROWDED, None, id="it-would-preempt"),
    ],
)
def test_one_replica_waits_where_an_autoscaler_of_nodes_sees_it(
    demand: Demand, room: dict[str, Any], act: Act, counts: Any
) -> None:
    """With no room counted one is added all the same, but where that is refused, or costs a ready replica."""
    rules, state = Rules(strategy=Strategy(max_surge=2)), MOVING.but(demand=demand)
    found = decide(rules, state, see(4, 0, **FULL, **room), NOW + 0.5)
    assert (found.act, found.counts) == (act, counts)
    after = state.but(fits=4)
    waits = decide(
        rules, after, see(4, 1, proven=0, unplaced_since=NOW, unplaced_why="0/3 nodes", **PENDING), NOW + 0.5
    )
    assert waits.act is Act.CROWDED and waits.why.startswith("0/3 nodes"), "and then it holds at once"


@pytest.mark.parametrize(("own", "act"), [(2, Act.SCALE), (1, Act.WAIT), (0, Act.WAIT), (None, Act.WAIT)])
def test_a_controller_that_moves_by_itself_gets_a_higher_floor(own: int | None, act: Act) -> None:
    """It may let two be unavailable, as long as one was not ready before; once that one is ready, only one."""
    rules = Rules(strategy=Strategy(max_surge=0, max_unavailable=1))
    seen = see(2, 2, requested=(0, 4), autonomous=True, own_unavailable=own)
    found = decide(rules, MOVING, seen, NOW)
    assert found.act is act
    if act is Act.SCALE:
        assert (found.counts, found.why) == ((0, 4), "more replicas are ready by now: 3 must stay ready")


GATED: dict[str, Any] = {"hindered": 1, "hindrance": "chat-1: the scheduling gate q must be removed"}
LOST: dict[str, Any] = {"hindered": 0, "hindrance": "chat-0: its node a does not answer"}


@pytest.mark.parametrize(
    ("seen", "holds"),
    [
        pytest.param(see(4, 1, proven=0, **GATED), True, id="the-only-one-is-gated"),
        pytest.param(see(3, 2, proven=0, **GATED), False, id="another-has-to-show-itself"),
        pytest.param(see(4, 1, proven=0, autonomous=True, **GATED), True, id="moved-by-its-own-operator"),
        pytest.param(see(4, 0, requested=(0, 4), autonomous=True, **LOST), False, id="its-operator-replaces-one"),
        pytest.param(see(3, 2, ready=2, proven=1, **GATED), True, id="on-a-lost-node"),
        pytest.param(see(4, 1, ready=3, **LOST), True, id="the-floor-allows-no-move"),
        pytest.param(see(1, 4, ready=1, proven=3, **GATED), True, id="the-last-one-is-gated"),
        pytest.param(see(4, 1, **LOST), False, id="it-moves-on"),
        pytest.param(see(0, 4, **LOST), False, id="all-is-done"),
    ],
)
def test_what_is_no_matter_of_the_version_holds(seen: Observation, holds: bool) -> None:
    """A gate and a lost node are named, and no deadline runs; else the version counts as before."""
    rules = Rules(strategy=Strategy(max_surge=1))
    found = decide(rules, MOVING, seen, LATE)
    assert (found.act is Act.CROWDED) is holds
    if holds:
        assert found.why == seen.hindrance
        waiting = MOVING.after_crowded(found.why, NOW)
        assert decide(rules, waiting, seen, NOW + 1e6).act is Act.WAIT
        lifted = seen.model_copy(update={"hindered": 0, "hindrance": ""})
        assert decide(rules, waiting, lifted, NOW + 1e6).act is Act.ROOMY


EXACT = Rules(strategy=Strategy(max_surge=2, max_unavailable=0, step=2, pace="exact"))


@pytest.mark.parametrize(
    ("seen", "moves"),
    [
        pytest.param(see(4, 2, proven=1), False, id="one-of-two-is-proven"),
        pytest.param(see(4, 2), True, id="both-are"),
        pytest.param(see(3, 4, requested=(2, 4)), False, id="an-old-one-has-not-gone"),
        pytest.param(see(4, 2, proven=1, unplaced=1, unplaced_since=NOW - 60), True, id="the-other-has-no-place"),
        pytest.param(see(2, 4, proven=3, ready=1), False, id="waits-for-readiness"),
    ],
)
def test_an_exact_pace_waits_for_the_whole_step(seen: Observation, moves: bool) -> None:
    """By default the first proven replica lets an old one go."""
    found = decide(EXACT, MOVING, seen, NOW + 1)
    assert (found.act is Act.SCALE) is moves
    if seen.new.proven == 1 and not seen.unplaced:
        assert (
            decide(Rules(strategy=Strategy(max_surge=2, max_unavailable=0, step=2)), MOVING, seen, NOW + 1).act
            is Act.SCALE
        )


def test_a_rollback_ends_only_when_all_replicas_are_requested() -> None:
    """Where nothing was ready before, the controller may still have to scale the baseline up."""
    state = BACK.but(before=Before(replicas=4, ready=0))
    for old, ends in ((0, False), (3, False), (4, True)):
        seen = see(old, 0, ready=0, template="v0", engaged=False, requested=(old, 0))
        assert (decide(RULES, state, seen, NOW + 1).act is Act.FINISH) is ends, old


def test_no_deadline_runs_while_what_stops_holds_what_is_waited_for() -> None:
    """Until the kubelet has killed it; then it counts from there, and from when the new one got its place."""
    rules, deadline_s = Rules(strategy=Strategy(max_surge=0, max_unavailable=1)), 600.0
    waits = see(3, 1, proven=0, leaving=1, freed_by=LATE + 9, unplaced_why="0/3 nodes", **PENDING)
    found = decide(rules, MOVING, waits, LATE)
    assert (found.act, found.wake_at) == (Act.WAIT, LATE + 9 + deadline_s)
    assert found.why == "1 replica to stop and free the resources for new ones, at most 9 s more (0/3 nodes)"
    assert decide(rules, MOVING, waits, LATE + 9 + deadline_s).act is Act.FAIL, "nobody ends it"
    freed = see(3, 1, proven=0, freed_by=LATE)
    assert decide(rules, MOVING, freed, LATE + deadline_s - 1).act is Act.WAIT
    assert decide(rules, MOVING, freed, LATE + deadline_s).act is Act.FAIL


def test_no_deadline_runs_while_the_controller_waits_for_its_own_min_ready_seconds() -> None:
    """A StatefulSet's controller takes the next replica only then, and a Deployment's does so on its way back."""
    rules, deadline_s, later = Rules(strategy=Strategy(max_surge=0, max_unavailable=1)), 600.0, LATE + 9
    forward = see(2, 2, requested=(1, 3), numbered=True, available_by=later)
    back = see(2, 2, requested=(2, 0), template="v0", engaged=False, available_by=later)
    for state, seen, acts in ((MOVING, forward, Act.FAIL), (BACK, back, Act.ALARM)):
        found = decide(rules, state, seen, LATE)
        assert (found.act, found.wake_at) == (Act.WAIT, later + deadline_s), state.goal
        expected = "the target's controller to count the latest ready replica as available, 9 s more (minReadySeconds)"
        assert found.why == expected
        assert decide(rules, state, seen, later + deadline_s).act is acts
    assert "minReadySeconds" not in decide(rules, BACK, back.model_copy(update={"new": Side()}), LATE).why


def test_old_replicas_come_back_at_once_where_the_new_deployment_is_deleted() -> None:
    """Step by step, the new side alone would take several load times to make the floor good."""
    deleted = see(1, 0, home=Counts(4, 0), template="")
    found = decide(RULES, MOVING, deleted, NOW)
    assert (found.act, found.counts) == (Act.SCALE, (4, 0)), found
    assert "only 1 of 4 required replicas are ready" in found.why
    assert decide(RULES, START, see(4, 0, home=Counts(4, 0), template="", engaged=False), NOW).counts == (4, 1)


def test_old_replicas_that_are_not_ready_either_are_told() -> None:
    """What both versions lack may be a dependency of both: a person looks there too."""
    late = decide(RULES, MOVING, see(4, 1, ready=1, proven=0), LATE)
    assert late.act is Act.FAIL
    assert late.why.endswith("(no progress for 600 s; 3 of 4 old replicas are not ready either)")
    alone = decide(RULES, MOVING, see(4, 1, proven=0), LATE)
    assert alone.why.endswith("(no progress for 600 s)")


def test_what_may_still_come_is_waited_for_until_it_is_hopeless() -> None:
    """The decision is made again at that moment, long before the deadline."""
    problem = Problem(cause=Cause.CONFIGURATION, message="no such secret", hopeless=True, hopeless_from=NOW + 20)
    seen = see(4, 1, proven=0, problem=problem)
    waits = decide(RULES, MOVING, seen, NOW)
    assert (waits.act, waits.wake_at) == (Act.WAIT, NOW + 20)
    assert decide(RULES, MOVING, seen, NOW + 20).act is Act.FAIL
    # Who resumes may just have created it, and its kubelet has not tried again since.
    resumed = MOVING.but(progress_at=NOW + 30)
    waits = decide(RULES, resumed, seen, NOW + 30)
    assert (waits.act, waits.wake_at) == (Act.WAIT, NOW + 30 + APPEARS_S)
    assert decide(RULES, resumed, seen, NOW + 30 + APPEARS_S).act is Act.FAIL


ASLEEP = State(
    owner="us", baseline=Version(template="v0"), wanted=Version(template="v1"), claimed=True, asleep=True,
    progress_at=NOW,
)  # fmt: skip
AT_0 = see(0, 0, replicas=0)


@pytest.mark.parametrize(
    ("state", "seen", "act"),
    [
        pytest.param(ASLEEP.but(asleep=False), AT_0, Act.SLEEP, id="scaled-to-0"),
        pytest.param(ASLEEP, see(4, 0), Act.WAKE, id="has-replicas-again"),
        pytest.param(ASLEEP, AT_0, Act.UNDO, id="what-comes-back-is-the-baseline"),
        pytest.param(ASLEEP, see(0, 0, replicas=0, template="v0"), Act.WAIT, id="still-0"),
        pytest.param(ASLEEP, see(1, 0, replicas=0), Act.WAIT, id="its-replicas-go"),
        pytest.param(ASLEEP, AT_0.model_copy(update={"pinned": True}), Act.WAIT, id="its-controller-is-behind"),
        pytest.param(ASLEEP, AT_0.model_copy(update={"autonomous": True}), Act.WAIT, id="its-own-controller-rolls"),
        pytest.param(ASLEEP, AT_0.model_copy(update={"home": Counts(4, 0)}), Act.WAIT, id="a-pair"),
    ],
)
def test_a_target_of_0_replicas_sleeps(state: State, seen: Observation, act: Act) -> None:
    assert decide(Rules(), state, seen, NOW).act is act


def test_no_gate_fails_a_target_of_0_replicas() -> None:
    """Nobody can answer it then. It begins anew with the first replicas after that."""
    rules = Rules.model_validate({"gates": [{"name": "ours", "webhook": {"name": "ours"}, "deadline": "60s"}]})
    opened = Tally(gate="ours", opened=NOW, sitting=0, since=NOW)
    state = ASLEEP.but(asleep=False, tallies=(opened,))
    seen = see(0, 0, replicas=0, template="v0")
    asleep = applied(rules, state, seen, decide(rules, state, seen, NOW), NOW)
    assert decide(rules, asleep, seen, NOW + 60).act is Act.WAIT and not due(rules, asleep, NOW + 60)
    seen = see(0, 4)
    awake = applied(rules, asleep, seen, decide(rules, asleep, seen, NOW + 90), NOW + 90)
    assert decide(rules, awake, seen, NOW + 90).gates == ("ours",)


@pytest.mark.parametrize(("new", "complete"), [(4, True), (5, False)])
def test_a_pair_is_complete_with_exactly_the_new_replicas_of_its_end(new: int, complete: bool) -> None:
    state = State(owner="us", wanted=Version(template="v1"), claimed=True, progress_at=NOW)
    found = decide(Rules(), state, see(0, new, home=Counts(4, 0)), NOW).act
    assert (found is Act.VERIFY) is complete, found


NO = Written(done=False, why="the controller is still scaling")


def test_every_write_backs_off() -> None:
    """A write that is refused or has no effect is the same write the next time, whatever it writes."""
    for act in WRITTEN:
        decision = Decision(act=act, why="x", counts=Counts(3, 1), replicas=9, share=10)
        assert repeatable(see(3, 1), decision), act


@pytest.mark.parametrize("lost", [False, True])
def test_what_backs_off_beside_the_rollout_delays_nothing(lost: bool) -> None:
    """A request that cannot be written now is tried again later; meanwhile old replicas come back, and others move."""
    seen = see(3, 1, ready=2 if lost else 3, proven=1, lost_since=NOW)
    state = MOVING.but(resize=9)
    for _ in range(2):
        decision = decide(RULES, state, seen, NOW)
        assert decision.act is Act.RESIZE
        state = applied(RULES, state, seen, decision, NOW, NO)
    assert decide(RULES, state, seen, NOW + 1).act is Act.SCALE
    waits = decide(RULES, state.but(paused="x"), see(3, 1, ready=3, proven=1), NOW + 1)
    assert (waits.act, waits.wake_at) == (Act.WAIT, NOW + 2)
    assert decide(RULES, state, seen, NOW + 2).act is Act.RESIZE


def test_a_refused_request_ends_at_a_person_and_holds_no_way_back() -> None:
    """The API server refuses `segue scale`: it is not tried again, and the reason says what to do."""
    for begun in (MOVING, BACK):
        state = begun.but(resize=9)
        seen = see(2, 3, engaged=False, template="v0") if begun is BACK else see(3, 1, ready=3)
        asks = decide(RULES, state, seen, NOW)
        assert asks.act is Act.RESIZE
        state = denied(state, seen, asks, "Refused: at most 6", NOW)
        assert state.resize is None and state.log[-1].what in {"scale refused", "failed"}
        assert decide(RULES, state, seen, NOW).act is Act.WAIT
        assert (state.unresolved is None) is (begun is BACK) and not state.needs_human
    held = denied(MOVING.but(resize=9), see(3, 1), asks, "Refused: at most 6", NOW).unresolved
    assert held is not None and "at most 6; run `segue scale` with a number that is allowed" in held.message


def test_a_refused_write_is_tried_ever_less_often() -> None:
    """On the way back nothing else may be done, so the same write is tried for ever, but at most once a minute."""
    state, seen, now, tries = BACK, see(3, 1, ready=3), NOW, list[float]()
    while now < NOW + 600:
        decision = decide(RULES, state, seen, now)
        if decision.act is Act.UNDO:
            tries.append(now)
            state = denied(state, seen, decision, f"Refused: request {now}", now)
            assert state.needs_human
            continue
        assert decision.act is Act.WAIT and decision.wake_at is not None
        now = decision.wake_at
    assert len(tries) <= 16 and tries[-1] - tries[-2] >= 60


@pytest.mark.parametrize(("ready_at", "acts_at"), [(NOW - 60, NOW + 16), (NOW + 1, NOW + 5), (NOW + 10, NOW + 10)])
def test_a_refused_write_does_not_wait_long_after_a_replica_became_ready(ready_at: float, acts_at: float) -> None:
    """Where pods are evicted all the time, too few are ready at each write: then the last wait was as long as they."""
    state, seen = MOVING, see(3, 1, ready=3)
    decision = decide(RULES, state, seen, NOW)
    for _ in range(5):
        state = applied(RULES, state, seen, decision, NOW, Written(done=False, why="under the floor"))
    came = seen.model_copy(update={"pods": Pods(old=(Replica("chat-0", "v0", ready_since=ready_at),))})
    assert ready_at > NOW + 5 or decide(RULES, state, came, acts_at - 0.1).act is Act.WAIT
    assert decide(RULES, state, came, acts_at).act is Act.SCALE


def test_a_controller_that_somebody_resumes_again_and_again_ends_at_a_person() -> None:
    """Pausing it has no effect: the rollout says so and holds, and pauses it ever less often."""
    state, now, acts = MOVING, NOW, list[Act]()
    seen = see(3, 2, ready=3, requested=(3, 2), unpaused=True)
    while now < NOW + 500:
        decision = decide(RULES, state, seen, now)
        acts.append(decision.act)
        if decision.act is not Act.WAIT:
            state = applied(RULES, state, seen, decision, now, Written(done=True, writes=1, mark=Mark(template="v1")))
        now = max(now + 1, decision.wake_at or 0) if decision.act is Act.WAIT else now
    assert acts.count(Act.FAIL) == 1 and state.unresolved is not None and "have no effect" in state.unresolved.message
    assert acts.count(Act.PAUSE_CONTROLLER) <= 14


def test_a_deployment_whose_replicasets_were_deleted_goes_back() -> None:
    """Its paused controller creates none; the way back makes it create the old ones, also while the rollout waits."""
    for state in (MOVING, ASKED, MOVING.but(paused="x")):
        decision = decide(RULES, state, see(0, 0, requested=(0, 0), emptied=True), NOW)
        assert decision.act is Act.FAIL and decision.rolls_back is None
        assert "deleted its ReplicaSets" in decision.why
    scaled_up_again = see(0, 0, requested=(0, 0))
    assert decide(RULES, MOVING, scaled_up_again, NOW).act is not Act.FAIL


def test_a_request_that_could_not_be_written_is_named_at_the_end() -> None:
    """The rollout does not wait for it, and the report does not conceal it."""
    ended = MOVING.but(resize=9).after_finish(1, NOW)
    assert [(each.what, each.detail) for each in ended.log[-2:]] == [
        ("warning", "the target is not scaled to 9 replicas, as requested"), ("Completed", ""),
    ]  # fmt: skip
