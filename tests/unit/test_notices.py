"""Which transition gives which notice, once, and what a message says."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import TypeAdapter, ValidationError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.clock import Clock
from activities.cluster import Cluster
from activities.notifying import Notifier
from activities.rollout import Activities
from segue.contract import NotifyInput
from segue.errors import Refused
from segue.gates.webhook_settings import Webhook
from segue.notices import FIELDS, MAX_REASON, Notice, Noticed, Receiver, Service, cloud_event, notice_of, text, title
from segue.spec import read_rollout
from segue.spec.notifications import Event, Notification
from segue.state import Phase
from segue.status import Status

P = Phase
JOURNEYS = {
    "completed": ([P.PREPARING, P.PROGRESSING, P.PROGRESSING, P.COMPLETED], ["started", "completed"]),
    "approvals": (
        [P.PROGRESSING, P.AWAITING_APPROVAL, P.AWAITING_APPROVAL, P.PROGRESSING, P.HOLDING, P.AWAITING_APPROVAL],
        ["started", "awaitingApproval", "awaitingApproval"],
    ),
    "paused twice": ([P.PROGRESSING, P.PAUSED, P.PROGRESSING, P.PAUSED], ["started", "paused", "paused"]),
    "held at the start": ([P.PREPARING, P.PAUSED, P.PROGRESSING, P.COMPLETED], ["paused", "completed"]),
    "taken back": ([P.PROGRESSING, P.ROLLING_BACK, P.ROLLED_BACK], ["started", "rollingBack", "rolledBack"]),
    "aborted": ([P.HOLDING, P.ROLLING_BACK, P.ABORTED], ["started", "rollingBack", "rolledBack"]),
    "stuck": (
        [P.PROGRESSING, P.HELD, P.HELD, P.ROLLING_BACK, P.NEEDS_HUMAN, P.ROLLING_BACK, P.ROLLED_BACK],
        ["started", "needsPerson", "rollingBack", "needsPerson", "rollingBack", "rolledBack"],
    ),
    "nothing to tell": ([P.PREPARING, P.PREPARING], []),
}


@pytest.mark.parametrize(("phases", "events"), JOURNEYS.values(), ids=JOURNEYS)
def test_one_notice_for_each_transition(phases: list[Phase], events: list[str]) -> None:
    noticed, given = Noticed(), []
    for phase in phases:
        after = noticed.after(phase)
        if after.number > noticed.number:
            given.append(str(after.event))
        noticed = after
    assert given == events and noticed.number == len(events)


def test_every_phase_has_its_event_or_none() -> None:
    silent = {phase for phase in Phase if Noticed(started=True).after(phase).event is None}
    assert silent == {P.PREPARING, P.PROGRESSING, P.HOLDING}


def status(**given: object) -> Status:
    return Status.model_validate(
        {"id": "rollout/default/serving/Deployment/chat", "name": "chat-2", "target": "serving/chat", **given}
    )


def made(event: Event, phase: Phase, **given: object) -> bytes:
    notice = notice_of(
        status(phase=phase, **given), event, number=3, at=1_800_000_000.25, kind="Deployment", cluster="default",
        run_id="r-1",
    )  # fmt: skip
    return cloud_event(notice, "https://ui/x")


def test_a_cloud_event_has_the_standards_attributes() -> None:
    event = json.loads(made(Event.AWAITING_APPROVAL, P.AWAITING_APPROVAL, waiting_for="approval at waypoint 50%"))
    data = event.pop("data")
    assert event == {
        "specversion": "1.0", "id": "r-1/3", "source": "/segue/rollout/default/serving/Deployment/chat",
        "type": "dev.segue.rollout.awaitingApproval", "subject": "serving/chat", "time": "2027-01-15T08:00:00.250000Z",
        "datacontenttype": "application/json",
    }  # fmt: skip
    assert (data["number"], data["reason"], data["page"]) == (3, "approval at waypoint 50%", "https://ui/x")
    assert "segue approve serving/chat" in data["advice"] and data["title"].endswith("waits for approval")


def test_a_reason_is_masked_and_bounded() -> None:
    for reason in ("token=hidden", "x" * 5_000):
        shown = json.loads(made(Event.ROLLED_BACK, P.ROLLED_BACK, reason=reason))["data"]["reason"]
        assert "hidden" not in shown and len(shown) <= MAX_REASON


def test_every_event_has_a_title_and_a_text() -> None:
    for event in Event:
        notice = notice_of(
            status(phase=P.NEEDS_HUMAN, can=("abort",), reason="why"), event, number=1, at=0, kind="Deployment",
            cluster="c", run_id="r",
        )  # fmt: skip
        assert title(notice).startswith("serving/chat: the rollout chat-2 ")
        assert "Reason: why" in text(notice, "") and "Page" not in text(notice, "")
    assert "`segue abort serving/chat`" in text(notice.model_copy(update={"advice": "`segue abort serving/chat`"}), "")


def test_a_rollout_that_lost_its_target_rolled_nothing_back() -> None:
    """Another owner has it, or somebody deleted it: nobody must believe that the former version runs."""
    lost = json.loads(made(Event.ROLLED_BACK, P.ABORTED, outcome="Aborted", reason="Fenced: the target was deleted"))
    assert lost["data"]["title"] == "serving/chat: the rollout chat-2 has lost its target"
    assert "no longer holds the target, and rolled nothing back" in lost["data"]["advice"]
    back = json.loads(made(Event.ROLLED_BACK, P.ABORTED, outcome="Aborted", runs={"template": "v1"}, reason="by ann"))
    assert back["data"]["title"] == "serving/chat: the rollout chat-2 was rolled back"
    assert back["data"]["advice"].startswith("The target runs the version from before.")


def test_a_service_has_templates_of_its_own() -> None:
    """Each field can be named; a value is never read as a template, and the first line stays one line."""
    read = TypeAdapter(Receiver).validate_python
    given = {
        "address_file": "/a",
        "title": "{target}\n{says}",
        "text": "<b>{reason}</b> {{x}} {from}→{to} {page} {next}",
    }
    with pytest.raises(ValidationError, match=r"has \{x\}, which is not a field; use \{target\}, "):
        read(given)
    service = read({**given, "text": given["text"].replace("{{x}}", "")})
    assert isinstance(service, Service)
    notice = Notice(
        key="r/1", number=1, event=Event.COMPLETED, at=0, name="chat", target="serving/chat", kind="Deployment",
        cluster="east", phase="Completed", reason="has {page} token=abc123", advice="", workflow_id="w", run_id="r",
    )  # fmt: skip
    assert title(notice, "", service.title) == "serving/chat is completed"
    assert text(notice, "https://ui/1", service.text).startswith("<b>has {page} ")
    assert "→ https://ui/1" in text(notice, "https://ui/1", service.text)
    all_fields = "".join(f"{{{name}}}" for name in FIELDS)
    assert "{" not in text(notice.model_copy(update={"reason": ""}), "p", all_fields)
    assert title(notice) == "serving/chat: the rollout chat is completed"


def test_a_receiver_is_a_webhook_or_a_service() -> None:
    read = TypeAdapter(Receiver).validate_python
    assert isinstance(read({"url": "https://x/y", "secret_file": "/s"}), Webhook)
    assert isinstance(read({"address_file": "/a"}), Service)
    for wrong, field in (({"url": "https://x"}, "secret_file"), ({"address_file": "/a", "url": "https://x"}, "url")):
        with pytest.raises(ValidationError, match=field):
            read(wrong)


@pytest.mark.parametrize(
    ("notifications", "words"),
    [
        ([{"name": "slack://a/b"}], ("spec.notifications[0].name", "'slack://a/b'", "must match")),
        (
            [{"name": "team", "events": ["finished"]}],
            ("spec.notifications[0].events[0]", "'finished'", "awaitingApproval"),
        ),
        ([{"name": "team", "events": []}], ("spec.notifications[0].events",)),
        ([{"name": "team", "url": "https://x"}], ("spec.notifications[0].url", "not a field that Segue knows")),
        ([{"name": "a"}, {"name": "a"}], ("spec.notifications", "'a'", "given twice", "list all its events")),
        ({"team": ["started"]}, ("spec.notifications", "not a list")),
    ],
    ids=["address", "event", "no-event", "unknown", "twice", "map"],
)
def test_a_bad_notification_is_refused(notifications: object, words: tuple[str, ...]) -> None:
    spec = {"target": {"name": "chat"}, "change": {"images": {"a": "b:1"}}, "notifications": notifications}
    with pytest.raises(Refused) as caught:
        read_rollout({"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "x"}, "spec": spec})
    assert all(word in str(caught.value) for word in words), str(caught.value)


SPECIAL = "slack://aaaaaaaaa/bbbbbbbbb/cccccccccccccccccccccccc"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (SPECIAL.encode("utf-8-sig"), ""),
        (SPECIAL.encode("utf-16"), "address is not UTF-8 text; save it as UTF-8"),
        (b"nothing", "does not hold a valid address"),
    ],
)
def test_an_address_file_is_read_as_windows_saves_it(tmp_path: Path, content: bytes, told: str) -> None:
    """One that cannot be read refuses the start, without a part of the address."""
    file = tmp_path / "address"
    file.write_bytes(content)
    assert told in refusal_of(Service(address_file=file), is_refused=bool(told))


async def test_the_address_of_a_receiver_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may hold a secret, and aiohttp repeats it where the answer is not HTTP, as of a port for TLS."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x15\x03\x01\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    key = tmp_path / "key"
    key.write_text("key")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/services/cccc"
    notifier = Notifier({"team": Webhook.model_validate({"url": url, "secret_file": key})})
    given = status(phase=P.COMPLETED)
    notice = notice_of(given, Event.COMPLETED, number=1, at=0.0, kind="Deployment", cluster="default", run_id="r")
    activities = Activities(cast("Cluster", SimpleNamespace(clock=Clock())), notifier=notifier)
    try:
        with pytest.raises(ApplicationError, match="the receiver team cannot be reached: its answer is not valid HTTP"):
            await ActivityEnvironment().run(activities.notify, NotifyInput(receiver="team", notice=notice))
    finally:
        notifier.close()
        server.close()
    assert "the receiver team" in caplog.text and "cccc" not in caplog.text


def test_a_webhook_without_a_key_is_refused(tmp_path: Path) -> None:
    """Anybody could sign with an empty key."""
    file = tmp_path / "key"
    webhook = Webhook.model_validate({"url": "https://ci.example/segue", "secret_file": file})
    for content, told in ((b" \n", "has an empty secret_file"), (b"key\n", "")):
        file.write_bytes(content)
        assert told in refusal_of(webhook, is_refused=bool(told))


def refusal_of(receiver: Receiver, *, is_refused: bool) -> str:
    """Return why a receiver is refused at the start; empty if it is not."""
    notifier = Notifier({"team": receiver})
    try:
        asyncio.run(notifier.refuse([Notification(name="team")]))
    except Refused as error:
        assert is_refused and "cccc" not in str(error)
        return str(error)
    finally:
        notifier.close()
    assert not is_refused
    return ""
