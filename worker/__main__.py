"""``python -m worker``: connects, serves until it is told to stop, and lets activities end."""

import asyncio
import logging
import signal
import sys

import temporalio.client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from activities.cluster import Cluster
from segue.errors import Exit, SegueError, Unreachable
from segue.leaving import leave
from worker.compose import make_activities, make_plugin, make_worker, refuse_collisions
from worker.health import serve_health
from worker.settings import Settings, load_settings
from worker.telemetry import flush_telemetry, sdk_runtime, set_up_logs, set_up_telemetry

log = logging.getLogger("segue.worker")

CONNECT_S = 10.0


async def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT; then let what runs end, up to the graceful time.

    Raises:
        Unreachable: when Temporal does not answer.
        Refused: for settings that cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await connect(settings)
    cluster = await Cluster.connect()
    activities = make_activities(cluster, settings)
    worker = make_worker(client, settings, activities)
    try:
        health = serve_health(settings.health_address, lambda: worker.is_running and not stop.is_set())
        async with health as address, worker:
            log.info("worker serves", extra={"task_queue": settings.task_queue, "health": address})
            await stop.wait()
            log.info("worker stops")
    finally:
        await activities.close()
        await cluster.close()


async def connect(settings: Settings) -> temporalio.client.Client:
    """Connect to Temporal by the SDK's own configuration.

    Raises:
        Unreachable: naming the address.
    """
    configuration = ClientConfig.load_client_connect_config()
    configuration.setdefault("target_host", "localhost:7233")
    address = configuration["target_host"]
    try:
        async with asyncio.timeout(CONNECT_S):
            return await temporalio.client.Client.connect(
                **configuration, plugins=[make_plugin()], runtime=sdk_runtime(settings)
            )
    except (RuntimeError, RPCError, TimeoutError) as error:
        raise Unreachable(
            f"Temporal does not answer at {address}: {error or 'timed out'}; "
            "set TEMPORAL_ADDRESS, or run `segue local up`"
        ) from error


def main() -> int:
    """Run the worker; returns an exit code."""
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
