"""Watches that note when each event came. They build no models of the objects, because that takes too long."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import urllib3

Take = Callable[[Any, float], None]
"""What receives each object, and when it came: seconds of the monotonic clock; 0 for what there was before."""


@contextmanager
def watched(*watches: tuple[Callable[..., Any], Take], limit_s: float) -> Iterator[None]:
    """Read these lists and then their watches in threads, until the block ends or the limit is over."""
    following = [_Following(*each, limit_s) for each in watches]
    threads = [threading.Thread(target=each.run, daemon=True) for each in following]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for each in following:
            each.end()
        for thread in threads:
            thread.join(timeout=10)


class _Following:
    """One list and its watch. The API server ends the watch of a slow reader: it is resumed where it ended."""

    def __init__(self, listing: Callable[..., Any], take: Take, limit_s: float) -> None:
        self._listing, self._take, self._limit_s = listing, take, limit_s
        self._ended = threading.Event()
        self._response: Any = None
        self._version = ""

    def end(self) -> None:
        self._ended.set()
        if self._response is not None:
            with suppress(RuntimeError):  # the server has just ended it
                self._response.shutdown()

    def run(self) -> None:
        found = json.loads(self._listing(_preload_content=False).data)
        for each in found["items"]:
            self._take(each, 0.0)
        self._version = found["metadata"]["resourceVersion"]
        while not self._ended.is_set():
            self._response = self._listing(
                resource_version=self._version, watch=True, timeout_seconds=int(self._limit_s), _preload_content=False
            )
            with suppress(urllib3.exceptions.HTTPError, OSError):  # it was shut down, or the server ended it
                self._read(self._response)

    def _read(self, response: Any) -> None:
        rest = b""
        for chunk in response.stream(amt=None, decode_content=False):
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise RuntimeError(f"events were lost: {event['object'].get('message')}")
                self._version = event["object"]["metadata"]["resourceVersion"]
                self._take(event["object"], now)
