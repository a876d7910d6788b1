"""Who wrote a field, as the API server records it, and what admission takes from a write."""

import contextlib
from typing import Any

import pytest

from activities.levers.admission import ADMISSION, MOVE_FIX, START_FIX, refuse_lost, refuse_resized
from activities.levers.authors import is_written_by_us, later_writer_of, writer_of
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    WRITES,
    deletion_of,
    remembered,
    rewound,
    unsaved,
    with_number,
    written_of,
)
from segue.errors import Refused
from segue.spec.target import DeploymentTarget
from segue.state import Mark, State

SURGE = ("f:strategy", "f:rollingUpdate", "f:maxSurge")
PAUSED = ("f:paused",)


def entry(manager: str, *paths: tuple[str, ...], operation: str = "Update", at: str = "2026-01-01T00:00:00Z") -> Any:
    """Return a manager's entry, which owns these fields of the spec."""
    fields: dict[str, Any] = {}
    for path in paths:
        here = fields
        for step in path:
            here = here.setdefault(step, {})
    return {"manager": manager, "operation": operation, "time": at, "fieldsV1": {"f:spec": fields}}


OURS = entry("segue", SURGE, PAUSED)
TEMPLATE = ("f:template", "f:spec", "f:containers")
THEIRS = entry("kubectl-set", TEMPLATE, at="2026-01-01T00:00:09Z")
CO_OWNER = entry("argocd-controller", SURGE, operation="Apply", at="2026-01-01T00:00:09Z")


@pytest.mark.parametrize(
    ("entries", "ours"),
    [
        pytest.param([OURS], True, id="only we"),
        pytest.param([OURS, CO_OWNER], True, id="another applied our value"),
        pytest.param([entry("segue", SURGE), entry("kubectl", PAUSED)], False, id="another wrote one of them"),
        pytest.param([entry("segue", SURGE)], True, id="we removed one of them"),
        pytest.param([CO_OWNER], False, id="another took it"),
        pytest.param([], False, id="nobody"),
    ],
)
def test_a_value_is_ours_while_we_own_its_field(entries: list[Any], ours: bool) -> None:
    found = {"metadata": {"managedFields": entries}, "spec": {}}
    assert is_written_by_us(found, SURGE, PAUSED) is ours
    assert (writer_of(found, SURGE, PAUSED) is None) is ours


def test_the_other_writer_has_a_name() -> None:
    found = {"metadata": {"managedFields": [entry("segue", PAUSED), CO_OWNER]}, "spec": {}}
    assert writer_of(found, SURGE) == "argocd-controller (Apply at 2026-01-01T00:00:09Z)"


@pytest.mark.parametrize(
    ("entries", "who"),
    [
        pytest.param([entry("segue", TEMPLATE, at="2026-01-01T00:00:10Z"), THEIRS], "", id="ours-is-later"),
        pytest.param([entry("segue", TEMPLATE), THEIRS], "kubectl-set (Update at 2026-01-01T00:00:09Z)", id="theirs"),
        pytest.param([THEIRS], "kubectl-set (Update at 2026-01-01T00:00:09Z)", id="only-they-wrote"),
        pytest.param([entry("segue", TEMPLATE), CO_OWNER], "", id="another-field"),
        pytest.param([], "", id="nobody"),
    ],
)
def test_who_wrote_a_field_after_us_has_a_name(entries: list[Any], who: str) -> None:
    assert later_writer_of({"metadata": {"managedFields": entries}}, TEMPLATE[:1]) == who


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param({OWNER: "us", BASELINE: "{}", "theirs": "x"}, "", id="kept"),
        pytest.param({"theirs": "x"}, f"the annotations {OWNER}, {BASELINE}", id="removed"),
        pytest.param({OWNER: "us", BASELINE: "?"}, f"the annotations {BASELINE}", id="changed"),
    ],
)
def test_a_target_whose_annotations_admission_removes_is_refused(stored: dict[str, str], expected: str) -> None:
    """Otherwise the rollout would be fenced off from a target that it holds, without a baseline to go back to."""
    patch = {"metadata": {"annotations": {OWNER: "us", BASELINE: "{}", "note": None}}, "spec": {}}
    target = DeploymentTarget(namespace="serving", name="chat")
    with pytest.raises(Refused) if expected else contextlib.nullcontext() as refused:
        refuse_lost(target, {"metadata": {}}, patch, {"metadata": {"annotations": stored}}, START_FIX)
    if refused is not None:
        assert f"Deployment serving/chat: {ADMISSION} changes" in str(refused.value)
        assert expected in str(refused.value) and str(refused.value).endswith(START_FIX)


def test_a_policy_that_changes_what_an_earlier_write_left_is_refused() -> None:
    """A move does not send the baseline again, and a policy that changes it then would leave nothing to go back to."""
    found = {"metadata": {"annotations": {OWNER: "us", BASELINE: "{}"}}}
    target, patch = DeploymentTarget(namespace="serving", name="chat"), {"metadata": {"annotations": {OWNER: "us"}}}
    refuse_lost(target, found, patch, found, MOVE_FIX)
    for kept in ({OWNER: "us"}, {OWNER: "us", BASELINE: "x"}):
        with pytest.raises(Refused, match=BASELINE):
            refuse_lost(target, found, patch, {"metadata": {"annotations": kept}}, MOVE_FIX)


@pytest.mark.parametrize(
    ("sent", "stored", "version", "expected"),
    [
        pytest.param({}, 4, "7", "", id="kept"),
        pytest.param({}, 2, "7", "replicas=4 to replicas=2", id="fewer"),
        pytest.param({"replicas": 6}, 6, "7", "", id="as-sent"),
        pytest.param({"replicas": 6}, 5, "7", "replicas=6 to replicas=5", id="fewer-than-sent"),
        pytest.param({}, 2, "8", "", id="an-autoscaler-wrote-in-between"),
    ],
)
def test_a_policy_that_sets_the_replicas_is_refused(sent: Any, stored: int, version: str, expected: str) -> None:
    """The write itself would take ready replicas away."""
    found = {"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 4}}
    tried = {"metadata": {"resourceVersion": version}, "spec": {"replicas": stored}}
    target = DeploymentTarget(namespace="serving", name="chat")
    with pytest.raises(Refused, match=expected) if expected else contextlib.nullcontext():
        refuse_resized(target, found, {"spec": sent}, tried, MOVE_FIX)


def test_a_target_that_was_created_again_is_named_and_a_held_copy_is_released() -> None:
    def told(found: Any) -> str:
        seen = deletion_of(found, Mark(uid="theirs"))
        assert seen is not None and seen.gone
        return seen.gone_why

    made = told({"metadata": {"uid": "another"}})
    assert told(None) == "" and "was deleted and created again" in made and "segue release" not in made
    assert "run `segue release`" in told({"metadata": {"uid": "another", "annotations": {BASELINE: "{}"}}})


def revision(number: int, **annotations: str) -> Any:
    return {"revision": number, "metadata": {"annotations": annotations}}


@pytest.mark.parametrize(
    ("annotations", "found"),
    [
        pytest.param({OWNER: "us"}, "second", id="only-the-baseline-is-gone"),
        pytest.param({}, None, id="it-belongs-to-nobody"),
        pytest.param({OWNER: "us", BASELINE: "there"}, "there", id="nothing-is-gone"),
    ],
)
def test_a_baseline_that_somebody_removed_is_read_from_a_revision(
    annotations: dict[str, str], found: str | None
) -> None:
    """A StatefulSet's controller copies the annotations to each revision that it makes."""
    target = {"metadata": {"name": "chat", "annotations": annotations}}
    revisions = [revision(1), revision(2, **{BASELINE: "first"}), revision(10, **{BASELINE: "second"}), revision(11)]
    assert remembered(target, revisions)["metadata"]["annotations"].get(BASELINE) == found
    assert target["metadata"]["annotations"] == annotations, "what was read is not changed"
    held = State(owner="us", claimed=True)
    lost = unsaved(remembered(target, []), held)
    assert (lost is not None) is (BASELINE not in annotations and OWNER in annotations)
    assert lost is None or "put it back, or write the former version yourself" in str(lost)
    assert unsaved(target, held.but(claimed=False)) is None


@pytest.mark.parametrize(
    ("finalizers", "said"),
    [
        pytest.param([], "is being deleted since 2026-11-29T12:00:00Z: its pods go", id="foreground"),
        pytest.param(["example.org/keep"], "(finalizers: example.org/keep)", id="kept"),
        pytest.param(["orphan"], "was deleted at 2026-11-29T12:00:00Z, and its pods stay; if", id="orphaned"),
    ],
)
def test_the_end_of_a_target_that_is_being_deleted_says_what_becomes_of_its_pods(
    finalizers: list[str], said: str
) -> None:
    found = {"metadata": {"uid": "u", "deletionTimestamp": "2026-11-29T12:00:00Z", "finalizers": finalizers}}
    seen = deletion_of(found, Mark())
    assert seen is not None and seen.gone
    assert said in seen.gone_why


def held(owner: str | None = "us", number: str | None = None) -> Any:
    found = {OWNER: owner, WRITES: number}
    return {"metadata": {"annotations": {name: value for name, value in found.items() if value is not None}}}


@pytest.mark.parametrize(
    ("patch", "found", "number"),
    [
        pytest.param({OWNER: "us"}, held(None), "3", id="claims"),
        pytest.param({}, held(number="2"), "3", id="moves"),
        pytest.param({OWNER: None}, held(number="2"), None, id="ends"),
        pytest.param({}, held("others", "9"), "absent", id="of-another"),
        pytest.param({}, held(None), "absent", id="of-nobody"),
    ],
)
def test_a_write_leaves_its_number_on_an_own_target(patch: Any, found: Any, number: str | None) -> None:
    sent = {"metadata": {"annotations": patch}, "spec": {}}
    made = with_number(sent, found, State(owner="us", attempts=3))
    assert made["metadata"]["annotations"].get(WRITES, "absent") == number
    assert sent == {"metadata": {"annotations": patch}, "spec": {}}, "the caller's patch stays"


@pytest.mark.parametrize(
    ("found", "attempts", "is_rewound"),
    [
        pytest.param(held(number="3"), 3, False, id="its-own"),
        pytest.param(held(number="2"), 3, False, id="its-answer-is-not-known-yet"),
        pytest.param(held(number="4"), 3, True, id="later"),
        pytest.param(held(number="1"), 0, True, id="it-has-forgotten-all"),
        pytest.param(held("others", "4"), 3, False, id="of-another"),
        pytest.param(held(), 3, False, id="of-an-earlier-release"),
        pytest.param(held(number="many"), 3, False, id="damaged"),
    ],
)
def test_a_workflow_that_forgot_a_write_finds_it(found: Any, attempts: int, is_rewound: bool) -> None:
    late = rewound(found, written_of(found), "v2", State(owner="us", attempts=attempts))
    assert (late is not None) == is_rewound
    assert late is None or (late.template, late.attempts) == ("v2", written_of(found))
