"""Old replicas leave their Services before they stop, and the next step waits until they have ended."""

import asyncio
from typing import Any

from harness import Lab, until
from kube_api import create
from subjects import DeploymentSubject
from webhooks import down, in_force

BRIDGED = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}


def expose(lab: Lab, name: str, service: str = "", **more: Any) -> None:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}], **more}
    create(lab.core.create_namespaced_service, lab.namespace, {"metadata": {"name": service or name}, "spec": spec})


async def test_without_a_hook_each_leaves_its_services_first(served: Lab) -> None:
    """No old pod is stopped while a Service still lists it as ready; the floor counts it as gone already."""
    expose(served, "chat")
    async with served.case("chat", 3, drain={"quiet": "500ms"}) as case:
        report = await case.ends("Completed")
    assert case.watcher.stopped_ready == []
    case.watcher.assert_within(3, 4)
    warnings = [entry.detail for entry in report.entries if entry.what == "warning"]
    assert any("in a rollback" in warning for warning in warnings)


async def test_a_service_that_publishes_unready_pods_is_not_waited_for(served: Lab) -> None:
    """No replica leaves it, as those of a headless Service by which peers find each other: a warning tells it once."""
    expose(served, "chat")
    expose(served, "chat", "peers", clusterIP="None", publishNotReadyAddresses=True)
    async with served.case("chat", 2, drain={"quiet": "200ms", "timeout": "1m"}) as case:
        report = await case.ends("Completed", limit_s=60)
    assert case.watcher.stopped_ready == []
    told = [entry.detail for entry in report.entries if "publishNotReadyAddresses" in entry.detail]
    assert len(told) == 1 and told[0].startswith("service peers publishes"), told


async def test_without_drain_the_loss_is_told(served: Lab) -> None:
    """The plan says what will be lost, and it is: pods are stopped while they are ready."""
    async with served.case("chat", 2) as case:
        plan = await case.run.plan()
        await case.ends("Completed")
    assert any("requests will be lost: container server has no preStop hook" in warning for warning in plan.warnings)
    assert len(case.watcher.stopped_ready) == 2


async def test_a_hook_needs_no_help(served: Lab) -> None:
    """Where a preStop hook bridges the time, nothing is marked, and nothing is warned of."""
    target: dict[str, Any] = {"container": BRIDGED}
    async with served.case("chat", 2, target=target, drain={"timeout": "20s"}) as case:
        plan = await case.run.plan()
        await case.ends("Completed")
    assert not [warning for warning in plan.warnings if "will be lost" in warning]
    assert len(case.watcher.stopped_ready) == 2


async def test_the_next_step_waits_for_the_end(served: Lab) -> None:
    """With drain, no more than one step's old replicas end their requests at once; without it, they pile up."""
    slow = {"container": BRIDGED, "annotations": {"segue.dev/stop-after": "3s"}}
    async with served.case("waits", 3, target=slow, drain={"timeout": "19s"}) as waits:
        await waits.ends("Completed")
    assert max(sample.leaving for sample in waits.watcher.samples) == 1
    waits.watcher.assert_within(3, 4)


async def test_a_drain_that_takes_too_long_is_left(served: Lab) -> None:
    """At its deadline the rollout goes on, and the report says so."""
    stuck = {"container": BRIDGED, "annotations": {"segue.dev/stop-after": "20s"}}
    async with served.case("chat", 2, target=stuck, drain={"timeout": "1s"}) as case:
        report = await case.ends("Completed")
    assert any("did not end in time" in entry.detail for entry in report.entries)


async def test_a_replica_without_a_pod_goes_first(served: Lab) -> None:
    """No pod of a version can be created until another one is wanted: for it, no ready pod leaves its Services."""
    expose(served, "chat")
    await DeploymentSubject(served, "chat").create(3)
    probe: Any = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [{"name": "a", "image": "a/b"}]}}

    async def superseded(name: str, drain: dict[str, Any]) -> None:
        await is_down.wait()
        async with served.rolled(name, drain=drain) as case:
            await case.run.until("it holds", lambda status: "no pod can be created" in status.waiting_for)
            await case.run.send("retarget", change=case.subject.changed(3))
            await until("the next one has its turn", lambda: "example/chat:3" in case.subject.image())
            held.release()
            await case.ends("Completed")
        case.watcher.assert_within(3, 4)

    held, is_down = asyncio.Semaphore(0), asyncio.Event()
    drains: dict[str, dict[str, Any]] = {
        "chat": {"quiet": "500ms"}, "asked": {"quiet": "500ms", "timeout": "2s", "until": {"preset": "vllm"}}
    }  # fmt: skip
    await DeploymentSubject(served, "asked").create(3)
    async with asyncio.TaskGroup() as running:
        for name, drain in drains.items():
            running.create_task(superseded(name, drain))
        async with down(served, "pods", who="true", operation="CREATE", group=""):
            await in_force(lambda: create(served.core.create_namespaced_pod, served.namespace, probe, dry_run="All"))
            is_down.set()
            for _ in drains:
                await held.acquire()


async def test_what_cannot_be_asked_is_not_empty(served: Lab) -> None:
    """Servers that report nothing have until the deadline, which the status shows; a pause brings them back."""
    unknown = {"quiet": "500ms", "timeout": "4s", "until": {"preset": "vllm"}}

    async def left() -> None:
        async with served.case("left", 2, drain=unknown) as case:
            report = await case.ends("Completed")
        late = [
            entry.detail for entry in report.entries if entry.what == "warning" and "timeout is over" in entry.detail
        ]
        assert len(late) == 2 and all("not known of all" in each for each in late)
        assert case.watcher.stopped_ready == []
        case.watcher.assert_within(2, 3)

    async def paused() -> None:
        async with served.case("paused", 2, drain={**unknown, "timeout": "10m"}) as case:
            await case.run.until("it waits", lambda status: "to become empty" in status.waiting_for)
            await until("one is out", lambda: drained(served, "paused") == 1)
            await case.run.send("pause")
            await until("it serves again", lambda: drained(served, "paused") == 0)
            await case.rests()
            await case.run.send("abort")
            report = await case.ends("Aborted")
        assert any(entry.what == "stays" for entry in report.entries)

    await asyncio.gather(left(), paused())


def drained(lab: Lab, name: str) -> int:
    """How many pods say that they are draining."""
    conditions = [condition for pod in lab.pods(name) for condition in pod.status.conditions or []]
    return sum(condition.type == "Ready" and condition.reason == "Draining" for condition in conditions)
