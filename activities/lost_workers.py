"""Notices that another worker is lost, and takes over all that it watched.

Temporal notices a lost worker by each watch alone: when the heartbeats of that watch end, which takes up to 75 s
for a rollout that waits. The first of these watches that it hands to another worker shows that the former one may be
lost. If that one sent no other heartbeat either, this worker ends its other watches too: Temporal hands them out at
once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState, TimeoutType
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from segue import contract

SILENT_S = 10.0
"""A worker is lost if none of its watches sent a heartbeat for so long, and Temporal missed one of them."""
AGAIN_S = 60.0
"""The interval between two such findings about one worker: after an outage of Temporal, many watches begin again."""
AT_ONCE = 16
"""The most requests to Temporal under way at one time."""
_ROLLOUTS = f"WorkflowType = '{contract.WORKFLOW}' AND ExecutionStatus = 'Running'"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Watching(NamedTuple):
    """A watch that Temporal has handed to a worker."""

    workflow_id: str
    run_id: str | None
    activity_id: str
    worker: str
    """The worker's identity."""
    seen_at: float
    """Its start, or its latest heartbeat, by the server's clock: seconds since the epoch."""
    is_late: bool
    """Whether Temporal missed the heartbeats of its former attempt."""


class LostWorkers:
    """What this worker finds out about others."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Task[None]] = {}

    def notice(self) -> None:
        """Find out, beside an activity that begins, whether its former worker is lost."""
        info = activity.info()
        former, client = former_worker(info), activity.client()
        if former in {"", client.identity} or former in self._open:
            return
        task = asyncio.create_task(_find_out(client, info, former), name=f"lost-worker-{former}")
        self._open[former] = task
        task.add_done_callback(lambda _: self._open.pop(former))

    def close(self) -> None:
        """Stop finding out."""
        for task in self._open.values():
            task.cancel()


def former_worker(info: activity.Info) -> str:
    """Return the worker that sent the heartbeats of the former attempt. Returns "" at the first attempt.

    With a short timeout, Temporal itself notices a lost worker soon enough.
    """
    timeout = info.heartbeat_timeout
    if info.attempt == 1 or timeout is None or timeout.total_seconds() <= SILENT_S:
        return ""
    latest = next(iter(info.heartbeat_details), None)
    return str(latest.get("worker", "")) if isinstance(latest, dict) else ""


def of_lost(worker: str, now: float, watches: Iterable[Watching]) -> list[Watching]:
    """Return the watches of a worker, if it is lost; none if one of them sent a heartbeat a moment ago."""
    its = [each for each in watches if each.worker == worker]
    return its if all(each.seen_at <= now - SILENT_S for each in its) else []


async def _find_out(client: Client, info: activity.Info, former: str) -> None:
    await _succeed(client, info, former)
    await asyncio.sleep(AGAIN_S)  # until then, no other watch examines the same worker


async def _succeed(client: Client, info: activity.Info, former: str) -> None:
    """Take over what a lost worker watched. On any error, Temporal notices the loss of each watch by itself."""
    try:
        async with asyncio.timeout(AGAIN_S):
            here = await _watching(client, info.workflow_id or "", info.workflow_run_id)
            if not any(each.is_late and each.activity_id == info.activity_id for each in here):
                return
            now = max(each.seen_at for each in here)
            lost = of_lost(former, now, await _all_watches(client))
            if not lost:
                return
            log.warning("worker %s is lost: this worker ends its %d watches, which then begin again", former, len(lost))
            await _few_at_once(_end(client, each) for each in lost)
    except (RPCError, TimeoutError) as error:
        log.warning("cannot take over what worker %s watched: %r", former, error)


async def _all_watches(client: Client) -> list[Watching]:
    rollouts = [each async for each in client.list_workflows(_ROLLOUTS)]
    found = await _few_at_once(_watching(client, each.id, each.run_id) for each in rollouts)
    return [each for watches in found for each in watches]


async def _few_at_once(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await all calls, at most ``AT_ONCE`` at one time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[T]) -> T:
        async with places:
            return await call

    return await asyncio.gather(*map(one, calls))


async def _watching(client: Client, workflow_id: str, run_id: str | None) -> list[Watching]:
    """Return the running watches of a rollout. Returns an empty list if the rollout has ended."""
    try:
        description = await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return []
        raise
    pending = description.raw_description.pending_activities
    return [
        Watching(workflow_id, run_id, each.activity_id, each.last_worker_identity, _seen_at(each), _is_late(each))
        for each in pending
        if each.activity_type.name == contract.AWAIT_READY.name
        and each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    ]


def _seen_at(pending: PendingActivityInfo) -> float:
    times: list[datetime] = [each.ToDatetime(UTC) for each in (pending.last_started_time, pending.last_heartbeat_time)]
    return max(times).timestamp()


def _is_late(pending: PendingActivityInfo) -> bool:
    return pending.last_failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT


async def _end(client: Client, watch: Watching) -> None:
    """End an attempt of a watch; Temporal begins the next one. An attempt that has ended is left alone.

    Temporal takes no attempt as a precondition: if another worker has begun the next one meanwhile, that ends, and the
    watch begins once more.
    """
    handle = client.get_async_activity_handle(
        workflow_id=watch.workflow_id, run_id=watch.run_id, activity_id=watch.activity_id
    )
    try:
        await handle.fail(ApplicationError(f"worker {watch.worker} is lost: another worker continues", type="Lost"))
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
