"""The worker's health endpoint: alive, ready, and its metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from segue.errors import Refused


@asynccontextmanager
async def serve_health(address: str, is_ready: Callable[[], bool]) -> AsyncIterator[str]:
    """Serve /healthz, /readyz and /metrics within this context, and yield the address.

    Port 0 takes a free port. Without a host (``:8080``), it listens on every address, of IPv4 and of IPv6.

    Raises:
        Refused: when the worker cannot listen on the address.
    """
    host, _, port = address.rpartition(":")
    app = web.Application()

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(text="starting or stopping\n", status=503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except (OSError, ValueError, OverflowError) as error:
        await runner.cleanup()
        raise Refused(
            f"cannot be used: {error}",
            field="SEGUE_HEALTH_ADDRESS",
            value=address,
            fix="write host:port of a free port",
        ) from error
    try:
        found = runner.addresses[0]
        yield f"[{found[0]}]:{found[1]}" if ":" in found[0] else f"{found[0]}:{found[1]}"
    finally:
        await runner.cleanup()
