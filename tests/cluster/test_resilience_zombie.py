"""A worker hangs in the middle of a write, its work is done by another, and it goes on: it must change nothing."""

import asyncio
import time
from datetime import timedelta
from typing import Any

from harness import Lab, Run, open_lab, reaching, until
from killing_worker import KillingWorker, until_phase
from lost_attempts import AfterItListedPods, AfterItWrote, BeforeItWrites, Late, late, latest_request
from segue_local import Stack
from subjects import DeploymentSubject, PairSubject, StatefulSetSubject, Subject, SupervisedSubject

from activities.levers import Levers
from segue import contract
from segue.decision import Act, Decision
from segue.state import Goal

ASKS = {"maxSurge": 1, "waypoints": [{"at": 3, "approval": True}]}
SOON = timedelta(seconds=4)


async def test_late_scale(lab: Lab) -> None:
    """A move that was done long ago by another worker is not done again, nor back."""
    await lab.deploy("chat", 4)
    zombie = KillingWorker(lab, "scale_old#1:sending:stop")
    with lab.watch("chat") as watcher:
        run = await lab.start("chat", strategy=ASKS, task_limit=SOON)  # its open polls take several tasks
        await zombie.until_accident()
        KillingWorker(lab)
        await until_phase(run, "AwaitingApproval")
        await _wakes_harmlessly(lab, zombie, "scale_old#1")
        await run.send("approve")
        report = await run.end()
    assert report.status.outcome == "Completed"
    watcher.assert_within(4, 5)


async def test_late_resize(lab: Lab) -> None:
    """A size that is no longer requested is not set."""
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


END = contract.Tuning(heartbeat_s=4.0, write_s=60.0, recheck_s=1.0)
"""The worker's own attempt waits longer than the two attempts of the test need."""


async def test_two_attempts_write_the_end(stack: Stack) -> None:
    """Of every kind: who comes late finds the target released, and ends as the other. Nobody is fenced off."""

    async def one(kind: type[Subject]) -> None:
        async with open_lab(stack) as lab, late(lab, BeforeItWrites) as zombie, late(lab, BeforeItWrites) as retry:
            worker = KillingWorker(lab, "finish#1:before:wait")
            await kind(lab, "chat").create(2)
            async with lab.rolled("chat", kind.changed(2, "never-ready"), kind=kind, tuning=END) as case:
                await case.run.until("it moves", lambda status: status.moves > 0)
                await case.run.send("abort")
                await worker.until_accident()
                await _overtaken(case.run, zombie, retry)
                worker.go()
                await case.ends("Aborted")

    await asyncio.gather(*map(one, (DeploymentSubject, PairSubject, StatefulSetSubject, SupervisedSubject)))


async def _overtaken(run: Run, zombie: Late, retry: Late) -> None:
    """Two attempts of ``finish``; each has read everything before the first one writes."""
    request, attempts = await latest_request(run, contract.FINISH.name), []
    for client in (zombie, retry):
        lever = Levers(client).of(request.target)
        attempts.append(asyncio.create_task(lever.finish(request, time.time())))
        await asyncio.wait_for(client.arrived.wait(), 60)
    for client, attempt in zip((zombie, retry), attempts, strict=True):
        client.go.set()
        written = await attempt
        assert written.done, written.why


async def test_a_lost_settle_removes_nothing_that_came_later(stack: Stack) -> None:
    """It is lost after its first write; the replicas that it would remove now belong to the resumed rollout."""

    async def one(kind: type[Subject], strategy: dict[str, Any], old: int, new: int) -> None:
        async with open_lab(stack) as lab, late(lab, AfterItWrote) as zombie:
            worker = KillingWorker(lab, "settle#1:before:wait")
            change = kind.changed(2, "never-ready")
            async with lab.case("chat", change=change, kind=kind, strategy=strategy, tuning=END) as case:
                await case.reaches(old, new, ready=False)
                await case.run.until("the move is recorded", lambda status: status.moves > 0)
                await case.run.send("settle")
                await worker.until_accident()
                request = await latest_request(case.run, contract.SETTLE.name)
                attempt = asyncio.create_task(Levers(zombie).of(request.target).settle(request, time.time()))
                await asyncio.wait_for(zombie.arrived.wait(), 60)
                worker.go()
                await case.run.until("it settled", lambda s: s.phase == "Paused" and s.reason == "settled")
                await case.run.send("resume")
                await case.reaches(old, new, ready=False)
                await until("it rests", case.subject.is_at_rest)
                zombie.go.set()
                written = await attempt
                assert len(zombie.writes) == 1, zombie.writes
                assert not written.done and "changed since the first write" in written.why
                await case.run.send("abort")
                await case.ends("Aborted")

    await asyncio.gather(
        one(DeploymentSubject, {"maxSurge": 2}, 4, 2), one(StatefulSetSubject, {"maxUnavailable": 1}, 3, 1)
    )


async def test_a_slow_api_server_hides_no_ready_replica(lab: Lab) -> None:
    """The unready replica that the move would remove becomes ready between two reads: nothing is written."""
    worker = KillingWorker(lab, "scale_old#1:before:wait")
    strategy = {"order": "scaleSimultaneously", "maxSurge": 1}
    change = DeploymentSubject.changed(2, "never-ready")
    async with (
        lab.case("chat", change=change, strategy=strategy, tuning=END) as case,
        late(lab, AfterItListedPods) as slow,
    ):
        await case.reaches(4, 1, ready=False)
        spare = lab.pods("chat", "chat:1")[0].metadata.name
        lab.relabel(spare, "never-ready")
        await worker.until_accident()
        request = await latest_request(case.run, contract.SCALE_OLD.name)
        assert request.decision.counts == (3, 1)
        attempt = asyncio.create_task(Levers(slow).of(request.target).scale(request, time.time()))
        await asyncio.wait_for(slow.arrived.wait(), 60)
        lab.relabel(spare, "ready")
        await until("4 ready", lambda: lab.deployment("chat").status.ready_replicas == 4)
        slow.go.set()
        written = await attempt
        assert not written.done and "under the floor of 4" in written.why
        worker.go()
        await case.run.send("abort")
        await case.ends("Aborted")
    case.watcher.assert_within(3, 5)


async def test_a_late_undo_spares_no_superseded_version(served: Lab) -> None:
    """Before its own write is refused, it neither resumes the controller nor writes the superseded ReplicaSet."""

    def there() -> list[Any]:
        sets = {each["metadata"]["name"]: each["spec"] for each in served.replicasets("chat")}
        return [*_spec(served), sets]

    asks = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
    again = {"strategy": {**ASKS, "waypoints": [{"at": 1, "approval": True}]}, "onto_baseline": True}
    async with served.case("chat", strategy=asks) as case, reaching(served) as cluster:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        await case.run.send("retarget", change=case.subject.changed(3), **again)
        await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
        assert {len(served.pods("chat", f"chat:{version}")) for version in (2, 3)} == {1}
        await until("it rests", case.subject.is_at_rest)
        before, request = there(), await latest_request(case.run, contract.SCALE_OLD.name, contract.SCALE_NEW.name)
        undo = Decision(act=Act.UNDO, why="a rollback of long ago")
        given = request.model_copy(update={"state": request.state.but(goal=Goal.BACK), "decision": undo})
        written = await Levers(cluster).of(request.target).undo(given, time.time())
        assert not written.done and not written.writes
        assert there() == before
        await case.run.send("abort")
        await case.ends("Aborted")


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
