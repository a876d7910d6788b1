"""The process that reads streams: ``python stream_client.py '{"url": ...}'``; see ``Streams``."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import aiohttp

# The pause after a stream that failed at once, to avoid ten thousand requests a second to a dead server.
_PAUSE_S = 0.1


class Client:
    """Opens the configured streams, and writes a line for each."""

    def __init__(self, config: dict[str, Any], lines: TextIO) -> None:
        self._config = config
        self._lines = lines
        self._stopping = asyncio.Event()
        self._sent = 0

    async def run(self) -> int:
        """Stream until SIGUSR1 or ``longest_s``, finish running streams, and return the number of streams."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._stopping.set)
        loop.call_later(self._config["longest_s"], self._stopping.set)
        timeout = aiohttp.ClientTimeout(total=self._config["timeout_s"], sock_read=self._config["idle_s"])
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._say({"began": time.time()})
            await asyncio.gather(*(self._one_after_another(session, user) for user in range(self._config["count"])))
        return self._sent

    async def _one_after_another(self, session: aiohttp.ClientSession, user: int) -> None:
        whole, count = self._config["body"]["max_tokens"], self._config["count"]
        tokens = math.ceil(whole * (user + 1) / count)  # different lengths at first, so that not all end at once
        while not self._stopping.is_set():
            self._sent += 1
            stream, tokens = await self._stream(session, tokens), whole
            self._say(stream)
            if stream["error"] or stream["status"] != 200:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _PAUSE_S)

    async def _stream(self, session: aiohttp.ClientSession, tokens: int) -> dict[str, Any]:
        body = {**self._config["body"], "max_tokens": tokens}
        stream: dict[str, Any] = {"at": time.time(), "status": 0, "expected": tokens, "tokens": 0}
        stream |= {"done": False, "error": "", "versions": []}
        try:
            async with session.post(self._config["url"], json=body) as reply:
                stream["status"] = reply.status
                async for data in _events(reply):
                    self._take(stream, data)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            stream["error"] = f"{type(error).__name__}: {error}".removesuffix(": ")
        return stream | {"ended_at": time.time()}

    def _take(self, stream: dict[str, Any], data: str) -> None:
        if data == "[DONE]":
            stream["done"] = True
            return
        event = json.loads(data)
        if "error" in event:
            raise ValueError(f"the server sent an error: {json.dumps(event['error'])}")
        stream["tokens"] += sum(bool(choice.get("delta", {}).get("content")) for choice in event.get("choices", []))
        version = _at(event, self._config["version_path"])
        if version and version not in stream["versions"]:
            stream["versions"].append(version)

    def _say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self._lines, flush=True)


async def _events(reply: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Yield the data of each server-sent event: one line each, as all servers of this API send them."""
    async for line in reply.content:
        if line.startswith(b"data:"):
            yield line[5:].decode().strip()


def _at(value: object, path: str) -> str:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def main() -> None:
    """Run the configuration given as the only argument."""
    config = json.loads(sys.argv[1])
    with Path(config["lines"]).open("w") as lines:
        sent = asyncio.run(Client(config, lines).run())
    Path(config["summary"]).write_text(json.dumps({"sent": sent, "dropped": 0}))


if __name__ == "__main__":
    main()
