"""The chart on a real API server: installed, upgraded, taken back and removed, with exactly the published rights."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from harness import ROOT, Lab, open_lab, until
from helm import CHART, Helm, Values
from kube_api import create
from kubernetes import client
from segue_local import Stack

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
RIGHTS = ("rbac", "rbac-gates", "rbac-serving", "rbac-room")


class Installed(NamedTuple):
    """A release in a namespace of its own that admits only restricted pods; ``lab`` has a target namespace."""

    helm: Helm
    lab: Lab
    namespace: str

    @property
    def release(self) -> str:
        # Unique: the names of cluster roles come from it.
        return self.namespace

    @property
    def account(self) -> str:
        return f"{self.release}-worker"

    def values(self, *namespaces: str, **rbac: Any) -> Values:
        return {
            "image": {"repository": "segue.local/segue", "pullPolicy": "Never"},
            "temporal": {"address": self.lab.stack.temporal_address, "taskQueue": self.lab.task_queue},
            "rbac": {"namespaces": [*namespaces], **rbac},
        }

    async def run(self, command: str, *arguments: str, values: Values | None = None) -> str:
        """Run a command of Helm on the release, and return its output."""
        place = (self.release, *arguments, "-n", self.namespace)
        return (await asyncio.to_thread(self.helm.run, *command.split(), *place, values=values)).stdout

    def as_account(self) -> client.ApiClient:
        """Return a client with a token of the workers' ServiceAccount, as its pods have one."""
        request = {"spec": {"expirationSeconds": 3600}}
        token = create(self.lab.core.create_namespaced_service_account_token, self.account, self.namespace, request)
        admin = self.lab.core.api_client.configuration
        own = client.Configuration(host=admin.host)
        own.ssl_ca_cert = admin.ssl_ca_cert
        own.api_key["authorization"] = f"Bearer {token.status.token}"
        return client.ApiClient(own)

    def may(self, namespace: str) -> set[tuple[str, str, str]]:
        """Return what the API server lets the account do: verb, group and resource."""
        review = {"spec": {"namespace": namespace}}
        api = client.AuthorizationV1Api(self.as_account())
        answer = create(api.create_self_subject_rules_review, review).status
        assert not answer.incomplete
        return flat([rule.to_dict() for rule in answer.resource_rules], "api_groups")


def flat(rules: list[Any], groups: str = "apiGroups") -> set[tuple[str, str, str]]:
    """Return rules as triples; what every account may ask about itself is left out."""
    found = {(v, g, r) for rule in rules for v in rule["verbs"] for g in rule[groups] for r in rule["resources"]}
    return {each for each in found if each[1] not in {"authorization.k8s.io", "authentication.k8s.io"}}


def published(*names: str) -> set[tuple[str, str, str]]:
    roles = [next(yaml.safe_load_all((ROOT / f"deploy/{name}.yaml").read_text())) for name in names]
    return flat([rule for role in roles for rule in role["rules"]])


@pytest.fixture
async def installed(stack: Stack, tmp_path: Path) -> AsyncIterator[Installed]:
    """A release with the rights of one namespace; it is uninstalled afterwards."""
    async with open_lab(stack) as lab:
        namespace = f"segue-{uuid.uuid4().hex[:8]}"
        create(lab.core.create_namespace, {"metadata": {"name": namespace, "labels": RESTRICTED}})
        found = Installed(Helm(tmp_path, stack.env()), lab, namespace)
        await found.run("install", str(CHART), values=found.values(lab.namespace))
        try:
            yield found
        finally:
            await found.run("uninstall", "--ignore-not-found")
            lab.core.delete_namespace(namespace)


async def test_from_install_to_uninstall(installed: Installed) -> None:
    """Restricted pods run; an upgrade and its rollback change the rights with the values; nothing is left."""
    lab, first = installed.lab, installed.lab.namespace

    def available() -> bool:
        found: Any = lab.apps.read_namespaced_deployment(installed.account, installed.namespace)
        status = found.status
        return (status.available_replicas, status.updated_replicas) == (2, 2)

    assert "2 workers of Segue serve task queue" in await installed.run("get notes")
    await until("both workers are admitted and ready", available)
    assert await until("its rights", lambda: installed.may(first)) == published("rbac")
    assert installed.may("default") == set()

    wide = installed.values(clusterWide=True, gates=True, serving=True, room=True)
    await installed.run("upgrade", str(CHART), values=wide)
    await until("the rights of the upgrade", lambda: installed.may("default") == published(*RIGHTS))
    await installed.run("rollback", "1")
    await until("the rights of the install", lambda: installed.may("default") == set())
    assert installed.may(first) == published("rbac")

    await installed.run("uninstall")
    mine: dict[str, Any] = {"label_selector": f"app.kubernetes.io/instance={installed.release}"}
    rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
    await until("no worker is left", lambda: not lab.core.list_namespaced_pod(installed.namespace, **mine).items)
    for found in (rbac.list_cluster_role(**mine), rbac.list_role_for_all_namespaces(**mine)):
        assert found.items == []
