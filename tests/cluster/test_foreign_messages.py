"""Messages as anybody can send them by Temporal's own UI, CLI or SDK: each has an answer, and none stops a rollout."""

import json
from typing import Any

import pytest
from harness import Lab, Run, until
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    RespondActivityTaskCompletedByIdRequest,
    SignalWorkflowExecutionRequest,
    UnpauseActivityRequest,
)
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from segue import contract
from segue.client import Rollouts
from segue.report import Report

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


def as_json(value: Any) -> Payload:
    return Payload(
        metadata={"encoding": b"json/plain"}, data=value if isinstance(value, bytes) else json.dumps(value).encode()
    )


def encoded(encoding: bytes, data: bytes = b"") -> Payload:
    return Payload(metadata={"encoding": encoding}, data=data)


REFUSED: list[tuple[str, list[Payload], str]] = [
    ("pause", [as_json("because")], "pause: 'because': is not a JSON object; send one"),
    ("pause", [as_json(b"{not json")], "is not a JSON object; send one"),
    ("pause", [as_json(b'{"by":' + b"[" * 20_000 + b"]" * 20_000 + b"}")], "pause: "),
    ("pause", [as_json({"reason": "y" * 100_000})], "pause: reason: 'yyy"),
    ("pause", [encoded(b"binary/plain", b"\x00\x01")], "pause: 'binary/plain': is not JSON"),
    ("pause", [encoded(b"json/protobuf", b"{}")], "pause: 'json/protobuf': is not JSON"),
    ("pause", [encoded(b"binary/encrypted", b"zzzz")], "pause: 'binary/encrypted': is not JSON"),
    ("pause", [as_json({"by": "a"}), as_json({"by": "b"})], "pause: '2 inputs': is not a JSON object"),
    ("scale", [as_json({"replicas": "many"})], "scale: replicas: 'many'"),
    ("scale", [], "scale: replicas: "),
    ("explode", [], "explode: is not a message of a rollout; send one of: pause, resume"),
    ("explode", [as_json({}), as_json({})], "explode: is not a message of a rollout"),
    ("resume", [encoded(b"binary/null")], "resume: the rollout is not paused"),
    ("promote", [as_json(None), as_json(None)], "promote: '2 inputs'"),
]  # fmt: skip


async def _signal(lab: Lab, run: Run, name: str, payloads: list[Payload]) -> None:
    await lab.temporal.workflow_service.signal_workflow_execution(
        SignalWorkflowExecutionRequest(
            namespace=lab.temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run.handle.id),
            signal_name=name,
            input=Payloads(payloads=payloads) if payloads else None,
        )
    )


async def _refused_update(run: Run, name: str, *given: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await run.handle.execute_update(name, args=given)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.message


async def test_no_input_stops_a_rollout(served: Lab) -> None:
    """Each signal is refused in the report, each update to its sender; no input is a message without fields."""
    async with served.case("chat", 2, strategy=ASKS) as case:
        run = case.run
        await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        for name, payloads, _ in REFUSED:
            await _signal(served, run, name, payloads)
        await _signal(served, run, contract.SENDER_SIGNAL, [])

        async def refusals() -> list[str] | None:
            found: Report = await run.handle.query(contract.REPORT_QUERY, result_type=Report)
            told = [entry.detail for entry in found.entries if entry.what == "signal refused"]
            return told if len(told) >= len(REFUSED) else None

        for found, (_, _, words) in zip(await until("all are refused", refusals, 20), REFUSED, strict=True):
            assert words in found
        assert "is not a JSON object" in await _refused_update(run, "pause", "because")
        assert "replicas" in await _refused_update(run, "scale")
        assert "explode" in await _refused_update(run, "explode")
        assert await run.handle.execute_update("pause", result_type=str) == "pause: now Paused"
        await _signal(served, run, "abort", [])
        report = await case.ends("Aborted")
        assert "aborted by someone" in report.status.reason
    case.watcher.assert_within(2, 3, passing=1)


async def test_what_a_person_does_to_an_activity(served: Lab) -> None:
    """A result by hand that is none needs a person; a paused activity is told, and can be continued."""
    async with served.case("chat", 2, strategy=ASKS) as case:
        run, service = case.run, served.temporal.workflow_service
        where: dict[str, Any] = {"namespace": served.temporal.namespace, "identity": "a person"}
        rollouts = Rollouts(served.temporal, served.namespace, served.task_queue)
        await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        [watch] = (await run.handle.describe()).raw_description.pending_activities
        await service.respond_activity_task_completed_by_id(
            RespondActivityTaskCompletedByIdRequest(
                workflow_id=run.handle.id,
                activity_id=watch.activity_id,
                result=Payloads(payloads=[as_json({"decision": "go"})]),
                **where,
            )
        )
        status = await run.until("it needs a person", lambda s: s.phase == "Held")
        assert "somebody completed the activity await_ready in Temporal" in status.reason
        await run.send("resume")
        await run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
        await until("it is watched", case.only_watches)
        [watch] = (await run.handle.describe()).raw_description.pending_activities
        execution = WorkflowExecution(workflow_id=run.handle.id)
        await service.pause_activity(PauseActivityRequest(execution=execution, id=watch.activity_id, **where))
        told = (await rollouts.status(run.handle.id)).waiting_for
        assert told.startswith(
            "the activity await_ready, which somebody paused in Temporal: `temporal activity unpause"
        )
        await service.unpause_activity(UnpauseActivityRequest(execution=execution, id=watch.activity_id, **where))
        await run.send("abort")
        await case.ends("Aborted")
    case.watcher.assert_within(2, 3, passing=1)
