"""Connects to Temporal again when its credentials in files change: certificates expire while a worker runs.

The library reads certificates once. Without this, a worker would lose Temporal for good at the first broken connection
after they expired.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from temporalio.client import Client

from segue import connection
from segue.errors import SegueError

CHECK_S = 5.0
"""The interval at which the files are read. Whoever renews them does so long before they expire."""

log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[Client]]


async def renew(connect: Connect, use: Callable[[Client], None]) -> NoReturn:
    """Read the credentials again and again; if they changed, connect with them, and ``use`` that client from then on.

    While new ones cannot be used (only the certificate is replaced, and not yet its key), the present client stays.
    """
    used: tuple[object, ...] | None = None
    told = ""
    while True:
        try:
            found = connection.credentials()
            if used is not None and found != used:
                use(await connect())
                log.info("connected to Temporal with the renewed credentials")
            used, told = found, ""
        except Exception as error:  # also a fault of ours: if this ended, nothing would be renewed any more
            if str(error) != told:
                trace = None if isinstance(error, SegueError) else error
                log.warning("the credentials for Temporal cannot be used: %s", error, exc_info=trace)
            told = str(error)
        await asyncio.sleep(CHECK_S)
