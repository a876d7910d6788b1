"""The plan: what is shown before anything is touched, and what the rollout keeps to."""

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segue.budget import resolve_budget
from segue.contract import Prepared
from segue.decide import decide
from segue.decision import Act
from segue.errors import Refused
from segue.observation import Counts, Version
from segue.plan import Plan, make_plan, settled
from segue.planning import first_plan
from segue.spec import Change, End, Order, PairTarget, Rules, Spec, Strategy, SupervisedTarget, Waypoint
from segue.spec.target import LeaderWorkerSetTarget
from segue.state import State
from segue.units import resolve

FACTS = Path(__file__).parent.parent / "facts"
SCENARIOS = json.loads((FACTS / "gray_sequences.json").read_text())["scenarios"]

deterministic = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150
)


def rows(plan: Plan) -> list[tuple[int, int]]:
    return [(s.old, s.new) for s in plan.stages]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s["mode"] for s in SCENARIOS])
def test_each_order_passes_the_known_sequence(scenario: dict[str, Any]) -> None:
    """With a step of 2, four replicas pass the ready counts that the deployment-upgrade operator passes."""
    plan = make_plan(Strategy(order=scenario["mode"], step=scenario["step"]), scenario["start"]["origin"])
    assert rows(plan) == [tuple(pair) for pair in scenario["readySequence"]]


def test_surge_of_one_goes_one_by_one() -> None:
    """R=4, maxSurge 1, maxUnavailable 0: one comes before each that goes."""
    plan = make_plan(Strategy(max_surge=1, max_unavailable=0), 4)
    assert rows(plan) == [(4, 0), (4, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 4), (0, 4)]
    assert (plan.floor, plan.ceiling, plan.extra) == (4, 5, 1)


@pytest.mark.parametrize(
    ("waypoints", "replicas", "expected"),
    [
        pytest.param([{"at": 1}], 4, [(1, "1")], id="count"),
        pytest.param([{"at": "25%"}], 10, [(3, "25%")], id="percentage-rounds-up"),
        pytest.param([{"at": 99}], 4, [(4, "99")], id="more-than-all-is-all"),
        pytest.param([{"at": "50%"}, {"at": 1}], 4, [(1, "1"), (2, "50%")], id="nearest-first"),
        pytest.param([{"at": 2}, {"at": "50%", "approval": True}], 4, [(2, "2")], id="two-at-one-count-are-one"),
    ],
)
def test_waypoints_lie_at_their_counts(
    waypoints: list[dict[str, Any]], replicas: int, expected: list[tuple[int, str]]
) -> None:
    """A waypoint stands at the stage with exactly its number of new replicas."""
    plan = make_plan(Strategy(waypoints=waypoints), replicas)
    assert [(s.new, str(s.waypoint["at"])) for s in plan.stages if s.waypoint] == expected


def test_two_waypoints_at_one_count_hold_one_after_the_other() -> None:
    """They are shown as one, with both holds and the approval: the rollout passes each."""
    plan = make_plan(Strategy(waypoints=[{"at": 2, "hold": "30s"}, {"at": "50%", "hold": "5s", "approval": True}]), 4)
    shown = next(s.waypoint for s in plan.stages if s.waypoint)
    assert (shown["hold"], shown["approval"]) == ("35s", True)


def test_two_weights_at_one_count_are_two_stages() -> None:
    """The traffic shifts from one to the next while the replicas stay, as in the rollout."""
    route = {"route": "chat", "services": {"old": "a", "new": "b"}}
    steps = [{"at": 1, "hold": "5m"}, {"at": 1, "weight": 5, "hold": "1m"}, {"at": "25%", "weight": 25}]
    plan = make_plan(Strategy.model_validate({"maxSurge": 1, "traffic": route, "waypoints": steps}), 4)
    found = [(s.new, s.traffic, s.waypoint and (s.waypoint["hold"], s.waypoint["weight"])) for s in plan.stages[1:5]]
    assert found == [(1, 0, ("6m", 5)), (1, 5, ("0s", 25)), (1, 25, None), (1, 25, None)]


def test_an_approval_that_expires_is_in_the_plan() -> None:
    """With how long it asks, and what is taken when nobody answers."""
    plan = make_plan(Strategy(waypoints=[{"at": 2, "approval": {"expires": "1h"}}]), 4)
    shown = next(s.waypoint for s in plan.stages if s.waypoint)
    assert shown["approval"] == {"expires": "1h", "default": "reject"}


def test_a_retarget_plans_away_the_surplus_first() -> None:
    """From five old ones of two versions, with R=4, the plan never has more than the ceiling of five."""
    plan = make_plan(Strategy(max_surge=1, max_unavailable=0), 4, old=5, parent="v1")
    assert rows(plan)[0] == (5, 0)
    assert rows(plan)[-1] == (0, 4)
    assert max(map(sum, rows(plan))) <= plan.ceiling
    assert plan.parent == "v1"


def test_an_operator_makes_its_own_moves() -> None:
    """Only the first and the last stage are known; of a LeaderWorkerSet, its controller's own stages are."""
    strategy = Strategy(max_surge=0, max_unavailable=1)
    operator = SupervisedTarget(resource="InferenceService", namespace="serving", name="chat")
    groups = LeaderWorkerSetTarget(kind="LeaderWorkerSet", namespace="serving", name="chat")
    plans = {each.kind: make_plan(strategy, 2, target=each, autonomous=True) for each in (operator, groups)}
    shown = {kind: [(s.old, s.new, s.action, s.partition) for s in plan.stages] for kind, plan in plans.items()}
    assert shown == {
        "Supervised": [(2, 0, "start", None), (0, 2, "operator", None)],
        "LeaderWorkerSet": [(2, 0, "start", 0), (2, 0, "groups", 2), (1, 1, "groups", 1), (0, 2, "groups", 0)],
    }
    held = make_plan(strategy, 2, target=groups)
    assert [(s.old, s.new, s.action, s.partition) for s in held.stages] == [
        (2, 0, "start", None), (1, 1, "scaleBoth", 1), (0, 2, "scaleBoth", 0),
    ]  # fmt: skip


def test_no_replicas_are_refused() -> None:
    """There is no path from 0 to 0."""
    with pytest.raises(Refused, match=r"target\.replicas: 0: has no replicas.*; scale it to 1"):
        make_plan(Strategy(), 0)


# --- properties -----------------------------------------------------------------------------------------

amounts = st.one_of(st.integers(0, 1200), st.integers(0, 100).map(lambda p: f"{p}%"))
ZERO = {0, "0%"}


@st.composite
def ends(draw: st.DrawFn, replicas: int) -> End | None:
    count = st.one_of(st.integers(1, replicas), st.integers(1, 100).map(lambda p: f"{p}%"))
    return draw(st.one_of(st.none(), st.builds(End, old=count), st.builds(End, new=count)))


@st.composite
def strategies(draw: st.DrawFn, most: int = 1000) -> tuple[Strategy, int]:
    replicas = draw(st.integers(1, most))
    small = st.one_of(st.integers(0, max(1, replicas // 3)), amounts)
    surge, unavailable = draw(st.tuples(small, small).filter(lambda p: not (p[0] in ZERO and p[1] in ZERO)))
    places = st.one_of(st.integers(1, replicas + 2), st.integers(1, 100).map(lambda p: f"{p}%"))
    return (
        Strategy(
            order=draw(st.sampled_from(list(Order))),
            max_surge=surge,
            max_unavailable=unavailable,
            step=draw(st.one_of(st.none(), st.integers(1, replicas + 2))),
            waypoints=tuple(Waypoint(at=at) for at in draw(st.lists(places, max_size=4))),
            to=draw(ends(replicas)),
        ),
        replicas,
    )


@deterministic
@given(strategies())
@example((Strategy(max_surge=0, max_unavailable="1%"), 1000))
@example((Strategy(max_surge=1, max_unavailable=0, step=1), 1000))
def test_every_plan_keeps_to_its_rules(given_: tuple[Strategy, int]) -> None:
    """Every plan goes from all old to its end inside the budget, each row as its action says, none over a step."""
    strategy, replicas = given_
    budget = resolve_budget(strategy, replicas)
    plan = make_plan(strategy, replicas)
    assert rows(plan)[0] == (replicas, 0)
    assert rows(plan)[-1] == budget.end
    for before, after in pairwise(plan.stages):
        gone, come = before.old - after.old, after.new - before.new
        assert after.old + before.new >= budget.floor, "old ones went before new ones could serve"
        assert after.old + after.new <= budget.ceiling
        expected = {"scaleOld": (True, False), "scaleNew": (False, True), "scaleBoth": (True, True)}[after.action]
        assert (gone > 0, come > 0) == expected
        assert gone >= 0 <= come
        assert max(gone, come) <= budget.step
    at = {max(1, min(budget.end.new, resolve(w.at, replicas, round_up=True))) for w in strategy.waypoints}
    at = at if budget.end.new else set()
    assert {s.new for s in plan.stages if s.waypoint} == at
    assert sum(s.waypoint is not None for s in plan.stages) == len(at), "a waypoint is stopped at once"


@deterministic
@given(strategies())
def test_no_plan_is_longer_than_its_step_explains(given_: tuple[Strategy, int]) -> None:
    """A plan has no more moves than the pace of its step or budget and its waypoints explain."""
    strategy, replicas = given_
    budget = resolve_budget(strategy, replicas)
    pace = min(budget.step, budget.surge + budget.unavailable)
    at_most = -(-replicas // pace) + len(strategy.waypoints) + 2
    assert moves(make_plan(strategy, replicas)) <= at_most


def moves(plan: Plan) -> int:
    """Count the writes: what goes and comes in one of them stands in two rows."""
    pairs = sum(a.action == "scaleOld" and b.action == "scaleNew" for a, b in pairwise(plan.stages))
    return len(plan.stages) - 1 - pairs


def fewest_moves(strategy: Strategy, replicas: int) -> int:
    """Search every path by the rules alone: breadth first, knowing nothing of how Segue decides."""
    budget = resolve_budget(strategy, replicas)
    kept, most = budget.end
    stops = sorted({max(1, min(replicas, resolve(w.at, replicas, round_up=True))) for w in strategy.waypoints})
    first_new = strategy.order is Order.SCALE_OUT_PRIORITY and budget.surge
    frontier, seen, count = {(replicas, 0)}, {(replicas, 0)}, 0
    while (kept, most) not in frontier:
        count += 1
        found = set()
        for old, new in frontier:
            stop = min((s for s in (*stops, most) if s > new), default=most)
            for left in range(max(kept, old - budget.step), old + 1):
                if left + new < budget.floor and left < old:
                    continue
                if first_new and new == 0 and left < old:
                    continue
                for grown in range(new, min(new + budget.step, stop, budget.ceiling - left) + 1):
                    if left + grown >= replicas:
                        found.add((left, grown))
        frontier = found - seen
        seen |= found
        assert frontier, "no path"
    return count


@deterministic
@given(strategies(most=9))
def test_small_plans_are_as_short_as_any(given_: tuple[Strategy, int]) -> None:
    """No path of a small rollout has fewer moves than the plan's: a search of all paths finds none."""
    strategy, replicas = given_
    assert moves(make_plan(strategy, replicas)) == fewest_moves(strategy, replicas)


@pytest.mark.parametrize(
    ("to", "replicas", "end"),
    [
        pytest.param({"new": 2}, 4, (2, 2), id="new-count"),
        pytest.param({"new": "30%"}, 4, (2, 2), id="new-percentage-rounds-up"),
        pytest.param({"old": "30%"}, 4, (1, 3), id="old-percentage-rounds-down"),
        pytest.param({"old": 1}, 4, (1, 3), id="old-count"),
        pytest.param({"new": 9}, 4, (0, 4), id="more-than-all-is-all"),
    ],
)
def test_a_partial_end(to: dict[str, Any], replicas: int, end: tuple[int, int]) -> None:
    """The spec names one side; the other has the rest of the replicas."""
    plan = make_plan(Strategy(max_surge=1, to=End.model_validate(to)), replicas)
    assert rows(plan)[-1] == end
    assert max(map(sum, rows(plan))) <= plan.ceiling


def test_waypoints_behind_the_present_counts_are_still_to_be_passed() -> None:
    """After a retarget, or at a takeover: the rollout stops at them before it moves."""
    strategy = Strategy(max_surge=1, waypoints=[{"at": 1, "approval": True}, {"at": 2, "hold": "5s"}, {"at": 3}])
    stops = [(s.old, s.new, s.waypoint) for s in make_plan(strategy, 4, old=2, new=2).stages if s.waypoint]
    assert stops == [
        (2, 2, {"at": 1, "hold": "5s", "approval": True}), (2, 3, {"at": 3, "hold": "0s", "approval": False}),
    ]  # fmt: skip
    state = State(owner="us", claimed=True, baseline=Version(template="v0"), wanted=Version(template="v1"))
    seen = settled(resolve_budget(strategy, 4), Counts(2, 2)).model_copy(
        update={"template": "v1", "owner": "us", "engaged": True}
    )
    decision = decide(Rules(strategy=strategy), state, seen, 0.0)
    assert (decision.act, decision.waypoint) == (Act.VERIFY, 0)


@pytest.mark.parametrize("old", [4, 9, "100%"])
def test_an_end_without_a_new_replica_is_refused(old: int | str) -> None:
    """Nothing would move, and the rollout would fail at its deadline. From other counts it is an end like any other."""
    target, change = PairTarget(old="chat-a", new="chat-b"), Change(images={"server": "chat:2"})
    spec = Spec(target=target, change=change, strategy=Strategy(max_surge=1, to=End(old=old)))
    prepared = Prepared(baseline=Version(template="v0"), wanted=Version(template="v1"), replicas=4, old=4, owner="us")
    with pytest.raises(Refused, match=r"spec\.strategy\.to\.old: .*nothing to roll; write less than 4"):
        first_plan(spec, prepared)
    left = prepared.model_copy(update={"old": 3, "new": 1})
    assert rows(first_plan(spec, left)) == [(3, 1), (4, 1), (4, 0)]


@deterministic
@given(strategies(most=60), st.data())
def test_from_anywhere_to_anywhere(given_: tuple[Strategy, int], data: st.DataObject) -> None:
    """From any counts of a pair, also when the end is behind it: inside the budget, and not longer than the way."""
    strategy, replicas = given_
    budget = resolve_budget(strategy, replicas)
    new = data.draw(st.integers(0, replicas))
    superseded = data.draw(st.booleans())
    plan = make_plan(strategy, replicas, old=replicas - new, new=new, superseded=superseded)
    assert rows(plan)[0] == (replicas - new, new)
    assert rows(plan)[-1] == budget.end
    if superseded and new:
        assert (replicas, 0) in rows(plan), "another version came before the superseded one had gone"
    for before, after in pairwise(plan.stages):
        assert after.old + after.new <= budget.ceiling
        assert min(before.old, after.old) + min(before.new, after.new) >= budget.floor
    way = 2 * replicas if superseded else replicas
    pace = min(budget.step, budget.surge + budget.unavailable)
    # Each direction may round its first and its last step.
    assert moves(plan) <= -(-way // pace) + len(strategy.waypoints) + 6


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), (1, 0), (2, 0), (1, 1), (0, 2)])
@pytest.mark.parametrize("end", [None, {"old": 1}, {"new": 1}])
def test_a_plan_ends_from_any_counts(order: Order, surge: int, unavailable: int, end: dict[str, int] | None) -> None:
    """Such as those of a target that was left in the middle and then scaled down."""
    to = None if end is None else End.model_validate(end)
    strategy = Strategy(order=order, max_surge=surge, max_unavailable=unavailable, to=to)
    for replicas, old, new in product(range(1, 4), range(6), range(6)):
        last = make_plan(strategy, replicas, old=old, new=new).stages[-1]
        assert (last.old, last.new) == resolve_budget(strategy, replicas).end
