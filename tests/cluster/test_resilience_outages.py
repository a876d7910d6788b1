"""A server is killed and started again in the middle of rollouts: the same end, with floor and ceiling held.

Each outage meets several rollouts at once: one in the middle of a write, one that watches, one that waits for a person.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import Case, Lab, Run, open_lab, until
from killing_worker import CRASHING, KillingWorker, watched
from kube_api import create
from mirroring import mirrored
from segue_local import Stack, temporal_config, tied_stack
from shell import Shell
from subjects import DeploymentSubject, PairSubject, StatefulSetSubject, Subject
from temporalio.service import RPCError

from segue.report import to_markdown
from segue.state import RESTORED

ASKS = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
SLOWLY = {"ready_after": "3s"}
PATIENT = {"minReady": "0s", "deadline": "3m"}
"""The fake nodes need their time too after an outage; how long does not matter here."""
BACK_IN_S = 180.0


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Servers that may be killed without disturbing other tests."""
    with tied_stack(f"segue-outages-{os.getpid()}") as started:
        yield started


@pytest.fixture(scope="module")
def own_postgres_stack() -> Iterator[Stack]:
    """The same with Temporal as in production."""
    with tied_stack(f"segue-outages-postgres-{os.getpid()}", postgres=True) as started:
        yield started


@asynccontextmanager
async def away(own_stack: Stack, part: str) -> AsyncIterator[None]:
    """Kill a server, and start it again at the end of the block."""
    await asyncio.to_thread(own_stack.kill, part)
    try:
        yield
    finally:
        await asyncio.to_thread(own_stack.restart, part)


@pytest.mark.parametrize("part", ["temporal", "kube-apiserver", "etcd", "kube-controller-manager"])
async def test_outage(own_stack: Stack, part: str) -> None:
    """Whatever a rollout does when the server is lost, it ends as if nothing had happened."""
    await _outage(own_stack, part)


@pytest.mark.soak
@pytest.mark.parametrize("part", temporal_config.PARTS)
async def test_outage_of_whole_temporal_servers(own_postgres_stack: Stack, part: str) -> None:
    """The same when the database, one of two servers, or the balancer in front of them is lost."""
    await _outage(own_postgres_stack, part)


async def test_a_rewritten_way_back_waits_for_the_controller_to_follow_a_resize(own_stack: Stack) -> None:
    """It would add loading pods to the version that is rolled back, and remove ready ones in their place."""
    async with open_lab(own_stack) as lab:
        await lab.deploy("chat", 3)
        await lab.worker().serves()
        run = await lab.start("chat", strategy=ASKS, readiness=PATIENT)
        await run.until("it asks", lambda status: status.phase == "AwaitingApproval")
        async with mirrored(lab), watched(lab, "chat") as watcher:
            async with away(own_stack, "kube-controller-manager"):
                lab.apps.patch_namespaced_deployment_scale("chat", lab.namespace, {"spec": {"replicas": 5}})
                await run.send("abort")
                await run.until("it waits", lambda status: "still scaling to 5 replicas" in status.waiting_for)
                assert lab.raw("chat")["spec"]["template"]["spec"]["containers"][0]["image"] == "example/chat:2"
            report = await run.end()
        assert report.status.outcome == "Aborted", to_markdown(report)
        watcher.assert_within(3, 6, passing=1)


async def test_a_settled_target_is_paused_once_its_controller_has_noticed_what_is_kept(own_stack: Stack) -> None:
    """A paused controller scales by the sizes that it knows: by the former ones, it would remove a ready pod."""
    change, strategy = DeploymentSubject.changed(2, "never-ready"), {"maxSurge": 2}
    async with open_lab(own_stack) as lab:
        await lab.worker().serves()
        async with lab.case("chat", change=change, strategy=strategy, readiness=PATIENT) as case:
            await case.reaches(4, 2, ready=False)
            await case.mend(1, 3, 3)

            async def has_not_reacted() -> bool:
                pending = (await case.run.handle.describe()).raw_description.pending_activities
                return any("did not react" in each.last_failure.message for each in pending)

            async with away(own_stack, "kube-controller-manager"):
                await case.run.send("settle")
                await until("the controller to be waited for", has_not_reacted)
                assert not lab.raw("chat")["spec"].get("paused")
            await case.run.until("it settled", lambda status: status.phase == "Paused")
            assert await case.rests() == (3, 1)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(4, 6, passing=1)


async def test_a_controller_that_has_not_noticed_a_lost_pod_is_waited_for(own_stack: Stack) -> None:
    """It counts the lost pod as there, and would remove a ready one: nothing is removed before it has noticed."""

    async def one(name: str, kind: type[Subject], lab: Lab) -> None:
        strategy = {"maxSurge": 0, "maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}
        async with lab.case(name, 3, kind=kind, strategy=strategy, readiness=PATIENT) as case:
            await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            ready.release()
            await is_away.wait()
            pod = lab.pods(name, "chat:1")[0].metadata.name
            lab.core.delete_namespaced_pod(pod, lab.namespace, grace_period_seconds=0)
            await case.run.send("approve")
            await case.run.until("it waits", lambda status: "still counts 2 pods instead of 1" in status.waiting_for)
            told.release()
            await case.ends("Completed")
        case.watcher.assert_within(1, 3)  # the lost pod counts

    ready, told, is_away = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()
    async with open_lab(own_stack) as lab:
        await lab.worker().serves()
        async with asyncio.TaskGroup() as running:
            running.create_task(one("chat", DeploymentSubject, lab))
            running.create_task(one("pair", PairSubject, lab))
            for _ in range(2):
                await ready.acquire()
            async with away(own_stack, "kube-controller-manager"):
                is_away.set()
                for _ in range(2):
                    await told.acquire()


async def test_a_way_back_takes_what_a_controller_has_yet_to_remove(own_stack: Stack, tmp_path: Path) -> None:
    """It dies between its write to a ReplicaSet and the removal of pods. Back again, it would count them as ready."""
    strategy = {"maxSurge": 2, "maxUnavailable": 1, "waypoints": [{"at": 2, "approval": True}]}
    stands, goes_back, is_away = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()

    async def one(name: str, lab: Lab, kind: type[Subject] = DeploymentSubject) -> None:
        async with lab.case(name, 8, kind=kind, strategy=strategy, readiness=PATIENT) as case:
            await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            stands.release()
            await is_away.wait()
            [old] = [each["metadata"]["name"] for each in lab.replicasets(name) if each["spec"]["replicas"] == 8]
            lab.apps.patch_namespaced_replica_set(old, lab.namespace, {"spec": {"replicas": 6}})
            template, released = lab.raw(name)["spec"]["template"], None
            if name == "released":
                released = asyncio.create_task(Shell(lab, tmp_path).run("release", f"{lab.namespace}/{name}"))
            else:
                await case.run.send("abort")
            if kind is PairSubject:
                await case.run.until("it waits", lambda status: "has yet to remove 2 pods" in status.waiting_for)
            else:
                await until("its baseline is written", lambda: lab.raw(name)["spec"]["template"] != template)
            goes_back.release()
            if released is not None:
                await released
            await case.ends("Aborted")
        case.watcher.assert_within(7, 10, passing=2)

    async with open_lab(own_stack) as lab:
        await lab.worker().serves()
        async with asyncio.TaskGroup() as running:
            running.create_task(one("aborted", lab))
            running.create_task(one("released", lab))
            running.create_task(one("pair", lab, PairSubject))
            for _ in range(3):
                await stands.acquire()
            async with away(own_stack, "kube-controller-manager"):
                is_away.set()
                for _ in range(3):
                    await goes_back.acquire()


async def test_a_cluster_that_is_restored_from_a_backup(own_stack: Stack, tmp_path: Path) -> None:
    """A rollout continues from what the backup has of its target. If that has nothing of it, it ends, and says why."""
    asked = [{"at": 1, "approval": True}, {"at": 2, "approval": True}]
    stands, moved, is_kept, is_back = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event(), asyncio.Event()

    async def asks(run: Run, new: int) -> None:
        await run.until(f"it asks at {new}", lambda s: (s.phase, s.new.replicas) == ("AwaitingApproval", new))

    async def one(name: str, kind: type[Subject], message: str, outcome: str) -> None:
        subject, way = kind(lab, name), kind.ways[0]
        await subject.create(4)
        before, strategy = subject.settings(), {**way.strategy, "waypoints": asked}
        given: Any = {"target": subject.target, "strategy": strategy, "readiness": PATIENT}
        run = await lab.start(name, subject.changed(2), **given)
        await asks(run, 1)
        stands.release()
        await is_kept.wait()
        await run.send("approve")
        await asks(run, 2)
        moved.release()
        await is_back.wait()
        assert len(lab.pods(name, "chat:2")) < 2, "the backup has the target as it was"
        with lab.watch(name) as watcher:
            await run.send(message)
            case = Case(lab, name, subject, "example/chat:1", before, run, watcher)
            report = await case.ends(outcome)
        watcher.assert_within(way.floor, way.ceiling, passing=way.passing_back)
        assert any(entry.detail == RESTORED for entry in report.entries), to_markdown(report)

    async def led() -> None:
        """Its traffic has been switched since the backup."""
        await lab.deploy("blue", 2)
        await lab.deploy("green", 0)
        service = {"metadata": {"name": "led"}, "spec": {"selector": {"app": "blue"}, "ports": [{"port": 80}]}}
        create(lab.core.create_namespaced_service, lab.namespace, service)
        waypoints = [{"at": "100%", "approval": True}]
        strategy = {"type": "blueGreen", "traffic": {"service": "led", "lag": "1s"}, "waypoints": waypoints}
        target = {"kind": "DeploymentPair", "namespace": lab.namespace, "old": "blue", "new": "green"}
        run = await lab.start("led", target=target, strategy=strategy, readiness=PATIENT)
        await asks(run, 2)
        stands.release()
        await is_kept.wait()
        await run.send("approve")
        await run.until("it is switched", lambda status: status.traffic == 100)
        moved.release()
        await is_back.wait()
        await until("it is switched again", lambda: selector() == {"app": "green"})
        await run.send("promote")
        report = await run.end()
        assert report.status.outcome == "Completed", to_markdown(report)
        assert any(entry.detail == RESTORED for entry in report.entries), to_markdown(report)
        assert selector() == {"app": "green"}

    def selector() -> Any:
        found: Any = lab.core.read_namespaced_service("led", lab.namespace)
        return found.spec.selector

    async def later() -> None:
        await lab.deploy("later", 3)
        stands.release()
        await is_kept.wait()
        run = await lab.start("later", strategy={"maxSurge": 1, "waypoints": asked}, readiness=PATIENT)
        await asks(run, 1)
        moved.release()
        report = await run.end()
        assert report.status.outcome == "Aborted" and report.status.reason.startswith("Fenced: "), to_markdown(report)
        assert any(entry.detail == RESTORED for entry in report.entries), to_markdown(report)
        assert len(lab.pods("later", "chat:1")) == 3

    async with open_lab(own_stack) as lab:
        await lab.worker().serves()
        async with asyncio.TaskGroup() as running:
            running.create_task(one("chat", DeploymentSubject, "approve", "Completed"))
            running.create_task(one("back", DeploymentSubject, "abort", "Aborted"))
            running.create_task(one("pair", PairSubject, "approve", "Completed"))
            running.create_task(one("set", StatefulSetSubject, "abort", "Aborted"))
            running.create_task(led())
            running.create_task(later())
            for _ in range(6):
                await stands.acquire()
            await asyncio.to_thread(_back_up, own_stack, tmp_path)
            is_kept.set()
            for _ in range(6):
                await moved.acquire()
            await asyncio.to_thread(_restore, own_stack, tmp_path)
            is_back.set()


def _back_up(stack: Stack, folder: Path) -> None:
    stack.kill("etcd")
    shutil.copytree(stack.state_dir / "data/etcd", folder / "etcd")
    stack.restart("etcd")


def _restore(stack: Stack, folder: Path) -> None:
    """Put the backup in the place of the data, as Kubernetes advises: with all servers stopped."""
    of_kubernetes = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
    for part in reversed(of_kubernetes):
        stack.kill(part)
    shutil.rmtree(stack.state_dir / "data/etcd")
    shutil.copytree(folder / "etcd", stack.state_dir / "data/etcd")
    for part in of_kubernetes:
        stack.restart(part)


async def _outage(own_stack: Stack, part: str) -> None:
    gate = Gate()
    rollouts = [
        _meets(own_stack, gate, accident="scale_old#1:sending:wait"),
        _meets(own_stack, gate, accident="scale_old#1:during:wait"),
        _meets(own_stack, gate, accident="undo#1:sending:wait", outcome="RolledBack", change=CRASHING),
        _meets(own_stack, gate, target=SLOWLY),
        _meets(own_stack, gate, strategy=ASKS),
    ]
    async with asyncio.TaskGroup() as group:
        for rollout in rollouts:
            group.create_task(rollout)
        await until("all rollouts at their point", lambda: gate.waiting == len(rollouts), limit_s=90)
        await asyncio.to_thread(own_stack.kill, part)
        gate.lost.set()
        await until("all rollouts to go on into the outage", lambda: gate.waiting == 0)
        await asyncio.to_thread(own_stack.restart, part)
        gate.back.set()


class Gate:
    """Where rollouts and outage meet."""

    def __init__(self) -> None:
        self.waiting = 0
        self.lost = asyncio.Event()
        self.back = asyncio.Event()

    async def passed(self) -> None:
        """Wait, in the middle of something, until the server is lost."""
        self.waiting += 1
        await self.lost.wait()


async def _meets(
    stack: Stack, gate: Gate, *, accident: str = "", outcome: str = "Completed", target: dict[str, Any] | None = None,
    **spec: Any,
) -> None:  # fmt: skip
    async with open_lab(stack) as lab:
        await lab.deploy("chat", 3, **(target or {}))
        before = lab.settings("chat")
        worker = KillingWorker(lab, accident)
        async with watched(lab, "chat") as watcher:
            run = await lab.start("chat", **{"strategy": {"maxSurge": 1}, "readiness": PATIENT, **spec})
            await _reaches_its_point(lab, run, worker, accident, "waypoints" in spec.get("strategy", {}))
            await gate.passed()
            worker.go()
            gate.waiting -= 1
            await gate.back.wait()
            await until("Temporal's answer", partial(_answer, run.status), BACK_IN_S)
            if "waypoints" in spec.get("strategy", {}):
                await run.send("approve")
            report = await until("the end", partial(_answer, run.end), BACK_IN_S)
        assert report.status.outcome == outcome, to_markdown(report)
        assert {**lab.settings("chat"), "template": None} == {**before, "template": None}
        watcher.assert_within(3, 4, passing=0 if outcome == "Completed" else 1)


async def _answer(call: Callable[[], Awaitable[Any]]) -> Any:
    """Ask Temporal; None while it still reports the lost connection."""
    try:
        return await call()
    except RPCError:
        return None


async def _reaches_its_point(lab: Lab, run: Run, worker: KillingWorker, accident: str, asks: bool) -> None:
    if accident:
        await worker.until_accident()
    elif asks:
        await run.until("it asks", lambda status: status.phase == "AwaitingApproval")
    else:
        await until("a new pod that is not ready yet", lambda: lab.pods("chat", "chat:2"))
