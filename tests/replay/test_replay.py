"""Histories and specs of this checkout and of each release are replayed and read; reordered steps are found out."""

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
from segue.files import read_spec
from worker.compose import make_plugin

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
record = importlib.import_module("record")
sys.path.remove(str(HERE))

RELEASES = sorted(record.RELEASES.glob("*"))
"""One folder for each release, by `make keep`."""
PRESENT = sorted(record.HISTORIES.glob("*.json"))
HISTORIES = [*PRESENT, *(file for release in RELEASES for file in sorted(release.glob("histories/*.json")))]
SPECS = [*record.example_specs(), *(file for release in RELEASES for file in sorted(release.glob("specs/*.yaml")))]
FIRST_RUNS = [file for file in PRESENT if not re.search(r"-([2-9]|\d\d)$", file.stem)]
"""The step that is swapped below is in these."""

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


def _id(file: Path) -> str:
    """Return the file's name, after the release that stored it."""
    release = file.parent.parent if file.is_relative_to(record.RELEASES) else None
    return f"{release.name}-{file.stem}" if release else file.stem


def test_every_scenario_is_recorded() -> None:
    """No history was lost; a rollout that continued as new has one for each of its runs."""
    names = [file.stem for file in PRESENT]
    assert all(any(name.startswith(scenario) for name in names) for scenario in record.SCENARIOS)
    assert sum(name.startswith("continue-as-new") for name in names) >= 2


def _missing_in(release: Path) -> list[str]:
    return [part for part in ("specs/*.yaml", "histories/*.json") if not any(release.glob(part))]


def test_each_release_is_stored_whole() -> None:
    """A folder without specs or histories would promise nothing."""
    assert {release.name: missing for release in RELEASES if (missing := _missing_in(release))} == {}


def test_the_specs_of_a_release_are_copies_of_the_examples(tmp_path: Path) -> None:
    """Each example is stored, under a name of its own."""
    record.keep_specs(tmp_path / "specs")
    kept = sorted(file.read_text() for file in tmp_path.glob("specs/*.yaml"))
    assert kept == sorted(file.read_text() for file in record.example_specs())
    assert len(kept) > 10
    assert _missing_in(tmp_path) == ["histories/*.json"]


async def test_what_a_release_stored_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second `make keep` of a version is refused, before anything is recorded."""
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RELEASES", tmp_path)
    (tmp_path / record.version()).mkdir()
    with pytest.raises(SystemExit, match="exists already"):
        await record.keep()


@pytest.mark.parametrize("file", SPECS, ids=_id)
def test_spec_is_read(file: Path) -> None:
    """A spec that an earlier release accepted is accepted."""
    assert read_spec(str(file)).spec.target.name


@pytest.mark.parametrize("file", HISTORIES, ids=_id)
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
