"""The installed worker is a pod on a real node, with the built image and its ServiceAccount."""

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ACCEPTED, ROOT, Lab, Run, open_lab, until
from helm import CHART, Helm, Values, merged
from kube_api import create
from kubernetes import client
from segue_local import Stack
from segue_local.segue_image import NAME, Origin, ensure_segue_image, version
from serving import MLSERVER, Serving, assert_nothing_lost
from temporalio.api.enums.v1 import EventType

from segue.contract import workflow_id
from segue.report import Report
from segue.rollout_object.crd import Definition
from segue.spec import DeploymentTarget

# With the builds of two images, and a stack with a real node.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
ON_THE_NODE = {"segue.dev/node": "real"}
NEW = version()


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of the same name, which rolls the targets of the lab."""

    helm: Helm
    lab: Lab
    namespace: str

    async def run(self, command: str, *arguments: str, values: Values | None = None, expect: int = 0) -> str:
        """Run a command of Helm on the release; return its output."""
        line = (*command.split(), self.namespace, *arguments, "-n", self.namespace)
        ran = await asyncio.to_thread(self.helm.run, *line, values=values, expect=expect)
        return ran.stdout + ran.stderr

    def values(self, **more: Any) -> Values:
        """Return the values of one worker on the real node."""
        temporal = {"address": self.lab.stack.temporal_address, "taskQueue": self.lab.task_queue}
        base: Values = {
            "image": {"repository": NAME, "pullPolicy": "Never"},
            "replicaCount": 1,
            "temporal": temporal,
            "rbac": {"namespaces": [self.lab.namespace]},
            "nodeSelector": ON_THE_NODE,
        }
        return merged(base, more)

    def workers(self) -> dict[str, str]:
        """Return the build of each running pod of a worker, by the pod's name; empty builds are unversioned."""
        selector = "app.kubernetes.io/component=worker"
        pods: list[Any] = self.lab.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return {pod.metadata.name: pod.metadata.labels.get("segue.dev/build", "") for pod in pods}

    def deployments(self) -> list[str]:
        found: list[Any] = self.lab.apps.list_namespaced_deployment(self.namespace).items
        return sorted(each.metadata.name for each in found)


@asynccontextmanager
async def released(stack: Stack, namespace: str, folder: Path) -> AsyncIterator[Release]:
    """Yield a release that is not installed yet; afterwards it is removed with its namespace."""
    async with open_lab(stack) as lab:
        create(lab.core.create_namespace, {"metadata": {"name": namespace, "labels": RESTRICTED}})
        release = Release(Helm(folder, stack.env()), lab, namespace)
        try:
            yield release
            await release.run("uninstall", "--wait")
            await until("the uninstall leaves no worker", lambda: not release.deployments() and not release.workers())
        finally:
            lab.core.delete_namespace(namespace)


@pytest.fixture
def image(open_stack: Stack) -> None:
    """Load the image of this checkout; a test may have loaded another one."""
    assert open_stack.node is not None
    open_stack.node.load(ensure_segue_image(Origin(revision="this")))


def previous() -> str:
    """Return the commit before this one, or this one if that has no builds yet or is not there."""
    shown = subprocess.run(["git", "cat-file", "-e", "HEAD~1:segue/cli/builds.py"], cwd=ROOT, check=False)
    return "HEAD" if shown.returncode else "HEAD~1"


def checked_out(revision: str, folder: Path) -> Path:
    """Write a commit's files, and return their folder."""
    files = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def image_of(checkout: Path, revision: str) -> Path:
    """Build the image of a checkout by its own builder."""
    code = (
        "import sys; from segue_local import segue_image as own; assert sys.argv[1] in own.__file__, own.__file__; "
        "print(own.ensure_segue_image(own.Origin(revision=sys.argv[2])))"
    )
    env = {**os.environ, "PYTHONPATH": str(checkout / "deploy/local")}
    command = [sys.executable, "-c", code, str(checkout), revision]
    built = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


async def events_of(run: Run) -> list[Any]:
    return list((await run.handle.fetch_history()).events)


async def identities(run: Run) -> set[str]:
    """Return the identities of the workers that completed a rollout's workflow tasks."""
    events = await events_of(run)
    completed = [e.workflow_task_completed_event_attributes for e in events
                 if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]  # fmt: skip
    return {each.identity for each in completed}


async def test_the_pod_rolls_real_servers_under_traffic(open_stack: Stack, image: None, tmp_path: Path) -> None:
    """It completes a good version and takes a bad one back without losing a request; `helm test` checks the rest."""
    async with released(open_stack, "segue-traffic", tmp_path) as release:
        lab = release.lab
        assert open_stack.node is not None
        serving = Serving(lab, open_stack.node, tmp_path)
        values = release.values(networkPolicy={"enabled": True})
        await asyncio.gather(
            release.run("install", str(CHART), "--wait", "--timeout", "5m", values=values),
            serving.deploy("chat", MLSERVER, replicas=2),
        )
        [pod] = release.workers()
        readiness = {"minReady": "1s", "deadline": "3m"}
        with serving.traffic("chat") as load:
            async with lab.rolled("chat", MLSERVER.change("v2"), readiness=readiness) as case:
                await case.ends("Completed")
            assert {each.split("@")[1].split("#")[0] for each in await identities(case.run)} == {pod}
            await serving.serves("chat")
            hopeless = {"minReady": "1s", "deadline": "15s"}
            async with lab.rolled("chat", MLSERVER.change("cannot-load"), readiness=hopeless) as case:
                await case.ends("RolledBack")
            await serving.serves("chat")
            outcomes = await asyncio.to_thread(load.stop)
        assert_nothing_lost(outcomes)
        assert outcomes.by_version.keys() == {"v1", "v2"}

        output = await release.run("test", "--logs")
        assert "Succeeded" in output
        assert f"Kubernetes: rights in {lab.namespace}" in output
        rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
        rbac.delete_namespaced_role(f"{release.namespace}-worker", lab.namespace)
        output = await release.run("test", "--logs", expect=1)
        assert f"failed       Kubernetes: rights in {lab.namespace}" in output, output
        assert f"kubectl apply -n {lab.namespace} -f deploy/rbac.yaml" in output, output


FAKE: dict[str, Any] = {"pod": {"nodeSelector": {"segue.dev/node": "fake"}}}
HELD = {"waypoints": [{"at": 1, "approval": True}], "maxSurge": 1}
AGAIN: dict[str, Any] = {"change": {"images": {"server": "example/chat:3"}}}


async def test_an_upgrade_and_its_rollback_with_rollouts_under_way(
    open_stack: Stack, image: None, tmp_path: Path
) -> None:
    """From the previous commit to this one, and back: each rollout ends well, with the build that started it."""
    node, revision = open_stack.node, previous()
    assert node is not None
    before = checked_out(revision, tmp_path / "previous")
    node.tag(f"{NAME}:{NEW}", f"{NAME}:this")
    node.load(image_of(before, revision))
    node.tag(f"{NAME}:{NEW}", f"{NAME}:previous")
    async with released(open_stack, "segue-upgrade", tmp_path) as release:
        lab, name = release.lab, f"{release.namespace}-worker"

        def values(build: str) -> Values:
            return release.values(image={"tag": build}, versioning={"enabled": True, "retireSchedule": "* * * * *"})

        async def started(*names: str) -> dict[str, Run]:
            runs = await asyncio.gather(*(lab.start(each, strategy=HELD) for each in names))
            return dict(zip(names, runs, strict=True))

        async def finish(runs: dict[str, Run], build: str, workers: dict[str, str]) -> None:
            """Approve; assert the end, that no workflow task failed, and that only workers of the build took part."""
            for run in runs.values():
                await run.until("the approval", lambda status: status.phase == "AwaitingApproval")
                await run.send("approve")
            for each, run in runs.items():
                assert (await run.end()).status.outcome == "Completed", each
                failed = [e for e in await events_of(run) if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
                assert failed == []
                took_part = {re.split("[@#]", identity)[1] for identity in await identities(run)}
                assert {workers[pod] for pod in took_part} == {build}

        await asyncio.gather(
            release.run("install", str(before / "deploy/chart"), "--wait", values=values("previous")),
            *(lab.deploy(f"chat-{number}", 3, **FAKE) for number in range(12)),
        )
        old, late = [f"chat-{number}" for number in range(10)], ["chat-10", "chat-11"]
        workers = release.workers()
        runs = await started(*old)
        await runs["chat-0"].until("its first step", lambda status: status.new.ready > 0)

        await release.run("upgrade", str(CHART), "--wait", values=values("this"))
        assert release.deployments() == [f"{name}-previous", f"{name}-this"]
        workers |= release.workers()
        after = await started(*late)
        await finish(runs, "previous", workers)
        await until("the drained build is removed", lambda: release.deployments() == [f"{name}-this"], limit_s=300)

        await release.run("rollback", "1", "--wait")
        assert release.deployments() == [f"{name}-previous", f"{name}-this"]
        workers |= release.workers()
        again = await asyncio.gather(*(lab.start(each, strategy=HELD, **AGAIN) for each in old[:2]))
        await finish(dict(zip(old, again, strict=False)), "previous", workers)
        await finish(after, "this", workers)
        await until("the drained build is removed", lambda: release.deployments() == [f"{name}-previous"], limit_s=300)


UPGRADE_KINDS = "kubectl apply --server-side --force-conflicts -f deploy/crd"
OURS = """
apiVersion: segue.dev/v1alpha1
kind: ClusterRolloutProfile
metadata: {name: ours}
spec:
  strategy: {maxSurge: 1, waypoints: [{at: 1, approval: true}]}
---
apiVersion: segue.dev/v1alpha1
kind: Rollout
metadata: {name: chat}
spec:
  target: {name: chat}
  change: {images: {server: "example/chat:2"}}
  profile: {name: ours}
  readiness: {minReady: 0s, deadline: 2m}
  accept: %s
"""


def older_chart(folder: Path) -> Path:
    """Return a copy of the chart as of a release whose Rollouts name no cluster."""
    chart = shutil.copytree(CHART, folder / "older")
    path = chart / "crds/rollouts.segue.dev.yaml"
    kind = yaml.safe_load(path.read_text())
    schema = kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["target"]["properties"]["cluster"]
    path.write_text(yaml.safe_dump(kind))
    return chart


async def test_the_installed_controller_rolls_objects_of_its_cluster(
    open_stack: Stack, image: None, tmp_path: Path
) -> None:
    """In a named cluster, with a profile of the cluster, and by an order; the kinds are upgraded as the pages say."""
    env = {**os.environ, **open_stack.env()}

    def kubectl(line: str, *more: str, given: str | None = None) -> str:
        command = ["kubectl", *line.removeprefix("kubectl ").split(), *more]
        ran = subprocess.run(command, cwd=ROOT, env=env, input=given, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    kubectl("delete crd --ignore-not-found", *(f"{name}.segue.dev" for name in Definition))
    async with released(open_stack, "segue-objects", tmp_path) as release:
        lab = release.lab
        values = release.values(
            cluster={"name": "west"},
            rbac={"profiles": True},
            controller={"enabled": True, "replicaCount": 1, "admission": True},
            networkPolicy={"enabled": True},
        )
        older = older_chart(tmp_path)
        await asyncio.gather(
            release.run("install", str(older), "--wait", "--timeout", "5m", values=values),
            lab.deploy("chat", 2, **FAKE),
        )
        await release.run("upgrade", str(CHART), "--wait", "--timeout", "5m", values=values)
        output = await release.run("test", "--logs")
        assert "kinds of segue.dev: older than this release: Rollout lacks spec.target.cluster\n" in output, output
        assert f"→ {UPGRADE_KINDS}" in output
        assert all(UPGRADE_KINDS in (ROOT / "docs" / page).read_text() for page in ("kubernetes.md", "upgrading.md"))
        kubectl(UPGRADE_KINDS)
        assert "kinds of segue.dev: served, as this release defines them" in await release.run("test", "--logs")

        place = ("-n", lab.namespace)
        kubectl("apply -f -", *place, given=OURS % ACCEPTED)
        status = ("get rollout chat -o", "jsonpath={.status.approval}")
        about = await until("it asks", lambda: kubectl(*status, *place), limit_s=300, poll_s=1)
        kubectl("annotate rollout chat --overwrite", f"segue.dev/approve={about} the answers are good", *place)
        await asyncio.to_thread(kubectl, "wait rollout/chat --for=condition=Ready --timeout=5m", *place)
        target = DeploymentTarget(namespace=lab.namespace, name="chat")
        handle = lab.temporal.get_workflow_handle(workflow_id("west", target), result_type=Report)
        report = await handle.result()
        [(who, detail)] = [(each.who, each.detail) for each in report.entries if each.what == "approved"]
        assert who.startswith("kubernetes user ") and detail == "waypoint 1: the answers are good"
        kubectl("delete rollout chat --timeout=2m", *place)
        kubectl("delete clusterrolloutprofile ours")
