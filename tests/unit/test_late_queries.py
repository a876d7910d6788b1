"""A query that brings new events to a cached workflow is refused. The activations are as the servers caused them."""

import pytest
from temporalio.bridge.proto.workflow_activation import WorkflowActivation

from worker.late_queries import HandledEvents

Step = tuple[str, int, int, bool]
"""What it holds, the history's length, the length at the last task's start, and whether it is a replay."""
BEGIN: Step = ("begin", 3, 3, False)
REBUILT: Step = ("begin", 3, 3, True)


def result(length: int, task: int = 3) -> Step:
    return ("result", length, task, False)


def update(length: int) -> Step:
    return ("update", length, length, False)


def query(length: int, task: int = 3) -> Step:
    return ("legacy_query", length, task, True)


def activation(step: Step) -> WorkflowActivation:
    what, length, task, is_replaying = step
    found = WorkflowActivation(history_length=length, history_size_bytes=100 * task, is_replaying=is_replaying)
    found.timestamp.FromSeconds(1_000_000 + task)
    job = found.jobs.add()
    match what:
        case "begin":
            job.initialize_workflow.SetInParent()
        case "result":
            job.resolve_activity.SetInParent()
        case "update":
            job.do_update.SetInParent()
        case _:
            job.query_workflow.query_id = what
    return found


def is_late(steps: list[Step]) -> bool:
    """Return whether the last step is refused; none before it is."""
    handled = HandledEvents()
    *before, last = [handled.is_late(activation(step)) for step in steps]
    assert not any(before)
    return last


@pytest.mark.parametrize("steps", [
    pytest.param([BEGIN, result(8), query(8)], id="cached"),
    pytest.param([BEGIN, query(3), result(8), query(8)], id="queried-before"),
    pytest.param([BEGIN, result(8), result(8), query(8)], id="with-a-cancelled-activity"),
    pytest.param([REBUILT, result(10), query(10)], id="rebuilt"),
    pytest.param([REBUILT, query(6), result(8), query(8)], id="rebuilt-by-a-query"),
    pytest.param([REBUILT, result(11, 11), query(11, 11)], id="rebuilt-with-a-task-of-another"),
])  # fmt: skip
def test_a_query_with_new_events_is_refused(steps: list[Step]) -> None:
    assert is_late(steps)


@pytest.mark.parametrize("steps", [
    pytest.param([BEGIN, query(3)], id="after-the-first-task"),
    pytest.param([BEGIN, result(9, 9), query(9, 9)], id="after-a-task"),
    pytest.param([BEGIN, result(9, 9), query(12, 9)], id="with-the-history-of-a-task"),
    pytest.param([BEGIN, result(9, 9), ("8c3f", 9, 9, True)], id="within-a-task"),
    pytest.param([BEGIN, result(9, 9), result(9, 9), query(9, 9)], id="after-a-task-of-two-steps"),
    pytest.param([BEGIN, result(8), update(14), query(14, 14)], id="after-a-later-task"),
    pytest.param([REBUILT, query(5)], id="rebuilt"),
    pytest.param([REBUILT, result(9, 9), update(15), query(15, 15)], id="rebuilt-by-a-task"),
])  # fmt: skip
def test_other_queries_are_answered(steps: list[Step]) -> None:
    assert not is_late(steps)
