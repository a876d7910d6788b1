"""What changes in files while a worker runs; tests/cluster/test_renewed.py renews a real certificate."""

import asyncio
from typing import Any, cast

import pytest

from worker.renewing import renew


async def test_credentials_that_are_replaced_while_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has connected with the former ones, which may expire soon."""
    monkeypatch.setattr("segue.connection.credentials", lambda: ("the renewed key", None))
    used = asyncio.get_running_loop().create_future()

    async def connect() -> Any:
        return "the client"

    renewing = asyncio.create_task(renew(connect, cast("Any", used.set_result), ("the former key", None)))
    async with asyncio.timeout(5):
        assert await used == "the client"
    renewing.cancel()
