"""Connections that hang, and watches whose place in the stream is gone: noticed, and begun anew."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, until
from killing_worker import KillingWorker
from proxy import proxied

import activities.cluster
from activities.cluster import Cluster, Object
from activities.levers.deployment.lever import DeploymentLever
from activities.watching import NamespaceWatch, Watches
from segue.errors import Expired, Unreachable

SILENCE_S = 2.0


@pytest.fixture
async def cluster(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker's own client, with a worker's rights."""
    monkeypatch.setattr(
        "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(lab.stack.kubeconfig_for("segue-worker"))
    )
    opened = await Cluster.connect()
    yield opened
    await opened.close()


async def test_stalled_connections(lab: Lab, tmp_path: Path) -> None:
    """All connections of a worker fall silent at a waypoint; it notices, connects anew, and the rollout goes on."""
    await lab.deploy("chat", 4)
    rights = lab.stack.kubeconfig_for("segue-worker")
    async with proxied(rights, tmp_path) as (proxy, through):
        KillingWorker(lab, environment={"KUBECONFIG": str(through)}, silence_s=SILENCE_S)
        with lab.watch("chat") as watcher:
            run = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]})
            await run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            before = proxy.connections
            proxy.stall()
            await run.send("approve")
            report = await run.end()
    assert report.status.outcome == "Completed"
    assert proxy.connections > before
    watcher.assert_within(4, 5)


async def test_silent_watch_is_begun_anew(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a watch is silent the picture is not current for long, and what happened meanwhile is seen."""
    # Also a request may be under way when all falls silent: its answer is waited for no longer.
    monkeypatch.setattr(activities.cluster, "SILENCE_S", SILENCE_S)
    monkeypatch.setattr(activities.cluster, "REQUEST_TIMEOUT_S", SILENCE_S)
    async with proxied(lab.stack.kubeconfig, tmp_path) as (proxy, through):
        monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(through))
        cluster = await Cluster.connect()
        async with _watched(cluster, lab) as watch:
            await until("the first picture", lambda: watch.current)
            proxy.stall()
            await lab.deploy("chat", 1)
            await until("the new picture", lambda: watch.current and watch.get("deployments", "chat"), limit_s=10)
        await cluster.close()


async def test_quiet_namespace_is_current_after_an_outage(lab: Lab, cluster: Cluster) -> None:
    """Where nothing happens no event comes: the watch must not wait for one to call its picture current again."""
    async with _watched(_FailsOnce(cluster), lab) as watch:
        await until("the outage", lambda: watch.trouble)
        await until("the picture", lambda: watch.current and not watch.trouble, limit_s=10)


async def test_expired_version_is_told(lab: Lab, cluster: Cluster) -> None:
    """The API server answers 410 to a watch from long ago."""
    with pytest.raises(Expired):
        async for _ in cluster.watch("pods", lab.namespace, "1"):
            pass


async def test_more_streams_than_a_pool_has_connections(lab: Lab, cluster: Cluster) -> None:
    """A worker follows several kinds of many namespaces, each by a stream that holds a connection for minutes."""
    version = (await cluster.list("pods", lab.namespace))["metadata"]["resourceVersion"]
    streams = [cluster.watch("pods", lab.namespace, version) for _ in range(120)]
    events = asyncio.gather(*(anext(aiter(each)) for each in streams))
    await lab.deploy("chat", 1)
    assert {event for event, _ in await events} == {"ADDED"}
    assert (await cluster.get("deployments", lab.namespace, "chat"))["status"]["replicas"] == 1
    await asyncio.gather(*(each.aclose() for each in streams if isinstance(each, AsyncGenerator)))


async def test_lists_anew_after_410(lab: Lab, cluster: Cluster) -> None:
    """A watch whose resource version has expired lists again, and follows from there."""
    await lab.deploy("chat", 1)
    aged = _ListsOldVersions(cluster)
    async with _watched(aged, lab) as watch:
        await until("the second lists", lambda: aged.lists["deployments"] >= 2)
        await lab.deploy("chat-2", 1)
        await until("the new one", lambda: watch.current and watch.get("deployments", "chat-2"))


@asynccontextmanager
async def _watched(cluster: Any, lab: Lab) -> AsyncIterator[NamespaceWatch]:
    watches = Watches(cluster)
    try:
        async with watches.use(lab.namespace, DeploymentLever.kinds) as watch:
            yield watch
    finally:
        await watches.close()


class _Wrapped:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self.clock = cluster, cluster.clock

    def pages(self, kind: str, namespace: str, fields: str) -> AsyncIterator[Object]:
        return self._cluster.pages(kind, namespace, fields)

    def watch(self, kind: str, namespace: str, version: str, fields: str) -> AsyncIterator[tuple[str, Object]]:
        return self._cluster.watch(kind, namespace, version, fields)


class _FailsOnce(_Wrapped):
    """The real client, whose first watch of each kind breaks off."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._failed: set[str] = set()

    async def watch(self, kind: str, namespace: str, version: str, fields: str) -> AsyncIterator[tuple[str, Object]]:
        if kind not in self._failed:
            self._failed.add(kind)
            raise Unreachable("broken off")
        async for event in super().watch(kind, namespace, version, fields):
            yield event


class _ListsOldVersions(_Wrapped):
    """The real client, whose first list of each kind claims to be as old as the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.lists = {"deployments": 0, "replicasets": 0, "pods": 0}

    async def pages(self, kind: str, namespace: str, fields: str) -> AsyncIterator[Object]:
        self.lists[kind] += 1
        async for page in super().pages(kind, namespace, fields):
            if self.lists[kind] == 1:
                page["metadata"]["resourceVersion"] = "1"
            yield page
