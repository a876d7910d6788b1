"""A worker hangs in the middle of a write, its work is done by another, and it goes on: it must change nothing."""

from typing import Any

from harness import Lab, until
from killing_worker import KillingWorker, until_phase

ASKS = {"maxSurge": 1, "waypoints": [{"at": 3, "approval": True}]}


async def test_late_scale(lab: Lab) -> None:
    """A move that was done long ago by another worker is not done again, nor back."""
    await lab.deploy("chat", 4)
    zombie = KillingWorker(lab, "scale_old#1:sending:stop")
    with lab.watch("chat") as watcher:
        run = await lab.start("chat", strategy=ASKS)
        await zombie.until_accident()
        KillingWorker(lab)
        await until_phase(run, "AwaitingApproval")
        await _wakes_harmlessly(lab, zombie, "scale_old#1")
        await run.send("approve")
        report = await run.end()
    assert report.status.outcome == "Completed"
    watcher.assert_within(4, 5)


async def test_late_resize(lab: Lab) -> None:
    """A size that is not wished any more is not set."""
    await lab.deploy("chat", 4)
    zombie = KillingWorker(lab, "resize#1:sending:wait")
    run = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]})
    await until_phase(run, "AwaitingApproval")
    await run.send("scale", replicas=6)
    await zombie.until_accident()
    KillingWorker(lab)
    await until("6 replicas", lambda: lab.deployment("chat").spec.replicas == 6)
    await run.send("scale", replicas=4)
    await until("4 replicas", lambda: lab.deployment("chat").spec.replicas == 4)
    await _wakes_harmlessly(lab, zombie, "resize#1")
    await run.send("abort")
    assert (await run.end()).status.outcome == "Aborted"
    assert lab.deployment("chat").spec.replicas == 4


async def test_late_undo(lab: Lab) -> None:
    """A way back that was gone long ago does not touch the rollout that came after."""
    await lab.deploy("chat", 3)
    zombie = KillingWorker(lab, "undo#1:sending:wait")
    first = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]})
    await until_phase(first, "AwaitingApproval")
    await first.send("abort")
    await zombie.until_accident()
    KillingWorker(lab)
    assert (await first.end()).status.outcome == "Aborted"
    second = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]})
    await until_phase(second, "AwaitingApproval")
    await _wakes_harmlessly(lab, zombie, "undo#1")
    await second.send("approve")
    assert (await second.end()).status.outcome == "Completed"


async def _wakes_harmlessly(lab: Lab, zombie: KillingWorker, activity: str) -> None:
    before = _spec(lab)
    zombie.resume()
    zombie.go()
    await until("the late write to end", lambda: zombie.diary.says(f"end {activity} attempt 1"))
    assert _spec(lab) == before
    assert not zombie.diary.says(f"patched {activity} attempt 1")


def _spec(lab: Lab) -> tuple[int, Any]:
    found = lab.raw("chat")
    return found["metadata"]["generation"], found["spec"]
