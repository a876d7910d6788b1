"""The kinds of the Gateway API and InferencePool, from their pinned Go modules. Only the kinds: no gateway runs."""

from __future__ import annotations

import time
import urllib.error
from pathlib import Path

from segue_local.build import Progress
from segue_local.errors import LocalStackError
from segue_local.kube import KubeClient
from segue_local.modules import ModuleFiles

_GROUP = "gateway.networking.k8s.io"
_PLURALS = ("gatewayclasses", "gateways", "httproutes")
_FILES = ModuleFiles(
    "gateway", "sigs.k8s.io/gateway-api", [f"config/crd/standard/{_GROUP}_{plural}.yaml" for plural in _PLURALS]
)
_POOLS = "inference.networking.k8s.io"
_POOL_FILES = ModuleFiles(
    "inference",
    "sigs.k8s.io/gateway-api-inference-extension",
    [f"config/crd/bases/{_POOLS}_inferencepools.yaml"],
)
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SERVED_WITHIN_S = 20.0
_POLL_S = 0.02


def ensure_definitions(on_progress: Progress | None = None) -> list[Path]:
    """Extract the definitions from the modules unless that is done; return their files.

    Raises ``GoMissing``, ``GoTooOld`` or ``BuildFailed``.
    """
    return [*_FILES.ensure(on_progress), *_POOL_FILES.ensure(on_progress)]


def add_definitions(client: KubeClient, files: list[Path]) -> None:
    """Create the kinds in an API server, and return when it serves them. Idempotent.

    Raises ``LocalStackError``.
    """
    try:
        for file in files:
            client.create_yaml(_DEFINITIONS, file.read_bytes())
    except OSError as error:
        raise LocalStackError(f"the API server does not take the Gateway API's definitions: {error}") from error
    ends = time.monotonic() + _SERVED_WITHIN_S
    while not _served(client):
        if time.monotonic() > ends:
            raise LocalStackError(f"the API server does not serve the Gateway API after {_SERVED_WITHIN_S:g} s")
        time.sleep(_POLL_S)


def _served(client: KubeClient) -> bool:
    try:
        served = [client.get(f"/apis/{_GROUP}/v1/{plural}") for plural in _PLURALS]
        return all([*served, client.get(f"/apis/{_POOLS}/v1/inferencepools")])
    except urllib.error.HTTPError:
        return False  # not yet: 404
