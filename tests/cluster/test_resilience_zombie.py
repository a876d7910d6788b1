"""A worker hangs in the middle of a write, its work is done by another, and it goes on: it must change nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from harness import Lab, Run, open_lab, until
from killing_worker import KillingWorker, until_phase
from kubernetes.aio import config as aioconfig
from segue_local import Stack
from subjects import DeploymentSubject, PairSubject, StatefulSetSubject, Subject, SupervisedSubject
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.cluster import Cluster, Object
from activities.levers import Levers
from segue import contract
from segue.contract import WriteInput

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


END = contract.Tuning(heartbeat_s=4.0, write_s=60.0, recheck_s=1.0)
"""The worker's own attempt waits longer than the two attempts of the test need."""


class Slow(Cluster):
    """A client whose first patch waits until the test lets it."""

    def __init__(self, api: Any) -> None:
        super().__init__(api)
        self.arrived, self.go = asyncio.Event(), asyncio.Event()

    async def patch(self, *where: Any, **options: Any) -> Object:
        self.arrived.set()
        await self.go.wait()
        return await super().patch(*where, **options)


@asynccontextmanager
async def slow(lab: Lab) -> AsyncIterator[Slow]:
    client = Slow(await aioconfig.new_client_from_config(str(lab.stack.kubeconfig)))
    try:
        yield client
    finally:
        await client.close()


async def test_two_attempts_write_the_end(stack: Stack) -> None:
    """Of every kind: who comes late finds the target released, and ends as the other. Nobody is fenced off."""

    async def one(kind: type[Subject]) -> None:
        async with open_lab(stack) as lab, slow(lab) as zombie, slow(lab) as retry:
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


async def _overtaken(run: Run, zombie: Slow, retry: Slow) -> None:
    """Two attempts of ``finish``; each has read everything before the first one writes."""
    history = (await run.handle.fetch_history()).events
    given = [e.activity_task_scheduled_event_attributes for e in history if e.HasField(_SCHEDULED)]
    payloads = next(each.input.payloads for each in given if each.activity_type.name == contract.FINISH.name)
    (asked,) = await pydantic_data_converter.decode(payloads, [WriteInput])
    attempts = []
    for client in (zombie, retry):
        lever = Levers(client).of(asked.target)
        attempts.append(asyncio.create_task(lever.finish(asked, time.time())))
        await asyncio.wait_for(client.arrived.wait(), 60)
    for client, attempt in zip((zombie, retry), attempts, strict=True):
        client.go.set()
        written = await attempt
        assert written.done, written.why


_SCHEDULED = "activity_task_scheduled_event_attributes"


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
