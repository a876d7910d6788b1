"""Shares one answer among callers that ask the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """Requests by key. Each caller gets an answer whose request began after the call, so never an old one.

    At most one request of a key is under way, and at most one waits for it: hundreds of callers cost two requests.
    Callers must not change the answer.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Answer]] = {}
        self._next: dict[Hashable, asyncio.Task[Answer]] = {}

    async def ask(self, key: Hashable, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of the next request of this key; the first caller starts it."""
        if key not in self._next:
            task = asyncio.create_task(self._run(key, request, self._running.get(key)))
            task.add_done_callback(_retrieve)
            self._next[key] = task
        # A caller that is cancelled must not cancel the request of the others.
        return await asyncio.shield(self._next[key])

    async def _run(
        self, key: Hashable, request: Callable[[], Awaitable[Answer]], before: asyncio.Task[Answer] | None
    ) -> Answer:
        if before is not None:
            await asyncio.wait({before})
        own = self._running[key] = self._next.pop(key)
        try:
            return await request()
        finally:
            if self._running.get(key) is own:
                del self._running[key]


def _retrieve(task: asyncio.Task[Answer]) -> None:
    """Take the error of a request whose callers were all cancelled, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
