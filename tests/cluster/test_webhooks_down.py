"""An admission webhook stops answering between two writes of one action: it is told, and nothing waits without end."""

import asyncio
import contextlib
from typing import Any

from harness import PATIENT, Case, Lab
from kube_api import create
from kubernetes import client
from subjects import DeploymentSubject, PairSubject, Subject
from webhooks import CANNOT_ASK, LABELLED, as_worker, down, in_force

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
PAUSES = "has(object.spec.paused) && object.spec.paused"


async def asked(case: Case) -> None:
    await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")


async def test_the_pause_after_a_move(served: Lab) -> None:
    """The moves go on without it, and the report says why the controller is not paused."""
    apps = client.AppsV1Api(as_worker(served))
    async with served.case("chat", 3, strategy=ASKS) as case:
        await asked(case)
        async with down(served, "deployments", PAUSES):
            patch, paused = apps.patch_namespaced_deployment, {"spec": {"paused": True}, **LABELLED}
            await in_force(lambda: patch("chat", served.namespace, paused, dry_run="All"))
            await case.run.send("approve")
            report = await case.ends("Completed")
    assert any(e.what == "not written" and CANNOT_ASK in e.detail for e in report.entries)
    case.watcher.assert_within(3, 4)


async def test_the_replica_sets_at_the_end(served: Lab) -> None:
    """The end is not done before they are written, forward and back, and the status says what it waits for."""
    apps = client.AppsV1Api(as_worker(served))

    async def one(case: Case, message: str, outcome: str) -> None:
        await case.run.send(message)
        await case.run.until("it says so", lambda s: CANNOT_ASK in s.waiting_for)
        told.release()
        await case.ends(outcome)

    told = asyncio.Semaphore(0)
    async with contextlib.AsyncExitStack() as stack:
        on = await stack.enter_async_context(served.case("on", 2, strategy=ASKS))
        back = await stack.enter_async_context(served.case("pair", 2, kind=PairSubject, strategy=ASKS))
        await asyncio.gather(asked(on), asked(back))
        async with asyncio.TaskGroup() as running, down(served, "replicasets"):
            name, patch = served.replicasets("on")[0]["metadata"]["name"], apps.patch_namespaced_replica_set
            await in_force(lambda: patch(name, served.namespace, LABELLED, dry_run="All"))
            running.create_task(one(on, "approve", "Completed"))
            running.create_task(one(back, "abort", "Aborted"))
            for _ in range(2):
                await told.acquire()


async def test_the_pods(served: Lab) -> None:
    """No pod can be created for longer than the deadline: that is not the version's fault, and both complete later."""

    async def one(name: str, kind: type[Subject]) -> None:
        async with served.case(name, 2, kind=kind, strategy=ASKS, readiness=PATIENT) as case:
            await asked(case)
            ready.release()
            await is_down.wait()
            await case.run.send("approve")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert "no pod can be created: " in status.waiting_for and "failed calling webhook" in status.waiting_for
            assert status.needs_person
            told.release()
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    ready, told, is_down = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()
    container: Any = {"name": "server", "image": "example/chat:1"}
    probe = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [container]}}
    async with asyncio.TaskGroup() as running:
        for name, kind in (("one", DeploymentSubject), ("pair", PairSubject)):
            running.create_task(one(name, kind))
        for _ in range(2):
            await ready.acquire()
        async with down(served, "pods", who="true", operation="CREATE", group=""):
            await in_force(lambda: create(served.core.create_namespaced_pod, served.namespace, probe, dry_run="All"))
            is_down.set()
            for _ in range(2):
                await told.acquire()
