"""Signals that cancel a command: a pipeline sends SIGTERM, a person presses Ctrl-C (SIGINT)."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class OnCancel(StrEnum):
    """What happens to the rollout when its pipeline is cancelled."""

    ABORT = "abort"
    DETACH = "detach"


class Cancelled(NamedTuple):
    """A signal that came before the end."""

    number: int

    @property
    def exit_code(self) -> int:
        """The exit code of shells for this signal."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"cancelled by {signal.Signals(self.number).name}"


class Cancelling:
    """Ends what a command waits for when a signal comes; each signal ends one wait."""

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._number = 0

    def take(self, number: int) -> None:
        """Take a signal: it ends the present wait, or the next one."""
        self._number = number
        self._came.set()

    async def until_cancelled(self, work: Coroutine[Any, Any, T]) -> T | Cancelled:
        """Return the result of ``work``, or the signal when one comes first: ``work`` is cancelled then."""
        task, came = asyncio.create_task(work), asyncio.create_task(self._came.wait())
        try:
            await asyncio.wait({task, came}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self._came.clear()
            return Cancelled(self._number)
        finally:
            for each in (task, came):
                each.cancel()
            await asyncio.gather(task, came, return_exceptions=True)


@contextmanager
def signals_taken() -> Iterator[Cancelling]:
    """Take SIGTERM and SIGINT inside the block, instead of dying from them."""
    loop, cancelling = asyncio.get_running_loop(), Cancelling()
    for number in _SIGNALS:
        loop.add_signal_handler(number, cancelling.take, number)
    try:
        yield cancelling
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
