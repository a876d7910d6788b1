"""A Deployment's lever, as far as it is pure: when it is paused, and who changed what it is held by."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from activities import release as release_module
from activities.cluster import Cluster
from activities.levers import template as template_module
from activities.levers.admission import ADMISSION
from activities.levers.deployment.baselines import lost_baseline, rebuilt
from activities.levers.deployment.lever import DeploymentLever
from activities.levers.deployment.patches import (
    DESIRED,
    HOLD_DEADLINE_S,
    finish_patch,
    hold_patch,
    refuse_resizing,
    refuse_stuck,
    resize_patch,
    rest_patch,
    resume_patch,
    scale_patch,
    superseded_sets,
    unhold_patch,
)
from activities.levers.deployment.reading import (
    HOLD_MIN_READY_S,
    REVISION,
    Objects,
    can_be_paused,
    is_moving,
    lever_token,
    mark_after_pause,
    mark_of,
    read,
    requested,
    unnoticed,
    with_paused,
)  # fmt: skip
from activities.levers.deployment.sparing import left_undone, removes_some
from activities.levers.ownership import BASELINE, CAUSE, OWNER, left_of_us, saved_ready
from activities.levers.template import fingerprint
from activities.release import is_rolled
from segue.budget import resolve_budget
from segue.contract import WriteInput
from segue.decide import PAUSE_EVERY_S, decide
from segue.decision import Act, Decision
from segue.errors import Refused, Stale
from segue.observation import Cause, Counts, Observation, Problem, Side, Version
from segue.spec import Rules, Strategy
from segue.spec.target import DeploymentTarget
from segue.state import Before, Goal, Mark, Outcome, State

RULES = Rules(strategy=Strategy(max_surge=2))
BUDGET = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
NOW, AT = 1_000.0, "1970-01-01T00:16:00Z"


def template(version: int) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "chat"}},
        "spec": {"containers": [{"name": "server", "image": f"c:{version}"}]},
    }


V1, V2, V3 = (Version(template=fingerprint(template(version))) for version in (1, 2, 3))


def deployment(
    version: int, old: int, new: int, *, paused: bool = False, replicas: int = 8, generation: int = 7,
    writer: str = "segue", engaged: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A Deployment whose fields request (old, new)."""
    rolling = {"maxSurge": old + new - replicas, "maxUnavailable": replicas - old}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "chat"}},
        "template": template(version),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "minReadySeconds": HOLD_MIN_READY_S if engaged else 0,
        **({"paused": True} if paused else {}),
    }
    fields: dict[str, Any] = {
        "f:spec": {"f:template": {}, "f:paused": {}, "f:strategy": {"f:rollingUpdate": {"f:maxSurge": {}}}}
    }
    metadata = {
        "name": "chat", "uid": "d", "generation": generation, "resourceVersion": "1", "annotations": {OWNER: "us"},
        "managedFields": [{"manager": writer, "operation": "Update", "time": AT, "fieldsV1": fields}],
    }  # fmt: skip
    return {"kind": "Deployment", "metadata": metadata, "spec": spec, "status": {"observedGeneration": generation}}


def sets(**sizes: int) -> list[dict[str, Any]]:
    """ReplicaSets by version, such as ``v1=6``."""
    return [
        {
            "metadata": {"uid": name, "name": name, "ownerReferences": [{"uid": "d", "controller": True}]},
            "spec": {"replicas": size, "template": template(int(name[1:]))},
        }
        for name, size in sizes.items()
    ]


def state(**changes: Any) -> State:
    return State(owner="us", claimed=True).after_prepare(V1, V2, NOW).but(**changes)


def see(found: dict[str, Any], known: State | None = None, **sizes: int) -> Observation:
    return read(Objects(found, sets(**sizes), []), RULES, known or state(), NOW)


@pytest.mark.parametrize(
    ("found", "sizes", "unpaused"),
    [
        pytest.param(deployment(2, 6, 4), {"v1": 6, "v2": 4}, True, id="at-rest"),
        pytest.param(deployment(2, 6, 4, paused=True), {"v1": 6, "v2": 4}, False, id="paused"),
        pytest.param(deployment(2, 4, 6), {"v1": 6, "v2": 4}, False, id="the-move-is-not-taken-up"),
        pytest.param(deployment(2, 4, 6), {"v1": 4, "v2": 4}, False, id="it-is-half-taken-up"),
        pytest.param(deployment(2, 4, 6), {"v1": 3, "v2": 7}, True, id="in-other-proportions-nothing-moves-either"),
        pytest.param(deployment(3, 4, 6), {"v1": 6, "v2": 4}, True, id="another-template-in-the-middle-of-a-move"),
        pytest.param(deployment(1, 4, 6), {"v1": 6, "v2": 4}, True, id="the-baseline-in-the-middle-of-a-move"),
        pytest.param(deployment(3, 6, 4, paused=True), {"v1": 6, "v2": 4}, False, id="another-template-while-paused"),
        pytest.param(deployment(1, 8, 2, engaged=False), {"v1": 6, "v2": 4}, False, id="on-its-way-back"),
        pytest.param(deployment(2, 0, 0, replicas=0), {"v1": 0, "v2": 0}, False, id="scaled-to-0"),
    ],
)
def test_when_it_should_be_paused(found: dict[str, Any], sizes: dict[str, Any], unpaused: bool) -> None:
    """At rest, or at once where the template is not the wanted one; never in the middle of a move of our own."""
    assert see(found, **sizes).unpaused is unpaused


@pytest.mark.parametrize(
    ("sizes", "unpaused"),
    [({"v1": 6, "v2": 4}, False), ({"v1": 4, "v2": 4}, False), ({"v1": 4, "v2": 6}, True)],
)
def test_a_retarget_does_not_pause_it_in_the_middle_of_the_last_move(sizes: dict[str, Any], unpaused: bool) -> None:
    """The template is that of the latest write, not of somebody else: a paused controller would take ready replicas."""
    known = state(wanted=V3, mark=Mark(template=V2.template))
    assert see(deployment(2, 4, 6), known, **sizes).unpaused is unpaused


def test_a_taken_replica_starts_the_deadline_again() -> None:
    """An eviction while a replica loads does not count against its version. The next one has the whole deadline."""
    taken = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
             "lastTransitionTime": "1970-01-01T00:15:00Z"}  # fmt: skip

    def progress_at(version: str) -> float:
        owner = [{"uid": version, "controller": True}]
        metadata = {"name": "x", "uid": "x", "ownerReferences": owner, "deletionTimestamp": "1970-01-01T00:15:30Z"}
        evicted = {"metadata": metadata, "spec": {}, "status": {"phase": "Running", "conditions": [taken]}}
        return read(Objects(deployment(2, 7, 1), sets(v1=7, v2=1), [evicted]), RULES, state(), NOW).progress_at

    assert (progress_at("v2"), progress_at("v1")) == (900.0, 0.0)


def test_paused_it_is_held_at_the_sizes_that_are_there() -> None:
    """The fields move nothing then: what they request is not what it is held at."""
    assert see(deployment(2, 6, 4), v1=7, v2=3).requested == Counts(6, 4)
    assert see(deployment(2, 6, 4, paused=True), v1=7, v2=3).requested == Counts(7, 3)


def scaled_for(replicas: int, **sizes: int) -> list[dict[str, Any]]:
    """Held ReplicaSets that the controller has scaled for a Deployment of so many replicas."""
    found = sets(**sizes)
    for each in found:
        each["metadata"]["annotations"] = {DESIRED: str(replicas)}
        each["spec"]["minReadySeconds"] = HOLD_MIN_READY_S
    return found


def test_the_superseded_sets_are_those_of_neither_the_template_nor_the_baseline() -> None:
    """Their ready pods do not count as available, so an undo has to spare them."""
    found = Objects(deployment(3, 6, 4), scaled_for(8, v1=4, v2=2, v3=4), [])
    assert [each["metadata"]["name"] for each in superseded_sets(found, V1.template)] == ["v2"]
    assert superseded_sets(Objects(deployment(3, 6, 4), scaled_for(8, v1=4, v2=0, v3=4), []), V1.template) == []


def test_only_unready_superseded_pods_are_removed() -> None:
    """Only for them is the controller resumed before the baseline is written: the template may be somebody else's."""

    def pod(ready: bool) -> dict[str, Any]:
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2027-01-15T07:00:00Z"}
        metadata = {"name": "p", "uid": "p", "ownerReferences": [{"uid": "v2", "controller": True}]}
        return {"metadata": metadata, "spec": {}, "status": {"phase": "Running", "conditions": [condition]}}

    (v2,) = scaled_for(8, v2=2)
    assert not removes_some(Objects(deployment(3, 6, 4), [v2], [pod(True), pod(True)]), [v2])
    assert removes_some(Objects(deployment(3, 6, 4), [v2], [pod(True), pod(False)]), [v2])
    assert removes_some(Objects(deployment(3, 6, 4), [v2], [pod(True)]), [v2])
    assert not removes_some(Objects(deployment(3, 6, 4), [v2], [pod(False)]), [])


def test_a_version_from_before_the_rollout_is_superseded_too() -> None:
    """Its latest ready pods do not count as available for its own minReadySeconds (simulation, seed 7024417)."""
    for seconds, expected in ((3, ["v2"]), (0, [])):
        found = scaled_for(8, v1=4, v2=2, v3=4)
        found[1]["spec"]["minReadySeconds"] = seconds
        named = superseded_sets(Objects(deployment(3, 6, 4), found, []), V1.template)
        assert [each["metadata"]["name"] for each in named] == expected


@pytest.mark.parametrize(
    ("strategy", "is_kept"),
    [
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": "25%"}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 2}}, False),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}, False),
        ({"type": "Recreate"}, False),
    ],
)
def test_it_is_resumed_with_at_most_the_budget(strategy: dict[str, Any], is_kept: bool) -> None:
    """Somebody else may have written a strategy that lets its controller remove every replica."""
    found = {"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 4, "paused": True, "strategy": strategy}}
    budget = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    expected = {"paused": None} if is_kept else {"paused": None, "strategy": budget}
    assert resume_patch(found, budget) == {"metadata": {"resourceVersion": "7"}, "spec": expected}


def test_an_undo_waits_until_superseded_sets_are_scaled_for_the_present_replicas() -> None:
    """Pods that the controller would add to them load, and it would remove ready ones of other versions instead."""
    found = Objects(deployment(3, 6, 4), scaled_for(6, v1=4, v2=2, v3=4), [])
    with pytest.raises(Stale, match="still scaling to 8 replicas"):
        superseded_sets(found, V1.template)
    alone = Objects(deployment(3, 6, 4), scaled_for(6, v1=4, v3=4), [])
    assert superseded_sets(alone, V1.template) == [], "without superseded pods an undo never waits"


def test_a_resize_waits_until_the_controller_has_followed() -> None:
    """Until then the sizes are no shares of the present replicas, and a move under way would take ready ones."""
    decision = Decision(act=Act.RESIZE, why="why", replicas=4)
    request = WriteInput(target=DeploymentTarget(name="chat"), rules=RULES, state=state(), decision=decision)
    seen = see(deployment(2, 6, 4), v1=6, v2=4)
    with pytest.raises(Stale, match="still scaling to 8 replicas"):
        resize_patch(Objects(deployment(2, 6, 4), scaled_for(6, v1=6, v2=4), []), seen, request, 4)
    with pytest.raises(Stale, match="still making the last move"):
        resize_patch(Objects(deployment(2, 6, 4), scaled_for(8, v1=7, v2=3), []), seen, request, 4)
    shrunk = deployment(2, 0, 6, replicas=3)  # by somebody else: there are never more than 3 new ones
    assert not is_moving(shrunk, sets(v1=0, v2=3)) and is_moving(shrunk, sets(v1=0, v2=2))
    followed = Objects(deployment(2, 6, 4), scaled_for(8, v1=6, v2=4), [])
    rolling = {"maxSurge": 2, "maxUnavailable": 0}
    assert resize_patch(followed, seen, request, 4)["spec"] == {
        "replicas": 4, "paused": True, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
    }, "unpaused, its controller would remove replicas that are not available beside those that it adds"  # fmt: skip
    free = seen.model_copy(update={"engaged": False})
    assert resize_patch(Objects(deployment(1, 8, 0), scaled_for(6, v1=6), []), free, request, 4) == {
        "spec": {"replicas": 4}
    }


def test_a_deployment_whose_controller_is_stuck_is_refused() -> None:
    """Its only active set has R replicas and a former R in its annotation: the controller corrects no such one."""
    found, target = deployment(1, 8, 0, engaged=False), DeploymentTarget(name="chat")
    with pytest.raises(Refused, match=r"replicaset v1, \S+desired-replicas is 9; scale it to 9 and back to 8"):
        refuse_stuck(Objects(found, scaled_for(9, v1=8, v2=0), []), target)
    for there in (scaled_for(8, v1=8), scaled_for(9, v1=9), scaled_for(9, v1=7, v2=1), sets(v1=8), []):
        refuse_stuck(Objects(found, there, []), target)  # still being scaled, or right
    with pytest.raises(Stale, match="has a stuck controller"):
        refuse_resizing(Objects(deployment(2, 6, 2), scaled_for(9, v1=8, v2=0), []))


def test_a_move_that_meets_a_target_scaled_to_0_is_decided_again() -> None:
    """Somebody scaled it to 0 since the decision: that passes, and is no mistake in the spec."""
    found, decision = deployment(2, 0, 0, replicas=0), Decision(act=Act.SCALE, why="why", counts=Counts(7, 2))
    request = WriteInput(target=DeploymentTarget(name="chat"), rules=RULES, state=state(), decision=decision)
    with pytest.raises(Stale, match="scaled to 0"):
        scale_patch(Objects(found, sets(v1=0, v2=0), []), see(found, v1=0, v2=0), request, Counts(7, 2))


@pytest.mark.parametrize("goal", list(Goal))
def test_an_unpaused_one_is_paused_by_a_decision(goal: Goal) -> None:
    """Whatever else is waited for, also while a foreign template is held for; but no more often than it says."""
    seen = see(deployment(3, 6, 4, writer="kubectl"), v1=6, v2=4)
    holding = state(goal=goal, mark=Mark(template=V2.template, generation=6)).after_foreign(seen.foreign, NOW)
    assert decide(RULES, holding, seen, NOW).act is Act.PAUSE_CONTROLLER
    paused = holding.after_pause_controller("", 1, NOW)
    assert decide(RULES, paused, seen, NOW + 1).act is Act.WAIT
    assert decide(RULES, paused, seen, NOW + PAUSE_EVERY_S).act is Act.PAUSE_CONTROLLER


def test_who_changed_what_it_is_held_by() -> None:
    """A change of our write by admission is reported, a write whose answer was lost is ours, a resume is no reason."""
    meant = mark_of(deployment(2, 6, 4))

    def foreign(found: dict[str, Any], mark: Mark) -> str:
        seen = see(found, state(mark=mark), v1=6, v2=4)
        return str(seen.foreign or "")

    assert foreign(deployment(2, 6, 4, paused=True), meant) == f"{ADMISSION} changed paused=True"
    assert foreign(deployment(2, 6, 4, paused=True, generation=8), meant) == ""  # our pause, whose answer was lost
    by_person = foreign(deployment(2, 6, 4, paused=True, generation=8, writer="kubectl"), meant)
    assert by_person == f"kubectl (Update at {AT}) changed paused=True"
    both = deployment(2, 6, 4, paused=True, generation=9)  # our pause whose answer was lost, and then a person's change
    both["spec"]["minReadySeconds"] = 7
    theirs = {
        "manager": "kubectl",
        "operation": "Update",
        "time": AT,
        "fieldsV1": {"f:spec": {"f:minReadySeconds": {}}},
    }
    both["metadata"]["managedFields"].append(theirs)
    assert foreign(both, meant) == f"kubectl (Update at {AT}) changed minReadySeconds=7"
    assert foreign(deployment(2, 6, 4, generation=8), with_paused(meant, paused=True)) == ""
    by_another = foreign(deployment(3, 6, 4, generation=8, writer="kubectl"), meant)
    assert by_another == f"kubectl (Update at {AT}) changed spec.containers[server].image c:2 → c:3"


def test_a_pause_after_a_move_whose_answer_was_lost() -> None:
    """The move is ours, whoever records it; a person's change in between is still a person's."""
    meant = mark_of(deployment(2, 6, 4))

    def foreign(mark: Mark, writer: str = "segue") -> str:
        # Generation 8 was the move to (5, 4), and 9 is the pause.
        found = deployment(2, 5, 4, paused=True, generation=9, writer=writer)
        return str(see(found, state(mark=mark), v1=5, v2=4).foreign or "")

    assert foreign(mark_after_pause(meant, 9)) == ""
    assert foreign(mark_after_pause(meant, 9), "kubectl").startswith(f"kubectl (Update at {AT}) changed maxSurge=1")
    assert mark_after_pause(meant, 8).generation == 8  # nobody wrote in between


def test_paused_is_part_of_the_baseline() -> None:
    """Moves and the way back unpause it; at the end it is as it was before."""
    saved = '{"template":{},"strategy":{},"minReadySeconds":0,"progressDeadlineSeconds":600,"budget":{},"paused":%s}'
    for before, after in (("true", True), ("false", None)):
        found = deployment(2, 0, 8, paused=True)
        found["metadata"]["annotations"][BASELINE] = saved % before
        assert finish_patch(found)["spec"]["paused"] is after
        assert unhold_patch(found, to_baseline=True)["spec"]["paused"] is None
        patch = hold_patch(found, RULES, 2, 2)
        assert patch["spec"]["paused"] is None and lever_token(patch).endswith("paused=False")


def test_annotations_of_an_earlier_rollout_hold_nothing() -> None:
    """`kubectl rollout undo` copies them from a ReplicaSet: no release goes back to what they say."""
    copied = deployment(7, 8, 0, engaged=False)
    copied["metadata"]["annotations"] |= {OWNER: "rollout/a@1", BASELINE: '{"template":{"spec":{}}}'}
    assert not is_rolled(copied)
    for field, value in (
        ("minReadySeconds", HOLD_MIN_READY_S),
        ("progressDeadlineSeconds", HOLD_DEADLINE_S),
        ("paused", True),
    ):
        assert is_rolled({**copied, "spec": {**copied["spec"], field: value}}), "somebody may have changed the others"
    begun = {**copied["metadata"], "annotations": {**copied["metadata"]["annotations"], OWNER: "released by her"}}
    assert is_rolled({**copied, "metadata": begun})
    assert left_of_us(copied) == {OWNER: None, BASELINE: None}


def test_an_observation_computes_each_fingerprint_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting rollouts are mostly that; the next observation computes all of them again."""
    digested: list[str] = []

    def digest(value: dict[str, Any]) -> str:
        digested.append(value["spec"]["containers"][0]["image"])
        return original(value)

    original = template_module.digest
    monkeypatch.setattr(template_module, "digest", digest)
    found, sizes = deployment(2, 6, 4), sets(v1=6, v2=4)
    for n in (1, 2):
        read(Objects(found, sizes, []), RULES, state(), NOW)
        assert sorted(digested) == sorted(["c:1", "c:2", "c:2"] * n)
    sizes[1]["spec"]["template"] = template(3)
    assert read(Objects(found, sizes, []), RULES, state(), NOW).new == Side()


WHOLE = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}
SAVED = json.dumps({"template": template(1), "minReadySeconds": 7, "progressDeadlineSeconds": 600, **WHOLE})


def restored(*, paused: bool) -> dict[str, Any]:
    """A Deployment to which somebody applied its whole manifest from before the rollout."""
    found = deployment(1, 8, 0, writer="helm", generation=8, paused=paused)
    found["metadata"]["annotations"][BASELINE] = SAVED
    found["spec"] |= {**WHOLE, "minReadySeconds": 7}
    fields: dict[str, Any] = {
        "f:spec": {"f:minReadySeconds": {}, "f:strategy": {"f:type": {}, "f:rollingUpdate": {"f:maxSurge": {}}}}
    }
    found["metadata"]["managedFields"].append({**found["metadata"]["managedFields"][0], "fieldsV1": fields})
    return found


def test_a_whole_manifest_on_a_paused_target_is_taken_back_by_an_abort() -> None:
    """Only the field that no manifest has still holds it: its controller removes no new replica before the undo."""
    forward = state(mark=mark_of(deployment(2, 6, 4, paused=True)))
    seen = see(restored(paused=True), forward, v1=6, v2=4)
    assert decide(RULES, forward, seen, NOW).act is Act.FOREIGN and seen.foreign and seen.foreign.who.startswith("helm")
    back = forward.going_back(Outcome.ABORTED, Problem(cause=Cause.REQUESTED, message="why"), NOW)
    assert decide(RULES, back, see(restored(paused=True), back, v1=6, v2=4), NOW).act is Act.UNDO


def test_settings_from_before_are_no_foreign_change_on_the_way_back() -> None:
    """The end restores them anyway. Other settings, and a pause, still hold it."""
    undone = deployment(1, 8, 1, engaged=False)
    back = state(goal=Goal.BACK, mark=mark_of(undone))
    assert see(restored(paused=False), back, v1=8).foreign is None
    other = restored(paused=False)
    other["spec"]["minReadySeconds"] = 9
    assert "minReadySeconds=9" in str(see(other, back, v1=8).foreign)
    assert "paused=True" in str(see(restored(paused=True), back, v1=8).foreign)
    forward = state(mark=mark_of(undone), wanted=V1)
    assert see(restored(paused=False), forward, v1=8).foreign is not None


HELD_AT = [
    (replicas, surge, unavailable, Counts(old, new))
    for replicas, surge, unavailable in itertools.product((1, 2, 5, 8), (0, 1, 3), (0, 1, 3))
    for old, new in itertools.product(range(replicas + 1), range(1, replicas + 1))
    if surge + unavailable and replicas <= old + new <= replicas + min(surge, replicas)
]
"""R, maxSurge, maxUnavailable, and where a Deployment can be held."""


def at_rest(replicas: int, rules: Rules, counts: Counts) -> dict[str, Any]:
    """A Deployment that was moved to these counts, paused there, and resumed by somebody."""
    found = deployment(2, 8, 2)
    found["spec"]["replicas"] = replicas
    found["spec"] |= hold_patch(found, rules, sum(counts) - replicas, replicas - counts.old)["spec"]
    found["spec"] |= {**rest_patch(found, rules)["spec"], "paused": None}
    return found


@pytest.mark.parametrize("percent", [False, True], ids=["numbers", "percentages"])
def test_resumed_it_stays_where_it_is_and_keeps_the_floor(percent: bool) -> None:
    """`kubectl rollout restart` refuses a paused Deployment, and tells a person to resume it first.

    If the template is changed then, no pod of the held version is available for the controller: it removes as many of
    them as are more than R - maxUnavailable.
    """
    for replicas, surge, unavailable, counts in HELD_AT:
        written: Any = f"{min(100 * surge, 100)}%" if percent else surge
        rules = Rules(strategy=Strategy(max_surge=written, max_unavailable=unavailable))
        budget, found = resolve_budget(rules.strategy, replicas), at_rest(replicas, rules, counts)
        sizes, rolling = sets(v1=counts.old, v2=counts.new), found["spec"]["strategy"]["rollingUpdate"]
        assert can_be_paused(found, sizes, {V2.template}) and not is_moving(found, sizes), (replicas, counts, rolling)
        assert see(found, v1=counts.old, v2=counts.new).requested == counts, (replicas, counts, rolling)
        again = rest_patch(found, rules)["spec"]["strategy"]
        assert again == found["spec"]["strategy"], "another pause changes nothing"
        # maxSurge would add a replica to R, and both cannot be 0: see docs/decisions/0051.
        lost = 1 if sum(counts) == replicas and counts.old and not budget.unavailable else 0
        left = min(sum(counts), requested(found).old)
        assert left >= budget.floor - lost, (replicas, counts, rolling)


def test_a_surge_in_percent_is_never_larger_than_that_of_the_spec() -> None:
    """Somebody scales 8 to 3 and back: 1 of 3 is 25 % as well as 33 %, and 33 % of 8 are over the ceiling."""
    for percent, replicas, grown in itertools.product((10, 25, 50, 100), range(1, 9), range(1, 17)):
        rules = Rules(strategy=Strategy(max_surge=f"{percent}%", max_unavailable=0))
        for surge in range(1, resolve_budget(rules.strategy, replicas).surge + 1):
            found = at_rest(replicas, rules, Counts(replicas, surge))
            found["spec"]["replicas"] = grown
            assert sum(requested(found)) <= resolve_budget(rules.strategy, grown).ceiling, (percent, replicas, surge)


def test_resized_at_rest_it_stays_where_the_controller_scales_it() -> None:
    """The controller rounds both sides' shares in its own way: (4, 3) of 7 becomes (7, 3) of 10, and not (6, 4)."""
    rules = Rules(strategy=Strategy(max_surge="100%", max_unavailable=0))
    found = at_rest(7, rules, Counts(4, 3))
    paused = {**found, "spec": {**found["spec"], "paused": True}}
    held = Objects(paused, scaled_for(7, v1=4, v2=3), [])
    decision = Decision(act=Act.RESIZE, why="why", replicas=10)
    request = WriteInput(target=DeploymentTarget(name="chat"), rules=rules, state=state(), decision=decision)
    found["spec"] |= resize_patch(held, read(held, rules, state(), NOW), request, 10)["spec"]
    assert not is_moving(found, sets(v1=7, v2=3)), found["spec"]["strategy"]


def test_a_pod_that_its_replica_set_did_not_make_proves_nothing() -> None:
    """Somebody changed its labels, or copied a pod with them, and the new ReplicaSet adopted it."""
    (new,) = sets(v2=1)
    owner = [{"uid": "v2", "controller": True}]
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:01Z"}]
    for made_as, proven in (("v2-", 1), ("v1-", 0), ("", 0)):
        metadata = {"name": f"{made_as}x", "generateName": made_as, "ownerReferences": owner}
        pod = {"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}}
        seen = read(Objects(deployment(2, 7, 1), [new], [pod]), RULES, state(), NOW)
        assert (seen.new.ready, seen.new.proven) == (1, proven)
        assert proven or "x: was not made by this version's ReplicaSet" in str(seen.problem)


def test_a_baseline_that_somebody_removed_or_damaged_is_read_from_a_copy() -> None:
    """Only a readable copy of this rollout counts, and only while this rollout owns the target."""
    found, (_, new) = deployment(2, 6, 4, paused=True), sets(v1=6, v2=4)
    objects, copied = Objects(found, [new], []), {OWNER: "us", BASELINE: '{"a":1}'}

    def saved(known: State | None = None) -> str:
        return lost_baseline(objects, known or state(), BUDGET).saved

    assert saved() == "", "no copy, and no ReplicaSet of the former version"
    new["metadata"]["annotations"] = copied
    for damaged in ({}, {BASELINE: "{"}, {BASELINE: "zlib:xx{"}, {BASELINE: "1"}, {BASELINE: "{}"}):
        found["metadata"]["annotations"] = {OWNER: "us", **damaged}
        assert saved() == '{"a":1}'
        assert saved(state(owner="another")) == ""
    new["metadata"]["annotations"] = {**copied, OWNER: "an earlier one"}
    assert saved() == ""
    found["metadata"]["annotations"] = copied
    new["metadata"]["annotations"] = copied
    assert saved() == "", "it is there"


def test_a_baseline_without_a_copy_is_that_of_its_replica_set() -> None:
    """Its template, notes and minReadySeconds are known; a warning names what is not."""
    found, (old, new) = deployment(2, 6, 4, paused=True), sets(v1=6, v2=4)
    found["metadata"]["annotations"][BASELINE] = "{"
    old["spec"]["minReadySeconds"] = 7
    old["metadata"]["annotations"] = {REVISION: "3", CAUSE: "by hand"}
    old["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] = "abc"
    lost = lost_baseline(Objects(found, [new, old], []), state(before=Before(replicas=8, ready=7)), BUDGET)
    assert "ReplicaSet v1" in lost.warning and "maxSurge 1 and maxUnavailable 0" in lost.warning
    found["metadata"]["annotations"][BASELINE] = lost.saved
    back = unhold_patch(found, to_baseline=True)
    assert back["spec"]["template"] == {**template(1), "$patch": "replace"}
    assert (back["spec"]["minReadySeconds"], back["spec"]["strategy"]) == (7, BUDGET)
    assert back["metadata"]["annotations"][CAUSE] == "by hand"
    assert saved_ready(found) == 7
    new["spec"]["minReadySeconds"] = HOLD_MIN_READY_S
    assert json.loads(rebuilt(found, [new, old], BUDGET).saved)["template"] == template(1), "a release knows no version"
    assert rebuilt(found, [new], BUDGET).saved == ""


def replica_set(wanted: int, counted: tuple[int, int]) -> dict[str, Any]:
    status = dict(zip(("replicas", "readyReplicas"), counted, strict=True))
    return {"metadata": {"name": "a", "uid": "u"}, "spec": {"replicas": wanted}, "status": status}


def pods_of_it(total: int, ready: int) -> list[dict[str, Any]]:
    """Return live pods, and one that is going."""
    owner = [{"uid": "u", "controller": True}]
    pods: list[dict[str, Any]] = [
        {
            "metadata": {"name": f"p{n}", "ownerReferences": owner},
            "status": {"conditions": [{"type": "Ready", "status": str(n < ready)}]},
        }
        for n in range(total)
    ]
    return pods + [{**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "now"}} for pod in pods[:1]]


@pytest.mark.parametrize(
    ("wanted", "counted", "there", "says"),
    [
        pytest.param(3, (3, 3), (3, 3), "", id="all-are-there"),
        pytest.param(3, (3, 3), (2, 2), "counts 3 pods instead of 2", id="one-is-lost"),
        pytest.param(3, (3, 3), (3, 2), "counts 3 ready pods instead of 2", id="one-is-unready"),
        pytest.param(3, (2, 2), (2, 2), "", id="it-has-noticed-the-loss"),
        pytest.param(3, (3, 2), (3, 2), "", id="it-has-noticed-that-one-is-unready"),
        pytest.param(3, (3, 2), (3, 3), "", id="one-is-ready-again"),
        pytest.param(2, (3, 3), (2, 2), "", id="it-removes-one"),
        pytest.param(0, (3, 3), (0, 0), "", id="all-were-to-go"),
        pytest.param(3, (0, 0), (2, 2), "", id="it-has-just-begun"),
    ],
)
def test_a_pod_of_which_its_controller_has_not_noticed_what_became(
    wanted: int, counted: tuple[int, int], there: tuple[int, int], says: str
) -> None:
    found = unnoticed(Objects({}, [replica_set(wanted, counted)], pods_of_it(*there)))
    assert found == (f"the controller of replicaset a still {says}" if says else "")


async def test_a_way_back_begins_when_removed_pods_are_no_longer_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that scales a ReplicaSet up again still counts what it just removed. The way back waits a moment."""
    behind, done = (Objects({}, [replica_set(2, (counted, counted))], pods_of_it(2, 2)) for counted in (3, 2))
    assert not unnoticed(behind) and unnoticed(behind, grows=True).endswith("counts 3 pods instead of 2")
    lever, target = DeploymentLever(cast("Cluster", None)), DeploymentTarget(name="chat", namespace="serving")
    for found, expected in (([done], done), ([behind, behind, done], done), (itertools.repeat(behind), behind)):
        answers = iter(found)

        async def fetch(_: DeploymentTarget, answers: Iterator[Objects] = answers) -> Objects:
            return next(answers)

        monkeypatch.setattr(lever._fetcher, "fetch", fetch)
        monkeypatch.setattr("activities.levers.deployment.lever.NOTICED_S", 0.05)
        assert await lever._noticed(target) is expected


def test_a_way_back_keeps_what_a_controller_has_yet_to_remove() -> None:
    """It is away: back again, it removes what the last write before requested, and counts it as ready meanwhile."""

    def one(uid: str, version: int, replicas: int, has: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        found = {"metadata": {"uid": uid}, "spec": {"replicas": replicas, "template": template(version)}}
        owner = [{"uid": uid, "controller": True}]
        return found, [{"metadata": {"ownerReferences": owner}, "status": {}} for _ in range(has)]

    def undone(old: tuple[int, int], new: tuple[int, int], replicas: int = 8) -> dict[str, int]:
        (first, pods), (second, more) = one("old", 1, *old), one("new", 2, *new)
        objects = Objects({"spec": {"replicas": replicas}}, [first, second], [*pods, *more])
        return {rs["metadata"]["uid"]: spec["replicas"] for rs, spec in left_undone(objects, fingerprint(template(1)))}

    assert undone((6, 8), (2, 2)) == {"old": 8}
    assert undone((5, 8), (5, 2)) == {"old": 8, "new": 2}, "it would add pods of the other version, too"
    assert undone((8, 8), (5, 2)) == {} == undone((8, 6), (5, 2))
    assert undone((4, 8), (0, 0), replicas=4) == {}, "somebody scaled it down"
    behind = Objects({}, [replica_set(1, (2, 2))], pods_of_it(2, 2))
    assert unnoticed(behind, grows=True).endswith("has yet to remove 1 pod") and not unnoticed(behind)


@pytest.mark.parametrize("changes", [{"owner": "them"}, {"generation": 8}], ids=["another-owner", "changed-meanwhile"])
async def test_what_is_no_longer_as_decided_keeps_nothing(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that comes back late writes no ReplicaSet of another rollout's target: here, any write fails."""
    found = deployment(2, 6, 2, generation=changes.get("generation", 7))
    found["metadata"]["annotations"][OWNER] = changes.get("owner", "us")
    owner = [{"uid": "v1", "controller": True}]
    objects = Objects(found, sets(v1=6, v2=2), [{"metadata": {"ownerReferences": owner}, "status": {}}] * 8)
    assert left_undone(objects, V1.template)
    lever, target = DeploymentLever(cast("Cluster", None)), DeploymentTarget(name="chat", namespace="serving")

    async def fetch(_: DeploymentTarget) -> Objects:
        return objects

    monkeypatch.setattr(lever._fetcher, "fetch", fetch)
    decision = Decision(act=Act.UNDO, why="")
    assert (
        await lever._kept(WriteInput(target=target, rules=RULES, state=state(), decision=decision, generation=7)) == 0
    )


async def test_a_release_waits_for_that_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its controllers may have made a move a moment ago."""
    behind, done = (Objects({}, [replica_set(2, (counted, counted))], pods_of_it(2, 2)) for counted in (3, 2))
    answers = iter([behind, behind, done])

    async def with_pods(*_: object) -> Objects:
        return next(answers)

    monkeypatch.setattr(release_module, "read_with_pods", with_pods)
    await release_module._until_noticed(cast("Cluster", None), {"metadata": {"namespace": "serving"}})
    assert not [*answers]
