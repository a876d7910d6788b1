"""Encryption on a real Temporal: what is planted in a rollout is nowhere in its database, in logs or in telemetry."""

import asyncio
import base64
import json
import mmap
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from harness import Lab, WorkerProcess, open_lab, until
from jwt.algorithms import OKPAlgorithm
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc
from segue_local.build import ensure_built
from shell import REFUSED, Shell
from temporalio.client import WorkflowUpdateFailedError

from segue.codec import SETTING
from segue.connection import connect

CONFIGURED, REASON, REFUSED_NAME, CREDENTIAL = "a variable's value", "a reason", "a refused name", "a credential"
SECRET = (CONFIGURED, CREDENTIAL)
"""Must not be in logs or telemetry. The messages of errors are there, and have names."""


class Collector(traces_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer):
    """Keeps all that is exported to it."""

    def __init__(self) -> None:
        self.received = b""

    def Export(self, request: Any, _: Any) -> Any:
        self.received += request.SerializeToString()
        is_trace = isinstance(request, traces.ExportTraceServiceRequest)
        return traces.ExportTraceServiceResponse() if is_trace else metrics.ExportMetricsServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector, and its address."""
    keeps, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    traces_grpc.add_TraceServiceServicer_to_server(keeps, server)  # type: ignore[no-untyped-call]
    metrics_grpc.add_MetricsServiceServicer_to_server(keeps, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield keeps, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def planted() -> dict[str, str]:
    return {what: f"x{uuid.uuid4().hex[:12]}" for what in (CONFIGURED, REASON, REFUSED_NAME, CREDENTIAL)}


def stored(lab: Lab, values: dict[str, str]) -> set[str]:
    """Return which of the values are in the files of Temporal's database."""
    found: set[str] = set()
    for path in (lab.stack.state_dir / "data").glob("temporal.db*"):
        if path.stat().st_size and not path.name.endswith("-shm"):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found |= {what for what, value in values.items() if content.find(value.encode()) >= 0}
    return found


async def rolls(lab: Lab, values: dict[str, str]) -> str:
    """Roll with the planted values, one of them in a failure; return the workflow's id."""
    change = {"env": {"server": {"GREETING": values[CONFIGURED]}}}
    waypoints = [{"at": 1, "approval": True}]
    async with lab.case("chat", 2, change, strategy={"maxSurge": 1, "waypoints": waypoints}) as case:
        await case.run.until("its approval", lambda s: s.phase == "AwaitingApproval")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await case.run.send("retarget", change={"images": {values[REFUSED_NAME]: "a/b:1"}})
        assert values[REFUSED_NAME] in str(refused.value.__cause__)
        await case.run.send("approve", reason=values[REASON])
        report = (await case.ends("Completed")).model_dump_json()
        assert values[REASON] in report and values[CONFIGURED] not in report and values[CREDENTIAL] not in report
    return case.run.handle.id


async def test_nothing_planted_is_stored_or_shown(
    lab: Lab, collector: tuple[Collector, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control, a rollout without encryption at the same time, is found in the database."""
    received, address = collector
    key, file = base64.b64encode(os.urandom(32)).decode(), tmp_path / "keys.toml"
    file.write_text(f'current = "2026-11"\n[keys]\n2026-11 = "{key}"\n')
    sealed, plain = planted(), planted()
    monkeypatch.setenv("TEMPORAL_ADDRESS", lab.stack.temporal_address)
    async with open_lab(lab.stack) as control:
        control.temporal = await connect()
        monkeypatch.setenv(SETTING, str(file))
        lab.temporal = await connect()
        monkeypatch.delenv(SETTING)

        def worker(of: Lab, values: dict[str, str], **env: str) -> WorkerProcess:
            credentials = json.dumps({"llm": {"value": f"Bearer {values[CREDENTIAL]}"}})
            return of.worker(SEGUE_SERVING_CREDENTIALS=credentials, SEGUE_OTLP_ENDPOINT=address, **env)

        workers = [worker(lab, sealed, **{SETTING: str(file)}), worker(control, plain)]
        workflow_id, _ = await asyncio.gather(rolls(lab, sealed), rolls(control, plain))
        assert [each.stop() for each in workers] == [0, 0], "they send their telemetry at their end"

    assert stored(lab, {**sealed, "the key": key}) == set()
    assert stored(lab, plain) == {CONFIGURED, REASON, REFUSED_NAME}
    shown = received.received + b"".join(each.log.read_bytes() for each in workers)
    assert b"RunWorkflow" in received.received and workflow_id.encode() in shown
    secrets = [key, *(values[what] for values in (sealed, plain) for what in SECRET)]
    assert not [each for each in secrets if each.encode() in shown]

    shell = Shell(lab, tmp_path)
    assert sealed[REASON] in (await shell.run("report", workflow_id, SEGUE_ENCRYPTION_KEYS=str(file))).stdout
    errors = (await shell.run("report", workflow_id, expect=REFUSED)).stderr
    assert f"error: {SETTING}: is not set, and the data is encrypted with key 2026-11; set it to the file" in errors
    await the_temporal_command_decodes(lab, workflow_id, sealed[REASON], file, tmp_path)


async def the_temporal_command_decodes(lab: Lab, workflow_id: str, planted: str, keys: Path, folder: Path) -> None:
    """With a token, by ``segue codec``; without one it is denied."""
    issuer, public, log = ed25519.Ed25519PrivateKey.generate(), folder / "jwks.json", folder / "codec.log"
    known = {**OKPAlgorithm.to_jwk(issuer.public_key(), as_dict=True), "kid": "one"}
    public.write_text(json.dumps({"keys": [known]}))
    claims = {"iss": "https://login.example.com", "aud": "codec", "sub": "ann", "exp": time.time() + 600}
    token = jwt.encode(claims, issuer, "EdDSA", headers={"kid": "one"})
    options = ("--origin", lab.stack.temporal_ui, "--issuer", claims["iss"], "--audience", "codec", "--jwks", public)
    command = [str(Path(sys.executable).with_name("segue")), "codec", *map(str, options), "--listen", "127.0.0.1:0"]
    with log.open("wb") as output:
        codec = subprocess.Popen(command, env={**os.environ, SETTING: str(keys)}, stderr=output)
    try:
        await until(f"it serves: {log}", lambda: "decodes at " in log.read_text())
        endpoint = log.read_text().split("decodes at ")[1].split()[0]
        show = ["workflow", "show", "--workflow-id", workflow_id, "-o", "json", "--address", lab.stack.temporal_address]
        for header, found in ((f"Bearer {token}", True), ("Bearer x.y.z", False)):
            arguments = [str(ensure_built()["temporal"]), *show, "--codec-endpoint", endpoint, "--codec-auth", header]
            answer = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=False)
            data = b"".join(map(base64.b64decode, re.findall(r'"data": "([^"]*)"', answer.stdout)))
            assert (planted.encode() in data, answer.returncode == 0) == (found, found), answer.stderr
        log_text = log.read_text()
        assert "/decode: 1 payloads for 'ann'" in log_text and "/decode: denied: the token is not accepted" in log_text
        assert planted not in log_text
    finally:
        codec.terminate()
    assert codec.wait(timeout=20) == 0
