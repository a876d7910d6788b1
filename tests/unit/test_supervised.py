"""A resource whose own operator rolls, as its lever reads it: which pods count, which of them change, what is done."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from activities.cluster import Cluster
from activities.ended_pods import Gone
from activities.levers.ownership import BASELINE, OWNER
from activities.levers.supervised import STEADY_S, Supervised, SupervisedLever
from segue.decide import decide
from segue.decision import Act, Decision
from segue.errors import Refused
from segue.observation import Observation, Version
from segue.spec import Change, Rules, SupervisedTarget
from segue.state import Before, Goal, State
from segue.supervision import SUPERVISIONS

START = 1_800_000_000.0
LATER = START + 60.0
KSERVE = SUPERVISIONS["InferenceService"]
RULES = Rules.model_validate({"readiness": {"minReady": "0s", "deadline": "30s"}})
LEVER = SupervisedLever(Cluster.__new__(Cluster), KSERVE)  # reading asks nobody


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def pod(part: str, version: str, number: int = 0, *, ready: bool = True, made: float = START) -> dict[str, Any]:
    """A pod of one of the resource's Deployments."""
    labels = {"app": f"isvc.{part}", "pod-template-hash": version}
    owner = {"kind": "ReplicaSet", "name": f"{part}-{version}", "uid": "u", "controller": True}
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": at(made)}
    name = f"{part}-{version}-{number}"
    return {
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner], "creationTimestamp": at(made)},
        "status": {"phase": "Running", "conditions": [condition]},
    }


def isvc(predictor: dict[str, Any] | None = None, saved: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """The resource at generation 5; ``saved`` is what a rollout keeps on it."""
    spec = {
        "predictor": {"minReplicas": 1, "maxReplicas": 3, "model": {"image": "a/b:1", "name": ""}, **(predictor or {})}
    }
    annotations = {OWNER: "me", BASELINE: json.dumps(saved)} if saved else {}
    ready = [{"type": "Ready", "status": "True"}]
    metadata = {"name": "llm", "uid": "u", "generation": 5, "annotations": annotations}
    return {"kind": "InferenceService", "metadata": metadata, "spec": spec, "status": {"conditions": ready, **status}}


def test_only_a_target_that_requests_replicas_may_soon_run_one() -> None:
    """Its only pod may just be replaced; one that is scaled to zero or stopped needs a person."""
    target = SupervisedTarget(kind="Supervised", resource="InferenceService", namespace="serving", name="llm")
    stop: dict[str, Any] = {"conditions": [{"type": "Stopped", "status": "True"}]}
    at_least_0 = isvc({"minReplicas": 0})
    for found, is_late in ((isvc(), True), (at_least_0, False), ({**isvc(), "status": stop}, False)):
        error = LEVER._not_running(LEVER._supervised(found, []), target)
        assert str(error).startswith("target: 'serving/llm': runs no replica")
        assert error.retryable is is_late


def rolled(before: list[dict[str, Any]], now: list[dict[str, Any]], **status: Any) -> tuple[Supervised, State]:
    """The resource after the change to image 2, with the pods of before and of now."""
    kept = LEVER._start(LEVER._supervised(isvc(), before))
    found = isvc({"model": {"image": "a/b:2", "name": ""}}, {**kept, "superseded": [], "wrote": "new"}, **status)
    state = State(
        owner="me", claimed=True, autonomous=True, progress_at=START, mark=LEVER._mark(found),
        baseline=Version(template=kept_template()), wanted=Version(template="new"),
    )  # fmt: skip
    return LEVER._supervised(found, now), state


def kept_template() -> str:
    return LEVER._mark(isvc()).template


def read(seen: Supervised, state: State, now: float = LATER) -> tuple[Observation, Decision]:
    found = LEVER._read(seen, RULES, state, now)
    return found, decide(RULES, state, found, now)


HEAD, WORKER, CANARY = "llm-predictor", "llm-predictor-worker", "llm-next-predictor"


def test_a_taken_replica_starts_the_deadline_again() -> None:
    """A drain of its node while it loads does not count against its version."""
    taken = pod(HEAD, "v2", 1, ready=False)
    taken["metadata"]["deletionTimestamp"] = at(START + 90)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    taken["status"]["conditions"].append({**condition, "lastTransitionTime": at(START + 60)})
    seen, state = rolled([pod(HEAD, "v1")], [pod(HEAD, "v1"), taken])
    assert read(seen, state)[0].progress_at == START + 60


def test_pods_are_believed_and_not_an_operators_observed_generation() -> None:
    """KServe's is its Deployment's: behind for ever; it is waited for a little, and no longer."""
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "b", made=LATER)], observedGeneration=1)
    fresh, waits = read(seen, state, LATER)
    assert waits.act is Act.WAIT and fresh.new.proven == 0 and fresh.next_proven_at == LATER + STEADY_S
    _, done = read(seen, state, LATER + STEADY_S)
    assert done.act is Act.VERIFY
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "b", made=LATER)], observedGeneration=9)
    assert read(seen, state, LATER)[1].act is Act.VERIFY


@pytest.mark.parametrize("conditions", [None, {"Ready": "True"}, ["Ready"], [{"status": "True"}, None]])
@pytest.mark.parametrize("observed", [None, "5", {}])
def test_a_status_of_any_form_is_read(conditions: Any, observed: Any) -> None:
    """Where a definition keeps unknown fields, its operator may write anything, such as null for an empty list."""
    before, now = [pod(HEAD, "a")], [pod(HEAD, "b", made=LATER - 1.0)]
    for status in ({"conditions": conditions, "observedGeneration": observed}, None):
        seen, state = rolled(before, now)
        seen.found["status"] = status
        found, _ = read(seen, state)
        assert found.new.ready == 1
        assert found.problem is not None and found.problem.told == "condition Ready: is not met"
        assert LEVER._start(seen)["done"] == [] and LEVER._start(seen)["observes"] is False
        assert LEVER._late_until(seen.found, {"observes": True}, RULES, state) == START + 30.0


def test_more_pods_than_asked_for_have_all_to_be_proven_and_have_a_deadline() -> None:
    """An autoscaler runs 3 where minReplicas is 1: each wait for them ends."""
    before = [pod(HEAD, "a", n) for n in range(3)]
    now = [pod(HEAD, "b", n, ready=n < 2) for n in range(3)]
    seen, state = rolled(before, now)
    found, late = read(seen, state)
    assert (found.replicas, found.new.total, found.new.proven) == (3, 3, 2)
    assert late.act is Act.FAIL, late
    unmet: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "False", "reason": "NoRoute"}]}
    seen, state = rolled(before, [pod(HEAD, "b", n) for n in range(3)], **unmet)
    _, late = read(seen, state)
    assert late.act is Act.FAIL and "condition Ready: NoRoute" in late.why


def test_a_condition_that_was_not_true_before_is_not_asked_for() -> None:
    unmet: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "False"}]}
    kept = LEVER._start(LEVER._supervised(isvc(**unmet), [pod(HEAD, "a")]))
    found = isvc(None, {**kept, "superseded": [], "wrote": "new"}, **unmet)
    assert LEVER._unfinished(found, json.loads(found["metadata"]["annotations"][BASELINE])) is None


@pytest.mark.parametrize("changed", [(HEAD,), (WORKER,), (HEAD, WORKER)], ids=["head", "worker", "both"])
def test_pods_of_a_part_that_the_change_does_not_touch_stay(changed: tuple[str, ...]) -> None:
    before = [pod(HEAD, "a"), pod(WORKER, "w")]
    came = [pod(part, "b", made=LATER) for part in changed]
    left = [each for each in before if not any(LEVER._part(each) == part for part in changed)]
    seen, state = rolled(before, [*left, *came])
    found, decision = read(seen, state, LATER + STEADY_S)
    assert (found.old.total, found.new.total) == (0, len(changed))
    assert decision.act is Act.VERIFY
    if left:  # they may be next: not before nothing has happened for a while
        assert read(seen, state, LATER)[1].act is Act.WAIT
    for each in [*before, *came]:
        del each["metadata"]["ownerReferences"]  # made by hand: distinguished by their labels
    bare, state = rolled(before, [*left, *came])
    assert read(bare, state, LATER + STEADY_S)[1].act is Act.VERIFY
    late = [*before, *came]  # and where a part is under way, its old pods have to go
    found, _ = read(rolled(before, late)[0], state)
    assert found.old.total == len(changed)


def stopping(found: dict[str, Any], since: float) -> dict[str, Any]:
    """The pod after it was told to stop."""
    return {**found, "metadata": {**found["metadata"], "deletionTimestamp": at(since), "deletionGracePeriodSeconds": 0}}


def test_fewer_pods_than_before_are_complete_only_when_nothing_changes_any_more() -> None:
    """Its controller may have removed the last old pod, and create the last new one a moment later."""
    before = [pod(HEAD, "a", n) for n in range(4)]
    now = [*(pod(HEAD, "b", n) for n in range(3)), stopping(before[0], LATER)]
    seen, state = rolled(before, now)
    found, waits = read(seen, state, LATER + 1)
    assert waits.act is Act.WAIT and "1 fewer pods run than before" in str(found.problem)
    assert found.next_proven_at == LATER + STEADY_S
    _, done = read(seen, state, LATER + STEADY_S)  # an autoscaler wants fewer now
    assert done.act is Act.VERIFY


@pytest.mark.parametrize(("unset", "act"), [(1, Act.VERIFY), (None, Act.FAIL)])
def test_a_resource_that_leaves_its_replicas_open_may_be_scaled_down_meanwhile(unset: int | None, act: Act) -> None:
    """KServe takes 1 for an unset minReplicas, so its autoscaler may go from 3 to 1 in the middle of a rollout."""
    assert KSERVE.unset == 1
    kind = KSERVE.model_copy(update={"unset": unset})
    lever = SupervisedLever(Cluster.__new__(Cluster), kind)
    seen, state = rolled([pod(HEAD, "a", n) for n in range(3)], [pod(HEAD, "b")])
    del seen.found["spec"]["predictor"]["minReplicas"]
    decision = decide(RULES, state, lever._read(seen, RULES, state, LATER), LATER)
    assert decision.act is act, decision
    advice = "2 fewer pods run than before the rollout; if its operator has scaled it down, write how many into"
    assert (f"{advice} spec.predictor.minReplicas" in decision.why) is (act is Act.FAIL)


def test_a_part_that_only_stops_may_come_again() -> None:
    """With the strategy Recreate, its new pods come when its old ones are gone, however long these take."""
    worker = pod(WORKER, "w")
    seen, state = rolled([pod(HEAD, "a"), worker], [pod(HEAD, "b"), stopping(worker, START)])
    soon = state.but(progress_at=LATER)
    assert read(seen, soon, LATER)[1].act is Act.WAIT
    _, late = read(seen, state, LATER)
    assert late.act is Act.FAIL and "1 fewer pods run than before" in late.why
    gone = seen._replace(ended=[])
    assert read(gone, soon, LATER)[1].act is Act.VERIFY  # the change may have removed the part


def test_where_every_revision_has_a_workload_of_its_own_all_old_pods_have_to_go() -> None:
    """Knative's: its pods' label ``app`` names the revision."""
    old, new = (pod(f"llm-predictor-0000{n}-deployment", hashed) for n, hashed in ((1, "a"), (2, "b")))
    for each in (old, new):
        each["metadata"]["labels"]["app"] = each["metadata"]["name"][:21]
    found, _ = read(*rolled([old], [old, new]))
    assert (found.old.total, found.new.total) == (1, 1)


def test_a_canary_is_not_the_target() -> None:
    canary = pod(CANARY, "c", ready=False)
    seen, state = rolled([pod(HEAD, "a"), canary], [pod(HEAD, "b"), canary, pod(CANARY, "d", ready=False)])
    found, decision = read(seen, state)
    assert (found.old.total, found.new.total, found.problem) == (0, 1, None)
    assert decision.act is Act.VERIFY
    named = isvc({"name": "next"})  # once it is promoted, it is the other way round
    pods = LEVER._supervised(named, [pod(HEAD, "a"), canary]).pods
    assert [each["metadata"]["name"] for each in pods] == ["llm-next-predictor-c-0"]


def test_scaled_to_zero_by_its_bounds_while_pods_run_is_not_asleep() -> None:
    before = isvc({"minReplicas": 0})
    kept = LEVER._start(LEVER._supervised(before, [pod(HEAD, "a")]))
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "a")])
    seen.found["spec"]["predictor"]["minReplicas"] = 0
    seen.found["metadata"]["annotations"][BASELINE] = json.dumps({**kept, "superseded": [], "wrote": "new"})
    state = state.but(mark=LEVER._mark(seen.found))
    for pods, (now, act) in [(seen.pods, (START + 1, Act.WAIT)), ([], (LATER, Act.FAIL))]:
        found, decision = read(Supervised(seen.found, pods), state, now)
        assert (found.replicas, decision.act) == (1, act)


def test_what_scales_is_no_version_and_is_not_written_back() -> None:
    """A person raises the bounds in the middle: it is neither foreign, nor undone by an abort."""
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "a")])
    seen.found["spec"]["predictor"] |= {"minReplicas": 3, "maxReplicas": 20, "scaleTarget": 4}
    found, _ = read(seen, state)
    assert found.foreign is None and found.template == "new"
    assert LEVER._patch(seen.found, LEVER._version_field(isvc())) == {
        "spec": {"predictor": {"model": {"image": "a/b:1"}}}
    }
    patches: list[dict[str, Any]] = [{"maxReplicas": 9}, {"minReplicas": None}, {"autoScaling": {"metrics": []}}]
    for patch in patches:
        with pytest.raises(Refused, match="is not part of a version"):
            LEVER._changed(LEVER._version_field(isvc()), Change.model_validate({"patch": patch}))


def test_what_admission_made_of_our_write_is_what_we_wrote() -> None:
    """Both ways: written again it would come out the same, for ever."""
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "a")])
    seen.found["spec"]["predictor"]["model"]["image"] = "mirror/b:2"
    state = state.but(mark=LEVER._mark(seen.found))
    found, decision = read(seen, state)
    assert found.template == "new" and decision.act is not Act.SCALE
    released = state.but(wanted=Version(template=state.mark.template))  # by `segue release`: as it is, is wanted
    assert read(seen, released)[0].requested.new == 1
    kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    seen.found["metadata"]["annotations"][BASELINE] = json.dumps({**kept, "wrote": state.baseline.template})
    found, decision = read(seen, state.but(goal=Goal.BACK))
    assert not found.engaged and decision.act is Act.FINISH


def test_a_lost_answer_is_our_write_and_a_change_after_it_is_not() -> None:
    """Also where somebody takes a part of our change back: what is left of it is all ours, and not what we wrote."""
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "a")])
    seen.found["spec"]["predictor"]["model"]["image"] = "mirror/b:2"
    kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    seen.found["metadata"]["annotations"][BASELINE] = json.dumps({**kept, "generation": 5})
    state = state.but(mark=LEVER._mark(isvc()))
    assert LEVER._foreign(seen.found, state) is None and LEVER._stands(seen.found, "new", state)
    seen.found["metadata"]["generation"] = 6
    assert LEVER._foreign(seen.found, state) is not None and not LEVER._stands(seen.found, "new", state)


def test_where_pods_are_counted_those_that_stay_are_not() -> None:
    before = [pod(HEAD, "a"), pod(WORKER, "w")]
    seen, state = rolled(before, [pod(HEAD, "b"), pod(WORKER, "w")])
    counted = SupervisedLever(Cluster.__new__(Cluster), KSERVE.model_copy(update={"replicas": None}))
    assert counted._read(seen, RULES, state, LATER).replicas == 1


def test_a_container_keeps_the_name_that_its_resource_gives_it() -> None:
    """KServe's defaulting writes an empty one into ``model``, and its webhook takes no other."""
    changed = LEVER._changed(LEVER._version_field(isvc()), Change.model_validate({"images": {"model": "a/b:2"}}))
    assert changed["model"] == {"image": "a/b:2", "name": ""}


def test_pods_that_an_operator_creates_late_belong_to_the_version_that_they_run() -> None:
    """It acts on the change only after the undo: its pods are no baseline, and the rollback does not end with them."""

    def running(found: dict[str, Any], image: str) -> dict[str, Any]:
        return {**found, "spec": {"containers": [{"name": "kserve-container", "image": image}]}}

    before = [running(pod(HEAD, "a"), "a/b:1")]
    seen, state = rolled(before, before)
    saved = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    left = LEVER._left(seen.found, saved, saved["version"])
    assert left == ["a/b:2"] and LEVER._left(isvc(), saved, {"model": {"image": "a/b:2"}}) == []
    kept = {**saved, "wrote": state.baseline.template, "left": left}
    back, undone = state.but(goal=Goal.BACK, mark=LEVER._mark(isvc())), isvc(None, kept)
    late, again = running(pod(HEAD, "b", made=LATER), "a/b:2"), running(pod(HEAD, "c", made=LATER), "a/b:1")
    for pods, sides, act in [
        ([*before, late], (1, 1), Act.WAIT),
        ([late], (0, 1), Act.WAIT),
        ([again], (1, 0), Act.FINISH),  # the baseline by another name
        (before, (1, 0), Act.FINISH),
    ]:
        found, decision = read(LEVER._supervised(undone, pods), back.but(progress_at=LATER), LATER + STEADY_S)
        assert ((found.old.total, found.new.total), decision.act) == (sides, act)
    # After a retarget, such pods are not the wanted version either.
    third = isvc({"model": {"image": "a/b:3", "name": ""}}, {**saved, "left": left})
    retargeted = state.but(mark=LEVER._mark(third), wanted=Version(template=LEVER._mark(third).template))
    found, _ = read(LEVER._supervised(third, [late, running(pod(HEAD, "d", made=LATER), "a/b:3")]), retargeted)
    assert (found.old.total, found.new.total) == (1, 1)


def test_who_takes_our_write_back_is_foreign() -> None:
    """Written again each time, the two would change the resource for ever. The same on the way back."""
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "a")])
    mark = LEVER._mark(seen.found)
    forward = state.but(mark=mark, wanted=Version(template=mark.template))
    reverted = isvc(None, json.loads(seen.found["metadata"]["annotations"][BASELINE]))
    assert LEVER._foreign(seen.found, forward) is None
    foreign = LEVER._foreign(reverted, forward)
    assert foreign is not None and foreign.template == state.baseline.template
    kept = json.loads(reverted["metadata"]["annotations"][BASELINE])
    undo = {"model": {"image": "a/b:1"}}
    reverted["metadata"]["annotations"][BASELINE] = json.dumps({**kept, "undo": undo})
    fields: dict[str, Any] = {"f:spec": {"f:predictor": {"f:model": {"f:image": {}}}}}
    reverted["metadata"]["managedFields"] = [
        {"manager": "argocd", "operation": "Apply", "time": "now", "fieldsV1": fields}
    ]
    expected = "argocd (Apply at now) changed spec.predictor.model.image, which this rollout had written"
    assert str(LEVER._foreign(reverted, forward)) == expected
    before = forward.but(mark=LEVER._mark(isvc()))
    assert LEVER._foreign(reverted, before) is None, "nothing is written yet"
    undone = forward.but(goal=Goal.BACK, mark=LEVER._mark(isvc()))
    assert LEVER._foreign(reverted, undone) is None and LEVER._foreign(seen.found, undone) is not None


@pytest.mark.parametrize(
    ("at_start", "now", "until"),
    [
        pytest.param(5, 6, 0.0, id="it-has-observed-the-rollback"),
        pytest.param(5, 5, 30.0, id="it-is-behind"),
        pytest.param(1, 1, STEADY_S, id="what-it-writes-there-is-not-ours"),
        pytest.param(None, None, STEADY_S, id="it-writes-nothing-there"),
    ],
)
def test_a_rollback_ends_when_its_operator_has_observed_it(at_start: int | None, now: int | None, until: float) -> None:
    """An operator that acts late creates the new pods after the rollback; at the deadline the pods decide."""

    def observing(saved: dict[str, Any] | None, observed: int | None) -> dict[str, Any]:
        return isvc(None, saved, **({} if observed is None else {"observedGeneration": observed}))

    own = SupervisedLever(Cluster.__new__(Cluster), KSERVE.model_copy(update={"observes": True}))
    before = LEVER._supervised(observing(None, at_start), [pod(HEAD, "a")])
    assert LEVER._start(before)["observes"] is False, "KServe writes the generation of its Deployment"
    kept = own._start(before)
    found = observing({**kept, "superseded": [], "wrote": kept_template()}, now)
    found["metadata"]["generation"] = 6
    _, state = rolled([pod(HEAD, "a")], [])
    back = state.but(goal=Goal.BACK, mark=LEVER._mark(found), progress_at=LATER)
    seen = LEVER._supervised(found, [pod(HEAD, "a")])
    if until:
        early, waits = read(seen, back, LATER + until - 1)
        assert waits.act is Act.WAIT and early.next_proven_at == LATER + until
        assert early.problem is not None and "its operator may not have observed the rollback" in early.problem.message
    assert read(seen, back, LATER + until)[1].act is Act.FINISH


def test_a_damaged_baseline_is_named() -> None:
    found = isvc()
    for damaged in ("zlib:xx{", "{", "5", "{}"):
        found["metadata"]["annotations"] = {OWNER: "me", BASELINE: damaged}
        with pytest.raises(Refused, match=f"inferenceservice llm: has an annotation {BASELINE} that cannot be read"):
            read(LEVER._supervised(found, []), State(owner="me", baseline=Version(template="a")))


def entry(manager: str, *paths: str, **more: str) -> dict[str, Any]:
    """A manager's entry, which owns these fields of the spec."""
    fields: dict[str, Any] = {}
    for path in paths:
        here = fields
        for name in path.split("."):
            here = here.setdefault(f"f:{name}", {})
    return {"manager": manager, "operation": "Update", "time": "now", "fieldsV1": fields, **more}


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(
    ("manager", "changes", "foreign"),
    [
        pytest.param("kserve", {"timeout": 60}, False, id="its-operator-adds-a-field"),
        pytest.param("somebody", {"timeout": 60}, True, id="somebody-adds-a-field"),
        pytest.param("kserve", {"model": {"image": "a/b:9", "name": ""}}, True, id="its-operator-changes-our-field"),
    ],
)
def test_what_its_operator_adds_is_the_operators(
    back: bool, manager: str, changes: dict[str, Any], foreign: bool
) -> None:
    """Neither held for, nor written again, nor taken back. The operator is who writes the status."""
    seen, state = rolled([pod(HEAD, "a")], [pod(HEAD, "b", made=LATER)])
    kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    kept |= {"undo": {"model": {"image": "a/b:1"}}, "wrote": kept_template() if back else "new", "generation": 4}
    image = "a/b:1" if back else "a/b:2"
    found = isvc({"model": {"image": image, "name": ""}, **changes}, kept)
    ours = [] if changes.get("model") else ["spec.predictor.model.image"]
    theirs = "spec.predictor.model.image" if changes.get("model") else "spec.predictor.timeout"
    status = {"manager": "kserve", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}}
    found["metadata"]["managedFields"] = [entry("segue", *ours), entry(manager, theirs), status]
    mark = LEVER._mark(isvc() if back else seen.found)
    state = state.but(mark=mark, goal=Goal.BACK if back else Goal.FORWARD)
    assert (LEVER._foreign(found, state) is not None) is foreign
    wrote = state.baseline.template if back else "new"
    assert LEVER._stands(found, wrote, state) is not foreign
    assert (LEVER._template(found, state) == wrote) is not foreign


def short_before(ready: int, now: list[dict[str, Any]], **status: Any) -> tuple[Supervised, State]:
    """The resource requests 3 replicas, of which so many were ready before the rollout."""
    before = [pod(HEAD, "a", n) for n in range(ready)]
    seen, state = rolled(before, now, **status)
    seen.found["spec"]["predictor"]["minReplicas"] = 3
    return seen, state.but(before=Before(replicas=3, ready=ready))


@pytest.mark.parametrize(("ready", "ends"), [(2, True), (3, False)])
def test_a_rollback_does_not_wait_for_pods_that_were_not_there_before(ready: int, ends: bool) -> None:
    """A quota lets its operator create 2 of 3: as many as before are enough, once it may have observed the rollback."""
    seen, state = short_before(ready, [pod(HEAD, "a", n) for n in range(2)])
    kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    found = isvc({"minReplicas": 3}, {**kept, "wrote": kept_template()})
    back = state.but(goal=Goal.BACK, mark=LEVER._mark(found), progress_at=LATER)
    early, decided = read(LEVER._supervised(found, seen.pods), back, LATER + STEADY_S - 1)
    assert (early.old.total, early.old.ready) == (3, 2)
    assert decided.act is Act.WAIT, "its operator may act late"
    _, decided = read(LEVER._supervised(found, seen.pods), back, LATER + STEADY_S)
    assert (decided.act is Act.FINISH) is ends, decided


@pytest.mark.parametrize(
    ("ready_before", "new_ready", "after_s", "act"),
    [(2, False, 31, Act.FINISH), (2, False, 20, Act.WAIT), (2, True, 31, Act.ALARM), (3, False, 31, Act.ALARM)],
)
def test_a_new_pod_that_its_operator_does_not_remove(
    ready_before: int, new_ready: bool, after_s: float, act: Act
) -> None:
    """Its Deployment's controller removes no unready pod while one of 3 old ones, broken before, is not ready."""
    old = [pod(HEAD, "a", n, ready=n < 2) for n in range(3)]
    seen, state = short_before(ready_before, old)
    kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    kept |= {"revisions": ["a"], "superseded": ["b"], "wrote": kept_template()}
    found = isvc({"minReplicas": 3}, kept)
    back = state.but(goal=Goal.BACK, mark=LEVER._mark(found), progress_at=LATER)
    bad = pod(HEAD, "b", ready=new_ready)
    _, decided = read(LEVER._supervised(found, [*old, bad]), back, LATER + after_s)
    assert decided.act is act, decided


def test_an_operator_that_is_not_done_completes_nothing_where_some_were_not_ready_before() -> None:
    """Also after the deadline: what was not ready before is no reason to pass over a condition."""
    unmet: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "False", "reason": "NoRoute"}]}
    now = [pod(HEAD, "b", n) for n in range(3)]
    assert read(*short_before(2, now))[1].act is Act.VERIFY
    _, late = read(*short_before(2, now, **unmet))
    assert late.act is Act.FAIL and "condition Ready: NoRoute" in late.why


@pytest.mark.parametrize("back", [False, True])
def test_a_resource_that_somebody_stopped_is_asleep(back: bool) -> None:
    """It blames no version; a rollback of it ends, because nothing runs that could be ready."""
    stopped: dict[str, Any] = {
        "conditions": [{"type": name, "status": str(name == "Stopped")} for name in ("Ready", "Stopped")]
    }
    seen, state = rolled([pod(HEAD, "a")], [], **stopped)
    if back:
        kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
        seen = LEVER._supervised(isvc(None, {**kept, "wrote": kept_template()}, **stopped), [])
        state = state.but(goal=Goal.BACK, mark=LEVER._mark(seen.found), progress_at=START)
    found, decided = read(seen, state)
    assert (found.replicas, decided.act) == (0, Act.FINISH if back else Act.SLEEP)
    running = seen._replace(pods=[pod(HEAD, "a")])
    assert read(running, state)[0].replicas == 1, "its pods stop first"


@pytest.mark.parametrize(
    ("former", "owner", "is_new"),
    [
        pytest.param("", "", True, id="an-operator-that-copies-nothing"),
        pytest.param("", "me", True, id="ours"),
        pytest.param("other", "", False, id="the-end-of-the-former-rollout-rolls-them-again"),
        pytest.param("other", "other", False, id="its-operator-acts-late-on-the-former-one"),
        pytest.param("other", "me", True, id="ours-after-a-former-one"),
    ],
)
def test_pods_of_the_end_of_a_former_rollout_are_not_new(former: str, owner: str, is_new: bool) -> None:
    """KServe copies the annotations to its pods: without Segue's own they have a revision that nobody has seen."""

    def annotated(found: dict[str, Any], value: str) -> dict[str, Any]:
        found["metadata"]["annotations"] = {OWNER: value} if value else {}
        return found

    before = [annotated(pod(HEAD, "a"), former)]
    seen, state = rolled(before, [annotated(pod(HEAD, "b"), owner)])
    kept = json.loads(seen.found["metadata"]["annotations"][BASELINE])
    seen.found["metadata"]["annotations"][BASELINE] = json.dumps({**kept, "owner": "me"})
    found = read(seen, state)[0]
    assert (found.old.total, found.new.total) == ((0, 1) if is_new else (1, 0))


@pytest.mark.parametrize("keepers", [["example.org/keep"], []], ids=["finalizer", "kubelet"])
def test_a_pod_that_does_not_go_keeps_the_place_of_new_ones(keepers: list[str]) -> None:
    """An operator with the strategy Recreate waits until the old pod is gone. The version is not blamed for that."""

    def stopping(now: float) -> tuple[Observation, Decision]:
        pods = [pod(HEAD, "a")]
        ends = {"deletionTimestamp": at(LATER), "deletionGracePeriodSeconds": 60, "finalizers": keepers}
        pods[0]["metadata"].update(ends)
        seen, state = rolled([pod(HEAD, "a")], pods)
        return read(seen, state, now)

    seen, in_time = stopping(LATER - 1)  # past the deadline since the request
    assert seen.freed_by == LATER and in_time.act is Act.WAIT
    _, late = stopping(LATER + 9)
    assert late.act is Act.CROWDED, late
    assert late.why.startswith(f"{HEAD}-a-0: was to be gone by ")
    assert (keepers[0] if keepers else "check whether its node answers") in late.why


def test_a_rollback_behind_a_pod_that_does_not_go_names_it() -> None:
    """It needs a person, who reads which pod it is; afterwards the old ones have their whole deadline."""
    stuck = pod(HEAD, "b")
    stuck["metadata"].update({"deletionTimestamp": at(START + 1), "deletionGracePeriodSeconds": 1})
    seen, state = rolled([pod(HEAD, "a")], [stuck])
    saved = {**json.loads(seen.found["metadata"]["annotations"][BASELINE]), "superseded": ["b"]}
    undone = seen._replace(found=isvc(saved=saved))
    back = state.but(goal=Goal.BACK, progress_at=START)
    _, alarm = read(undone, back)
    assert alarm.act is Act.ALARM and f"{HEAD}-b-0: was to be gone by" in alarm.why, alarm
    freed = undone._replace(ended=[], gone=[Gone(stuck, LATER - 1)], pods=[pod(HEAD, "a", ready=False, made=LATER)])
    _, waits = read(freed, back)
    assert waits.act is Act.WAIT, waits
