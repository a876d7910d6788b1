"""A TCP balancer on the loopback, as a Service in a cluster: ``python -m segue_local.balancer PORT SERVER…``.

It sends each new connection to the next server that accepts it. TLS passes through unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Sequence

_CHUNK = 64 * 1024

Address = tuple[str, int]
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Balancer:
    """Sends connections to several servers in turn."""

    def __init__(self, servers: Sequence[Address]) -> None:
        self._servers = servers
        self._first = itertools.cycle(range(len(servers)))

    async def serve(self, port: int) -> asyncio.Server:
        """Listen on a port of the loopback; 0 takes a free one."""
        return await asyncio.start_server(self._connected, "127.0.0.1", port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await self._reached()
        if server is None:  # as a Service without endpoints
            writer.transport.abort()
            return
        server_reader, server_writer = server
        ways = (_copy(reader, server_writer), _copy(server_reader, writer))
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            # A server that was killed ends both ways, so that the client connects again at once.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for each in (writer, server_writer):
                each.close()

    async def _reached(self) -> _Streams | None:
        first = next(self._first)
        for host, port in (*self._servers[first:], *self._servers[:first]):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(host, port)
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


async def _main(port: str, *servers: str) -> None:
    found = [server.rpartition(":") for server in servers]
    async with await Balancer([(host, int(number)) for host, _, number in found]).serve(int(port)) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
