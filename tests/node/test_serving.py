"""Ready is not serving: real model servers are asked before they are believed, and what fails is told and taken back."""

import asyncio
from typing import Any

import pytest
from harness import Case
from serving import INFER, MLSERVER, REPLICAS, Serving

QUICK = {"minReady": "1s", "deadline": "1m"}
SOON_S = 10.0
"""Within so many seconds after it can be known, a failure is told."""


def inference(version: str, **expected: Any) -> dict[str, Any]:
    """What MLServer is asked."""
    expect = {"json": [{"path": "$.outputs[0].shape", "equals": [1, 1]}], **expected}
    return {"openInference": {"model": "iris", "version": version, "request": INFER, "expect": expect}}


def old_ready_throughout(case: Case) -> None:
    """Every old replica was Ready at every moment: none was taken on the word of a new one."""
    for sample in case.watcher.samples:
        ready = sum(ready for version, _, ready in sample.by_image if version.startswith(f"{case.image} "))
        assert ready == REPLICAS, sample


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
        ("errors", {"checks": [inference("v3-{tag}")], "requests": 4}, "v3-errors", "answered 500, not 200"),
        ("slow", {"checks": [inference("v3-{tag}", within="300ms")]}, "v3-slow", "0.3 s are allowed"),
    ]
    await asking.deploy("chat", MLSERVER)
    asking.lab.worker()
    with asking.traffic("chat") as load:
        for tag, serving, _, why in bad:
            async with asking.lab.rolled("chat", MLSERVER.change(tag), readiness=QUICK, serving=serving) as case:
                report = await case.ends("RolledBack")
            assert report.status.reason.startswith("Serving: ") and why in report.status.reason, report.status.reason
            old_ready_throughout(case)
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
