"""Notifications to real receivers: each once, also when a worker is killed; none of them holds up a rollout."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, open_lab, until
from killing_worker import CRASHING, KillingWorker
from receivers import TOKEN, Receivers, receiving
from segue_local import Stack
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
REFUSED = {
    "unheard": ("spec.notifications[0].name", "'unheard'", "SEGUE_NOTIFICATIONS", "plain"),
    "misspelt": ("spec.notifications[0].name", "unusable settings", "address of Apprise"),
    "absent": ("spec.notifications[0].name", "unusable settings", "No such file"),
}


def to(*names: str, events: list[str] | None = None) -> list[dict[str, Any]]:
    return [{"name": name, **({} if events is None else {"events": events})} for name in names]


async def test_notifications(stack: Stack, tmp_path: Path) -> None:
    """First through the loss of the worker; then, with the next one: contents, failing receivers, unknown ones."""
    async with receiving() as receivers, open_lab(stack) as lab:
        env = {
            "SEGUE_NOTIFICATIONS": receivers.settings(tmp_path), "SEGUE_TEMPORAL_UI": "https://ui.example",
            "SEGUE_LOG_LEVEL": "DEBUG",
        }  # fmt: skip
        worker = KillingWorker(lab, "notify#1:after:kill", environment=env)
        async with worker.explained():
            await _once_through_a_kill(lab, receivers, worker)
            await asyncio.gather(_says(lab, receivers), _deaf(lab, receivers), _refused(lab, receivers))
        assert TOKEN not in worker.log.read_text(), "no secret is logged, at no level"


async def _once_through_a_kill(lab: Lab, receivers: Receivers, worker: KillingWorker) -> None:
    """It is killed after the receiver has a message and before Temporal knows: the message comes twice, by its key."""
    async with lab.case("once", 2, strategy=ASKS, notifications=to("killing")) as case:
        await worker.until_gone()
        worker.start()
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        await case.run.send("approve")
        await case.ends("Completed")
        await until("the last message", lambda: "completed" in receivers.types("killing", "once"))
    sent = receivers.events["killing"]
    unique = {each["id"]: each for each in sent}
    types = [each["type"].rpartition(".")[2] for each in sorted(unique.values(), key=lambda e: e["data"]["number"])]
    assert types == ["started", "awaitingApproval", "completed"]
    assert len(sent) == 4, "only the message whose answer was lost came twice"
    assert not receivers.unsigned["killing"]


async def _says(lab: Lab, receivers: Receivers) -> None:
    """A rollback tells its reason, what to do, and where to look; a service gets text."""
    async with lab.case(
        "bad", 2, CRASHING, notifications=[*to("plain"), *to("service", events=["rolledBack"])]
    ) as case:
        report = await case.ends("RolledBack")
        await until("the messages", lambda: len(receivers.types("plain", "bad")) == 3 and receivers.events[TOKEN])
        history = str([e async for e in case.run.handle.fetch_history_events()])
    assert receivers.types("plain", "bad") == ["started", "rollingBack", "rolledBack"]
    events = [each for each in receivers.events["plain"] if each["subject"] == f"{lab.namespace}/bad"]
    last = max(events, key=lambda each: each["data"]["number"])
    data = last["data"]
    assert receivers.headers["Content-Type"] == "application/cloudevents+json" and last["specversion"] == "1.0"
    assert data["reason"] == report.status.reason and "CrashLoop" in data["reason"]
    assert data["page"].startswith("https://ui.example/namespaces/default/workflows/rollout%2F")
    assert f"segue report {lab.namespace}/bad" in data["advice"]
    [text] = receivers.events[TOKEN]
    assert text["title"] == f"{lab.namespace}/bad: the rollout bad was rolled back"
    assert text["message"] == f"{report.status.reason} at {data['page']}", "by the template of its receiver"
    assert TOKEN not in history and receivers.address not in history


async def _deaf(lab: Lab, receivers: Receivers) -> None:
    """One receiver hangs, one answers 500, one is not there: the rollout ends, and its workflow with it."""
    async with lab.case("deaf", 2, notifications=to("hanging", "broken", "nobody", events=["started"])) as case:
        await case.ends("Completed")
        key = f"{(await case.run.handle.describe()).run_id}/1-started"
    for name in ("hanging", "broken", "nobody"):
        sending = f"notification/{case.run.handle.id.removeprefix('rollout/')}/{key}/{name}"
        handle = lab.temporal.get_workflow_handle(sending)
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        await handle.terminate()
    await until("both were called", lambda: receivers.events["hanging"] and receivers.events["broken"])


async def _refused(lab: Lab, receivers: Receivers) -> None:
    """A receiver that cannot be used refuses the start, with field, value and fix; the other one hears of it."""

    async def refusal(name: str) -> str:
        await lab.deploy(f"refused-{name}", 1)
        run = await lab.start(f"refused-{name}", notifications=to(name, "plain"))
        with pytest.raises(WorkflowFailureError) as caught:  # it may end before an update arrives
            await run.handle.result()
        assert isinstance(caught.value.cause, ApplicationError)
        return caught.value.cause.message

    for message, words in zip(await asyncio.gather(*map(refusal, REFUSED)), REFUSED.values(), strict=True):
        assert all(word in message for word in words) and TOKEN not in message, message
    for name in REFUSED:

        def is_told(name: str = name) -> bool:
            return bool(receivers.types("plain", f"refused-{name}") == ["refused"])

        await until("the refusal", is_told)
    [event] = [each for each in receivers.events["plain"] if each["subject"].endswith("/refused-unheard")]
    assert "'unheard'" in event["data"]["reason"] and event["data"]["phase"] == "Preparing"
