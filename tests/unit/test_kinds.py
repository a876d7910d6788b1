"""Every kind of target has its line in each list by kind. The test that fails names what a new kind lacks."""

from typing import Any, cast

import pytest

from activities.levers import Levers
from segue import rights
from segue.lint.target import KINDS as ROLLED_BY_A_BUDGET
from segue.spec import KINDS, PairTarget, Target

LEVERS = Levers(cast("Any", None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_has_a_lever_for_it_and_no_right_is_forgotten(kind: str) -> None:
    model: type[Target] = KINDS[kind]
    single = {"name": "a", "resource": "InferenceService"}
    others: dict[str, Any] = {"old": "a", "new": "b"} if model is PairTarget else single
    lever = LEVERS.of(model.model_construct(kind=kind, **others))
    resource, _, group = lever.kinds[0].partition("/")[0].partition(".")
    needed = {rights.Right("get", group or "apps", resource), rights.Right("list", "", "pods")}
    assert needed <= {*rights.needed({rights.Use(kind)})}


@pytest.mark.parametrize("kind", [each for each in KINDS if each not in {"DeploymentPair", "Supervised"}])
def test_lint_knows_how_its_own_controller_rolls(kind: str) -> None:
    assert kind in ROLLED_BY_A_BUDGET
