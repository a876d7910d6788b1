"""Notifications to real receivers: each once, also when a worker is killed; none of them holds up a rollout."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, open_lab, until
from killing_worker import CRASHING, KillingWorker
from receivers import TOKEN, Receivers, receiving
from segue_local import Stack
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


@pytest.fixture(scope="module")
async def receivers() -> AsyncIterator[Receivers]:
    async with receiving() as served:
        yield served


def settings(receivers: Receivers, folder: Path) -> dict[str, str]:
    return {
        "SEGUE_NOTIFICATIONS": receivers.settings(folder),
        "SEGUE_TEMPORAL_UI": "https://ui.example",
        "SEGUE_LOG_LEVEL": "DEBUG",
    }


@pytest.fixture(scope="module")
async def lab(stack: Stack, receivers: Receivers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A worker that knows the receivers, and logs all it can."""
    async with open_lab(stack) as opened:
        opened.worker(**settings(receivers, tmp_path_factory.mktemp("notifications")))
        yield opened


def to(*names: str, events: list[str] | None = None) -> list[dict[str, Any]]:
    return [{"name": name, **({} if events is None else {"events": events})} for name in names]


async def test_each_transition_is_sent_once_through_the_loss_of_a_worker(
    stack: Stack, receivers: Receivers, tmp_path: Path
) -> None:
    """The worker is killed after the receiver has a message and before Temporal knows: it comes again, with its key."""
    async with open_lab(stack) as own:
        worker = KillingWorker(own, "notify#1:after:kill", environment=settings(receivers, tmp_path))
        async with worker.explained(), own.case("once", 2, strategy=ASKS, notifications=to("killing")) as case:
            await worker.until_gone()
            worker.start()
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await case.run.send("approve")
            await case.ends("Completed")
            await until("the last message", lambda: "completed" in receivers.types("killing", "once"))
        sent = [each for each in receivers.events["killing"] if each["subject"] == f"{own.namespace}/once"]
        unique = {each["id"]: each for each in sent}
        types = [each["type"].rpartition(".")[2] for each in sorted(unique.values(), key=lambda e: e["data"]["number"])]
        assert types == ["started", "awaitingApproval", "completed"]
        assert len(sent) == 4, "only the message whose answer was lost came twice"
        assert not receivers.unsigned["killing"]


async def test_what_a_message_says(lab: Lab, receivers: Receivers) -> None:
    """A rollback tells its reason, what to do, and where to look; a service gets text, and no secret is logged."""
    async with lab.case(
        "bad", 2, CRASHING, notifications=[*to("plain"), *to("service", events=["rolledBack"])]
    ) as case:
        report = await case.ends("RolledBack")
        await until("the messages", lambda: len(receivers.types("plain", "bad")) == 3 and receivers.events[TOKEN])
    assert receivers.types("plain", "bad") == ["started", "rollingBack", "rolledBack"]
    last = max(receivers.events["plain"], key=lambda each: each["data"]["number"])
    assert receivers.headers["Content-Type"] == "application/cloudevents+json"
    assert (last["specversion"], last["subject"]) == ("1.0", f"{lab.namespace}/bad")
    data = last["data"]
    assert data["reason"] == report.status.reason and "CrashLoop" in data["reason"]
    assert data["page"].startswith("https://ui.example/namespaces/default/workflows/rollout%2F")
    assert f"segue report {lab.namespace}/bad" in data["advice"]
    [text] = receivers.events[TOKEN]
    assert text["title"] == f"{lab.namespace}/bad: the rollout bad was rolled back"
    assert data["page"] in text["message"] and report.status.reason in text["message"]
    logged = "".join(worker.log.read_text() for worker in lab.workers)
    history = str([e async for e in case.run.handle.fetch_history_events()])
    assert TOKEN not in logged + history and receivers.address not in history


async def test_no_receiver_holds_up_a_rollout(lab: Lab, receivers: Receivers) -> None:
    """One hangs, one answers 500, one is not there: the rollout ends, and its workflow with it."""
    async with lab.case("deaf", 2, notifications=to("hanging", "broken", "nobody", events=["started"])) as case:
        report = await case.ends("Completed")
        key = f"{(await case.run.handle.describe()).run_id}/1-started"
    waited = [entry.at for entry in report.entries]
    ids = [f"notification/{case.run.handle.id.removeprefix('rollout/')}/{key}/{name}" for name in ("hanging", "broken")]
    for each in ids:
        handle = lab.temporal.get_workflow_handle(each)
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        await handle.terminate()
    await until("both were called", lambda: receivers.events["hanging"] and receivers.events["broken"])
    assert waited == sorted(waited)


REFUSED = {
    "unheard": ("spec.notifications[0].name", "'unheard'", "SEGUE_NOTIFICATIONS", "plain"),
    "misspelt": ("spec.notifications[0].name", "unusable settings", "address of Apprise"),
    "absent": ("spec.notifications[0].name", "unusable settings", "No such file"),
}


async def test_a_receiver_that_cannot_be_used_is_refused(lab: Lab, receivers: Receivers) -> None:
    """Before anything moves, with field, value and fix; the other receiver hears of the refusal."""
    await lab.deploy("refused", 1)

    async def refusal(name: str) -> str:
        target = {"namespace": lab.namespace, "name": "refused" if name == "unheard" else f"refused-{name}"}
        run = await lab.start(f"refused-{name}", target=target, notifications=to(name, "plain"))
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await run.plan()
        assert isinstance(caught.value.cause, ApplicationError)
        return caught.value.cause.message

    for said, words in zip(await asyncio.gather(*map(refusal, REFUSED)), REFUSED.values(), strict=True):
        assert all(word in said for word in words) and TOKEN not in said, said
    await until("the refusals", lambda: len([e for e in receivers.events["plain"] if "/refused" in e["subject"]]) == 3)
    told = next(each for each in receivers.events["plain"] if each["subject"].endswith("/refused"))
    assert "'unheard'" in told["data"]["reason"] and told["data"]["phase"] == "Preparing"
