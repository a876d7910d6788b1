"""A worker is lost if Temporal missed a heartbeat of one of its watches, and none of the others sent one since."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.lost_workers import SILENT_S, Watching, former_worker, of_lost

NOW = 1_000.0
BEAT = ({"why": "approval", "worker": "1@a"},)


def watching(worker: str, silent_s: float) -> Watching:
    return Watching(f"rollout/{worker}-{silent_s}", "run", "7", worker, NOW - silent_s, is_late=False)


def test_all_watches_of_a_silent_worker_are_taken_over() -> None:
    lost, others = [watching("1@a", 12), watching("1@a", 47)], [watching("2@b", 0), watching("2@b", 50)]
    assert of_lost("1@a", NOW, [*others, *lost]) == lost


def test_a_worker_that_sent_any_heartbeat_a_moment_ago_lives() -> None:
    """One watch of it began again for another reason."""
    assert of_lost("1@a", NOW, [watching("1@a", 47), watching("1@a", SILENT_S - 1)]) == []


@pytest.mark.parametrize(
    ("attempt", "timeout_s", "details", "expected"),
    [
        pytest.param(2, 60.0, BEAT, "1@a", id="it begins again"),
        pytest.param(1, 60.0, (), "", id="its first attempt"),
        pytest.param(2, 60.0, (), "", id="lost before its first heartbeat"),
        pytest.param(2, 60.0, ({"why": "approval"},), "", id="a heartbeat of an older release"),
        pytest.param(2, 4.0, BEAT, "", id="Temporal notices it sooner"),
    ],
)
def test_whose_watch_it_was(attempt: int, timeout_s: float, details: tuple[Any, ...], expected: str) -> None:
    timeout = timedelta(seconds=timeout_s)
    info = replace(ActivityEnvironment().info, attempt=attempt, heartbeat_timeout=timeout, heartbeat_details=details)
    assert former_worker(info) == expected
