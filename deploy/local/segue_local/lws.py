"""LeaderWorkerSet: its kind, controller and webhooks, from the pinned module."""

from __future__ import annotations

import base64
import socket
import time
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segue_local.errors import LocalStackError
from segue_local.kube import KubeClient
from segue_local.modules import ModuleFiles

FILES = ModuleFiles(
    "lws",
    "sigs.k8s.io/lws",
    (
        "config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml",
        "config/crd/bases/disaggregatedset.x-k8s.io_disaggregatedsets.yaml",
        "config/webhook/manifests.yaml",
    ),
)
PORTS = ("lws", "lws-health")
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_KINDS = ("leaderworkerset.x-k8s.io/v1/leaderworkersets", "disaggregatedset.x-k8s.io/v1/disaggregatedsets")
_SERVED_WITHIN_S = 30.0
_POLL_S = 0.05
_OF_GROUPS = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}
"""The selector of the project's own patch: without it, the webhooks would get every pod of the cluster."""


def configuration(ports: Mapping[str, int], certificates: Path) -> str:
    """Return the controller's configuration; the folder holds its certificate (``tls.crt``, ``tls.key``)."""
    return yaml.safe_dump(
        {
            "apiVersion": "config.lws.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{ports['lws-health']}"},
            "webhook": {"host": "127.0.0.1", "port": ports["lws"], "certDir": str(certificates)},
        }
    )


def add_kinds(client: KubeClient, files: list[Path]) -> None:
    """Create its kinds in an API server, and return when it serves them. Raises ``LocalStackError``."""
    try:
        for file in files[:2]:
            client.create_yaml(_DEFINITIONS, file.read_bytes())
    except OSError as error:
        raise LocalStackError(f"the API server does not take LeaderWorkerSet's definitions: {error}") from error
    ends = time.monotonic() + _SERVED_WITHIN_S
    while not _served(client):
        if time.monotonic() > ends:
            raise LocalStackError(f"the API server does not serve LeaderWorkerSet after {_SERVED_WITHIN_S:g} s")
        time.sleep(_POLL_S)


def add_webhooks(client: KubeClient, file: Path, port: int, authority: Path) -> None:
    """Let the API server call the controller's webhooks on this machine. Raises ``LocalStackError``."""
    bundle = base64.b64encode(authority.read_bytes()).decode()
    try:
        for found in yaml.safe_load_all(file.read_text()):
            plural = f"{found['kind'].lower()}s"
            found["metadata"]["name"] = f"lws-{found['metadata']['name']}"
            found["webhooks"] = [_local(each, port, bundle) for each in found["webhooks"]]
            client.create(f"{_ADMISSION}/{plural}", found)
    except OSError as error:
        raise LocalStackError(f"the API server does not take LeaderWorkerSet's webhooks: {error}") from error


def answers(port: int) -> None:
    """Return if the webhooks' port is open, else raise ``OSError``."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return


def _local(webhook: dict[str, Any], port: int, bundle: str) -> dict[str, Any]:
    path = webhook["clientConfig"]["service"]["path"]
    for_pods = {"objectSelector": _OF_GROUPS} if "pod.kb.io" in webhook["name"] else {}
    return {**webhook, **for_pods, "clientConfig": {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}}


def _served(client: KubeClient) -> bool:
    try:
        return all(client.get(f"/apis/{kind}") for kind in _KINDS)
    except urllib.error.HTTPError:
        return False  # not yet: 404
