"""Connects to Temporal: its address, certificates and keys, and clear errors when they are wrong."""

import asyncio
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from temporalio.client import Client, Plugin
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, TLSConfig

from segue.codec import data_converter
from segue.errors import Refused, Unreachable
from segue.tracing import Traced

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_S = 5.0


async def connect(
    *, timeout_s: float = CONNECT_S, runtime: Runtime | None = None, plugins: Sequence[Plugin] = (),
    identity: str | None = None,
) -> Client:  # fmt: skip
    """Connect to the Temporal server that the variables ``TEMPORAL_*``, or a profile file, give.

    Temporal records the ``identity`` with each request; by default it names the process and its host.

    Raises:
        Refused: when the profile, a certificate, a key or the file of the encryption keys cannot be read or used.
        Unreachable: when no Temporal server answers at its address within ``timeout_s``.
    """
    config, converter = _profile(), data_converter()
    address = config.setdefault("target_host", DEFAULT_ADDRESS)
    _refuse_address(address)
    try:
        async with asyncio.timeout(timeout_s):
            return await Client.connect(
                **config,
                data_converter=converter,
                plugins=plugins,
                interceptors=[Traced()],
                identity=identity,
                connect_timeout=timedelta(seconds=timeout_s),
                # The library's own warnings belong in a worker's log, not on a terminal.
                runtime=runtime or Runtime(telemetry=TelemetryConfig(logging=None)),
            )
    except (RuntimeError, OSError, RPCError, ValueError) as error:
        unusable = next((field for sign, field in _UNUSABLE.items() if sign in str(error)), None)
        if unusable is not None:
            raise Refused(unusable.why, field=unusable.name, fix=unusable.fix) from error
        why, fix = _connect_reason(error, _shown_by(config))
        if _PORTLESS.fullmatch(address):
            fix = f"add the port to TEMPORAL_ADDRESS, such as {address}:7233"
        raise Unreachable(f"Temporal does not answer at {address} ({why})", fix=fix) from error


_PORTLESS = re.compile(r"\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+")
_ADDRESS = re.compile(rf"({_PORTLESS.pattern})(:[0-9]{{1,5}})?")
"""Without a port, it is the one of HTTP or HTTPS."""


def _refuse_address(address: str) -> None:
    """Refuse what no connection can be opened to: the library's error does not tell that nobody was asked."""
    if _ADDRESS.fullmatch(address):
        return
    fix = f"write HOST:PORT, such as {DEFAULT_ADDRESS}, or [::1]:7233"
    if "://" in address:
        raise Refused("is a URL", field="TEMPORAL_ADDRESS", value=address, fix=f"{fix}; TEMPORAL_TLS=true turns TLS on")
    raise Refused("is not an address", field="TEMPORAL_ADDRESS", value=address, fix=fix)


def namespace() -> str:
    """Return the Temporal namespace that the variables ``TEMPORAL_*``, or a profile file, give.

    Raises:
        Refused: when the profile cannot be read.
    """
    return _profile().get("namespace") or "default"


def credentials() -> tuple[object, ...]:
    """Return what authenticates clients by now, to compare it: the API key, and the contents of the TLS files.

    Raises:
        Refused: when the profile, or a file, cannot be read.
    """
    config = _profile()
    return config.get("api_key"), config.get("tls")


class _Shown(StrEnum):
    """How a client identifies itself, as far as errors depend on it."""

    PLAIN = "no TLS"
    TLS = "TLS without a client certificate"
    CERTIFICATE = "TLS with a client certificate"


def _shown_by(config: ClientConnectConfig) -> _Shown:
    tls = config.get("tls")
    if isinstance(tls, TLSConfig) and tls.client_cert:
        return _Shown.CERTIFICATE
    # An API key turns TLS on, unless the configuration turns it off.
    return _Shown.TLS if tls or (tls is None and config.get("api_key")) else _Shown.PLAIN


def _profile() -> ClientConnectConfig:
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as error:
        for name in _FILES:
            _check_readable(name)
        named = "TEMPORAL_PROFILE" if str(error).startswith("Profile ") else "TEMPORAL_CONFIG_FILE"
        raise Refused(
            f"Temporal's connection profile cannot be read: {error}",
            field=named,
            fix="correct the file, or unset TEMPORAL_PROFILE and TEMPORAL_CONFIG_FILE",
        ) from error
    if not config.get("api_key"):
        config.pop("api_key", None)  # an empty variable is no key
    return config


_CERT, _KEY_FILE = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"
_FILES = ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", _CERT, _KEY_FILE)


def _check_readable(name: str) -> None:
    """Raise ``Refused`` if a variable names a file that cannot be read: the library's error does not name it."""
    path = os.environ.get(name)
    if path is None:
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        fix = "set it to the path of a PEM file, or unset it"
        raise Refused(f"cannot be read: {error.strerror}", field=name, value=path, fix=fix) from error


class _Field(NamedTuple):
    """A setting that cannot be used: its name, why, and the fix."""

    name: str
    why: str
    fix: str


_UNUSABLE = {
    "Must have both client cert": _Field(f"{_CERT} and {_KEY_FILE}", "only one of them is set", "set both, or neither"),
    "NoCertificatesPresented": _Field(_CERT, "holds no certificate", "set it to a certificate in a PEM file"),
    "PrivateKeyParseError": _Field(_KEY_FILE, "holds no private key", "set it to the certificate's key in a PEM file"),
    "InconsistentKeys": _Field(
        _KEY_FILE, f"holds another key than that of the certificate in {_CERT}", "set both to files of one pair"
    ),
}
"""The setting that cannot be used, by a fragment of the library's text."""


_START = "start a local one with `segue local up`, or set TEMPORAL_ADDRESS to yours"
_KEY = "check TEMPORAL_API_KEY and TEMPORAL_NAMESPACE: the key may have expired, or be for another namespace"
_CERTIFICATE = f"set {_CERT} and {_KEY_FILE} to one that it accepts"
_RENEW = "renew the certificate of TEMPORAL_TLS_CLIENT_CERT_PATH"
_CLOSED = (
    "ConnectionReset", "BrokenPipe", "connection closed", "connection was not ready", "UnexpectedEof",
    "operation was canceled",
)  # fmt: skip
_CONNECT_REASONS = {
    "Connection refused": ("connection refused", _START),
    "dns error": ("its host name is not known", _START),
    "CertificateRequired": ("it requires a client certificate", _CERTIFICATE),
    "alert: CertificateExpired": ("the client certificate has expired", _RENEW),
    "fatal alert": ("it does not accept the client certificate", _CERTIFICATE),
    "InvalidCertificate(NotValidForName": (
        "its certificate is for another name",
        "set TEMPORAL_TLS_SERVER_NAME to the name in its certificate",
    ),
    "InvalidCertificate(Expired": (
        "its certificate has expired",
        "renew the server's certificate; if it is still valid, correct this machine's clock",
    ),
    "InvalidCertificate(NotValidYet": (
        "its certificate is not valid yet",
        "correct this machine's clock, or the server's certificate",
    ),
    "InvalidCertificate": (
        "its certificate is not trusted",
        "set TEMPORAL_TLS_SERVER_CA_CERT_PATH to the certificate of its authority",
    ),
    "InvalidContentType": (
        "it does not speak TLS",
        "set TEMPORAL_TLS=false; an API key or a certificate turns TLS on",
    ),
    "Unauthenticated": ("the API key is not accepted", _KEY),
    "PermissionDenied": ("the API key is not accepted", _KEY),
}
"""The reason and the fix, by a fragment of the library's text; the first match counts."""


_CLOSE_REASONS = {
    _Shown.PLAIN: (
        "it closed the connection: perhaps it requires TLS, or what answers is not Temporal",
        "set TEMPORAL_TLS=true, or TEMPORAL_ADDRESS to a Temporal server",
    ),
    _Shown.TLS: ("it closed the connection: perhaps it requires a client certificate", _CERTIFICATE),
    _Shown.CERTIFICATE: (
        "it closed the connection: perhaps it does not accept the client certificate",
        "check that the certificate of TEMPORAL_TLS_CLIENT_CERT_PATH has not expired, and that the server trusts its "
        "authority",
    ),
}


def _connect_reason(error: Exception, shown_by: _Shown) -> tuple[str, str]:
    """Return the reason and the fix: the library's own text is a nested dump with response headers."""
    text = str(error)
    if isinstance(error, TimeoutError) or "timed out" in text or "deadline" in text:
        return "no answer in time", _START
    known = next((reason for sign, reason in _CONNECT_REASONS.items() if sign in text), None)
    if known is not None:
        return known
    if any(sign in text for sign in _CLOSED):  # a TLS server can send its reason too late to be read
        return _CLOSE_REASONS[shown_by]
    return "what answers is not Temporal", "set TEMPORAL_ADDRESS to a Temporal server, and TEMPORAL_TLS as it requires"
