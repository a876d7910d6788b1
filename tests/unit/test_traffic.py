"""Which share of the traffic the new side has: by its rules, by the plan, and through random lives of two sides."""

import random
from datetime import timedelta
from typing import Any

import pytest

from segue.budget import objection as budget_objection
from segue.budget import resolve_budget
from segue.contract import Written
from segue.decide import decide
from segue.decision import Act
from segue.errors import Refused
from segue.gates import Result, Verdict
from segue.observation import Cause, Counts, Observation, Routed, Side, Version
from segue.plan import make_plan
from segue.spec import ByRoute, ByService, Change, PairTarget, Readiness, Rules, Strategy, read_rollout
from segue.state import Goal, Outcome, Reached, State, requested
from segue.status import Status, make_status
from segue.traffic import (
    AGAIN_S,
    acceptance,
    instead_of_refused,
    is_stranded,
    leaves_new,
    must_stay,
    objection,
    objection_to_counts,
    pending_of,
    wanted_share,
)
from segue.transition import applied, judged

BY_SERVICE: dict[str, Any] = {"service": "chat", "lag": "2s"}
BY_ROUTE: dict[str, Any] = {"route": "chat", "lag": "2s", "services": {"old": "chat-old", "new": "chat-new"}}
SERVICE, ROUTE = ByService.model_validate(BY_SERVICE), ByRoute.model_validate(BY_ROUTE)
BLUE_GREEN = Strategy(type="blueGreen", traffic=SERVICE)
WEIGHED = Strategy(max_surge=1, traffic=ROUTE, waypoints=[{"at": 1, "weight": 5}, {"at": "50%", "weight": 50}])
NOW = 1_000.0


def see(old: int, new: int, share: int | None, *, ready: tuple[int, int] | None = None) -> Observation:
    """Return an observation of four replicas with so many of each side, all ready unless given otherwise."""
    old_ready, new_ready = ready or (old, new)
    return Observation(
        replicas=4,
        old=Side(total=old, ready=old_ready, proven=old_ready),
        new=Side(total=new, ready=new_ready, proven=new_ready),
        requested=Counts(old, new),
        template="v2",
        owner="us",
        engaged=True,
        progress_at=NOW,
        routed=None if share is None else Routed(share=share, version=1),
    )


# --- the spec ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"type": "blueGreen"}, "strategy.traffic: is missing: blueGreen has to switch it; write"),
        (
            {"type": "bluegreen"},
            "strategy.type: 'bluegreen': is not one of the choices; write 'rolling' or 'blueGreen'",
        ),
        ({"traffic": SERVICE}, "traffic.service: 'chat': can only be switched at once; write `type: blueGreen`"),
        ({"traffic": {"route": "chat"}}, "strategy.traffic.services: is missing; add it, or `pools` if the route's"),
        (
            {"traffic": {**BY_ROUTE, "pools": {"old": "a", "new": "b"}}},
            "strategy.traffic.pools: '...': is given beside services; keep the one that the route's backends are",
        ),
        (
            {"traffic": {"route": "chat", "pools": {"old": "a", "new": "a"}}},
            "strategy.traffic.pools.new: 'a': is the old side's InferencePool too; give each side an InferencePool of",
        ),
        ({"traffic": {"route": "chat", "pools": {"old": "a"}}}, "strategy.traffic.pools.new: is missing; add it"),
        ({"traffic": {}}, "strategy.traffic.service: is missing; add it"),
        ({"traffic": {**BY_ROUTE, "rule": -1}}, "strategy.traffic.rule: -1: is too small; write 0 or more"),
        ({"traffic": {**BY_ROUTE, "rule": 16}}, "strategy.traffic.rule: 16: is too large; write 15 or less"),
        (
            {"traffic": {**BY_ROUTE, "services": {"old": "a", "new": "a"}}},
            "strategy.traffic.services.new: 'a': is the old side's Service too; give each side a Service of its own",
        ),
        (
            {"type": "blueGreen", "traffic": {"service": "a", "preview": "a"}},
            "strategy.traffic.preview: 'a': is the Service that users reach; name another",
        ),
        ({"type": "blueGreen", "traffic": {"service": "A_"}}, "strategy.traffic.service: 'A_': is not allowed here"),
        ({"retain": "5m"}, "strategy.retain: '5m': is for blueGreen; leave it out"),
        (
            {"type": "blueGreen", "traffic": SERVICE, "retain": "721h"},
            "retain: '721h': is over 30 days; write a shorter",
        ),
        ({"type": "blueGreen", "traffic": SERVICE, "maxSurge": 1}, "strategy.maxSurge: 1: does not fit blueGreen"),
        ({"type": "blueGreen", "traffic": SERVICE, "order": "scaleInPriority"}, "'scaleInPriority': does not fit"),
        ({"waypoints": [{"at": 1, "weight": 5}]}, "waypoints[0].weight: 5: needs something that splits traffic"),
        (
            {"type": "blueGreen", "traffic": SERVICE, "waypoints": [{"at": 1}, {"at": 2, "weight": 5}]},
            "waypoints[1].weight: 5: would split what blueGreen switches at once",
        ),
        (
            {"type": "blueGreen", "traffic": {**BY_SERVICE, "lag": "11m"}},
            "traffic.lag: '11m': is over 10 minutes; write",
        ),
        ({"traffic": ROUTE, "waypoints": [{"at": 1, "weight": 101}]}, "waypoints[0].weight: 101: is too large"),
        (
            {"traffic": ROUTE},
            "strategy.traffic: '...': needs a Deployment for each side, but a Deployment is one object",
        ),
    ],
)
def test_a_wrong_strategy_is_refused(strategy: dict[str, Any], expected: str) -> None:
    """Each names the field, its value, and what to write instead."""
    spec = {"target": {"name": "chat"}, "change": {"images": {"server": "chat:2"}}, "strategy": strategy}
    document = {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "chat"}, "spec": spec}
    with pytest.raises(Refused) as refused:
        read_rollout(document)
    assert expected in str(refused.value)


def test_a_strategy_survives_the_way_through_a_history() -> None:
    """What blueGreen adds by itself is taken when it comes back from JSON."""
    for strategy in (BLUE_GREEN, WEIGHED):
        assert Strategy.model_validate_json(strategy.model_dump_json(by_alias=True)) == strategy
        assert Strategy.model_validate_json(strategy.model_dump_json()) == strategy


# --- the plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "replicas", "rows"),
    [
        (BLUE_GREEN, 4, "40@0 44@0 44@100 04@100"),
        (Strategy(type="blueGreen", traffic=SERVICE, step=2), 4, "40@0 42@0 44@0 44@100 24@100 04@100"),
        (Strategy(type="blueGreen", traffic=ROUTE), 1, "10@0 11@0 11@100 01@100"),
        (WEIGHED, 4, "40@0 41@0 41@5 31@5 32@5 32@50 22@50 23@50 13@50 14@50 14@100 04@100"),
        (Strategy(step=2, traffic=ROUTE), 4, "40@0 42@0 22@0 24@0 24@100 04@100"),
        (Strategy(order="scaleInPriority", step=4, traffic=ROUTE), 4, "40@0 10@0 13@0 13@100 03@100 04@100"),
        (Strategy(order="scaleSimultaneously", step=2, traffic=ROUTE), 4, "40@0 22@0 22@100 04@100"),
    ],
)
def test_the_plan_shows_the_traffic(strategy: Strategy, replicas: int, rows: str) -> None:
    """Every stage says where the traffic goes: the new side gets all before the last old replicas go."""
    plan = make_plan(strategy, replicas)
    assert [f"{s.old}{s.new}@{s.traffic}" for s in plan.stages] == rows.split()


def test_blue_green_has_both_sides_whole() -> None:
    """Floor R, ceiling 2R, and the old side is retained after the switch."""
    plan = make_plan(BLUE_GREEN, 3)
    assert (plan.floor, plan.ceiling, plan.extra) == (3, 6, 3)
    assert [s.retain for s in plan.stages if s.action == "route"] == ["10m"]


def test_a_budget_without_room_for_both_sides_is_refused() -> None:
    """One replica that must go before the next can come: no traffic could ever pass."""
    with pytest.raises(Refused, match=r"maxSurge: 0: leaves no room for a replica of each side.*`maxSurge: 1`"):
        make_plan(Strategy(max_surge=0, traffic=ROUTE), 1)


def test_without_traffic_a_stage_says_nothing_of_it() -> None:
    """Where replicas alone lead it, there is no share."""
    assert {s.traffic for s in make_plan(Strategy(), 4).stages} == {None}


# --- the share --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "seen", "back", "given", "share"),
    [
        pytest.param(BLUE_GREEN, see(4, 4, 0), False, {}, 100, id="whole-and-verified"),
        pytest.param(BLUE_GREEN, see(4, 4, 0), False, {"verified": False}, 0, id="not-verified"),
        pytest.param(BLUE_GREEN, see(4, 4, 0), False, {"ahead": True}, 0, id="an-approval-is-ahead"),
        pytest.param(BLUE_GREEN, see(4, 4, 0, ready=(4, 3)), False, {}, 0, id="one-is-missing"),
        pytest.param(BLUE_GREEN, see(4, 4, 100, ready=(4, 3)), False, {}, 100, id="switched-stays"),
        pytest.param(BLUE_GREEN, see(4, 4, 100, ready=(4, 0)), False, {}, 0, id="new-side-is-lost"),
        pytest.param(BLUE_GREEN, see(4, 4, 0, ready=(0, 4)), False, {"verified": False}, 0, id="not-unverified"),
        pytest.param(BLUE_GREEN, see(4, 4, 100), True, {}, 0, id="back-at-once"),
        pytest.param(BLUE_GREEN, see(1, 4, 100), True, {}, 100, id="back-when-the-old-is-no-weaker"),
        pytest.param(BLUE_GREEN, see(4, 4, 100, ready=(1, 0)), True, {}, 0, id="one-is-better-than-none"),
        pytest.param(BLUE_GREEN, see(4, 4, 100, ready=(0, 0)), True, {}, 100, id="nothing-is-ready"),
        pytest.param(WEIGHED, see(3, 2, 5), False, {"weight": 50, "ahead": True}, 50, id="weight"),
        pytest.param(WEIGHED, see(1, 4, 50), False, {"weight": 50, "last": True}, 100, id="the-last-go"),
        pytest.param(WEIGHED, see(1, 4, 50), False, {"weight": 50, "last": True, "ahead": True}, 50, id="ahead"),
        pytest.param(WEIGHED, see(1, 3, 50, ready=(0, 3)), False, {"weight": 50}, 100, id="the-old-is-lost"),
        pytest.param(WEIGHED, see(3, 1, 5, ready=(3, 0)), False, {"weight": 5, "ahead": True}, 0, id="one-lost"),
        pytest.param(WEIGHED, see(1, 4, 50), True, {}, 0, id="weights-go-back-first"),
        pytest.param(WEIGHED, see(1, 4, 100), True, {}, 100, id="not-all-onto-one"),
    ],
)
def test_the_share(strategy: Strategy, seen: Observation, back: bool, given: dict[str, Any], share: int) -> None:
    """Each rule by its name."""
    known = {"weight": 0, "verified": True, "ahead": False, "last": False, **given}
    assert wanted_share(strategy, seen, back=back, **known) == share


@pytest.mark.parametrize(
    ("seen", "stranded"),
    [
        (see(4, 4, 100, ready=(4, 0)), True),
        (see(4, 4, 100, ready=(0, 4)), False),
        (see(4, 4, 50, ready=(0, 4)), True),
        (see(4, 4, 0, ready=(0, 4)), False),
        (see(4, 4, 50, ready=(0, 0)), False),
    ],
)
def test_what_is_stranded(seen: Observation, stranded: bool) -> None:
    """Only traffic that goes to a side without a ready replica, while the other one serves."""
    assert is_stranded(seen) is stranded


@pytest.mark.parametrize(
    ("share", "ready", "problem"),
    [
        (5, (4, 0), "5 % to the new side, which has no ready replica"),
        (0, (4, 0), ""),
        (95, (0, 4), "5 % to the old side, which has no ready replica"),
        (100, (0, 4), ""),
        (50, (4, 4), ""),
    ],
)
def test_no_write_gives_traffic_to_a_side_that_is_not_ready(share: int, ready: tuple[int, int], problem: str) -> None:
    assert objection(WEIGHED, see(4, 4, 0, ready=ready), share) == problem


def test_what_leaves_the_new_side() -> None:
    """A rollback; and after a retarget, the superseded version, while it has replicas."""
    forward = State(owner="us", wanted=Version(template="v3"))
    assert leaves_new(forward, see(4, 1, 0)) and not leaves_new(forward, see(4, 0, 0))
    assert not leaves_new(forward.but(wanted=Version(template="v2")), see(4, 1, 0))
    assert leaves_new(forward.but(goal=Goal.BACK), see(4, 0, 0))


def test_all_traffic_needs_no_old_replica() -> None:
    """Of a refused share, the one that was accepted before comes back: all of it, though no old replica is ready."""
    refused = see(4, 4, 50, ready=(0, 4)).model_copy(update={"routed": Routed(share=50, refusal="gateway: no")})
    state = State(owner="us", routed=Routed(share=50, accepted=100))
    assert instead_of_refused(state, refused, 50, NOW) == 100
    assert instead_of_refused(state.but(routed=Routed(share=50, accepted=0)), refused, 50, NOW) == 50


def test_what_has_traffic_is_must_stay() -> None:
    """The old side is whole until it was retained; one of it stays while it has weight; the same back, for the new."""
    state = OURS.but(routed=Routed(share=100, since=NOW))
    assert must_stay(BLUE_GREEN, state, see(4, 4, 0), NOW) == 4
    assert must_stay(BLUE_GREEN, state, see(4, 4, 100), NOW + 599) == 4
    assert must_stay(BLUE_GREEN, state, see(4, 4, 100, ready=(4, 3)), NOW + 600) == 4
    assert must_stay(BLUE_GREEN, state, see(4, 4, 100), NOW + 600) == 0
    assert must_stay(BLUE_GREEN, state.but(promoted=True), see(4, 4, 100), NOW + 1) == 4, "proxies may not know yet"
    assert must_stay(BLUE_GREEN, state.but(promoted=True), see(4, 4, 100), NOW + 2) == 0
    assert must_stay(WEIGHED, state, see(1, 4, 50), NOW) == 1
    assert must_stay(WEIGHED, state, see(2, 4, 100), NOW + 1) == 2
    assert must_stay(WEIGHED, state, see(2, 4, 100), NOW + 2) == 0
    back = state.but(goal=Goal.BACK)
    assert must_stay(BLUE_GREEN, back, see(1, 4, 100), NOW) == 4
    assert must_stay(WEIGHED, back, see(1, 4, 100), NOW) == 1
    left = back.but(routed=Routed(share=0, since=NOW))
    assert must_stay(WEIGHED, left, see(1, 4, 0), NOW + 1) == 4
    assert must_stay(WEIGHED, left, see(1, 4, 0), NOW + 2) == 0
    assert must_stay(WEIGHED, back.but(routed=Routed(share=0)), see(1, 4, 0), NOW) == 0, "it never had any"


# --- the decision -----------------------------------------------------------------------------------------

OURS = State(owner="us", claimed=True, progress_at=NOW, routed=Routed(share=0, version=1, since=NOW)).but(
    wanted=State(owner="").wanted.model_copy(update={"template": "v2"})
)


def test_blue_green_is_verified_switched_retained_and_only_then_scaled() -> None:
    """One case after the other, each only when the one before is done."""
    rules = Rules(strategy=BLUE_GREEN)
    assert decide(rules, OURS, see(4, 4, 0), NOW).act is Act.VERIFY
    decision = decide(rules, OURS.but(verified=True), see(4, 4, 0), NOW)
    assert (decision.act, decision.share) == (Act.ROUTE, 100)
    switched = OURS.but(verified=True, routed=Routed(share=100, version=2, since=NOW))
    waits = decide(rules, switched, see(4, 4, 100), NOW + 1)
    assert (waits.act, waits.wake_at) == (Act.WAIT, NOW + 600)
    assert "the old side keeps its replicas for 599 s" in waits.why
    paused = decide(rules, switched.but(paused="paused by her"), see(4, 4, 100), NOW + 1)
    assert "paused by her" in paused.why, "a pause is what it waits for"
    complete = decide(rules, switched, see(0, 4, 100), NOW + 1)
    assert complete.act is Act.FINISH, "nothing is left to keep"
    after = decide(rules, switched, see(4, 4, 100), NOW + 600)
    assert (after.act, after.counts) == (Act.SCALE, (0, 4))


def test_what_leads_the_traffic_is_claimed_first() -> None:
    """As soon as the target is ours, also where nothing of it changes yet."""
    decision = decide(Rules(strategy=BLUE_GREEN), OURS.but(routed=None), see(4, 0, 0), NOW)
    assert (decision.act, decision.share) == (Act.ROUTE, 0)
    assert decide(Rules(strategy=BLUE_GREEN), OURS.but(routed=None, claimed=False), see(4, 0, 0), NOW).act is Act.SCALE


def test_paused_only_a_lost_side_moves_traffic() -> None:
    """A pause holds progress, not safety."""
    rules = Rules(strategy=WEIGHED)
    reached = Reached(index=0, at="1", hold_until=0.0, approved=True)
    paused = OURS.but(paused="lunch", waypoint=reached)
    assert decide(rules, paused, see(4, 1, 0), NOW).act is Act.WAIT
    lost = decide(rules, paused.but(routed=Routed(share=5)), see(4, 1, 5, ready=(4, 0)), NOW)
    assert (lost.act, lost.share) == (Act.ROUTE, 0)


def test_a_verified_waypoint_gets_its_weight_at_once() -> None:
    """It holds with the traffic that it is verified by."""
    reached = Reached(index=0, at="1", hold_until=NOW + 60, approved=True)
    decision = decide(Rules(strategy=WEIGHED), OURS.but(waypoint=reached), see(4, 1, 0), NOW)
    assert (decision.act, decision.share) == (Act.ROUTE, 5)
    assert "waypoint 1 is verified" in decision.why


def test_back_the_traffic_goes_before_anything_else() -> None:
    """Also where the baseline could be put back in the same moment."""
    back = OURS.but(routed=Routed(share=100, version=2)).going_back(Outcome.ABORTED, requested("no"), NOW)
    decision = decide(Rules(strategy=BLUE_GREEN), back, see(4, 4, 100), NOW)
    assert (decision.act, decision.share) == (Act.ROUTE, 0)


# --- what gateways accept -----------------------------------------------------------------------------------

GATEWAY = "gateway public (example.com/gateway)"
REFUSED = f"{GATEWAY} says Accepted is False (NoMatchingParent: port 81)"
PENDING = Routed(share=50, version=2, since=NOW, gateways=(GATEWAY,), pending=GATEWAY, accepted=5)
AT_HALF = OURS.but(passed=(0,), routed=PENDING, waypoint=Reached(index=1, at="50%", hold_until=NOW + 60, approved=True))


def heard(seen: Observation, *, pending: str = GATEWAY, refusal: str = "") -> Observation:
    """Return the observation with the gateway's answer to the latest write."""
    assert seen.routed is not None
    return seen.model_copy(
        update={"routed": seen.routed.model_copy(update={"pending": pending, "refusal": refusal})}
    )  # fmt: skip


def test_a_weight_counts_only_when_the_gateway_accepted_it() -> None:
    """The hold of its waypoint begins then; until then nothing moves, and the status shows the share before."""
    rules, seen = Rules(strategy=WEIGHED), heard(see(3, 2, 50))
    waits = decide(rules, AT_HALF, seen, NOW + 61)
    assert (waits.act, waits.why) == (Act.WAIT, f"the gateways to accept 50 % to new: {GATEWAY}")
    assert AT_HALF.passing(NOW + 61) == AT_HALF
    decision = decide(rules, AT_HALF, see(3, 2, 50), NOW + 61)
    assert decision.act is Act.ACCEPTED
    accepted = applied(rules, AT_HALF, see(3, 2, 50), decision, NOW + 61)
    assert accepted.passing(NOW + 120).waypoint is not None
    assert accepted.passing(NOW + 121).passed == (0, 1)
    assert [status_of(rules, each, seen).traffic for each in (AT_HALF, accepted)] == [5, 50]


def status_of(rules: Rules, state: State, seen: Observation) -> Status:
    target = PairTarget(old="chat-old", new="chat-new")
    return make_status(
        workflow_id="w", name="chat", target=target, change=Change(images={"server": "chat:2"}), rules=rules,
        state=state, seen=seen, waits="",
        started_at=NOW, updated_at=NOW,
    )  # fmt: skip


def test_a_gateway_that_does_not_answer_fails_the_rollout() -> None:
    """At the deadline, unless a person paused it: nothing moves then."""
    rules, seen = Rules(strategy=WEIGHED), heard(see(3, 2, 50))
    late = NOW + rules.readiness.deadline.total_seconds()
    decision = decide(rules, AT_HALF, seen, late)
    assert decision.act is Act.FAIL and decision.problem is not None and decision.problem.cause is Cause.DEADLINE
    assert f"the rollout waits for the gateways to accept 50 % to new: {GATEWAY} (no progress for" in decision.why
    assert decide(rules, AT_HALF.but(paused="lunch"), seen, late).act is Act.WAIT
    assert decide(rules, AT_HALF, seen, late - 1).act is Act.WAIT


def test_a_refused_weight_fails_the_rollout_and_goes_back() -> None:
    """With `onFailure: pause`, to the weight that the gateway accepted before."""
    refused = heard(see(3, 2, 50), refusal=REFUSED)
    for on_failure, share in (("rollback", 0), ("pause", 5)):
        rules = Rules.model_validate({"strategy": WEIGHED, "onFailure": on_failure})
        decision = decide(rules, AT_HALF, refused, NOW + 1)
        assert decision.act is Act.FAIL and decision.problem is not None and decision.problem.cause is Cause.TRAFFIC
        assert decision.problem.message == f"{REFUSED}; the route gives 50 % to new"
        failed = applied(rules, AT_HALF, refused, decision, NOW + 1)
        assert (failed.goal is Goal.BACK) is (on_failure == "rollback")
        undone = decide(rules, failed, refused, NOW + 1)
        assert (undone.act, undone.share) == (Act.ROUTE, share)
        again = failed.but(routed=PENDING.model_copy(update={"share": share, "accepted": share}))
        still = heard(see(3, 2, share), refusal=REFUSED).model_copy(update={"home": Counts(4, 0)})
        assert decide(rules, again, still, NOW + 9).act is Act.WAIT


@pytest.mark.parametrize("back", [False, True])
def test_a_gateway_that_refuses_every_share_does_not_send_the_traffic_to_and_fro(back: bool) -> None:
    """It had accepted 50 %, and refuses that now too: what the rollout wants stays written, and the deadline runs."""
    rules = Rules(strategy=WEIGHED)
    state = AT_HALF.but(routed=PENDING.model_copy(update={"pending": "", "accepted": 50}))
    state = state.going_back(Outcome.ROLLED_BACK, requested("why"), NOW) if back else state
    written = list[int]()

    def refused() -> Observation:
        share = state.routed.share if state.routed else 0
        return heard(see(4, 2, share), refusal=REFUSED).model_copy(update={"home": Counts(4, 0)})

    for now in range(int(NOW), int(NOW) + 6):
        seen = refused()
        decision = decide(rules, state, seen, now)
        written += [decision.share or 0] if decision.act is Act.ROUTE else []
        routed = Routed(share=decision.share or 0, gateways=(GATEWAY,), pending=GATEWAY)
        state = applied(rules, state, seen, decision, now, Written(done=True, routed=routed))
    assert written == [0] and state.goal is Goal.BACK
    told = heard(see(4, 2, 0), pending=REFUSED)
    assert acceptance(state, pending_of(state, told)) == f"the gateways to accept 0 % to new: {REFUSED}"
    assert pending_of(state, None) == pending_of(state, heard(see(4, 2, 50))) == "", "observed before the write"
    late = NOW + 60 + rules.readiness.deadline.total_seconds()
    assert decide(rules, state, refused(), late).act is Act.ALARM


def test_a_refused_share_is_tried_again_after_a_while() -> None:
    """The one that was accepted stays in its place meanwhile; neither write is progress."""
    rules = Rules(strategy=WEIGHED)
    state = OURS.but(routed=Routed(share=0, since=NOW, gateways=(GATEWAY,), pending=GATEWAY, accepted=100))
    state = state.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)

    def then(seen: Observation, now: float, act: Act, share: int | None = None) -> None:
        nonlocal state
        seen = seen.model_copy(update={"home": Counts(4, 0)})
        decision = decide(rules, state, seen, now)
        assert (decision.act, decision.share) == (act, share), decision
        if act is Act.WAIT:
            assert decision.wake_at is not None and decision.wake_at <= NOW + 2 + AGAIN_S
            return
        routed = Routed(share=share or 0, gateways=(GATEWAY,), pending=GATEWAY)
        state = applied(rules, state, seen, decision, now, Written(done=True, routed=routed))

    then(heard(see(4, 4, 0), refusal=REFUSED), NOW + 1, Act.ROUTE, 100)
    then(see(4, 4, 100), NOW + 2, Act.ACCEPTED)
    assert state.routed and (state.routed.accepted, state.routed.refused, state.progress_at) == (100, 0, NOW)
    then(see(4, 4, 100), NOW + 1 + AGAIN_S, Act.WAIT)
    then(see(4, 4, 100), NOW + 2 + AGAIN_S, Act.ROUTE, 0)
    assert state.progress_at == NOW
    then(see(4, 4, 0), NOW + 3 + AGAIN_S, Act.ACCEPTED)
    assert state.routed and (state.routed.refused, state.progress_at) == (None, NOW + 3 + AGAIN_S)


def test_a_refused_switch_is_undone() -> None:
    """Also where the rollout would keep what it switched, unless the old side has no ready replica."""
    rules, refused = Rules.model_validate({"strategy": BLUE_GREEN, "onFailure": "pause"}), heard(
        see(4, 4, 100), refusal=REFUSED
    )  # fmt: skip
    state = OURS.but(verified=True, routed=Routed(share=100, since=NOW, pending=GATEWAY, accepted=0))
    after = applied(rules, state, refused, decide(rules, state, refused, NOW), NOW)
    undone = decide(rules, after, refused, NOW)
    assert (undone.act, undone.share) == (Act.ROUTE, 0)
    assert undone.why == f"the share that was accepted last, because {REFUSED}"
    empty = heard(see(4, 4, 100, ready=(0, 4)), refusal=REFUSED)
    assert decide(rules, after, empty, NOW).act is Act.WAIT


def test_back_the_new_side_stays_until_the_gateway_follows() -> None:
    """A gateway may still send traffic there; the status says so, and at the deadline a person is needed."""
    state = OURS.going_back(Outcome.ABORTED, requested("no"), NOW).but(routed=PENDING.model_copy(update={"share": 0}))
    rules, seen = Rules(strategy=WEIGHED), heard(see(3, 2, 0)).model_copy(update={"home": Counts(4, 0)})
    assert must_stay(WEIGHED, state, seen, NOW + 900) == 2
    waits = decide(rules, state, seen, NOW + 3)
    assert waits.why == f"the gateways to accept 0 % to new: {GATEWAY}"
    alarm = decide(rules, state, seen, NOW + 2 + rules.readiness.deadline.total_seconds())
    assert alarm.act is Act.ALARM and GATEWAY in alarm.why
    assert decide(rules, state, see(3, 2, 0), NOW + 3).act is Act.ACCEPTED


def test_a_weight_whose_answer_was_lost_is_written_again() -> None:
    """Otherwise nobody would wait for its gateway."""
    reached = Reached(index=0, at="1", hold_until=NOW + 60, approved=True)
    decision = decide(Rules(strategy=WEIGHED), OURS.but(waypoint=reached), see(4, 1, 5), NOW)
    assert (decision.act, decision.share) == (Act.ROUTE, 5)


# --- random lives -----------------------------------------------------------------------------------------


class Life:
    """Two sides whose replicas become ready, and lose it, at random; writes are late, and never wrong."""

    def __init__(self, seed: int) -> None:
        dice = self.dice = random.Random(seed)
        self.replicas = dice.randint(1, 6)
        weights = sorted(dice.sample(range(101), 3))
        waypoints = [{"at": n + 1, "weight": w} for n, w in enumerate(weights[: dice.randint(0, 3)])]
        blue_green = Strategy(type="blueGreen", traffic=dice.choice((SERVICE, ROUTE)), retain=timedelta(seconds=5))
        order = dice.choice(("scaleOutPriority", "scaleInPriority", "scaleSimultaneously"))
        weighed = Strategy(order=order, max_surge=dice.randint(1, 3), traffic=ROUTE, waypoints=waypoints)
        self.rules = Rules(strategy=dice.choice((blue_green, weighed)), readiness=Readiness(min_ready=timedelta(0)))
        self.state = OURS.but(routed=None)
        self.ready = {"old": [True] * self.replicas, "new": []}
        self.share, self.now = 0, NOW
        self.served, self.unheard = 0, 0
        """The share that the gateway serves, and in how many steps it answers the latest write."""
        by_route = isinstance(self.rules.strategy.traffic, ByRoute)
        self.lag = dice.choice((0, 3, 9)) if by_route else 0
        self.refuses = self.lag > 0 and dice.random() < 0.2
        """Whether the gateway refuses each share of the new side."""
        self.emptied_at = 0.0
        """When a side lost all of its traffic: proxies may send there for some time."""
        self.turns_at = dice.choice((0, 0, dice.randint(1, 60)))
        """The step at which a person aborts; 0 for never."""

    def seen(self) -> Observation:
        old, new = (sum(self.ready[side]) for side in ("old", "new"))
        counts = Counts(len(self.ready["old"]), len(self.ready["new"]))
        pending = GATEWAY if self.served != self.share else ""
        refusal = REFUSED if pending and self.refuses and self.share and not self.unheard else ""
        seen = heard(see(*counts, self.share, ready=(old, new)), pending=pending, refusal=refusal)
        home = Counts(self.replicas, 0)
        return seen.model_copy(
            update={"replicas": self.replicas, "requested": counts, "home": home, "progress_at": self.now}
        )

    def live(self) -> None:
        """Go to the end; each write is checked on what is there in that moment."""
        for step in range(2_000):
            unrest = 0.05 if step < 200 else 0.0
            for side in self.ready.values():
                for n, is_ready in enumerate(side):
                    side[n] = self.dice.random() >= unrest if is_ready else self.dice.random() < 0.5
            self.now += self.dice.random()
            self._serve()
            self.state = self.state.passing(self.now)
            if step and step == self.turns_at:
                self.state = self.state.going_back(Outcome.ABORTED, requested("no"), self.now)
            seen = self.seen()
            decision = decide(self.rules, self.state, seen, self.now)
            if decision.act is Act.FINISH:
                end = (self.replicas, 0, 0) if self.state.goal is Goal.BACK else (0, self.replicas, 100)
                assert (*seen.counts, self.share) == (*seen.counts, self.served) == end
                return
            self._do(decision, seen)
        raise AssertionError(f"no end: {self.ready} {self.share} {self.state.brief}")

    def _serve(self) -> None:
        """Let the gateway follow the latest write, unless it refuses it."""
        self.unheard = max(0, self.unheard - 1)
        if self.unheard or self.served == self.share or (self.refuses and self.share):
            return
        self.served = self.share
        self.emptied_at = self.now if self.served in (0, 100) else 0.0

    def _do(self, decision: Any, seen: Observation) -> None:
        written = Written(done=True, writes=1)
        if decision.act is Act.ROUTE:
            written = self._route(decision.share, seen)
        elif decision.act in {Act.SCALE, Act.UNDO}:
            self._scale(decision.counts, seen)
        elif decision.act is Act.VERIFY:
            passes = [Verdict(gate="readiness", result=Result.PASS, why="all are ready")]
            self.state = judged(self.rules, self.state, seen, decision, passes, self.now)
        else:
            assert decision.act in {Act.WAIT, Act.ACCEPTED, Act.FAIL}, decision
        self.state = applied(self.rules, self.state, seen, decision, self.now, written)

    def _route(self, share: int, seen: Observation) -> Written:
        if self.state.routed is not None:
            assert not objection(self.rules.strategy, seen, share), (share, seen)
        self.share, self.unheard = share, self.lag
        if not self.lag:
            self._serve()
        pending = GATEWAY if self.served != share else ""
        return Written(done=True, writes=1, routed=Routed(share=share, pending=pending))

    def _scale(self, counts: Counts, seen: Observation) -> None:
        strategy, (now_old, now_new) = self.rules.strategy, seen.counts
        assert not budget_objection(resolve_budget(strategy, self.replicas), seen, counts), (counts, seen)
        if counts.old < now_old:
            assert not objection_to_counts(self.share, *counts), (counts, self.share)
            if strategy.type == "blueGreen":
                assert self.share == 100 and sum(self.ready["new"]) == self.replicas
        if counts.new < now_new:
            assert not objection_to_counts(self.share, *counts), (counts, self.share)
            assert strategy.type != "blueGreen" or self.share == 0
        left = counts.new < now_new if self.share == 0 else counts.old < now_old
        assert not left or self.served == self.share, "the gateway still sends there"
        assert not left or self.now >= self.emptied_at + 2.0, "proxies may still send there"
        assert not objection_to_counts(self.served, *counts), (counts, self.served)
        for side, count in zip(("old", "new"), counts, strict=True):
            kept = sorted(self.ready[side], reverse=True)[:count]
            self.ready[side] = kept + [False] * (count - len(kept))


@pytest.mark.parametrize(
    "first", [*range(0, 1_000, 250), *(pytest.param(n, marks=pytest.mark.soak) for n in range(1_000, 8_000, 250))]
)
def test_no_life_sends_traffic_to_an_empty_side(first: int) -> None:
    """Every rollout ends with all traffic where it should be, and no write on the way was one that must be refused."""
    for seed in range(first, first + 250):
        try:
            Life(seed).live()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
