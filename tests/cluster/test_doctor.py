"""`segue doctor` on broken set-ups and `segue setup`: each fault is named with its fix, on the real servers."""

import asyncio
import contextlib
import datetime as dt
import io
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import front
from harness import ROOT, Lab, until
from kubernetes import client
from segue_local import certs
from shell import COMPLETED, NEEDS_PERSON, REFUSED, UNREACHABLE, Shell
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.service import RPCError

from segue.cli import run
from segue.contract import TARGET_ATTRIBUTE

ACCOUNT = "segue/segue-worker"
Checks = dict[str, dict[str, Any]]


class Segue:
    """Runs ``segue`` in this process, one command after the other: a process of its own takes seconds to start."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab, self._monkeypatch = lab, monkeypatch
        settings = {"SEGUE_TASK_QUEUE": lab.task_queue, "SEGUE_CLUSTER": lab.namespace, "TERM": "dumb"}
        self.env = {**lab.stack.env(), **settings}

    async def __call__(self, *arguments: str, expect: int = 0, **env: str) -> str:
        """Return what one command printed."""
        out, err = io.StringIO(), io.StringIO()
        with self._monkeypatch.context() as patched:
            for name, value in {**self.env, **env}.items():
                patched.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = await asyncio.to_thread(run, arguments)
        assert code == expect, f"{arguments}: {code}\n{out.getvalue()}\n{err.getvalue()}"
        return out.getvalue() + err.getvalue()

    async def doctor(self, *arguments: str, expect: int, **env: str) -> Checks:
        """Return the checks by area and name."""
        found = json.loads(await self("doctor", "-o", "json", *arguments, expect=expect, **env))
        return {f"{each['area']}: {each['name']}": each for each in found}


@pytest.fixture
def segue(served: Lab, monkeypatch: pytest.MonkeyPatch) -> Segue:
    return Segue(served, monkeypatch)


def assert_fault(checks: Checks, name: str, found: str, fix: str) -> None:
    """Exactly this check fails, and says why and what to do."""
    assert [each for each, check in checks.items() if check["verdict"] == "failed"] == [name], checks
    check = checks[name]
    assert found in check["found"] and fix in check["fix"], check


async def namespaced(lab: Lab) -> str:
    """Make a namespace of Temporal without search attributes, and return its name."""
    name = f"ns-{uuid.uuid4().hex[:8]}"
    request = RegisterNamespaceRequest(namespace=name)
    request.workflow_execution_retention_period.FromTimedelta(dt.timedelta(hours=1))
    await lab.temporal.workflow_service.register_namespace(request)

    async def known() -> bool:
        try:
            await lab.temporal.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=name))
        except RPCError:
            return False
        return True

    await until("all of Temporal knows the namespace", known)
    return name


async def test_all_is_well(segue: Segue) -> None:
    """Everything is checked, and nothing fails; what is optional is shown with the command that grants it."""
    namespace = segue.lab.namespace
    checks = await segue.doctor("-n", namespace, "--as", ACCOUNT, expect=COMPLETED)
    assert checks["Kubernetes: version"]["found"].startswith("v1.")
    for name in (
        "Temporal: workers", "Temporal: search attributes", "Temporal: permission to write", "Kubernetes: clock",
        "Prometheus default: clock", f"Kubernetes: rights in {namespace} for Deployment",
    ):  # fmt: skip
        assert checks[name]["verdict"] == "ok", checks[name]
    optional = checks[f"Kubernetes: rights in {namespace} for gates.job"]
    assert "not granted, which is optional" in optional["found"] and "rbac-gates.yaml" in optional["fix"]
    assert "Temporal: current version" not in checks, "no worker is versioned"
    assert (await segue.doctor(expect=COMPLETED))["Kubernetes: rights"]["verdict"] == "not checked"
    checks = await segue.doctor("-n", "no-such", expect=NEEDS_PERSON)  # where an administrator has all rights
    assert_fault(checks, "Kubernetes: namespace no-such", "does not exist", "`kubectl create namespace no-such`")


async def test_faults_of_temporal(segue: Segue) -> None:
    """No namespace, no search attributes, no worker: each is named, with the command that mends it."""
    checks = await segue.doctor(expect=NEEDS_PERSON, TEMPORAL_NAMESPACE="no-such")
    assert_fault(checks, "Temporal: namespace", "no-such does not exist", "`segue setup --create-namespace`")
    checks = await segue.doctor(expect=NEEDS_PERSON, SEGUE_TASK_QUEUE="nobody-polls")
    fix = "`segue worker --task-queue nobody-polls`"
    assert_fault(checks, "Temporal: workers", "none polls task queue nobody-polls", fix)

    bare = await namespaced(segue.lab)
    checks = await segue.doctor(expect=NEEDS_PERSON, TEMPORAL_NAMESPACE=bare)
    assert checks["Temporal: search attributes"]["verdict"] == "failed"
    assert "SeguePhase, SegueTarget" in checks["Temporal: search attributes"]["found"]
    assert checks["Temporal: search attributes"]["fix"] == "run `segue setup`"
    assert checks["Temporal: retention"]["verdict"] == "warning" and "1h" in checks["Temporal: retention"]["found"]
    first = await segue("setup", TEMPORAL_NAMESPACE=bare)
    assert f"namespace {bare}: exists" in first and f"search attribute {TARGET_ATTRIBUTE}: created (Keyword)" in first
    again = await segue("setup", TEMPORAL_NAMESPACE=bare)
    assert "created" not in again and again.count("exists") == 5
    checks = await segue.doctor(expect=NEEDS_PERSON, TEMPORAL_NAMESPACE=bare)
    assert_fault(checks, "Temporal: workers", "none polls", "segue worker")


async def test_setup_creates_a_namespace_only_if_it_is_told_to(segue: Segue) -> None:
    """A misspelt namespace is refused; with the option, it is created with all that Segue needs."""
    name = f"ns-{uuid.uuid4().hex[:8]}"
    refused = await segue("setup", expect=REFUSED, TEMPORAL_NAMESPACE=name)
    assert f"TEMPORAL_NAMESPACE: '{name}': does not exist; create it with --create-namespace" in refused
    made = await segue("setup", "--create-namespace", "--retention", "72h", TEMPORAL_NAMESPACE=name)
    assert f"namespace {name}: created" in made and made.count("created (") == 4
    checks = await segue.doctor(expect=NEEDS_PERSON, TEMPORAL_NAMESPACE=name)
    assert_fault(checks, "Temporal: workers", "none polls", "segue worker")
    assert checks["Temporal: retention"]["found"] == "ended rollouts are kept for 72h"


async def test_faults_of_the_connection(segue: Segue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS and API keys in front of the real Temporal: each cause names its own fix."""
    authority = certs.Authority.create(tmp_path, "ca")
    own = certs.Authority.create(tmp_path, "clients")
    good = authority.server("temporal", ["127.0.0.1"])
    other = authority.server("temporal", ["temporal.example.com"])
    with monkeypatch.context() as past:
        past.setattr(certs, "_LIFE", dt.timedelta(minutes=-5))
        expired = authority.server("temporal", ["127.0.0.1"])
    shown = own.client("segue")
    for name, pem in (("cert", shown.cert_pem), ("key", shown.key_pem)):
        (tmp_path / name).write_bytes(pem)
    tls = {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(authority.cert_path)}
    pair = {
        "TEMPORAL_TLS_CLIENT_CERT_PATH": str(tmp_path / "cert"), "TEMPORAL_TLS_CLIENT_KEY_PATH": str(tmp_path / "key"),
    }  # fmt: skip
    connection = "Temporal: connection"

    async def refused(served_by: Any, env: Mapping[str, str], found: str, fix: str, **settings: Any) -> None:
        certificate = served_by and (served_by.cert_pem, served_by.key_pem)
        async with front(segue.lab.stack.temporal_address, certificate=certificate, **settings) as address:
            checks = await segue.doctor(expect=UNREACHABLE, TEMPORAL_ADDRESS=address, **env)
        assert_fault(checks, connection, found, fix)
        assert "segue local up" not in checks[connection]["fix"]

    await refused(other, tls, "its certificate is for another name", "TEMPORAL_TLS_SERVER_NAME")
    await refused(expired, tls, "its certificate has expired", "renew the server's certificate")
    requires: Any = {"clients": own.cert_path.read_bytes()}
    await refused(good, tls, "requires a client certificate", "TEMPORAL_TLS_CLIENT_CERT_PATH", **requires)
    stranger = {"clients": authority.cert_path.read_bytes()}
    await refused(good, {**tls, **pair}, "does not accept the client certificate", "TEMPORAL_TLS_CLIENT", **stranger)
    keyed = {**tls, "TEMPORAL_API_KEY": "wrong"}
    await refused(good, keyed, "the API key is not accepted", "check TEMPORAL_API_KEY", key="right")
    async with front(
        segue.lab.stack.temporal_address, certificate=(good.cert_pem, good.key_pem), key="right", **requires
    ) as address:
        env = {**tls, **pair, "TEMPORAL_API_KEY": "right", "TEMPORAL_ADDRESS": address}
        checks = await segue.doctor(expect=COMPLETED, **env)
    assert checks[connection]["found"] == f"{address} answers by TLS"


async def test_faults_of_the_cluster_and_of_prometheus(segue: Segue, tmp_path: Path) -> None:
    """A missing right, no way to a cluster, and a Prometheus that is away: each is named, with its fix."""
    lab = segue.lab
    role = client.RbacAuthorizationV1Api(lab.core.api_client)
    found: Any = role.read_namespaced_role("segue-worker", lab.namespace)
    rules = [rule for rule in found.rules if rule.resources != ["pods/status"]]
    role.patch_namespaced_role("segue-worker", lab.namespace, {"rules": rules})
    arguments = ("-n", lab.namespace, "--as", ACCOUNT)

    async def lacks() -> Checks | None:
        try:
            return await segue.doctor(*arguments, expect=NEEDS_PERSON)
        except AssertionError:
            return None  # the API server has not applied the role yet

    checks = await until("the role applies", lacks)
    name, fix = (
        f"Kubernetes: rights in {lab.namespace} for drain",
        f"kubectl apply -n {lab.namespace} -f deploy/rbac.yaml",
    )
    assert_fault(checks, name, "missing: patch pods/status", fix)

    granted, binding = yaml.safe_load_all((ROOT / "deploy/rbac-controller.yaml").read_text())
    granted["rules"] = [rule for rule in granted["rules"] if rule["resources"] != ["rollouts/status"]]
    role.create_namespaced_role(lab.namespace, granted)
    role.create_namespaced_role_binding(lab.namespace, binding)
    account = ("-n", lab.namespace, "--as", "segue/segue-controller", "--controller")
    name, missing = (
        f"Kubernetes: rights in {lab.namespace} for Rollout objects",
        "missing: patch rollouts.segue.dev/status",
    )

    async def only_one() -> bool:
        check = (await segue.doctor(*account, expect=NEEDS_PERSON))[name]
        return bool(check["found"] == missing)

    await until("the controller's role applies", only_one)
    checks = await segue.doctor(*account, expect=NEEDS_PERSON)
    assert checks[name]["fix"] == f"kubectl apply -n {lab.namespace} -f deploy/rbac-controller.yaml"
    assert f"Kubernetes: rights in {lab.namespace} for drain" not in checks

    away = json.dumps({"default": {"url": "http://127.0.0.1:9", "timeout_s": 2}})
    checks = await segue.doctor(expect=UNREACHABLE, SEGUE_PROMETHEUS=away)
    assert_fault(checks, "Prometheus default: connection", "http://127.0.0.1:9", "provider default in SEGUE_PROMETHEUS")
    none = str(tmp_path / "none")
    checks = await segue.doctor(expect=UNREACHABLE, KUBECONFIG=none)
    assert_fault(checks, "Kubernetes: connection", f"KUBECONFIG: {none!r}: is not a file", "correct it")


async def test_a_deployment_without_a_current_version(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A versioned worker polls and gets no rollout until its version is the current one: start and doctor say so.

    Its version has the names that temporal-worker-controller sets. At its start, the worker logs what is wrong, and
    serves all the same: an outage may pass.
    """
    segue, name = Segue(lab, monkeypatch), f"segue-{lab.namespace}"
    version: Any = {"TEMPORAL_DEPLOYMENT_NAME": name, "TEMPORAL_WORKER_BUILD_ID": "7"}
    worker = lab.worker(**version, SEGUE_PROMETHEUS=json.dumps({"default": {"url": "http://127.0.0.1:9"}}))
    await lab.deploy("chat", 1)
    await worker.serves()
    file = Shell(lab, tmp_path).spec("chat")
    output = await segue("start", file, expect=UNREACHABLE)
    command = f"segue builds current --deployment-name {name} --build-id 7"
    assert f"deployment {name} polls" in output and command in output, output
    checks = await segue.doctor(expect=NEEDS_PERSON)
    assert_fault(checks, "Temporal: current version", "its deployment has no current version", command)
    refused = await segue("builds", "current", expect=REFUSED, **{**version, "TEMPORAL_WORKER_BUILD_ID": "8"})
    assert f"build 8 of deployment {name}: cannot become the current one" in refused
    assert f"build 7 of deployment {name}: is now the current one" in await segue("builds", "current", **version)
    assert f"build 7 of deployment {name}: is the current one" in await segue("builds", "current", **version)
    assert ["7", "current"] in [line.split() for line in (await segue("builds", "list", **version)).splitlines()]
    assert "Completed: " in await segue("watch", file)
    fault = "failed: Prometheus default: connection: http://127.0.0.1:9"
    await until("the worker has logged the fault", lambda: fault in worker.log.read_text())
    assert "Temporal: " not in worker.log.read_text(), "what is well is not logged"
