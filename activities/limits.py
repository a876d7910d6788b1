"""How many requests of one worker are under way at the API server, which of them go first, and how it obeys 429.

Undo goes before progress, and progress before new starts. In one class the activity that began first goes first, so
that many rollouts started at once become ready one after the other, and not all of them late. Which rollouts may begin
to move is decided before that, by ``activities.moves``.
"""

import asyncio
import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from enum import IntEnum
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp
from kubernetes.aio.client import rest
from opentelemetry import trace

from activities.clock import Clock

AT_ONCE = 32
"""How many requests are under way at one time. Streams do not count."""
WITHOUT_UNDO = 28
"""How many of them may be of other classes: a rollback finds a free place at once."""
AWAY = frozenset({502, 503, 504})
"""The answers in the place of an API server that is away, or that starts."""
DOUBT_S = 15.0
"""An API server that was away so shortly ago may not have loaded its access rules yet: it denies what it allows."""
PATIENCE_S = 20.0
"""How long a request that the API server throttles is repeated."""


class Urgency(IntEnum):
    """What a request is for; the lowest goes first."""

    UNDO = 0
    PROGRESS = 1
    START = 2


MOST = {Urgency.UNDO: AT_ONCE, Urgency.PROGRESS: 20, Urgency.START: 14}
"""How many of a class may be under way. Each class leaves places for the next ones, so that none waits for ever."""


class Rank(NamedTuple):
    """The order among waiting requests."""

    urgency: Urgency = Urgency.PROGRESS
    began: int = 0
    """The number of the activity, counted from the worker's start."""


_tracer = trace.get_tracer("segue")
_CLIENT = trace.SpanKind.CLIENT
_UNRANKED = Rank()
_rank: ContextVar[Rank] = ContextVar("rank", default=_UNRANKED)
_numbers = itertools.count(1)


@contextmanager
def urgent(of: Urgency) -> Iterator[None]:
    """Give all requests in the block this urgency, after those of earlier blocks."""
    token = _rank.set(Rank(of, next(_numbers)))
    try:
        yield
    finally:
        _rank.reset(token)


def urgency() -> Urgency:
    """Return the urgency of this context's requests."""
    return _rank.get().urgency


class Places:
    """The places of the requests that are under way."""

    def __init__(self) -> None:
        self._taken: Counter[Urgency] = Counter()
        self._waiting: dict[Urgency, list[tuple[Rank, int, asyncio.Future[None]]]] = {each: [] for each in Urgency}
        self._arrivals = itertools.count()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Hold a place in this block; wait for it in the order of the context's rank."""
        rank = _rank.get()
        await self._enter(rank)
        try:
            yield
        finally:
            self._leave(rank.urgency)

    async def _enter(self, rank: Rank) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting[rank.urgency], (rank, next(self._arrivals), place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave(rank.urgency)
            raise

    def _leave(self, of: Urgency) -> None:
        self._taken[of] -= 1
        self._admit()

    def _admit(self) -> None:
        """Give free places to those that wait, in order; a class that has its most does not delay the next."""
        for each, waiting in self._waiting.items():
            while waiting and self._has_room(each):
                *_, place = heapq.heappop(waiting)
                if not place.cancelled():
                    self._taken[each] += 1
                    place.set_result(None)

    def _has_room(self, of: Urgency) -> bool:
        if self._taken.total() >= AT_ONCE or self._taken[of] >= MOST[of]:
            return False
        return of is Urgency.UNDO or self._taken.total() - self._taken[Urgency.UNDO] < WITHOUT_UNDO


class LimitedClient(rest.RESTClientObject):
    """The client's connections, with places for its requests."""

    def __init__(self, configuration: Any, clock: Clock) -> None:
        # Each stream holds a connection for minutes: with a limit of connections, enough streams stop all requests.
        configuration.connection_pool_maxsize = 0
        # With it, aiohttp starts a thread for each request, which reads ~/.netrc; kubectl does not read that either.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        super().__init__(configuration)
        self._places, self._clock = Places(), clock
        self._former: list[aiohttp.ClientSession] = []
        self._away_at = -math.inf

    async def renew_tls(self, pods: aiohttp.ClientSession | None) -> None:
        """Use the certificates and the key of the configuration as they are now, for all further connections.

        What runs on the present connections, and on those to ``pods``, may end there: they are closed the next time.
        """
        await self._close_former()
        self.ssl_context = rest.RESTClientObject(self.configuration).ssl_context
        self._former = [each for each in (self.pool_manager, pods) if each is not None]
        self.pool_manager = None

    async def _close_former(self) -> None:
        for session in self._former:
            await session.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._close_former()
        await super().close()

    @property
    def was_away(self) -> bool:
        """Whether the API server did not answer a request a moment ago."""
        return time.monotonic() < self._away_at + DOUBT_S

    async def request(self, method: str, url: str, **options: Any) -> Any:  # type: ignore[override]
        """Send a request in its turn. A stream takes no place: it would hold it for minutes."""
        if "watch=" in url.partition("?")[2]:
            return await self._patiently(method, url, options)
        async with self._places.take():
            # A request outside of a recorded activity, such as one of a shared watch, belongs to no rollout.
            if not trace.get_current_span().is_recording():
                return await self._patiently(method, url, options)
            path = urlsplit(url).path
            about = {"http.request.method": method, "url.path": path}
            with _tracer.start_as_current_span(f"{method} {resource_of(path)}", kind=_CLIENT, attributes=about) as span:
                found = await self._patiently(method, url, options)
                span.set_attribute("http.response.status_code", found.status)
                return found

    async def _patiently(self, method: str, url: str, options: dict[str, Any]) -> Any:
        """Repeat a request that the API server throttled: it did not run, and says after how many seconds to repeat it.

        The request keeps its place meanwhile, so a throttled worker sends less.
        """
        gives_up_at = time.monotonic() + PATIENCE_S
        while True:
            asked_at = time.monotonic()
            try:
                found: Any = await super().request(method, url, **options)  # type: ignore[no-untyped-call]
            except (TimeoutError, aiohttp.ClientError, OSError):
                self._away_at = time.monotonic()
                raise
            if found.status in AWAY:
                self._away_at = time.monotonic()
            if found.status < 300:  # the answer is the API server's own
                self._clock.note(found.headers.get("Date", ""), asked_at)
            pause_s = _pause_s(found)
            if pause_s is None or time.monotonic() + pause_s > gives_up_at:
                return found
            found.response.release()
            await asyncio.sleep(pause_s)


def resource_of(path: str) -> str:
    """Return the kind of object that a path of the API server names, such as ``deployments`` or ``pods/log``."""
    parts = path.strip("/").split("/")
    # /api/VERSION/… or /apis/GROUP/VERSION/…, then [namespaces/NAMESPACE/]RESOURCE[/NAME[/SUBRESOURCE]]
    rest = parts[2 if parts[0] == "api" else 3 :]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join(rest[::2]) or path


def _pause_s(found: Any) -> float | None:
    """Return how long to wait before the request is repeated, with a random part. Returns None for other answers."""
    after = found.headers.get("Retry-After", "")
    if found.status != 429 or not after.isdigit():
        return None
    return max(float(after), 0.1) * random.uniform(1.0, 1.5)  # noqa: S311 - no secret
