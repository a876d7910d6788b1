"""A workflow that was reset in Temporal, or restored from a backup: it does not act on what it has forgotten."""

import asyncio
import uuid

import pytest
from harness import Lab, Run, until
from subjects import SUBJECTS, Subject
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from segue.observation import Cause
from segue.report import Report

NOTHING_AGAIN = [
    ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL,
    ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE,
]
FORGOT = "this rollout itself changed the target later than its workflow knows"


async def tasks(run: Run) -> list[int]:
    """Return the events that complete a workflow task."""
    events = (await run.handle.fetch_history()).events
    return [each.event_id for each in events if each.HasField("workflow_task_completed_event_attributes")]


async def reset(lab: Lab, run: Run, event: int) -> Run:
    """Reset a workflow to this event, without the messages since, as a person does in the Temporal UI."""
    workflow_id = run.handle.id
    made = await lab.temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=lab.temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            reason="a test",
            workflow_task_finish_event_id=event,
            request_id=str(uuid.uuid4()),
            reset_reapply_exclude_types=NOTHING_AGAIN,
        )
    )
    return Run(lab.temporal.get_workflow_handle(workflow_id, run_id=made.run_id, result_type=Report))


async def holds(run: Run) -> None:
    status = await run.until("it needs a person", lambda s: s.phase == "Held")
    assert status.needs_person and FORGOT in status.reason, status.reason


async def waits_for(run: Run, what: str) -> None:
    """Wait until a rollout waits for this."""
    await run.until(what, lambda s: s.waiting_for == what)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("Deployment", "StatefulSet", "DeploymentPair"), id="in one or two objects"),
        pytest.param(("LeaderWorkerSet",), id="groups", marks=pytest.mark.soak),
    ],
)
async def test_forgotten_moves(served: Lab, kinds: tuple[str, ...]) -> None:
    """The rollout writes nothing until a person decides; a retarget continues from where the target is."""
    await asyncio.gather(*(_forgotten_moves(served, SUBJECTS[name]) for name in kinds))


async def _forgotten_moves(served: Lab, kind: type[Subject]) -> None:
    name, waypoints = kind.kind.lower(), [{"at": at, "approval": True} for at in (1, 3)]
    async with served.case(name, kind=kind, strategy={**kind.ways[0].strategy, "waypoints": waypoints}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        known = (await tasks(case.run))[-1]
        await case.run.send("approve")
        await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval" and s.new.replicas == 3)
        before = case.subject.requested()
        case.run = await reset(served, case.run, known)
        await holds(case.run)
        assert case.subject.requested() == before
        await case.run.send("retarget", change=case.subject.changed(2))
        for place in (1, 3):
            await waits_for(case.run, f"approval at waypoint {place}")
            await case.run.send("approve")
        await case.ends("Completed")
    way = kind.ways[0]
    case.watcher.assert_within(way.floor, way.ceiling, passing=way.passing)


async def test_a_forgotten_abort(served: Lab) -> None:
    """The rollout does not go forward again: that a person took it back is on the target."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 3, "approval": True}]}
    async with served.case("chat", target={"ready_after": "1s"}, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        known = (await tasks(case.run))[-1]
        await case.run.send("abort")
        await until("the baseline is written", lambda: case.subject.image() == case.image)
        case.run = await reset(served, case.run, known)
        await holds(case.run)
        assert case.subject.image() == case.image
        await case.run.send("abort")
        await case.ends("Aborted")
    case.watcher.assert_within(4, 5, passing=1)


async def test_a_forgotten_start(served: Lab) -> None:
    """Reset to its beginning, it finds its own target held; reset after its end, it changes nothing."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with served.case("chat", 2, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        first, *_, last = await tasks(case.run)
        case.run = await reset(served, case.run, first)
        await holds(case.run)
        ended = case.run
        await case.run.send("abort")
        await case.ends("Aborted")
        free = case.subject.raw["metadata"]["generation"]  # its controller still writes the status
        again = await (await reset(served, ended, (await tasks(ended))[-3])).end()
        assert again.status.outcome == "Aborted" and again.status.reason.startswith(f"{Cause.FENCED}: ")
        assert "its workflow was reset" in again.status.reason and last > first
        assert case.subject.raw["metadata"]["generation"] == free
    case.watcher.assert_within(2, 3, passing=1)
