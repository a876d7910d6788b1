"""Every request and every stream is recorded with its result, against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pytest
from aiohttp import web
from segue_local import PartFailed, Refused, build
from segue_local.build import K6, ensure_built
from segue_local.traffic import Outcomes, Request, Stream, StreamOutcomes, Streams, Traffic
from segue_local.traffic.picture import Picture

PACE_S = 0.01
TOKENS = 30
T = TypeVar("T")


@pytest.fixture(scope="module", autouse=True)
def k6() -> Path:
    """k6, built before any test's time runs."""
    return ensure_built(binaries=[K6])["k6"]


class Server:
    """A model server in a thread of its own: it counts its requests, and fails as configured."""

    def __init__(self) -> None:
        self.version = "v1"
        self.fail_every = 0
        self.latency_s = 0.0
        self.cut_after: int | None = None
        self.requests = 0
        self.peers: Counter[tuple[str, int]] = Counter()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = self._call(self._start())
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def close(self) -> None:
        """Stop listening, and cut what runs."""
        self._call(self._runner.cleanup())

    def end(self) -> None:
        self.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/infer", self._infer)
        app.router.add_get("/infer", self._infer)
        app.router.add_post("/v1/chat/completions", self._stream)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _infer(self, request: web.Request) -> web.Response:
        self.requests += 1
        failing = self.fail_every and self.requests % self.fail_every == 0
        assert request.transport
        self.peers[request.transport.get_extra_info("peername")] += 1
        await asyncio.sleep(self.latency_s)
        if failing:
            return web.Response(status=503, text="overloaded")
        return web.json_response({"model": {"version": self.version}, "sent": await request.text()})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.json()
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for number in range(body["max_tokens"]):
            if number == self.cut_after:
                assert request.transport
                request.transport.abort()
                return reply
            event = {"system_fingerprint": self.version, "choices": [{"delta": {"content": f"{number} "}}]}
            await reply.write(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(PACE_S)
        await reply.write(b"data: [DONE]\n\n")
        return reply


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


def traffic(server: Server, folder: Path, **settings: Any) -> Traffic:
    given = {"rate": 50, "version_path": "model.version", "timeout_s": 3.0, **settings}
    return Traffic(f"{server.url}/infer", folder / "traffic", **given)


def streams(server: Server, folder: Path, **settings: Any) -> Streams:
    return Streams(server.url, folder / "streams", max_tokens=TOKENS, **settings)


async def until(load: Traffic | Streams, enough: Callable[[Any], bool]) -> None:
    """Wait until its outcomes so far are enough."""
    async with asyncio.timeout(60):
        while not enough(load.so_far()):
            await asyncio.sleep(0.05)


def pid_of(load: Traffic | Streams) -> int:
    assert load.pid is not None
    return load.pid


def gone(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_every_request_is_told_once(server: Server, tmp_path: Path) -> None:
    """The server got as many requests as were recorded, each by a new connection; versions are counted."""
    with traffic(server, tmp_path, body={"prompt": "hello"}) as load:
        pid = pid_of(load)
        await until(load, lambda outcomes: len(outcomes.requests) >= 40)
        server.version = "v2"
        await until(load, lambda outcomes: outcomes.by_version["v2"] >= 20)
        outcomes = load.stop()
    assert len(outcomes.requests) == server.requests == outcomes.by_version.total()
    assert set(outcomes.by_version) == {"v1", "v2"}
    assert (outcomes.failed, outcomes.dropped) == ((), 0)
    assert len(server.peers) == server.requests
    # The median: a busy machine delays some requests, and those after them follow sooner.
    times = [request.at for request in outcomes.requests]
    assert median(b - a for a, b in pairwise(times)) == pytest.approx(1 / 50, rel=0.2)
    assert 0 < outcomes.percentile(50) <= outcomes.percentile(99) < 1
    assert gone(pid)


async def test_connections_are_kept_when_asked(server: Server, tmp_path: Path) -> None:
    """With keep-alive there are fewer connections than requests."""
    with traffic(server, tmp_path, keep_alive=True, rate=20, timeout_s=0.5) as load:
        await until(load, lambda outcomes: len(outcomes.requests) >= 60)
        outcomes = load.stop()
    assert len(outcomes.requests) == server.requests > len(server.peers)


async def test_exactly_the_failed_are_told(server: Server, tmp_path: Path) -> None:
    """Of a server that fails one in ten, these are recorded as failed and no others."""
    server.fail_every = 10
    with traffic(server, tmp_path) as load:
        await until(load, lambda outcomes: len(outcomes.requests) >= 60)
        outcomes = load.stop()
    assert len(outcomes.failed) == server.requests // 10
    assert {request.why for request in outcomes.failed} == {"status 503"}


async def test_an_answer_without_a_version_is_a_failure(server: Server, tmp_path: Path) -> None:
    """A 200 that does not name its version may come from anyone."""
    with traffic(server, tmp_path, version_path="model.name") as load:
        await until(load, lambda outcomes: len(outcomes.requests) >= 10)
        outcomes = load.stop()
    assert {request.why for request in outcomes.failed} == {"the answer names no version"}
    assert len(outcomes.failed) == server.requests


async def test_refused_connections_are_told(server: Server, tmp_path: Path) -> None:
    """When the server goes away in the middle, later requests fail by refused connections."""
    with traffic(server, tmp_path) as load:
        await until(load, lambda outcomes: len(outcomes.requests) >= 20)
        server.close()
        await until(load, lambda outcomes: len(outcomes.failed) >= 20)
        outcomes = load.stop()
    assert outcomes.by_version["v1"] >= 20
    assert sum("connection refused" in request.error for request in outcomes.failed) >= 15
    assert outcomes.requests[-1].status == 0


async def test_requests_on_their_way_are_waited_for(server: Server, tmp_path: Path) -> None:
    """A stop sends no more, and the outcome of what was sent before is still recorded."""
    server.latency_s = 1.0
    with traffic(server, tmp_path) as load:
        await until(load, lambda outcomes: outcomes.requests and server.requests >= len(outcomes.requests) + 5)
        outcomes = load.stop()
    assert len(outcomes.requests) == server.requests
    assert outcomes.failed == ()


async def test_a_slow_answer_fails_and_does_not_slow_the_load(server: Server, tmp_path: Path) -> None:
    """After the time limit a request has failed; all others were sent in time."""
    server.latency_s = 5.0
    with traffic(server, tmp_path, timeout_s=1.0) as load:
        await until(load, lambda outcomes: len(outcomes.failed) >= 50)
        outcomes = load.stop()
    assert {request.why for request in outcomes.failed} == {"request timeout"}
    assert 0.9 < outcomes.failed[0].latency_s < server.latency_s
    assert (len(outcomes.requests), outcomes.dropped) == (len(outcomes.failed), 0)


async def test_a_load_that_was_not_constant_is_told(server: Server, tmp_path: Path) -> None:
    """What k6 could not send for want of users is counted."""
    server.latency_s = 0.5
    load = traffic(server, tmp_path)
    load._config["users"] = 1
    with load:
        await until(load, lambda outcomes: len(outcomes.requests) >= 2)
        outcomes = load.stop()
    assert outcomes.dropped >= 20
    assert len(outcomes.requests) == server.requests


async def test_a_load_that_ended_early_is_an_error(server: Server, tmp_path: Path) -> None:
    """Half a record must not pass for a whole one, whether it was killed or came to its own end."""
    with traffic(server, tmp_path / "killed") as load:
        os.kill(pid_of(load), signal.SIGKILL)
        os.waitid(os.P_PID, pid_of(load), os.WEXITED | os.WNOWAIT)
        with pytest.raises(PartFailed, match="k6 ended by itself with status -9"):
            load.stop()
    with streams(server, tmp_path, longest_s=0.1) as load:
        os.waitid(os.P_PID, pid_of(load), os.WEXITED | os.WNOWAIT)
        with pytest.raises(PartFailed, match="streams ended by itself with status 0"):
            load.stop()


async def test_a_lost_outcome_is_an_error(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines must be as many as k6 counted."""
    load = traffic(server, tmp_path).start()
    await until(load, lambda outcomes: len(outcomes.requests) >= 5)

    def await_end(process: subprocess.Popen[bytes]) -> None:
        process.wait(10)
        _drop_last_line(load.folder / "lines.jsonl")

    monkeypatch.setattr(load, "_await_end", await_end)
    with pytest.raises(PartFailed, match=r"counted \d+ requests and recorded \d+"):
        load.stop()


def _drop_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


async def test_nothing_is_left_when_the_body_fails(server: Server, tmp_path: Path) -> None:
    """An error between start and stop ends the process."""
    with pytest.raises(ZeroDivisionError), traffic(server, tmp_path) as load:
        pid = pid_of(load)
        _ = 1 / 0
    assert gone(pid)


async def test_wrap_runs_the_load_elsewhere(server: Server, tmp_path: Path) -> None:
    """The argv is what ``wrap`` makes of it; one that cannot run is reported with its words."""
    with traffic(server, tmp_path, wrap=lambda argv: ["env", "GOMAXPROCS=1", *argv]) as load:
        assert b"GOMAXPROCS=1" in Path(f"/proc/{load.pid}/environ").read_bytes()
        load.stop()
    broken = traffic(server, tmp_path / "b", wrap=lambda argv: ["sh", "-c", "echo no such namespace; exit 7"])
    with pytest.raises(PartFailed, match=r"status 7 before its first request(.|\n)*no such namespace"):
        broken.start()
    assert broken.pid is None


def test_unusable_input_is_refused(tmp_path: Path) -> None:
    """A wrong address, a wrong rate and a folder in use are refused before anything starts."""
    with pytest.raises(Refused, match="url: 'chat'"):
        Traffic("chat", tmp_path)
    with pytest.raises(Refused, match="rate: 0"):
        Traffic("http://chat", tmp_path, rate=0)
    with pytest.raises(Refused, match="max_tokens: 0"):
        Streams("http://chat", tmp_path, max_tokens=0)
    (tmp_path / "lines.jsonl").touch()
    with pytest.raises(Refused, match="another load"):
        Traffic("http://chat", tmp_path).start()


async def test_streams_complete(server: Server, tmp_path: Path) -> None:
    """Streams run at once and follow one another; a stop waits for those that run."""
    with streams(server, tmp_path, count=5) as load:
        pid = pid_of(load)
        await until(load, lambda outcomes: len(outcomes.streams) >= 5)
        server.version = "v2"
        await until(load, lambda outcomes: outcomes.by_version["v2"] >= 5)
        outcomes = load.stop()
    mixed = [stream for stream in outcomes.streams if stream.versions == ("v1", "v2")]
    assert len(outcomes.streams) == server.requests
    assert outcomes.cut == tuple(mixed)
    assert {stream.why for stream in mixed} <= {"2 versions in one answer"}
    assert all(stream.tokens == stream.expected and stream.done for stream in outcomes.streams)
    assert all(stream.ended_at - stream.at >= stream.tokens * PACE_S for stream in outcomes.streams)
    shorter = sorted(stream.expected for stream in outcomes.streams if stream.expected < TOKENS)
    assert shorter == [6, 12, 18, 24], "but for their first ones, so that they do not all end at once"
    assert gone(pid)


async def test_cut_streams_are_told(server: Server, tmp_path: Path) -> None:
    """A connection that ends in the middle is recorded with the tokens that came; so is a server that is gone."""
    with streams(server, tmp_path) as load:
        await until(load, lambda outcomes: len(outcomes.streams) >= 4)
        server.cut_after = 10
        await until(load, lambda outcomes: len(outcomes.cut) >= 4)
        server.close()
        await until(load, lambda outcomes: any(stream.status == 0 for stream in outcomes.cut))
        outcomes = load.stop()
    first = outcomes.cut[0]
    assert (first.tokens, first.done, first.status) == (10, False, 200)
    assert "ClientPayloadError" in first.why or "ServerDisconnected" in first.why or "reset" in first.why
    assert "ClientConnectorError" in outcomes.cut[-1].why
    assert outcomes.by_version["v1"] >= 4


async def test_the_picture_of_real_outcomes(server: Server, tmp_path: Path) -> None:
    """A page that needs no other file and a PNG are made, also when something failed, also of nothing."""
    server.fail_every = 20
    with traffic(server, tmp_path) as load, streams(server, tmp_path) as long:
        await until(load, lambda outcomes: len(outcomes.failed) >= 2)
        outcomes, streamed = load.stop(), long.stop()
    start = outcomes.requests[0].at
    marks = [(start + 0.1, "rollout <starts>"), (start + 0.2, "waits for $5"), (start + 0.9, "completed " * 5)]
    ready = [(start, {"v1": 3}), (start + 0.5, {"v1": 2, "v2": 1})]
    picture = Picture("chat & co", outcomes, ready, floor=2, ceiling=4, marks=marks, streams=streamed)
    assert picture.bad
    html, png = picture.write(tmp_path / "out", "traffic")
    text = html.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert f"{len(outcomes.failed)} failed of {len(outcomes.requests)} requests" in text
    assert "chat &amp; co" in text
    assert "status 503" in text
    assert "<svg" in text
    assert not any(outside in text for outside in ("<script", "<link", "<img", "src="))
    nothing = Picture("nothing", Outcomes(), [], floor=1, ceiling=2, streams=StreamOutcomes())
    assert not nothing.bad
    nothing.write(tmp_path / "out", "nothing")


def test_percentiles_and_reasons() -> None:
    """Nearest rank; an error goes before a status, and a mixed or short answer is cut."""
    outcomes = Outcomes(tuple(Request(0, number / 100, 200, "", "v1") for number in range(1, 101)))
    assert (outcomes.percentile(50), outcomes.percentile(99), outcomes.percentile(100)) == (0.5, 0.99, 1.0)
    assert Request(0, 1, 0, "EOF").why == "EOF"
    assert Request(0, 1, 302, "", "v1").why == "status 302"
    assert Stream(0, 1, 200, 5, 3, True, "", ("v1",)).why == "3 of 5 tokens"
    assert Stream(0, 1, 200, 5, 3, False, "", ("v1",)).why == "ended without [DONE] after 3 of 5 tokens"
    assert not Stream(0, 1, 200, 5, 5, True, "", ("v1",)).cut


def test_k6_is_pinned() -> None:
    """Its module names one version of k6, with its checksum."""
    folder = build.MODULES / K6.group
    version = re.search(r"^require go\.k6\.io/k6 (v1\.\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    assert version
    assert f"go.k6.io/k6 {version[1]} h1:" in (folder / "go.sum").read_text()
