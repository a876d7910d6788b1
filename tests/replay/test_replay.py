"""Histories of real rollouts replay with today's workflow; a workflow with its steps reordered is found out."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

import workflows.rollout
from worker.compose import make_plugin

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
FIRST_RUNS = [file for file in HISTORIES if not re.search(r"-([2-9]|\d\d)$", file.stem)]
"""The step that is swapped below is in these."""
SCENARIOS = ("success", "rollback", "retarget-abort", "pause-scale-resume", "cancel", "continue-as-new")

SHOWS_FIRST = """\
        self._show()
        if not self._state.baseline.template:
            await self._prepare()
"""
SHOWS_LAST = """\
        if not self._state.baseline.template:
            await self._prepare()
            self._show()
"""


def _history(file: Path) -> WorkflowHistory:
    found = json.loads(file.read_text())
    return WorkflowHistory.from_json(found.pop("id"), found)


def test_every_scenario_is_recorded() -> None:
    """No history was lost; a rollout that continued as new has one for each of its runs."""
    names = [file.stem for file in HISTORIES]
    assert all(any(name.startswith(scenario) for name in names) for scenario in SCENARIOS)
    assert sum(name.startswith("continue-as-new") for name in names) >= 2


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
async def test_history_replays(file: Path) -> None:
    """A rollout that began under an earlier release goes on under this one."""
    await Replayer(workflows=[], plugins=[make_plugin()]).replay_workflow(_history(file))


@pytest.fixture
def reordered(tmp_path: Path) -> Iterator[type]:
    """The workflow with two steps swapped, under its own name."""
    source = Path(workflows.rollout.__file__).read_text()
    assert source.count(SHOWS_FIRST) == 1, "the workflow has changed: swap two other steps here"
    (tmp_path / "reordered_rollout.py").write_text(source.replace(SHOWS_FIRST, SHOWS_LAST))
    sys.path.insert(0, str(tmp_path))
    try:
        yield importlib.import_module("reordered_rollout").RolloutWorkflow
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("reordered_rollout", None)


@pytest.mark.parametrize("file", FIRST_RUNS, ids=lambda file: file.stem)
async def test_reordered_workflow_is_found_out(file: Path, reordered: type) -> None:
    """The replay test would fail for a workflow that does the same in another order."""
    with pytest.raises(NondeterminismError):
        await Replayer(workflows=[], plugins=[make_plugin([reordered])]).replay_workflow(_history(file))
