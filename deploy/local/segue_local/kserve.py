"""KServe: its kinds, controller and webhooks, from the pinned module. Without Knative, Istio and gateway."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
from pathlib import Path
from typing import Any

import yaml

from segue_local.errors import LocalStackError
from segue_local.kube import KubeClient
from segue_local.modules import ModuleFiles

_GROUP = "serving.kserve.io"
_PLURALS = ("inferenceservices", "servingruntimes", "clusterservingruntimes", "trainedmodels", "inferencegraphs")
FILES = ModuleFiles(
    "kserve",
    "github.com/kserve/kserve",
    (
        *(f"config/crd/full/{_GROUP}_{plural}.yaml" for plural in _PLURALS),
        f"config/crd/full/clusterstoragecontainer/{_GROUP}_clusterstoragecontainers.yaml",
        "config/configmap/inferenceservice.yaml",
        "config/webhook/manifests.yaml",
    ),
)
PORTS = ("kserve", "kserve-health")
NAMESPACE = "kserve"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_SERVED_WITHIN_S = 60.0
_POLL_S = 0.05


def arguments(kubeconfig: Path, port: int, health_port: int) -> list[str]:
    """Return the controller's arguments. No argument sets its certificate: see ``add_certificate``."""
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--metrics-addr=0",
        f"--health-probe-addr=127.0.0.1:{health_port}",
        f"--webhook-port={port}",
    ]


def add_certificate(temporary: Path, pair: tuple[Path, Path]) -> None:
    """Link a certificate and its key where the controller reads them: below its ``TMPDIR``."""
    folder = temporary / "k8s-webhook-server" / "serving-certs"
    folder.mkdir(mode=0o700, parents=True)
    for path, name in zip(pair, ("tls.crt", "tls.key"), strict=True):
        (folder / name).symlink_to(path)


def add_kinds(client: KubeClient, files: list[Path]) -> None:
    """Create its kinds and configuration in an API server, and return when it serves them.

    The controller looks for them only once, when it starts. Raises ``LocalStackError``.
    """
    *definitions, configuration, _ = files
    try:
        for file in definitions:
            client.create_yaml(_DEFINITIONS, file.read_bytes())
        client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        client.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", _standard(configuration))
    except OSError as error:
        raise LocalStackError(f"the API server does not take KServe's definitions: {error}") from error
    ends = time.monotonic() + _SERVED_WITHIN_S
    while not _served(client):
        if time.monotonic() > ends:
            raise LocalStackError(f"the API server does not serve KServe's kinds after {_SERVED_WITHIN_S:g} s")
        time.sleep(_POLL_S)


def add_webhooks(client: KubeClient, file: Path, port: int, authority: Path) -> None:
    """Let the API server call the controller's webhooks on this machine. Raises ``LocalStackError``."""
    bundle = base64.b64encode(authority.read_bytes()).decode()
    try:
        for found in yaml.safe_load_all(file.read_text()):
            found["webhooks"] = [_local(each, port, bundle) for each in found["webhooks"]]
            client.create(f"{_ADMISSION}/{found['kind'].lower()}s", found)
    except OSError as error:
        raise LocalStackError(f"the API server does not take KServe's webhooks: {error}") from error


def _standard(file: Path) -> dict[str, Any]:
    """Return its configuration for plain Deployments and Services."""
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    data = {name: value for name, value in found["data"].items() if not name.startswith("_")}
    no_ingress = {"disableIngressCreation": True, "disableIstioVirtualHost": True}
    data["deploy"] = json.dumps({**json.loads(data["deploy"]), "defaultDeploymentMode": "Standard"})
    data["ingress"] = json.dumps({**json.loads(data["ingress"]), **no_ingress})
    return {"metadata": {"name": found["metadata"]["name"]}, "data": data}


def _local(webhook: dict[str, Any], port: int, bundle: str) -> dict[str, Any]:
    path = webhook["clientConfig"]["service"]["path"]
    here = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
    # Its manifests still name v1beta1, which current API servers do not serve.
    return {**webhook, "clientConfig": here, "admissionReviewVersions": ["v1"]}


def _served(client: KubeClient) -> bool:
    try:
        served = [client.get(f"/apis/{_GROUP}/{version}")["resources"] for version in ("v1beta1", "v1alpha1")]
    except urllib.error.HTTPError:
        return False  # not yet: 404
    names = {each["name"] for group in served for each in group}
    return names.issuperset((*_PLURALS, "clusterstoragecontainers"))
