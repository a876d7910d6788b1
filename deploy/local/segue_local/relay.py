"""Relays connections to Temporal from an address that pods reach: its development server serves only the loopback.

``python relay.py HOST PORT`` listens there, and connects to the same port of the loopback. It stands alone.
"""

import asyncio
import contextlib
import sys

_CHUNK = 65_536


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until one side ends; the other direction may go on."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()


async def relay(host: str, port: int) -> None:
    """Serve until the process ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return  # the caller sees a closed connection, as if Temporal had closed it
            with contextlib.closing(inner_writer):
                await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    server = await asyncio.start_server(serve, host, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], int(sys.argv[2])))
