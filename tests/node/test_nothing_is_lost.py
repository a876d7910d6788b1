"""Real model servers under constant traffic: whatever a rollout does, no request is lost and no stream is cut."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from harness import Case, until
from killing_worker import KillingWorker
from segue_local import Stack
from segue_local.traffic import Outcomes, Traffic
from serving import ACCELERATOR, ACCELERATORS, MLSERVER, REPLICAS, STREAMS, Serving, assert_nothing_lost

QUICK = {"minReady": "1s", "deadline": "3m"}
HOPELESS = {"minReady": "1s", "deadline": "12s"}
NOTICED_S = 12.0
"""How long the endpoint of a pod whose process was killed may still be known: what it was sent until then is lost."""
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


async def outcomes_of(serving: Serving, load: Traffic, *versions: str) -> Outcomes:
    """Wait until the versions have answered and every pod whose stop was requested is gone; then stop the traffic."""
    await serving.serves("chat")
    await until("the versions to answer", lambda: {*versions} <= load.so_far().by_version.keys())
    return await asyncio.to_thread(load.stop)


async def test_each_order(serving: Serving) -> None:
    """New first by one and by two, both at once, old first: there and back again, and nothing is lost."""
    orders: list[tuple[str, dict[str, Any], int, int]] = [
        ("v2", {"maxSurge": 1}, 3, 4),
        ("v1", {"maxSurge": 2}, 3, 5),
        ("v2", {"order": "scaleSimultaneously", "maxSurge": 1, "maxUnavailable": 1}, 2, 4),
        ("v1", {"order": "scaleInPriority", "maxSurge": 0, "maxUnavailable": 1}, 2, 3),
    ]
    await serving.deploy("chat", MLSERVER)
    serving.lab.worker()
    with serving.traffic("chat") as load:
        for tag, strategy, floor, ceiling in orders:
            change = MLSERVER.change(tag)
            async with serving.lab.rolled("chat", change, strategy=strategy, readiness=QUICK) as case:
                assert (await case.run.end()).status.outcome == "Completed"
            case.watcher.assert_within(floor, ceiling, passing=0 if len(strategy) == 1 else 2)
            await serving.serves("chat")
        assert_nothing_lost(await outcomes_of(serving, load, "v1", "v2"))


async def test_a_version_that_never_serves_comes_back(serving: Serving) -> None:
    """It cannot load, or loads for too long: it comes back by itself, and nothing is lost."""
    await serving.deploy("chat", MLSERVER)
    serving.lab.worker()
    with serving.traffic("chat") as load:
        for tag in ("cannot-load", "slow-load"):
            async with serving.lab.rolled("chat", MLSERVER.change(tag), readiness=HOPELESS) as case:
                await case.ends("RolledBack")
            case.watcher.assert_within(REPLICAS, REPLICAS + 1, passing=1)
            await serving.serves("chat")
        outcomes = await outcomes_of(serving, load, "v1")
    assert_nothing_lost(outcomes)
    assert outcomes.by_version.keys() == {"v1"}


async def test_a_version_that_serves_badly_is_taken_back(serving: Serving) -> None:
    """Slow or failing answers pass every readiness; a person says no at the waypoint. Only its own answers were bad."""
    await serving.deploy("chat", MLSERVER)
    serving.lab.worker()
    with serving.traffic("chat") as load:
        for tag in ("errors", "slow"):
            async with serving.lab.rolled("chat", MLSERVER.change(tag), strategy=ASKS, readiness=QUICK) as case:
                await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
                await until(f"{tag} to answer", lambda tag=tag: f"v3-{tag}" in load.so_far().by_version)  # type: ignore[misc]
                await case.run.send("reject")
                await case.ends("RolledBack")
            await serving.serves("chat")
        outcomes = await outcomes_of(serving, load, "v1", "v3-slow", "v3-errors")
    assert {request.why for request in outcomes.failed} <= {"status 500"}
    assert not outcomes.dropped


async def test_a_version_that_outgrows_its_memory_comes_back(serving: Serving) -> None:
    """It takes traffic until it is killed for its memory; lost is only what was on its way to that one pod."""
    await serving.deploy("chat", MLSERVER)
    serving.lab.worker()
    with serving.traffic("chat") as load:
        strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "hold": "5m"}]}
        async with serving.lab.rolled("chat", MLSERVER.change("oom"), strategy=strategy, readiness=QUICK) as case:
            report = await case.ends("RolledBack")
        outcomes = await outcomes_of(serving, load, "v1", "v3-oom")
    assert "OutOfMemory" in report.status.reason
    case.watcher.assert_within(REPLICAS, REPLICAS + 1, passing=1)
    killed_at = case.watcher.killed_at
    print(f"lost {len(outcomes.failed)} of {len(outcomes.requests)}, killed {len(killed_at)} times")
    for request in outcomes.failed:  # the kernel says when in whole seconds; a request may have been under way for one
        assert any(at - 1 <= request.at <= at + NOTICED_S for at in killed_at), (request, sorted(killed_at))


async def test_blue_green(serving: Serving) -> None:
    """Switched, switched back at once, and switched again for good: nothing is lost."""
    await serving.deploy("chat", MLSERVER, labels={"side": "blue"})
    serving.lab.worker()
    target = {"kind": "DeploymentPair", "namespace": serving.lab.namespace, "old": "chat", "new": "chat-green"}
    server = {"name": "server", "image": f"{MLSERVER.image}:v2"}
    change = {"patch": {"metadata": {"labels": {"side": "green"}}, "spec": {"containers": [server]}}}
    strategy = {"type": "blueGreen", "traffic": {"service": "chat"}, "retain": "5s"}
    spec: dict[str, Any] = {"target": target, "strategy": strategy, "readiness": QUICK}
    with serving.traffic("chat") as load:
        run = await serving.lab.start("chat", change, **spec)
        await run.until("the switch", lambda status: status.traffic == 100)
        await until("v2 to answer", lambda: "v2" in load.so_far().by_version)
        await run.send("abort")
        assert (await run.end()).status.outcome == "Aborted"
        assert {pod.spec.containers[0].image for pod in serving.lab.pods("chat")} == {f"{MLSERVER.image}:v1"}
        run = await serving.lab.start("chat", change, **spec)
        assert (await run.end()).status.outcome == "Completed"
        await until("blue to be gone", lambda: len(serving.lab.pods("chat")) == REPLICAS)
        outcomes = await asyncio.to_thread(load.stop)
    assert_nothing_lost(outcomes)
    assert outcomes.by_version.keys() == {"v1", "v2"}
    assert {pod.spec.containers[0].image for pod in serving.lab.pods("chat")} == {f"{MLSERVER.image}:v2"}


async def pause(case: Case) -> None:
    await case.run.send("pause")
    await case.rests()
    await case.run.send("resume")


async def scale(case: Case) -> None:
    await case.run.send("scale", replicas=REPLICAS + 1)


async def retarget(case: Case) -> None:
    await case.run.send("retarget", change=MLSERVER.change("slow"))


async def abort(case: Case) -> None:
    await case.run.send("abort")


class Steered(NamedTuple):
    """A rollout to a version, what a person sends in the middle, its outcome, and what runs then."""

    tag: str
    steer: Callable[[Case], Awaitable[None]]
    outcome: str
    runs: str


ABORTED, RETARGETED = Steered("v2", abort, "Aborted", "v1"), Steered("v2", retarget, "Completed", "slow")
PAUSED, SCALED = Steered("v2", pause, "Completed", "v2"), Steered("v1", scale, "Completed", "v1")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([ABORTED, RETARGETED], id="elsewhere"),
        pytest.param([PAUSED, SCALED, ABORTED, RETARGETED], id="all", marks=pytest.mark.soak),
    ],
)
async def test_steered(serving: Serving, steps: list[Steered]) -> None:
    """Paused and resumed, scaled in the middle, retargeted, aborted: nothing is lost."""
    await serving.deploy("chat", MLSERVER)
    serving.lab.worker()
    with serving.traffic("chat") as load:
        for tag, steer, outcome, runs in steps:
            async with serving.lab.rolled("chat", MLSERVER.change(tag), readiness=QUICK) as case:
                await case.run.until("a move", lambda status: status.moves >= 2)
                await steer(case)
                assert (await case.run.end()).status.outcome == outcome
            await serving.serves("chat")
            assert {pod.spec.containers[0].image for pod in serving.lab.pods("chat")} == {f"{MLSERVER.image}:{runs}"}
        outcomes = await outcomes_of(serving, load, "v1", "v2", "v3-slow")
    assert_nothing_lost(outcomes)
    assert len(serving.lab.pods("chat")) == REPLICAS + (SCALED in steps)


@pytest.mark.alone  # a kubelet that starts again takes pods as not ready until it has probed them
async def test_the_worker_is_killed_and_then_the_kubelet(serving: Serving, node_stack: Stack) -> None:
    """The worker in the middle of a write, the kubelet on the way: each rollout ends the same, and nothing is lost.

    While the kubelet is away nothing starts and nothing stops.
    """
    await serving.deploy("chat", MLSERVER)
    worker = KillingWorker(serving.lab, "scale_old#1:during:kill")
    with serving.traffic("chat") as load:
        async with serving.lab.rolled("chat", MLSERVER.change("v2"), readiness=QUICK) as case:
            await worker.until_gone()
            worker.start()
            await case.ends("Completed")
        case.watcher.assert_within(REPLICAS, REPLICAS + 1)
        await serving.serves("chat")
        async with serving.lab.rolled("chat", MLSERVER.change("v1"), readiness=QUICK) as case:
            await case.run.until("a move", lambda status: status.moves >= 2)
            await asyncio.to_thread(node_stack.kill, "kubelet")
            answered = len(load.so_far().requests)
            await until("the servers to answer without it", lambda: len(load.so_far().requests) > answered + 50)
            await asyncio.to_thread(node_stack.restart, "kubelet")
            await case.ends("Completed")
        assert_nothing_lost(await outcomes_of(serving, load, "v1", "v2"))


@pytest.mark.soak  # test_drain_by_evidence shows the same with longer streams
async def test_no_stream_is_cut(serving: Serving) -> None:
    """Streams that last longer than a step end whole, in a rollout that drains, and on the way back."""
    await serving.deploy("chat", STREAMS)
    serving.lab.worker()
    with serving.streams("chat") as load:
        async with serving.lab.rolled("chat", STREAMS.change("v2"), readiness=QUICK, drain={}) as case:
            await case.ends("Completed")
        await until("v2 to end a stream", lambda: "v2" in load.so_far().by_version)
        async with serving.lab.rolled("chat", STREAMS.change("v1"), readiness=QUICK) as case:
            await case.run.until("a move", lambda status: status.moves >= 2)
            await case.run.send("abort")
            await case.ends("Aborted")
        await serving.serves("chat")
        outcomes = await asyncio.to_thread(load.stop)
    assert not outcomes.cut, [stream.why for stream in outcomes.cut][:5]
    assert outcomes.by_version.keys() >= {"v1", "v2"}


@pytest.mark.soak
async def test_without_a_hook(serving: Serving) -> None:
    """Without preStop the plan predicts a loss, and it is measured; Segue's own drain avoids it."""
    await serving.deploy("chat", MLSERVER, pre_stop_s=0)
    serving.lab.worker()
    drains: list[tuple[str, dict[str, Any]]] = [("v2", {"drain": {}}), ("v1", {})]
    for tag, drain in drains:
        with serving.traffic("chat", rate=50) as load:
            async with serving.lab.rolled("chat", MLSERVER.change(tag), readiness=QUICK, **drain) as case:
                plan = await case.run.plan()
                await case.ends("Completed")
            outcomes = await outcomes_of(serving, load, "v1", "v2")
        predicted = [warning for warning in plan.warnings if warning.startswith("requests will be lost: ")]
        print(f"lost {len(outcomes.failed)} of {len(outcomes.requests)}")
        assert bool(predicted) is bool(outcomes.failed) is (not drain), tag
        case.watcher.assert_within(REPLICAS, REPLICAS + 1)


async def test_all_accelerators_are_taken(serving: Serving) -> None:
    """Old first, no accelerator more than there are: it completes, the floor holds, and nothing is lost.

    The controller may make a new pod while the old one is still stopping; it waits for its place without a node.
    """
    await serving.deploy("chat", MLSERVER, ACCELERATORS, accelerator=ACCELERATOR)
    serving.lab.worker()
    strategy = {"order": "scaleInPriority", "maxSurge": 0, "maxUnavailable": 1}
    with serving.traffic("chat") as load:
        async with serving.lab.rolled("chat", MLSERVER.change("v2"), strategy=strategy, readiness=QUICK) as case:
            await case.ends("Completed")
        assert_nothing_lost(await outcomes_of(serving, load, "v1", "v2"))
    case.watcher.assert_within(ACCELERATORS - 1, ACCELERATORS, passing=1)
    assert case.watcher.most_placed == ACCELERATORS
