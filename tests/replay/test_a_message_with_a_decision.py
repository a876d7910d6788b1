"""A message that arrives with a decision drops it: no write is made in a state that it was not decided in.

The simulation (tests/unit/simulation.py) relies on this. Otherwise the counts of a move forward could be written
after an abort, when *old* and *new* have other meanings.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

sys.path.insert(0, str(Path(__file__).parent))
from test_same_report import Recorder

from segue.contract import AWAIT_READY
from segue.state import Goal
from worker.compose import make_plugin

RECORDED = json.loads((Path(__file__).parent / "histories/retarget-abort.json").read_text())
EVENTS: list[dict[str, Any]] = RECORDED["events"]
WRITES = {"scale_new", "scale_old", "undo"}
WRITE, TASK = "activityTaskScheduledEventAttributes", "EVENT_TYPE_WORKFLOW_TASK_"


def _decided() -> list[int]:
    """Return after how many events the decision of each write is known, and the workflow has not handled it yet."""
    return [
        place - 3
        for place, event in enumerate(EVENTS)
        if event.get(WRITE, {}).get("activityType", {}).get("name") in WRITES
        and EVENTS[place - 3]["eventType"] == TASK + "SCHEDULED"
    ]


def _with_abort(place: int) -> WorkflowHistory:
    """Return the history up to a decision, with an abort that arrives before the workflow handles it."""
    (abort,) = (event for event in EVENTS if event["eventType"] == "EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED")
    events = [*EVENTS[:place], abort, *EVENTS[place : place + 2]]
    renumbered = [{**event, "eventId": str(number)} for number, event in enumerate(events, 1)]
    started = "workflowTaskStartedEventAttributes"
    renumbered[-1] = {**renumbered[-1], started: {**renumbered[-1][started], "scheduledEventId": str(place + 2)}}
    return WorkflowHistory.from_json(RECORDED["id"], {"events": renumbered})


@pytest.mark.parametrize("place", _decided())
async def test_a_message_that_arrives_with_a_decision_drops_it(place: int) -> None:
    """The workflow observes again, in the state after the message."""
    recorder = Recorder()
    await Replayer(workflows=[], plugins=[make_plugin()], interceptors=[recorder]).replay_workflow(_with_abort(place))
    last = recorder.scheduled[-1]
    assert last.activity == AWAIT_READY.name
    assert last.args[0].state.goal is Goal.BACK


def test_there_are_decisions_to_drop() -> None:
    """The recorded rollout moves before and after its retarget."""
    assert len(_decided()) >= 3
