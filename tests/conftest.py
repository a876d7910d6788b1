"""Shared by all tests: one local stack a session, a namespace and a task queue a test."""

from collections.abc import AsyncIterator, Iterator

import pytest
from harness import Lab, open_lab
from segue_local import Stack
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
