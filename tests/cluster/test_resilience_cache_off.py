"""The main scenarios with the workflow cache off: every workflow task replays from the start, so that nothing hides."""

from collections.abc import Iterator

import pytest
from harness import Case, Lab, until
from killing_worker import CRASHING

ASKS_AT_2 = {"maxSurge": 1, "waypoints": [{"at": 2, "hold": "100ms", "approval": True}]}


@pytest.fixture
def uncached(lab: Lab) -> Iterator[Lab]:
    """A namespace with a worker that remembers nothing, and must not complain of what it replays."""
    worker = lab.worker(SEGUE_MAX_CACHED_WORKFLOWS="0")
    yield lab
    log = worker.log.read_text()
    assert "nondeterminism" not in log.lower() and "TMPRL" not in log, log[-4000:]


async def test_success_by_a_waypoint(uncached: Lab) -> None:
    async with uncached.case("chat", 3, strategy=ASKS_AT_2) as case:
        assert (await case.run.plan()).replicas == 3
        await _asks(case)
        await case.run.signal("approve")
        await case.ends("Completed")
    case.watcher.assert_within(3, 4)


async def test_rollback(uncached: Lab) -> None:
    async with uncached.case("chat", 3, CRASHING) as case:
        await case.ends("RolledBack")
    case.watcher.assert_within(3, 4, passing=1)


async def test_pause_scale_resume(uncached: Lab) -> None:
    async with uncached.case("chat", 3, strategy=ASKS_AT_2) as case:
        await _asks(case)
        await case.run.signal("pause", reason="lunch")
        await case.run.until("it is paused", lambda status: status.phase == "Paused")
        await case.run.send("scale", replicas=4)
        await until("4 replicas", lambda: uncached.deployment("chat").spec.replicas == 4)
        await case.run.send("resume")
        await _asks(case)
        await case.run.send("approve")
        await case.ends("Completed")
    case.watcher.assert_within(3, 5)


async def test_retarget_then_abort(uncached: Lab) -> None:
    async with uncached.case("chat", 3, strategy=ASKS_AT_2) as case:
        await _asks(case)
        assert "chat:3" in await case.run.send("retarget", change={"images": {"server": "example/chat:3"}})
        await case.run.until("it asks for 3", lambda s: s.phase == "AwaitingApproval" and "chat:3" in str(s.wanted))
        await case.run.signal("abort")
        await case.ends("Aborted")
    case.watcher.assert_within(3, 4, passing=1)


async def test_cancel(uncached: Lab) -> None:
    async with uncached.case("chat", 3, strategy=ASKS_AT_2) as case:
        await _asks(case)
        await case.run.handle.cancel()
        await case.ends("Aborted")
    case.watcher.assert_within(3, 4, passing=1)


async def _asks(case: Case) -> None:
    await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
