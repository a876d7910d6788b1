"""Shared by all tests: one local stack a session, a namespace and a task queue a test."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from harness import Lab, open_lab
from segue_local import Stack
from side_by_side import ByServers, in_order
from stacks import plain_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The real servers."""
    with plain_stack("test", prometheus=True) as started:
        yield started


@pytest.fixture
async def lab(stack: Stack) -> AsyncIterator[Lab]:
    """An empty namespace and task queue."""
    async with open_lab(stack) as opened:
        yield opened


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    """``pytest -n``: tests that share servers are run by one process."""
    return ByServers(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The same, in the order in which they are handed out."""
    if hasattr(config, "workerinput"):
        in_order(items)
