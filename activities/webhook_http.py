"""One signed request to a webhook of the worker's settings."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp_retry import ExponentialRetry, RetryClient

from segue import __version__
from segue.gates.webhook_settings import KEY, SIGNATURE, Webhook, signature

_TRIES = ExponentialRetry(attempts=3, start_timeout=0.2, exceptions={aiohttp.ClientConnectionError})
"""Tries again after a connection error or a 5xx. The key shows the server that it is the same request."""


def trust(webhook: Webhook) -> ssl.SSLContext:
    """Return the authorities that a webhook's certificate may come from.

    Raises:
        OSError, ssl.SSLError: when its ``ca_file`` is unusable.
    """
    return ssl.create_default_context(cafile=webhook.ca_file)


@asynccontextmanager
async def posted(
    webhook: Webhook, body: bytes, key: str, content_type: str = "application/json"
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send one request, and again if the server could not be reached or failed. Redirects are not followed.

    Raises:
        aiohttp.ClientError, OSError.
    """
    secret, trusted = await asyncio.gather(
        asyncio.to_thread(webhook.secret_file.read_bytes), asyncio.to_thread(trust, webhook)
    )
    headers = {
        "Content-Type": content_type,
        "User-Agent": f"segue/{__version__}",
        KEY: key,
        SIGNATURE: signature(secret.strip(), body, int(time.time())),
    }
    # Webhooks use no proxy of the worker's environment, and no cookies.
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        RetryClient(session, retry_options=_TRIES) as client,
        client.post(webhook.url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        yield response
