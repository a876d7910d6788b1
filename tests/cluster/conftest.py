"""One worker process serves all tests that do not break it; each has a namespace of its own."""

import re
from collections.abc import AsyncIterator

import pytest
from harness import Lab, open_lab
from segue_local import Stack

_MUST_NOT_BE_LOGGED = re.compile(r"nondeterminism|TMPRL\d+|unfinished| ERROR |was never retrieved", re.IGNORECASE)


@pytest.fixture(scope="session")
async def fleet(stack: Stack) -> AsyncIterator[Lab]:
    """The shared worker; at the end it must still be alive, stop when told, and have logged nothing alarming."""
    async with open_lab(stack) as opened:
        worker = opened.worker()
        yield opened
        assert worker.process.poll() is None, f"the shared worker died: see {worker.log}"
        assert worker.stop() == 0
        alarming = [line for line in worker.log.read_text().splitlines() if _MUST_NOT_BE_LOGGED.search(line)]
        assert not alarming, f"{worker.log}: {alarming[:5]}"


@pytest.fixture
async def served(stack: Stack, fleet: Lab) -> AsyncIterator[Lab]:
    """An empty namespace, served by the shared worker."""
    async with open_lab(stack, fleet.task_queue) as opened:
        yield opened
