"""A worker that was frozen reads before it judges, and a worker whose clock is wrong uses the cluster's time."""

import signal
import time
from pathlib import Path

import pytest
from harness import Lab, until
from skewed_worker import SKEW

DEADLINE_S = 6
MIN_READY_S = 5


async def test_a_frozen_worker_does_not_blame_the_version(lab: Lab) -> None:
    """New pods become Ready while the worker is stopped past their deadline; the rollout completes."""
    worker = lab.worker()
    await worker.serves()
    readiness = {"minReady": "0s", "deadline": f"{DEADLINE_S}s"}
    async with lab.case("chat", 2, target={"ready_after": "3s"}, readiness=readiness) as case:
        await until("the first new pod", lambda: lab.pods("chat", "chat:2"))
        worker.send(signal.SIGSTOP)
        try:
            frozen = time.monotonic()
            await case.reaches(2, 1)
            await until("the deadline to pass", lambda: time.monotonic() > frozen + DEADLINE_S + 2)
        finally:
            worker.send(signal.SIGCONT)
        await case.ends("Completed")


@pytest.mark.parametrize("skew_s", [-3600, 3600], ids=["behind", "ahead"])
async def test_a_worker_whose_clock_is_wrong(lab: Lab, tmp_path: Path, skew_s: int) -> None:
    """A new replica is proven after minReady, neither at once nor an hour late, also when the clock jumps meanwhile."""
    skew = tmp_path / "skew"
    skew.write_text(str(skew_s))
    await lab.worker(module="skewed_worker", **{SKEW: str(skew)}).serves()
    readiness = {"minReady": f"{MIN_READY_S}s", "deadline": "30s"}
    async with lab.case("chat", 2, strategy={"maxSurge": 1}, readiness=readiness) as case:
        await until("an old pod to leave", lambda: any(s.leaving for s in case.watcher.samples))
        skew.write_text(str(-skew_s))
        report = await case.ends("Completed")
    samples = case.watcher.samples
    ready_at = next(s.at for s in samples if any(ready for image, _, ready in s.by_image if "chat:2" in image))
    removed_at = next(s.at for s in samples if s.leaving)
    assert removed_at - ready_at > MIN_READY_S / 2, "a condition's time has whole seconds"
    assert not any("deadline" in entry.detail.lower() for entry in report.entries)
