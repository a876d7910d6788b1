"""``segue plan`` shows what would happen, and needs neither Temporal nor, with --replicas, a cluster."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
Segue = Callable[..., Any]

ROLLOUTS = sorted(p.name for p in EXAMPLES.glob("*.yaml") if "kind: Rollout" in p.read_text())


def test_of_an_operators_own_rollout_only_the_ends_are_known(segue: Segue) -> None:
    """Nothing is promised that Segue does not do."""
    given = ("plan", str(EXAMPLES / "supervised.yaml"), "--replicas", "2")
    stages = json.loads(segue(*given, "-o", "json").out)["stages"]
    assert [(s["old"], s["new"], s["action"]) for s in stages] == [(2, 0, "start"), (0, 2, "operator")]
    assert "its own operator replaces them" in segue(*given).out


def test_json_is_exactly_the_published_interface(segue: Segue) -> None:
    """The JSON has no key beyond the interface, and a waypoint only where there is one."""
    ran = segue("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6", "-o", "json")
    assert (ran.code, ran.err) == (0, "")
    plan = json.loads(ran.out)
    assert plan == {
        "replicas": 6,
        "floor": 6,
        "ceiling": 8,
        "stages": [
            {"old": 6, "new": 0, "action": "start"},
            {"old": 6, "new": 1, "action": "scaleNew", "waypoint": {"at": 1, "hold": "30s", "approval": False}},
            {"old": 5, "new": 1, "action": "scaleOld"},
            {"old": 5, "new": 3, "action": "scaleNew", "waypoint": {"at": "50%", "hold": "0s", "approval": True}},
            {"old": 3, "new": 3, "action": "scaleOld"},
            {"old": 3, "new": 5, "action": "scaleNew"},
            {"old": 1, "new": 5, "action": "scaleOld"},
            {"old": 1, "new": 6, "action": "scaleNew"},
            {"old": 0, "new": 6, "action": "scaleOld"},
        ],
    }


def _exported(text: str, **spec: Any) -> dict[str, Any]:
    """Return the spec as ``kubectl get rollout -o yaml`` prints its object."""
    found = yaml.safe_load(text)
    found["metadata"] |= {
        "namespace": "serving", "uid": "0a-1b", "resourceVersion": "12", "generation": 2, "finalizers": ["segue.dev/x"],
        "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{}], "ownerReferences": [{}],
    }  # fmt: skip
    return {**found, "spec": {**found["spec"], **spec}, "status": {"phase": "Completed"}}


def test_an_object_of_a_cluster_is_planned(segue: Segue, tmp_path: Path) -> None:
    """As kubectl prints it, alone or as the only one of a list, and also if it is paused: it is not started."""
    text, file = (EXAMPLES / "rollout.yaml").read_text(), tmp_path / "exported.yaml"
    plan = segue("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6").out
    found = _exported(text, paused=True, onDelete="leave")
    for each in (found, {"apiVersion": "v1", "kind": "List", "items": [found], "metadata": {"resourceVersion": ""}}):
        file.write_text(yaml.safe_dump(each))
        assert segue("plan", str(file), "--replicas", "6").out == plan
    refused = segue("start", str(file))
    assert (refused.code, "spec.paused: true: is only for a Rollout in Kubernetes" in refused.err) == (2, True)
    for several in ([], [{"kind": "Rollout"}, {"kind": "Rollout"}], None):
        file.write_text(yaml.safe_dump({"kind": "List", "items": several}))
        refused = segue("plan", str(file), "--replicas", "6")
        assert refused.code == 2
        assert f"is a list of {len(several or [])} objects; give one Rollout: `kubectl get rollout" in refused.err


def test_what_only_an_api_server_writes_is_refused_in_a_file(segue: Segue, tmp_path: Path) -> None:
    """A field that is misplaced in a file is told: only an object that was read from a cluster has it rightly."""
    file = tmp_path / "spec.yaml"
    file.write_text((EXAMPLES / "rollout.yaml").read_text() + "status: {phase: Completed}\n")
    refused = segue("plan", str(file), "--replicas", "6")
    assert (refused.code, "status: is not a field that Segue knows" in refused.err) == (2, True)


def test_the_table_is_readable_in_a_pipe(segue: Segue) -> None:
    """Piped, the table has no colours and no cut cells, and says what it takes at the worst moment."""
    ran = segue("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6")
    assert (ran.code, ran.err) == (0, "")
    assert "\x1b" not in ran.out
    assert "…" not in ran.out
    lines = ran.out.splitlines()
    assert lines[0] == "chat: Deployment serving/chat, 6 replicas"
    assert lines[2].split() == ["stage", "old", "new", "total", "what", "happens", "waypoint"]
    assert lines[3].split() == ["0", "6", "0", "6", "██████··", "as", "it", "is", "now"]
    assert "at 1: verify, hold 30s" in lines[4]
    assert "at 50%: verify, approval" in lines[6]
    assert lines[-2] == "floor 6 ready, ceiling 8 in all; needs up to 2 replicas more than now (8 instead of 6)"
    assert lines[-1].startswith("moves can be smaller than shown")


def test_an_approval_that_expires_says_what_follows(segue: Segue, tmp_path: Path) -> None:
    """The table says how long it asks, and what is taken when nobody answers."""
    text = (
        (EXAMPLES / "rollout.yaml").read_text().replace("approval: true", "approval: {expires: 1h, default: approve}")
    )
    (tmp_path / "rollout.yaml").write_text(text)
    ran = segue("plan", str(tmp_path / "rollout.yaml"), "--replicas", "6")
    assert (ran.code, ran.err) == (0, "")
    assert "at 50%: verify, approval, else approve after 1h" in ran.out


@pytest.mark.parametrize("name", ROLLOUTS)
@pytest.mark.parametrize("replicas", [1, 4, 100])
def test_every_example_can_be_planned(segue: Segue, name: str, replicas: int) -> None:
    """Each example is a valid spec, and its plan goes from all old to all new."""
    ran = segue("plan", str(EXAMPLES / name), "--replicas", str(replicas), "-o", "json")
    assert ran.code == 0, ran.err
    stages = json.loads(ran.out)["stages"]
    assert (stages[0]["old"], stages[0]["new"]) == (replicas, 0)
    assert (stages[-1]["old"], stages[-1]["new"]) == (0, replicas)
    assert segue("plan", str(EXAMPLES / name), "--replicas", str(replicas)).code == 0


def test_a_thousand_replicas_one_by_one(segue: Segue) -> None:
    """The table has every stage of the longest plan that an example makes."""
    ran = segue("plan", str(EXAMPLES / "no-extra-gpu.yaml"), "--replicas", "1000")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-3].split()[:3] == ["2000", "0", "1000"]


def test_scale_in_needs_nothing_more(segue: Segue) -> None:
    """An order that takes first says that it needs no extra capacity."""
    ran = segue("plan", str(EXAMPLES / "no-extra-gpu.yaml"), "--replicas", "3")
    assert ran.out.splitlines()[-1] == "floor 2 ready, ceiling 3 in all; needs no more replicas than now (3)"


def test_a_spec_can_come_from_standard_input(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` reads the spec from standard input."""
    spec = (EXAMPLES / "minimal.yaml").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(spec)))
    assert segue("plan", "-", "--replicas", "4").code == 0


def test_without_a_cluster_plan_says_what_is_missing(segue: Segue, tmp_path: Path) -> None:
    """Without --replicas it reads the cluster; without a cluster the error names the fix."""
    ran = segue("plan", str(EXAMPLES / "rollout.yaml"))
    assert ran.code == 2
    assert ran.err.startswith("error: KUBECONFIG: ")
    assert ran.out == ""
