"""Notices: what a notification says, when one is due, and how a worker reaches its receivers. Pure."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic.alias_generators import to_camel
from pydantic.config import ConfigDict

from segue.gates.webhook_settings import Webhook
from segue.masking import masked
from segue.observation import Cause, Frozen
from segue.spec.base import Model
from segue.spec.notifications import Event
from segue.state import Phase
from segue.status import Status

CONTENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "dev.segue.rollout."
MAX_REASON = 2_000
"""The most characters of a reason in a message; services refuse very long ones."""
FIELDS = (
    "target", "name", "kind", "cluster", "event", "says", "phase", "reason", "next", "from", "to", "workflow", "page",
    "message",
)  # fmt: skip
"""What a template can name, as ``{target}``."""
_PLACES = re.compile(r"\{(\w*)\}")


def _template(given: str) -> str:
    unknown = next((name for name in _PLACES.findall(given) if name not in FIELDS), None)
    if unknown is not None:
        raise ValueError(f"has {{{unknown}}}, which is not a field; use {', '.join(f'{{{name}}}' for name in FIELDS)}")
    return given


Template = Annotated[str, AfterValidator(_template), Field(min_length=1, max_length=4_000)]
"""A text of your own, in which ``{target}`` and so on stand for fields of a notice."""


class Service(Model):
    """A chat, mail or paging service."""

    address_file: Path = Field(
        strict=False,
        description="File with one Apprise address, such as slack://… or mailtos://…. The worker reads it for each "
        "message.",
    )
    title: Template | None = Field(default=None, description="Template of the first line, in place of Segue's own.")
    text: Template | None = Field(default=None, description="Template of the message, in place of Segue's own.")


def _kind_of(given: Any) -> str:
    is_service = "address_file" in given if isinstance(given, dict) else isinstance(given, Service)
    return "service" if is_service else "webhook"


Receiver = Annotated[Annotated[Webhook, Tag("webhook")] | Annotated[Service, Tag("service")], Discriminator(_kind_of)]
"""A receiver in the worker's settings: a service if it has an ``address_file``, else a webhook."""


class Notice(Frozen):
    """One transition of a rollout, for its receivers."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    key: str
    """The same at each attempt, for the receiver to drop a repeated message."""
    number: int
    """Counts the notices of one rollout from 1: it gives their order."""
    event: Event
    at: float
    """Seconds since the epoch."""
    name: str
    target: str
    kind: str
    cluster: str
    phase: str
    reason: str = ""
    advice: str
    """What to do next."""
    from_version: str = ""
    to_version: str = ""
    workflow_id: str
    run_id: str


class Noticed(Frozen):
    """Which notices a rollout has given so far."""

    number: int = 0
    """How many notices."""
    event: Event | None = None
    """The event of the present phase; None if the phase has none."""
    started: bool = False

    def after(self, phase: Phase) -> "Noticed":
        """Return the record after this phase; a greater number means that a notice of its event is due."""
        event = _EVENTS.get(phase)
        if phase in {Phase.PROGRESSING, Phase.HOLDING} and not self.started:
            event = Event.STARTED
        if event is None or event is self.event:
            return self.model_copy(update={"event": event})
        return Noticed(number=self.number + 1, event=event, started=True)


_EVENTS = {
    Phase.AWAITING_APPROVAL: Event.AWAITING_APPROVAL,
    Phase.PAUSED: Event.PAUSED,
    Phase.HELD: Event.NEEDS_PERSON,
    Phase.NEEDS_HUMAN: Event.NEEDS_PERSON,
    Phase.ROLLING_BACK: Event.ROLLING_BACK,
    Phase.COMPLETED: Event.COMPLETED,
    Phase.ROLLED_BACK: Event.ROLLED_BACK,
    Phase.ABORTED: Event.ROLLED_BACK,
}


def notice_of(
    status: Status, event: Event, *, number: int, at: float, kind: str, cluster: str, run_id: str, refusal: str = ""
) -> Notice:
    """Return the notice of an event; ``refusal`` is the reason of a refused start. ``at`` is in seconds."""
    return Notice(
        key=f"{run_id}/{number}", number=number, event=event, at=at, name=status.name, target=status.target, kind=kind,
        cluster=cluster, phase=str(status.outcome or status.phase),
        reason=refusal or status.reason or ("" if event is Event.STARTED else status.waiting_for),
        advice=_advice(status, event), from_version=str(status.baseline or ""), to_version=str(status.wanted or ""),
        workflow_id=status.id, run_id=run_id,
    )  # fmt: skip


def _advice(status: Status, event: Event) -> str:
    target = status.target
    can = ", ".join(f"`segue {each} {target}`" for each in status.can)
    back = f"run `segue abort {target}` to roll back"
    return {
        Event.STARTED: f"Nothing to do. `segue watch {target}` follows the rollout.",
        Event.AWAITING_APPROVAL: f"Run `segue approve {target}`, or `segue reject {target}` to roll back.",
        Event.PAUSED: f"Run `segue resume {target}` to continue, or {back}."
        if "resume" in status.can
        else f"It continues at the end of the freeze. To end it, {back}.",
        Event.NEEDS_PERSON: f"Remove the cause, then run one of {can}." if can else "Remove the cause.",
        Event.ROLLING_BACK: f"Nothing to do. `segue watch {target}` follows the way back.",
        Event.COMPLETED: "",
        Event.ROLLED_BACK: f"{_left_running(status)} `segue report {target}` shows why.",
        Event.REFUSED: "The target is unchanged. Correct the spec, then start again.",
    }[event]


def _left_running(status: Status) -> str:
    """Return what the target runs at the end of a rollout that did not complete."""
    if status.runs is None:  # it was deleted, released, or taken over
        return "The rollout no longer holds the target, and rolled nothing back."
    return "The target runs the version from before."


_SAYS = {
    Event.STARTED: "has started",
    Event.AWAITING_APPROVAL: "waits for approval",
    Event.PAUSED: "is paused",
    Event.NEEDS_PERSON: "needs a person",
    Event.ROLLING_BACK: "rolls back",
    Event.COMPLETED: "is completed",
    Event.ROLLED_BACK: "was rolled back",
    Event.REFUSED: "was refused",
}


def _says(notice: Notice) -> str:
    lost = notice.event is Event.ROLLED_BACK and notice.reason.startswith(f"{Cause.FENCED}: ")
    return "has lost its target" if lost else _SAYS[notice.event]


def _filled(template: str, notice: Notice, page: str) -> str:
    values = {
        "target": notice.target, "name": notice.name, "kind": notice.kind, "cluster": notice.cluster,
        "event": str(notice.event), "says": _says(notice), "phase": notice.phase, "reason": _reason(notice),
        "next": notice.advice, "from": notice.from_version, "to": notice.to_version, "workflow": notice.workflow_id,
        "page": page, "message": notice.key,
    }  # fmt: skip
    return _PLACES.sub(lambda found: values[found[1]], template)  # in one pass: no value is a template


def title(notice: Notice, page: str = "", template: str | None = None) -> str:
    """Return the message's first line, by a template of the receiver if it has one."""
    if template is not None:
        return " ".join(_filled(template, notice, page).split())
    return f"{notice.target}: the rollout {notice.name} {_says(notice)}"


def text(notice: Notice, page: str, template: str | None = None) -> str:
    """Return the message for a person; ``page`` is the rollout's address in the Temporal UI, or empty."""
    if template is not None:
        return _filled(template, notice, page)
    versions = f"{notice.from_version or '?'} → {notice.to_version or '?'}" if notice.to_version else ""
    rows = {
        "Version": versions,
        "Phase": notice.phase,
        "Reason": _reason(notice),
        "Next": notice.advice,
        "Cluster": notice.cluster,
        "Workflow": notice.workflow_id,
        "Page": page,
        "Message": notice.key,
    }
    return "\n".join(f"{name}: {value}" for name, value in rows.items() if value)


def cloud_event(notice: Notice, page: str) -> bytes:
    """Return the notice as a CloudEvent in JSON (structured mode, version 1.0)."""
    data = notice.model_dump(mode="json", by_alias=True) | {
        "reason": _reason(notice),
        "title": title(notice),
        "page": page,
    }
    event = {
        "specversion": "1.0",
        "id": notice.key,
        "source": f"/segue/{notice.workflow_id}",
        "type": TYPE_PREFIX + notice.event,
        "subject": notice.target,
        "time": datetime.fromtimestamp(notice.at, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False).encode()


def _reason(notice: Notice) -> str:
    reason = masked(notice.reason)
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 3]}..."
