"""The codec server, over HTTP on this machine: who may ask, from where, and how much."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from segue.cli.codec import refuse_origin
from segue.codec import SETTING, configured, server, tokens
from segue.codec.server import make_app, serving
from segue.codec.tokens import Verifier, loader
from segue.errors import Refused

ORIGIN, ISSUER, AUDIENCE = "https://temporal.example.com", "https://login.example.com", "segue-codec"
OURS, THEIRS = (rsa.generate_private_key(65537, 2048) for _ in range(2))
PLAIN = {"payloads": [{"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": "InBsYW50ZWQi"}]}


def jwks(**keys: rsa.RSAPrivateKey) -> str:
    return json.dumps(
        {"keys": [{**RSAAlgorithm.to_jwk(k.public_key(), as_dict=True), "kid": n} for n, k in keys.items()]}
    )


def token(key: Any = OURS, kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
    known = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 600, **claims}
    present = {name: value for name, value in known.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers={"kid": kid} if kid else None)


class Served:
    """A running server."""

    def __init__(self, session: aiohttp.ClientSession, address: str, keys: Path) -> None:
        self.session, self.address, self.keys = session, address, keys

    async def ask(
        self, path: str = "/decode", body: Any = PLAIN, *, bearer: str | None = None, **headers: str
    ) -> tuple[int, Any, Any]:
        """Return status, JSON or text, and headers."""
        sent = {"Authorization": f"Bearer {bearer or token()}", "Content-Type": "application/json", **headers}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.address + path, data=data, headers=sent) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.text()), answer.headers


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    keys, public = tmp_path / "keys.toml", tmp_path / "jwks.json"
    keys.write_text(f'current = "a"\n[keys]\na = "{base64.b64encode(bytes(32)).decode()}"\n')
    public.write_text(jwks(one=OURS))
    monkeypatch.setenv(SETTING, str(keys))
    verifier = Verifier(loader(str(public)), issuer=ISSUER, audience=AUDIENCE)
    await verifier.start()
    app = make_app(configured(), verifier, ORIGIN)
    async with serving(app, "127.0.0.1:0", None) as address, aiohttp.ClientSession() as session:
        yield Served(session, address, public)


async def test_it_encrypts_and_decrypts(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    status, sealed, _ = await served.ask("/encode")
    assert status == 200 and sealed != PLAIN
    status, opened, headers = await served.ask("/decode", sealed, Origin=ORIGIN)
    assert (status, opened) == (200, PLAIN)
    assert headers["Access-Control-Allow-Origin"] == ORIGIN and headers["Cache-Control"] == "no-store"
    assert "/decode: 1 payloads for 'ann'" in caplog.text and "planted" not in caplog.text


@pytest.mark.parametrize(
    "bearer",
    [
        pytest.param(token(THEIRS), id="another key"),
        pytest.param(token(kid="two"), id="an unknown key id"),
        pytest.param(token(kid=None), id="no key id"),
        pytest.param(token(iss="https://evil.example.com"), id="another issuer"),
        pytest.param(token(aud="another"), id="another audience"),
        pytest.param(token(aud=None), id="no audience"),
        pytest.param(token(exp=time.time() - 3600), id="expired"),
        pytest.param(token(exp=None), id="without an end"),
        pytest.param(token(sub=None), id="without a subject"),
        pytest.param(token("x" * 32, algorithm="HS256"), id="a shared secret"),
        pytest.param(token(None, algorithm="none"), id="unsigned"),
        pytest.param("nonsense", id="no token"),
    ],
)
async def test_another_token_is_denied(served: Served, bearer: str) -> None:
    status, text, headers = await served.ask(bearer=bearer)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "the token is not accepted" in text["message"]


async def test_any_bytes_as_a_token_are_denied(served: Served) -> None:
    reader, writer = await _opened(served.address)
    writer.write(b"POST /decode HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xe9.x.y\r\nContent-Length: 0\r\n\r\n")
    assert b" 401 " in await reader.readline()
    writer.close()


async def test_who_sends_no_token_is_denied(served: Served) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Basic YTpi"}):
        status, text, _ = await served.ask(**headers)
        assert status == 401 and "a token is needed" in text["message"]


async def test_a_browser_is_let_in_from_one_origin(served: Served) -> None:
    """Not from another, even with a token; the preflight tells so before the token is sent."""
    for origin, allowed in ((ORIGIN, True), ("https://evil.example.com", False), ("null", False)):
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with served.session.options(served.address + "/decode", headers=preflight) as answer:
            assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (
                (204, ORIGIN) if allowed else (403, None)
            )
            given = answer.headers.get("Access-Control-Allow-Headers", "").split(",")
            assert not allowed or {"authorization", "authorization-extras", "content-type", "x-namespace"} <= {*given}
        status, _, headers = await served.ask(Origin=origin)
        assert (status == 200, "Access-Control-Allow-Origin" in headers) == (allowed, allowed)


async def test_requests_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await served.ask(body=b"[" * 100_000))[0] == 400
    assert (await served.ask(body={"events": []}))[0] == 400
    assert (await served.ask(**{"Content-Type": "text/plain"}))[0] == 415
    assert (await served.ask(body=b" " * (server.MAX_BYTES + 1)))[0] == 413
    monkeypatch.setattr(server, "BODY_S", 0.05)
    reader, writer = await _opened(served.address)
    writer.write(
        f"POST /decode HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\nContent-Type: application/json\r\n"
        "Content-Length: 10\r\n\r\n{".encode()
    )
    assert b" 408 " in await reader.readline()
    writer.close()


async def _opened(address: str) -> Any:
    host, port = address.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def test_a_missing_key_is_named(served: Served) -> None:
    encoding, key_id = (base64.b64encode(each).decode() for each in (b"binary/encrypted", b"2025"))
    sealed = {"payloads": [{"metadata": {"encoding": encoding, "encryption-key-id": key_id}, "data": "AAAA"}]}
    status, text, _ = await served.ask(body=sealed)
    assert status == 422 and "has no key 2025" in text["message"]


async def test_the_issuers_keys_are_loaded_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key counts when it is used; a withdrawn one ends; a file that is gone for a moment changes nothing."""
    served.keys.write_text(jwks(two=THEIRS))
    assert (await served.ask(bearer=token(THEIRS, "two")))[0] == 401, "it was loaded a moment ago"
    monkeypatch.setattr(tokens, "MIN_REFRESH_S", 0.0)
    assert (await served.ask(bearer=token(THEIRS, "two")))[0] == 200
    assert (await served.ask())[0] == 401
    served.keys.unlink()
    monkeypatch.setattr(tokens, "REFRESH_S", 0.0)
    assert (await served.ask(bearer=token(THEIRS, "two")))[0] == 200


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "is not a JSON Web Key Set"),
        ("{", "is not a JSON Web Key Set"),
        ("[" * 100_000, "is not a JSON Web Key Set"),
        ('{"keys": []}', "is not a JSON Web Key Set"),
        ('{"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]}', "has no key with a `kid` for one of RS, PS"),
    ],
)
def test_keys_that_cannot_verify_are_refused(content: str, why: str) -> None:
    with pytest.raises(Refused, match=f"^--jwks: {why}"):
        tokens.read_keys(content.encode())


async def test_the_keys_come_only_from_a_trusted_place(served: Served, tmp_path: Path) -> None:
    """By HTTPS, or from this machine; a redirect is not followed."""
    for url in ("http://login.example.com/keys", "ftp://localhost/keys"):
        with pytest.raises(Refused, match="is not HTTPS; use the https:// address"):
            loader(url)
    with pytest.raises(Refused, match="answers with status 404"):
        await loader(f"{served.address}/nothing")()
    with pytest.raises(Refused, match="cannot be read: No such file"):
        await loader(str(tmp_path / "none"))()


@pytest.mark.parametrize("origin", ["*", "", "temporal.example.com", f"{ORIGIN}/", "null", "file://x"])
def test_an_origin_is_scheme_and_host(origin: str) -> None:
    with pytest.raises(Refused, match=r"^--origin: .*is not an origin"):
        refuse_origin(origin)


async def test_an_address_that_is_taken_is_refused(served: Served) -> None:
    taken = served.address.removeprefix("http://")
    for address in (taken, "127.0.0.1", "127.0.0.1:99999"):
        with pytest.raises(Refused, match=r"^--listen: .*cannot be used"):
            async with serving(web.Application(), address, None):
                pass
