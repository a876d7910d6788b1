"""Old replicas leave their Services before they stop, and the next step waits until they have ended."""

from typing import Any

from harness import Lab

BRIDGED = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}


def expose(lab: Lab, name: str) -> None:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    lab.core.create_namespaced_service(lab.namespace, {"metadata": {"name": name}, "spec": spec})


async def test_without_a_hook_each_leaves_its_services_first(served: Lab) -> None:
    """No old pod is told to stop while a Service still knows it as ready; the floor counts it as gone already."""
    expose(served, "chat")
    async with served.case("chat", 3, drain={"quiet": "500ms"}) as case:
        report = await case.ends("Completed")
    assert case.watcher.stopped_ready == []
    case.watcher.assert_within(3, 4)
    warnings = [entry.detail for entry in report.entries if entry.what == "warning"]
    assert any("on a way back" in warning for warning in warnings)


async def test_without_drain_the_loss_is_told(served: Lab) -> None:
    """The plan says what will be lost, and it is: pods are told to stop while they are ready."""
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
    assert any("have not ended in time" in entry.detail for entry in report.entries)
