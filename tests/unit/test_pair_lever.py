"""A pair's lever, as far as it is pure: which pods of the new Deployment prove its version, and what was read late."""

import contextlib
import json
from typing import Any, cast

import pytest

from activities.cluster import Cluster
from activities.levers.admission import MOVE_FIX
from activities.levers.deployment.reading import Objects
from activities.levers.ownership import BASELINE, OWNER
from activities.levers.pair.lever import PairLever, _refuse, _unnoticed, _Writing, changed_by_others, check_admitted
from activities.levers.pair.reading import Baseline, Pair, is_behind, mark_of, read
from activities.levers.template import fingerprint
from activities.levers.writing import Cleaned, clean_revisions
from activities.release.pair import refuse_missing, remove
from segue.contract import PrepareInput, WriteInput
from segue.decide import decide
from segue.decision import Act, Decision
from segue.errors import Fenced, NotFound, Refused
from segue.observation import Counts, Version
from segue.spec import MADE_LABEL, Change, Rules
from segue.spec.target import PairTarget
from segue.state import Goal, Mark, State

NOW = 1_800_000_000.0
RULES = Rules.model_validate({"strategy": {"maxSurge": 2}, "readiness": {"minReady": "0s", "deadline": "30s"}})
TARGET = PairTarget(old="chat", new="chat-next", namespace="serving")


def template(version: int) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "chat"}}, "spec": {"containers": [{"name": "c", "image": f"c:{version}"}]}}


def side(name: str, wants: int, replicas: int, *, runs: int | None = None, **spec: Any) -> Objects:
    """A Deployment that wants one version, and whose ready pods run that or another."""
    version = wants if runs is None else runs
    owner = [{"uid": f"{name}-rs", "controller": True}]
    pods = [
        {
            "metadata": {
                "name": f"{name}-{n}",
                "generateName": f"{name}-",
                "ownerReferences": owner,
                "creationTimestamp": "2027-01-15T07:00:00Z",
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        for n in range(replicas)
    ]
    found = {"replicas": replicas, "template": template(wants), "selector": {"matchLabels": {"app": name}}, **spec}
    replicaset = {
        "metadata": {"name": name, "uid": f"{name}-rs"},
        "spec": {"replicas": replicas, "template": template(version)},
    }
    metadata = {"name": name, "uid": name, "generation": 3, "annotations": {}}
    return Objects({"kind": "Deployment", "metadata": metadata, "spec": found}, [replicaset], pods)


def held(old: Objects, new: Objects) -> Pair:
    """The pair while a rollout from 4 old replicas holds it."""
    baseline = Baseline(old=4, new=0, name="chat-next", made=False, ready=4, template=json.dumps(template(1)))
    old.deployment["metadata"]["annotations"] = {OWNER: "us", BASELINE: baseline.model_dump_json()}
    return Pair(old, new)


def test_a_pair_whose_old_side_a_rollout_of_its_own_holds_is_told_as_that() -> None:
    """That rollout's baseline is no pair's, and nobody damaged it."""
    old = side("chat", 1, 4)
    owner, alone = "rollout/a/serving/Deployment/chat@1f", json.dumps({"template": template(1)})
    old.deployment["metadata"] |= {"namespace": "serving", "annotations": {OWNER: owner, BASELINE: alone}}
    with pytest.raises(Refused, match=f"^deployment chat: is held by {owner}, whose target is a Deployment; wait"):
        _ = Pair(old, None).baseline
    old.deployment["metadata"]["annotations"][OWNER] = "rollout/a/serving/DeploymentPair/chat@1f"
    with pytest.raises(Refused, match="cannot be read: somebody changed it"):
        _ = Pair(old, None).baseline


def state(pair: Pair) -> State:
    versions = [Version(template=fingerprint(template(version))) for version in (0, 2)]
    return State(owner="us", claimed=True, progress_at=NOW - 60, mark=mark_of(pair)).but(
        baseline=versions[0], wanted=versions[1]
    )


def test_pods_of_its_former_template_prove_nothing() -> None:
    """Its controller is paused: it scales the former template's ReplicaSet, and creates none for the present."""
    right = held(side("chat", 0, 4), side("chat-next", 2, 2))
    seen = read(right, RULES, state(right), NOW)
    assert (seen.new.ready, seen.new.proven, seen.problem) == (2, 2, None)
    wrong = held(side("chat", 0, 4), side("chat-next", 2, 2, runs=1, paused=True))
    seen = read(wrong, RULES, state(wrong), NOW)
    assert (seen.new.total, seen.new.ready, seen.new.proven) == (2, 2, 0)
    decision = decide(RULES, state(wrong), seen, NOW)
    assert decision.act is Act.FAIL and "run `kubectl rollout resume deployment/chat-next`" in decision.why


def test_no_side_shrinks_while_the_other_has_pods_to_remove() -> None:
    """Its controller is away. The last write before that stands in the ReplicaSet, and its pods count as ready."""
    pair = held(side("chat", 1, 8), side("chat-next", 2, 2))
    fewer, more = Counts(8, 1), Counts(8, 3)
    assert not _unnoticed(pair, fewer)
    pair.old.replicasets[0]["spec"]["replicas"] = 6
    assert _unnoticed(pair, fewer) == "the controller of replicaset chat has yet to remove 2 pods"
    assert not _unnoticed(pair, more) and not _unnoticed(pair, Counts(7, 2)), "the side that shrinks may have some"


def test_a_paused_new_one_is_refused_also_with_no_replica() -> None:
    pair = Pair(side("chat", 0, 4), side("chat-next", 1, 0, paused=True))
    request = PrepareInput(
        target=TARGET, rules=RULES, change=Change.model_validate({"images": {"c": "c:2"}}), owner="us"
    )
    with pytest.raises(Refused, match="paused Deployment: chat-next"):
        _refuse(pair, request, TARGET)


def test_a_new_one_that_somebody_created_again_is_not_read_late() -> None:
    """Its generations start at 1 again: nothing would be decided any more."""
    pair = held(side("chat", 0, 4), side("chat-next", 2, 2))
    mark = mark_of(pair)
    again = side("chat-next", 2, 2)
    again.deployment["metadata"]["generation"] = 1
    assert is_behind(Pair(pair.old, again), mark)
    again.deployment["metadata"]["uid"] = "another"
    assert not is_behind(Pair(pair.old, again), mark)


@pytest.mark.parametrize(
    ("sent", "stored", "rolls", "expected"),
    [
        pytest.param({"replicas": 3}, {"replicas": 3}, False, "", id="kept"),
        pytest.param({"replicas": 3}, {"replicas": 2}, True, "replicas=3 to replicas=2", id="fewer-replicas"),
        pytest.param(
            {"replicas": 3}, {"replicas": 3, "template": template(9)}, False, "Deployment chat", id="template"
        ),
        pytest.param({"replicas": 3}, {"replicas": 3, "template": template(9)}, True, "", id="a-rollback-goes-on"),
        pytest.param({"template": template(2)}, {"template": template(9)}, False, "", id="of-a-template-that-is-sent"),
    ],
)
def test_a_policy_that_would_roll_a_side_is_refused(
    sent: dict[str, Any], stored: dict[str, Any], rolls: bool, expected: str
) -> None:
    """Another number of replicas, or another template, takes ready replicas away beside the rollout."""
    base = {"replicas": 4, "template": template(1)}
    found = {"metadata": {"name": "chat", "resourceVersion": "7"}, "spec": base}
    tried = {**found, "spec": {**base, **stored}}
    with pytest.raises(Refused, match=expected) if expected else contextlib.nullcontext():
        check_admitted(TARGET, found, {"spec": sent}, tried, MOVE_FIX, rolls=rolls)


def test_what_admission_made_of_the_old_template_is_no_foreign_change() -> None:
    """On the way back a write of the replicas may change it; the next step must not wait for a person."""
    pair = held(side("chat", 0, 2), side("chat-next", 2, 2))
    known = state(pair).but(goal=Goal.BACK)
    mirrored = held(side("chat", 9, 2), side("chat-next", 2, 2))
    assert read(pair, RULES, known, NOW).foreign is None
    assert read(mirrored, RULES, known, NOW).foreign is not None, "somebody else wrote it"
    assert read(mirrored, RULES, known.but(mark=mark_of(mirrored)), NOW).foreign is None


def test_a_rollback_tells_which_template_it_leaves_on_the_old_side() -> None:
    """It brings only the replicas back: nothing of a pair writes that template."""
    pair, changed = held(side("chat", 0, 2), side("chat-next", 2, 2)), held(side("chat", 9, 2), side("chat-next", 2, 2))
    back = state(pair).but(goal=Goal.BACK)
    assert changed_by_others(pair, back) == "" == changed_by_others(changed, back.but(goal=Goal.FORWARD))
    assert "Deployment chat is not that from before the rollout" in changed_by_others(changed, back)


@pytest.mark.parametrize(
    ("managers", "who"),
    [
        pytest.param(["segue"], None, id="ours, whose answer was lost"),
        pytest.param(["keda"], "keda (Update)", id="through the scale subresource"),
        pytest.param([], "somebody", id="to 0 through it: the API server records nobody"),
    ],
)
def test_who_changed_the_replicas_of_one_side(managers: list[str], who: str | None) -> None:
    before = held(side("chat", 0, 3), side("chat-next", 2, 2))
    after = held(side("chat", 0, 0), side("chat-next", 2, 2))
    after.old.deployment["metadata"]["managedFields"] = [
        {"manager": each, "operation": "Update", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for each in managers
    ]
    foreign = read(after, RULES, state(before), NOW).foreign
    assert (foreign and str(foreign)) == (who and f"{who} changed the old Deployment's replicas to 0")


class Copies:
    """A ReplicaSet to which a controller copies an annotation so many times more."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def list(self, *_: object) -> dict[str, Any]:
        owned = {"name": "chat-1", "ownerReferences": [{"uid": "chat", "controller": True}]}
        return {"items": [{"metadata": {**owned, "annotations": {OWNER: "us"} if self.times else {}}}]}

    async def patch(self, *_: object) -> None:
        self.times -= 1


class Gone(Copies):
    """One that its controller deletes meanwhile: with revisionHistoryLimit 0 that is the rule at the end."""

    async def patch(self, *_: object) -> None:
        self.times = 0
        raise NotFound("not found")


@pytest.mark.parametrize(
    ("cluster", "writes", "left"),
    [
        pytest.param(Copies(0), 0, False, id="none"),
        pytest.param(Copies(1), 1, False, id="one"),
        pytest.param(Copies(3), 3, False, id="three-times"),
        pytest.param(Gone(1), 0, False, id="gone"),
        pytest.param(Copies(99), 5, True, id="each-time"),
    ],
)
async def test_copied_annotations_are_removed_until_none_comes_back(cluster: Copies, writes: int, left: bool) -> None:
    """What comes back each time is told, with the command that removes it."""
    deployment = side("chat", 1, 2).deployment
    deployment["metadata"]["namespace"] = "serving"
    cleaned = await clean_revisions(cast("Cluster", cluster), deployment)
    assert cleaned.writes == writes
    assert bool(cleaned.left) is left is bool(cluster.times)
    assert not left or f"`kubectl annotate replicasets -n serving chat-1 {OWNER}-`" in cleaned.left
    assert Cleaned(1, "a").with_more(Cleaned(2, "")).with_more(Cleaned(3, "b")) == (6, "a; b")


@pytest.mark.parametrize(
    ("runs", "own", "why"),
    [
        pytest.param(None, None, "deployment serving/chat-next: does not exist", id="not-made-yet"),
        pytest.param(1, 1, "chat-next: has the version from before the rollout", id="not-written-yet"),
        pytest.param(2, 1, "", id="written"),
        pytest.param(2, None, "", id="wanted-as-it-is"),
    ],
)
def test_a_release_goes_on_only_to_a_version_that_is_written(runs: int | None, own: int | None, why: str) -> None:
    """It would scale up the new Deployment's former version, and remove the old side."""
    saved = "" if own is None else json.dumps(template(own))
    baseline = Baseline(old=4, new=0, name="chat-next", made=runs is None, template=saved)
    new = None if runs is None else side("chat-next", runs, 0).deployment
    with pytest.raises(NotFound, match=why) if why else contextlib.nullcontext():
        refuse_missing(new, baseline, TARGET)


class Stored:
    """An API server that stores the replicas of both sides."""

    def __init__(self, pair: Pair) -> None:
        self.found = {each.deployment["metadata"]["name"]: each.deployment for each in pair if each is not None}

    async def patch(self, _kind: str, _namespace: str, name: str, patch: Any, *, dry_run: bool = False) -> Any:
        before = self.found[name]
        after = {**before, "spec": {**before["spec"], **patch["spec"]}}
        if not dry_run:
            self.found[name] = after
        return after


@pytest.mark.parametrize(
    ("counts", "replicas", "expected"),
    [
        pytest.param((4, 2), 3, (2, 1), id="fewer-of-both"),
        pytest.param((4, 2), 1, (1, 0), id="fewer-than-the-new-side-has"),
        pytest.param((4, 2), 12, (8, 4), id="more-of-both"),
        pytest.param((4, 0), 6, (6, 0), id="none-is-new"),
        pytest.param((0, 0), 3, (3, 0), id="asleep"),
    ],
)
async def test_a_scale_before_the_first_write_keeps_each_sides_share(
    counts: tuple[int, int], replicas: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier rollout may have ended with both sides serving, and this one still wait: for a freeze to end, say."""
    pair = Pair(side("chat", 1, counts[0]), side("chat-next", 2, counts[1]))
    for each in pair:
        assert each is not None
        each.deployment["metadata"] |= {"resourceVersion": "1", "namespace": "serving"}
    cluster = Stored(pair)
    lever = PairLever(cast("Cluster", cluster))

    async def fetch(_: PairTarget) -> Pair:
        return pair

    monkeypatch.setattr(lever, "_fetch", fetch)
    decided = Decision(act=Act.RESIZE, why="", replicas=replicas)
    waiting = State(owner="us", progress_at=NOW, mark=Mark(template=pair.template))
    request = WriteInput(target=TARGET, rules=RULES, state=waiting, decision=decided, generation=6)
    assert (await lever.resize(request, NOW)).done
    assert tuple(each["spec"]["replicas"] for each in cluster.found.values()) == expected
    assert [each["metadata"]["annotations"] for each in cluster.found.values()] == [{}, {}]


class Freed:
    """An API server that shows what was deleted, and which annotations were removed."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.removed: dict[str, set[str]] = {}

    async def delete(self, _kind: str, _namespace: str, name: str, _uid: str) -> None:
        self.deleted.append(name)

    async def patch(self, _kind: str, _namespace: str, name: str, patch: Any, **_: bool) -> Any:
        self.removed[name] = {key for key, value in patch["metadata"]["annotations"].items() if value is None}
        left = {key: value for key, value in patch["metadata"]["annotations"].items() if value is not None}
        return {
            **side(name, 1, 0).deployment,
            "metadata": {"generation": 3, "resourceVersion": "2", "annotations": left},
        }


@pytest.mark.parametrize("ours", [True, False])
async def test_a_rollback_deletes_no_deployment_that_somebody_else_created(ours: bool) -> None:
    """Its name was free when the rollout began, or somebody deleted the rollout's own one and applied another."""
    label = {MADE_LABEL: "chat-next"} if ours else {}
    new = side("chat-next", 2, 0, selector={"matchLabels": {"app": "chat", **label}})
    found = held(side("chat", 1, 4), new)
    for each in (found.old, new):
        each.deployment["metadata"] |= {"resourceVersion": "1", "namespace": "serving"}
        each.deployment["metadata"]["annotations"][OWNER] = "us"
    baseline = Baseline(old=4, new=0, name="chat-next", made=True)
    gone_back = state(found).but(goal=Goal.BACK)
    request = WriteInput(
        target=TARGET, rules=RULES, state=gone_back, decision=Decision(act=Act.FINISH, why=""), generation=6
    )
    cluster, told = Freed(), list[str]()

    async def fetch(_: PairTarget) -> Pair:
        return found

    writing = _Writing(cast("Cluster", cluster), fetch, request, NOW)
    writing.pair = found
    await writing.free(baseline, back=True)
    assert cluster.deleted == (["chat-next"] if ours else [])
    assert OWNER in cluster.removed["chat"] and (ours or OWNER in cluster.removed["chat-next"])
    assert writing.warning.startswith("Deployment chat-next stays, with 0 replicas: ") is not ours
    await remove(cast("Cluster", cluster), new.deployment, baseline, told.append)
    assert cluster.deleted == (["chat-next"] * 2 if ours else []) and len(told) == (not ours)


async def test_an_end_is_not_written_where_somebody_created_the_target_again() -> None:
    """The new one looks as if an earlier attempt had released it: the rollout would say that it completed."""
    held_one, fresh = held(side("chat", 0, 4), side("chat-next", 2, 4)), side("chat", 0, 4)
    fresh.deployment["metadata"]["uid"] = "another"

    async def fetch(_: PairTarget) -> Pair:
        return Pair(fresh, None)

    request = WriteInput(
        target=TARGET, rules=RULES, state=state(held_one), decision=Decision(act=Act.FINISH, why=""), generation=3
    )
    with pytest.raises(Fenced, match="deleted and created again"):
        await _Writing(cast("Cluster", None), fetch, request, NOW).checked(finishing=True)
