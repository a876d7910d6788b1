"""Credentials of a kubeconfig that something renews, against a real API server: none of them needs a restart."""

import base64
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Lab, until

from activities.cluster import Cluster, connected
from activities.credentials import AGAIN_S
from segue.clusters import Access
from segue.errors import NotAllowed, Refused

WRONG = "e30.e30.e30"


def kubeconfig(lab: Lab, folder: Path, user: dict[str, Any]) -> Path:
    """Write a kubeconfig for the same API server with another user."""
    found = yaml.safe_load(lab.stack.kubeconfig.read_text())
    found["users"] = [{"name": each["name"], "user": user} for each in found["users"]]
    written = folder / "kubeconfig"
    written.write_text(yaml.safe_dump(found))
    return written


def token_of(lab: Lab) -> str:
    """Return a token of a ServiceAccount that may read Deployments."""
    api: Any = lab.core
    api.create_namespaced_service_account(lab.namespace, {"metadata": {"name": "outside"}})
    subject = {"kind": "ServiceAccount", "name": "outside", "namespace": lab.namespace}
    binding = {
        "metadata": {"name": "outside"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [subject],
    }
    rbac: Any = lab._rbac
    rbac.create_namespaced_role_binding(lab.namespace, binding)
    return str(api.create_namespaced_service_account_token("outside", lab.namespace, {"spec": {}}).status.token)


@asynccontextmanager
async def outside(file: Path) -> AsyncIterator[Cluster]:
    async with connected(Access(kubeconfig=str(file))) as cluster:
        yield cluster


async def _reads(lab: Lab, cluster: Cluster) -> bool:
    try:
        await cluster.list("deployments", lab.namespace)
    except NotAllowed as error:
        assert "renew the credentials" in str(error)
        return False
    return True


def _plugin(folder: Path, token: Path) -> dict[str, Any]:
    """A credential plugin, which counts how often it runs."""
    program = folder / "plugin.py"
    program.write_text(
        "import json, pathlib\n"
        f"with open({str(folder / 'runs')!r}, 'a') as runs: runs.write('x')\n"
        f"token = pathlib.Path({str(token)!r}).read_text()\n"
        "version = 'client.authentication.k8s.io/v1'\n"
        "print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': {'token': token}}))\n"
    )
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(program)]}}


def _file(folder: Path, token: Path) -> dict[str, Any]:
    return {"tokenFile": token.name}


@pytest.mark.parametrize("user_of", [_file, _plugin], ids=["token file", "plugin"])
async def test_a_token_is_read_again_when_it_is_refused(
    served: Lab, tmp_path: Path, user_of: Callable[[Path, Path], dict[str, Any]]
) -> None:
    """As it expires: the request that met it is repeated with the new one."""
    token, good = tmp_path / "token", token_of(served)
    token.write_text(WRONG)
    async with outside(kubeconfig(served, tmp_path, user_of(tmp_path, token))) as cluster:
        assert not await _reads(served, cluster)
        assert not await _reads(served, cluster)
        token.write_text(f"{good}\n")
        await until("it reads", lambda: _reads(served, cluster), limit_s=AGAIN_S * 6)
        for _ in range(5):
            assert await _reads(served, cluster)
    runs = tmp_path / "runs"
    assert not runs.exists() or len(runs.read_text()) <= 4, "a plugin does not run for each request"


async def test_a_certificate_is_read_again_when_it_is_refused(served: Lab, tmp_path: Path) -> None:
    """The key and the certificate of the file are those of further connections."""
    given = yaml.safe_load(served.stack.kubeconfig.read_text())["users"][0]["user"]
    good = {name: base64.b64decode(given[f"{name}-data"]) for name in ("client-certificate", "client-key")}
    other = yaml.safe_load(served.stack.kubeconfig_for("nobody").read_text())["users"][0]["user"]
    for name in good:
        (tmp_path / name).write_bytes(base64.b64decode(other[f"{name}-data"]))
    async with outside(kubeconfig(served, tmp_path, {name: name for name in good})) as cluster:
        with pytest.raises(NotAllowed, match="nobody"):
            await cluster.list("deployments", served.namespace)
        (tmp_path / "client-certificate").write_bytes(good["client-certificate"])
        cluster._credentials._due_at = 0  # a minute later
        with pytest.raises(NotAllowed, match="nobody"):  # the pair of before stays until the key is there, too
            await cluster.list("deployments", served.namespace)
        (tmp_path / "client-key").write_bytes(good["client-key"])
        cluster._credentials._due_at = 0
        await cluster.list("deployments", served.namespace)


async def test_a_plugin_that_fails_is_told(served: Lab, tmp_path: Path) -> None:
    """Otherwise requests would have no credentials."""
    failing = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}
    with pytest.raises(Refused, match="exec: process returned 1"):
        await Cluster.connect(Access(kubeconfig=str(kubeconfig(served, tmp_path, {"exec": failing}))))
