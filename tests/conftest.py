"""Shared by all tests: one local stack a run, a namespace and a task queue a test."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from again import Failures
from harness import Lab, open_lab
from segue_local import Stack
from side_by_side import Parts, in_order
from stacks import plain_stack, shared_stacks
from times import Times, is_whole

_SHOWN = 12
"""So many lines of a failure are printed at once; the others follow at the end."""


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The real servers, with LeaderWorkerSet and Prometheus."""
    with plain_stack("test", lws=True, prometheus=True) as started:
        yield started


@pytest.fixture
async def lab(stack: Stack) -> AsyncIterator[Lab]:
    """An empty namespace and task queue."""
    async with open_lab(stack) as opened:
        yield opened


def pytest_configure(config: pytest.Config) -> None:
    """``pytest -n``: processes share their servers; the run leaves in ``out/`` where its time went and what failed."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        ends = ExitStack()
        ends.enter_context(shared_stacks())
        config.add_cleanup(ends.close)
        if is_whole(config):
            config.pluginmanager.register(Times(config.rootpath / "out"))
        config.pluginmanager.register(Failures(config.rootpath / "out"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print each failure when it happens: a run takes many minutes, and its end may not come."""
    if report.failed and hasattr(report, "node"):  # it came from one of several processes
        last = report.longreprtext.strip().splitlines()[-_SHOWN:]
        print(f"\nFAILED {report.nodeid} ({report.when})", *last, sep="\n", file=sys.stderr, flush=True)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Parts:
    """The processes take the tests in parts."""
    return Parts(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The parts in the order in which they are handed out."""
    if hasattr(config, "workerinput"):
        in_order(items)
