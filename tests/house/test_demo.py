"""``make demo``, as a new user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from segue_local import Stack, node_is_possible

ROOT = Path(__file__).resolve().parents[2]


HINDRANCE = node_is_possible()
real = pytest.param(
    [],
    ("server=segue.local/mlserver:v2", "0 failed of ", "demo.html", "answered as version 'v2', not 'wrong-version'"),
    marks=pytest.mark.skipif(HINDRANCE is not None, reason=f"no real node here: {HINDRANCE}"),
    id="real",
)
# What `make demo` shows where no real node is possible; with one, it shows the same and more.
fake = pytest.param(["--fake"], ("server=example/chat:2",), marks=[] if HINDRANCE else pytest.mark.soak, id="fake")


@pytest.mark.parametrize(("arguments", "pieces"), [real, fake])
def test_demo_shows_the_main_job_and_leaves_nothing(arguments: list[str], pieces: tuple[str, ...]) -> None:
    """The demo ends with 0, has shown plan, rollout, rollback and report, and its stack is gone."""
    before = _demo_stacks()
    ended = subprocess.run(
        [sys.executable, "examples/demo.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=540,
        env={**os.environ, "NO_COLOR": "1"}, check=False,
    )  # fmt: skip
    shown = ended.stdout + ended.stderr
    assert ended.returncode == 0, shown
    for piece in (
        "floor 6 ready, ceiling 8 in all",
        "AwaitingApproval",
        "$ segue approve serving/chat",
        "Completed: serving/chat runs server=",
        "(exit code 3: rolled back)",
        "# chat: RolledBack",
        "/namespaces/default/workflows",
        "nothing is left running",
        *pieces,
    ):
        assert piece in shown, f"{piece!r} is not in:\n{shown}"
    assert _demo_stacks() <= before


def _demo_stacks() -> set[str]:
    return {name for name in Stack.names() if name.startswith("demo-")}
