"""The exercises of the serving team's runbook; going back to a named revision is in test_undo."""

import asyncio

from harness import Lab, until
from watcher import PodWatcher, Sample

from segue.client import Rollouts
from segue.status import Status

MIN_READY_S = 3.0
ROUNDED_S = 1.0
"""Kubernetes writes the time of a condition in whole seconds."""


def fewest_available(watcher: PodWatcher) -> int:
    """The fewest replicas at once that were old and Ready, or new and Ready for as long as a new one must be."""

    def ready(sample: Sample, *, old: bool) -> int:
        return sum(v[2] for v in sample.by_image if v[0].startswith("example/chat:1 ") is old)

    def available(sample: Sample) -> int:
        since = sample.at - (MIN_READY_S - ROUNDED_S)
        before = [s for s in watcher.samples if s.at <= since]
        window = [*before[-1:], *(s for s in watcher.samples if since < s.at <= sample.at)]
        return ready(sample, old=True) + min(ready(s, old=False) for s in window)

    return min(map(available, watcher.samples))


async def test_three_replicas_and_never_fewer(served: Lab) -> None:
    """Surge 1, unavailable 0, a time to be ready: a good release and a bad one leave 3 available at every moment."""
    strategy = {"maxSurge": 1, "maxUnavailable": 0}

    async def good() -> None:
        readiness = {"minReady": f"{MIN_READY_S:g}s", "deadline": "30s"}
        async with served.case("good", 3, strategy=strategy, readiness=readiness) as case:
            report = await case.ends("Completed")
        assert [(s.old, s.new) for s in report.plans[0].stages] == [
            (3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3),
        ]  # fmt: skip
        case.watcher.assert_within(3, 4)
        assert fewest_available(case.watcher) == 3

    async def bad() -> None:
        # Its readiness probe asks for what is not there, so that it never becomes ready.
        labels = {"metadata": {"labels": {"segue.dev/fake": "never-ready"}}}
        async with served.case(
            "bad", 3, {"patch": labels}, strategy=strategy, readiness={"minReady": "1s", "deadline": "12s"}
        ) as case:
            live = Rollouts(served.temporal, served.namespace, served.task_queue, answer_s=60)

            async def stalled() -> Status | None:
                status = await live.status(case.run.handle.id)
                return status if "unready status: [server]" in status.reason else None

            status: Status = await until("it stalls, and says so", stalled)
            assert (status.phase, status.waiting_for) == (
                "Progressing",
                "1 new replica to be proven (0 of 1 ready, 0 proven)",
            )
            assert status.reason.startswith("Unready: bad-")
            assert (status.old.ready, status.new.replicas, status.new.ready) == (3, 1, 0)
            report = await case.ends("RolledBack")
        assert "no progress for 12 s" in report.status.reason
        case.watcher.assert_within(3, 4)

    await asyncio.gather(good(), bad())
