"""A real Prometheus, as the worker asks it: what it answers, what it cannot, and when it is not there."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from exporter import Exporter, scraped
from harness import until
from segue_local import Stack

from activities.clock import Clock
from activities.gates.base import GateContext
from activities.gates.metrics import MetricAsker
from activities.gates.prometheus import MAX_ANSWER_BYTES, Prometheus, PrometheusSettings
from activities.memory_peak import Peaks
from segue.errors import Unanswered
from segue.gates import Result, Verdict
from segue.gates.asking import Grid
from segue.gates.tally import Tally
from segue.observation import Counts, Observation, Side, Version
from segue.replica import Pods, Replica
from segue.spec import DeploymentTarget, Rules
from segue.spec.metric_presets import PRESETS
from segue.spec.metrics import Metric
from segue.state import State

NAMESPACE = "measured"
INTERVAL_S = 3
OLD, NEW = "chat-7d9f8b6c5d-x2x4z", "chat-6b7c9d4f8-bcd24"
SIDES = Pods(old=(Replica(OLD, "v1", started_at=0.0),), new=(Replica(NEW, "v2", started_at=0.0),))
_STATE = State(owner="us", baseline=Version(template="v1"), wanted=Version(template="v2"))
BAD: dict[str, Any] = {"counts": {
    "bad": 'http_requests_total{ {{side}}, status="5xx" }', "total": "http_requests_total{ {{side}} }"
}}  # fmt: skip


@dataclass
class Measured:
    """Two exporters, one for each side, and where evidence of them begins."""

    stack: Stack
    old: Exporter
    new: Exporter
    opened: float

    @property
    def url(self) -> str:
        assert self.stack.prometheus
        return self.stack.prometheus

    async def ask(
        self, *, timeout_s: float = 10, opened: float = 0, pods: Pods = SIDES, rules: Rules | None = None, **fields: Any
    ) -> Verdict:  # fmt: skip
        """One measurement, as the panel asks it."""
        body = {"name": "m", "interval": f"{INTERVAL_S}s", "judge": {"threshold": {"max": 0.1}}, **fields}
        gate, now = Metric.model_validate(body), time.time()
        asker = MetricAsker({"default": Prometheus("default", PrometheusSettings(url=self.url, timeout_s=timeout_s))})
        seen = Observation(replicas=1, old=Side(), new=Side(), requested=Counts(1, 1), template="", pods=pods)
        tally = Tally(gate="m", opened=opened or self.opened)
        target = DeploymentTarget(namespace=NAMESPACE, name="chat")
        try:
            return await asker.ask(gate, GateContext(target, rules or Rules(), _STATE, seen, tally, now))
        finally:
            await asker.close()

    async def warm(self, intervals: int = 5) -> None:
        """Wait until so many intervals have data of both sides."""

        async def there() -> bool:
            found = await self.ask(**BAD, judge={"ratio": {"max": 1e6, "floor": 1}})
            return found.result is Result.PASS and time.time() > self.opened + intervals * INTERVAL_S

        await until("both sides measured", there, poll_s=0.5)


@pytest.fixture(scope="module")
def exporters(stack: Stack) -> Iterator[Measured]:
    """The new side fails half of its requests."""
    if stack.prometheus is None:
        pytest.skip("the stack that SEGUE_TEST_STACK names has no Prometheus: start it with --prometheus")
    old, new = Exporter(), Exporter(errors=0.5)
    with scraped(stack, NAMESPACE, **{OLD.replace("-", "_"): old, NEW.replace("-", "_"): new}):
        yield Measured(stack, old, new, time.time())


@pytest.fixture
async def measured(exporters: Measured) -> Measured:
    await exporters.warm()
    return exporters


async def test_both_sides_are_measured_apart(measured: Measured) -> None:
    """The new side's errors are the new side's alone, and the verdict carries numbers, queries and no address."""
    found = await measured.ask(**BAD)
    assert found.result is Result.FAIL, found.why
    assert found.evidence is not None
    assert found.evidence.numbers["new"] == pytest.approx(0.5, abs=0.05)
    beside = await measured.ask(**BAD, judge={"ratio": {"max": 2, "floor": 0.01}})
    assert beside.result is Result.FAIL, beside.why
    assert beside.evidence is not None
    assert beside.evidence.numbers["old"] == 0
    assert "counted as none" in beside.evidence.texts["old notes"]
    assert NEW.rpartition("-")[0] in beside.evidence.texts["new bad"]
    assert measured.url not in beside.model_dump_json()


async def test_a_preset_measures_a_histogram(measured: Measured) -> None:
    """Time to the first token, by the names that vLLM gives it, as quantiles and compared."""
    quick = await measured.ask(preset="vllm/ttft", judge={"threshold": {"max": 0.06, "quantile": 0.9}})
    assert quick.result is Result.PASS, quick.why
    both = await measured.ask(preset="vllm/ttft", judge={"compare": {}})
    assert both.result is not Result.FAIL, both.why
    errors = await measured.ask(preset="vllm/errors", judge={"compare": {}})
    assert errors.result is Result.FAIL, errors.why


async def test_every_preset_is_understood(measured: Measured) -> None:
    """Prometheus parses each of them, for both sides; of what no exporter tells there is no data."""
    routed = Rules.model_validate({"strategy": {"traffic": {"route": "r", "services": {"old": "a", "new": "b"}}}})
    for name in PRESETS:
        found = await measured.ask(preset=name, judge={"compare": {}}, rules=routed)
        assert found.counts and (name.startswith("vllm/") or "no data of the new side" in found.why), (name, found.why)


async def test_no_data_holds(measured: Measured) -> None:
    """NaN, and a series that is not there, are no evidence: inconclusive, and never a pass."""
    for value in ("avg(broken{ {{side}} })", "avg(nowhere{ {{side}} })"):
        found = await measured.ask(value=value)
        assert (found.result, found.counts) == (Result.INCONCLUSIVE, True), found.why
        assert "no data of the new side" in found.why
    fresh = await measured.ask(value="avg(level{ {{side}} })", opened=time.time())
    assert (fresh.result, fresh.why) == (Result.INCONCLUSIVE, "no interval has ended yet")
    alone = await measured.ask(value="avg(level{ {{side}} })", pods=Pods(old=SIDES.old))
    assert alone.result is Result.INCONCLUSIVE


async def test_what_cannot_be_judged_is_told(measured: Measured) -> None:
    """Many series, a wrong query and an unknown provider are reported with the fix; none of them is an answer."""
    with pytest.raises(Unanswered, match=r"2 series \(by .*pod.*\).*sum them up"):
        await measured.ask(value='level{namespace="measured"}')
    with pytest.raises(Unanswered, match=r"provider default: HTTP 400: .*parse error"):
        await measured.ask(value="sum(level{ {{side}} }")
    with pytest.raises(
        Unanswered, match=r"other is unknown to this worker \(known: default\); add it to SEGUE_PROMETHEUS"
    ):
        await measured.ask(value="1", provider="other")


async def test_a_counter_that_begins_again_goes_on(measured: Measured) -> None:
    """A server that restarts counts from 0 again: its requests stay as many, and are never negative."""
    measured.new.restart()
    resets = f'max(resets(http_requests_total{{pod="{NEW}"}}[1m]))'
    client = Prometheus("default", PrometheusSettings(url=measured.url))

    async def seen() -> bool:
        now = time.time()
        found = await client.query_range(resets, Grid(now, 1.0, 1), 1)
        return any(value and value > 0 for values in found.series.values() for value in values)

    await until("the reset scraped", seen, poll_s=0.5)
    await client.close()
    before = time.time()
    await until("an interval after it", lambda: time.time() > before + INTERVAL_S)
    found = await measured.ask(**BAD, judge={"compare": {}})
    assert found.result is Result.FAIL, found.why
    assert found.evidence is not None
    assert all(number >= 0 for name, number in found.evidence.numbers.items() if "traffic" in name)


async def test_the_most_memory_that_was_seen(measured: Measured) -> None:
    """Of all that it keeps of a container the most, also when that is past; where nothing is kept it says so."""
    client = Prometheus("default", PrometheusSettings(url=measured.url))
    unknown = "its peak is not known: "
    server = f"server-{time.time_ns()}"  # a stack that is used again keeps the samples of the test before

    async def seen(pod: str, container: str = server) -> str:
        return await Peaks(client, Clock()).seen(NAMESPACE, pod, container)

    async def says(text: str) -> bool:
        return await seen(NEW) == text

    try:
        assert await seen(NEW) == f"{unknown}provider default has no container_memory_working_set_bytes of it"
        measured.new.memory.labels(server).set(127 * 2**20)
        await until("it is scraped", lambda: says("127Mi is the most that was seen before"), poll_s=0.2)
        measured.new.memory.labels(server).set(20 * 2**20)
        assert await seen(NEW) == "127Mi is the most that was seen before"
        assert "has no" in await seen(OLD) and "has no" in await seen(NEW, "other")
        measured.stack.kill("prometheus")
        try:
            assert (await seen(NEW)).startswith(f"{unknown}provider default cannot be queried: ")
        finally:
            measured.stack.restart("prometheus")
    finally:
        await client.close()
    assert (
        await Peaks(None, Clock()).seen(NAMESPACE, NEW, "server")
        == f"{unknown}the worker has no Prometheus named default"
    )


async def test_while_it_does_not_answer_nobody_is_asked(measured: Measured) -> None:
    """A Prometheus that hangs, and one that is dead: no answer, in time; afterwards all it had is there again."""
    part = next(p for p in measured.stack.status() if p.name == "prometheus")
    assert part.pid
    os.kill(part.pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        with pytest.raises(Unanswered, match="provider default: no answer within 1 s"):
            await measured.ask(**BAD, timeout_s=1)
    finally:
        os.kill(part.pid, signal.SIGCONT)
    assert time.monotonic() - started < 60  # it hangs as long as the test lets it
    measured.stack.kill("prometheus")
    try:
        with pytest.raises(Unanswered, match=r"cannot be queried: no connection \(Connection refused\)"):
            await measured.ask(**BAD)
    finally:
        measured.stack.restart("prometheus")
    again = await measured.ask(**BAD, judge={"compare": {}})
    assert again.result is Result.FAIL, again.why


async def test_what_is_not_scraped_any_more_is_stale(measured: Measured) -> None:
    """A new side whose samples stop is not judged by old samples: there is no answer. Runs last."""
    measured.new.stop_serving()

    async def reason() -> str:
        try:
            await measured.ask(**BAD)
        except Unanswered as error:
            return str(error)
        return ""

    assert "is it still scraped?" in str(await until("staleness", reason, poll_s=0.5))


# --- what is between the worker and it ---


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A stand-in that answers, and keeps the requests."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        query = (await request.post())["query"]
        if query == "moved":
            raise web.HTTPFound("http://127.0.0.1:1/elsewhere")
        bodies = {"large": "x" * (MAX_ANSWER_BYTES + 1), "page": "<html>", "list": "[]"}
        return web.Response(text=bodies.get(str(query), "{}"), status=503 if query == "down" else 200)

    app = web.Application()
    app.router.add_post("/api/v1/query_range", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


async def test_an_answer_of_another_kind_is_told(proxy: tuple[str, list[web.Request]], tmp_path: Path) -> None:
    """A redirect is not followed, too much is not read, a page is no answer; a token is read anew and never shown."""
    url, seen = proxy
    token = tmp_path / "token"
    token.write_text("s3cret-1\n")
    client = Prometheus("default", PrometheusSettings(url=url, bearer_token_file=token))
    for query, expected in {
        "moved": "HTTP 302: it was moved", "large": "over 16 MiB", "page": "not of Prometheus' API",
        "list": "not of Prometheus' API", "down": "HTTP 503",
    }.items():  # fmt: skip
        with pytest.raises(Unanswered, match=expected) as raised:
            await client.query_range(query, Grid(0, 1, 1), 1)
        assert "s3cret" not in f"{raised.value!r} {raised.value.__cause__!r}"
    token.write_text("s3cret-2\n")
    with pytest.raises(Unanswered):
        await client.query_range("page", Grid(0, 1, 1), 1)
    sent = [request.headers["Authorization"] for request in seen]
    assert sent[:1] + sent[-1:] == ["Bearer s3cret-1", "Bearer s3cret-2"]
    token.write_text("s3cret\nX-Other: 1")
    with pytest.raises(Unanswered, match="no token of one line") as raised:
        await client.query_range("page", Grid(0, 1, 1), 1)
    assert "s3cret" not in str(raised.value)
    token.unlink()
    with pytest.raises(Unanswered, match="its token file cannot be read: No such file"):
        await client.query_range("page", Grid(0, 1, 1), 1)
    await client.close()
