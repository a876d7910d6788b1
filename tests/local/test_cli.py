"""The command line of the local stack says what to do next, and its exit codes hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from segue_local import Stack


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segue_local.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_up_status_env_down(name: str) -> None:
    """A stack is used as its help says: up, status, env, down, and down again."""
    up = run("up", "--name", name, "--nodes", "1")
    assert up.returncode == 0, up.stderr
    assert "Temporal UI   http://127.0.0.1:" in up.stdout
    assert f'eval "$(segue local env --name {name})"' in up.stdout
    assert f"segue local down --name {name}" in up.stdout
    assert "kube-apiserver answers (" in up.stderr

    status = run("status", "--name", name, "-o", "json")
    assert status.returncode == 0
    assert [part["alive"] for part in json.loads(status.stdout)] == [True] * 6

    stack = Stack.find(name)
    assert stack is not None
    shell = f'{run("env", "--name", name).stdout}\necho "$TEMPORAL_ADDRESS $KUBECONFIG"'
    output = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert output == f"{stack.temporal_address} {stack.kubeconfig}\n"
    assert json.loads(run("env", "--name", name, "-o", "json").stdout) == stack.env()

    stack.kill("kwok")
    table = run("status", "--name", name)
    assert table.returncode == 1
    assert "kwok was killed on request. The end of its log (" in table.stdout

    down = run("down", "--name", name)
    assert (down.returncode, down.stdout) == (0, f"Stack {name} is gone.\n")
    again = run("down", "--name", name)
    assert (again.returncode, again.stdout) == (0, f"There is no stack {name}.\n")


@pytest.mark.parametrize("command", ["status", "env"])
def test_absent_stack_is_exit_code_5(command: str) -> None:
    """Asking for a stack that is not there ends with 5 and the command that starts it."""
    answer = run(command, "--name", "absent")
    assert answer.returncode == 5
    assert "`segue local up --name absent`" in answer.stderr


@pytest.mark.parametrize("arguments", [("up", "--name", "No_Name"), ("up", "--nodes", "0"), ("up", "--what")])
def test_refused_input_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """Input that cannot be used ends with 2 and starts nothing."""
    answer = run(*arguments)
    assert answer.returncode == 2
    assert answer.stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user without a home, and as a full disk."""
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    answer = run("down", "--name", "absent")
    assert answer.returncode == 1
    assert answer.stderr == "error: [Errno 20] Not a directory: '/dev/null/state/segue/local'\n"


def test_missing_go_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """An error says what prevents it, without a traceback."""
    code = (
        "from segue_local import build; build._FALLBACK_GO = '/nowhere/go'; "
        "from segue_local.cli import app; app(['up', '--name', 'absent'])"
    )
    environment = {**os.environ, "PATH": str(tmp_path)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: no `go` command was found")
    assert "Traceback" not in answer.stderr
