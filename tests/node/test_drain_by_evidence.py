"""Old replicas go when their own servers say that they are empty: real streams, longer than they may take to stop."""

import asyncio
import re
from typing import Any

import pytest
from harness import until
from segue_local.traffic import StreamOutcomes
from serving import STREAMS, Serving

from segue.report import Report

QUICK = {"minReady": "1s", "deadline": "1m"}
REPLICAS = 2
STREAM_S = 12
GRACE_S = 3
"""Shorter than a stream: a replica that stops in the middle of one cuts it."""
WITHOUT_HELP: dict[str, Any] = {"pre_stop_s": 0, "grace_s": GRACE_S}
EMPTY: dict[str, Any] = {"quiet": "1s", "timeout": "2m", "until": {"preset": "vllm", "port": 8080}}


async def rolled(serving: Serving, tag: str, drain: dict[str, Any]) -> tuple[Report, StreamOutcomes]:
    """Roll two replicas under streams, and return what became of both."""
    await serving.deploy("chat", STREAMS, REPLICAS, **WITHOUT_HELP)
    serving.lab.worker(SEGUE_POD_ACCESS="direct")
    with serving.streams("chat", tokens=STREAM_S * 10) as load:
        async with serving.lab.rolled("chat", STREAMS.change(tag), readiness=QUICK, drain=drain) as case:
            report = await case.ends("Completed")
        case.watcher.assert_within(REPLICAS, REPLICAS + 1)
        await serving.serves("chat")
        return report, await asyncio.to_thread(load.stop)


def details(report: Report, what: str) -> list[str]:
    return [entry.detail for entry in report.entries if entry.what == what]


async def test_no_stream_is_cut(serving: Serving) -> None:
    """Streams that outlast the grace period end whole, and the report says how long each step waited for them."""
    report, outcomes = await rolled(serving, "v2", EMPTY)
    assert not outcomes.cut, [stream.why for stream in outcomes.cut][:5]
    drained = details(report, "drained")
    assert len(drained) == REPLICAS and all("1 old replica empty after" in each for each in drained), drained
    assert any("cut in a rollback" in each for each in details(report, "warning"))


@pytest.mark.soak
async def test_without_evidence_they_are_cut(serving: Serving) -> None:
    """The same without `until`: they are out of their Services first, and their streams are cut all the same."""
    report, outcomes = await rolled(serving, "v2", {"quiet": "1s"})
    assert outcomes.cut
    assert any("streams may be cut" in each for each in details(report, "warning"))


async def test_the_deadline_is_recorded(serving: Serving) -> None:
    """What is not empty in time goes all the same: the report warns, with how much still ran."""
    report, outcomes = await rolled(serving, "v2", {**EMPTY, "timeout": "2s"})
    warned = "\n".join(details(report, "warning"))
    assert re.search(r"drain\.timeout is over after \d+ s: [1-9]\d* requests running or queued", warned), warned
    assert outcomes.cut


@pytest.mark.soak
async def test_a_lost_worker_and_an_abort(serving: Serving) -> None:
    """Killed while old replicas become empty, another worker goes on; aborted there, all of them serve again."""
    await serving.deploy("chat", STREAMS, REPLICAS, **WITHOUT_HELP)
    worker = serving.lab.worker(SEGUE_POD_ACCESS="direct")

    def is_draining() -> bool:
        conditions = [c for pod in serving.lab.pods("chat") for c in pod.status.conditions or []]
        return any(c.type == "Ready" and c.reason == "Draining" for c in conditions)

    with serving.streams("chat", tokens=STREAM_S * 10) as load:
        async with serving.lab.rolled("chat", STREAMS.change("v2"), readiness=QUICK, drain=EMPTY) as case:
            await until("a replica to become empty", is_draining)
            worker.kill()
            worker.start()
            await case.ends("Completed")
        async with serving.lab.rolled("chat", STREAMS.change("v1"), readiness=QUICK, drain=EMPTY) as case:
            await until("a replica to become empty", is_draining)
            await case.run.send("abort")
            await case.ends("Aborted")
        await serving.serves("chat")
        outcomes = await asyncio.to_thread(load.stop)
    # On the way back the controller takes the new ones, of v1 this time, as it does: that was warned of.
    spared = [stream for stream in outcomes.cut if "v2" in stream.versions]
    assert not spared, [stream.why for stream in spared][:5]
