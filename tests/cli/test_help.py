"""The help is enough to operate Segue."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from segue.cli.app import app

Segue = Callable[..., Any]

COMMANDS = sorted(name for name in typer.main.get_command(app).commands if name != "local")  # type: ignore[attr-defined]
"""All but the local stack, which has its own help."""
KINDS = {"CronJob", "CustomResourceDefinitions", "ServiceAccount"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(segue: Segue, command: str) -> None:
    """The help of a command says what it does, and shows one line to copy."""
    ran = segue(command, "--help")
    assert ran.code == 0
    assert f"Usage: segue {command}" in ran.out
    assert "Example: " in ran.out
    assert f"segue {command}" in ran.out.split("Example: ")[1]
    words = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", ran.out))
    assert words <= KINDS, "a name of the code in a text for people"


def test_the_overview_lists_every_command_by_what_it_is_for(segue: Segue) -> None:
    """``segue --help`` groups all commands, and says what exit codes mean."""
    ran = segue("--help")
    assert ran.code == 0
    for title in ("Plan and start", "See", "Steer", "Operate", "Install", "Exit codes"):
        assert title in ran.out
    for command in [*COMMANDS, "local"]:
        assert f" {command} " in ran.out


def test_local_shows_the_local_stacks_own_help(segue: Segue) -> None:
    """``segue local --help`` is answered by the local stack."""
    ran = segue("local", "--help")
    assert ran.code == 0
    assert "Usage: segue local" in ran.out
    assert all(word in ran.out for word in ("up", "down", "status", "env"))


def test_the_version_is_data(segue: Segue) -> None:
    """``segue version`` prints one line to stdout."""
    ran = segue("version")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("segue 0.")


def test_it_runs_as_a_module() -> None:
    """``python -m segue`` is the command line: an image needs no script."""
    ran = subprocess.run([sys.executable, "-m", "segue", "version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("segue 0.")


def test_without_a_command_the_help_is_shown(segue: Segue) -> None:
    """A bare ``segue`` is a usage error that shows the help."""
    ran = segue()
    assert ran.code == 2
    assert "Plan and start" in ran.out + ran.err
