"""Notices that this process did not run: what it timed, or waited for in vain, meanwhile is no evidence.

A paused virtual machine, a suspended laptop or a starved CPU stops a process. When it runs again, its timeouts are over
before it reads the answers that arrived meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

STOOD_S = 1.0
"""A process that ran this late may have missed answers."""
_PULSE_S = 0.5

T = TypeVar("T")


async def standstill_during(work: Awaitable[T]) -> tuple[T, float]:
    """Return the result of ``work``, and for how many seconds this process stood still meanwhile, at most at a time."""
    task, stood_s = asyncio.ensure_future(work), 0.0
    try:
        while not task.done():
            began = time.monotonic()
            await asyncio.wait({task}, timeout=_PULSE_S)
            stood_s = max(stood_s, time.monotonic() - began - _PULSE_S)
    except asyncio.CancelledError:
        task.cancel()
        raise
    return task.result(), stood_s
