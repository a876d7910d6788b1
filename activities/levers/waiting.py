"""Waits until the worker's watch shows that a write took effect, and then reads afresh."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from activities.watching import NamespaceWatch, Watches

_POLL_S = 0.01

T = TypeVar("T")


async def until_read(
    watches: Watches | None, namespace: str, kinds: tuple[str, ...], shows: Callable[[NamespaceWatch], bool],
    read: Callable[[], Awaitable[T | None]], *, within_s: float,
) -> T | None:  # fmt: skip
    """Read as soon as the watch shows a state, and until ``read`` returns something; None when the time is over.

    Without a watch, as in a release without Temporal, it reads at once and repeatedly.
    """
    ends_at = time.monotonic() + within_s
    while True:
        if watches is not None:
            await watches.until(namespace, kinds, shows, ends_at - time.monotonic())
        found = await read()
        if found is not None or time.monotonic() >= ends_at:
            return found
        await asyncio.sleep(_POLL_S)
