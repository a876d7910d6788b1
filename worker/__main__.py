"""``python -m worker``: connects, serves until it must stop, and lets activities end."""

import asyncio
import logging
import signal
import sys

import temporalio.client
from temporalio.runtime import Runtime

from activities.cluster import Cluster
from segue import client
from segue.errors import Exit, SegueError
from segue.leaving import leave
from worker.compose import make_activities, make_plugin, make_worker, refuse_collisions
from worker.doctor import report_at_start
from worker.health import serve_health
from worker.limits import memory_limit_mib
from worker.load import Load
from worker.settings import Settings, load_settings
from worker.telemetry import flush_telemetry, sdk_runtime, set_up_logs, set_up_telemetry

log = logging.getLogger("segue.worker")

CONNECT_S = 10.0


async def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT; then wait for running activities, up to ``graceful_shutdown_s``.

    Raises:
        Unreachable: when Temporal does not answer.
        Refused: for invalid settings.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    temporal = await connect(settings)
    cluster = await Cluster.connect()
    activities = make_activities(cluster, settings)
    load = Load(settings.slots, memory_limit_mib())
    worker = make_worker(temporal, settings, activities, [load])
    measuring = asyncio.create_task(load.measure(), name="load")
    try:
        health = serve_health(settings.health_address, lambda: worker.is_running and not stop.is_set())
        async with health as address, worker:
            about = {"task_queue": settings.task_queue, "health": address, "slots": settings.slots}
            log.info("worker serves", extra=about)
            checks = asyncio.create_task(report_at_start(settings), name="checks-at-the-start")
            await stop.wait()
            log.info("worker stops")
            checks.cancel()
            await asyncio.gather(checks, return_exceptions=True)
    finally:
        measuring.cancel()
        await activities.close()
        await cluster.close()


async def connect(settings: Settings) -> temporalio.client.Client:
    """Connect to Temporal as every client does, with the worker's runtime and plugin.

    Raises:
        Unreachable: naming the address.
        Refused: for a profile that cannot be read.
    """
    runtime = sdk_runtime(settings) or Runtime.default()
    return await client.connect(timeout_s=CONNECT_S, runtime=runtime, plugins=[make_plugin()])


def main() -> int:
    """Run the worker, and return its exit code."""
    try:
        settings = load_settings()
        set_up_logs(settings)
        set_up_telemetry(settings)
        refuse_collisions()
        asyncio.run(serve(settings))
    except SegueError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    finally:
        flush_telemetry()
    return int(Exit.COMPLETED)


if __name__ == "__main__":
    leave(main())
