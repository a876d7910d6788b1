"""What `segue release` reads from the target: the budget of the rollout that held it, as it is written in the spec."""

import json
import re
from typing import Any

import pytest

from activities.levers.authors import latest_of
from activities.levers.deployment.reading import Objects
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    REPLICAS,
    baseline_of,
    budget_as_written,
    packed,
    rebudgeted,
    refuse_another_kind,
    saved_baseline,
    unpacked,
)
from activities.levers.pair.reading import recorded_replicas
from activities.release.patience import _left, _not_as_counted
from activities.release.stepped import rules_of
from segue.budget import resolve_budget
from segue.errors import Refused
from segue.spec import Rules, StatefulSetTarget, Strategy

TARGET = StatefulSetTarget(kind="StatefulSet", name="chat")


def engaged(strategy: Strategy) -> Any:
    saved = {"budget": budget_as_written(Rules(strategy=strategy))}
    return {"metadata": {"annotations": {BASELINE: json.dumps(saved)}}}


@pytest.mark.parametrize(
    ("strategy", "replicas", "floor", "ceiling"),
    [
        pytest.param(Strategy(max_surge=0, max_unavailable=1), 8, 7, 8, id="one-of-eight"),
        pytest.param(Strategy(max_surge=0, max_unavailable=1), 40, 39, 40, id="one-of-forty"),
        pytest.param(Strategy(max_surge=0, max_unavailable="50%"), 8, 4, 8, id="a-share"),
        pytest.param(Strategy(max_surge=0, max_unavailable="25%"), 4, 3, 4, id="a-share-after-a-scale-from-8"),
        pytest.param(Strategy(max_surge=2, max_unavailable=0), 8, 8, 10, id="groups-that-surge"),
    ],
)
def test_a_release_keeps_the_budget_of_the_rollout(strategy: Strategy, replicas: int, floor: int, ceiling: int) -> None:
    budget = resolve_budget(rules_of(TARGET, engaged(strategy)).strategy, replicas)
    assert (budget.floor, budget.ceiling) == (floor, ceiling)


def test_a_retarget_with_another_budget_saves_it_too() -> None:
    one, two = (Strategy(max_surge=0, max_unavailable=n) for n in (1, 2))
    assert rebudgeted(engaged(one), budget_as_written(Rules(strategy=one))) == {}
    changed = rebudgeted(engaged(one), budget_as_written(Rules(strategy=two)))
    found = {"metadata": {"annotations": changed}}
    assert resolve_budget(rules_of(TARGET, found).strategy, 8).floor == 6


@pytest.mark.parametrize(("recorded", "replicas"), [("5", 5), ("many", None), ("", None)])
def test_a_damaged_number_of_replicas_counts_as_not_recorded(recorded: str, replicas: int | None) -> None:
    """A release then uses the number from before the rollout."""
    assert recorded_replicas({"metadata": {"annotations": {REPLICAS: recorded}}}) == replicas


def test_a_change_by_nobody_with_a_name_is_told_as_such() -> None:
    """The API server writes *unknown* for what an admission policy changes."""
    written = {"manager": "unknown", "operation": "Update", "time": "2026-11-21T10:55:00Z"}
    assert latest_of([written]) == ("an admission policy, or a client without a name (Update at 2026-11-21T10:55:00Z)")
    assert latest_of([{**written, "manager": "kubectl-edit"}]) == "kubectl-edit (Update at 2026-11-21T10:55:00Z)"


@pytest.mark.parametrize("length", [10, 300_000])
def test_a_baseline_is_read_back_as_it_was(length: int) -> None:
    """A long one is compressed; one that an earlier release left is plain."""
    text = json.dumps({"template": "ä" * length})
    assert unpacked(packed(text)) == unpacked(text) == text
    assert len(packed(text)) <= max(len(text), 10) and (length < 100 or len(packed(text)) < 5_000)


def test_annotations_that_leave_no_place_for_the_baseline_are_refused() -> None:
    """The message blames the annotations of the target, with what they have and what must go."""
    found: Any = {"metadata": {"name": "chat", "annotations": {"big": "x" * 250_000}}, "spec": {"replicas": 2}}
    assert len(baseline_of(found, {"template": {}})) < 200
    found["metadata"]["annotations"]["big"] += "x" * 4_000
    with pytest.raises(Refused) as refused:
        baseline_of(found, {"template": {}})
    assert str(refused.value).startswith("annotations of chat: have 254,003 bytes, and Segue adds ")
    excess = int(re.search(r"remove ([\d,]+) bytes", str(refused.value))[1].replace(",", ""))  # type: ignore[index]
    found["metadata"]["annotations"]["big"] = found["metadata"]["annotations"]["big"][excess:]
    assert baseline_of(found, {"template": {}})


@pytest.mark.parametrize("saved", ["{", "zlib:AAAA", "zlib:?", "5", "null", '"{}"'])
def test_a_baseline_that_somebody_changed_is_told_as_that(saved: str) -> None:
    """The message names the target and the annotation, and what a person can do."""
    found = {"kind": "Deployment", "metadata": {"name": "chat", "annotations": {BASELINE: saved}}}
    with pytest.raises(Refused, match=r"^deployment chat: has an annotation segue.dev/baseline that cannot be read"):
        saved_baseline(found)


PAIRS, ALONE = "rollout/a/b/DeploymentPair/chat", "rollout/a/b/Deployment/chat"


def noted(notes: dict[str, str]) -> Any:
    return {"kind": "Deployment", "metadata": {"name": "chat", "namespace": "b", "annotations": notes}}


@pytest.mark.parametrize(
    ("notes", "wanted", "fix"),
    [
        pytest.param(
            {OWNER: f"{PAIRS}@1f"}, "Deployment",
            f"is held by {PAIRS}@1f, whose target is a DeploymentPair; wait for its end, or run `segue abort {PAIRS}`; "
            f"if Temporal has lost it, `segue release {PAIRS}`", id="a-side-of-a-pair",
        ),
        pytest.param({OWNER: f"{ALONE}@1f"}, "DeploymentPair", f"`segue release {ALONE}`", id="a-deployment-as-a-pair"),
        pytest.param(
            {OWNER: "released by me", REPLICAS: "4"}, "Deployment",
            "continue that release: `segue release DeploymentPair/b/chat`", id="a-pair-half-released",
        ),
    ],
)  # fmt: skip
def test_a_target_that_a_rollout_of_another_kind_holds_is_told_as_that(
    notes: dict[str, str], wanted: str, fix: str
) -> None:
    """It read as damaged, or as free with the advice to remove the annotations of a rollout that was under way."""
    with pytest.raises(Refused, match=re.escape(fix)):
        refuse_another_kind(noted(notes), wanted)


@pytest.mark.parametrize(
    ("notes", "wanted"),
    [
        pytest.param({OWNER: f"{ALONE}@1f"}, "Deployment", id="itself"),
        pytest.param({OWNER: f"{PAIRS}@1f", REPLICAS: "4"}, "DeploymentPair", id="itself-a-pair"),
        pytest.param({OWNER: "released by me", REPLICAS: "4"}, "DeploymentPair", id="a-pair-half-released"),
        pytest.param({OWNER: "released by me"}, "Deployment", id="half-released"),
        pytest.param({}, "Deployment", id="free"),
    ],
)
def test_a_target_that_a_rollout_of_its_kind_holds_passes(notes: dict[str, str], wanted: str) -> None:
    refuse_another_kind(noted(notes), wanted)


def test_why_a_release_waits_names_what_keeps_pods_away() -> None:
    """Its controller reports it in a condition of the Deployment, and removes the condition when it may create pods."""
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: full"}
    status = {"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}
    found: Any = {"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {**status, "conditions": [failure]}}
    assert _left(found) == "2 of 3 replicas available; no pod can be created: exceeded quota: full"
    assert _left({**found, "status": status}) == "2 of 3 replicas available"
    assert _left({**found, "status": {**found["status"], "availableReplicas": 3}}) == ""


def test_a_release_counts_the_pods_themselves() -> None:
    """What the controllers counted last may be old: they were away, and have not yet acted on what is requested."""

    def objects(*ready: str, requested: int = 2, observed: int = 3) -> Objects:
        owner: Any = [{"uid": "rs", "controller": True}]
        status: Any = [{"conditions": [{"type": "Ready", "status": each}]} for each in ready]
        pods: Any = [{"metadata": {"name": "a", "ownerReferences": owner}, "status": each} for each in status]
        metadata: Any = {"name": "chat-1", "uid": "rs", "generation": 3}
        replicaset: Any = {
            "metadata": metadata,
            "spec": {"replicas": requested},
            "status": {"observedGeneration": observed},
        }
        return Objects({"metadata": {}, "spec": {"replicas": 2}}, [replicaset], pods)

    assert _not_as_counted(objects("True", "True")) == ""
    assert _not_as_counted(objects("True", "False")) == _not_as_counted(objects("True")) == "1 of 2 replicas ready"
    behind = _not_as_counted(objects("True", "True", observed=2))
    assert behind == "the controller of replicaset chat-1 has not observed the change yet"
    assert _not_as_counted(objects("True", "True", requested=1)) == (
        "the controller of replicaset chat-1 has yet to remove 1 pod"
    )
