"""Real stacks, kept apart from the user's own by a state folder of the tests'."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from segue_local import Stack, processes

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def stacks_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of all stacks of the tests; what a failed test left running ends with the session."""
    home = tmp_path_factory.mktemp("stacks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home
        for name in Stack.names():
            Stack.remove(name)


@pytest.fixture(scope="session")
def stack(stacks_home: Path) -> Iterator[Stack]:
    """One stack for all tests that leave it as they found it."""
    started = time.monotonic()
    stack = Stack.up("tests")
    print(f"\nStack.up took {time.monotonic() - started:.1f} s")
    yield stack
    started = time.monotonic()
    stack.down()
    print(f"\nStack.down took {time.monotonic() - started:.1f} s")


@pytest.fixture
def name() -> Iterator[str]:
    """A stack name of the test's own; what it names is gone afterwards."""
    name = f"own-{next(_numbers)}"
    yield name
    Stack.remove(name)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], None]:
    """Wait until something holds, at most 30 s; says what it waited for when it never did."""

    def wait(holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"not within 30 s: {what}")
            time.sleep(0.02)

    return wait


@pytest.fixture
def nothing_left() -> Callable[[Path], None]:
    """Assert that no process and no file of a stack is there."""

    def check(state_dir: Path) -> None:
        assert processes.marked(state_dir) == []
        assert not state_dir.exists()
        assert not list(state_dir.parent.glob(f".{state_dir.name}*"))

    return check
