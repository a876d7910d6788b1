"""Who made the requests of a rollout, from its workflow's history.

Temporal can record in each event the principal that it authenticated (server 1.32, with
``frontend.enablePrincipalPropagation``). Of an update, it records only the worker that accepted it. Therefore a client
that sends an update first sends a signal with the same content: its event has the sender's principal.
"""

from collections.abc import AsyncIterable, Sequence
from typing import Any

from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from segue import contract
from segue.messages import MESSAGES
from segue.report import Request
from segue.rollout_object import MEMO
from segue.rollout_object.orders import PERSON

KEPT = 200
"""The first request and the latest ones are kept: others can send signals without end."""


def principal_of(event: HistoryEvent) -> str:
    """Return the authenticated principal of an event and its kind; empty when Temporal recorded none."""
    if not event.HasField("principal") or not event.principal.name:
        return ""
    return f"{event.principal.name} ({event.principal.type})"


class Requests:
    """Collects the requests of one rollout from the events of its runs, the oldest first."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter
        self._found: list[Request] = []
        self._senders: dict[str, tuple[dict[str, Any], str]] = {}
        """By the id of an update: what its sender announced, and the sender's principal."""
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
        return tuple(self._found if len(self._found) <= KEPT else [self._found[0], *self._found[1 - KEPT :]])

    def _vouched(self, found: Request) -> Request:
        """Return a request with the person whom the API server authenticated, if the controller sent it."""
        if not (self._controller and found.authenticated == self._controller and found.claimed.startswith(PERSON)):
            return found
        return found.model_copy(update={"authenticated": f"{found.claimed} through {self._controller}", "claimed": ""})

    async def _request(self, event: HistoryEvent) -> Request | None:
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

    async def _start(self, event: HistoryEvent) -> Request | None:
        started = event.workflow_execution_started_event_attributes
        if started.continued_execution_run_id:
            return None  # the worker continues its own workflow as new
        if MEMO in started.memo.fields:
            self._controller = principal_of(event)
        return _made(event, "start", principal_of(event), await self._first(started.input))

    async def _signal(self, event: HistoryEvent) -> Request | None:
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == contract.SENDER_SIGNAL:
            sent = await self._first(signal.input)
            # The first one counts: a later one cannot take over the update of somebody else.
            self._senders.setdefault(str(sent.get("update_id")), (sent, principal_of(event)))
            return None
        if signal.signal_name not in MESSAGES:
            return None
        return _made(event, signal.signal_name, principal_of(event), await self._first(signal.input))

    async def _update(self, event: HistoryEvent) -> Request | None:
        request = event.workflow_execution_update_accepted_event_attributes.accepted_request
        name = request.input.name
        if name not in MESSAGES:
            return None
        message = await self._first(request.input.args)
        announced, principal = self._senders.get(request.meta.update_id, ({}, ""))
        is_same = (announced.get("name"), announced.get("message")) == (name, message)
        return _made(event, name, principal if is_same else "", message)

    async def _first(self, payloads: Payloads) -> dict[str, Any]:
        """Return the first argument as JSON; empty when it is not an object, or nobody can read it."""
        try:
            found: Sequence[Any] = await self._converter.decode(payloads.payloads[:1])
        except Exception:  # anybody may send a signal with any content: it must not hide the report
            return {}
        return found[0] if found and isinstance(found[0], dict) else {}


def _made(event: HistoryEvent, what: str, principal: str, message: dict[str, Any]) -> Request:
    claimed = message.get("by")
    at = event.event_time.ToNanoseconds() / 1e9
    return Request(at=at, what=what, authenticated=principal, claimed=claimed if isinstance(claimed, str) else "")
