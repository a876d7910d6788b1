"""A TCP proxy that can stall, between a worker and the API server: for tests of hanging connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

_CHUNK = 65_536


class Proxy:
    """Forwards to one address. After a stall, open connections carry no more bytes, and do not end."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._open = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.port = 0

    def stall(self) -> None:
        """Stall all open connections; new ones work."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    async def start(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        gate = self._open
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._to)
            async with asyncio.TaskGroup() as group:
                group.create_task(_forward(reader, upstream_writer, gate))
                group.create_task(_forward(upstream_reader, writer, gate))
        except* OSError:
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    while data := await reader.read(_CHUNK):
        await gate.wait()
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """Yield a proxy to a kubeconfig's API server, and a copy of the kubeconfig that uses it."""
    content = yaml.safe_load(kubeconfig.read_text())
    cluster = content["clusters"][0]["cluster"]
    server = urlsplit(cluster["server"])
    proxy = Proxy(str(server.hostname), int(server.port or 443))
    await proxy.start()
    cluster["server"] = f"https://127.0.0.1:{proxy.port}"
    through = folder / "through-proxy.kubeconfig"
    through.write_text(yaml.safe_dump(content))
    try:
        yield proxy, through
    finally:
        await proxy.close()
