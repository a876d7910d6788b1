"""Why no connection to Temporal comes about: each of the library's texts becomes one cause with its own fix."""

import pytest
from temporalio.envconfig import ClientConnectConfig
from temporalio.service import TLSConfig

from segue.client import _connect_reason, _Shown, _shown_by

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
    told = _connect_reason(RuntimeError(text), shown_by)
    assert why in told[0] and fix in told[1] and "segue local up" not in told[1]


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
