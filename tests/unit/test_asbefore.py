"""What was not ready before a rollout: not required of the new version, nor of a rollback, and forgotten once it is."""

from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from activities.levers.deployment.patches import own_budget
from activities.levers.ownership import refuse_outdated
from segue.as_before import as_before, for_way_back, is_undone, with_ready
from segue.budget import resolve_budget
from segue.contract import WriteInput
from segue.decide import decide
from segue.decision import Act, Decision
from segue.errors import Stale
from segue.gates import Result
from segue.gates.readiness import judge_readiness
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Routed, Side, Version
from segue.replica import ContainerFacts, Replica
from segue.spec import Readiness, Rules, Strategy
from segue.spec.strategy import Order, Way
from segue.spec.target import DeploymentTarget
from segue.spec.traffic import ByService
from segue.state import Before, Goal, Outcome, Reached, State, requested
from segue.transition import applied

NOW, DEADLINE_S = 1_000.0, 60
LATE = NOW + DEADLINE_S
RULES = Rules(
    strategy=Strategy(max_surge=1, max_unavailable=0), readiness=Readiness(deadline=timedelta(seconds=DEADLINE_S))
)
MOVING = State(
    owner="us", baseline=Version(template="v0"), wanted=Version(template="v1"), claimed=True, progress_at=NOW,
    before=Before(replicas=4, ready=3),
)  # fmt: skip
LOWERED = MOVING.after_lower_floor("why", NOW)
BACK = MOVING.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)
VERIFIED = MOVING.but(verified=True)


def see(old: tuple[int, int], new: tuple[int, int], **more: object) -> Observation:
    """Each side as (total, ready), held as it is; all ready ones are proven."""
    sides = {name: Side(total=t, ready=r, proven=r) for name, (t, r) in (("old", old), ("new", new))}
    given = {"replicas": 4, "template": "v1", "engaged": True, "owner": "us", "progress_at": NOW, **more}
    return Observation.model_validate({**sides, "requested": Counts(old[0], new[0]), **given})


@pytest.mark.parametrize(
    ("before", "goal", "replicas", "floor"),
    [
        pytest.param(None, Goal.FORWARD, 4, 4, id="not-known"),
        pytest.param(Before(replicas=4, ready=4), Goal.FORWARD, 4, 4, id="whole"),
        pytest.param(Before(replicas=4, ready=3), Goal.FORWARD, 4, 3, id="three-of-four"),
        pytest.param(Before(replicas=4, ready=3, reached=4), Goal.FORWARD, 4, 4, id="all-were-ready-since"),
        pytest.param(Before(replicas=4, ready=3, reached=4), Goal.BACK, 4, 3, id="the-old-ones-never-were"),
        pytest.param(Before(replicas=4, ready=3, reached=4, lowered=True), Goal.FORWARD, 4, 3, id="no-progress-since"),
        pytest.param(Before(replicas=4, ready=3, starting=1), Goal.FORWARD, 4, 3, id="one-was-starting"),
        pytest.param(Before(replicas=4, ready=2, starting=1), Goal.BACK, 4, 3, id="back-and-one-was-starting"),
        pytest.param(Before(replicas=4, ready=2, starting=1, lowered=True), Goal.BACK, 4, 2, id="without-progress"),
        pytest.param(Before(replicas=4, ready=4, starting=1), Goal.BACK, 4, 4, id="it-is-ready-since"),
        pytest.param(Before(replicas=4, ready=3), Goal.FORWARD, 3, 3, id="fewer-replicas-now"),
        pytest.param(Before(replicas=3, ready=1), Goal.BACK, 5, 1, id="more-replicas-now"),
        pytest.param(Before(replicas=4, ready=0), Goal.FORWARD, 4, 0, id="nothing-was-ready"),
        pytest.param(Before(replicas=1, ready=0), Goal.FORWARD, 1, 0, id="the-only-one-was-not-ready"),
    ],
)
def test_the_floor_counts_from_what_was_ready(before: Before | None, goal: Goal, replicas: int, floor: int) -> None:
    """The surge and the step stay what they are."""
    relaxed = as_before(RULES, MOVING.but(before=before, goal=goal), replicas)
    budget = resolve_budget(relaxed.strategy, replicas)
    assert (budget.floor, budget.surge, budget.step) == (floor, 1, 1)


@pytest.mark.parametrize("before", [None, Before(replicas=4, ready=3), Before(replicas=4, ready=0)])
@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(),
        Strategy(max_unavailable="25%"),
        Strategy(order=Order.SCALE_IN_PRIORITY, step=2),
        Strategy(type=Way.BLUE_GREEN, traffic=ByService(service="chat")),
    ],
    ids=lambda strategy: f"{strategy.type} {strategy.order}",
)
def test_a_write_of_any_strategy_can_be_read(strategy: Strategy, before: Before | None) -> None:
    """Rules with a lower floor would not be valid for blueGreen: no attempt of the write could begin."""
    state, move = MOVING.but(before=before), Decision(act=Act.SCALE, why="why", counts=Counts(3, 1))
    rules = RULES.model_copy(update={"strategy": strategy})
    sent = WriteInput(target=DeploymentTarget(name="chat"), rules=rules, state=state, decision=move, replicas=4)
    read = WriteInput.model_validate_json(sent.model_dump_json(by_alias=True))
    assert read == sent
    assert read.lowered.rules == as_before(rules, state, 4)
    assert read.lowered.lowered == read.lowered


@pytest.mark.parametrize("reached", range(5))
@pytest.mark.parametrize("ready", range(5))
def test_a_release_goes_back_by_the_rules_of_a_rollback(ready: int, reached: int) -> None:
    """However many new replicas became ready in between; a release knows only what the latest move saved."""
    forward = MOVING.but(before=Before(replicas=4, ready=ready, reached=reached))
    saved = for_way_back(as_before(RULES, forward, 4), forward, 4)
    lowest = forward.but(goal=Goal.BACK).after_lower_floor("why", NOW)
    back = as_before(RULES, lowest, 4)
    assert resolve_budget(saved.strategy, 4) == resolve_budget(back.strategy, 4)
    assert for_way_back(back, lowest, 4) == back
    strict = lowest.but(before=Before(replicas=4, ready=ready, reached=reached, starting=1))
    saved = for_way_back(as_before(RULES, strict, 4), strict, 4)
    assert resolve_budget(saved.strategy, 4) == resolve_budget(back.strategy, 4)


@pytest.mark.parametrize("goal", list(Goal))
def test_a_surge_in_percent_follows_another_number_of_replicas(goal: Goal) -> None:
    """A resize uses the rules that were relaxed for the present R: at R=2, half of 12 would be over the ceiling."""
    rules = RULES.model_copy(update={"strategy": Strategy(max_surge="50%", max_unavailable=0)})
    relaxed = as_before(rules, MOVING.but(before=Before(replicas=12, ready=8), goal=goal), 12).strategy
    assert (resolve_budget(relaxed, 12).ceiling, resolve_budget(relaxed, 2).ceiling) == (18, 3)
    assert (resolve_budget(relaxed, 12).floor, resolve_budget(relaxed, 12).step) == (8, 6)


def test_what_becomes_ready_is_asked_for_from_then_on() -> None:
    """The way back asks for old replicas that were ready once; the floor for what both sides had together."""
    found = with_ready(MOVING, see((3, 3), (1, 1))).before
    assert found == Before(replicas=4, ready=3, reached=4)
    assert with_ready(MOVING, see((4, 4), (0, 0))).before == Before(replicas=4, ready=4, reached=4)
    assert with_ready(MOVING, see((3, 2), (1, 0))).before == Before(replicas=4, ready=3, reached=2)


@pytest.mark.parametrize(
    ("state", "seen", "outdated"),
    [
        pytest.param(MOVING, see((4, 3), (0, 0)), False, id="as-before"),
        pytest.param(MOVING, see((4, 4), (0, 0)), True, id="another-old-one-is-ready"),
        pytest.param(MOVING, see((4, 3), (1, 1)), True, id="a-new-one-is-ready"),
        pytest.param(BACK, see((4, 3), (1, 1)), False, id="back-the-new-ones-do-not-count"),
        pytest.param(BACK, see((4, 4), (1, 1)), True, id="back-another-old-one-is-ready"),
        pytest.param(MOVING.but(before=None), see((4, 4), (0, 0)), False, id="all-were-ready-before"),
    ],
)
def test_a_move_is_outdated_if_more_replicas_became_ready(state: State, seen: Observation, outdated: bool) -> None:
    """It was decided with a floor that is too low now; a move without counts has none."""
    move = Decision(act=Act.SCALE, why="why", counts=Counts(3, 1))
    request = WriteInput(target=DeploymentTarget(name="chat"), rules=RULES, state=state, decision=move)
    with pytest.raises(Stale, match="more replicas are ready") if outdated else nullcontext():
        refuse_outdated(request, seen)
    refuse_outdated(request.model_copy(update={"decision": Decision(act=Act.FINISH, why="why")}), seen)


def test_added_replicas_do_not_stand_for_those_that_were_not_ready() -> None:
    """Of 4, 2 were not ready; at R=8 the other 6 are ready, and the 2 still need not be."""
    state = with_ready(MOVING.but(before=Before(replicas=4, ready=2)), see((8, 6), (0, 0), replicas=8))
    assert state.before == Before(replicas=8, ready=6, reached=6)
    assert state.lacking(8) == 2


def test_numbered_replicas_that_a_smaller_r_removes_may_be_the_ready_ones() -> None:
    """Of 4, the lowest 2 were not ready; R=3 removes a ready one. Others remove unready ones first."""
    state = MOVING.but(before=Before(replicas=4, ready=2))
    assert with_ready(state, see((3, 1), (0, 0), replicas=3, numbered=True)).lacking(3) == 2
    assert with_ready(state, see((3, 2), (0, 0), replicas=3)).lacking(3) == 1
    assert with_ready(state, see((0, 0), (0, 0), replicas=0)) == state, "asleep"


SCALED = Foreign(who="somebody", what="the replicas", template="v1")


@pytest.mark.parametrize(
    ("before", "seen", "expected"),
    [
        pytest.param(
            Before(replicas=1, ready=0),
            see((1, 1), (0, 0), replicas=1),
            Before(replicas=1, ready=1, reached=1),
            id="one-replica",
        ),
        pytest.param(
            Before(replicas=4, ready=1, reached=1),
            see((2, 0), (0, 0), replicas=2, numbered=True),
            Before(replicas=2, ready=0, shrunk=True),
            id="the-only-ready-number-may-go",
        ),
        pytest.param(
            Before(replicas=4, ready=0, mixed=True),
            see((4, 2), (0, 0)),
            Before(replicas=4, ready=0, reached=2, mixed=True),
            id="superseded-ones-are-no-baseline",
        ),
        pytest.param(
            Before(replicas=4, ready=2, reached=4),
            see((4, 2), (0, 0)),
            Before(replicas=4, ready=2, reached=4),
            id="what-was-reached-and-lost-is-asked-for",
        ),
        pytest.param(
            Before(replicas=5, ready=3),
            see((11, 5), (1, 1), replicas=5, home=Counts(5, 0), foreign=SCALED),
            Before(replicas=5, ready=3),
            id="the-ready-ones-may-be-those-that-somebody-added",
        ),
        pytest.param(
            Before(replicas=5, ready=3),
            see((5, 5), (0, 0), replicas=5, home=Counts(5, 0), foreign=SCALED),
            Before(replicas=5, ready=5, reached=5),
            id="somebody-changed-something-else",
        ),
        pytest.param(
            Before(replicas=5, ready=3),
            see((6, 6), (0, 0), replicas=5, home=Counts(5, 0), foreign=SCALED),
            Before(replicas=5, ready=5, reached=5),
            id="all-are-ready-whoever-added-one",
        ),
        pytest.param(
            Before(replicas=4, ready=4),
            see((6, 4), (0, 0), replicas=6),
            Before(replicas=4, ready=4),
            id="all-were-ready",
        ),
        pytest.param(
            Before(replicas=4, ready=3),
            see((2, 2), (1, 1), replicas=3),
            Before(replicas=3, ready=3, reached=3, shrunk=True),
            id="no-unready-old-one-can-stay-where-all-are-ready",
        ),
    ],
)
def test_what_is_kept_of_the_time_before(before: Before, seen: Observation, expected: Before) -> None:
    assert with_ready(MOVING.but(before=before), seen).before == expected


def test_rules_stay_as_written_if_all_were_ready() -> None:
    """A number would become a percentage for nothing."""
    assert as_before(RULES, MOVING.but(before=Before(replicas=4, ready=4)), 4) is RULES
    assert as_before(RULES, MOVING.but(before=Before(replicas=4, ready=0)), 0) is RULES, "scaled to nothing"


FEWER = see((9, 8), (0, 0), replicas=9)


@pytest.mark.parametrize(
    ("before", "seen", "goal", "lacking"),
    [
        pytest.param(Before(replicas=12, ready=11), FEWER, Goal.FORWARD, 1, id="the-one-stayed-and-others-went"),
        pytest.param(
            Before(replicas=12, ready=11, mixed=True),
            see((19, 11), (0, 0), replicas=9),
            Goal.FORWARD,
            1,
            id="beside-superseded-ones",
        ),
        pytest.param(
            Before(replicas=12, ready=11), see((12, 11), (0, 0), replicas=9), Goal.FORWARD, 0, id="the-one-goes"
        ),
        pytest.param(
            Before(replicas=12, ready=11),
            see((9, 4), (0, 0), replicas=9),
            Goal.FORWARD,
            1,
            id="what-was-lost-is-asked-for",
        ),
        pytest.param(
            Before(replicas=12, ready=2), see((4, 2), (0, 0), replicas=4), Goal.FORWARD, 2, id="ready-ones-stay"
        ),
        pytest.param(Before(replicas=12, ready=6), see((2, 0), (2, 2), replicas=2), Goal.FORWARD, 1, id="at-least-one"),
        pytest.param(
            Before(replicas=12, ready=0), see((4, 0), (0, 0), replicas=4), Goal.FORWARD, 4, id="none-was-ready"
        ),
        pytest.param(Before(replicas=12, ready=11), FEWER, Goal.BACK, 0, id="on-the-way-back-the-others-are-starting"),
    ],
)
def test_those_that_were_not_ready_may_stay_when_r_drops(
    before: Before, seen: Observation, goal: Goal, lacking: int
) -> None:
    """If others are not ready at a drop of R, these can be the ones that go (seed 75385 of the simulation)."""
    state = MOVING.but(goal=goal, before=before)
    assert with_ready(state, seen).lacking(seen.replicas) == lacking


def test_a_drop_of_r_counts_once() -> None:
    """What is ready after the drop is to be ready from then on."""
    state = MOVING.but(before=Before(replicas=12, ready=11, reached=12))
    dropped = with_ready(state, FEWER)
    assert dropped.before == Before(replicas=9, ready=8, reached=8, shrunk=True)
    assert with_ready(dropped, see((9, 7), (0, 0), replicas=9)) == dropped
    assert with_ready(dropped, see((9, 9), (0, 0), replicas=9)).lacking(9) == 0


@pytest.mark.parametrize(
    ("fewer", "more"),
    [
        pytest.param(see((4, 4), (1, 1), replicas=5), see((8, 6), (1, 1), replicas=9), id="any-may-go"),
        pytest.param(
            see((5, 5), (0, 0), replicas=5, numbered=True),
            see((9, 7), (0, 0), replicas=9, numbered=True),
            id="numbered",
        ),
        pytest.param(
            see((5, 5), (0, 0), replicas=5, home=Counts(5, 0)),
            see((9, 7), (0, 0), replicas=9, home=Counts(9, 0)),
            id="a-pair-that-is-whole-meanwhile",
        ),
    ],
)
def test_what_was_not_ready_may_return_when_r_rises_again(fewer: Observation, more: Observation) -> None:
    """R falls and rises before the controller removes the 2 unready ones of 11 (simulation, seed 4032064)."""
    state = with_ready(MOVING.but(before=Before(replicas=11, ready=9)), fewer)
    assert state.lacking(5) == 0
    risen = with_ready(state, more)
    assert risen.lacking(9) >= 2, "the rollback need not wait for them"
    assert risen.unreached(9) == 2, "7 are ready together, and these must stay ready"
    assert with_ready(risen, see((9, 9), (0, 0), replicas=9)).lacking(9) == 0


def test_superseded_replicas_do_not_stand_for_the_baseline() -> None:
    """After a retarget the old side holds v1 too: only a rollback shows how much of the baseline is ready."""
    state = MOVING.but(before=Before(replicas=4, ready=1)).after_retarget(Version(template="v2"), NOW)
    forward = with_ready(state, see((4, 4), (0, 0)))
    assert forward.before == Before(replicas=4, ready=1, reached=4, mixed=True)
    back = forward.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)
    assert with_ready(back, see((4, 2), (2, 2))).lacking(4) == 2
    pair = with_ready(state, see((4, 4), (0, 0), home=Counts(4, 0)))
    assert pair.lacking(4) == 0, "the old side of a pair is only the baseline"


def test_a_pair_goes_back_to_a_baseline_that_never_was_ready() -> None:
    """Nothing is waited for: the new replicas go at once."""
    state = BACK.but(before=Before(replicas=4, ready=0))
    decision = decide(RULES, state, see((4, 0), (1, 1), home=Counts(4, 0)), NOW)
    assert (decision.act, decision.counts) == (Act.UNDO, Counts(4, 0))
    some = decide(RULES, BACK, see((4, 0), (1, 1), home=Counts(4, 0)), NOW)
    assert some.act is Act.WAIT, "an old one that was ready comes first"


LOST = Problem(cause=Cause.UNSCHEDULABLE, message="no place")


@pytest.mark.parametrize(
    ("state", "seen", "now", "act"),
    [
        pytest.param(BACK, see((4, 3), (0, 0), template="v0", engaged=False), NOW, Act.FINISH, id="back-as-before"),
        pytest.param(BACK, see((4, 2), (0, 0), template="v0", engaged=False), NOW, Act.WAIT, id="back-with-less"),
        pytest.param(BACK.but(before=None), see((4, 3), (0, 0), template="v0", engaged=False), LATE, Act.ALARM,
                     id="back-not-known"),
        pytest.param(BACK, see((3, 2), (0, 0), template="v0", engaged=False, replicas=3), NOW, Act.WAIT,
                     id="back-with-less-of-fewer"),
        pytest.param(BACK, see((3, 2), (0, 0), template="v0", engaged=False, replicas=3), LATE, Act.FINISH,
                     id="back-with-no-more-unready-than-before"),
        pytest.param(BACK, see((3, 1), (0, 0), template="v0", engaged=False, replicas=3), LATE, Act.ALARM,
                     id="back-with-more-unready-than-before"),
        pytest.param(BACK, see((3, 2), (1, 1), template="v0", engaged=False, replicas=3), LATE, Act.ALARM,
                     id="back-with-a-new-one-left"),
        pytest.param(BACK, see((1, 0), (0, 0), template="v0", engaged=False, replicas=1), LATE, Act.ALARM,
                     id="back-with-none"),
        pytest.param(BACK, see((3, 2), (0, 0), home=Counts(3, 0), template="", replicas=3), LATE, Act.FINISH,
                     id="a-pair-back-with-no-more-unready"),
        pytest.param(BACK, see((4, 3), (0, 0), home=Counts(4, 0), template=""), NOW, Act.FINISH, id="a-pair-back"),
        pytest.param(VERIFIED, see((0, 0), (4, 3)), NOW, Act.WAIT, id="the-fourth-has-time"),
        pytest.param(VERIFIED, see((0, 0), (4, 3)), LATE, Act.FINISH, id="the-fourth-was-not-ready-before"),
        pytest.param(VERIFIED, see((0, 0), (4, 3), unplaced=1, unplaced_since=NOW - 9), NOW, Act.FINISH,
                     id="the-fourth-has-no-place"),
        pytest.param(VERIFIED, see((0, 0), (4, 2)), LATE, Act.SCALE, id="old-ones-come-back-first"),
        pytest.param(VERIFIED.but(before=Before(replicas=4, ready=0)), see((0, 0), (4, 0)), LATE, Act.FAIL,
                     id="at-least-one"),
        pytest.param(VERIFIED.but(before=Before(replicas=4, ready=1)), see((0, 0), (4, 1)), LATE, Act.FINISH,
                     id="leader-election"),
    ],
)  # fmt: skip
def test_the_end_is_as_it_was_before(state: State, seen: Observation, now: float, act: Act) -> None:
    decision = decide(RULES, state, seen, now)
    assert decision.act is act, decision


BLUE_GREEN = {"type": "blueGreen", "traffic": {"service": "chat"}, "retain": "0s"}


@pytest.mark.parametrize(
    ("written", "seen", "act", "counts"),
    [
        pytest.param({"maxSurge": 1}, see((1, 1), (4, 3)), Act.SCALE, (0, 4), id="both-sides-were-ready-together"),
        pytest.param({"maxSurge": 1, "pace": "exact"}, see((2, 2), (3, 2)), Act.SCALE, (1, 4), id="the-exact-pace"),
        pytest.param({"step": 1, "maxSurge": 2}, see((3, 3), (2, 1)), Act.SCALE, (2, 3), id="the-step"),
        pytest.param(
            {"maxSurge": 1, "waypoints": [{"at": 3}]}, see((2, 2), (2, 1)), Act.SCALE, (2, 3), id="a-waypoint"
        ),
        pytest.param(BLUE_GREEN, see((4, 3), (4, 3), routed=Routed(share=0)), Act.ROUTE, None, id="the-switch"),
        pytest.param(BLUE_GREEN, see((4, 3), (4, 3), routed=Routed(share=100)), Act.SCALE, (1, 4), id="the-old-side"),
    ],
)
def test_what_was_not_ready_before_stops_no_move(
    written: dict[str, Any], seen: Observation, act: Act, counts: tuple[int, int] | None
) -> None:
    """Without progress, the rollout goes on with 3 of 4. More unproven ones are the version's fault."""
    rules = RULES.model_copy(update={"strategy": Strategy.model_validate(written)})
    routed = None if seen.routed is None else seen.routed.model_copy(update={"since": 1.0})
    state = with_ready(MOVING.but(routed=routed, verified=True), seen)
    assert decide(rules, state, seen, NOW).act is Act.WAIT
    lower = decide(rules, state, seen, LATE)
    assert (lower.act, "3 of 4" in lower.why) == (Act.LOWER_FLOOR, True)
    decision = decide(rules, applied(rules, state, seen, lower, LATE), seen, LATE)
    assert (decision.act, decision.counts) == (act, counts)
    worse = seen.new.model_copy(update={"ready": seen.new.ready - 1, "proven": seen.new.proven - 1})
    assert decide(rules, state, seen.model_copy(update={"new": worse}), LATE).act in {Act.FAIL, Act.SCALE}


def test_a_rollback_after_that_asks_for_what_was_starting_again() -> None:
    before = Before(replicas=4, ready=2, starting=1)
    back = LOWERED.but(before=before).after_lower_floor("why", NOW).going_back(Outcome.ABORTED, requested("why"), NOW)
    assert back.before == before


@pytest.mark.parametrize(("new", "act"), [((2, 1), Act.WAIT), ((3, 1), Act.FAIL)])
def test_what_was_not_ready_before_is_not_lost_at_a_waypoint(new: tuple[int, int], act: Act) -> None:
    """The waypoint was reached without it."""
    rules = RULES.model_copy(update={"strategy": Strategy(max_surge=1, waypoints=[{"at": 2}])})
    state = MOVING.but(waypoint=Reached(index=0, at="2", hold_until=LATE + 3600, approved=True))
    assert decide(rules, state, see((2, 2), new, lost_since=NOW), LATE).act is act


@pytest.mark.parametrize(
    ("template", "own", "unavailable", "undone"),
    [
        pytest.param("v0", 0, 0, True, id="it-goes-back"),
        pytest.param("v0", 0, 1, False, id="with-a-higher-floor"),
        pytest.param("v1", 1, 1, False, id="not-yet"),
        pytest.param("v0", None, 0, False, id="held-though-somebody-wrote-the-baseline-back"),
    ],
)
def test_a_rollback_is_written_once(template: str, own: int | None, unavailable: int, undone: bool) -> None:
    seen = see((4, 4), (0, 0), template=template, own_unavailable=own, engaged=own is None)
    assert is_undone(seen, "v0", unavailable) is undone


YOUNG = Replica(name="chat-1", version="v0", started_at=NOW - 20, unready_since=NOW - 20)
RESTARTED = ContainerFacts(name="server", restarts=1, by_node=1)


@pytest.mark.parametrize(
    ("replica", "expected"),
    [
        pytest.param(YOUNG, True, id="it-loads"),
        pytest.param(YOUNG._replace(started_at=None, unready_since=None), True, id="created-a-moment-ago"),
        pytest.param(YOUNG._replace(unready_since=None), True, id="without-a-condition"),
        pytest.param(YOUNG._replace(ready_since=NOW - 1, unready_since=None), False, id="ready"),
        pytest.param(YOUNG._replace(unready_since=NOW - 5), False, id="it-lost-its-readiness"),
        pytest.param(YOUNG._replace(unready_since=NOW - 5, containers=(RESTARTED,)), True, id="its-node-restarted-it"),
        pytest.param(YOUNG._replace(containers=(RESTARTED._replace(by_node=0),)), False, id="it-crashed"),
        pytest.param(YOUNG._replace(containers=(ContainerFacts(name="server", waiting="ImagePullBackOff"),)), False,
                     id="no-image"),
        pytest.param(YOUNG._replace(started_at=NOW - 70, unready_since=NOW - 70), False, id="too-long"),
        pytest.param(YOUNG._replace(started_at=None, unplaced_since=NOW - 20), False, id="no-node"),
        pytest.param(YOUNG._replace(is_lost=True), False, id="its-node-is-lost"),
        pytest.param(YOUNG._replace(started_at=None, gates=("kueue",)), False, id="a-scheduling-gate"),
    ],
)  # fmt: skip
def test_a_replica_that_may_still_become_ready_is_starting(replica: Replica, expected: bool) -> None:
    assert replica.is_starting(DEADLINE_S, NOW) is expected


SINCE = BACK.but(before=Before(replicas=4, ready=3, reached=4, starting=1))
THEN = SINCE.after_lower_floor("why", NOW)
THEIRS = Foreign(who="somebody", what="the image", template="v9")
UNDER_WAY = {"template": "v0", "engaged": False}


@pytest.mark.parametrize(
    ("state", "seen", "now", "act"),
    [
        pytest.param(SINCE, see((4, 3), (1, 1), own_unavailable=0, **UNDER_WAY), NOW, Act.WAIT, id="it-may-load"),
        pytest.param(SINCE, see((4, 3), (1, 1), own_unavailable=0, **UNDER_WAY), LATE, Act.LOWER_FLOOR, id="late"),
        pytest.param(THEN, see((4, 3), (1, 1), own_unavailable=0, **UNDER_WAY), NOW, Act.UNDO, id="with-a-lower-floor"),
        pytest.param(THEN, see((4, 3), (1, 1), own_unavailable=1, **UNDER_WAY), NOW, Act.WAIT, id="it-is-written"),
        pytest.param(THEN, see((0, 0), (1, 1), replicas=0, own_unavailable=0, **UNDER_WAY), NOW, Act.WAIT, id="asleep"),
        pytest.param(THEN, see((4, 2), (1, 1), own_unavailable=1, **UNDER_WAY), LATE, Act.ALARM, id="late-again"),
        pytest.param(SINCE, see((4, 3), (0, 0), **UNDER_WAY), LATE, Act.FINISH, id="as-before"),
        pytest.param(SINCE, see((4, 3), (1, 1), home=Counts(4, 0)), NOW, Act.WAIT, id="a-pair-waits"),
        pytest.param(SINCE, see((4, 3), (1, 1), home=Counts(4, 0)), LATE, Act.LOWER_FLOOR, id="a-pair-is-late"),
        pytest.param(THEN, see((4, 3), (1, 1), home=Counts(4, 0)), NOW, Act.UNDO, id="a-pair-goes-on"),
        pytest.param(SINCE.but(foreign=THEIRS), see((4, 3), (1, 1), foreign=THEIRS, **UNDER_WAY), LATE, Act.WAIT,
                     id="somebody-elses-change-first"),
        pytest.param(BACK, see((4, 3), (1, 1), **UNDER_WAY), LATE, Act.ALARM, id="none-was-starting"),
    ],
)  # fmt: skip
def test_a_rollback_takes_what_is_ready_only_if_it_makes_no_progress(
    state: State, seen: Observation, now: float, act: Act
) -> None:
    """Of 4, 3 were ready before and one was starting: the floor is 4 until the deadline, and 3 then."""
    decision = decide(RULES, state, seen, now)
    assert decision.act is act, decision


@pytest.mark.parametrize(("ready", "added"), [(4, ""), (3, " and 3 of 4 are ready, as before the rollout")])
def test_the_end_of_a_rollback_says_what_is_not_ready(ready: int, added: str) -> None:
    decision = decide(RULES, BACK, see((4, ready), (0, 0), template="v0", engaged=False), NOW)
    assert decision.why == f"every replica runs the baseline again{added}"


def test_the_readiness_gate_asks_for_no_more() -> None:
    assert judge_readiness(RULES, see((0, 0), (4, 3)), lacking=1).result is Result.PASS
    assert judge_readiness(RULES, see((0, 0), (4, 3))).result is Result.INCONCLUSIVE


def test_what_a_rollback_may_take_follows_the_replicas() -> None:
    """4 of 12 were not ready: the number 7 would let the controller take all of 4 after somebody scaled it down."""
    rules = RULES.model_copy(update={"strategy": Strategy(max_surge=1, max_unavailable="25%")})
    relaxed = as_before(rules, MOVING.but(before=Before(replicas=12, ready=8), goal=Goal.BACK), 12)
    assert own_budget(relaxed, 12)["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": "59%"}
    assert [resolve_budget(relaxed.strategy, replicas).floor for replicas in (12, 4)] == [5, 2]
