"""Without Temporal each command that needs it says so quickly, with exit code 5."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Segue = Callable[..., Any]
SOON_S = 60
"""A slow machine needs seconds to start; without a limit the library tries for ever."""

NEED_TEMPORAL: dict[str, tuple[str, ...]] = {
    "start": ("start", str(EXAMPLES / "rollout.yaml")),
    "start and wait": ("start", str(EXAMPLES / "rollout.yaml"), "--wait"),
    "list": ("list",),
    "status": ("status", "serving/chat"),
    "watch": ("watch", "serving/chat"),
    "report": ("report", "serving/chat"),
    "pause": ("pause", "serving/chat"),
    "pause as signal": ("pause", "serving/chat", "--no-wait"),
    "retarget": ("retarget", "serving/chat", "--image", "server=example/chat:3", "--env", "server:A-"),
    "scale": ("scale", str(EXAMPLES / "rollout.yaml"), "8"),
    "approve": ("approve", "serving/chat", "--by", "ci", "--reason", "checked"),
}


@pytest.mark.parametrize("case", NEED_TEMPORAL)
def test_temporal_away(segue: Segue, closed_port: int, case: str) -> None:
    """The error names the address that was tried and two ways out, and no traceback."""
    began = time.monotonic()
    ran = segue(*NEED_TEMPORAL[case])
    assert ran.code == 5, ran.err
    assert time.monotonic() - began < SOON_S
    assert ran.out == ""
    for part in (f"127.0.0.1:{closed_port}", "connection refused", "segue local up", "TEMPORAL_ADDRESS"):
        assert part in ran.err
    assert "Traceback" not in ran.err


def test_no_token_is_printed(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API key from the environment stays there, also where the connection fails."""
    monkeypatch.setenv("TEMPORAL_API_KEY", "very-secret-key")
    ran = segue("list")
    assert ran.code == 5
    assert "very-secret-key" not in ran.out + ran.err


def test_an_unreadable_profile_is_refused(segue: Segue, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A broken Temporal profile is the user's to correct: exit code 2."""
    path = f"{tmp_path}/temporal.toml"
    with open(path, "w") as file:  # noqa: PTH123
        file.write("not = [toml")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", path)
    ran = segue("list")
    assert ran.code == 2
    assert "TEMPORAL_CONFIG_FILE" in ran.err


def test_debug_shows_where(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEGUE_DEBUG=1 shows the traceback, the original error included."""
    monkeypatch.setenv("SEGUE_DEBUG", "1")
    ran = segue("list")
    assert ran.code == 5
    assert "Traceback" in ran.err
    assert "RuntimeError" in ran.err


def test_what_never_answers_is_given_up_soon(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that takes connections and stays silent is as good as away."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        ran = segue("list")
    assert ran.code == 5
    assert "no answer in time" in ran.err
    assert time.monotonic() - began < SOON_S
