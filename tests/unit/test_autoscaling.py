"""Autoscalers of a target that another object controls."""

from typing import Any

import pytest

from activities.autoscaling import refuse_controlled
from segue.errors import Refused


def scaler(*owners: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "keda-hpa-chat", **({"ownerReferences": list(owners)} if owners else {})}
    aim = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"}
    return {"metadata": metadata, "spec": {"scaleTargetRef": aim, "minReplicas": 1, "maxReplicas": 9}}


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("ScaledObject", 'leave it out, and annotate ScaledObject chat with autoscaling.keda.sh/paused: "true" until'),
        ("InferenceService", "leave it out, and pause InferenceService chat until"),
    ],
)
def test_one_whose_controller_restores_its_bounds_is_not_held(kind: str, fix: str) -> None:
    """Segue and that controller would write over each other."""
    with pytest.raises(Refused, match=r"has no effect: .* and would restore its bounds") as refused:
        refuse_controlled(scaler({"kind": kind, "name": "chat", "controller": True}))
    assert str(refused.value.fix).startswith(fix)


def test_an_owner_that_does_not_control_it_is_no_hindrance() -> None:
    refuse_controlled(scaler())
    refuse_controlled(scaler({"kind": "Deployment", "name": "chat"}))
