"""Configuration as content-hashed copies, and the places of a template that refer to it."""

import copy
from typing import Any

import pytest

from activities.levers.configs import config_maps_of, copies_of, is_copy
from activities.levers.template import apply_change
from segue.errors import Refused
from segue.spec import Change

TEMPLATE: dict[str, Any] = {
    "spec": {
        "volumes": [
            {"name": "a", "configMap": {"name": "model"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "model"}}, {"secret": {"name": "token"}}]}},
            {"name": "c", "secret": {"secretName": "token"}},
        ],
        "imagePullSecrets": [{"name": "token"}],
        "initContainers": [{"name": "init", "image": "i", "envFrom": [{"configMapRef": {"name": "model"}}]}],
        "containers": [
            {
                "name": "server",
                "image": "s",
                "envFrom": [{"secretRef": {"name": "token"}}, {"configMapRef": {"name": "model-other"}}],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "model", "key": "a"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "token", "key": "b"}}},
                    {"name": "C", "value": "model"},
                ],
            }
        ],
    }
}


UID = "0a-1b"


def rotated(**data: str) -> Change:
    return Change(config_maps={"model": data})


def test_every_reference_points_to_the_copy_and_no_other() -> None:
    (made,) = copies_of(rotated(a="1"), UID).values()
    name = made["metadata"]["name"]
    assert is_copy(name) and made["immutable"] and made["data"] == {"a": "1"}
    changed = apply_change(TEMPLATE, rotated(a="1"), UID)
    assert config_maps_of(changed) == {name, "model-other"}
    assert str(changed).count(name) == 4
    assert config_maps_of(TEMPLATE) == {"model", "model-other"}


def test_a_copy_is_named_by_its_content_and_its_target() -> None:
    """Of one that two targets share, the first to be deleted takes it from the other."""
    made = [(rotated(a="1"), UID), (rotated(a="2"), UID), (rotated(a="1"), "another")]
    assert len({next(iter(copies_of(*each).values()))["metadata"]["name"] for each in made}) == 3
    assert copies_of(rotated(a="1", b="2"), UID) == copies_of(rotated(b="2", a="1"), UID)


def test_the_next_change_replaces_the_copy_of_the_last() -> None:
    twice = apply_change(apply_change(TEMPLATE, rotated(a="1"), UID), rotated(a="2"), UID)
    assert twice == apply_change(TEMPLATE, rotated(a="2"), UID)


def test_references_to_one_secret_become_references_to_another() -> None:
    changed = apply_change(TEMPLATE, Change(secrets={"token": "token-2"}), UID)
    assert str(changed).count("token-2") == str(TEMPLATE).count("token") == 5


def test_a_secret_may_get_the_name_that_another_one_had() -> None:
    """Each name is that of the template before the change: neither is replaced twice."""
    spec = {"containers": [{"name": "server", "envFrom": [{"secretRef": {"name": each}} for each in ("now", "then")]}]}
    for secrets in ({"now": "next", "then": "now"}, {"then": "now", "now": "next"}, {"then": "now", "now": "then"}):
        (server,) = apply_change({"spec": spec}, Change(secrets=secrets), UID)["spec"]["containers"]
        assert [each["secretRef"]["name"] for each in server["envFrom"]] == [secrets["now"], secrets["then"]]


@pytest.mark.parametrize("nameless", [{}, {"name": ""}])
def test_a_pull_secret_without_a_name_is_none(nameless: dict[str, str]) -> None:
    template = {"spec": {**TEMPLATE["spec"], "imagePullSecrets": [nameless, {"name": "token"}]}}
    changed = apply_change(template, Change(secrets={"token": "token-2"}), UID)
    assert changed["spec"]["imagePullSecrets"] == [nameless, {"name": "token-2"}]
    with pytest.raises(Refused, match=r"use one of: token$"):
        apply_change(template, Change(secrets={"tokens": "x"}), UID)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            Change(config_maps={"mode": {"a": "1"}}),
            "configMaps.mode: is not referred to .* use one of: model, model-other",
        ),
        (Change(secrets={"tokens": "x"}), "secrets.tokens: is not referred to .* use one of: token"),
    ],
)
def test_what_is_not_referred_to_is_refused(change: Change, expected: str) -> None:
    before = copy.deepcopy(TEMPLATE)
    with pytest.raises(Refused, match=expected):
        apply_change(TEMPLATE, change, UID)
    assert before == TEMPLATE
