"""``python -m worker``: connects, serves until it must stop, and lets activities end."""

import asyncio
import functools
import logging
import os
import signal
import socket
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack

import temporalio.client
from temporalio.runtime import Runtime
from temporalio.worker import Worker

from activities.cluster import Cluster
from activities.rollout import Activities
from segue import connection
from segue.clusters import HERE, Access
from segue.leaving import leave
from segue.policy import Policy
from worker.compose import make_activities, make_plugin, make_workers, refuse_collisions
from worker.doctor import report_at_start
from worker.garbage import spare_what_stays
from worker.health import serve_health
from worker.limits import memory_limit_mib
from worker.load import Load
from worker.renewing import Connect, follow_policy, renew
from worker.running import run
from worker.settings import Settings
from worker.telemetry import sdk_runtime

log = logging.getLogger("segue.worker")

CONNECT_S = 10.0


async def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT; then wait for running activities, up to ``graceful_shutdown_s``.

    Raises:
        Unreachable: when Temporal does not answer.
        Refused: for invalid settings.
    """
    _ = settings.slots  # refused now, not when the worker is full; `segue doctor` may have less memory
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connect = connecting(settings)
    used = connection.credentials()  # read before: they may be replaced while this worker starts
    temporal = await connect()
    async with AsyncExitStack() as ends:
        activities = await _activities(settings, ends)
        load = Load(settings.slots_each, memory_limit_mib())
        workers = make_workers(temporal, settings, activities, [load])
        measuring = asyncio.create_task(load.measure(), name="load")
        ends.callback(measuring.cancel)
        is_ready = functools.partial(_all_run, workers, stop)
        address = await ends.enter_async_context(serve_health(settings.health_address, is_ready))
        for worker in workers:
            await ends.enter_async_context(worker)
        take = functools.partial(_use, workers)
        renewing = asyncio.create_task(renew(connect, take, used), name="renew-credentials")
        ends.callback(renewing.cancel)
        if settings.policy:
            use = functools.partial(_govern, [*activities.values()])
            following = asyncio.create_task(follow_policy(settings.policy, settings.the_policy, use), name="policy")
            ends.callback(following.cancel)
        about = {
            "task_queue": settings.task_queue, "clusters": [*settings.clusters], "health": address,
            "slots": settings.slots,
        }  # fmt: skip
        spare_what_stays()
        log.info("worker serves", extra=about)
        checks = asyncio.create_task(report_at_start(settings), name="checks-at-the-start")
        await stop.wait()
        log.info("worker stops")
        checks.cancel()
        await asyncio.gather(checks, return_exceptions=True)
        # At one time: each waits for its running activities.
        await asyncio.gather(*(worker.shutdown() for worker in workers))


def _all_run(workers: Sequence[Worker], stop: asyncio.Event) -> bool:
    return all(worker.is_running for worker in workers) and not stop.is_set()


async def _activities(settings: Settings, ends: AsyncExitStack) -> dict[str | None, Activities]:
    """Return the activities by cluster, connected until ``ends``; under None those of targets that name no cluster."""
    ways: list[tuple[str | None, Access]] = [*settings.clusters.items()] or [(None, HERE)]
    found: dict[str | None, Activities] = {}
    for name, access in ways:
        cluster = await Cluster.connect(access)
        ends.push_async_callback(cluster.close)
        found[name] = make_activities(cluster, settings)
        ends.push_async_callback(found[name].close)
    default = next((name for name, access in settings.clusters.items() if access.default), None)
    return {**found, None: found[default]} if default else found


def _use(workers: Sequence[Worker], client: temporalio.client.Client) -> None:
    for worker in workers:
        worker.client = client


def _govern(activities: Sequence[Activities], policy: Policy) -> None:
    for each in activities:
        each.use_policy(policy)


def connecting(settings: Settings) -> Connect:
    """Return what connects to Temporal as every client does, with the worker's runtime, plugin and identity.

    The plugin has no workflows: they are of one worker of the process, not of all. A call raises ``Unreachable`` with
    the address, and ``Refused`` for a profile that cannot be read.
    """
    runtime = sdk_runtime(settings) or Runtime.default()
    # Also a container that starts again, with the same host and process id, is another worker.
    identity = f"{os.getpid()}@{socket.gethostname()}#{uuid.uuid4().hex[:8]}"
    return functools.partial(
        connection.connect, timeout_s=CONNECT_S, runtime=runtime, plugins=[make_plugin(())], identity=identity
    )


def main() -> int:
    """Run the worker, and return its exit code."""
    return run(serve, refuse_collisions)


if __name__ == "__main__":
    leave(main())
