"""Pods that cannot be created in the middle, for targets whose controllers tell it only in events."""

import asyncio
from typing import Any

import pytest
from harness import Case, Lab, reaching, until
from kube_api import create
from subjects import LeaderWorkerSetSubject, StatefulSetSubject, Subject, SupervisedSubject
from webhooks import down, in_force

from activities.levers.numbered.statefulset import StatefulSetLever
from activities.release.stepped import release_stepped

SOON = {"minReady": "0s", "deadline": "6s"}
ASKS = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}
NUMBERED: dict[str, type[Subject]] = {"set": StatefulSetSubject, "groups": LeaderWorkerSetSubject}
PROBE: dict[str, Any] = {
    "metadata": {"generateName": "probe-"},
    "spec": {"containers": [{"name": "server", "image": "example/chat:1"}]},
}


async def holds(case: Case, why: str) -> None:
    status = await case.run.until("it holds", lambda s: s.phase == "Held")
    assert "no pod can be created: " in status.waiting_for and why in status.waiting_for, status.waiting_for


async def test_a_webhook_that_does_not_answer(served: Lab) -> None:
    """It holds past the deadline, and goes on when the webhook is removed."""

    async def numbered(name: str) -> None:
        async with served.rolled(name, kind=NUMBERED[name], strategy=ASKS, readiness=SOON) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            ready.release()
            await is_down.wait()
            await case.run.send("approve")
            await holds(case, "failed calling webhook")
            held.release()
            await case.ends("Completed")
        case.watcher.assert_within(1, 2)

    async def operated() -> None:
        ready.release()
        await is_down.wait()
        async with served.rolled("operated", kind=SupervisedSubject, readiness=SOON) as case:
            await holds(case, "failed calling webhook")
            held.release()
            await case.ends("Completed")
        case.watcher.assert_within(2, 3, passing=1)

    kinds = {**NUMBERED, "operated": SupervisedSubject}
    await asyncio.gather(*(kind(served, name).create(2) for name, kind in kinds.items()))
    ready, held, is_down = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()
    async with asyncio.TaskGroup() as running:
        for each in (*map(numbered, NUMBERED), operated()):
            running.create_task(each)
        for _ in kinds:
            await ready.acquire()
        async with down(served, "pods", who="true", operation="CREATE", group=""):
            await in_force(lambda: create(served.core.create_namespaced_pod, served.namespace, PROBE, dry_run="All"))
            is_down.set()
            for _ in kinds:
                await held.acquire()


@pytest.mark.parametrize(
    "name", ["set", pytest.param("groups", marks=pytest.mark.soak), pytest.param("operated", marks=pytest.mark.soak)]
)
async def test_a_quota_that_is_full_in_the_middle(served: Lab, name: str) -> None:
    """Somebody lowers it below what runs: it holds past the deadline, and goes on when there is none."""
    kind, is_operated = {**NUMBERED, "operated": SupervisedSubject}[name], name == "operated"
    await kind(served, name).create(2)
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}

    def fill() -> None:
        create(served.core.create_namespaced_resource_quota, served.namespace, quota)

    if is_operated:
        fill()
    async with served.rolled(name, kind=kind, readiness=SOON, strategy={} if is_operated else ASKS) as case:
        if not is_operated:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            fill()
            await case.run.send("approve")
        await holds(case, "exceeded quota: full")
        served.core.delete_namespaced_resource_quota("full", served.namespace)
        await case.ends("Completed")
    case.watcher.assert_within(1, 3)


@pytest.mark.soak
async def test_a_release_says_why_it_waits(served: Lab) -> None:
    """The same quota, without Temporal: it is named, and the release ends when there is none."""
    await served.deploy_set("set", 2)
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
    told: list[str] = []
    async with (
        served.rolled("set", kind=StatefulSetSubject, readiness=SOON, strategy=ASKS) as case,
        reaching(served) as cluster,
    ):
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        create(served.core.create_namespaced_resource_quota, served.namespace, quota)
        await case.run.handle.terminate("by a person")
        target = served.rollout("set", target=case.subject.target).spec.target
        lever = StatefulSetLever(cluster)
        going = asyncio.create_task(release_stepped(cluster, lever, target, "baseline", "test", 120.0, told.append))
        await until("it says why", lambda: any("exceeded quota: full" in line for line in told))
        served.core.delete_namespaced_resource_quota("full", served.namespace)
        await going
        assert case.subject.settings() == case.before
    case.watcher.assert_within(1, 2)
