"""A worker's slots follow its memory; it reports that it is near a limit before it is at it."""

import asyncio
import dataclasses
import logging
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pydantic import ValidationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor

from activities.clock import Clock
from activities.cluster import Cluster
from segue.errors import Refused
from worker.__main__ import serve
from worker.compose import make_activities
from worker.limits import FEWEST, MOST, memory_limit_mib, memory_used_mib, slots
from worker.load import BLOCKED_S, Level, Load
from worker.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("wanted", "memory_mib", "expected"),
    [
        pytest.param(None, 256.0, FEWEST, id="small"),
        pytest.param(None, 1_024.0, 624, id="fits"),
        pytest.param(None, 65_536.0, MOST, id="large"),
        pytest.param(100, 1_024.0, 100, id="set"),
        pytest.param(5_000, 65_536.0, 5_000, id="set-beyond-the-default"),
    ],
)
def test_slots_follow_memory(wanted: int | None, memory_mib: float, expected: int) -> None:
    assert slots(wanted, memory_mib) == expected


def test_slots_beyond_memory_are_refused() -> None:
    with pytest.raises(Refused, match=r"needs about 5,400 MiB of memory, and this worker may use 1,024 MiB") as caught:
        slots(5_000, 1_024.0)
    assert caught.value.fix.startswith("set at most 624")


async def test_slots_that_do_not_fit_are_refused_by_the_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`helm test` reads the worker's settings in a smaller pod; it failed, although the workers ran."""
    monkeypatch.setattr("worker.settings.memory_limit_mib", lambda: 512.0)
    monkeypatch.setenv("SEGUE_MAX_CONCURRENT_ACTIVITIES", "600")
    settings = load_settings()
    with pytest.raises(Refused, match="needs about 1,000 MiB of memory, and this worker may use 512 MiB"):
        await serve(settings)


@pytest.mark.parametrize(("has_default", "each"), [(False, 45), (True, 30)])
def test_clusters_share_the_slots(each: int, *, has_default: bool) -> None:
    """Targets that name no cluster have a queue of their own. A full share frees slots soon, not only a full worker."""
    clusters: Any = {"west": {"context": "west", "default": has_default}, "east": {"context": "east"}}
    settings = Settings(clusters=clusters, max_concurrent_activities=90)
    turns = make_activities(cast("Cluster", SimpleNamespace(clock=Clock())), settings)._turns
    assert (settings.slots_each, turns._slots) == (each, each)


async def test_the_fullest_queue_is_reported() -> None:
    """One cluster may be full while the others have free slots."""
    load, found = Load(10, 1e6), list[int]()

    class Inside(ActivityInboundInterceptor):
        async def execute_activity(self, input: Any) -> None:  # noqa: A002 - the SDK's
            found.append(load.used)
            if input:
                await run(input[0], input[1:])

    def run(queue: str, queues: Any) -> Any:
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, task_queue=queue)
        return environment.run(load.intercept_activity(Inside(cast("Any", None))).execute_activity, queues)

    await run("west", ["east", "west", "east"])
    assert (found, load.used) == ([1, 1, 2, 2], 0)


@pytest.mark.parametrize("number", [0, 9, 10_001])
def test_slots_out_of_bounds_are_refused(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        Settings(max_concurrent_activities=number)
    monkeypatch.setenv("SEGUE_MAX_CONCURRENT_ACTIVITIES", str(number))
    with pytest.raises(Refused, match="SEGUE_MAX_CONCURRENT_ACTIVITIES"):
        load_settings()


def test_the_machine_has_a_limit() -> None:
    assert 0 < memory_used_mib() < memory_limit_mib()


def test_near_a_limit_is_reported_once() -> None:
    """Before it is reached, and again only after it was away from it."""
    level = Level("slots are in use", 100, "start another worker")
    messages = [level.report(used) for used in (10, 79, 80, 99, 75, 69, 85)]
    near = "this worker is near its limit: 80 of 100 slots are in use; start another worker"
    away = "this worker is no longer near its limit: 69 of 100 slots are in use"
    assert messages == ["", "", near, "", "", away, near.replace("80", "85")]


async def test_a_blocked_event_loop_is_measured_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    load = Load(10, 1e6, MeterProvider(metric_readers=[reader]).get_meter("test"))
    others = len(asyncio.all_tasks())  # this test, and what another one may have left in the loop of the session
    with caplog.at_level(logging.WARNING):
        measuring = asyncio.create_task(load.measure())
        await asyncio.sleep(0)
        time.sleep(BLOCKED_S + 0.8)
        while "the event loop was blocked" not in caplog.text:
            await asyncio.sleep(0.01)
        measuring.cancel()
    data = reader.get_metrics_data()
    assert data is not None
    found = {m.name: m.data.data_points[0] for s in data.resource_metrics[0].scope_metrics for m in s.metrics}
    assert found["segue.event_loop.late"].max >= BLOCKED_S  # type: ignore[union-attr]
    assert found["segue.slots.limit"].value == 10  # type: ignore[union-attr]
    assert found["segue.tasks"].value == others + 1, "and the measurement"  # type: ignore[union-attr]
