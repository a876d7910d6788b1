"""Metrics in specs: how each wrong one is refused, which queries each side gets, and how answers are put together."""

import json
import math
import re
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from segue_local.certs import Authority

from activities.gates.metrics import _refuse_stale, _Side
from activities.gates.prometheus import Prometheus, PrometheusSettings, read_matrix
from segue.errors import Refused, Unanswerable, Unanswered
from segue.gates.asking import MAX_WINDOWS, Grid, duration, grid, windows
from segue.gates.measured import MeasuredAnswer, Values, joined
from segue.judging import Count, CountSeries, HistogramSeries, ValueSeries
from segue.replica import Pods, Replica
from segue.spec import DeploymentTarget, PairTarget, Rules, Spec, StatefulSetTarget, Target, read_rollout
from segue.spec.metric_presets import PRESETS, Preset
from segue.spec.metrics import VARIABLES, Metric, holes, is_series
from worker.settings import load_settings

JUDGE: dict[str, Any] = {"compare": {}}
OLD = Replica("chat-7d9f8b6c5d-x2x4z", "v1", started_at=0.0)
NEW = Replica("chat-6b7c9d4f8-bcd24", "v2", started_at=1000.0)
PODS = Pods(old=(OLD,), new=(NEW,))
CHAT = DeploymentTarget(namespace="serving", name="chat")


def metric(**fields: Any) -> Metric:
    given = {"preset": "vllm/ttft"} if not {"preset", "counts", "histogram", "value"} & fields.keys() else {}
    return Metric.model_validate({"name": "m", "judge": JUDGE, **given, **fields})


def rollout(metrics: list[dict[str, Any]], **spec: Any) -> Spec:
    body = {"target": {"name": "llm"}, "change": {"images": {"server": "x:2"}}, "metrics": metrics, **spec}
    file = {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "llm"}, "spec": body}
    return read_rollout(file).spec


class Bad(NamedTuple):
    """One wrong metric: what it has, the field that is blamed, and part of the message."""

    id: str
    fields: dict[str, Any]
    field: str
    expected: str


ROUTE = {"route": "r", "services": {"old": "a", "new": "b"}}
BAD = [
    Bad("nothing", {}, "", "give one of preset, counts, histogram and value"),
    Bad("two", {"preset": "vllm/ttft", "value": "x"}, ".value", "cannot be combined with preset"),
    Bad("preset", {"preset": "vllm/speed"}, ".preset", "write one of: vllm/errors, vllm/ttft"),
    Bad("server", {"preset": "tgl/ttft"}, ".preset", "vllm/..."),
    Bad("unit-of-preset", {"preset": "vllm/ttft", "unit": "s"}, ".unit", "is already part of the preset"),
    Bad("unit-long", {"value": "x", "unit": "s" * 17}, ".unit", "16"),
    Bad("variable", {"value": "x{ {{pod}} }"}, ".value", "unknown variable pod; write one of {{side}}"),
    Bad("empty", {"value": "  "}, ".value", "is empty"),
    Bad("long", {"value": "x" * 4097}, ".value", "4096"),
    Bad("no-total", {"counts": {"bad": "x"}}, ".counts.total", "is missing"),
    Bad("no-interval", {"counts": {"bad": "sum(rate(x[5m]))", "total": "y"}}, ".counts.bad", "[{{interval}}]"),
    Bad("histogram-no-interval", {"histogram": "sum by (le) (x)"}, ".histogram", "[{{interval}}]"),
    Bad("url", {"value": "x", "provider": "http://evil"}, ".provider", "must match"),
    Bad("address", {"value": "x", "url": "http://evil"}, ".url", "check its spelling"),
    Bad("no-judge", {"value": "x", "judge": None}, ".judge", "is missing"),
    Bad("two-judges", {"value": "x", "judge": {"compare": {}, "threshold": {"max": 1}}}, ".judge.compare",
        "cannot be combined"),
    Bad("judge-of-another-kind", {"value": "x", "judge": {"threshold": {"max": 1, "quantile": 0.5}}},
        ".judge.threshold.quantile", "is for a histogram"),
    Bad("warmup", {"value": "x", "warmup": "2h"}, ".warmup", "is over 1 hour"),
    Bad("lookback-compare", {"value": "x", "lookback": "1h"}, ".lookback", "leave it out"),
    Bad("lookback-short", {"value": "x", "lookback": "1s", "judge": {"threshold": {"max": 1}}}, ".lookback",
        "write 30s to"),
    Bad("interval", {"value": "x", "interval": "500ms"}, ".interval", "write 1s to 1h"),
    Bad("service", {"preset": "nginx/errors"}, ".preset", "strategy.traffic names none"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[b.id for b in BAD])
def test_a_wrong_metric_is_refused_by_its_field(bad: Bad) -> None:
    """The refusal names the metric's field, and what to write."""
    fields = {"name": "m", "judge": JUDGE, **bad.fields}
    with pytest.raises(Refused) as refusal:
        rollout([{name: value for name, value in fields.items() if value is not None}])
    assert refusal.value.field == f"spec.metrics[0]{bad.field}"
    assert bad.expected in str(refusal.value)


def test_more_is_refused_than_one_metric_can_tell() -> None:
    """Names differ, also from other gates'; there are at most 20; numbered pods have no revision in their names."""
    each = {"judge": JUDGE, "preset": "vllm/ttft"}
    with pytest.raises(Refused, match="is the name of two gates"):
        rollout([{"name": "a", **each}, {"name": "a", **each}])
    with pytest.raises(Refused, match=r"spec\.metrics"):
        rollout([{"name": f"m{n}", **each} for n in range(21)])
    with pytest.raises(Refused, match=r"select by \{\{side"):
        query = 'x{pod_template_hash=~"{{revision}}"}'
        numbered = {"target": {"kind": "StatefulSet", "name": "llm"}}
        rollout([{"name": "a", "judge": JUDGE, "value": query}], **numbered)


def test_a_spec_goes_through_a_history_as_it_is() -> None:
    """What is written and read again is the same."""
    spec = rollout([{"name": "a", "preset": "vllm/ttft", "judge": JUDGE, "interval": "10s", "warmup": "20s"}])
    assert Spec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec
    assert [gate.name for gate in spec.repeated_gates] == ["a"]


# --- queries ---


def test_a_series_is_summed_up_and_an_expression_stays() -> None:
    """Counters become their growth in an interval, buckets by their edges; an expression is sent as it is."""
    counts = metric(counts={"bad": 'x{ {{side}}, code="5" }', "total": "x{{{side}}}"})
    assert counts.templates == (
        'sum(increase(x{ {{side}}, code="5" }[{{interval}}]))',
        "sum(increase(x{{{side}}}[{{interval}}]))",
    )
    assert metric(histogram="x_bucket").templates == ("sum by (le) (increase(x_bucket[{{interval}}]))",)
    expression = "sum(rate(x{ {{side}} }[{{interval}}]))"
    assert metric(counts={"bad": expression, "total": expression}).templates == (expression, expression)
    assert metric(value="avg(x)").templates == ("avg(x)",)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("x", True), (":a:b{c=~'d'}", False), ('x{a="b)[", {{side}}}', True), ("x[5m]", False), ("a + b", False)],
)
def test_a_series_is_told_from_an_expression(query: str, expected: bool) -> None:
    """Only a name with labels is a series."""
    assert is_series(query) is expected


def windows_of(m: Metric, side: Any, target: Target = CHAT, pods: Pods = PODS, over: Grid | None = None) -> list[Any]:
    return windows(m, side, target, Rules(), pods, over or grid(m, 1000, 1090))


SAFE = "[b-df-hj-np-tv-xz24-9]"


def test_each_side_of_a_deployment_is_selected_by_its_replicaset() -> None:
    """New: that of the new pods, also of those that went. Old: all others of the Deployment, also when none is left."""
    m = metric(value="avg(x{ {{side}} })")
    [new], [old] = windows_of(m, "new"), windows_of(m, "old")
    ours = f'pod=~"chat-6b7c9d4f8-{SAFE}{{5}}"'
    assert new.queries == (f'avg(x{{ namespace="serving", {ours} }})',)
    others = f'pod=~"chat-{SAFE}{{3,10}}-{SAFE}{{5}}", pod!~"chat-6b7c9d4f8-{SAFE}{{5}}"'
    assert old.queries == (f'avg(x{{ namespace="serving", {others} }})',)
    assert windows_of(m, "old", pods=Pods(new=(NEW,)))[0].queries == old.queries
    assert windows_of(m, "new", pods=Pods(old=(OLD,))) == []


@pytest.mark.parametrize(
    ("pod", "is_ours"),
    [
        ("chat-7d9f8b6c5d-x2x4z", True),
        ("chat-55c9-zzzzz", True),
        ("chat-6b7c9d4f8-bcd24", False),  # new
        ("chat-v2-7d9f8b6c5d-x2x4z", False),  # another Deployment's
        ("chat-worker-x2x4z", False),  # a DaemonSet's
        ("chat-0", False),
        ("chat", False),
    ],
)
def test_the_old_side_is_nobody_elses(pod: str, is_ours: bool) -> None:
    """Pods of another workload whose name begins alike are not the old side's."""
    found = windows_of(metric(value="avg(x{ {{side}} })"), "old")[0].queries[0]
    yes, no = re.search(r'pod=~"(.*?)"', found), re.search(r'pod!~"(.*?)"', found)
    assert yes and no
    assert bool(re.fullmatch(yes[1], pod) and not re.fullmatch(no[1], pod)) is is_ours


def made_by(deployment: str, digest: str, end: str) -> str:
    """Return the name of a pod as the API server makes it (apiserver's storage/names)."""
    return f"{deployment}-{digest}-"[:58] + end


@pytest.mark.parametrize("length", [*range(45, 64)])
@pytest.mark.parametrize("digests", [("6b7c9d4f8", "7d9f8b6c5d"), ("7d9f8b6c5d", "55c9c4f8bd"), ("5c9c", "6d4f8b")])
def test_pods_of_a_long_name_are_of_their_side(length: int, digests: tuple[str, str]) -> None:
    """The API server cuts the names of pods: without that, the old side had no data, and the rollout held."""
    deployment = ("vllm-llama-3-1-405b-instruct-fp8-deployment-" * 2)[: length - 4] + "vllm"
    before = [made_by(deployment, digests[0], end) for end in ("x2x4z", "bcd24")]
    after = [made_by(deployment, digests[1], end) for end in ("7d4kf", "c9wvq")]
    target = DeploymentTarget(kind="Deployment", name=deployment)
    # Of the new pods, the second one is gone.
    pods = Pods(old=(Replica(before[0], "1", started_at=1.0),), new=(Replica(after[0], "2", started_at=1.0),))
    sides: dict[str, Callable[[str], bool]] = {}
    for side in ("old", "new"):
        found = windows_of(metric(value="avg(x{ {{side}} })"), side, target, pods)[0].queries[0]
        yes, no = re.search(r'pod=~"(.*?)"', found), re.search(r'pod!~"(.*?)"', found)
        assert yes
        sides[side] = partial(is_matched, yes[1], no[1] if no else "-")
    assert [*map(sides["old"], before)] == [True, True] and [*map(sides["new"], before)] == [False, False]
    assert sides["new"](after[0]) and not sides["old"](after[0])
    if length <= 52:  # else the name does not tell the ReplicaSet
        assert sides["new"](after[1]) and not sides["old"](after[1])
    for other in (f"{deployment}-0", made_by(f"{deployment[:30]}-x", digests[0], "x2x4z")):
        assert not sides["old"](other) and not sides["new"](other)


def is_matched(yes: str, no: str, pod: str) -> bool:
    return bool(re.fullmatch(yes, pod) and not re.fullmatch(no, pod))


def test_all_variables_have_values() -> None:
    """Each variable is filled, for both sides; dots of a name stand for themselves."""
    query = "|".join("{{" + name + "}}" for name in VARIABLES if name not in {"side", "service"})
    [new] = windows_of(metric(value=query), "new")
    assert new.queries == (f"serving|chat|chat-6b7c9d4f8-{SAFE}{{5}}|6b7c9d4f8|30s",)
    dotted = Pods(new=(Replica("a.b-0", "v", started_at=1.0),))
    assert 'pod=~"a[.]b-0"' in windows_of(metric(value="x{ {{side}} }"), "new", pods=dotted)[0].queries[0]
    with pytest.raises(Unanswerable, match="no ReplicaSet hash"):
        windows_of(metric(value="x{ {{revision}} }"), "new", pods=dotted)
    with pytest.raises(Unanswerable, match="names no Service for each side"):
        windows_of(metric(value="x{ {{service}} }"), "new")
    routed = Rules.model_validate({"strategy": {"traffic": ROUTE}})
    m = metric(preset="nginx/latency")
    services: tuple[tuple[Literal["old", "new"], str], ...] = (("old", "a"), ("new", "b"))
    for side, service in services:
        [query] = windows(m, side, CHAT, routed, PODS, grid(m, 0, 90))[0].queries
        found = {*re.findall(r"_bucket{(.*?)}", query)}
        own = [f'service="{service}", {label}="{CHAT.namespace}"' for label in ("namespace", "exported_namespace")]
        assert found == {*own}, "and of no Service of that name in another namespace"


def test_the_old_side_of_a_pair_is_its_old_deployment() -> None:
    """It is selected by its own name, whatever pods it has now."""
    pair = PairTarget(kind="DeploymentPair", name="chat", old="chat", new="chat-v2")
    [old] = windows_of(metric(value="x{ {{side}} }"), "old", pair)
    assert old.queries == (f'x{{ namespace="default", pod=~"chat-{SAFE}{{3,10}}-{SAFE}{{5}}" }}',)


def numbered(*starts: float) -> Pods:
    return Pods(new=tuple(Replica(f"llm-{n}", "v", started_at=at) for n, at in enumerate(starts)))


def test_a_numbered_replica_counts_as_new_from_its_own_start_on() -> None:
    """Before it began, what has its name was old: windows are cut where each begins, at the next whole interval."""
    target = StatefulSetTarget(kind="StatefulSet", name="llm")
    found = windows_of(metric(value="x{ {{side}} }"), "new", target, numbered(1000, 1031, 9999), Grid(1030, 30, 4))
    assert [(w.start, w.end) for w in found] == [(0, 2), (2, 4)]
    assert [re.findall(r'pod!~"(.*)"', w.queries[0]) for w in found] == [["llm-1|llm-2"], ["llm-2"]]
    assert windows_of(metric(value="x"), "new", target, numbered(9999), Grid(1030, 30, 4)) == []


def test_warmup_leaves_out_each_new_replicas_beginning() -> None:
    """A replica counts from the first interval on that begins when it is warm; the old side is left whole."""
    m = metric(value="x{ {{side}} }", warmup="45s")
    assert [(w.start, w.end) for w in windows_of(m, "new", over=Grid(1030, 30, 4))] == [(2, 4)]
    assert [(w.start, w.end) for w in windows_of(m, "old", over=Grid(1030, 30, 4))] == [(0, 4)]
    many = windows_of(m, "new", pods=numbered(*(1000 + 30 * n for n in range(40))), over=Grid(1030, 30, 60))
    assert len(many) == MAX_WINDOWS
    assert many[-1].end == 60


def test_the_grid_is_aligned_to_where_evidence_begins() -> None:
    """Each measurement asks for the same ends as the one before, and for more; of `lookback` only the newest."""
    m = metric(interval="10s")
    assert grid(m, 1000.5, 1000.5).size == 0
    assert grid(m, 1000.5, 1031.0) == Grid(1010.5, 10.0, 3)
    assert grid(m, 1000.5, 1041.0).first == 1010.5
    back = metric(interval="10s", lookback="20s", judge={"threshold": {"max": 1}})
    assert grid(back, 1000, 1100) == Grid(1090, 10.0, 2)
    assert grid(m, 0, 10_000_000).size == 10_000
    assert (duration(1.0), duration(1.5)) == ("1s", "1500ms")


@pytest.mark.parametrize(
    ("series", "why"),
    [
        (CountSeries(intervals=(Count(bad=0, total=9), None, None, None)), "is it still scraped?"),
        (
            ValueSeries(intervals=(1.0, None, None, None)),
            "scraped?; without requests, a mean or a quantile has no samples",
        ),
    ],
)
def test_a_side_without_new_samples_is_no_evidence(series: Any, why: str) -> None:
    """A lull looks the same as a broken scrape where zero requests have no number."""
    context: Any = SimpleNamespace(seen=SimpleNamespace(pods=Pods(old=(OLD,))))
    with pytest.raises(Unanswered, match="the newest sample of the old side is 3 intervals old") as caught:
        _refuse_stale({"old": _Side(series)}, context)
    assert str(caught.value).endswith(why)


# --- presets ---

_BALANCED = {")": "(", "}": "{", "]": "["}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_is_well_formed(preset: Preset) -> None:
    """Its queries are balanced, have known variables only and select one side; its names are Prometheus'."""
    assert re.fullmatch(r"[a-z-]+/[a-z-]+", preset.name) and preset.what and preset.source
    assert len(preset.queries) == (2 if preset.kind == "counts" else 1)
    for query in preset.queries:
        assert set(holes(query)) - {"namespace"} == {preset.scope, "interval"}
        stack: list[str] = []
        for letter in re.sub(r'"[^"]*"', "", query):
            if letter in _BALANCED.values():
                stack.append(letter)
            elif letter in _BALANCED:
                assert stack.pop() == _BALANCED[letter]
        assert not stack
        names = re.findall(r"increase\(([^{]+)\{|avg_over_time\(([^{]+)\{", query)
        assert names
        for name in (a or b for a, b in names):
            assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name)
            assert name.endswith("_bucket") is (preset.kind == "histogram")
    Metric.model_validate({"name": "m", "preset": preset.name, "judge": JUDGE})


@pytest.mark.parametrize(
    ("preset", "path"),
    [
        ("vllm/errors", "/v1/completions"),
        ("sglang/errors", "/v1/chat/completions"),
        ("sglang/errors", "/generate"),
        ("mlserver/errors", "/v2/models/{model_name}/infer"),
    ],
)
def test_probes_and_scrapes_are_no_users_requests(preset: str, path: str) -> None:
    """These servers count every answer. A server that starts answers its probes with 503."""
    for query in PRESETS[preset].queries:
        (counted,) = re.findall(r'(?:handler|endpoint|path)=~"([^"]*)"', query)
        others = ("/health", "/health_generate", "/metrics", "/metrics/", "/v2/health/ready")
        assert re.fullmatch(counted, path) and not any(re.fullmatch(counted, each) for each in others)


# --- what is answered ---

OVER = Grid(100.0, 10.0, 3)


def matrix(*series: tuple[dict[str, str], list[Any]], **more: Any) -> dict[str, Any]:
    found = [{"metric": labels, "values": values} for labels, values in series]
    return {"status": "success", "data": {"resultType": "matrix", "result": found}, **more}


def test_an_answer_is_read_onto_the_grid() -> None:
    """Values stand at their interval; NaN, infinity and gaps are none; what is outside is left out."""
    values = [[100, "1"], [110.0004, "NaN"], [120, "+Inf"], [130, "4"]]
    found = read_matrix(matrix(({"__name__": "x", "a": "b"}, values), warnings=["w" * 999]), OVER, 1)
    assert found.series == {(("a", "b"),): (1.0, None, None)}
    assert len(found.warnings[0]) == 300


def test_many_series_are_told_and_not_guessed() -> None:
    """More than one series for one number is refused with what tells them apart."""
    two = matrix(({"pod": "a"}, []), ({"pod": "b"}, []))
    with pytest.raises(Unanswered, match=r"2 series \(by pod\).*sum them up"):
        read_matrix(two, OVER, 1)
    with pytest.raises(Unanswered, match="instead of a matrix"):
        read_matrix({"status": "success", "data": {"resultType": "scalar", "result": []}}, OVER, 1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(json.dumps(matrix(({}, [["NaN", "1"]]))).encode(), id="no-time"),
        pytest.param(json.dumps(matrix(({}, [[10**400, "1"]]))).encode(), id="no-float"),
        pytest.param(json.dumps(matrix(({}, [[math.inf, "1"]]))).encode(), id="infinite-time"),
        pytest.param(b"<html>", id="html"),
    ],
)
def test_any_other_answer_is_named(body: bytes) -> None:
    """It raises nothing else, which would be told as an error of Segue's."""
    provider = Prometheus("main", PrometheusSettings(url="http://prometheus"))
    with pytest.raises(Unanswered, match="provider main: its answer is not of Prometheus' API"):
        provider._read(body, OVER, 1)


async def test_a_renewed_authority_is_trusted_without_a_restart(tmp_path: Path) -> None:
    """The chart mounts it from a Secret, which cert-manager renews: each query failed until the worker's next start."""
    old, new = (Authority.create(tmp_path, stem) for stem in ("old", "new"))
    pair = new.server("prometheus", ["127.0.0.1"])
    (tmp_path / "server.pem").write_bytes(pair.cert_pem + pair.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem")

    async def query(_: web.Request) -> web.Response:
        return web.json_response({"data": {"result": [0, "7"]}})

    app = web.Application()
    app.add_routes([web.post("/api/v1/query", query)])
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(old.cert_path.read_bytes())
    server = TestServer(app)
    await server.start_server(ssl=context)
    provider = Prometheus("main", PrometheusSettings(url=f"https://127.0.0.1:{server.port}", ca_file=ca_file))
    try:
        with pytest.raises(Unanswered, match="its certificate is not trusted"):
            await provider.clock()
        ca_file.write_bytes(new.cert_path.read_bytes())
        assert await provider.clock() == 7
    finally:
        await provider.close()
        await server.close()


def test_native_histograms_are_named() -> None:
    """They come beside the values, or in their place: it read as if there were no data."""
    answer = matrix(({}, []))
    answer["data"]["result"][0]["histograms"] = [[100, {"count": "3", "sum": "1.5", "buckets": []}]]
    with pytest.raises(Unanswered, match="native histograms, which cannot be judged; take a number of them"):
        read_matrix(answer, OVER, 1)


def test_counts_without_bad_events_are_good_and_without_any_unknown() -> None:
    """A counter of errors often appears with the first error; without a total nothing is known."""
    some: Values = {(): (None, 2.0, 9.0)}
    found = joined("counts", OVER, [MeasuredAnswer(0, 3, (some, {(): (10.0, 10.0, 5.0)}))])
    assert found.series == CountSeries(intervals=tuple(Count(bad=b, total=t) for b, t in ((0, 10), (2, 10), (5, 5))))
    assert "counted as none" in found.notes[0]
    assert joined("counts", OVER, [MeasuredAnswer(0, 3, (some, {}))]).series is None
    assert joined("counts", OVER, []).series is None


def test_a_histogram_has_the_edges_of_all_windows() -> None:
    """Cumulative counts stand by edge, all events last; an interval that lacks one of them is none."""

    def le(edge: str) -> tuple[tuple[str, str], ...]:
        return (("le", edge),)

    early = {le("0.5"): (1.0,), le("1.0"): (2.0,), le("+Inf"): (3.0,), (("le", "x"),): (9.0,)}
    late = {le("1"): (4.0, None), le("+Inf"): (5.0, 6.0)}
    found = joined("histogram", OVER, [MeasuredAnswer(0, 1, (early,)), MeasuredAnswer(1, 3, (late,))])
    assert found.series == HistogramSeries(edges=(1.0,), intervals=((2.0, 3.0), (4.0, 5.0), None))
    assert joined("histogram", OVER, [MeasuredAnswer(0, 3, ({},))]).series is None


def test_values_of_windows_follow_each_other() -> None:
    """What no window covers is none."""
    found = joined("values", OVER, [MeasuredAnswer(1, 3, ({(): (1.0, 2.0)},))])
    assert found.series == ValueSeries(intervals=(None, 1.0, 2.0))


# --- where Prometheus is ---


@pytest.mark.parametrize(
    ("setting", "field", "expected"),
    [
        ('{"default": {}}', "SEGUE_PROMETHEUS_DEFAULT_URL", "is missing; add it"),
        ('{"default": {"url": "prometheus:9090"}}', "SEGUE_PROMETHEUS_DEFAULT_URL", "write http://HOST:PORT"),
        ('{"default": {"url": "http://me:s3cret@p:1"}}', "SEGUE_PROMETHEUS_DEFAULT_URL", "put credentials in files"),
        ('{"default": {"url": "http://p:1?token=s3cret"}}', "SEGUE_PROMETHEUS_DEFAULT_URL", "put credentials in files"),
        (
            '{"default": {"url": "http://p:1", "timeout_s": 0}}',
            "SEGUE_PROMETHEUS_DEFAULT_TIMEOUT_S",
            "write more than 0;",
        ),
        ('{"default": {"url": "http://p:1", "token": "s"}}', "SEGUE_PROMETHEUS_DEFAULT_TOKEN", "is not a field"),
    ],
)
def test_a_wrong_setting_is_refused_without_its_secret(
    setting: str, field: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker does not start; what may have a password in it is not shown."""
    monkeypatch.setenv("SEGUE_PROMETHEUS", setting)
    with pytest.raises(Refused, match=re.escape(expected)) as refusal:
        load_settings()
    assert refusal.value.field == field
    assert "s3cret" not in str(refusal.value)


def test_the_setting_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, as JSON; a slash at the end of the address is nothing."""
    monkeypatch.setenv("SEGUE_PROMETHEUS", '{"default": {"url": "https://p:9090/prefix/", "ca_file": "/ca.crt"}}')
    found = load_settings().prometheus["default"]
    assert (found.url, str(found.ca_file), found.timeout_s) == ("https://p:9090/prefix", "/ca.crt", 10)
