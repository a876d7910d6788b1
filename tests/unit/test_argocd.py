"""What Argo CD makes of a Rollout: its scripts, run by Lua 5.1 as Argo CD runs them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]

from segue.rollout_object import RETRY
from segue.rollout_object.orders import orders_of
from segue.rollout_object.showing import document
from segue.rollout_object.status import Condition, Kind, ObjectStatus

DATA = yaml.safe_load((Path(__file__).parents[2] / "deploy/argocd/argocd-cm.yaml").read_text())["data"]
HEALTH = DATA["resource.customizations.health.segue.dev_Rollout"]
ACTIONS = yaml.safe_load(DATA["resource.customizations.actions.segue.dev_Rollout"])
NOW = "2026-11-28T18:00:00Z"


def rollout(
    true: Kind, phase: str, outcome: str = "", *, seen: int = 2, paused: bool | None = None, approval: str = ""
) -> dict[str, Any]:
    """Return an object of generation 2, whose status is about generation ``seen``."""
    conditions = tuple(
        Condition(
            type=kind, status="True" if kind in {true, Kind.ACCEPTED} else "False", reason=phase, message="why",
            last_transition_time=NOW, observed_generation=seen,
        )
        for kind in Kind
    )  # fmt: skip
    status = ObjectStatus(
        observed_generation=seen, conditions=conditions, phase=phase, outcome=outcome, rollout="1f", approval=approval
    )
    spec = {} if paused is None else {"paused": paused}
    return {"metadata": {"name": "chat", "generation": 2}, "spec": spec, "status": document(status)}


def run(script: str, obj: Any) -> Any:
    """Run a script on an object, and return what it returns."""
    lua = LuaRuntime()
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return plain(lua.execute(script))


def plain(found: Any) -> Any:
    """Return Lua's tables as dictionaries."""
    return {key: plain(value) for key, value in found.items()} if hasattr(found, "items") else found


@pytest.mark.parametrize(
    ("obj", "health"),
    [
        pytest.param(rollout(Kind.READY, "Completed", "Completed"), "Healthy", id="completed"),
        pytest.param(rollout(Kind.RECONCILING, "Progressing"), "Progressing", id="progressing"),
        pytest.param(rollout(Kind.RECONCILING, "RollingBack"), "Progressing", id="rolling back"),
        pytest.param(rollout(Kind.RECONCILING, "AwaitingApproval"), "Suspended", id="approval"),
        pytest.param(rollout(Kind.RECONCILING, "Paused"), "Suspended", id="paused"),
        pytest.param(rollout(Kind.STALLED, "RolledBack", "RolledBack"), "Degraded", id="rolled back"),
        pytest.param(rollout(Kind.STALLED, "NeedsHuman"), "Degraded", id="needs a person"),
        pytest.param(rollout(Kind.READY, "Completed", "Completed", seen=1), "Progressing", id="edited since"),
        pytest.param({"metadata": {"generation": 1}, "spec": {}}, "Progressing", id="new"),
    ],
)
def test_the_health(obj: dict[str, Any], health: str) -> None:
    found = run(HEALTH, obj)
    assert found["status"] == health
    assert found["message"]


@pytest.mark.parametrize(
    ("obj", "offered"),
    [
        pytest.param(rollout(Kind.RECONCILING, "Progressing"), {"pause", "abort"}, id="progressing"),
        pytest.param(rollout(Kind.RECONCILING, "Paused", paused=True), {"resume", "abort"}, id="paused"),
        pytest.param(
            rollout(Kind.RECONCILING, "AwaitingApproval", approval="50%@2e"),
            {"pause", "abort", "approve", "reject"},
            id="approval",
        ),
        pytest.param(rollout(Kind.STALLED, "RolledBack", "RolledBack"), {"retry"}, id="rolled back"),
        pytest.param(rollout(Kind.READY, "Completed", "Completed"), set(), id="completed"),
        pytest.param({"metadata": {"generation": 1}, "spec": {}}, {"pause"}, id="new"),
    ],
)
def test_the_actions_that_it_offers(obj: dict[str, Any], offered: set[str]) -> None:
    found = run(ACTIONS["discovery.lua"], obj)
    assert {name for name, action in found.items() if not action["disabled"]} == offered
    assert found.keys() == {each["name"] for each in ACTIONS["definitions"]}


def test_what_the_actions_change() -> None:
    scripts = {each["name"]: each["action.lua"] for each in ACTIONS["definitions"]}
    obj = rollout(Kind.RECONCILING, "Progressing")
    assert run(scripts["pause"], obj)["spec"]["paused"] is True
    assert run(scripts["resume"], obj)["spec"]["paused"] is False
    asks = rollout(Kind.RECONCILING, "AwaitingApproval", approval="50%@2e")
    for action, order in {"approve": "50%@2e", "reject": "50%@2e", "abort": "1f"}.items():
        annotations = run(scripts[action], asks)["metadata"]["annotations"]
        assert [(each.verb, each.value) for each in orders_of(annotations)] == [(action, order)]
    assert int(run(scripts["retry"], obj)["metadata"]["annotations"][RETRY]) > 0
