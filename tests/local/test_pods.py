"""Fake pods of real Deployments behave as their label says, on the real control plane."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from segue_local import Stack

Eventually = Callable[[Callable[[], bool], str], None]


class Cluster:
    """The default namespace of the stack."""

    def __init__(self, stack: Stack) -> None:
        api: Any = config.new_client_from_config(str(stack.kubeconfig))  # type: ignore[no-untyped-call]
        # Any: the client's own types ask for models where dictionaries do, and make every field optional.
        self.apps: Any = client.AppsV1Api(api)
        self.core: Any = client.CoreV1Api(api)

    def deploy(self, name: str, mode: str | None, *, replicas: int = 1, gpus: int = 0, **annotations: str) -> None:
        """Create a Deployment of two containers whose pods have this mode and these segue.dev annotations."""
        labels = {"app": name} | ({"segue.dev/fake": mode} if mode else {})
        notes = {f"segue.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        limits = {"nvidia.com/gpu": str(gpus)} if gpus else None
        containers = [
            {"name": "model", "image": "model:v1", "resources": {"limits": limits}},
            {"name": "sidecar", "image": "sidecar:v1"},
        ]
        template = {
            "metadata": {"labels": labels, "annotations": notes},
            "spec": {"containers": containers},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        self.apps.create_namespaced_deployment("default", body)

    def pods(self, name: str) -> list[Any]:
        return list(self.core.list_namespaced_pod("default", label_selector=f"app={name}").items)

    def model(self, name: str) -> Any:
        """The status of the model container of the only pod; None before there is one."""
        for pod in self.pods(name):
            for status in pod.status.container_statuses or []:
                if status.name == "model":
                    return status
        return None

    def condition(self, name: str, kind: str) -> Any:
        """A condition of the only pod; None before there is one."""
        for pod in self.pods(name):
            for condition in pod.status.conditions or []:
                if condition.type == kind:
                    return condition
        return None

    def ready(self, name: str) -> str | None:
        condition = self.condition(name, "Ready")
        return condition.status if condition else None


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Cluster:
    return Cluster(stack)


def test_pod_without_a_label_becomes_ready(cluster: Cluster, eventually: Eventually) -> None:
    """A plain Deployment becomes available, and its pods look like a kubelet's."""
    cluster.deploy("plain", None, replicas=2)

    def available() -> bool:
        found = cluster.apps.read_namespaced_deployment_status("plain", "default")
        return bool(found.status.available_replicas == 2)

    eventually(available, "two available replicas")
    first, second = cluster.pods("plain")
    assert first.status.phase == "Running"
    assert first.status.start_time
    assert first.status.pod_ip != second.status.pod_ip
    for status in first.status.container_statuses:
        assert (status.ready, status.started, status.restart_count) == (True, True, 0)
        assert status.state.running.started_at
        assert status.container_id.startswith("containerd://")
    conditions = {condition.type: condition for condition in first.status.conditions}
    for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready"):
        assert conditions[kind].status == "True"
        assert conditions[kind].last_transition_time


def test_ready_after_delays_readiness(cluster: Cluster, eventually: Eventually) -> None:
    """A pod runs for as long as its annotation says before it is Ready; the condition tells the moment."""
    cluster.deploy("slow", "ready", ready_after="3s")
    eventually(lambda: cluster.model("slow") is not None, "a running container")
    assert cluster.ready("slow") == "False"
    eventually(lambda: cluster.ready("slow") == "True", "Ready")
    since = cluster.condition("slow", "Ready").last_transition_time
    waited = since - cluster.model("slow").state.running.started_at
    assert waited.total_seconds() >= 2  # the API keeps whole seconds


def test_never_ready(cluster: Cluster, eventually: Eventually) -> None:
    """The model runs and is not ready; its sidecar is; nothing restarts."""
    cluster.deploy("never", "never-ready", ready_after="1ms")
    eventually(lambda: cluster.model("never") is not None, "a running container")
    time.sleep(1)  # a thousand times its ready-after: what must not happen would have
    status = cluster.model("never")
    assert (status.ready, status.restart_count) == (False, 0)
    assert status.state.running
    assert cluster.ready("never") == "False"
    assert [s.ready for s in cluster.pods("never")[0].status.container_statuses] == [False, True]


def test_crash_loop(cluster: Cluster, eventually: Eventually) -> None:
    """The model exits 1, waits in CrashLoopBackOff, and its restart count grows."""
    cluster.deploy("crash", "crash-loop", fail_after="100ms", restart_every="500ms")
    eventually(lambda: (s := cluster.model("crash")) is not None and s.restart_count >= 3, "three restarts")
    status = cluster.model("crash")
    assert status.state.waiting.reason == "CrashLoopBackOff"
    assert (status.last_state.terminated.exit_code, status.last_state.terminated.reason) == (1, "Error")
    assert cluster.ready("crash") == "False"


def test_image_pull(cluster: Cluster, eventually: Eventually) -> None:
    """The model waits in ErrImagePull, then in ImagePullBackOff, with the image in the message."""
    cluster.deploy("pull", "image-pull", fail_after="2s")
    seen: list[str] = []

    def backing_off() -> bool:
        status = cluster.model("pull")
        if status is not None and status.state.waiting.reason not in seen:
            seen.append(status.state.waiting.reason)
        return seen[-1:] == ["ImagePullBackOff"]

    eventually(backing_off, "ImagePullBackOff")
    assert seen == ["ErrImagePull", "ImagePullBackOff"]
    assert "model:v1" in cluster.model("pull").state.waiting.message
    assert cluster.pods("pull")[0].status.phase == "Pending"


def test_oom(cluster: Cluster, eventually: Eventually) -> None:
    """The model is Ready first, is OOM-killed later, and then waits in CrashLoopBackOff."""
    cluster.deploy("oom", "oom", fail_after="1500ms", restart_every="60s")
    eventually(lambda: cluster.ready("oom") == "True", "Ready at first")
    eventually(lambda: cluster.model("oom").restart_count >= 1, "a restart")
    status = cluster.model("oom")
    assert status.restart_count == 1
    assert status.state.waiting.reason == "CrashLoopBackOff"
    assert (status.last_state.terminated.reason, status.last_state.terminated.exit_code) == ("OOMKilled", 137)
    assert cluster.ready("oom") == "False"


def test_unready_later_and_mended(cluster: Cluster, eventually: Eventually) -> None:
    """A pod loses its readiness without a restart, and gets it back when its label is set to ready."""
    cluster.deploy("later", "unready-later", fail_after="1500ms")
    eventually(lambda: cluster.ready("later") == "True", "Ready at first")
    eventually(lambda: cluster.ready("later") == "False", "not Ready later")
    status = cluster.model("later")
    assert (status.ready, status.restart_count) == (False, 0)
    assert status.state.running
    pod = cluster.pods("later")[0].metadata.name
    patch = {"metadata": {"labels": {"segue.dev/fake": "ready"}}}
    cluster.core.patch_namespaced_pod(pod, "default", patch)
    eventually(lambda: cluster.ready("later") == "True", "Ready again")


def test_deleted_pods_end_after_their_time(cluster: Cluster, eventually: Eventually) -> None:
    """A deleted pod is gone after its stop-after, and no later than its grace period."""
    cluster.deploy("quick", None)
    cluster.deploy("drains", None, stop_after="3s")
    cluster.deploy("stuck", None, stop_after="10m")
    took: dict[str, float] = {}
    names = {}

    def is_ready(app: str) -> bool:
        return cluster.ready(app) == "True"

    for app in ("quick", "drains", "stuck"):
        eventually(partial(is_ready, app), f"{app} Ready")
        names[app] = cluster.pods(app)[0].metadata.name
    started = time.monotonic()
    for app, pod in names.items():
        cluster.apps.delete_namespaced_deployment(app, "default", propagation_policy="Orphan")
        cluster.core.delete_namespaced_pod(pod, "default", grace_period_seconds=8)

    def all_gone() -> bool:
        for app, pod in names.items():
            if app not in took and pod not in {p.metadata.name for p in cluster.pods(app)}:
                took[app] = time.monotonic() - started
        return len(took) == 3

    eventually(all_gone, "three pods gone")
    assert took["quick"] < took["drains"] < took["stuck"] < 100
    assert took["drains"] >= 3


def test_stateful_sets_take_max_unavailable(cluster: Cluster) -> None:
    """The feature gate is on: the field of a StatefulSet's rolling update is kept."""
    labels = {"app": "set"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": "m"}]}}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    spec = {"serviceName": "set", "selector": {"matchLabels": labels}, "template": template}
    body = {"metadata": {"name": "set"}, "spec": spec | {"replicas": 0, "updateStrategy": strategy}}
    kept = cluster.apps.create_namespaced_stateful_set("default", body)
    assert kept.spec.update_strategy.rolling_update.max_unavailable == 2


def test_a_deleted_pod_takes_no_other_with_it(cluster: Cluster, eventually: Eventually) -> None:
    """What a StatefulSet makes anew under the name of a deleted pod stays."""
    labels, replicas = {"app": "anew"}, 20
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": "m"}]}}
    spec = {"serviceName": "anew", "selector": {"matchLabels": labels}, "template": template, "replicas": replicas}
    body = {"metadata": {"name": "anew"}, "spec": spec | {"podManagementPolicy": "Parallel"}}
    cluster.apps.create_namespaced_stateful_set("default", body)

    def all_ready(but: set[str]) -> bool:
        pods = cluster.pods("anew")
        conditions = [(c.type, c.status) for pod in pods for c in pod.status.conditions or []]
        return conditions.count(("Ready", "True")) == replicas and not but & {pod.metadata.uid for pod in pods}

    eventually(partial(all_ready, set()), "all Ready")
    of_them = {"label_selector": "app=anew", "namespace": "default"}
    found = cluster.core.list_namespaced_pod(**of_them)
    first = {pod.metadata.uid for pod in found.items}
    cluster.core.delete_collection_namespaced_pod(**of_them)
    eventually(partial(all_ready, first), "others Ready")
    stream: Callable[..., Iterator[Any]] = watch.Watch().stream  # type: ignore[no-untyped-call]
    events = stream(
        cluster.core.list_namespaced_pod, **of_them, resource_version=found.metadata.resource_version, timeout_seconds=2
    )
    assert sum(event["type"] == "ADDED" for event in events) == replicas


@pytest.mark.soak
def test_pods_go_on_after_an_outage(cluster: Cluster, stack: Stack, eventually: Eventually) -> None:
    """A pod whose readiness was just being written when etcd was killed is Ready when it is back."""
    replicas = 30
    [etcd] = [part for part in stack.status() if part.name == "etcd"]
    assert etcd.pid is not None

    def ready() -> int:
        statuses = [pod.status.conditions or [] for pod in cluster.pods("outage")]
        return sum(("Ready", "True") in {(c.type, c.status) for c in conditions} for conditions in statuses)

    cluster.deploy("outage", None, replicas=replicas, ready_after="1s")
    eventually(lambda: ready() > 0, "the first of them Ready")
    os.kill(etcd.pid, signal.SIGSTOP)  # what is sent from here on is on its way until the end
    try:
        eventually(lambda: unread(etcd.ports) > 10_000, "the status of some pods, 3 kB each, that nobody reads")
    finally:
        stack.kill("etcd")
        stack.restart("etcd")
    eventually(lambda: ready() == replicas, "all Ready")


def unread(ports: Mapping[str, int]) -> int:
    """How many bytes came to these ports and were not read, as the kernel counts them."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Of a row: its own address, its state (01 is connected), and what waits to be sent and to be read, all in hex.
    open_to = [(int(own.rpartition(":")[2], 16), waits) for _, own, _, state, waits, *_ in rows if state == "01"]
    return sum(int(waits.partition(":")[2], 16) for port, waits in open_to if port in ports.values())


def test_accelerators_are_counted(cluster: Cluster, eventually: Eventually) -> None:
    """A pod that finds no free accelerator stays Pending, and the real scheduler says why."""
    cluster.deploy("gpus", None, replicas=4, gpus=8)

    def three_run() -> bool:
        return len([pod for pod in cluster.pods("gpus") if pod.status.phase == "Running"]) == 3

    eventually(three_run, "three of four pods on three nodes with 8 GPUs each")

    def refused() -> list[Any]:
        return [
            condition.message
            for pod in cluster.pods("gpus")
            for condition in pod.status.conditions or []
            if condition.reason == "Unschedulable"
        ]

    eventually(lambda: len(refused()) == 1, "one unschedulable pod")
    assert "Insufficient nvidia.com/gpu" in refused()[0]
    cluster.apps.delete_namespaced_deployment("gpus", "default")
