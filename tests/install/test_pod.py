"""The installed worker is a pod on a real node, with the built image and its ServiceAccount."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Case, Lab, open_lab, until
from helm import CHART, Helm, Values, merged
from kubernetes import client
from segue_local import Stack
from segue_local.segue_image import NAME, Origin, ensure_segue_image, version
from serving import MLSERVER, Serving, assert_nothing_lost
from temporalio.api.enums.v1 import EventType

pytestmark = pytest.mark.soak
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
        pods = self.lab.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return {pod.metadata.name: pod.metadata.labels.get("segue.dev/build", "") for pod in pods}

    def deployments(self) -> list[str]:
        found = self.lab.apps.list_namespaced_deployment(self.namespace).items
        return sorted(each.metadata.name for each in found)


@asynccontextmanager
async def released(stack: Stack, namespace: str, folder: Path) -> AsyncIterator[Release]:
    """Yield a release that is not installed yet; afterwards it is removed with its namespace."""
    async with open_lab(stack) as lab:
        lab.core.create_namespace({"metadata": {"name": namespace, "labels": RESTRICTED}})
        release = Release(Helm(folder, stack.env()), lab, namespace)
        try:
            yield release
            await release.run("uninstall", "--wait")
            await until("the uninstall leaves no worker", lambda: not release.deployments() and not release.workers())
        finally:
            lab.core.delete_namespace(namespace)


@pytest.fixture(scope="module")
def image(open_stack: Stack) -> None:
    """Load the image of this checkout."""
    assert open_stack.node is not None
    open_stack.node.load(ensure_segue_image(Origin(revision="this")))


async def identities(case: Case) -> set[str]:
    """Return the identities of the workers that completed a rollout's workflow tasks."""
    events = (await case.run.handle.fetch_history()).events
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
            assert all(each.endswith(f"@{pod}") for each in await identities(case)), await identities(case)
            await serving.serves("chat")
            hopeless = {"minReady": "1s", "deadline": "15s"}
            async with lab.rolled("chat", MLSERVER.change("cannot-load"), readiness=hopeless) as case:
                await case.ends("RolledBack")
            await serving.serves("chat")
            outcomes = await asyncio.to_thread(load.stop)
        assert_nothing_lost(outcomes)
        assert outcomes.by_version.keys() == {"v1", "v2"}

        said = await release.run("test", "--logs")
        assert "Succeeded" in said
        assert f"Kubernetes: rights in {lab.namespace}" in said
        rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
        rbac.delete_namespaced_role(f"{release.namespace}-worker", lab.namespace)
        said = await release.run("test", "--logs", expect=1)
        assert f"failed       Kubernetes: rights in {lab.namespace}" in said, said
        assert f"kubectl apply -n {lab.namespace} -f deploy/rbac.yaml" in said, said
