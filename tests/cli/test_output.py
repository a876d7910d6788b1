"""Output to pipes that close, and to terminals without Unicode: no traceback, nothing half done."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAN = [sys.executable, "-m", "segue", "plan", "examples/rollout.yaml", "--replicas", "40"]


def test_a_reader_that_leaves_ends_the_command_as_shells_do() -> None:
    """With ``pipefail``, ``segue list | head -1`` is no unexpected error."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ran = subprocess.run(PLAN, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_terminal_without_unicode_shows_the_plan() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(PLAN, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "floor 40 ready" in ran.stdout and "stage" in ran.stdout
