"""A replayed rollout asks its activities for the same, and ends with the same report, as when it was recorded.

Temporal compares only which activities a replay of ``workflows.rollout`` starts, not what it asks of them. Texts for
people may change, and so may fields that only one side has: what both sides have, such as counts, times and decisions,
may not.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from segue.codec import data_converter
from worker.compose import make_plugin

FILES = sorted((Path(__file__).parent / "histories").glob("*.json"))
OTHER_SINCE = {"ready_at", "attempt_s"}
"""Fields that mean something else since the recording; histories that are recorded anew need no entry here."""


class Recorder(Interceptor):
    """Keeps what a workflow asks of its activities, and what it ends with."""

    def __init__(self) -> None:
        self.scheduled: list[StartActivityInput] = []
        self.end: Any = None

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002 - the SDK's
        """Return the class of the interceptor, for each workflow."""
        kept = self

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002 - the SDK's
                kept.scheduled.append(input)
                return super().start_activity(input)

            def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:  # noqa: A002 - the SDK's
                kept.end = input.args[0]
                super().continue_as_new(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

            async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002 - the SDK's
                kept.end = await super().execute_workflow(input)
                return kept.end

        return Inbound


def _differences(recorded: Any, replayed: Any, at: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(replayed, dict):
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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_history_replays_to_the_same_report(file: Path) -> None:
    """Each activity gets what it got, and the rollout ends as it ended."""
    found = json.loads(file.read_text())
    history, recorder = WorkflowHistory.from_json(found.pop("id"), found), Recorder()
    await Replayer(workflows=[], plugins=[make_plugin()], interceptors=[recorder]).replay_workflow(history)
    seen: list[str] = []
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            sent = recorder.scheduled[int(scheduled.activity_id) - 1]
            at = f"{scheduled.activity_id} {scheduled.activity_type.name}"
            seen += _differences(_of(scheduled.input), _sent(sent.args[0]), at)
    last = history.events[-1]
    ended = last.workflow_execution_completed_event_attributes.result
    continued = last.workflow_execution_continued_as_new_event_attributes.input
    seen += _differences(_of(ended if ended.payloads else continued), _sent(recorder.end), "the end")
    assert not seen, "\n".join(seen)
