"""A proxy between workers and the API server that delays, refuses, loses answers, and cuts or delays watches.

It runs in a thread with a loop of its own: nothing that blocks the player disturbs the workers. It counts their writes.
"""

import asyncio
import base64
import contextlib
import logging
import random
import re
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-encoding", "content-length", "host"}
_REFUSALS = {"api-errors": (500, 503), "api-throttles": (429,), "api-conflicts": (409,)}
_SHARE = 0.4
"""The share of requests that a disturbance meets."""


class ApiProxy:
    """Forwards to the API server as a worker's user, with what the weather does to the requests."""

    def __init__(self, kubeconfig: Path, folder: Path, seed: int) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self._to = cluster["server"]
        self._tls = _tls(cluster, user)
        self._dice = random.Random(seed)
        self.weather: set[str] = set()
        """What it does now; another thread changes it."""
        self.writes: list[tuple[str, str]] = []
        """(method, path) of each write that the API server accepted."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30), "the proxy does not start"
        plain = {"clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                 "users": [{"name": "u", "user": {}}], "current-context": "x",
                 "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}  # fmt: skip
        self.kubeconfig = folder / f"through-weather-{self.port}.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **plain}))

    def close(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout=10)
        self.kubeconfig.unlink(missing_ok=True)

    def written(self, namespace: str, name: str) -> int:
        """Return the number of writes of the objects of a target: they have its name, or names that begin with it."""
        own = re.compile(rf"/namespaces/{namespace}/.*/{name}(?![a-z0-9])")
        return sum(own.search(path) is not None for _, path in list(self.writes))

    async def _serve(self) -> None:
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            runner = web.AppRunner(_app(self._handle), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._end.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        refused = await self._disturb(request)
        if refused is not None:
            return refused
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        url, body = self._to + request.raw_path, await request.read()
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, timeout=timeout
            ) as answer:
                self._count(request, answer.status)
                if request.method in _WRITES and "api-loses-answers" in self.weather and self._meets():
                    return _cut(request)
                return await self._forward(request, answer)
        except (aiohttp.ClientError, OSError):
            return _cut(request)

    async def _disturb(self, request: web.Request) -> web.StreamResponse | None:
        if "api-slow" in self.weather:
            await asyncio.sleep(self._dice.uniform(0, 2))
        for what, codes in _REFUSALS.items():
            is_met = what != "api-conflicts" or request.method in {"PUT", "PATCH"}
            if what in self.weather and is_met and self._meets():
                return _refusal(self._dice.choice(codes))
        return None

    def _meets(self) -> bool:
        return self._dice.random() < _SHARE

    def _count(self, request: web.Request, status: int) -> None:
        if request.method in _WRITES and status < 300 and "dryRun" not in request.query_string:
            self.writes.append((request.method, request.path))

    async def _forward(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP or k.lower() == "content-encoding"}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        is_watch = request.query.get("watch", "").lower() == "true"
        async for chunk in answer.content.iter_any():
            if is_watch and "watches-cut" in self.weather and self._meets():
                return _cut(request, response)
            if is_watch and "watches-late" in self.weather:  # as from an API server whose cache lags
                await asyncio.sleep(self._dice.uniform(0, 3))
            await response.write(chunk)
        await response.write_eof()
        return response


def _app(handle: Any) -> web.Application:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=502)


def _refusal(code: int) -> web.Response:
    reason = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}[code]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
              "message": f"the weather: {reason}"}  # fmt: skip
    return web.json_response(status, status=code, headers={"Retry-After": "1"} if code == 429 else {})


def _tls(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as pair:
        parts = ("client-certificate-data", "client-key-data")
        pair.write(b"\n".join(base64.b64decode(user[part]) for part in parts))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context


@contextlib.contextmanager
def api_proxy(kubeconfig: Path, folder: Path, seed: int) -> Iterator[ApiProxy]:
    """Yield a proxy to a kubeconfig's API server."""
    proxy = ApiProxy(kubeconfig, folder, seed)
    try:
        yield proxy
    finally:
        proxy.close()
