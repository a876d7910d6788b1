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
    responses: list[Any] = []
    threads = [threading.Thread(target=_follow, args=(*each, limit_s, responses), daemon=True) for each in watches]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for response in responses:
            response.shutdown()
        for thread in threads:
            thread.join(timeout=10)


def _follow(listing: Callable[..., Any], take: Take, limit_s: float, responses: list[Any]) -> None:
    found = json.loads(listing(_preload_content=False).data)
    for each in found["items"]:
        take(each, 0.0)
    response = listing(
        resource_version=found["metadata"]["resourceVersion"], watch=True, timeout_seconds=int(limit_s),
        _preload_content=False,
    )  # fmt: skip
    responses.append(response)
    rest = b""
    with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):  # it was shut down
        for chunk in response.stream(amt=None, decode_content=False):
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                take(json.loads(line)["object"], now)
