"""Without Temporal each command that needs it says so quickly, with exit code 5."""

import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from segue_local.certs import Authority

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


@pytest.mark.parametrize(
    ("variable", "text", "why"),
    [
        pytest.param("TEMPORAL_CONFIG_FILE", "not = [toml", "unclosed array", id="file"),
        pytest.param("TEMPORAL_PROFILE", "[profile.default]", "'nowhere' not found", id="profile"),
    ],
)
def test_an_unreadable_profile_is_refused(
    segue: Segue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, text: str, why: str
) -> None:
    """A broken Temporal profile is the user's to correct, for a command and for a worker alike: exit code 2."""
    file = tmp_path / "temporal.toml"
    file.write_text(text)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    if variable == "TEMPORAL_PROFILE":
        monkeypatch.setenv(variable, "nowhere")
    ran = segue("list")
    assert ran.code == 2 and f"{variable}: Temporal's connection profile cannot be read" in ran.err and why in ran.err
    worker = subprocess.run([sys.executable, "-m", "worker"], capture_output=True, text=True, check=False)
    assert (worker.returncode, worker.stderr) == (2, ran.err)


def test_an_address_with_a_scheme_is_refused(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would print a warning of Python, and one day fail."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", "http://temporal:7233")
    ran = segue("list")
    assert ran.code == 2 and "TEMPORAL_ADDRESS: 'http://temporal:7233': is a URL; write HOST:PORT" in ran.err


@pytest.mark.parametrize("address", ["temporal:grpc", "temporal 7233", "::1:7233", "temporal:7233/default"])
def test_what_is_no_address_is_refused(segue: Segue, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The library's error reads as if somebody had answered."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    ran = segue("list")
    assert ran.code == 2 and f"TEMPORAL_ADDRESS: '{address}': is not an address; write HOST:PORT" in ran.err


def test_an_address_without_a_port_gets_one(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of HTTP or HTTPS, where a gateway may listen. Else the port was forgotten."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1")
    ran = segue("list")
    assert ran.code == 5 and "add the port to TEMPORAL_ADDRESS, such as 127.0.0.1:7233" in ran.err


class Answers(socketserver.ThreadingTCPServer):
    """A server that takes connections over TLS, or answers as HTTP/1.1 without it."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.tls = tls
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Answers)
        try:
            if self.server.tls is not None:
                self.request = self.server.tls.wrap_socket(self.request, server_side=True)
            self.request.recv(1000)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.request.recv(1000)
        except OSError:
            return  # the client has gone, which is what it should do


@pytest.mark.parametrize(
    ("tls", "client", "why", "fix"),
    [
        pytest.param(True, "certificate", "it requires a client certificate", "TLS_CLIENT_CERT_PATH", id="mtls"),
        pytest.param(True, "tls", "its certificate is not trusted", "TEMPORAL_TLS_SERVER_CA_CERT_PATH", id="untrusted"),
        pytest.param(True, "name", "its certificate is for another name", "TEMPORAL_TLS_SERVER_NAME", id="name"),
        pytest.param(True, "", "it requires TLS", "TEMPORAL_TLS=true", id="no-tls"),
        pytest.param(False, "tls", "it does not speak TLS", "TEMPORAL_TLS=false", id="tls-to-plain"),
        pytest.param(False, "", "what answers is not Temporal", "TEMPORAL_ADDRESS", id="another-server"),
    ],
)
def test_what_keeps_a_connection_from_coming_about_is_named(
    segue: Segue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: bool, client: str, why: str, fix: str
) -> None:
    authority = Authority.create(tmp_path, "ca")
    pair = authority.server("temporal", ["127.0.0.1"])
    for name, pem in (("cert", pair.cert_pem), ("key", pair.key_pem)):
        (tmp_path / name).write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    context.set_alpn_protocols(["h2"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cert_path)
    if client:
        monkeypatch.setenv("TEMPORAL_TLS", "true")
    if client in {"certificate", "name"}:
        monkeypatch.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", str(authority.cert_path))
    if client == "name":
        monkeypatch.setenv("TEMPORAL_TLS_SERVER_NAME", "another")
    with Answers(context if tls else None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{server.server_address[1]}")
        ran = segue("list")
        server.shutdown()
    assert ran.code == 5 and why in ran.err and fix in ran.err and "segue local up" not in ran.err


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


def test_ctrl_c_while_a_message_is_sent_says_where_to_see_what_became_of_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(SOON_S)
        env = {**os.environ, "TEMPORAL_ADDRESS": f"127.0.0.1:{silent.getsockname()[1]}"}
        command = [sys.executable, "-m", "segue", "pause", "serving/chat"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            silent.accept()
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=SOON_S)
    assert (process.returncode, out) == (130, "")
    assert errors.strip() == "interrupted; `segue status serving/chat` shows whether the rollout took pause"
