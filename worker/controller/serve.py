"""``segue controller``: connects, reconciles until it must stop."""

import asyncio
import logging
import signal
from collections.abc import Sequence

from temporalio.client import Client

from activities.cluster import Cluster
from segue.clusters import HERE
from segue.connection import connect
from segue.naming import check_cluster
from worker.controller.controller import Controller
from worker.controller.engine import Engine
from worker.health import serve_health
from worker.renewing import renew
from worker.running import run
from worker.settings import Settings

log = logging.getLogger("segue.controller")

CONNECT_S = 10.0


async def serve(settings: Settings, cluster_name: str, namespaces: Sequence[str]) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Raises:
        Refused: for invalid settings.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    cluster = await Cluster.connect(settings.clusters.get(cluster_name, HERE))
    engine = Engine(_connect, cluster_name, settings.task_queue, is_named=cluster_name in settings.clusters)
    controller = Controller(cluster, engine, namespaces)
    try:
        health = serve_health(settings.health_address, lambda: controller.is_current and not stop.is_set())
        async with health as address:
            controller.start()
            renewing = asyncio.create_task(renew(_connect, engine.use), name="renew-credentials")
            about = {"task_queue": settings.task_queue, "health": address, "namespaces": [*namespaces]}
            log.info("controller serves", extra=about)
            await stop.wait()
            log.info("controller stops")
            renewing.cancel()
    finally:
        await controller.stop()
        await cluster.close()


async def _connect() -> Client:
    return await connect(timeout_s=CONNECT_S)


def main(cluster: str, namespaces: Sequence[str]) -> int:
    """Run the controller, and return its exit code."""
    return run(lambda settings: serve(settings, cluster, namespaces), lambda: check_cluster(cluster))
