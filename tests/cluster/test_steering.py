"""Messages: as updates and as signals, at each stage, early, late and twice."""

import asyncio
from typing import Any

import pytest
from harness import Lab, Run, until
from killing_worker import KillingWorker
from subjects import DeploymentSubject
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from segue import contract, messages
from segue.report import Report
from segue.state import Entry

V3: dict[str, Any] = {"images": {"server": "example/chat:3"}}
SLOW = {"ready_after": "2s"}
"""Slow enough that a message comes while the stage that it is meant for lasts."""


def entries(report: Report, what: str) -> list[Entry]:
    return [e for e in report.entries if e.what == what]


async def refused(run: Run, name: str, **fields: Any) -> str:
    """Send an update that must be refused, and return the words."""
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await run.send(name, **fields)
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "Refused"
    return caught.value.cause.message


def moved(moves: int) -> Any:
    return lambda status: status.moves >= moves


# --- pause and resume -----------------------------------------------------------------------------------


async def test_a_pause_holds_progress_and_not_safety(served: Lab) -> None:
    """A new pod that crashes while paused still rolls the target back."""
    async with served.case("chat", 2, target=SLOW) as case:
        await case.run.until("a move", moved(1))
        await case.run.send("pause")
        await case.reaches(2, 1)
        served.relabel(served.pods("chat", "chat:2")[0].metadata.name, "crash-loop")
        await case.ends("RolledBack")
        assert any(s.endswith("waits for the rollback") for s in await case.run.summaries())
    case.watcher.assert_within(2, 3, passing=1)


async def test_what_is_told_is_not_newer_than_it_was_known(served: Lab) -> None:
    """The end of a watch that a message called off brings nothing new: what the next one saw meanwhile counts."""

    async def called_off() -> float | None:
        events = (await case.run.handle.fetch_history()).events
        ends = [e for e in events if e.HasField("activity_task_canceled_event_attributes")]
        return ends[-1].event_time.ToNanoseconds() / 1e9 if ends else None

    waypoints = [{"at": 1, "approval": True}]
    async with served.case("chat", 2, strategy={"maxSurge": 1, "waypoints": waypoints}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        await case.run.send("pause")
        ended_at = await until("the watch to be called off", called_off)
        status = await case.run.until("it is paused", lambda s: s.phase == "Paused")
        assert status.updated_at < ended_at
        await case.run.send("abort")
        await case.ends("Aborted")


async def test_a_message_while_the_end_is_written(lab: Lab) -> None:
    """It waits for what becomes of that, and is refused where it is too late: no promise is broken."""

    async def are_heard(run: Run) -> bool:
        events = (await run.handle.fetch_history()).events
        update = any(event.HasField("workflow_execution_update_accepted_event_attributes") for event in events)
        return update and any(event.HasField("workflow_execution_signaled_event_attributes") for event in events)

    worker = KillingWorker(lab, "finish#1:sending:wait")
    async with lab.case("chat", 2, tuning=contract.Tuning()) as case:
        await worker.until_accident()
        late = asyncio.create_task(refused(case.run, "abort"))
        await case.run.signal("retarget", change=V3)
        await until("both are heard", lambda: are_heard(case.run))
        assert (await case.run.status()).phase != "RollingBack" and not late.done()
        worker.go()
        report = await case.ends("Completed")
        assert await late == "abort: the rollout has ended (Completed); start a new one"
        assert [e.detail for e in entries(report, "signal refused")] == [
            "retarget: the rollout has ended (Completed); start a new one"
        ]
        assert not entries(report, "going back")


# --- retarget -------------------------------------------------------------------------------------------


async def test_retarget_away_from_a_bad_version(served: Lab) -> None:
    """A version that never becomes ready and fills the surge is left behind by a retarget, within the budget."""
    async with served.case(
        "chat", change=DeploymentSubject.changed(2, "never-ready"), strategy={"maxSurge": 2}
    ) as case:
        await case.reaches(4, 2, ready=False)
        # A patch has no sum with another change: the newest request is laid on the baseline.
        assert "a patch cannot be combined" in await refused(case.run, "retarget", change=V3)
        assert await case.run.send("retarget", change=V3, onto_baseline=True) == "now wants server=example/chat:3"
        await case.ends("Completed")
        assert len(served.pods("chat", "chat:3")) == 4 == len(served.pods("chat"))
    case.watcher.assert_within(4, 6, passing=2)


async def test_abort_with_three_versions_alive(served: Lab) -> None:
    """Aborted after a retarget, pods of the superseded version serve until the baseline's are back."""

    async def one(name: str, ready_after: str, stops_at: int) -> None:
        strategy = {"maxSurge": 2, "waypoints": [{"at": at, "approval": True} for at in (stops_at, 3)]}
        v3 = {**V3, "annotations": {"segue.dev/ready-after": ready_after}}
        async with served.case(name, strategy=strategy) as case:
            await case.run.until("v2 asks", lambda s: s.phase == "AwaitingApproval")
            await case.run.send("approve")
            await case.run.until("v2 asks again", lambda s: s.phase == "AwaitingApproval" and s.new.replicas == 3)
            await case.run.send("retarget", change=v3)
            if ready_after == "300ms":  # else it is stuck before its waypoint
                await case.run.until("v3 asks", lambda s: s.phase == "AwaitingApproval" and s.new.replicas == stops_at)
            await until("three versions", lambda: len(case.watcher.samples[-1].by_image) == 3)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(4, 6, passing=1)

    await asyncio.gather(one("good", "300ms", 1), one("good-later", "300ms", 2), one("bad", "1h", 1))


# --- abort ----------------------------------------------------------------------------------------------


async def test_abort_before_anything_was_written(served: Lab) -> None:
    """An abort that is there before the first write ends the rollout, and the target was never touched."""
    await served.deploy("chat", 2)
    before = served.raw("chat")["metadata"]["resourceVersion"]
    rollout = served.rollout("chat")
    handle = await served.temporal.start_workflow(
        contract.WORKFLOW,
        contract.Task(spec=rollout.spec, name="chat"),
        id=contract.workflow_id(served.namespace, rollout.spec.target),
        task_queue=served.task_queue,
        start_signal="abort",
        start_signal_args=[messages.Abort(by="test")],
        result_type=Report,
    )
    assert (await handle.result()).status.outcome == "Aborted"
    assert served.raw("chat")["metadata"]["resourceVersion"] == before


async def test_cancel_is_an_abort(served: Lab) -> None:
    """Temporal's own cancel goes back like an abort; the workflow ends as completed, with its report."""

    async def one(moves: int) -> None:
        async with served.case(f"at-{moves}", 3, target=SLOW) as case:
            await case.run.until(f"{moves} moves", moved(moves))
            await case.run.handle.cancel()
            report = await case.ends("Aborted")
            assert "cancelled" in report.status.reason
        case.watcher.assert_within(3, 4, passing=1)

    await asyncio.gather(*map(one, (0, 1, 2)))


async def test_a_second_abort_and_cancel_change_nothing(served: Lab) -> None:
    """Abort and cancel during the way back are taken, and it ends the same."""
    async with served.case("chat", target=SLOW) as case:
        await case.run.until("2 moves", moved(2))
        await case.run.send("abort")
        await asyncio.gather(case.run.signal("abort"), case.run.handle.cancel(), case.run.signal("abort"))
        await case.ends("Aborted")
    case.watcher.assert_within(4, 5, passing=1)


# --- approvals ------------------------------------------------------------------------------------------


async def test_reject_rolls_back(served: Lab) -> None:
    """A person who says no at a waypoint is named in the reason, and the baseline comes back."""
    async with served.case("chat", 2, strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        await case.run.send("reject", reason="too slow")
        report = await case.ends("RolledBack")
        assert report.status.reason == "Rejected: at waypoint 1 by test: too slow"
    case.watcher.assert_within(2, 3, passing=1)


async def test_early_late_and_repeated_messages(served: Lab) -> None:
    """What makes no sense now is refused with what does, leaves a line when it was a signal, and does no harm."""
    async with served.case("chat", 2, strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}) as case:
        run = case.run
        await run.signal("approve")  # nothing asks yet
        await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        assert "is not paused" in await refused(run, "resume")
        await run.send("pause")
        await run.signal("pause")  # twice is once
        await run.signal("approve")
        assert "no approval is pending" in await refused(run, "approve")
        await run.signal("approve")
        status = await run.until("both were heard", lambda s: "resume" in s.can)
        assert status.phase == "Paused"
        await run.send("resume")
        report = await case.ends("Completed")
        with pytest.raises(Exception, match=r"already completed|not found"):
            await run.send("abort")
    details = [e.detail for e in entries(report, "signal refused")]
    assert len(details) == 2 and all("no approval is pending" in s for s in details)
    assert len(entries(report, "paused")) == len(entries(report, "approved")) == 1
    case.watcher.assert_within(2, 3)


async def test_the_same_update_twice(served: Lab) -> None:
    """An update that a pipeline repeats under the same id is taken once and answers the same."""
    async with served.case("chat", 2, target=SLOW) as case:
        await case.run.until("a move", moved(1))

        async def once() -> str:
            pause = messages.Pause(by="test")
            answer: str = await case.run.handle.execute_update("pause", pause, id="pipeline-7", result_type=str)
            return answer

        assert await once() == await once() == "pause: now Paused"
        await case.run.send("resume")
        assert await once() == "pause: now Paused"  # the answer of then: nothing is paused again
        report = await case.ends("Completed")
        assert len(entries(report, "paused")) == 1
    case.watcher.assert_within(2, 3)


async def test_refused_while_going_back(served: Lab) -> None:
    """On the way back only abort and scale are taken; the others are refused, and say what to do."""
    async with served.case("chat", target=SLOW) as case:
        await case.run.until("3 moves", moved(3))
        await case.run.send("abort")
        wishes = {"retarget": {"change": V3}}
        names = ["pause", "resume", "retarget", "settle", "approve", "reject", "promote"]
        answers = await asyncio.gather(*(refused(case.run, name, **wishes.get(name, {})) for name in names))
        for name, words in zip(names, answers, strict=True):
            assert words.startswith(f"{name}: the rollout is going back to its baseline; wait for its end")
        report = await case.ends("Aborted")
        assert len(report.plans) == 1
    case.watcher.assert_within(4, 5, passing=1)
