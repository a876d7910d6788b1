"""Which tests share servers: ``pytest -n`` gives them to one process, which starts these servers once.

Told from the test's id, since the process that hands out the tests has not collected them.
"""

import re
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

ORDER = ("plain-1", "plain-2", "node", "groups", "local-test_node", "kserve", "outages", "demo")
"""What takes longest begins; all others follow."""

_SECOND = frozenset(
    f"test_{each}"
    for each in (
        "autoscaler", "cli", "lint", "pair", "resilience_cache_off", "resilience_connections", "resilience_killed",
        "resilience_zombie", "traffic", "worker",
    )
)  # fmt: skip
"""The files of ``tests/cluster`` that go to the second of two plain stacks, so that both take as long."""


class ByServers(LoadScopeScheduling):
    """Hands out the tests by their servers."""

    def _split_scope(self, nodeid: str) -> str:
        return servers_of(nodeid)


def servers_of(nodeid: str) -> str:
    """The servers that a test shares with others; its file, where it shares none."""
    path = Path(re.split("::", nodeid, maxsplit=1)[0])
    folder, file = path.parent.name, path.stem
    if folder == "node":
        return "node"
    if folder == "local":
        return f"local-{file}"
    if file == "test_demo":
        return "demo"
    if folder != "cluster":
        return str(path)
    alone = {"test_resilience_outages": "outages", "test_kserve": "kserve"}
    if file in alone:
        return alone[file]
    if file == "test_numbered" or "[LeaderWorkerSet" in nodeid:
        return "groups"
    return "plain-2" if file in _SECOND else "plain-1"


def in_order(items: list[Any]) -> None:
    """Let those begin that take longest."""
    places = {group: place for place, group in enumerate(ORDER)}
    items.sort(key=lambda item: places.get(servers_of(item.nodeid), len(places)))
