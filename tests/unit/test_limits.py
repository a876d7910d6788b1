"""Requests to the API server: how many at once, which first, and how long after a 429."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from activities.cluster import Cluster
from activities.credentials import Credentials
from activities.limits import AT_ONCE, MOST, WITHOUT_UNDO, Places, Urgency, urgent
from activities.pod_http import PodEndpoint, ProxyReach
from activities.probes.base import ProbeRequest
from segue.clusters import Access
from segue.errors import NotAllowed, NotFound, Refused, Unreachable
from segue.replica import Replica

UNDO, PROGRESS, START = Urgency


class Crowd:
    """Requests that end when a test says so."""

    def __init__(self) -> None:
        self.places = Places()
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str) -> None:
        """Send a request of the activity whose block this is."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._request(name))

    async def send(self, name: str, urgency: Urgency = PROGRESS, number: int = 1) -> None:
        """Let one activity send so many requests, and wait until each has a place or waits for one."""
        with urgent(urgency):
            for n in range(number):
                self.start(f"{name}{n}" if number > 1 else name)
        await settled()

    async def _request(self, name: str) -> None:
        async with self.places.take():
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settled()

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_undo_goes_before_progress_and_progress_before_starts() -> None:
    crowd = Crowd()
    await crowd.send("undo", UNDO, AT_ONCE)
    for name, urgency in (("s", START), ("p", PROGRESS), ("u", UNDO)):
        await crowd.send(name, urgency)
    for n, expected in enumerate(("u", "p", "s")):
        await crowd.end(f"undo{n}")
        assert crowd.running[-1] == expected
    await crowd.close()


async def test_a_rollback_finds_a_place_among_any_number_of_others() -> None:
    """The others never take all places; each of them leaves some to the next."""
    crowd = Crowd()
    await crowd.send("s", START, 100)
    assert len(crowd.running) == MOST[START]
    await crowd.send("p", PROGRESS, 100)
    assert len(crowd.running) == WITHOUT_UNDO
    await crowd.send("u", UNDO)
    assert crowd.running[-1] == "u"
    await crowd.close()
    crowd = Crowd()
    await crowd.send("p", PROGRESS, 100)
    assert len(crowd.running) == MOST[PROGRESS]
    await crowd.send("s", START)
    assert crowd.running[-1] == "s", "progress without end delays no start for ever"
    await crowd.close()


async def test_the_activity_that_began_first_goes_first() -> None:
    """Its later requests go before those of activities that began after it, so that starts end one after the other."""
    crowd = Crowd()
    await crowd.send("x", START, MOST[START])
    with urgent(START):
        crowd.start("first")
        await crowd.send("second", START)
        crowd.start("again")
    await settled()
    for n, expected in enumerate(("first", "again", "second")):
        await crowd.end(f"x{n}")
        assert crowd.running[-1] == expected
    await crowd.close()


async def test_cancelled_requests_keep_no_place() -> None:
    """While it waits, when it has just got its place, and while it runs."""
    crowd = Crowd()
    await crowd.send("u", UNDO, AT_ONCE)
    await crowd.send("waits", UNDO)
    await crowd.send("next", UNDO)
    crowd.tasks["waits"].cancel()
    crowd.tasks["u0"].cancel()
    await settled()
    assert crowd.running[-1] == "next"
    await crowd.send("late", UNDO)
    await crowd.end("next")
    crowd.tasks["late"].cancel()
    await settled()
    await crowd.send("last", UNDO)
    assert crowd.running[-1] == "last" and len(crowd.running) == AT_ONCE
    await crowd.close()


class Throttling:
    """An HTTP server that answers 429 so many times, and notes when each request came."""

    def __init__(self, times: int, headers: dict[str, str]) -> None:
        self.times, self.headers = times, headers
        self.came: list[float] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.came.append(time.monotonic())
        if len(self.came) <= self.times:
            return web.json_response({"message": "slow down"}, status=429, headers=self.headers)
        return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})


@pytest.mark.parametrize(
    ("times", "headers", "requests"),
    [
        pytest.param(2, {"Retry-After": "0"}, 3, id="throttled"),
        pytest.param(9, {}, 1, id="a-webhook's-own-429"),
        pytest.param(9, {"Retry-After": "3600"}, 1, id="too-long"),
    ],
)
async def test_a_throttled_request_is_repeated_when_the_api_server_says(
    times: int, headers: dict[str, str], requests: int
) -> None:
    """API Priority and Fairness answers 429 with Retry-After before anything ran, so also a write may be repeated."""
    server = Throttling(times, headers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host: Any = runner.addresses[0]
    cluster = Cluster(Credentials(client.Configuration(host=f"http://{host[0]}:{host[1]}")))
    try:
        if requests > times:
            assert (await cluster.list("pods", "n"))["items"] == []
            assert all(later - earlier >= 0.1 for earlier, later in itertools.pairwise(server.came))
        else:
            with pytest.raises(Unreachable, match="answers 429"):
                await cluster.list("pods", "n")
        assert len(server.came) == requests
    finally:
        await cluster.close()
        await runner.cleanup()


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
async def test_only_a_proxy_of_the_environment_makes_requests_read_it(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each request would start a thread that reads ~/.netrc."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    cluster = Cluster(Credentials(client.Configuration(host="https://127.0.0.1:1")))
    try:
        with pytest.raises(Unreachable):
            await cluster.list("pods", "n")
        sessions = cluster._api.rest_client.pool_manager, cluster._pod_session()
        assert [session.trust_env for session in sessions if session] == [bool(proxy)] * 2
    finally:
        await cluster.close()


@asynccontextmanager
async def connected(address: client.Configuration) -> AsyncIterator[Cluster]:
    cluster = Cluster(Credentials(address))
    try:
        yield cluster
    finally:
        await cluster.close()


async def test_a_request_to_a_pod_has_the_present_credentials(unused_tcp_port: int, tmp_path: Path) -> None:
    """A worker may send nothing else for as long as its streams last, and a plugin's token is valid for minutes."""
    file = tmp_path / "kubeconfig"

    def write(token: str) -> None:
        server = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{unused_tcp_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        user = {"name": "u", "user": {"token": token}}
        found = {"clusters": [server], "contexts": [context], "users": [user], "current-context": "c"}
        file.write_text(json.dumps(found))

    write("the first")
    credentials = await Credentials.read(Access(kubeconfig=str(file)))
    write("the renewed one")
    credentials._due_at = 0.0
    cluster = Cluster(credentials)
    try:
        place = PodEndpoint("n", Replica("p", "new"), 80)
        assert (await ProxyReach(cluster).ask(place, ProbeRequest("GET", "/"), {}, 1.0)).unsent
    finally:
        await cluster.close()
    assert credentials.configuration.api_key == {"BearerToken": "Bearer the renewed one"}


LWS = "leaderworkersets.leaderworkerset.x-k8s.io/v1"


async def test_an_api_server_that_just_started_is_not_believed(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not loaded its rules and kinds yet, and denies what it allows. It knows its admission, and its objects."""
    answers = {
        "pods": 'pods is forbidden: User "worker" cannot list resource "pods" in API group "" in the namespace "n"',
        "services": "services is forbidden: exceeded quota: full, requested: 1, used: 1, limited: 1",
        "x": 'leaderworkersets.leaderworkerset.x-k8s.io "x" not found',
    }

    async def deny(request: web.Request) -> web.Response:
        name = request.path.split("/")[-1]
        if name == "leaderworkersets":
            return web.Response(text="404 page not found\n", status=404)
        return web.json_response({"message": answers[name]}, status=404 if name == "x" else 403)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", deny)
    runner = web.AppRunner(app)
    address = client.Configuration(host=f"http://127.0.0.1:{unused_tcp_port}")
    async with connected(address) as away, connected(address) as other:
        with pytest.raises(Unreachable):
            await away.list("pods", "n")
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        try:
            with pytest.raises(NotAllowed, match="cannot list"):
                await other.list("pods", "n")
            with pytest.raises(Unreachable, match="may not have loaded its access rules yet"):
                await away.list("pods", "n")
            with pytest.raises(Refused, match="exceeded quota"):
                await away.list("services", "n")
            with pytest.raises(NotFound, match="kind that the cluster does not serve"):
                await other.list(LWS, "n")
            with pytest.raises(Unreachable, match="may not serve all kinds yet"):
                await away.list(LWS, "n")
            with pytest.raises(NotFound, match='"x" not found'):
                await away.get(LWS, "n", "x")
            monkeypatch.setattr("activities.limits.DOUBT_S", 0.0)
            with pytest.raises(NotAllowed, match="cannot list"):
                await away.list("pods", "n")
        finally:
            await runner.cleanup()
