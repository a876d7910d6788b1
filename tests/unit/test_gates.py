"""Gates that are evaluated again and again: how their answers add up, when they are due, and what follows."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.decide import decide
from segue.decision import Act
from segue.gates import Result, Verdict
from segue.gates.standing import breaches, due, foresee, missing_evidence, score, stand, standings, unopened
from segue.gates.tally import ALONG, Tally
from segue.observation import Counts, Observation, Side, Version
from segue.spec import Rules, read_rollout
from segue.spec.gate_policy import Reaction
from segue.spec.own_gates import OwnGate, WebhookGate
from segue.state import Goal, Reached, State

PASS, FAIL, UNSURE, AWAY = "pass", "fail", "inconclusive", "away"
NOW = 1_000.0


def gate(name: str = "errors", **more: Any) -> OwnGate:
    return OwnGate(name=name, webhook=WebhookGate(name=name), **more)


def verdict(answer: str, name: str = "errors") -> Verdict:
    result = Result.INCONCLUSIVE if answer == AWAY else Result(answer)
    return Verdict(gate=name, result=result, why=f"it is {answer}", counts=answer != AWAY)


def tally(policy: OwnGate, *answers: str, sitting: int = 0) -> Tally:
    found = Tally(gate=policy.name, opened=NOW).reopened(policy, sitting, NOW)
    for answer in answers:
        found = found.after(policy, verdict(answer, policy.name), NOW)
    return found


def state(*tallies: Tally, **more: Any) -> State:
    return State(owner="us", wanted=Version(template="v1"), tallies=tallies, **more)


@pytest.mark.parametrize(
    ("written", "answers", "stands"),
    [
        pytest.param({}, [], UNSURE, id="nothing-asked"),
        pytest.param({}, [PASS], PASS, id="one-pass"),
        pytest.param({}, [FAIL], FAIL, id="one-failure"),
        pytest.param({}, [UNSURE, UNSURE], UNSURE, id="no-evidence"),
        pytest.param({}, [AWAY] * 3, UNSURE, id="an-outage-never-passes"),
        pytest.param({"count": 3}, [PASS, PASS], UNSURE, id="not-asked-often-enough"),
        pytest.param({"count": 3}, [PASS, UNSURE, PASS, AWAY, PASS], PASS, id="only-conclusive-ones-count"),
        pytest.param({"count": 3, "failureLimit": 1}, [PASS, FAIL, PASS], PASS, id="as-many-failures-as-allowed"),
        pytest.param({"failureLimit": 2}, [FAIL, FAIL], UNSURE, id="failures-that-are-allowed-are-no-pass"),
        pytest.param({"failureLimit": 2}, [FAIL, FAIL, PASS], PASS, id="one-pass-after-them"),
        pytest.param({"count": 9, "failureLimit": 1}, [FAIL, PASS, FAIL], FAIL, id="one-failure-too-many"),
        pytest.param({"onFailure": "hold"}, [FAIL], UNSURE, id="holds-while-it-fails"),
        pytest.param({"onFailure": "hold"}, [FAIL, PASS], PASS, id="goes-on-when-it-passes"),
        pytest.param({"dryRun": True}, [FAIL], PASS, id="dry-run"),
        pytest.param({"dryRun": True}, [], PASS, id="dry-run-does-not-hold"),
    ],
)
def test_answers_add_up(written: dict[str, Any], answers: list[str], stands: str) -> None:
    """The table of ``stand``."""
    policy = gate(**written)
    assert stand(policy, tally(policy, *answers)).result == stands


@given(st.lists(st.sampled_from([PASS, FAIL, UNSURE, AWAY]), max_size=12), st.integers(1, 4), st.integers(0, 2))
def test_never_passes_on_too_little(answers: list[str], count: int, limit: int) -> None:
    """A pass has ``count`` conclusive answers, one that passed and ``failureLimit`` failures, whatever the order."""
    policy = gate(count=count, failureLimit=limit)
    found = stand(policy, tally(policy, *answers)).result
    assert (found == FAIL) == (answers.count(FAIL) > limit)
    if found == PASS:
        assert answers.count(PASS) and answers.count(PASS) + answers.count(FAIL) >= count
    assert stand(policy, tally(policy, *sorted(answers))).result == found


def test_a_new_sitting_begins_anew() -> None:
    """At the next waypoint it is evaluated again; failures of a continuous gate are not forgotten."""
    once, always = gate(), gate(continuous=True, failureLimit=1)
    assert tally(once, FAIL).reopened(once, 1, NOW).failed == 0
    assert tally(always, FAIL).reopened(always, 1, NOW).failed == 1
    again = tally(once, PASS).reopened(once, 1, NOW)
    assert stand(once, again).result == UNSURE and again.opened == NOW and again.measurements == 1


def test_when_it_is_asked() -> None:
    """At a stop once opened there, each interval, until there is enough; all along where it is continuous."""
    once, always = gate("once", interval=timedelta(seconds=30)), gate("always", continuous=True)
    rules = Rules(gates=(once, always))
    assert unopened(rules, state(), stops=False) == ("once", "always")
    along = state(tally(once, sitting=ALONG), tally(always, sitting=ALONG))
    assert [g.name for g, _ in due(rules, along, NOW)] == ["always"]
    assert unopened(rules, state(), stops=True) == ("once", "always")
    opened = state(tally(once), tally(always, sitting=ALONG))
    assert unopened(rules, opened, stops=True) == ("always",)
    assert [g.name for g, _ in due(rules, opened, NOW)] == ["once", "always"]
    evaluated = state(tally(once, UNSURE), tally(always, PASS, sitting=ALONG))
    assert due(rules, evaluated, NOW + 29) == ()
    assert [g.name for g, _ in due(rules, evaluated, NOW + 30)] == ["once", "always"]
    done = state(tally(once, PASS), tally(always, PASS))
    assert [g.name for g, _ in due(rules, done, NOW + 99)] == ["always"]
    waiting = Reached(index=0, at="1", hold_until=NOW + 500, approved=False)
    assert [g.name for g, _ in due(rules, opened.but(waypoint=waiting), NOW)] == ["always"]
    assert due(rules, opened.but(goal=Goal.BACK), NOW) == ()


def test_the_initial_delay() -> None:
    """It is evaluated no sooner, at each stop."""
    policy = gate(initialDelay=timedelta(seconds=60))
    rules = Rules(gates=(policy,))
    assert due(rules, state(tally(policy)), NOW + 59) == ()
    assert due(rules, state(tally(policy)), NOW + 60)


@pytest.mark.parametrize(
    ("written", "answers", "after_s", "reaction"),
    [
        pytest.param({}, [PASS], 9_999, None, id="passed"),
        pytest.param({}, [FAIL], 0, Reaction.ROLLBACK, id="failed"),
        pytest.param({"onFailure": "pause"}, [FAIL], 0, Reaction.PAUSE, id="failed-pause"),
        pytest.param({"onFailure": "hold"}, [FAIL], 0, None, id="failed-hold"),
        pytest.param({}, [UNSURE], 1_799, None, id="undecided"),
        pytest.param({}, [UNSURE], 1_800, Reaction.PAUSE, id="undecided-for-too-long"),
        pytest.param({"onInconclusive": "rollback"}, [UNSURE], 1_800, Reaction.ROLLBACK, id="undecided-rollback"),
        pytest.param({"onInconclusive": "hold"}, [UNSURE], 9_999, None, id="undecided-hold"),
        pytest.param({"inconclusiveLimit": 1}, [UNSURE] * 2, 0, Reaction.PAUSE, id="inconclusive-too-often"),
        pytest.param({}, [AWAY] * 4, 0, None, id="an-outage"),
        pytest.param({}, [AWAY] * 5, 0, Reaction.PAUSE, id="an-outage-for-too-long"),
        pytest.param({}, [AWAY] * 4 + [UNSURE, AWAY], 0, None, id="outages-in-a-row-only"),
        pytest.param({"dryRun": True}, [FAIL], 9_999, None, id="dry-run"),
        pytest.param({"weight": 5}, [FAIL], 0, Reaction.ROLLBACK, id="the-only-weighted-one"),
    ],
)
def test_what_follows(written: dict[str, Any], answers: list[str], after_s: float, reaction: Reaction | None) -> None:
    """A failure and a lack of evidence each have their policy."""
    policy = gate(**written)
    found = next(breaches(Rules(gates=(policy,)), state(tally(policy, *answers)), NOW + after_s), None)
    if reaction is None:
        assert found is None
    else:
        assert found is not None and found.reaction is reaction
        assert "errors" in found.problem.message


def test_a_gate_that_nobody_asked_is_not_undecided_for_too_long() -> None:
    """A worker was frozen past the gate's deadline: it counts once the gate has answered afterwards."""
    policy = gate()
    asked = tally(policy, UNSURE)
    rules, late, since = Rules(gates=(policy,)), NOW + 9_999, NOW + 9_990
    assert [*breaches(rules, state(asked), late, since)] == []
    assert asked.last is not None
    after = asked.model_copy(update={"last": asked.last.model_copy(update={"at": since})})
    assert [*breaches(rules, state(after), late, since)]


@pytest.mark.parametrize(
    ("continuous", "sitting", "waypoint"),
    [
        pytest.param(True, ALONG, None, id="all along, between stops"),
        pytest.param(
            False, 0, Reached(index=0, at="1", hold_until=NOW, approved=False), id="after the stop's evaluation"
        ),
    ],
)
def test_a_gate_is_late_only_while_its_stop_is_evaluated(
    continuous: bool, sitting: int, waypoint: Reached | None
) -> None:
    """Elsewhere nothing waits for it."""
    policy = gate(continuous=continuous)
    there = state(tally(policy, UNSURE, sitting=sitting), waypoint=waypoint)
    assert [*breaches(Rules(gates=(policy,)), there, NOW + 9_999)] == []


@pytest.mark.parametrize(
    ("limit", "answers", "why"), [(0, [FAIL], "it is fail"), (1, [FAIL, FAIL], "2 measurements failed; it is fail")]
)
def test_how_many_measurements_failed_is_said_where_some_may(limit: int, answers: list[str], why: str) -> None:
    policy = gate(failureLimit=limit, count=9)
    assert stand(policy, tally(policy, *answers)).why == why


@pytest.mark.parametrize(
    ("written", "strategy", "late"),
    [
        pytest.param({}, {}, True, id="evaluated at the end"),
        pytest.param({}, {"waypoints": [{"at": 1}]}, False, id="evaluated at a waypoint"),
        pytest.param({"continuous": True}, {}, False, id="evaluated all along"),
        pytest.param({"dryRun": True}, {}, False, id="decides nothing"),
    ],
)
def test_a_gate_that_is_evaluated_too_late_is_foreseen(
    written: dict[str, Any], strategy: dict[str, Any], late: bool
) -> None:
    """Without a stop before the end, no old replica is left when it answers."""
    warnings = foresee(Rules.model_validate({"gates": (gate("smoke", **written),), "strategy": strategy}))
    assert [each.partition(":")[0] for each in warnings] == ["smoke"] * late


@pytest.mark.parametrize(
    ("answers", "stands"),
    [
        pytest.param({"a": PASS, "b": PASS, "c": FAIL}, PASS, id="75-of-100"),
        pytest.param({"a": FAIL, "b": PASS, "c": PASS}, FAIL, id="50-of-100"),
        pytest.param({"a": PASS, "b": PASS, "c": UNSURE}, UNSURE, id="nothing-passes-undecided"),
        pytest.param({"a": FAIL, "b": UNSURE, "c": UNSURE}, FAIL, id="lost-already"),
    ],
)
def test_weighted_gates(answers: dict[str, str], stands: str) -> None:
    """Their passes must weigh enough together; a critical one fails alone."""
    weights = {"a": 2, "b": 1, "c": 1}
    weighted = [(weights[name], verdict(answer, name)) for name, answer in answers.items()]
    assert score(weighted, 75).result == stands


def test_a_dry_run_makes_up_for_no_other_gate() -> None:
    tried, light = gate("tried", weight=75, dryRun=True), gate("light", weight=25)
    rules, found = Rules(gates=(tried, light)), state(tally(tried, FAIL), tally(light, FAIL))
    assert [(v.gate, v.result) for v in standings(rules, found)] == [("tried", PASS), ("score", FAIL)]
    assert [v.gate for v in standings(Rules(gates=(tried,)), found)] == ["tried"]


def test_a_score_just_below_is_too_low() -> None:
    assert score([(149, verdict(PASS)), (51, verdict(FAIL))], 75).result == FAIL
    assert score([(150, verdict(PASS)), (50, verdict(FAIL))], 75).result == PASS


@pytest.mark.parametrize(
    ("written", "answers", "passed"),
    [
        pytest.param({"continuous": True, "inconclusiveLimit": 1}, [PASS, UNSURE, UNSURE], (0,), id="between-stops"),
        pytest.param({"consecutiveErrorLimit": 1}, [PASS, AWAY, AWAY], (), id="its-provider-is-away"),
    ],
)
def test_a_gate_that_has_passed_can_still_become_undecided(
    written: dict[str, Any], answers: list[str], passed: tuple[int, ...]
) -> None:
    policy = gate(onInconclusive="rollback", **written)
    [breach] = breaches(Rules(gates=(policy,)), state(tally(policy, *answers), passed=passed), NOW)
    assert breach.reaction is Reaction.ROLLBACK


def test_which_evidence_is_missing() -> None:
    """Each gate that does not pass is named, with its reason; the score speaks for the weighted ones."""
    critical, light = gate("errors"), gate("queue", weight=3)
    rules = Rules(gates=(critical, light))
    found = state(tally(critical, UNSURE), tally(light, PASS))
    assert [v.gate for v in standings(rules, found)] == ["errors", "score"]
    assert missing_evidence(rules, found) == "errors: it is inconclusive"
    assert missing_evidence(rules, state(tally(critical, PASS), tally(light, PASS))) == ""


@pytest.mark.parametrize(
    ("written", "field", "fix"),
    [
        ({"interval": "0s"}, "interval", "write 1s to 1h"),
        ({"deadline": "10s", "initialDelay": "20s"}, "deadline", "write a longer deadline"),
        ({"initialDelay": "1000h"}, "initialDelay", "write a shorter time"),
        ({"count": 0}, "count", "write 1 or more"),
        ({"failureLimit": -1}, "failureLimit", "write 0 or more"),
        ({"onFailure": "explode"}, "onFailure", "'rollback'"),
        ({"weight": 101}, "weight", "write 100 or less"),
        ({"name": "No Name"}, "name", "must match"),
        ({"limit": 1}, "limit", "check its spelling"),
    ],
)
def test_bad_policies(written: dict[str, Any], field: str, fix: str) -> None:
    """Refused with field, value and fix."""
    spec = {
        "target": {"name": "chat"},
        "change": {"images": {"a": "b:1"}},
        "gates": [{"name": "errors", "webhook": {"name": "x"}, **written}],
    }
    with pytest.raises(Exception, match="gates") as refused:
        read_rollout({"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "x"}, "spec": spec})
    assert f"spec.gates[0].{field}" in str(refused.value) and fix in str(refused.value)


@pytest.mark.parametrize(
    ("reaction", "act", "rolls_back"),
    [
        (Reaction.ROLLBACK, Act.FAIL, True),
        (Reaction.PAUSE, Act.FAIL, False),
        (Reaction.HOLD, Act.WAIT, None),
    ],
)
def test_a_failed_gate_decides_itself_whether_to_roll_back(
    reaction: Reaction, act: Act, rolls_back: bool | None
) -> None:
    """Not the rollout's ``onFailure``: its default is to roll back."""
    policy = gate(onFailure=reaction)
    failed = state(tally(policy, FAIL), claimed=True, progress_at=NOW, baseline=Version(template="v0"))
    ready = Side(total=1)
    seen = Observation(
        replicas=1,
        old=Side(total=1, ready=1),
        new=ready,
        requested=Counts(1, 1),
        template="v1",
        owner="us",
        engaged=True,
    )
    decision = decide(Rules(gates=(policy,)), failed, seen, NOW)
    assert (decision.act, decision.rolls_back) == (act, rolls_back), decision
