"""The kinds of the Gateway API, as its pinned Go module defines them. No gateway: only the objects."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
import urllib.error
from pathlib import Path

from segue_local.build import MODULES, Progress, find_go
from segue_local.errors import BuildFailed, LocalStackError
from segue_local.kube import KubeClient
from segue_local.once import locked, run, to_stderr
from segue_local.paths import binaries_dir

_MODULE = "sigs.k8s.io/gateway-api"
_GROUP = "gateway.networking.k8s.io"
_PLURALS = ("gatewayclasses", "gateways", "httproutes")
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SERVED_WITHIN_S = 20.0
_POLL_S = 0.02


def ensure_definitions(on_progress: Progress | None = None) -> list[Path]:
    """Take the definitions out of the module when they are not there yet; return their files.

    Raises ``GoMissing``, ``GoTooOld`` or ``BuildFailed``.
    """
    say, group = on_progress or to_stderr, MODULES / "gateway"
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(group.iterdir()))).hexdigest()[:16]
    target = binaries_dir() / f"gateway-{digest}" / "definitions"
    if not target.exists():
        with locked(target, "the Gateway API's definitions", say) as lock:
            if not target.exists():
                _take(group, target, lock)
    return [target / _file(plural) for plural in _PLURALS]


def _take(group: Path, target: Path, lock: int) -> None:
    command = [find_go().path, "mod", "download", "-json", _MODULE]
    env = {**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    output, status = run(command, cwd=group, env=env, lock=lock)
    if status != 0:
        raise BuildFailed("gateway", shlex.join(command), output)
    folder = Path(json.loads(output)["Dir"]) / "config" / "crd" / "standard"
    temporary = target.with_name(f".{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for plural in _PLURALS:
        (temporary / _file(plural)).write_bytes((folder / _file(plural)).read_bytes())
    temporary.replace(target)


def _file(plural: str) -> str:
    return f"{_GROUP}_{plural}.yaml"


def add_definitions(client: KubeClient, files: list[Path]) -> None:
    """Give the kinds to an API server, and return when it serves them; doing it again is harmless.

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
        return all(client.get(f"/apis/{_GROUP}/v1/{plural}") for plural in _PLURALS)
    except urllib.error.HTTPError:
        return False  # not yet: 404
