"""Checks the bearer tokens of the codec server: JSON Web Tokens of one issuer, for one audience."""

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt

from segue.errors import Denied, Refused

log = logging.getLogger("segue.codec")

ALGORITHMS = frozenset(f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)) | {"EdDSA"}
"""Signatures by a private key. A shared secret could sign what the server should only check."""
CLOCK_SKEW_S = 30
REFRESH_S = 600.0
"""The keys are loaded again after this time, so that a withdrawn key ends."""
MIN_REFRESH_S = 30.0
"""A token with an unknown key causes at most one load in this time."""
FETCH_S = 5.0
MAX_JWKS_BYTES = 1 << 20


Load = Callable[[], Awaitable[bytes]]


class Verifier:
    """Verifies tokens with the keys of one JSON Web Key Set."""

    def __init__(self, load: Load, *, issuer: str, audience: str) -> None:
        self._load, self._issuer, self._audience = load, issuer, audience
        self._keys: dict[str, jwt.PyJWK] = {}
        self._loaded_at = float("-inf")
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Load the keys.

        Raises:
            Refused: when they cannot be loaded.
        """
        self._keys, self._loaded_at = read_keys(await self._load()), time.monotonic()

    async def verified(self, token: str) -> dict[str, Any]:
        """Return the claims of a token.

        Raises:
            Denied: when it is not a token of the issuer for the audience, or it is expired.
        """
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=[key.algorithm_name], issuer=self._issuer, audience=self._audience,
                leeway=CLOCK_SKEW_S, options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Denied(f"the token is not accepted: {error}") from error
        except UnicodeError as error:  # a header may have any bytes
            raise Denied("the token is not accepted: it is not a JSON Web Token") from error
        return claims

    async def _key(self, key_id: Any) -> jwt.PyJWK:
        async with self._lock:
            age = time.monotonic() - self._loaded_at
            if age > REFRESH_S or (key_id not in self._keys and age > MIN_REFRESH_S):
                await self._refresh()
        if not isinstance(key_id, str) or key_id not in self._keys:
            raise Denied("the token is not accepted: its key (`kid`) is not one of the issuer")
        return self._keys[key_id]

    async def _refresh(self) -> None:
        try:
            await self.start()
        except Refused as error:
            self._loaded_at = time.monotonic() - REFRESH_S + MIN_REFRESH_S  # try again soon
            log.warning("the issuer's keys cannot be loaded, the former ones stay: %s", error)


def read_keys(content: bytes) -> dict[str, jwt.PyJWK]:
    """Return the keys of a JSON Web Key Set by their id; those that cannot verify signatures are left out.

    Raises:
        Refused: when it is not such a set, or has no key that can be used.
    """
    try:
        found = jwt.PyJWKSet.from_dict(json.loads(content))
    except (jwt.PyJWTError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise Refused("is not a JSON Web Key Set", field="--jwks", fix="name the issuer's `jwks_uri`") from error
    keys = {key.key_id: key for key in found.keys if key.key_id and key.algorithm_name in ALGORITHMS}
    if not keys:
        why = "has no key with a `kid` for one of RS, PS, ES or EdDSA"
        raise Refused(why, field="--jwks", fix="name the issuer's `jwks_uri`")
    return keys


def loader(place: str) -> Load:
    """Return what loads the keys from a file, or from an address by HTTPS.

    Raises:
        Refused: for an address that is not HTTPS, except on this machine: whoever answers there could sign tokens.
    """
    if "://" not in place:
        return lambda: _from_file(place)
    parts = urlsplit(place)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise Refused("is not HTTPS", field="--jwks", value=place, fix="use the https:// address of the issuer's keys")
    return lambda: _from_address(place)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _from_file(path: str) -> bytes:
    try:
        return await asyncio.to_thread(Path(path).read_bytes)
    except OSError as error:
        fix = "name a file that this process may read, or an https:// address"
        raise Refused(f"cannot be read: {error.strerror}", field="--jwks", value=path, fix=fix) from error


async def _from_address(url: str) -> bytes:
    try:
        timeout = aiohttp.ClientTimeout(total=FETCH_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            content = await _bounded(answer.content)
            if answer.status == 200 and len(content) <= MAX_JWKS_BYTES:
                return content
            why = f"answers with status {answer.status}, and {len(content):,} bytes"
    except (aiohttp.ClientError, TimeoutError) as error:
        why = f"does not answer: {str(error) or 'no answer in time'}"
    raise Refused(why, field="--jwks", value=url, fix="check the address of the issuer's keys")


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    content = b""
    async for part in stream.iter_any():
        content += part
        if len(content) > MAX_JWKS_BYTES:
            break
    return content
