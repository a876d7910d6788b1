"""One signed request to a webhook of the worker's settings."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp_retry import ExponentialRetry, RetryClient

from segue import __version__
from segue.errors import Unanswered
from segue.gates.webhook_settings import KEY, SIGNATURE, Webhook, signature

_TRIES = ExponentialRetry(attempts=3, start_timeout=0.2, exceptions={aiohttp.ClientConnectionError})
"""Tries again after a connection error or a 5xx. The key shows the server that it is the same request."""


def trust(webhook: Webhook) -> ssl.SSLContext:
    """Return the authorities that a webhook's certificate may come from.

    Raises:
        OSError, ssl.SSLError: when its ``ca_file`` is unusable.
    """
    return ssl.create_default_context(cafile=webhook.ca_file)


def signing_key(webhook: Webhook) -> bytes:
    """Return the key that signs a webhook's requests.

    Raises:
        OSError: when its file cannot be read.
        Unanswered: when that is empty: anybody could sign with an empty key.
    """
    key = webhook.secret_file.read_bytes().strip()
    if not key:
        raise Unanswered(
            f"has an empty secret_file ({webhook.secret_file}), which must hold the key that signs requests"
        )
    return key


@asynccontextmanager
async def posted(
    webhook: Webhook, body: bytes, key: str, content_type: str = "application/json"
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send one request, and again if the server could not be reached or failed. Redirects are not followed.

    Raises:
        aiohttp.ClientError, OSError, Unanswered: as ``signing_key``.
    """
    key_bytes, trusted = await asyncio.gather(
        asyncio.to_thread(signing_key, webhook), asyncio.to_thread(trust, webhook)
    )
    headers = {
        "Content-Type": content_type,
        "User-Agent": f"segue/{__version__}",
        KEY: key,
        SIGNATURE: signature(key_bytes, body, int(time.time())),
    }
    # Webhooks use no proxy of the worker's environment, and no cookies.
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        RetryClient(session, retry_options=_TRIES) as client,
        client.post(webhook.url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        yield response
