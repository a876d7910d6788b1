"""Shared by all tests: one local stack a session, a namespace and a task queue a test."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from harness import Lab, open_lab
from segue_local import Stack


def _is_orphan(name: str) -> bool:
    """Whether a test stack's session is no more: it was killed and could not clean up."""
    prefix, _, pid = name.rpartition("-")
    if not prefix.startswith("segue-test") or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The real servers; SEGUE_TEST_STACK names a running stack to use instead, for quick work on one test."""
    for name in filter(_is_orphan, Stack.names()):
        Stack.remove(name)
    given = os.environ.get("SEGUE_TEST_STACK")
    if given:
        found = Stack.find(given)
        assert found is not None, f"SEGUE_TEST_STACK={given}: no such stack is up"
        yield found
        return
    started = Stack.up(f"segue-test-{os.getpid()}", on_progress=print)
    try:
        yield started
    finally:
        started.down()


@pytest.fixture
async def lab(stack: Stack) -> AsyncIterator[Lab]:
    """An empty namespace and task queue."""
    async with open_lab(stack) as opened:
        yield opened
