"""Who made each request of a rollout: as Temporal authenticated it, and as the request claims."""

from collections.abc import AsyncIterator, Sequence

import pytest
from temporalio.api.common.v1 import Payload, Payloads, Principal
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.contrib.pydantic import pydantic_data_converter

from segue.contract import SENDER_SIGNAL, Sent
from segue.messages import Approve, Message, Pause, Scale
from segue.report import Report, Request, requester, starter, to_markdown
from segue.requests import ANNOUNCED_S, KEPT, Requests
from segue.rollout_object import MEMO
from segue.state import Phase
from segue.status import Status

OBJECT = "Rollout serving/chat generation 1"
ALICE, BOB, WORKER = (Principal(type="jwt", name=name) for name in ("alice@acme", "bob@acme", "segue-worker"))


async def encoded(value: object) -> Payloads:
    return Payloads(payloads=await pydantic_data_converter.encode([value]))


def event(kind: str, by: Principal | None) -> HistoryEvent:
    made = HistoryEvent(event_type=EventType.Value(f"EVENT_TYPE_WORKFLOW_EXECUTION_{kind}"))
    if by is not None:
        made.principal.CopyFrom(by)
    return made


async def start(
    by: Principal | None, claimed: str = "carol", continued: str = "", of_object: bool = False
) -> HistoryEvent:
    made = event("STARTED", by)
    made.workflow_execution_started_event_attributes.input.CopyFrom(await encoded({"by": claimed, "name": "chat"}))
    made.workflow_execution_started_event_attributes.continued_execution_run_id = continued
    if of_object:
        made.workflow_execution_started_event_attributes.memo.fields[MEMO].CopyFrom((await encoded({})).payloads[0])
    return made


async def signal(by: Principal | None, name: str, value: object) -> HistoryEvent:
    made = event("SIGNALED", by)
    made.workflow_execution_signaled_event_attributes.signal_name = name
    made.workflow_execution_signaled_event_attributes.input.CopyFrom(await encoded(value))
    return made


async def sender(by: Principal, update_id: str, name: str, message: Message) -> HistoryEvent:
    return await signal(by, SENDER_SIGNAL, Sent(update_id=update_id, name=name, message=message))


async def update(update_id: str, name: str, message: Message) -> HistoryEvent:
    """An update as the worker accepts it."""
    made = event("UPDATE_ACCEPTED", WORKER)
    request = made.workflow_execution_update_accepted_event_attributes.accepted_request
    request.meta.update_id, request.input.name = update_id, name
    request.input.args.CopyFrom(await encoded(message))
    return made


async def collected(*runs: Sequence[HistoryEvent]) -> Requests:
    requests = Requests(pydantic_data_converter)

    async def events(run: Sequence[HistoryEvent]) -> AsyncIterator[HistoryEvent]:
        for each in run:
            yield each

    for run in runs:
        await requests.read(events(run))
    return requests


async def read(*runs: Sequence[HistoryEvent]) -> list[tuple[str, str, str]]:
    found = (await collected(*runs)).found
    return [(each.what, each.authenticated, each.claimed) for each in found]


async def test_starts_signals_and_cancels_have_a_principal_of_their_own() -> None:
    """What they claim is shown beside it; a continued run is nobody's request, and other signals are none."""
    runs = [
        [await start(ALICE), await signal(BOB, "pause", Pause(by="dave")), await signal(BOB, "other", {"by": "x"})],
        [await start(WORKER, continued="the run before"), event("CANCEL_REQUESTED", BOB), event("TERMINATED", ALICE)],
    ]
    assert await read(*runs) == [
        ("start", "alice@acme (jwt)", "carol"),
        ("pause", "bob@acme (jwt)", "dave"),
        ("cancel", "bob@acme (jwt)", ""),
        ("terminate", "alice@acme (jwt)", ""),
    ]


async def test_whom_the_api_server_authenticated() -> None:
    """The controller of Rollout objects names the user; the same name in a message of somebody else is a claim."""
    approve = Approve(by="kubernetes user alice")
    of_object = await start(WORKER, of_object=True)
    sent = [[await sender(by, "1", "approve", approve), await update("1", "approve", approve)] for by in (WORKER, BOB)]
    begun = ("start", "segue-worker (jwt)", "carol")
    assert await read([of_object, *sent[0]]) == [
        begun, ("approve", "kubernetes user alice through segue-worker (jwt)", ""),
    ]  # fmt: skip
    assert await read([of_object, *sent[1]]) == [begun, ("approve", "bob@acme (jwt)", "kubernetes user alice")]
    assert await read([await start(WORKER), *sent[0]]) == [
        begun, ("approve", "segue-worker (jwt)", "kubernetes user alice"),
    ]  # fmt: skip
    author = await start(WORKER, f"{OBJECT} by kubernetes user alice", of_object=True)
    assert await read([author]) == [("start", "kubernetes user alice through segue-worker (jwt)", OBJECT)]
    assert await read([await start(WORKER, f"{OBJECT} by kubernetes user alice")]) == [
        ("start", "segue-worker (jwt)", f"{OBJECT} by kubernetes user alice"),
    ]  # fmt: skip
    unproven = [await start(None, of_object=True), await update("1", "approve", approve)]
    assert await read(unproven) == [("start", "", "carol"), ("approve", "", "kubernetes user alice")]


async def test_an_update_has_the_principal_of_its_announcement() -> None:
    """The event of an update has the principal of the worker, which must not be shown as the sender."""
    approve = Approve(by="carol")
    events = [await sender(BOB, "1", "approve", approve), await update("1", "approve", approve)]
    assert await read(events) == [("approve", "bob@acme (jwt)", "carol")]
    assert await read([await update("1", "approve", approve)]) == [("approve", "", "carol")]


@pytest.mark.parametrize(
    ("update_id", "name", "message"),
    [
        ("2", "scale", Scale(replicas=3, by="carol")),
        ("1", "scale", Scale(replicas=9, by="carol")),
        ("1", "pause", Pause(by="carol")),
    ],
)
async def test_an_announcement_of_something_else_counts_for_nothing(
    update_id: str, name: str, message: Message
) -> None:
    """Another update, another content, another message: what Bob announced is not what was sent."""
    announced = await sender(BOB, "1", "scale", Scale(replicas=3, by="carol"))
    assert await read([announced, await update(update_id, name, message)]) == [(name, "", "carol")]


async def test_nobody_takes_over_an_announced_update() -> None:
    """The first announcement of an update counts."""
    pause = Pause(by="carol")
    taken = [await sender(each, "1", "pause", pause) for each in (ALICE, BOB)]
    assert await read([*taken, await update("1", "pause", pause)]) == [("pause", "alice@acme (jwt)", "carol")]


async def test_nobody_uses_an_announcement_of_a_refused_update_later() -> None:
    """Its update left no trace, so somebody else could send one with its id; its own sender may announce it again."""
    approve = Approve(by="carol")
    announced, update_of_it = await sender(BOB, "1", "approve", approve), await update("1", "approve", approve)
    update_of_it.event_time.FromSeconds(int(ANNOUNCED_S))
    assert await read([announced, update_of_it]) == [("approve", "bob@acme (jwt)", "carol")]
    update_of_it.event_time.FromSeconds(int(ANNOUNCED_S) + 1)
    assert await read([announced, update_of_it]) == [("approve", "", "carol")]
    for again, principal in (
        (await sender(BOB, "1", "approve", approve), "bob@acme (jwt)"),
        (await sender(ALICE, "1", "approve", approve), ""),
        (await sender(BOB, "1", "approve", Approve(by="dave")), ""),
    ):
        again.event_time.FromSeconds(30)
        assert await read([announced, again, update_of_it]) == [("approve", principal, "carol")]


async def test_the_sender_of_one_message_is_found() -> None:
    """An update by its id; a signal by its content, also without its defaults: of equal ones, the latest counts."""
    approve = Approve(by="carol")
    requests = await collected(
        [
            await start(ALICE),
            *[await sender(BOB, "1", "approve", approve), await update("1", "approve", approve)],
            *[await signal(by, "approve", {"by": "carol"}) for by in (BOB, ALICE)],
            await signal(BOB, "approve", {"by": "dave"}),
            await signal(BOB, "approve", {"by": 3}),
            await signal(BOB, "pause", {"by": "carol"}),
            await signal(BOB, "approve", {"by": "frank", "about": "1@abc"}),
        ]
    )

    def who(message: Message, update_id: str = "") -> str | None:
        found = requests.sent("approve", message.model_dump(), update_id)
        return found.authenticated if found else None

    assert (who(approve, "1"), who(approve, "2")) == ("bob@acme (jwt)", None)
    assert (who(approve), who(Approve(by="dave")), who(Approve(by="eve"))) == (
        "alice@acme (jwt)",
        "bob@acme (jwt)",
        None,
    )
    assert (who(Approve(by="frank", about="1@abc")), who(Approve(by="frank"))) == ("bob@acme (jwt)", None)
    assert [each.what for each in requests.named("start", "pause")] == ["start", "pause"]


async def test_a_content_that_nobody_can_read_hides_no_report() -> None:
    """Unknown encodings, broken JSON, and what is no message."""
    unreadable = [
        Payload(metadata={"encoding": b"unknown"}, data=b"x"),
        Payload(metadata={"encoding": b"json/plain"}, data=b"{"),
        Payload(metadata={"encoding": b"json/plain"}, data=b'{"by": 3}'),
        Payload(metadata={"encoding": b"json/plain"}, data=b"[]"),
    ]
    for name, expected in (("pause", [("pause", "bob@acme (jwt)", "")]), (SENDER_SIGNAL, [])):
        for payload in unreadable:
            sent = event("SIGNALED", BOB)
            sent.workflow_execution_signaled_event_attributes.signal_name = name
            sent.workflow_execution_signaled_event_attributes.input.payloads.append(payload)
            assert await read([sent]) == expected


async def test_the_first_and_the_latest_requests_are_kept() -> None:
    many = [await signal(BOB, "pause", Pause(by=str(number))) for number in range(KEPT + 5)]
    found = await read([await start(ALICE), *many])
    assert len(found) == KEPT and found[0][0] == "start" and found[1][2] == "6" and found[-1][2] == str(KEPT + 4)


def test_the_report_tells_authenticated_from_claimed() -> None:
    """Without principals it is as before: the name that the starter gave."""
    status = Status(id="i", name="chat", target="serving/chat", phase=Phase.PROGRESSING)
    report = Report(status=status, started_by="carol")
    assert "- Started by carol at" in to_markdown(report) and "authenticated" not in to_markdown(report)
    requests = (
        Request(at=0, what="start", authenticated="alice@acme (jwt)", claimed="carol"),
        Request(at=1, what="approve", claimed="bob"),
    )
    report = report.model_copy(update={"requests": requests})
    assert (
        starter(report) == "alice@acme (jwt) (authenticated), carol (claimed)"
        and requester(requests[1]) == "bob (claimed)"
    )
    text = to_markdown(report)
    assert "- Started by alice@acme (jwt) (authenticated), carol (claimed) at" in text
    assert "| +1.0 s | approve | — | bob |" in text and "| detail | who (claimed) |" in text
