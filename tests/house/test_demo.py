"""``make demo``, as a new user runs it."""

import os
import subprocess
import sys
from pathlib import Path

from segue_local import Stack

ROOT = Path(__file__).resolve().parents[2]


def test_demo_shows_the_main_job_and_leaves_nothing() -> None:
    """The demo ends with 0, has shown plan, rollout, rollback and report, and its stack is gone."""
    before = _demo_stacks()
    ended = subprocess.run(
        [sys.executable, "examples/demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    shown = ended.stdout + ended.stderr
    assert ended.returncode == 0, shown
    for piece in (
        "floor 6 ready, ceiling 8 in all",
        "AwaitingApproval",
        "Completed: serving/chat runs server=example/chat:2",
        "(exit code 3: rolled back)",
        "# chat: RolledBack",
        "/namespaces/default/workflows",
        "nothing is left running",
    ):
        assert piece in shown, f"{piece!r} is not in:\n{shown}"
    assert _demo_stacks() <= before


def _demo_stacks() -> set[str]:
    return {name for name in Stack.names() if name.startswith("demo-")}
