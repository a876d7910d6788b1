"""Takes what changes in files while a worker runs: the credentials for Temporal, and the policy.

Certificates expire, and the library reads them once: without this, a worker would lose Temporal for good at the first
broken connection after that. A freeze is declared in an incident, not at a restart of the workers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

from temporalio.client import Client

from segue import connection
from segue.errors import SegueError
from segue.policy import Policy
from worker.settings import read_policy

CHECK_S = 5.0
"""The interval at which the files are read. Whoever renews credentials does so long before they expire."""

log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[Client]]


async def renew(
    connect: Connect, use: Callable[[Client], None], used: tuple[object, ...] | None = None
) -> NoReturn:  # fmt: skip
    """Read the credentials again and again; if they changed, connect with them, and ``use`` that client from then on.

    ``used`` are those of the present client; None for those that are there now. While new ones cannot be used (only the
    certificate is replaced, and not yet its key), the present client stays.
    """

    async def check() -> None:
        nonlocal used
        found = connection.credentials()
        if used is not None and found != used:
            use(await connect())
            log.info("connected to Temporal with the renewed credentials")
        used = found

    await _again(check, "the credentials for Temporal cannot be used")


async def follow_policy(path: str, present: Policy, use: Callable[[Policy], None]) -> NoReturn:
    """Read the file of the policy again and again, and ``use`` what it holds from then on.

    While it cannot be read, or is invalid, the present policy stays.
    """
    content: bytes | None = None

    async def check() -> None:
        nonlocal content, present
        found = await asyncio.to_thread(Path(path).read_bytes)
        if found == content:
            return
        policy = read_policy(path)
        if policy != present:
            use(policy)
            log.info("the policy was read again", extra={"rules": [rule.name for rule in policy.rules]})
        content, present = found, policy

    await _again(check, "the policy stays as it was")


async def _again(check: Callable[[], Awaitable[None]], failed: str) -> NoReturn:
    """Check again and again; log each new reason for which that fails."""
    told = ""
    while True:
        try:
            await check()
            told = ""
        except Exception as error:  # also a fault of ours: if this ended, nothing would be read any more
            if str(error) != told:
                trace = None if isinstance(error, SegueError | OSError) else error
                log.warning("%s: %s", failed, error, exc_info=trace)
            told = str(error)
        await asyncio.sleep(CHECK_S)
