"""Who made the requests of a rollout, from its workflow's history.

Temporal can record in each event the principal that it authenticated (server 1.32, with
``frontend.enablePrincipalPropagation``). Of an update, it records only the worker that accepted it. Therefore a client
that sends an update first sends a signal with the same content: its event has the sender's principal.
"""

from collections.abc import AsyncIterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError
from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from segue import contract
from segue.messages import MESSAGES, Message
from segue.report import THROUGH, Request
from segue.rollout_object import MEMO
from segue.rollout_object.orders import person_in

ANSWER_S = 10.0
ANNOUNCED_S = 60.0
"""An update follows its announcement within this time. A later one may be from somebody else, who read the announcement
of an update that was refused: that leaves no trace in the history, so its id can be used again."""
KEPT = 200
"""The first request and the latest ones are kept: others can send signals without end."""


def principal_of(event: HistoryEvent) -> str:
    """Return the authenticated principal of an event and its kind; empty when Temporal recorded none."""
    if not event.HasField("principal") or not event.principal.name:
        return ""
    return f"{event.principal.name} ({event.principal.type})"


async def first_event(handle: WorkflowHandle[Any, Any]) -> HistoryEvent | None:
    """Return the first event of a run; None when Temporal no longer keeps the run."""
    try:
        async for event in handle.fetch_history_events(page_size=1, rpc_timeout=timedelta(seconds=ANSWER_S)):
            return event
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
    return None


async def requests_of(client: Client, workflow_id: str, run_id: str | None) -> "Requests":
    """Return the requests of a rollout, of all runs that Temporal still keeps.

    Raises:
        RPCError: when Temporal does not answer.
    """
    runs = list[WorkflowHandle[Any, Any]]()
    while True:
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
        first = await first_event(handle)
        if first is None:
            break
        runs.insert(0, handle)
        run_id = first.workflow_execution_started_event_attributes.continued_execution_run_id
        if not run_id:
            break
    requests = Requests(client.data_converter)
    for run in runs:
        await requests.read(run.fetch_history_events())
    return requests


class _Made(NamedTuple):
    """A request, the id of its update (empty for a signal), and its content."""

    request: Request
    update_id: str
    message: dict[str, Any]


class _Announced(NamedTuple):
    """What the sender of an update announced, who that is, and when: in seconds since the epoch."""

    name: Any
    message: Any
    principal: str
    at: float


class Requests:
    """Collects the requests of one rollout from the events of its runs, the oldest first."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter
        self._found: list[_Made] = []
        self._senders: dict[str, _Announced] = {}
        """By the id of an update."""
        self._controller = ""
        """The principal that started the rollout for a Rollout object; empty if a person or a pipeline did."""

    async def read(self, events: AsyncIterable[HistoryEvent]) -> None:
        """Read the events of the next run."""
        async for event in events:
            found = await self._request(event)
            if found is not None:
                self._found.append(self._vouched(found))

    @property
    def found(self) -> tuple[Request, ...]:
        """All requests, or the first and the latest ones."""
        kept = self._found if len(self._found) <= KEPT else [self._found[0], *self._found[1 - KEPT :]]
        return tuple(each.request for each in kept)

    def named(self, *names: str) -> tuple[Request, ...]:
        """Return all requests with these names, the oldest first."""
        return tuple(each.request for each in self._found if each.request.what in names)

    def sent(self, name: str, message: dict[str, Any], update_id: str) -> Request | None:
        """Return the update with this id; without an id, the latest signal with this content. None if it is unknown.

        An earlier signal with the same content may be somebody else's.
        """
        alike = (each for each in reversed(self._found) if (each.request.what, each.update_id) == (name, update_id))
        return next((e.request for e in alike if update_id or _is_same(MESSAGES[name], e.message, message)), None)

    def _vouched(self, found: _Made) -> _Made:
        """Return a request with the person whom the API server authenticated, if the controller sent it."""
        request = found.request
        is_sent = bool(self._controller) and request.authenticated == self._controller
        person, rest = person_in(request.claimed)
        if not (is_sent and person):
            return found
        named = {"authenticated": f"{person}{THROUGH}{self._controller}", "claimed": rest}
        return found._replace(request=request.model_copy(update=named))

    async def _request(self, event: HistoryEvent) -> _Made | None:
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                found = await self._start(event)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                found = await self._signal(event)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                found = await self._update(event)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
                identity = event.workflow_execution_cancel_requested_event_attributes.identity
                found = _made(event, "cancel", principal_of(event), {"by": identity})
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
                identity = event.workflow_execution_terminated_event_attributes.identity
                found = _made(event, "terminate", principal_of(event), {"by": identity})
            case _:
                found = None
        return found

    async def _start(self, event: HistoryEvent) -> _Made | None:
        started = event.workflow_execution_started_event_attributes
        if started.continued_execution_run_id:
            return None  # the worker continues its own workflow as new
        if MEMO in started.memo.fields:
            self._controller = principal_of(event)
        return _made(event, "start", principal_of(event), await self._first(started.input))

    async def _signal(self, event: HistoryEvent) -> _Made | None:
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == contract.SENDER_SIGNAL:
            sent = await self._first(signal.input)
            now = _Announced(sent.get("name"), sent.get("message"), principal_of(event), _at(event))
            known = self._senders.setdefault(str(sent.get("update_id")), now)
            # The first one counts: a later one cannot take over the update of somebody else. A sender may repeat it.
            if known._replace(at=now.at) == now:
                self._senders[str(sent.get("update_id"))] = now
            return None
        if signal.signal_name not in MESSAGES:
            return None
        return _made(event, signal.signal_name, principal_of(event), await self._first(signal.input))

    async def _update(self, event: HistoryEvent) -> _Made | None:
        request = event.workflow_execution_update_accepted_event_attributes.accepted_request
        name = request.input.name
        if name not in MESSAGES:
            return None
        message = await self._first(request.input.args)
        known = self._senders.get(request.meta.update_id)
        is_announced = known is not None and known[:2] == (name, message) and _at(event) - known.at <= ANNOUNCED_S
        return _made(event, name, known.principal if known and is_announced else "", message, request.meta.update_id)

    async def _first(self, payloads: Payloads) -> dict[str, Any]:
        """Return the first argument as JSON; empty when it is not an object, or nobody can read it."""
        try:
            found: Sequence[Any] = await self._converter.decode(payloads.payloads[:1])
        except Exception:  # anybody may send a signal with any content: it must not hide the report
            return {}
        return found[0] if found and isinstance(found[0], dict) else {}


def _is_same(kind: type[Message], raw: dict[str, Any], message: dict[str, Any]) -> bool:
    """Return whether both are the same message, also if one of them leaves out defaults."""
    try:
        return kind.model_validate(raw) == kind.model_validate(message)
    except ValidationError:
        return False


def _made(event: HistoryEvent, what: str, principal: str, message: dict[str, Any], update_id: str = "") -> _Made:
    claimed = message.get("by")
    name = claimed if isinstance(claimed, str) else ""
    request = Request(at=_at(event), what=what, authenticated=principal, claimed=name)
    return _Made(request, update_id, message)


def _at(event: HistoryEvent) -> float:
    return event.event_time.ToNanoseconds() / 1e9
