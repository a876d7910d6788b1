"""Ready is not serving: real model servers are checked before they count; what fails is reported, and rolled back."""

import asyncio
import re
import time
from contextlib import ExitStack
from typing import Any

import pytest
from harness import Case, until
from segue_local.traffic import Traffic
from serving import INFER, MLSERVER, MODELS, REPLICAS, STREAMS, Serving, assert_nothing_lost

from segue.contract import Beat
from segue.report import Report

QUICK = {"minReady": "1s", "deadline": "3m"}
SOON_S = 60.0
"""A third of the deadline that ends the rollout anyway: within it, what failed is noticed, on a slow machine too."""


def inference(version: str, **expected: Any) -> dict[str, Any]:
    """The request to MLServer."""
    expect = {"json": [{"path": "$.outputs[0].shape", "equals": [1, 1]}], **expected}
    return {"openInference": {"model": "iris", "version": version, "request": INFER, "expect": expect}}


def none_was_taken(case: Case, replicas: int = REPLICAS) -> None:
    """Every old replica was there at every moment: none was taken on the word of a new one."""
    for sample in case.watcher.samples:
        assert sum(n for version, n, _ in sample.by_image if version.startswith(f"{case.image} ")) == replicas, sample


def reported_after(case: Case, report: Report) -> float:
    """Seconds from when the first new replica was Ready to when the rollout turned back."""
    ready = next(s for s in case.watcher.samples if any(r for v, _, r in s.by_image if not v.startswith(case.image)))
    since = time.time() - time.monotonic() + ready.at
    after_s = went_back(report) - since
    print(f"reported {after_s:.1f} s after Ready: {report.status.reason}")
    return after_s


def went_back(report: Report) -> float:
    """When the report tells that it turned back: seconds since the epoch."""
    return next(entry.at for entry in report.entries if entry.what == "going back")


def never_asked_back(case: Case) -> None:
    """No old replica came back: nothing that was believed was ever doubted."""
    olds = [sum(n for v, n, _ in s.by_image if v.startswith(f"{case.image} ")) for s in case.watcher.samples]
    assert olds == sorted(olds, reverse=True), olds


@pytest.fixture
async def asking(serving: Serving) -> Serving:
    """The same with the optional rights."""
    serving.lab.let_ask_pods()
    return serving


async def test_a_version_that_answers_wrong_is_taken_back(asking: Serving) -> None:
    """Ready all three: another version than its tag says, one that fails, one that is slow. Then one that serves."""
    bad: list[tuple[str, dict[str, Any], str, str]] = [
        ("wrong-version", {"checks": [inference("{tag}")]}, "v2", "answered as version 'v2', not 'wrong-version'"),
        ("errors", {"checks": [inference("v3-{tag}")], "requests": 60}, "v3-errors", "answered 500, not 200"),
        ("slow", {"checks": [inference("v3-{tag}", within="300ms")]}, "v3-slow", "0.3 s are allowed"),
    ]
    await asking.deploy("chat", MLSERVER)
    asking.lab.worker()
    with asking.traffic("chat") as load:
        for tag, serving, _, why in bad:
            async with asking.lab.rolled("chat", MLSERVER.change(tag), readiness=QUICK, serving=serving) as case:
                report = await case.ends("RolledBack")
            assert report.status.reason.startswith("Serving: ") and why in report.status.reason, report.status.reason
            none_was_taken(case)
            assert reported_after(case, report) < SOON_S + 4  # minReady, and what lies between three tries
            await asking.serves("chat")
        so_far = load.so_far()
        assert {request.why for request in so_far.failed} <= {"status 500"}  # the bad version's own word
        checks = {"checks": [inference("{tag}", within="2s")], "warmup": 2, "requests": 3}
        async with asking.lab.rolled("chat", MLSERVER.change("v2"), readiness=QUICK, serving=checks) as case:
            await case.ends("Completed")
        case.watcher.assert_within(REPLICAS, REPLICAS + 1)
        await asking.serves("chat")
        outcomes = await asyncio.to_thread(load.stop)
    assert len(outcomes.failed) == len(so_far.failed) and not outcomes.dropped
    assert outcomes.by_version.keys() >= {"v1", "v2"}


async def test_no_user_meets_a_bad_version(asking: Serving) -> None:
    """By blue/green each replica is checked before any user comes: it fails, or outgrows its memory."""
    bad: list[tuple[str, dict[str, Any], str]] = [
        ("errors", inference("v3-{tag}"), "answered 500"),
        ("oom", inference("v3-{tag}"), "killed for lack of memory; its limit is 400Mi"),
    ]
    await asking.deploy("chat", MLSERVER, labels={"side": "blue"})
    asking.lab.worker()
    target = {"kind": "DeploymentPair", "namespace": asking.lab.namespace, "old": "chat", "new": "chat-green"}
    strategy = {"type": "blueGreen", "traffic": {"service": "chat"}}
    with asking.traffic("chat") as load, asking.lab.watch("chat") as watcher:
        for tag, check, why in bad:
            server = {"name": "server", "image": f"{MLSERVER.image}:{tag}"}
            change = {"patch": {"metadata": {"labels": {"side": "green"}}, "spec": {"containers": [server]}}}
            serving = {"checks": [check], "requests": 60, "tries": 1}
            run = await asking.lab.start(
                "chat", change, target=target, strategy=strategy, readiness=QUICK, serving=serving
            )
            report = await run.end()
            assert report.status.outcome == "RolledBack" and why in report.status.reason, report.status.reason
        outcomes = await asyncio.to_thread(load.stop)
    assert_nothing_lost(outcomes)
    assert outcomes.by_version.keys() == {"v1"}
    # The last one, as its pod tells it: when it was killed, and how near its limit it was seen.
    assert went_back(report) - min(watcher.killed_at) < SOON_S
    seen = re.search(r"its limit is 400Mi; (\d+)Mi is the most that was seen before", report.status.reason)
    assert seen and 40 < int(seen.group(1)) <= 400, report.status.reason
    assert "its last words: " in report.status.reason


async def test_a_stream_is_believed(asking: Serving) -> None:
    """Asked at the pod's own address: one that fails, one whose first token is late; then one that streams."""
    chat = {"model": "words", "stream": True, "firstToken": "2s", "maxTokens": 2}
    bad = [("errors", "answered 500, not 200"), ("slow-first-token", "s; 2 s are allowed")]
    await asking.deploy("chat", STREAMS, replicas=2)
    asking.lab.worker(SEGUE_POD_ACCESS="direct")
    for tag, why in bad:
        serving = {"checks": [{"openAI": chat}], "requests": 2, "tries": 2}
        async with asking.lab.rolled("chat", STREAMS.change(tag), readiness=QUICK, serving=serving) as case:
            report = await case.ends("RolledBack")
        assert report.status.reason.startswith("Serving: ") and why in report.status.reason, report.status.reason
        case.watcher.assert_within(2, 3, passing=1)
    expects = {"expect": {"json": [{"path": "$.system_fingerprint", "equals": "{tag}"}]}}
    serving = {
        "checks": [{"openAI": {**chat, **expects}}, {"http": {"path": "/health", "expect": {"matches": "{tag}"}}}]
    }
    async with asking.lab.rolled("chat", STREAMS.change("v2"), readiness=QUICK, serving=serving) as case:
        await case.ends("Completed")
    case.watcher.assert_within(2, 3)


async def checked_now(case: Case) -> set[str]:
    """The replica whose serving checks run, according to the watch's latest heartbeat."""
    description = await case.run.handle.describe()
    for pending in description.raw_description.pending_activities:
        if not pending.heartbeat_details.payloads:
            continue
        [beat] = await case.lab.temporal.data_converter.decode(pending.heartbeat_details.payloads, [Beat])
        problem = beat.seen.problem if beat.seen else None
        if problem is not None and problem.message == "serving checks are running":
            return {problem.replica}
    return set()


@pytest.mark.soak
async def test_the_worker_is_killed_while_it_asks(asking: Serving) -> None:
    """Killed while it asks the second new replica, the next worker believes the first before anything moves."""
    await asking.deploy("chat", MLSERVER)
    worker = asking.lab.worker()
    serving = {"checks": [inference("v3-{tag}")], "requests": 10}  # each answer takes 0.4 s
    with asking.traffic("chat") as load:
        async with asking.lab.rolled("chat", MLSERVER.change("slow"), readiness=QUICK, serving=serving) as case:
            checked: set[str] = set()

            async def asks_second() -> bool:
                checked.update(await checked_now(case))
                return len(checked) >= 2

            await until("the second new replica to be checked", asks_second)
            worker.kill()
            worker.start()
            await case.ends("Completed")
        case.watcher.assert_within(REPLICAS, REPLICAS + 1)
        never_asked_back(case)
        await asking.serves("chat")
        assert_nothing_lost(await asyncio.to_thread(load.stop))


async def test_models_that_do_not_load(asking: Serving) -> None:
    """Three models that others have loaded do not load on one that is Ready: critical. What loads slowly is awaited."""
    await asking.deploy("many", MODELS, replicas=1)
    asking.lab.worker()
    loads = {"protocol": "openInference", "loadTimeout": "6s", "interval": "1s"}
    async with asking.lab.rolled("many", MODELS.change("three-missing"), readiness=QUICK, loadFailures=loads) as case:
        report = await case.ends("RolledBack")
    assert report.status.reason.startswith("Loading: many-"), report.status.reason
    assert "3 models that are loaded on other replicas did not load (m1, m2, m3)" in report.status.reason
    case.watcher.assert_within(1, 2, passing=1)
    assert reported_after(case, report) < SOON_S + 6  # MLServer gives no reason: it is known after the load timeout
    slowly = {"env": {"server": {"LOAD_PAUSE_S": "0.5"}}}
    async with asking.lab.rolled("many", MODELS.change("v2", **slowly), readiness=QUICK, loadFailures=loads) as case:
        await case.ends("Completed")
    case.watcher.assert_within(1, 2)


FAILURES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "image-pull": (
        {"patch": {"spec": {"containers": [
            {"name": "server", "image": "registry.invalid/llm:9", "imagePullPolicy": "IfNotPresent"}]}}},
        {"readiness": QUICK}, r"ImagePull: .*image registry\.invalid/llm:9: .*registry\.invalid",
    ),
    "crash-loop": (
        MLSERVER.change("cannot-load"), {"readiness": QUICK, "serving": {"checks": [inference("{tag}")]}},
        r"(CrashLoop|Restarted): .*ended with exit code \d+ and was restarted \d+ times?; its last words: \S",
    ),
    "never-ready": (
        MLSERVER.change("never-ready"), {"readiness": {"minReady": "1s", "deadline": "12s"}},
        r"Unready: .*no progress for 12 s.*Readiness probe failed: ",
    ),
}  # fmt: skip
POLICY_S = {"crash-loop": 0.0, "image-pull": 10.0, "never-ready": 12.0}
"""How long each is waited for: not at all, until the pod's status tells the kubelet's back-off, until the deadline."""
FEW = 8
"""Requests a second, where several targets have traffic at once."""


def since_symptom(serving: Serving, case: Case, name: str, report: Report) -> float:
    """Seconds from when a failure can be known, by its pod's own status and events, to its report.

    A registry that does not answer may do so the next time: the kubelet's first back-off says that it did not.
    """
    at = went_back(report)
    if name == "never-ready":  # its deadline begins with the write
        return at - next(entry.at for entry in report.entries if entry.what == "scaled")
    if name == "crash-loop":
        return at - min(case.watcher.ended_at)
    listed: list[Any] = serving.lab.core.list_namespaced_event(serving.lab.namespace).items
    mine = [e for e in listed if e.reason == "BackOff" and e.involved_object.name.startswith(f"{name}-")]
    first: float = min((e.first_timestamp or e.event_time).timestamp() for e in mine)
    return at - first


async def test_causes_are_told(asking: Serving) -> None:
    """A registry's word, a crash's last lines, a probe's message: reported soon, rolled back, and no request lost."""
    for name in FAILURES:
        await asking.deploy(name, MLSERVER, replicas=1)
    asking.lab.worker()

    async def one(name: str, load: Traffic) -> None:
        change, rules, words = FAILURES[name]
        async with asking.lab.rolled(name, change, **rules) as case:
            report = await case.ends("RolledBack")
        assert re.search(words, report.status.reason), report.status.reason
        none_was_taken(case, 1)
        assert_nothing_lost(await asyncio.to_thread(load.stop))
        after_s = since_symptom(asking, case, name, report)
        print(f"{name}: reported {after_s:.1f} s after it can be known: {report.status.reason}")
        assert POLICY_S[name] - 1 < after_s < POLICY_S[name] + SOON_S, report.status.reason

    with ExitStack() as loads:
        await asyncio.gather(*(one(name, loads.enter_context(asking.traffic(name, FEW))) for name in FAILURES))
