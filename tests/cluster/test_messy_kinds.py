"""Other kinds of targets, and routes, on a messy cluster: late operators, lost annotations, crashing groups."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway
from harness import FAST, Lab, Run, open_lab, until
from kube_api import create
from kubernetes import client
from operators import RUNTIME, RUNTIME_LABELS, Operator, define
from segue_local import Stack, tied_stack
from shell import Shell
from subjects import DeploymentSubject, LeaderWorkerSetSubject, PairSubject, StatefulSetSubject, Subject
from traffic_watcher import GROUP, PLURAL, VERSION

from segue.report import Report, to_markdown

Object = dict[str, Any]
OURS = ("segue.dev/rollout", "segue.dev/baseline", "segue.dev/traffic")
SOON = {"minReady": "0s", "deadline": "60s"}


async def ends(run: Run, outcome: str) -> Report:
    report = await run.end()
    assert report.status.outcome == outcome, to_markdown(report)
    return report


class LateOperator(Operator):
    """Acts on each change of a resource, in order, some seconds after it."""

    def __init__(self, lab: Lab, late_s: float) -> None:
        super().__init__(lab, *RUNTIME, RUNTIME_LABELS)
        self._late_s = late_s
        self._changes: dict[str, list[tuple[float, Object]]] = {}

    def _reconcile(self, found: Object) -> None:
        now, changes = time.monotonic(), self._changes.setdefault(found["metadata"]["name"], [])
        if not changes or changes[-1][1]["metadata"]["generation"] != found["metadata"]["generation"]:
            changes.append((now, found))
        due = [each for at, each in changes if now >= at + self._late_s] or [changes[0][1]]
        super()._reconcile({**due[-1], "status": found.get("status")})


@asynccontextmanager
async def operated(lab: Lab, name: str, *, late_s: float = 0.0) -> AsyncIterator[tuple[Operator, Run]]:
    """Yield the operator of a ServingRuntime, in a namespace of its own, and its rollout."""
    async with open_lab(lab.stack, lab.task_queue) as own:
        define(own, *RUNTIME, "ServingRuntime")
        operator = LateOperator(own, late_s)
        own.tasks["operator"] = asyncio.create_task(operator.run())
        spec = {"replicas": 2, "containers": [{"name": "server", "image": "example/chat:1"}]}
        await operator.make("ServingRuntime", name, spec)
        target = {"kind": "Supervised", "resource": "ServingRuntime", "namespace": own.namespace, "name": name}
        run = await own.start(name, target=target, strategy={}, readiness=SOON)
        await run.until("the change is written", lambda status: status.moves)
        yield operator, run
        assert operator.get(name)["spec"] == spec
        assert not set(OURS) & set(operator.get(name)["metadata"].get("annotations", {}))
        pods: list[Any] = own.core.list_namespaced_pod(own.namespace, label_selector=f"app={name}").items
        assert {pod.spec.containers[0].image for pod in pods if not pod.metadata.deletion_timestamp} == {
            "example/chat:1"
        }


async def acts_late(lab: Lab) -> None:
    """The new pods come after the rollback: it does not end before they are gone again."""
    async with operated(lab, "late", late_s=3.0) as (_, run):
        await run.send("abort")
        await ends(run, "Aborted")


async def takes_back(lab: Lab) -> None:
    """Somebody writes the former version back: held, named, and written no more."""
    async with operated(lab, "reverted") as (operator, run):
        operator.patch("reverted", {"spec": {"containers": [{"name": "server", "image": "example/chat:1"}]}})
        status = await run.until("it holds", lambda status: status.phase == "Held")
        assert status.reason.startswith("a-person (Update at "), status.reason
        assert status.reason.endswith(" changed spec.containers, which this rollout had written"), status.reason
        generation = operator.get("reverted")["metadata"]["generation"]
        await run.send("abort")
        report = await ends(run, "Aborted")
        assert operator.get("reverted")["metadata"]["generation"] == generation
        assert report.status.moves == 1


async def loses_its_baseline(lab: Lab) -> None:
    """Only the annotation keeps the former version: a person writes it, and the rollout ends."""
    async with operated(lab, "stripped") as (operator, run):
        operator.patch("stripped", {"metadata": {"annotations": {"segue.dev/baseline": None}}})
        status = await run.until("it holds", lambda status: status.phase == "Held")
        assert "segue.dev/baseline: it is gone" in status.reason, status.reason
        operator.patch("stripped", {"spec": {"containers": [{"name": "server", "image": "example/chat:1"}]}})
        await run.send("abort")
        await ends(run, "Aborted")


class Route:
    """An HTTPRoute from one Deployment to another, half way between the two."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab, self.name = lab, name
        self._custom = client.CustomObjectsApi(lab.core.api_client)
        self._place = (GROUP, VERSION, lab.namespace, PLURAL)

    def get(self) -> Object:
        found: Any = self._custom.get_namespaced_custom_object(*self._place, self.name)
        return {**found}

    def delete(self) -> None:
        self._custom.delete_namespaced_custom_object(*self._place, self.name)

    def put_first(self, rule: Object) -> None:
        """Add a rule before all others, as another writer."""
        rules = {"spec": {"rules": [rule, *self.get()["spec"]["rules"]]}}
        self._custom.patch_namespaced_custom_object(*self._place, self.name, rules, field_manager="a-person")

    async def create(self) -> None:
        """Make both Deployments, the new one without replicas, their Services, and the route."""
        for side, replicas, image in (("old", 2, 1), ("new", 0, 2)):
            labels, name = {"app": self.name, "side": side}, f"{self.name}-{side}"
            service = {"metadata": {"name": name}, "spec": {"selector": labels, "ports": [{"port": 80}]}}
            create(self._lab.core.create_namespaced_service, self._lab.namespace, service)
            pod = {"containers": [{"name": "server", "image": f"example/chat:{image}"}]}
            template = {"metadata": {"labels": {**labels, "segue.dev/fake": "ready"}}, "spec": pod}
            spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
            made = {"metadata": {"name": name}, "spec": spec}
            create(self._lab.apps.create_namespaced_deployment, self._lab.namespace, made)
        backends = [{"name": f"{self.name}-old", "port": 80, "weight": 1}]
        body = {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": "HTTPRoute", "metadata": {"name": self.name},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": backends}]},
        }  # fmt: skip
        self._custom.create_namespaced_custom_object(*self._place, body)
        await until("it serves", lambda: self._lab.deployment(f"{self.name}-old").status.available_replicas == 2)

    async def half(self, readiness: dict[str, str] = SOON) -> Run:
        """Roll to the waypoint at which both sides have traffic."""
        old, new = f"{self.name}-old", f"{self.name}-new"
        target = {"kind": "DeploymentPair", "namespace": self._lab.namespace, "old": old, "new": new}
        traffic = {"route": self.name, "services": {"old": old, "new": new}, "lag": "1s"}
        waypoints = [{"at": 1, "weight": 50, "approval": True}]
        strategy = {"maxSurge": 1, "traffic": traffic, "waypoints": waypoints}
        run = await self._lab.start(self.name, target=target, strategy=strategy, readiness=readiness)
        await run.until("it asks", lambda status: status.phase == "AwaitingApproval" and status.traffic == 50)
        return run

    def is_back(self) -> bool:
        sides = (f"{self.name}-old", f"{self.name}-new")
        return [self._lab.deployment(each).spec.replicas for each in sides] == [2, 0]


async def is_deleted(lab: Lab) -> None:
    """The rollback does not wait for a route that is gone."""
    route = Route(lab, "deleted")
    await route.create()
    async with Gateway(lab.core.api_client, lab.namespace, "deleted"):
        run = await route.half()
        route.delete()
        status = await run.until("it holds", lambda status: status.phase == "Held")
        assert status.reason == "somebody changed httproute deleted: it was deleted"
        await run.send("abort")
        await ends(run, "Aborted")
    assert route.is_back()


async def is_refused_later(lab: Lab) -> None:
    """Its gateway accepted 50 %, and then refuses every weight: the route goes back once, and a person is called."""
    route = Route(lab, "refused")
    await route.create()
    async with Gateway(lab.core.api_client, lab.namespace, "refused") as gateway:
        run = await route.half({"minReady": "0s", "deadline": "6s"})
        written = route.get()["metadata"]["generation"]
        await gateway.refuse(0, 50)
        status = await run.until("it calls a person", lambda status: status.phase == "NeedsHuman")
        refusal = "the gateways to accept 0 % to new: gateway gateway (example.com/gateway) says Accepted is False"
        assert refusal in status.waiting_for, status.waiting_for
        assert route.get()["metadata"]["generation"] == written + 1
        await gateway.refuse()
        await ends(run, "RolledBack")
    assert route.is_back()


async def gets_another_rule(lab: Lab) -> None:
    """A rule that somebody put first moves the rollout's; it is not overwritten."""
    route, static = Route(lab, "moved"), {"name": "static", "port": 80, "weight": 1}
    await route.create()
    run = await route.half()
    route.put_first({"matches": [{"path": {"type": "PathPrefix", "value": "/static"}}], "backendRefs": [static]})
    await run.send("reject")
    await ends(run, "RolledBack")
    found = [[(ref["name"], ref["weight"]) for ref in rule["backendRefs"]] for rule in route.get()["spec"]["rules"]]
    assert found == [[("static", 1)], [("moved-old", 1)]]
    assert not set(OURS) & set(route.get()["metadata"].get("annotations", {}))
    assert route.is_back()


Case = Callable[[Lab], Any]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param((acts_late, is_deleted, is_refused_later), id="late-operator-and-lost-route"),
        pytest.param(
            (takes_back, loses_its_baseline, gets_another_rule), id="what-others-write", marks=pytest.mark.soak
        ),
    ],
)
async def test_operators_and_routes(served: Lab, cases: tuple[Case, ...]) -> None:
    """Side by side."""
    served.stack.add_gateway_api()
    await asyncio.gather(*(each(served) for each in cases))


# --- numbered targets ------------------------------------------------------------------------------------


@pytest.mark.soak
async def test_numbered_targets(served: Lab, tmp_path: Path) -> None:
    """A worker that crashes after it was ready, a StatefulSet that lost its annotations, a replica that blocks."""
    held = {"maxUnavailable": 1, "waypoints": [{"at": "100%"}]}

    async def crashes() -> None:
        """Its controller deletes the whole group each time, so no pod shows a restart for long."""
        containers = [{"name": "server", "image": "example/chat:2"}]
        worker = {"metadata": {"labels": {"segue.dev/fake": "oom"}}, "spec": {"containers": containers}}
        change = {"patch": {"workerTemplate": worker}}
        async with served.case(
            "crashes", 3, kind=LeaderWorkerSetSubject, change=change, strategy=held, readiness=SOON
        ) as case:
            report = await case.ends("RolledBack")
        assert "server was killed for lack of memory" in report.status.reason, report.status.reason

    async def is_released() -> None:
        """Both annotations are gone: the copy on its revision leads back."""
        strategy, shell = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}, Shell(served, tmp_path)
        async with served.case("released", 3, kind=StatefulSetSubject, strategy=strategy) as case:
            await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            case.subject.patch({"metadata": {"annotations": dict.fromkeys(OURS)}})
            await ends(case.run, "Aborted")
            await shell.run("release", f"StatefulSet/{served.namespace}/released", TEMPORAL_ADDRESS="127.0.0.1:1")
            assert case.subject.settings() == case.before
            assert await until("only the baseline runs", case.only_baseline)
        case.watcher.assert_within(2, 3)

    async def blocks() -> None:
        """The lowest number is not ready: the controller replaces no other, and the reason names it."""
        await served.deploy_set("blocks", 3, policy="OrderedReady")
        served.relabel("blocks-0", "never-ready")
        subject = StatefulSetSubject(served, "blocks")
        await until("one is not ready", lambda: subject.raw["status"].get("readyReplicas") == 2)
        async with served.rolled(
            "blocks", kind=StatefulSetSubject, strategy={"maxUnavailable": 1}, readiness={**SOON, "deadline": "8s"}
        ) as case:
            report = await case.ends("RolledBack")
        assert report.status.reason.startswith("Deadline: blocks-0: is not ready, and with podManagementPolicy")

    async def stops_slowly() -> None:
        """The one that is replaced stops for longer than the deadline; the new one has it all for itself."""
        readiness = {"minReady": "0s", "deadline": "6s"}
        await served.deploy_set("slow", 1, pod={"terminationGracePeriodSeconds": 30}, ready_after="2s")
        pod = {"metadata": {"annotations": {"segue.dev/stop-after": "10s"}}}
        served.core.patch_namespaced_pod("slow-0", served.namespace, pod)
        async with served.rolled(
            "slow", kind=StatefulSetSubject, strategy={"maxUnavailable": 1}, readiness=readiness
        ) as case:
            await case.ends("Completed")

    await asyncio.gather(crashes(), is_released(), blocks(), stops_slowly())


@pytest.fixture
def own_groups() -> Iterator[Stack]:
    """Servers of this test alone: it stops their controllers."""
    with tied_stack(f"segue-test-absent-{os.getpid()}", lws=True) as started:
        yield started


@pytest.mark.soak
async def test_a_controller_that_does_not_act_is_not_the_versions_fault(own_groups: Stack) -> None:
    """The rollout holds for longer than its deadline, names the object, and goes on when the controller acts again."""
    readiness, strategy = {"minReady": "0s", "deadline": "14s"}, {"maxUnavailable": 1, "waypoints": [{"at": "100%"}]}
    pid = next(each.pid for each in own_groups.status() if each.name == "kube-controller-manager")
    assert pid
    async with open_lab(own_groups) as lab:
        await lab.worker().serves()

        async def holds(name: str, kind: type[Subject]) -> None:
            async with lab.rolled(name, kind=kind, strategy=strategy, readiness=readiness) as case:
                status = await case.run.until("it waits", lambda status: "has not acted on its spec" in status.reason)
                assert f"statefulset {name} has not acted" in status.reason, status.reason
                assert status.phase == "Held", status
                held.release()
                await case.ends("Completed")
            case.watcher.assert_within(1, 2)

        async def acts_again() -> None:
            for _ in kinds:
                await held.acquire()
            os.kill(pid, signal.SIGCONT)

        kinds: dict[str, type[Subject]] = {"set": StatefulSetSubject, "groups": LeaderWorkerSetSubject}
        held = asyncio.Semaphore(0)
        await asyncio.gather(*(kind(lab, name).create(2) for name, kind in kinds.items()))
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.gather(acts_again(), *(holds(name, kind) for name, kind in kinds.items()))
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.soak
async def test_a_controller_that_stops_in_the_middle_is_not_the_versions_fault(own_groups: Stack) -> None:
    """The same of a Deployment and a pair, at an approval: approved or aborted, each waits, names it, and ends."""
    readiness, asks = {"minReady": "0s", "deadline": "14s"}, {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    patient = FAST.model_copy(update={"write_s": 30.0})  # a move waits some seconds for the controller
    pid = next(each.pid for each in own_groups.status() if each.name == "kube-controller-manager")
    assert pid
    async with open_lab(own_groups) as lab:
        await lab.worker().serves()

        async def one(name: str, kind: type[Subject], message: str, outcome: str) -> None:
            async with lab.rolled(name, kind=kind, strategy=asks, readiness=readiness, tuning=patient) as case:
                await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
                ready.release()
                await is_stopped.wait()
                await case.run.send(message)
                phase = "Held" if message == "approve" else "NeedsHuman"
                status = await case.run.until("it needs a person", lambda status: status.phase == phase)
                assert f"the controller of deployment {name}" in status.waiting_for, status.waiting_for
                told.release()
                await case.ends(outcome)
            case.watcher.assert_within(2, 3, passing=1)

        cases = (
            ("one", DeploymentSubject, "approve", "Completed"), ("back", DeploymentSubject, "abort", "Aborted"),
            ("pair", PairSubject, "approve", "Completed"),
        )  # fmt: skip
        ready, told, is_stopped = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()

        async def stops() -> None:
            for _ in cases:
                await ready.acquire()
            os.kill(pid, signal.SIGSTOP)
            is_stopped.set()
            for _ in cases:
                await told.acquire()
            os.kill(pid, signal.SIGCONT)

        await asyncio.gather(*(kind(lab, name).create(2) for name, kind, *_ in cases))
        try:
            await asyncio.gather(stops(), *(one(*each) for each in cases))
        finally:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def silent_node(lab: Lab) -> Iterator[str]:
    """A node that is Ready when it is made, and that no kubelet serves."""
    name = f"silent-{lab.namespace}"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
    status = {"capacity": {"cpu": "8", "memory": "8Gi", "pods": "9"}, "conditions": [ready]}
    spec = {"taints": [{"key": "silent", "effect": "NoSchedule"}]}  # no pod of another test
    about = {"name": name, "labels": {"silent": name}}
    create(lab.core.create_node, {"metadata": about, "spec": spec, "status": status})
    lab.core.patch_node_status(name, {"status": {**status, "allocatable": status["capacity"]}})
    try:
        yield name
    finally:
        with suppress(client.ApiException):  # the test removes it
            lab.core.delete_node(name)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.soak
async def test_a_replica_that_no_kubelet_takes_up_is_not_the_versions_fault(served: Lab) -> None:
    """Without the right to read nodes: the pod itself shows that its node does not answer."""
    await StatefulSetSubject(served, "silent").create(2)
    with silent_node(served) as node:
        pod = {"nodeSelector": {"silent": node}, "tolerations": [{"operator": "Exists"}]}
        containers = [{"name": "server", "image": "example/chat:2"}]
        async with served.rolled(
            "silent", kind=StatefulSetSubject, change={"patch": {"spec": {**pod, "containers": containers}}},
            strategy={"maxUnavailable": 1}, readiness={"minReady": "0s", "deadline": "18s"},
        ) as case:  # fmt: skip
            status = await case.run.until("it holds", lambda status: status.phase == "Held")
            assert status.waiting_for == f"room: silent-1: its node {node} does not answer", status.waiting_for
            served.core.delete_node(node)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(1, 2)
