"""Runs the command line in this process: exit code, stdout, stderr. No server is reachable."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from segue.cli import run

EXAMPLES = Path(__file__).parents[2] / "examples"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Segue = Callable[..., Ran]


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def segue(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, closed_port: int, tmp_path: Path
) -> Segue:
    """Run ``segue`` with these arguments."""
    ours = ("SEGUE_CLUSTER", "SEGUE_CLUSTERS", "SEGUE_SETTINGS", "SEGUE_TASK_QUEUE", "SEGUE_BY", "SEGUE_DEBUG")
    for name in (*ours, "TEMPORAL_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{closed_port}")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def segue(*arguments: str) -> Ran:
        capsys.readouterr()
        code = run(arguments)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return segue


@pytest.fixture
def spec_file(tmp_path: Path) -> Callable[[str], str]:
    """Write a file with this text, and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return str(path)

    return write
