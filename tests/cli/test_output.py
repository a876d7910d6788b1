"""Output to pipes that close, and to terminals without Unicode: no traceback, nothing half done."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from segue.cli.console import say, show, write, write_json
from segue.observation import Version
from segue.report import Report
from segue.state import Phase
from segue.status import Status

ROOT = Path(__file__).parents[2]
PLAN = [sys.executable, "-m", "segue", "plan", "examples/rollout.yaml", "--replicas", "40"]


def test_a_reader_that_leaves_ends_the_command_as_shells_do() -> None:
    """With ``pipefail``, ``segue list | head -1`` is no unexpected error."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ran = subprocess.run(PLAN, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_output_that_is_closed_goes_nowhere() -> None:
    """A message that was sent is no error because its answer cannot be shown."""
    run = f"{sys.executable} -m segue version"
    for closed, rest in ((">&-", ("", "")), ("2>&-", ("segue ", ""))):
        ran = subprocess.run(f"{run} {closed}", shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout[:6], ran.stderr) == (0, *rest)


def test_a_text_stays_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What people write as the cause of a change, say: no picture takes the place of a word."""
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        show(_table("fix :bug: [red]now"))
        assert "fix :bug: [red]now" in stream.getvalue()


def test_a_terminal_without_unicode_shows_the_plan() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(PLAN, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "floor 40 ready" in ran.stdout and "stage" in ran.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FORGED = "OOM\x1b[2K\x1b]0;owned\x07\r\x9b31mCompleted"
"""What a pod may write as its last words: it clears the line, and claims something else."""


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_no_text_of_others_steers_a_terminal(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    """Neither in a table, nor in a text, a message or JSON; a JSON reader gets the text as it is."""
    monkeypatch.setenv("TERM", "xterm")
    ways: tuple[Callable[[], None], ...] = (
        lambda: show(Text(FORGED)),
        lambda: show(_table(FORGED)),
        lambda: write(FORGED),
        lambda: say(FORGED),
        lambda: write_json({"reason": FORGED}),
    )
    for printed in ways:
        out = stream()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", out)
        printed()
        assert "OOM" in out.getvalue() and "Completed" in out.getvalue()
        assert not {"\x07", "\r", "\x9b"} & set(out.getvalue())
        assert "\x1b[2K" not in out.getvalue() and "\x1b]" not in out.getvalue()
    assert json.loads(out.getvalue()) == {"reason": FORGED}


def test_every_key_of_json_is_written_as_kubernetes_writes_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A name with an underscore between the others is a trap for whoever reads them with jq."""
    version = Version(template="1f", images={"server": "chat:1"}, more_images={"init": "load:1"})
    status = Status(id="a", name="chat", target="serving/chat", phase=Phase.HELD, can=(), baseline=version)
    write_json(Report(status=status, plans=(), entries=()))
    found = json.loads(capsys.readouterr().out)
    assert found["status"]["baseline"]["moreImages"] == {"init": "load:1"}
    assert [key for key in _keys(found) if "_" in key] == []
    assert "more_images" in status.model_dump_json(by_alias=True), "histories keep the name that they have"


def _keys(found: Any) -> Iterator[str]:
    for key, value in found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list) else ()):
        yield str(key)
        yield from _keys(value)


def _table(text: str) -> Table:
    table = Table(box=None)
    table.add_column("reason")
    table.add_row(text)
    return table
