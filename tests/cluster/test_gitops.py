"""A GitOps tool owns the Deployment, and applies its manifest again and again during a rollout.

Each sync is what Argo CD and Flux send: a server-side apply that takes the fields from everybody else. Client-side
apply, as older tools and people use it, sends a strategic merge patch with the manifest in an annotation.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Case, Lab, pod_template, until
from kubernetes.client import ApiException

MANAGER = "argocd-controller"
CLIENT_SIDE = "kubectl-client-side-apply"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
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


def without_image(live: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest that never had the fields that Segue owns: another tool created the object."""
    wanted = whole(live)
    for field in ("replicas", "minReadySeconds", "strategy"):
        del wanted["spec"][field]
    del wanted["spec"]["template"]["spec"]["containers"][0]["image"]
    return wanted


class Git:
    """A tool that syncs a Deployment."""

    def __init__(self, lab: Lab, name: str, wanted: Wanted, *, client_side: bool = False) -> None:
        self.syncs = 0
        self._lab, self._name, self._wanted, self._client_side = lab, name, wanted, client_side

    def sync(self) -> None:
        """Apply what is wanted; it takes each field from the managers that own it."""
        body, kind = self._wanted(self._lab.raw(self._name)), "application/apply-patch+yaml"
        options: dict[str, Any] = {"field_manager": MANAGER, "force": True}
        if self._client_side:
            body["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(body)}
            options, kind = {"field_manager": CLIENT_SIDE}, "application/strategic-merge-patch+json"
        try:
            self._lab.apps.patch_namespaced_deployment(
                self._name, self._lab.namespace, body, _content_type=kind, **options
            )
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
async def synced(lab: Lab, name: str, wanted: Wanted, *, client_side: bool = False) -> AsyncIterator[tuple[Case, Git]]:
    """A target that a tool syncs, and its rollout."""
    await lab.deploy(name, 4)
    git = Git(lab, name, wanted, client_side=client_side)
    async with git.syncing():
        await git.more(1)
        # The time of a write has whole seconds: in that of its creation, the creator may seem to be the later writer.
        created = lab.deployment(name).metadata.creation_timestamp
        await until("a later second", lambda: datetime.now(UTC) >= created + timedelta(seconds=1))
        async with lab.rolled(name) as case:
            yield case, git


@pytest.mark.parametrize("client_side", [False, True], ids=["server-side", "client-side"])
async def test_a_tool_that_applies_the_whole_manifest(served: Lab, *, client_side: bool) -> None:
    """Its first sync takes the version back: the rollout is held with its name, loses no capacity, and can abort."""
    who = f"{CLIENT_SIDE} (Update at " if client_side else f"{MANAGER} (Apply at "
    async with synced(served, "chat", whole, client_side=client_side) as (case, git):
        status = await case.run.until("it holds", lambda s: s.phase == "Held")
        assert status.reason.startswith(who) and status.needs_person
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
    await _is_left_alone(served, "chat", without_ours)
    found = served.raw("chat")
    assert found["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}


async def test_a_manifest_without_our_fields(served: Lab) -> None:
    """The same by both ways to apply, if the manifest never names the image."""
    await asyncio.gather(
        _is_left_alone(served, "server-side", without_image),
        _is_left_alone(served, "client-side", without_image, client_side=True),
    )
    assert LAST_APPLIED in served.raw("client-side")["metadata"]["annotations"]


async def _is_left_alone(served: Lab, name: str, wanted: Wanted, *, client_side: bool = False) -> None:
    async with synced(served, name, wanted, client_side=client_side) as (case, git):
        report = await case.run.end()
        await git.more()
        assert case.only("chat:2") and len(served.pods(name)) == 4
    assert report.status.outcome == "Completed"
    case.watcher.assert_within(4, 5)
    assert served.raw(name)["metadata"]["labels"]["team"] == "chat"
