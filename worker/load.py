"""How loaded a worker is: its slots, its memory, and how long its event loop is blocked. In metrics and in the log."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from worker.limits import memory_used_mib

PULSE_S = 0.5
"""The interval at which the event loop is measured."""
BLOCKED_S = 1.0
"""An event loop that is late by this much is reported: heartbeats and commands of people wait for it."""
NEAR, AWAY = 0.8, 0.7
"""The share of a limit at which the worker reports that it is near, and below which it is no longer."""
REPORT_S = 60.0
"""A blocked event loop is reported at most this often, with the longest time."""
LATE_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)

log = logging.getLogger("segue.worker")


class Level:
    """One limit, and whether its use was reported as near it."""

    def __init__(self, what: str, limit: float, fix: str) -> None:
        self._what, self.limit, self._fix = what, limit, fix
        self._is_near = False

    def report(self, used: float) -> str:
        """Return what to log about this use; empty if that was reported, or if the use is away from the limit."""
        share = used / self.limit
        was_near, self._is_near = self._is_near, share >= (AWAY if self._is_near else NEAR)
        if self._is_near == was_near:
            return ""
        state = "near its limit" if self._is_near else "no longer near its limit"
        fix = f"; {self._fix}" if self._is_near else ""
        return f"this worker is {state}: {used:,.0f} of {self.limit:,.0f} {self._what}{fix}"


class Load(Interceptor):
    """Counts the slots in use, and measures memory and the event loop until it is cancelled."""

    def __init__(self, slots: int, memory_mib: float, meter: metrics.Meter | None = None) -> None:
        self.running = Counter[str]()
        """Activities by their task queue: each has these slots."""
        self._tasks = 0
        self._slots = Level(
            "slots are in use", slots,
            "beyond it, further rollouts and writes wait for a free slot; start another worker, "
            "or raise SEGUE_MAX_CONCURRENT_ACTIVITIES",
        )  # fmt: skip
        self._memory = Level(
            "MiB of memory are in use", memory_mib,
            "start another worker, lower SEGUE_MAX_CONCURRENT_ACTIVITIES, or give it more memory",
        )  # fmt: skip
        self._longest_s = 0.0
        self._reported_at = float("-inf")
        self._register(meter or metrics.get_meter("segue"))

    @property
    def used(self) -> int:
        """The slots in use, in the queue that uses most."""
        return max(self.running.values(), default=0)

    def _register(self, meter: metrics.Meter) -> None:
        self._late = meter.create_histogram(
            "segue.event_loop.late",
            unit="s",
            description="How late the event loop runs a due task",
            explicit_bucket_boundaries_advisory=LATE_BUCKETS_S,
        )

        def used(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self.used)

        def limit(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self._slots.limit)

        def memory(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self._memory.limit * 2**20)

        def tasks(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self._tasks)

        meter.create_observable_gauge("segue.slots.used", [used], description="Activities that run now")
        meter.create_observable_gauge("segue.slots.limit", [limit], description="The most activities at one time")
        meter.create_observable_gauge("segue.memory.limit", [memory], unit="By", description="Memory it may use")
        meter.create_observable_gauge("segue.tasks", [tasks], description="Tasks of the event loop")

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's
        """Count each activity while it runs."""
        return _Counting(next, self)

    async def measure(self) -> None:
        """Measure and report until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(PULSE_S)
            late_s = max(0.0, time.monotonic() - before - PULSE_S)
            self._late.record(late_s)
            self._tasks = len(asyncio.all_tasks())
            for line in (self._slots.report(self.used), self._memory.report(memory_used_mib()), self._blocked(late_s)):
                if line:
                    log.warning(line)

    def _blocked(self, late_s: float) -> str:
        """Return what to log about a blocked event loop; empty if it was reported within ``REPORT_S``."""
        self._longest_s = max(self._longest_s, late_s)
        if self._longest_s < BLOCKED_S or time.monotonic() < self._reported_at + REPORT_S:
            return ""
        longest_s, self._longest_s, self._reported_at = self._longest_s, 0.0, time.monotonic()
        return (
            f"the event loop was blocked for {longest_s:.1f} s: heartbeats and commands waited; "
            "this worker has too many rollouts or too little CPU"
        )


class _Counting(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, load: Load) -> None:
        super().__init__(following)
        self._load = load

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's
        queue = activity.info().task_queue
        self._load.running[queue] += 1
        try:
            return await super().execute_activity(input)
        finally:
            self._load.running[queue] -= 1
