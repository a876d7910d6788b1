"""A GitOps tool owns the Deployment, and applies its manifest again and again during a rollout.

Each sync is what Argo CD and Flux send: a server-side apply that takes the fields from everybody else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from harness import Case, Lab, pod_template, until
from kubernetes.client import ApiException

MANAGER = "argocd-controller"
SYNC_S = 0.3
SERVER = 'k:{"name":"server"}'

Wanted = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns what a sync applies, from the live object."""


def manifest(name: str) -> dict[str, Any]:
    """Return what is in git: version 1, and the budget and the delay that rollouts change for a while."""
    spec = {
        "replicas": 4,
        "minReadySeconds": 0,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        "selector": {"matchLabels": {"app": name}},
        "template": pod_template(name, "ready", "300ms", "example/chat:1"),
    }
    labels = {"team": "chat"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": spec}


def whole(live: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest as it is in git."""
    return manifest(live["metadata"]["name"])


def without_ours(live: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with the live values of the fields that Segue owns: `ignoreDifferences` by its manager."""
    wanted, spec = whole(live), live["spec"]
    entries = {entry["manager"]: entry["fieldsV1"].get("f:spec", {}) for entry in live["metadata"]["managedFields"]}
    ours = entries.get("segue", {})
    for field in ("minReadySeconds", "strategy"):
        if f"f:{field}" in ours:
            wanted["spec"][field] = spec[field]
    if SERVER in ours.get("f:template", {}).get("f:spec", {}).get("f:containers", {}):
        (server,), (live_server,) = (each["template"]["spec"]["containers"] for each in (wanted["spec"], spec))
        server["image"] = live_server["image"]
    # Another write in between is a conflict here, and not an older value that comes back.
    wanted["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return wanted


class Git:
    """A tool that syncs a Deployment."""

    def __init__(self, lab: Lab, name: str, wanted: Wanted) -> None:
        self.syncs = 0
        self._lab, self._name, self._wanted = lab, name, wanted

    def sync(self) -> None:
        """Apply what is wanted; it takes each field from the managers that own it."""
        body = self._wanted(self._lab.raw(self._name))
        try:
            self._lab.apps.patch_namespaced_deployment(
                self._name, self._lab.namespace, body, field_manager=MANAGER, force=True,
                _content_type="application/apply-patch+yaml",
            )  # fmt: skip
        except ApiException as error:
            if error.status != 409:
                raise
        else:
            self.syncs += 1

    async def more(self, syncs: int = 3) -> None:
        """Wait for more syncs."""
        before = self.syncs
        await until(f"{syncs} more syncs", lambda: self.syncs >= before + syncs)

    @asynccontextmanager
    async def syncing(self) -> AsyncIterator[None]:
        """Sync again and again during the block."""

        async def again() -> None:
            while True:
                await asyncio.to_thread(self.sync)
                await asyncio.sleep(SYNC_S)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(again())
            yield
            task.cancel()


@asynccontextmanager
async def synced(lab: Lab, name: str, wanted: Wanted) -> AsyncIterator[tuple[Case, Git]]:
    """A target that a tool syncs, and its rollout."""
    await lab.deploy(name, 4)
    git = Git(lab, name, wanted)
    async with git.syncing():
        await git.more(1)
        async with lab.rolled(name) as case:
            yield case, git


async def test_a_tool_that_applies_the_whole_manifest(served: Lab) -> None:
    """Its first sync takes the version back: the rollout is held with its name, loses no capacity, and can abort."""
    async with synced(served, "chat", whole) as (case, git):
        status = await case.run.until("it holds", lambda s: s.phase == "Held")
        assert status.reason.startswith(f"{MANAGER} (Apply at ") and status.needs_person
        assert "spec.containers[server].image example/chat:2 → example/chat:1" in status.reason
        await until("only version 1", lambda: case.only("chat:1"))
        await git.more()
        await case.run.send("abort")
        report = await case.run.end()
        await git.more()
    assert report.status.outcome == "Aborted"
    assert case.only("chat:1")
    case.watcher.assert_within(4, 5, passing=1)


async def test_a_tool_that_leaves_our_fields_alone(served: Lab) -> None:
    """It syncs during the whole rollout and after it, and nothing of it is lost."""
    async with synced(served, "chat", without_ours) as (case, git):
        report = await case.run.end()
        await git.more()
        assert case.only("chat:2") and len(served.pods("chat")) == 4
    assert report.status.outcome == "Completed"
    case.watcher.assert_within(4, 5)
    found = served.raw("chat")
    assert found["metadata"]["labels"]["team"] == "chat"
    assert found["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}
