"""``codec``: serves the decryption of payloads to the Temporal UI and the ``temporal`` command."""

import asyncio
import logging
import signal
import ssl
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from segue.cli.app import OPERATE
from segue.cli.console import say
from segue.cli.options import run_async
from segue.errors import Refused

if TYPE_CHECKING:  # Temporal's library takes a second to load
    from aiohttp import web

    from segue.codec.tokens import Verifier

_Origin = Annotated[
    str, typer.Option(envvar="SEGUE_CODEC_ORIGIN", help="Origin of the Temporal UI: https://temporal.example.com.")
]
_Issuer = Annotated[str, typer.Option(envvar="SEGUE_CODEC_ISSUER", help="Issuer (`iss`) of the tokens.")]
_Audience = Annotated[str, typer.Option(envvar="SEGUE_CODEC_AUDIENCE", help="Audience (`aud`) of the tokens.")]
_Jwks = Annotated[
    str, typer.Option(envvar="SEGUE_CODEC_JWKS", help="The issuer's public keys: an https:// address, or a file.")
]
_Listen = Annotated[str, typer.Option(envvar="SEGUE_CODEC_LISTEN", help="Listen on this host:port.")]
_Cert = Annotated[str, typer.Option(envvar="SEGUE_CODEC_TLS_CERT", help="File of the certificate, for HTTPS.")]
_Key = Annotated[str, typer.Option(envvar="SEGUE_CODEC_TLS_KEY", help="File of its private key.")]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel=OPERATE)(codec)


def codec(
    origin: _Origin,
    issuer: _Issuer,
    audience: _Audience,
    jwks: _Jwks,
    listen: _Listen = "127.0.0.1:8234",
    tls_cert: _Cert = "",
    tls_key: _Key = "",
) -> None:
    """Decrypt what rollouts store in Temporal, for the Temporal UI and the `temporal` command.

    It answers only to tokens of the issuer for the audience. SEGUE_ENCRYPTION_KEYS names the file of the keys.

    Example: segue codec --origin https://temporal.example.com --issuer https://login.example.com --audience segue-codec --jwks https://login.example.com/keys
    """  # noqa: E501 - one line to copy
    from segue.codec import SETTING, configured  # noqa: PLC0415
    from segue.codec.server import make_app  # noqa: PLC0415
    from segue.codec.tokens import Verifier, is_loopback, loader  # noqa: PLC0415

    found = configured()
    if not found.encrypts:
        raise Refused("is not set", field=SETTING, fix="set it to the file of the keys: see docs/encryption.md")
    refuse_origin(origin)
    tls = _tls(tls_cert, tls_key)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    if tls is None and not is_loopback(listen.rpartition(":")[0].strip("[]")):
        say(f"warning: {listen}: decrypted data leaves this machine without TLS; set --tls-cert and --tls-key")
    verifier = Verifier(loader(jwks), issuer=issuer, audience=audience)
    run_async(_serve(make_app(found, verifier, origin), verifier, listen, tls))


def refuse_origin(origin: str) -> None:
    """Refuse an origin that no browser sends.

    Raises:
        Refused: naming the option, the value and the fix.
    """
    parts = urlsplit(origin)
    if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin or not parts.hostname:
        raise Refused(
            "is not an origin", field="--origin", value=origin, fix="write scheme and host, without a path or slash"
        )


def _tls(cert: str, key: str) -> ssl.SSLContext | None:
    if not cert and not key:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        fix = "name a certificate and its private key, both as PEM"
        raise Refused(f"cannot be used: {error}", field="--tls-cert", value=cert, fix=fix) from error
    return context


async def _serve(app: "web.Application", verifier: "Verifier", listen: str, tls: ssl.SSLContext | None) -> None:
    from segue.codec.server import serving  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await verifier.start()
    async with serving(app, listen, tls) as address:
        say(f"decodes at {address}")
        await stop.wait()
