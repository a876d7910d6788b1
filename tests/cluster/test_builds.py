"""Worker builds: the Deployments of those that are not needed go, and nothing else does."""

import asyncio
import re
import subprocess
from typing import Any

import kube_api
import pytest
from harness import ROOT, Lab, Run, WorkerProcess, reaching
from segue_local.build import BINARIES, ensure_built
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest

from activities.retiring import BUILD_ANNOTATION, retire
from segue.builds import builds_of, make_current

SELECTOR = "release=mine"


async def create(lab: Lab, name: str, build: str | None, release: str = "mine") -> None:
    """Create a Deployment without pods: of a release, and of a build if it has one."""
    pods = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "worker", "image": "x"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": pods}
    annotations = {BUILD_ANNOTATION: build} if build else {}
    about = {"name": name, "labels": {"release": release}, "annotations": annotations}
    kube_api.create(lab.apps.create_namespaced_deployment, lab.namespace, {"metadata": about, "spec": spec})


async def test_only_builds_that_may_go_are_deleted(lab: Lab) -> None:
    """A Deployment without a build, of another release, or of a build that must stay is not touched."""
    for name, build, release in [
        ("drained", "1", "mine"), ("current", "2", "mine"), ("unversioned", None, "mine"), ("other", "1", "other"),
    ]:  # fmt: skip
        await create(lab, name, build, release)

    async def kept_because(build: str) -> str:
        return "" if build == "1" else "it is current"

    async with reaching(lab) as cluster:
        lines = await retire(cluster, lab.namespace, SELECTOR, kept_because)
    place = f"deployment {lab.namespace}"
    assert lines == [f"{place}/current (build 2): kept: it is current", f"{place}/drained (build 1): deleted"]
    left: list[Any] = lab.apps.list_namespaced_deployment(lab.namespace).items
    assert {each.metadata.name for each in left} == {"current", "unversioned", "other"}


async def test_a_deployment_that_temporal_does_not_know_has_no_builds(lab: Lab) -> None:
    assert await builds_of(lab.temporal, f"nobody-{lab.namespace}") == []


HELD = {"waypoints": [{"at": 1, "approval": True}], "maxSurge": 1}


async def stopped(lab: Lab, name: str) -> Run:
    run = await lab.start(name, strategy=HELD)
    await run.until("the approval", lambda status: status.phase == "AwaitingApproval")
    return run


async def ends(run: Run, worker: WorkerProcess) -> None:
    """Approve, and assert that the rollout completes, its last task by this worker, and no task failed."""
    await run.send("approve")
    assert (await run.end()).status.outcome == "Completed"
    events = list((await run.handle.fetch_history()).events)
    assert [e for e in events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED] == []
    last = [e for e in events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED][-1]
    assert last.workflow_task_completed_event_attributes.identity.startswith(f"{worker.process.pid}@")


@pytest.mark.soak
async def test_versioning_is_switched_on_and_off_under_rollouts(lab: Lab) -> None:
    """Rollouts of unversioned workers go to the first build; a build finishes its own after the switch is off."""
    names = ("first", "second", "third")
    await asyncio.gather(*(lab.deploy(name, 2) for name in names))

    before = lab.worker()
    first = await stopped(lab, "first")
    before.stop()
    deployment = f"d-{lab.namespace}"
    build = lab.worker(SEGUE_DEPLOYMENT_NAME=deployment, SEGUE_BUILD_ID="1")
    done = await make_current(lab.temporal, lab.task_queue, deployment, "1", wait_s=60)
    assert done == f"build 1 of deployment {deployment}: is now the current one"
    assert [(each.build_id, each.state) for each in await builds_of(lab.temporal, deployment)] == [("1", "current")]
    await ends(first, build)

    second = await stopped(lab, "second")
    after = lab.worker()
    await after.serves()
    unversioned = SetWorkerDeploymentCurrentVersionRequest(namespace="default", deployment_name=deployment)
    await lab.temporal.workflow_service.set_worker_deployment_current_version(unversioned)
    third = await stopped(lab, "third")
    await asyncio.gather(ends(second, build), ends(third, after))


@pytest.mark.soak
async def test_one_rollout_is_moved_to_the_current_build(lab: Lab) -> None:
    """Only the rollout that a person moves, by the command of docs/upgrading.md, leaves its build."""
    await asyncio.gather(lab.deploy("moved", 2), lab.deploy("stays", 2))
    deployment, builds = f"d-{lab.namespace}", {}
    for build in ("1", "2"):
        builds[build] = lab.worker(SEGUE_DEPLOYMENT_NAME=deployment, SEGUE_BUILD_ID=build)
        await make_current(lab.temporal, lab.task_queue, deployment, build, wait_s=60)
        if build == "1":
            moved, stays = await asyncio.gather(stopped(lab, "moved"), stopped(lab, "stays"))
    states = {each.build_id: each.state for each in await builds_of(lab.temporal, deployment)}
    assert states == {"1": "draining", "2": "current"}
    [command] = re.findall(r"temporal (workflow update-options .*)", (ROOT / "docs/upgrading.md").read_text())
    command = command.replace("rollout/default/serving/Deployment/chat", moved.handle.id)
    address = ("--address", lab.stack.temporal_address)
    temporal = ensure_built(binaries=BINARIES[:1])["temporal"]
    subprocess.run([str(temporal), *command.split(), *address], check=True, capture_output=True, timeout=60)
    await asyncio.gather(ends(moved, builds["2"]), ends(stays, builds["1"]))
