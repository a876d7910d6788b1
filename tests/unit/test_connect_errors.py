"""Why no connection to Temporal comes about: each of the library's texts becomes one cause with its own fix."""

import os
from pathlib import Path

import pytest
from segue_local.certs import Authority
from temporalio.envconfig import ClientConnectConfig
from temporalio.service import TLSConfig

from segue.connection import _connect_reason, _profile, _Shown, _shown_by, connect
from segue.errors import Refused

CLOSED = (
    'Status { code: Cancelled, message: "operation was canceled", source: hyper::Error(Canceled, "connection closed") }'
)
BROKEN = (
    'Status { code: Unknown, source: Custom { kind: BrokenPipe, error: "stream closed because of a broken pipe" } }'
)
"""What a server in Go that requires client certificates causes, depending on which side is faster."""


def alert(name: str) -> str:
    return f'Custom {{ kind: InvalidData, error: "received fatal alert: {name}" }}'


def certificate(name: str) -> str:
    return f"ConnectError(Custom {{ kind: InvalidData, error: InvalidCertificate({name}) }})"


@pytest.mark.parametrize(
    ("text", "shown_by", "why", "fix"),
    [
        (CLOSED, _Shown.TLS, "requires a client certificate", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        (BROKEN, _Shown.TLS, "requires a client certificate", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        (alert("CertificateRequired"), _Shown.TLS, "requires a client certificate", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        (CLOSED, _Shown.CERTIFICATE, "does not accept the client certificate", "the server trusts its authority"),
        (
            alert("CertificateExpired"),
            _Shown.CERTIFICATE,
            "client certificate has expired",
            "renew the certificate of T",
        ),
        (alert("UnknownCA"), _Shown.CERTIFICATE, "does not accept the client certificate", "one that it accepts"),
        (CLOSED, _Shown.PLAIN, "requires TLS, or what answers is not Temporal", "TEMPORAL_TLS=true"),
        (certificate("Expired"), _Shown.TLS, "its certificate has expired", "renew the server's certificate"),
        (certificate("ExpiredContext { time: 1 }"), _Shown.TLS, "its certificate has expired", "machine's clock"),
        (certificate("NotValidYet"), _Shown.TLS, "is not valid yet", "correct this machine's clock"),
        (certificate("NotValidForName"), _Shown.TLS, "is for another name", "TEMPORAL_TLS_SERVER_NAME"),
        (certificate("UnknownIssuer"), _Shown.TLS, "is not trusted", "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        ("Status { code: Unauthenticated }", _Shown.TLS, "the API key is not accepted", "check TEMPORAL_API_KEY"),
        ("Status { code: PermissionDenied }", _Shown.TLS, "the API key is not accepted", "check TEMPORAL_API_KEY"),
    ],
)
def test_each_cause_names_its_own_fix(text: str, shown_by: _Shown, why: str, fix: str) -> None:
    reason = _connect_reason(RuntimeError(text), shown_by)
    assert why in reason[0] and fix in reason[1] and "segue local up" not in reason[1]


@pytest.mark.parametrize(
    ("config", "shown_by"),
    [
        ({}, _Shown.PLAIN),
        ({"tls": False, "api_key": "k"}, _Shown.PLAIN),
        ({"api_key": "k"}, _Shown.TLS),
        ({"tls": True}, _Shown.TLS),
        ({"tls": TLSConfig(server_root_ca_cert=b"c")}, _Shown.TLS),
        ({"tls": TLSConfig(client_cert=b"c", client_private_key=b"k")}, _Shown.CERTIFICATE),
    ],
)
def test_how_a_client_shows_who_it_is(config: ClientConnectConfig, shown_by: _Shown) -> None:
    assert _shown_by(config) is shown_by


CERTIFICATE, KEY = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No settings but what a test makes; nothing listens at the address."""
    for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "no-profile.toml"))
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:9")
    return monkeypatch


@pytest.mark.parametrize("name", ["TEMPORAL_TLS_SERVER_CA_CERT_PATH", CERTIFICATE, KEY])
@pytest.mark.parametrize("path", ["/no/such/file", ""])
def test_a_file_that_cannot_be_read_is_named(settings: pytest.MonkeyPatch, name: str, path: str) -> None:
    """The library tells only of the path, or of a folder `.` if the variable is empty."""
    settings.setenv(name, path)
    with pytest.raises(Refused) as met:
        _profile()
    assert (met.value.field, met.value.value) == (name, path) and "unset it" in met.value.fix


async def test_files_that_cannot_be_used_are_named(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found before anything is sent."""
    authority = Authority.create(tmp_path, "ca")
    files = {name: tmp_path / name for name in ("certificate", "key", "other-key", "text")}
    pair = authority.client("segue")
    contents = (pair.cert_pem, pair.key_pem, authority.client("other").key_pem, b"text")
    for path, content in zip(files.values(), contents, strict=True):
        path.write_bytes(content)
    for cert, key, field, why in (
        ("certificate", "", f"{CERTIFICATE} and {KEY}", "only one of them is set"),
        ("", "key", f"{CERTIFICATE} and {KEY}", "only one of them is set"),
        ("text", "key", CERTIFICATE, "holds no certificate"),
        ("certificate", "text", KEY, "holds no private key"),
        ("certificate", "other-key", KEY, "another key"),
    ):
        for name, file in ((CERTIFICATE, cert), (KEY, key)):
            settings.setenv(name, str(files[file])) if file else settings.delenv(name, raising=False)
        with pytest.raises(Refused, match=why) as met:
            await connect()
        assert met.value.field == field


def test_an_empty_variable_is_no_key(settings: pytest.MonkeyPatch) -> None:
    """An empty bearer token is refused, also for what needs no token."""
    settings.setenv("TEMPORAL_API_KEY", "")
    assert "api_key" not in _profile()
