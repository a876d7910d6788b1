"""A replayed rollout asks its activities for the same, shows and tells the same, and ends as when it was recorded.

Temporal compares only which steps a replay of ``workflows.rollout`` takes, not what it asks for by them. Texts for
people may change, and fields may be added. What was recorded, such as counts, times and decisions, may neither change
nor be gone.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    StartActivityInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle, ChildWorkflowHandle

from segue.codec import data_converter
from worker.compose import make_plugin

FILES = sorted((Path(__file__).parent / "histories").glob("*.json"))
OTHER_SINCE = {"ready_at", "attempt_s", "sized"}
"""Fields that mean something else since the recording; histories that are recorded anew need no entry here."""


class Recorder(Interceptor):
    """Keeps what a workflow asks of its activities, and what it ends with."""

    def __init__(self) -> None:
        self.scheduled: list[StartActivityInput] = []
        self.told: list[Any] = []
        """What the workflows of notifications get."""
        self.end: Any = None

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002 - the SDK's
        """Return the class of the interceptor, for each workflow."""
        kept = self

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002 - the SDK's
                kept.scheduled.append(input)
                return super().start_activity(input)

            async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:  # noqa: A002 - the SDK's
                kept.told.append(input.args[0])
                return await super().start_child_workflow(input)

            def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:  # noqa: A002 - the SDK's
                kept.end = input.args[0]
                super().continue_as_new(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

            async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002 - the SDK's
                try:
                    kept.end = await super().execute_workflow(input)
                except ApplicationError as refusal:
                    kept.end = {"refused as": refusal.type}
                    raise
                return kept.end

        return Inbound


def _differences(recorded: Any, replayed: Any, at: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        gone = {key for key in recorded.keys() - replayed.keys() if recorded[key] is not None}
        yield from (f"{at}.{key}: {recorded[key]!r} was recorded, now it is not there" for key in sorted(gone))
        for key in sorted(recorded.keys() & replayed.keys() - OTHER_SINCE):
            yield from _differences(recorded[key], replayed[key], f"{at}.{key}")
    elif isinstance(recorded, list) and isinstance(replayed, list) and len(recorded) == len(replayed):
        for number, (one, other) in enumerate(zip(recorded, replayed, strict=True)):
            yield from _differences(one, other, f"{at}[{number}]")
    elif recorded != replayed and not _is_text(recorded):
        yield f"{at}: {recorded!r} was recorded, now it is {replayed!r}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and " " in value


def _sent(value: Any) -> Any:
    return json.loads(data_converter().payload_converter.to_payloads([value])[0].data)


def _of(payloads: Any) -> Any:
    return json.loads(payloads.payloads[0].data)


def _end(last: Any) -> Any:
    """Return what the recorded rollout ended with: its report, its next run's task, or its refusal."""
    ended = last.workflow_execution_completed_event_attributes.result
    continued = last.workflow_execution_continued_as_new_event_attributes.input
    if last.HasField("workflow_execution_failed_event_attributes"):
        return {"refused as": last.workflow_execution_failed_event_attributes.failure.application_failure_info.type}
    return _of(ended if ended.payloads else continued)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_history_replays_to_the_same_report(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activities and notifications get what they got; the rollout shows what it showed, and ends as it ended."""
    found = json.loads(file.read_text())
    history, recorder = WorkflowHistory.from_json(found.pop("id"), found), Recorder()
    shown: list[dict[str, Any]] = []
    upsert = workflow.upsert_search_attributes

    def show(updates: Any) -> None:
        shown.append({update.key.name: update.value for update in updates})
        upsert(updates)

    monkeypatch.setattr(workflow, "upsert_search_attributes", show)
    await Replayer(workflows=[], plugins=[make_plugin()], interceptors=[recorder]).replay_workflow(history)
    seen: list[str] = []
    told, upserted = [], []
    for event in history.events:
        if event.HasField("start_child_workflow_execution_initiated_event_attributes"):
            told.append(_of(event.start_child_workflow_execution_initiated_event_attributes.input))
        if event.HasField("upsert_workflow_search_attributes_event_attributes"):
            fields = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
            upserted.append({name: json.loads(payload.data) for name, payload in fields.items()})
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            sent = recorder.scheduled[int(scheduled.activity_id) - 1]
            at = f"{scheduled.activity_id} {scheduled.activity_type.name}"
            seen += _differences(_of(scheduled.input), _sent(sent.args[0]), at)
    seen += _differences(told, [_sent(each) for each in recorder.told], "told")
    seen += _differences(upserted, shown, "shown")
    seen += _differences(_end(history.events[-1]), _sent(recorder.end), "the end")
    assert not seen, "\n".join(seen)
