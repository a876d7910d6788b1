"""One worker process serves all tests that do not break it; each has a namespace of its own."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from harness import Lab, open_lab
from segue_local import Stack
from stacks import group_stack, postgres_stack
from subjects import DeploymentSubject, Subject

_MUST_NOT_BE_LOGGED = re.compile(r"nondeterminism|TMPRL\d+|unfinished| ERROR |was never retrieved", re.IGNORECASE)
# They report a workflow task that took long, which is the machine's: two cores run all of this. It is tried again.
_MACHINES = re.compile(r"TMPRL110[14]")
_RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)


@pytest.fixture(scope="session")
async def fleet(stack: Stack) -> AsyncIterator[Lab]:
    """The shared worker; at the end it must still be alive, stop on request, and have logged nothing alarming."""
    async with _manned(stack) as opened:
        yield opened


@pytest.fixture(scope="session")
def groups_stack() -> Iterator[Stack]:
    """Servers with LeaderWorkerSet, and with the feature gate by which a StatefulSet moves several at once."""
    with group_stack("test", at_once=True) as started:
        yield started


@pytest.fixture(scope="session")
async def group_fleet(groups_stack: Stack) -> AsyncIterator[Lab]:
    """Their worker."""
    async with _manned(groups_stack) as opened:
        yield opened


@pytest.fixture(scope="session")
def one_by_one_stack() -> Iterator[Stack]:
    """The same without that feature gate."""
    with group_stack("test", at_once=False) as started:
        yield started


@pytest.fixture(scope="session")
async def one_by_one_fleet(one_by_one_stack: Stack) -> AsyncIterator[Lab]:
    """Their worker."""
    async with _manned(one_by_one_stack) as opened:
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
def fleet_of(request: pytest.FixtureRequest) -> Lab:
    """The worker of the kind that a test is for, otherwise of Deployments: started for the first that needs it."""
    kind: type[Subject] = request.getfixturevalue("kind") if "kind" in request.fixturenames else DeploymentSubject
    found: Lab = request.getfixturevalue(kind.fleet)
    return found


@pytest.fixture
async def served(fleet_of: Lab) -> AsyncIterator[Lab]:
    """An empty namespace, served by the shared worker."""
    async with open_lab(fleet_of.stack, fleet_of.task_queue) as opened:
        yield opened
