"""One worker process serves all tests that do not break it; each has a namespace of its own."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from harness import Lab, open_lab
from segue_local import Stack
from stacks import one_by_one_stack, postgres_stack

_MUST_NOT_BE_LOGGED = re.compile(r"nondeterminism|TMPRL\d+|unfinished| ERROR |was never retrieved", re.IGNORECASE)
# They report a workflow task that took long, which is the machine's: two cores run all of this. It is tried again.
_MACHINES = re.compile(r"TMPRL110[14]")
_RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)


@pytest.fixture(scope="session")
async def fleet(stack: Stack) -> AsyncIterator[Lab]:
    """The shared worker; at the end it must still be alive, stop on request, and have logged nothing alarming."""
    async with _manned(stack) as opened:
        yield opened


@pytest.fixture(scope="module")
async def one_by_one_fleet() -> AsyncIterator[Lab]:
    """The worker of servers on which a StatefulSet moves one replica at a time; both end with the tests of one file."""
    with one_by_one_stack() as started:
        async with _manned(started) as opened:
            yield opened


@pytest.fixture(scope="session", name="postgres_stack")
def _postgres_stack() -> Iterator[Stack]:
    """Servers with Temporal as in production: two whole servers on PostgreSQL, mutual TLS, and tokens."""
    with postgres_stack("test") as started:
        yield started


@asynccontextmanager
async def _manned(stack: Stack) -> AsyncIterator[Lab]:
    async with open_lab(stack) as opened:
        worker = opened.worker()
        await worker.serves()
        yield opened
        assert worker.lives, f"the shared worker died: see {worker.log}"
        assert worker.stop() == 0
        records = _RECORD.split(worker.log.read_text())  # each with its traceback
        alarming = [each for each in records if _MUST_NOT_BE_LOGGED.search(each) and not _MACHINES.search(each)]
        assert not alarming, f"{worker.log}: {alarming[:5]}"


@pytest.fixture
async def served(fleet: Lab) -> AsyncIterator[Lab]:
    """An empty namespace, served by the shared worker."""
    async with open_lab(fleet.stack, fleet.task_queue) as opened:
        yield opened
