"""Production's worker with an accident at one point, for tests of what a rollout survives.

An accident is written ``scale_old#2:during:kill``: at the second ``scale_old`` of the rollout, right after its first
effect, the process kills itself. The diary is a file, so the restarted worker knows that the accident has happened.

=========  ======================================================================================
``before``   the worker received the activity, and nothing of it ran
``sending``  it is about to send its first PATCH: it has read and checked everything before that
``during``   its first effect happened: the API server answered a PATCH (an activity that writes), a read
             (one that reads), or it reported for the first time (one that watches; one without a report, at its end)
``after``    it returned, and Temporal has not received the result
=========  ======================================================================================

``kill`` is SIGKILL; ``stop`` is SIGSTOP, for a test that continues it later; ``wait`` waits for ``go`` in the diary.
"""

import asyncio
import contextvars
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import forked
from harness import POLL_S, Lab, Run, until
from temporalio import activity
from temporalio.common import SearchAttributeKey
from temporalio.worker import ActivityInboundInterceptor, ActivityOutboundInterceptor, ExecuteActivityInput, Interceptor
from watcher import PodWatcher

import activities.cluster
from activities.cluster import Cluster, Object
from segue import contract
from worker.__main__ import connecting
from worker.compose import make_activities, make_workers
from worker.settings import Settings, load_settings
from worker.telemetry import set_up_logs

CRASHING = {"patch": {"metadata": {"labels": {"segue.dev/fake": "crash-loop"}}}}
"""A change to a version that fails reliably and soon."""

PHASES = ("before", "during", "after")
WRITES = {a.name for a in (
    contract.SCALE_NEW, contract.SCALE_OLD, contract.RESIZE, contract.SETTLE, contract.UNDO, contract.FINISH,
    contract.ROUTE,
)}  # fmt: skip
WATCHES = {contract.AWAIT_READY.name}

_running: contextvars.ContextVar[str] = contextvars.ContextVar("running")
"""The running activity, such as ``scale_old#2``."""


W = TypeVar("W")


@dataclass(frozen=True)
class Diary:
    """The record of a lab's workers, one line for each event; it survives them."""

    path: Path

    def write(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{line} at {time.time():.3f}\n")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    @property
    def activities(self) -> list[str]:
        """Return every started activity, such as ``scale_old#2``, in order; attempts count once."""
        return list(dict.fromkeys(line.split()[1] for line in self.lines if line.startswith("begin ")))

    @property
    def patches(self) -> list[str]:
        """Return the activity of each PATCH that the API server accepted."""
        return [line.split()[1] for line in self.lines if line.startswith("patched ")]

    @property
    def had_accident(self) -> bool:
        return self.says("accident")

    def says(self, beginning: str) -> bool:
        """Return whether a line starts with this text, such as ``end resize#1 attempt 1``."""
        return any(line.startswith(f"{beginning} ") for line in self.lines)

    @property
    def has_go(self) -> bool:
        return self.says("go")

    def number(self, name: str, activity_id: str) -> str:
        """Count the activities of one name; attempts of one activity count once."""
        ids = [line.split()[2] for line in self.lines if line.startswith(f"begin {name}#")]
        known = list(dict.fromkeys(ids))
        return f"{name}#{known.index(activity_id) + 1 if activity_id in known else len(known) + 1}"


class Accident(Interceptor):
    """Counts activities in the diary, and causes the accident at its point."""

    def __init__(self, diary: Diary, point: str) -> None:
        self.diary = diary
        self._at, _, self._what = point.rpartition(":")

    def intercept_activity(self, inner: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Inbound(inner, self)

    async def reach(self, phase: str) -> None:
        """Cause the accident once, if this is its point."""
        if not self._is_here(phase):
            return
        if self._what == "wait":
            while not self.diary.has_go:
                await asyncio.sleep(POLL_S)
            return
        os.kill(os.getpid(), signal.SIGKILL if self._what == "kill" else signal.SIGSTOP)

    def reach_now(self, phase: str) -> None:
        """Do the same in code that cannot await: a heartbeat."""
        if self._is_here(phase):
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_here(self, phase: str) -> bool:
        if self._at != f"{_running.get('')}:{phase}" or self.diary.had_accident:
            return False
        self.diary.write(f"accident {self._at}:{self._what}")
        return True


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, inner: ActivityInboundInterceptor, accident: Accident) -> None:
        super().__init__(inner)
        self._accident = accident

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_Outbound(outbound, self._accident))

    async def execute_activity(self, given: ExecuteActivityInput) -> Any:
        info, diary = activity.info(), self._accident.diary
        name = diary.number(info.activity_type, info.activity_id)
        diary.write(f"begin {name} {info.activity_id} attempt {info.attempt}")
        _running.set(name)
        await self._accident.reach("before")
        try:
            result = await super().execute_activity(given)
        finally:
            diary.write(f"end {name} attempt {info.attempt}")
        if info.activity_type in WATCHES:
            await self._accident.reach("during")
        await self._accident.reach("after")
        return result


class _Outbound(ActivityOutboundInterceptor):
    def __init__(self, inner: ActivityOutboundInterceptor, accident: Accident) -> None:
        super().__init__(inner)
        self._accident = accident

    def heartbeat(self, *details: Any) -> None:
        super().heartbeat(*details)
        self._accident.reach_now("during")


class AccidentalCluster(Cluster):
    """The real client, which reports each answer of the API server."""

    accident: Accident

    async def get(self, kind: str, namespace: str, name: str) -> Object:
        return await self._read(super().get(kind, namespace, name))

    async def list(self, kind: str, namespace: str, selector: str = "") -> Object:
        return await self._read(super().list(kind, namespace, selector))

    async def patch(self, kind: str, namespace: str, name: str, patch: Object, *, dry_run: bool = False) -> Object:
        if dry_run:
            return await self._read(super().patch(kind, namespace, name, patch, dry_run=True))
        return await self._written(lambda: super(AccidentalCluster, self).patch(kind, namespace, name, patch))

    async def create(self, kind: str, namespace: str, made: Object, *, dry_run: bool = False) -> Object:
        create = super().create
        if dry_run:
            return await self._read(create(kind, namespace, made, dry_run=True))
        return await self._written(lambda: create(kind, namespace, made))

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        delete = super().delete
        await self._written(lambda: delete(kind, namespace, name, uid))

    async def _read(self, call: Awaitable[Object]) -> Object:
        found = await call
        if _running.get("").partition("#")[0] not in WRITES | WATCHES:
            await self.accident.reach("during")
        return found

    async def _written(self, call: Callable[[], Awaitable[W]]) -> W:
        await self.accident.reach("sending")
        found = await call()
        self.accident.diary.write(f"patched {_running.get('')} attempt {activity.info().attempt}")
        await self.accident.reach("during")
        return found


async def _serve(settings: Settings, accident: Accident) -> None:
    cluster = await AccidentalCluster.connect()
    cluster.accident = accident
    [worker] = make_workers(
        await connecting(settings)(),
        settings,
        {None: make_activities(cluster, settings)},
        interceptors=[accident],
    )
    await worker.run()


def _main(diary: Path, point: str, silence_s: float | None) -> None:
    if silence_s is not None:
        activities.cluster.SILENCE_S = silence_s
    settings = load_settings()
    set_up_logs(settings)
    asyncio.run(_serve(settings, Accident(Diary(diary), point)))


class KillingWorker:
    """A worker process with an accident."""

    def __init__(
        self, lab: Lab, accident: str = "", *, environment: dict[str, str] | None = None, silence_s: float | None = None
    ) -> None:
        number = len(lab.workers)
        self.log = lab.stack.state_dir / "logs" / f"worker-{lab.task_queue}-{number}.log"
        self.diary = Diary(self.log.with_suffix(".diary"))
        self._environment = {**os.environ, **lab.worker_environment(environment or {})}
        self._mark = lab.stack.mark
        self._given = (self.diary.path, accident, silence_s)
        lab.workers.append(self)
        self.start()

    def start(self) -> None:
        """Start the worker, also again after its accident."""
        self.process = forked.start(self._mark, self._environment, self.log, _main, *self._given)

    async def until_gone(self) -> None:
        """Wait until the accident has ended the worker."""
        await until("the worker to be killed", lambda: self.process.exitcode is not None, limit_s=300)
        assert self.process.exitcode == -signal.SIGKILL

    @asynccontextmanager
    async def explained(self) -> AsyncIterator[None]:
        """Add to a failure of the block what this worker did and logged."""
        try:
            yield
        except BaseException as error:
            lived = "lives" if self.process.exitcode is None else f"ended with {self.process.exitcode}"
            log = self.log.read_text()[-4000:] if self.log.exists() else ""
            error.add_note("\n".join((f"The worker {lived}. Its diary:", *self.diary.lines[-40:], "Its log:", log)))
            raise

    async def until_accident(self) -> None:
        """Wait until the worker reaches its point."""
        await until("the accident", lambda: self.diary.had_accident)

    def go(self) -> None:
        """Let a waiting worker continue."""
        self.diary.write("go")

    def resume(self) -> None:
        """Continue the worker after SIGSTOP."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(timeout=10)


@asynccontextmanager
async def watched(lab: Lab, name: str) -> AsyncIterator[PodWatcher]:
    """Watch pods without blocking other runs in this process."""
    watcher = await asyncio.to_thread(lab.watch(name).__enter__)
    try:
        yield watcher
    except BaseException as error:
        await asyncio.to_thread(watcher.__exit__, type(error), error, None)
        raise
    await asyncio.to_thread(watcher.__exit__, None, None, None)


async def until_phase(run: Run, phase: str) -> None:
    """Wait for a phase by its search attribute: a hanging worker might receive a query and never answer.

    The limit covers a stopped worker's open polls: each task that they receive is lost until its timeout.
    """
    attribute = SearchAttributeKey.for_keyword(contract.PHASE_ATTRIBUTE)

    async def is_there() -> bool:
        return (await run.handle.describe()).typed_search_attributes.get(attribute) == phase

    await until(f"phase {phase}", is_there, limit_s=240)
