"""Sends requests to pods: to the pod's own address, or through the API server's proxy if that is unreachable.

A reply distinguishes a pod that answers, a pod that does not, and a request that could not be sent: a missing right or
an unavailable API server is not the pod's fault.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import aiohttp

from activities.cluster import Cluster
from activities.probes.base import ProbeRequest
from activities.standstill import STOOD_S, standstill_during
from segue.errors import NotAllowed, SegueError
from segue.gates.serving_answers import Reply, bounded
from segue.replica import Replica
from segue.spec.serving import Port

Access = Literal["auto", "direct", "proxy"]
T = TypeVar("T")

CONNECTIONS = 256
"""The most connections to pods. Where they are all in use, the wait for one would count as time to answer."""
AT_ONCE = 16
"""The most requests to pods of one target at one time, and the most that a worker begins at one time."""
QUICK_S = 1.0
"""After this time, a request no longer keeps others of its worker from beginning: waiting costs nothing."""
_BROKEN = re.compile(r"\b400, message[:=] ?")
"""What aiohttp says of every answer that is not valid HTTP; the server may have answered 200."""
_UNREACHED = "error trying to reach service: "
"""What the API server writes before the reason for which its proxy got no answer (apimachinery, util/proxy)."""
_TUNNEL = re.compile(r"No agent available|tunnel (?:is )?closed")
"""Where the API server reaches nodes by a tunnel (konnectivity): the tunnel fails, and no pod was asked."""
_RIGHTS = "grant the worker deploy/rbac-serving.yaml's role in this namespace, or set SEGUE_POD_ACCESS=direct"


class PodEndpoint(NamedTuple):
    """The destination of a request: always a port of a pod, never another address."""

    namespace: str
    replica: Replica
    port: Port
    scheme: str = "http"

    @property
    def number(self) -> int:
        """Return the port's number.

        Raises:
            LookupError: if no container has a port of that name.
        """
        if isinstance(self.port, int):
            return self.port
        named = dict(self.replica.ports)
        if self.port not in named:
            raise LookupError(f"no container has a port named {self.port!r}; its ports: {', '.join(named) or 'none'}")
        return named[self.port]


class RequestTurns:
    """Limits how many requests a worker begins at one time.

    A pod that takes long to answer, or never does, delays no request to pods of other rollouts.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    async def take(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Wait for a turn, and return the answer."""
        async with self._free:
            asking = asyncio.ensure_future(ask())
            try:
                await asyncio.wait({asking}, timeout=QUICK_S)
            except asyncio.CancelledError:
                asking.cancel()
                raise
        return await asking


class Reach(Protocol):
    """A way to send requests to pods."""

    async def ask(self, place: PodEndpoint, request: ProbeRequest, headers: dict[str, str], timeout_s: float) -> Reply:
        """Send one request, and return the reply. A pod that does not answer raises no error."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def reach_of(access: Access, cluster: Cluster) -> Reach:
    """Return the way to pods: ``auto`` is direct inside a cluster, and through the API server from outside."""
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    return DirectReach() if access == "direct" or (access == "auto" and in_cluster) else ProxyReach(cluster)


class DirectReach:
    """Sends requests to the pod's own address."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Each request opens its own connection: a kept one may lead to a pod that is gone. No proxy from the
            # environment is used, and no redirect is followed.
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, force_close=True, ssl=False)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def ask(self, place: PodEndpoint, request: ProbeRequest, headers: dict[str, str], timeout_s: float) -> Reply:
        """Send one request to the pod's address."""
        address = place.replica.address
        if not address:
            return Reply(unsent="the pod has no address yet")
        try:
            host = f"[{address}]" if ":" in address else address
            url = f"{place.scheme}://{host}:{place.number}{request.path}"
        except LookupError as error:
            return Reply(trouble=str(error))
        sent, body = {**headers, **content_type(request)}, encoded(request)

        def send() -> Any:
            return self._opened().request(request.method, url, headers=sent, data=body, allow_redirects=False)

        return await timed(send, request, timeout_s)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class ProxyReach:
    """Sends requests through the API server: slower, and without ``Authorization``, which it does not forward."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def ask(self, place: PodEndpoint, request: ProbeRequest, headers: dict[str, str], timeout_s: float) -> Reply:
        """Send one request through the API server's proxy of the pod."""
        if any(name.lower() == "authorization" for name in headers):
            return Reply(
                unsent="the API server's proxy does not forward an Authorization header; set SEGUE_POD_ACCESS=direct"
            )
        try:
            port = place.number
        except LookupError as error:
            return Reply(trouble=str(error))
        name = f"{'https:' if place.scheme == 'https' else ''}{place.replica.name}:{port}"
        sent = {**headers, **content_type(request)}

        def send() -> Any:
            return self._cluster.ask_pod(
                place.namespace, name, request.method, request.path, encoded(request), sent, timeout_s
            )

        await self._cluster.renew()  # before the time of the pod's answer begins: a plugin may take long
        try:
            return _proxied(await timed(send, request, timeout_s))
        except NotAllowed as error:
            return Reply(unsent=f"{error.why}; {_RIGHTS}")
        except SegueError as error:
            return Reply(unsent=str(error))

    async def close(self) -> None:
        """Do nothing: it has no connections of its own."""


def content_type(request: ProbeRequest) -> dict[str, str]:
    """Return the Content-Type header of the body; empty without a body, or if the request has one of its own."""
    if request.body is None or any(name.lower() == "content-type" for name, _ in request.headers):
        return {}
    return {"Content-Type": "text/plain" if isinstance(request.body, str) else "application/json"}


def encoded(request: ProbeRequest) -> str | None:
    """Return the body as sent."""
    return request.body if request.body is None or isinstance(request.body, str) else json.dumps(request.body)


async def timed(send: Any, request: ProbeRequest, timeout_s: float) -> Reply:
    """Send a request and read the answer, both within the time limit.

    If this process stood still meanwhile, the reply says nothing of the pod: neither a missing answer, nor its time.
    """
    reply, stood_s = await standstill_during(_timed(send, request, timeout_s))
    return Reply(unsent=f"this worker did not run for {stood_s:.0f} s meanwhile") if stood_s > STOOD_S else reply


async def _timed(send: Any, request: ProbeRequest, timeout_s: float) -> Reply:
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s), send() as response:
            text, first_s = await _read(response, began, request)
            return Reply(response.status, text, time.monotonic() - began, first_s)
    except TimeoutError:
        return Reply(trouble=f"did not answer within {timeout_s:g} s", took_s=time.monotonic() - began)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Reply(trouble=bounded(_told(error)), took_s=time.monotonic() - began)


def _told(error: Exception) -> str:
    """Return an error in words, without a status that the server did not send."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"sent an answer that is not valid HTTP: {error.message}"
    return _BROKEN.sub("", str(error)) or type(error).__name__


async def _read(response: aiohttp.ClientResponse, began: float, request: ProbeRequest) -> tuple[str, float | None]:
    """Read an answer up to the limit; for a stream, also return when its first data arrived."""
    read, first_s = bytearray(), None
    async for chunk in response.content.iter_any():
        read += chunk
        if first_s is None and request.stream and b"data:" in read:
            first_s = time.monotonic() - began
        if len(read) > request.limit:
            raise ValueError(f"answers more than {request.limit} bytes")
    return read.decode("utf-8-sig", errors="replace"), first_s


def _proxied(reply: Reply) -> Reply:
    """Separate errors of the API server from answers of the pod.

    If the pod does not answer, the API server says so. Its other errors are its own (its storage, its load, no such
    pod), and no evidence about the pod.
    """
    if reply.status < 400 or '"Status"' not in reply.text:
        return reply
    try:
        answer = json.loads(reply.text)
    except (ValueError, RecursionError):
        return reply
    if not isinstance(answer, dict) or answer.get("kind") != "Status" or answer.get("apiVersion") != "v1":
        return reply
    why = bounded(str(answer.get("message", "")))
    if reply.status in {401, 403}:
        return Reply(unsent=f"{why}; {_RIGHTS}")
    if not why.startswith(_UNREACHED) or _TUNNEL.search(why):
        return Reply(unsent=why)
    return Reply(trouble=why.removeprefix(_UNREACHED), took_s=reply.took_s)


@asynccontextmanager
async def closing(reach: Reach) -> AsyncIterator[Reach]:
    """Close the connections to pods at the end of a block."""
    try:
        yield reach
    finally:
        await reach.close()
