"""The list of rights: the committed manifests are made from it, and it fits what the client can request."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.api_paths import BUILT_IN
from segue.rights import (
    BASE,
    KINDS,
    PUBLISHED,
    ROOM,
    Right,
    Role,
    Use,
    commands,
    described,
    grant_for,
    grants,
    manifest,
    needed,
    uses_of,
)
from segue.spec import Change, DeploymentTarget, PairTarget, Rules

ROOT = Path(__file__).parents[2]
LISTED = {right for role in PUBLISHED.values() for rule in role.rules for right in rule.rights}


@pytest.mark.parametrize("role", PUBLISHED.values(), ids=PUBLISHED)
def test_the_committed_manifest_is_made_from_the_list(role: Role) -> None:
    """Run `make rights` after a change of the list."""
    text = (ROOT / role.file).read_text()
    assert text == manifest(role)
    kind, binding = yaml.safe_load_all(text)
    granted = {
        Right(verb, group, resource)
        for rule in kind["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {right for rule in role.rules for right in rule.rights}
    assert binding["roleRef"]["kind"] == kind["kind"] and binding["roleRef"]["name"] == kind["metadata"]["name"]


def test_the_binding_names_the_service_account_that_is_given() -> None:
    _, binding = yaml.safe_load_all(manifest(BASE, ("ml", "roller")))
    assert {"kind": "ServiceAccount", "name": "roller", "namespace": "ml"} in binding["subjects"]


def test_each_right_is_of_a_kind_that_the_client_knows() -> None:
    """A right for a path that the client cannot make would be granted for nothing."""
    for right in LISTED:
        kind = right.resource.partition("/")[0]
        api = f"apis/{right.group}/" if right.group else "api/"
        is_custom = right.group in {
            "segue.dev", "serving.kserve.io", "leaderworkerset.x-k8s.io", "gateway.networking.k8s.io",
            "inference.networking.k8s.io",
        }  # fmt: skip
        assert is_custom or BUILT_IN[kind].startswith(api), right


def rules(**fields: Any) -> Rules:
    return Rules.model_validate(fields)


def test_a_rollout_needs_only_the_rights_of_its_own_kind_and_parts() -> None:
    target = DeploymentTarget(name="chat")
    plain = uses_of(target, rules(), Change())
    assert plain == {Use.DEPLOYMENT}
    resources = {right.resource for right in needed(plain)}
    assert resources == {"deployments", "replicasets", "pods"}
    assert Right("create", "apps", "deployments") not in needed(plain)
    more = rules(autoscaler="hold", drain={}, gates=[{"name": "smoke", "job": {"image": "a:1"}}])
    change = Change.model_validate({"configMaps": {"model": {"a": "1"}}})
    assert uses_of(target, more, change) == {Use.DEPLOYMENT, Use.HOLD, Use.DRAIN, Use.JOB, Use.CONFIG_MAPS}
    pair = PairTarget(old="a", new="b")
    assert Right("create", "apps", "deployments") in needed(uses_of(pair, rules(), Change()))


def test_a_custom_resource_of_the_settings_needs_the_same_verbs() -> None:
    found = needed([Use.SUPERVISED], "models.example.com/v1")
    assert {right.verb for right in found if right.group == "example.com"} == {"get", "list", "watch", "patch"}
    assert not [right for right in found if right.group == "serving.kserve.io"]
    assert "after you add to it: get, list, watch, patch models.example.com" in commands(found, "serving")


def test_every_use_needs_rights() -> None:
    assert all(needed([use]) for use in Use)
    assert set(needed(Use)) <= LISTED
    assert {str(use) for use in KINDS} == {
        "Deployment",
        "DeploymentPair",
        "StatefulSet",
        "LeaderWorkerSet",
        "Supervised",
    }


def test_the_command_grants_all_roles_that_are_needed() -> None:
    rights = [Right("get", "batch", "jobs"), Right("list", "", "pods"), Right("watch", "", "pods")]
    assert described(rights) == "get jobs.batch; list, watch pods"
    assert commands(rights, "ml") == (
        "kubectl apply -n ml -f deploy/rbac-gates.yaml && kubectl apply -n ml -f deploy/rbac.yaml"
    )


@pytest.mark.parametrize(
    ("denial", "command"),
    [
        ('deployments.apps "a" is forbidden: User "x" cannot patch resource "deployments" in API group "apps" in the '
         'namespace "ml"', "kubectl apply -n ml -f deploy/rbac.yaml"),
        ('pods "a" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "ml"',
         "kubectl apply -n ml -f deploy/rbac-serving.yaml"),
        ('nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope',
         ROOM.command("")),
        ('pods is forbidden: User "x" cannot list resource "pods" in API group "" at the cluster scope',
         "kubectl apply -f deploy/rbac-room.yaml"),
        ('secrets is forbidden: User "x" cannot list resource "secrets" in API group "" in the namespace "ml"', None),
        ("no such thing", None),
    ],
)  # fmt: skip
def test_the_denial_names_the_command_that_grants_the_right(denial: str, command: str | None) -> None:
    found = grant_for(denial)
    assert (found and found.command) == command


@pytest.mark.parametrize(
    ("changed", "granted"),
    [
        pytest.param({}, True, id="exact"),
        pytest.param({"verbs": ["get", "*"]}, True, id="any-verb"),
        pytest.param({"apiGroups": ["*"], "resources": ["*"]}, True, id="any-resource"),
        pytest.param({"verbs": ["get"]}, False, id="another-verb"),
        pytest.param({"apiGroups": ["apps"]}, False, id="another-group"),
        pytest.param({"resources": ["pods"]}, False, id="the-resource-of-a-subresource"),
        pytest.param({"resourceNames": ["chat-0"]}, False, id="some-objects"),
        pytest.param({"resources": None}, False, id="not-a-resource"),
    ],
)
def test_rules_of_the_api_server_grant_a_right(changed: dict[str, Any], granted: bool) -> None:
    """What they do not surely grant is checked by itself."""
    rule = {"verbs": ["patch"], "apiGroups": [""], "resources": ["pods/status"], **changed}
    assert (
        grants([{"verbs": ["get"], "nonResourceURLs": ["/version"]}, rule], Right("patch", "", "pods/status"))
        is granted
    )
