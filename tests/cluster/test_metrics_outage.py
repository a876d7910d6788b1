"""Whole rollouts whose Prometheus is killed, hangs, or has nothing to say: they hold, then do as the policy says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
from harness import Case, Lab, open_lab, until
from own_prometheus import Levels, OwnPrometheus, own_prometheus
from segue_local import Stack

from segue.report import Report
from segue.status import Status

FINE = 7.0
TOKEN = "a-token-that-nobody-is-told"
LIMIT = 2
"""How many times in a row the provider may be unreachable, or its answer inconclusive."""
COUNT, ENDLESS = 10, 1000
"""Measurements that a stop takes: where the rollout is to go on, and where only the outage may end it.

More than can be had before an outage acts: a number counts for three intervals more.
"""


class Metered(NamedTuple):
    """A worker, the three Prometheus servers that it knows, and the numbers that they scrape."""

    lab: Lab
    levels: Levels
    killed: OwnPrometheus
    slow: OwnPrometheus
    secrets: tuple[str, ...]
    """What no status and no report may tell."""

    def rolled(self, name: str, provider: str, level: float | None = FINE, **policy: Any) -> Any:
        """A target that stops at its first new replica for a metric."""
        if level is not None:
            self.levels.tell(name, level)
        metric = {
            "name": "level", "provider": provider, "interval": "1s", "count": ENDLESS,
            "value": 'max(level{of="{{target}}"})', "judge": {"threshold": {"max": 10}},
            "consecutiveErrorLimit": LIMIT, **policy,
        }  # fmt: skip
        strategy = {"maxSurge": 1, "waypoints": [{"at": 1}]}
        return self.lab.case(name, 2, strategy=strategy, metrics=[metric])

    def assert_kept_secret(self, shown: Status | Report) -> None:
        text = shown.model_dump_json()
        assert not [secret for secret in self.secrets if secret in text], text


@pytest.fixture(scope="module")
async def metered(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Metered]:
    if stack.prometheus is None:
        pytest.skip("the stack that SEGUE_TEST_STACK names has no Prometheus: start it with --prometheus")
    levels, folders = Levels(), [tmp_path_factory.mktemp(name) for name in ("killed", "slow")]
    token = folders[0] / "token"
    token.write_text(TOKEN)
    async with open_lab(stack) as lab:
        with (
            own_prometheus(stack, folders[0], levels.address) as killed,
            own_prometheus(stack, folders[1], levels.address) as slow,
        ):
            stack.scrape(lab.namespace, [levels.address])
            await until("both to answer", lambda: killed.answers() and slow.answers())
            urls = {"killed": killed.url, "slow": slow.url, "whole": stack.prometheus}
            known = {name: {"url": url, "bearer_token_file": str(token), "timeout_s": 1} for name, url in urls.items()}
            lab.worker(SEGUE_PROMETHEUS=json.dumps(known))
            ports = (f":{url.rpartition(':')[2]}" for url in urls.values())
            yield Metered(lab, levels, killed, slow, (TOKEN, "127.0.0.1", *ports))
        stack.scrape(lab.namespace, [])
    levels.close()


# --- what is seen of one rollout ---


def measured(status: Status) -> int:
    """How many measurements of the present stop decided."""
    return status.gates[0].conclusive if status.gates else 0


async def in_the_middle(case: Case) -> int:
    """Wait until it stands at its waypoint with some of its measurements; returns where the watcher is then."""
    await case.reaches(2, 1)
    await case.run.until("some measurements", lambda s: measured(s) >= 2)
    return case.watcher.mark()


def olds(case: Case) -> list[int]:
    """How many old replicas there were after each event."""
    return [
        sum(n for version, n, _ in sample.by_image if version.startswith(f"{case.image} "))
        for sample in case.watcher.samples
    ]


def assert_none_went(case: Case, since: int, to: int | None = None) -> None:
    """No old replica went between the two marks."""
    seen = olds(case)[since - 1 : to]
    assert min(seen) == seen[0] == 2, seen


def verdicts(report: Report) -> list[str]:
    return [entry.detail for entry in report.entries if entry.what == "gate level"]


def tells(report: Report, why: str) -> bool:
    """Whether the report has the verdict of the outage: one that came instead of a pass, or the latest."""
    [gate] = report.status.gates
    latest = [gate.why] if gate.result == "inconclusive" else []
    undecided = [verdict for verdict in verdicts(report) if verdict.startswith("inconclusive: ")]
    return bool(undecided) and any(why in text for text in (*undecided, *latest))


# --- what each policy does ---


async def holds(metered: Metered, case: Case, since: int, why: str, mend: Callable[[], Any]) -> None:
    """However long it lasts, it stands where it is and says why; then it goes on, and ends, by itself."""
    before = await case.run.status()
    missed = LIMIT + 3
    status = await case.run.until(
        "more than the limit went unanswered",
        lambda s: why in s.gates[0].why and s.gates[0].measurements >= before.gates[0].measurements + missed,
    )
    assert status.phase == "Progressing" and not status.needs_person
    assert status.waiting_for.startswith("evidence: level: ") and why in status.waiting_for
    assert status.new.replicas == 1 and 2 <= measured(status) < COUNT, "the outage came too late"
    metered.assert_kept_secret(status)
    at = case.watcher.mark()
    mend()
    report = await case.ends("Completed")
    assert_none_went(case, since, at)
    assert tells(report, why) and verdicts(report)[-1].startswith("pass: the value of the new side is 7")
    metered.assert_kept_secret(report)


async def pauses(metered: Metered, case: Case, since: int, why: str, *, resumes: asyncio.Future[Any] | None) -> None:
    """It waits for a person; a resume evaluates the gate anew, and an abort brings the old version back."""
    status = await case.run.until("it asks a person", lambda s: s.needs_person)
    assert status.phase == "Held" and {"resume", "abort"} <= {*status.can}
    assert status.reason.startswith("Gate: level: ") and why in status.reason
    assert status.waiting_for.startswith("a person: ") and why in status.waiting_for
    metered.assert_kept_secret(status)
    if resumes is not None:
        await resumes
        await case.run.send("resume", reason="it is there again")
        await case.run.until("it is measured again", lambda s: measured(s) >= 1)
    await case.run.send("abort", reason="enough is seen")
    report = await case.ends("Aborted")
    assert_none_went(case, since)
    assert tells(report, why.partition(": ")[2])
    metered.assert_kept_secret(report)


async def goes_back(metered: Metered, case: Case, since: int, why: str) -> None:
    report = await case.ends("RolledBack")
    assert report.status.reason.startswith("Gate: level: ") and why in report.status.reason
    assert_none_went(case, since)
    assert tells(report, why.partition(": ")[2])
    metered.assert_kept_secret(report)


# --- nobody answers ---


async def outage(
    metered: Metered, provider: str, breaks: Callable[[], None], mends: Callable[[], None], why: str
) -> None:
    """One Prometheus goes in the middle of three rollouts, one for each policy."""
    mended = asyncio.get_running_loop().create_future()
    reason = f"no answer {LIMIT + 1} times in a row: {why}"

    def mend() -> None:
        mends()
        mended.set_result(None)

    async with AsyncExitStack() as cases:
        paused = await cases.enter_async_context(metered.rolled(f"{provider}-pause", provider))
        rolled = await cases.enter_async_context(
            metered.rolled(f"{provider}-rollback", provider, onInconclusive="rollback")
        )
        marks = await asyncio.gather(in_the_middle(paused), in_the_middle(rolled))
        holding = await cases.enter_async_context(
            metered.rolled(f"{provider}-hold", provider, onInconclusive="hold", count=COUNT)
        )
        since = await in_the_middle(holding)
        breaks()
        await asyncio.gather(
            holds(metered, holding, since, why, mend),
            pauses(metered, paused, marks[0], reason, resumes=mended),
            goes_back(metered, rolled, marks[1], reason),
        )


async def killed(metered: Metered) -> None:
    why = "provider killed cannot be queried: no connection (Connection refused)"
    await outage(metered, "killed", metered.killed.kill, metered.killed.start, why)


async def slow(metered: Metered) -> None:
    why = "provider slow: no answer within 1 s"
    await outage(metered, "slow", metered.slow.stall, metered.slow.go_on, why)


# --- it answers, and has nothing to say ---


async def nothing_reported(metered: Metered, kind: str, level: float | None) -> None:
    """NaN, or no series at all: from the beginning, or from the middle on."""
    nothing = "no data of the new side"

    async def from_the_middle(policy: str) -> None:
        name, why = f"{kind}-{policy}", "intervals old: is it still scraped?"
        count = COUNT if policy == "hold" else ENDLESS
        async with metered.rolled(name, "whole", onInconclusive=policy, count=count) as case:
            since = await in_the_middle(case)
            metered.levels.tell(name, level)
            if policy == "hold":
                await holds(metered, case, since, why, lambda: metered.levels.tell(name, FINE))
            else:
                await goes_back(metered, case, since, why)

    async def never(name: str, why: str, **policy: Any) -> None:
        async with metered.rolled(f"{kind}-{name}", "whole", level, **policy) as case:
            await case.reaches(2, 1)
            since = case.watcher.mark()
            if policy["onInconclusive"] == "pause":
                await pauses(metered, case, since, f"{why}: {nothing}", resumes=None)
            else:
                await goes_back(metered, case, since, f"{why}: {nothing}")

    limits = {"inconclusiveLimit": LIMIT}
    await asyncio.gather(
        from_the_middle("hold"),
        from_the_middle("rollback"),
        never("limit-pause", f"{LIMIT + 1} measurements were inconclusive", onInconclusive="pause", **limits),
        never("limit-rollback", f"{LIMIT + 1} measurements were inconclusive", onInconclusive="rollback", **limits),
        never("deadline", "undecided for 5 s", onInconclusive="rollback", deadline="5s"),
    )


async def test_an_outage_of_metrics_passes_nothing(metered: Metered) -> None:
    """Killed and empty, by each policy: no old replica goes, and the status names what it waits for."""
    await asyncio.gather(killed(metered), nothing_reported(metered, "empty", None))


@pytest.mark.soak
async def test_other_outages_of_metrics_pass_nothing(metered: Metered) -> None:
    """The same if Prometheus is slow, or a metric is NaN."""
    await asyncio.gather(slow(metered), nothing_reported(metered, "nan", float("nan")))
