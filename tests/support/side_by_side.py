"""``pytest -n``: the parts in which processes take the tests, and their order. See docs/testing.md.

All processes share the servers (``stacks.py``), so a part may go to any of them. A part is a file, unless its file is
named here. The process that distributes the parts has not collected the tests: a test's id determines its part.
"""

import re
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

BY_TEST = {"test_every_lever", "test_resilience_killed", "test_undo"}
"""Files of long tests that share only servers: each test is a part."""
TOGETHER = {"test_metrics_outage": "prometheus", "test_metrics_provider": "prometheus"}
"""Files of one part: the second stops the Prometheus that the first needs."""
FIRST = (
    "test_nothing_is_lost", "test_resilience_killed", "test_serving", "test_every_lever", "test_metrics",
    "test_drain_by_evidence", "test_undo", "test_demo",
)  # fmt: skip
"""Files of the longest tests: they run first, so that no process has a long part at the end."""
LAST = ("unit", "cli", "replay")
"""Folders of the shortest tests: they fill the time at the end."""


class Parts(LoadScopeScheduling):  # type: ignore[misc]
    """Distributes the tests in parts."""

    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid)


def part_of(nodeid: str) -> str:
    """Return the part that a test belongs to."""
    path = _path(nodeid)
    if path.stem in BY_TEST:
        return nodeid
    return TOGETHER.get(path.stem, str(path))


def in_order(items: list[Any]) -> None:
    """Sort the tests: the longest parts first, the shortest last."""
    items.sort(key=lambda item: _place(_path(item.nodeid)))


def _path(nodeid: str) -> Path:
    return Path(re.split("::", nodeid, maxsplit=1)[0])


def _place(path: Path) -> int:
    folder = path.parent.name
    if folder in LAST:
        return len(FIRST) + 1
    return FIRST.index(path.stem) if path.stem in FIRST else len(FIRST)
