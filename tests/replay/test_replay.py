"""Histories of real rollouts replay with today's workflow; a workflow with its steps reordered is found out."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    """A rollout that began under an earlier release goes on under this one; the sandbox finds nothing in it."""
    await Replayer(workflows=[], plugins=[make_plugin(sandboxed=True)]).replay_workflow(_history(file))


@contextmanager
def _changed(folder: Path, before: str, after: str) -> Iterator[type]:
    """Yield the workflow with a part of its code replaced, under its own name."""
    source = Path(workflows.rollout.__file__).read_text()
    assert source.count(before) == 1, "the workflow has changed: replace another part here"
    (folder / "changed_rollout.py").write_text(source.replace(before, after))
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("changed_rollout").RolloutWorkflow
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("changed_rollout", None)


@pytest.fixture
def reordered(tmp_path: Path) -> Iterator[type]:
    """The workflow with two steps swapped."""
    with _changed(tmp_path, SHOWS_FIRST, SHOWS_LAST) as changed:
        yield changed


@pytest.mark.parametrize("file", FIRST_RUNS, ids=lambda file: file.stem)
async def test_reordered_workflow_is_found_out(file: Path, reordered: type) -> None:
    """The replay test would fail for a workflow that does the same in another order."""
    with pytest.raises(NondeterminismError):
        await Replayer(workflows=[], plugins=[make_plugin([reordered])]).replay_workflow(_history(file))


async def test_sandbox_finds_what_does_not_replay(tmp_path: Path) -> None:
    """A workflow that reads the machine's clock may take other steps at its next replay: only the sandbox finds it."""
    history = _history(FIRST_RUNS[0])
    with _changed(tmp_path, "workflow.now().timestamp()", "__import__('time').time()") as changed:
        with pytest.raises(RuntimeError, match=r"Cannot access time\.time"):
            await Replayer(workflows=[], plugins=[make_plugin([changed], sandboxed=True)]).replay_workflow(history)
        await Replayer(workflows=[], plugins=[make_plugin([changed])]).replay_workflow(history)
