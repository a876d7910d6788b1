"""The messages to a running rollout: one model per message, and how it changes the state.

Each is both a signal (for the Temporal UI and fire-and-forget pipelines) and an update (which answers what happens
next, or is refused). A refused signal only adds a line to the report.
"""

import hashlib
import json
from difflib import get_close_matches
from functools import singledispatch
from typing import Any

from pydantic import Field, ValidationError, model_validator

from segue.errors import Refused
from segue.observation import Cause, Frozen, Problem
from segue.spec import Change, Strategy, refusal
from segue.spec.base import wrong
from segue.spec.lint_rule import LintRule
from segue.state import PAUSED_BY, Goal, Outcome, Phase, Reached, Retarget, State, requested
from segue.units import counted

MAX_REPLICAS = 10_000


class Message(Frozen):
    """The fields of all messages: who sends it, and why."""

    by: str = Field(default="someone", max_length=640)
    """A Rollout object names itself (up to 340 characters) and who wrote it (up to 250)."""
    reason: str = Field(default="", max_length=1024)
    about: str = Field(default="", max_length=256)
    """The id of the rollout, approval or pause that it is for: another one refuses it. Empty: for what is there now."""

    @property
    def sender(self) -> str:
        """Who sent the message, and why, for a person."""
        return f"{self.by}: {self.reason}" if self.reason else self.by


class Pause(Message):
    """Stop moving replicas. Gates still run and can still roll back."""


class Resume(Message):
    """Continue after a pause, a settle, or a failure that waits for a person; or overrule a freeze of the policy."""

    break_glass: bool = False
    """Overrule the policy's freezes for the rest of this rollout; needs a reason."""

    @model_validator(mode="after")
    def _says_why(self) -> "Resume":
        if self.break_glass and not self.reason:
            raise wrong("reason", self.reason, "is empty, but overruling a freeze needs one", "give it, for the report")
        return self


class RetargetTo(Message):
    """Change the wanted version, the strategy, or both; or go back to the baseline."""

    change: Change | None = None
    """New images, or any named change; None keeps the wanted version."""
    strategy: Strategy | None = None
    """Another order, budget, step, waypoints and end, from here on; None keeps them."""
    baseline: bool = False
    onto_baseline: bool = False
    accept: tuple[LintRule, ...] = Field(default=(), max_length=len(LintRule))
    """Lint rules whose errors do not refuse the retarget."""

    @model_validator(mode="after")
    def _one(self) -> "RetargetTo":
        if (self.change is None and self.strategy is None) != self.baseline:
            raise ValueError("requests nothing; give a change, a strategy, or both; or give baseline: true")
        if self.change is not None and not (self.onto_baseline and self.strategy is not None):
            self.change.refuse_empty()
        return self


class Abort(Message):
    """Roll back to the baseline and end as Aborted."""


class Scale(Message):
    """Set the target's replicas during the rollout."""

    replicas: int = Field(ge=1, le=MAX_REPLICAS)


class Settle(Message):
    """Keep the replicas that are ready now, drop the rest, and pause. Use when a stage cannot complete."""


class Approve(Message):
    """Approve the waypoint that the rollout waits at."""


class Reject(Message):
    """Reject the waypoint that the rollout waits at, and roll back."""


class Promote(Message):
    """Skip the remaining holds; verification and approvals stay."""


MESSAGES: dict[str, type[Message]] = {
    "pause": Pause,
    "resume": Resume,
    "retarget": RetargetTo,
    "abort": Abort,
    "scale": Scale,
    "settle": Settle,
    "approve": Approve,
    "reject": Reject,
    "promote": Promote,
}


def message_of(kind: type[Message], **fields: Any) -> Message:
    """Return a message with these fields.

    Raises:
        Refused: naming field, value and fix.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise refusal(error) from error


def read_message(name: str, sent: bytes, encoding: str = "json/plain") -> Message:
    """Return a message from what anybody may have sent: a JSON object of its fields, or nothing.

    ``encoding`` is the payload's, as Temporal names it; empty if there is no payload.

    Raises:
        Refused: naming field, value and fix.
    """
    if encoding not in {"json/plain", "binary/null", ""}:
        raise Refused("is not JSON", field=name, value=encoding, fix="send its input with the encoding json/plain")
    if name not in MESSAGES:
        raise Refused("is not a message of a rollout", field=name, fix=f"send one of: {', '.join(MESSAGES)}")
    kind = MESSAGES[name]
    try:
        found = json.loads(sent) if sent else None
    except (ValueError, RecursionError) as error:  # of bytes that are not UTF-8, too
        raise _no_object(name, repr(sent)) from error
    if not isinstance(found, dict | None):
        raise _no_object(name, found)
    try:
        message = kind.model_validate_json(sent if found else b"{}")
    except ValidationError as error:
        raise refusal(error, name) from error
    if not stops(message):
        _refuse_mistyped(name, kind, found or {})
    return message


def _refuse_mistyped(name: str, kind: type[Message], found: dict[str, Any]) -> None:
    """Refuse a mistyped field: without ``about``, an approval would be for whatever waits now.

    Any other unknown one may be of a later release. What stops or goes back is taken in any case.
    """
    for each in sorted(found.keys() - kind.model_fields.keys()):
        if near := get_close_matches(each.lower(), kind.model_fields, n=1, cutoff=0.7):
            fix = f"check its spelling, perhaps {near[0]}"
            raise Refused("is not a field of this message", field=f"{name}: {each}", value=found[each], fix=fix)


def _no_object(name: str, value: Any) -> Refused:
    return Refused("is not a JSON object", field=name, value=value, fix='send one, such as {"by": "alice"}')


def receive(message: Message, state: State, now: float) -> State:
    """Return the state after this message.

    Raises:
        Refused: if the message is not possible now; the error names a fix.
    """
    if state.outcome is not None:
        raise _refused(message, f"the rollout has ended ({state.outcome})", "start a new one")
    if state.released:
        why = f"the rollout has ended ({state.ending}), except for what cannot be written beside its target"
        raise _refused(message, why, "see `segue status` for what it waits for")
    known = _known(message, state)
    if message.about not in {"", known}:
        now_is = f"now it is {known}" if known else "none is pending"
        raise _refused(message, f"it is for {message.about}, and {now_is}", "see `segue status` for what it waits for")
    return _receive(message, state, now)


def _known(message: Message, state: State) -> str:
    """Return the id that ``message.about`` may have now."""
    if isinstance(message, Approve | Reject):
        return approval_of(state)
    return pause_of(state) if isinstance(message, Resume) else rollout_of(state)


def rollout_of(state: State) -> str:
    """Return the id of this rollout, for ``Message.about``; no other rollout has it."""
    return _id_of(state.run) if state.run else ""


def approval_of(state: State) -> str:
    """Return the id of the pending approval, for ``Message.about``; empty if none is pending.

    It begins with the waypoint. The same waypoint has another id when it is reached again.
    """
    reached = state.waypoint
    if reached is None or reached.approved or state.goal is Goal.BACK or state.outcome is not None:
        return ""
    return f"{reached.at}@{_id_of(state.run, state.began_at, reached.index, reached.at_s)}"


def pause_of(state: State) -> str:
    """Return the id of the pause or the failure that a resume ends, for ``Message.about``; empty if there is none.

    The same pause has another id when it begins again.
    """
    is_under_way = state.goal is Goal.FORWARD and state.outcome is None
    if not (state.run and is_under_way and (state.paused or state.unresolved)):
        return ""
    return f"pause@{_id_of(state.run, state.pauses)}"


def _id_of(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:10]


def stops(message: Message) -> bool:
    """Whether a message stops the rollout or takes it back: everybody may send it, and nothing delays it."""
    return isinstance(message, Pause | Abort | Reject) or (isinstance(message, RetargetTo) and message.baseline)


def answer(message: Message, state: State, now: float) -> str:
    """Return what happens next, for a person; ``state`` is the result of ``receive``."""
    if isinstance(message, Settle):
        return "settle: keeps the replicas that are ready now, and then pauses"
    if isinstance(message, Scale):
        return f"scale: to {counted(message.replicas, 'replica')}, now {state.phase}"
    waits = state.phase is Phase.PAUSED and state.paused and not isinstance(message, Pause)
    phase = state.phase
    if phase is Phase.HOLDING and state.waypoint is not None and state.waypoint.hold_until <= now:
        phase = Phase.PROGRESSING  # nothing holds it any more: the next observation moves it on
    return f"{name_of(message)}: now {phase}{', until a resume' if waits else ''}"


_SAMPLES: dict[str, Message] = {
    "approve": Approve(),
    "reject": Reject(),
    "resume": Resume(),
    "promote": Promote(),
    "pause": Pause(),
    "settle": Settle(),
    "retarget": RetargetTo(baseline=True),
    "abort": Abort(),
    "scale": Scale(replicas=1),
}
"""One message of each kind, in the order shown to a person: answers first."""


def possible(state: State) -> tuple[str, ...]:
    """Return the names of the messages that ``receive`` accepts in this state."""
    return tuple(name for name, message in _SAMPLES.items() if _is_accepted(message, state))


def _is_accepted(message: Message, state: State) -> bool:
    try:
        receive(message, state, state.progress_at)
    except Refused:
        return False
    return True


@singledispatch
def _receive(message: Message, state: State, now: float) -> State:
    raise AssertionError(f"no rule for {type(message).__name__}")


def _refused(message: Message, why: str, fix: str) -> Refused:
    return Refused(why, field=name_of(message), fix=fix)


def name_of(message: Message) -> str:
    """Return the name of a message, as in ``MESSAGES``."""
    return next(name for name, kind in MESSAGES.items() if isinstance(message, kind))


def _holdable_only(message: Message, state: State) -> None:
    if state.autonomous:
        why = "the target's own operator moves the replicas, and the rollout cannot stop it partway"
        raise _refused(message, why, "wait for the end of the rollout, or abort it")


def _forward_only(message: Message, state: State) -> None:
    if state.goal is Goal.BACK:
        raise _refused(message, "the rollout is going back to its baseline", "wait for its end, then start again")


@_receive.register
def _(message: Pause, state: State, now: float) -> State:
    _forward_only(message, state)
    _holdable_only(message, state)
    if state.paused:
        return state
    return state.but(paused=f"{PAUSED_BY} {message.sender}").noted(now, "paused", message.reason, message.by)


@_receive.register
def _(message: Resume, state: State, now: float) -> State:
    _forward_only(message, state)
    if state.foreign is not None and not state.overrules:
        raise _refused(
            message, f"{state.foreign}", "take that change back, or overwrite it with a retarget or an abort"
        )
    if message.break_glass:
        state = state.but(broke_glass=message.sender, frozen="", progress_at=now).noted(
            now, "freeze overruled", message.reason, message.by
        )
    elif state.frozen and not state.paused and state.unresolved is None:
        raise _refused(
            message, f"the rollout is frozen: {state.frozen}", "wait for its end, or give --break-glass and a reason"
        )
    if not state.paused and state.unresolved is None:
        if message.break_glass:
            return state
        raise _refused(message, "the rollout is not paused", "see `segue status` for what it waits for")
    return (
        state.resolved(now).but(paused="", altered=0, progress_at=now).noted(now, "resumed", message.reason, message.by)
    )


@_receive.register
def _(message: RetargetTo, state: State, now: float) -> State:
    if message.baseline or not state.needs_human:  # a retarget is possible during a rollback that is stuck
        _forward_only(message, state)
    if message.baseline:
        return _turn_back(message, state, now, Outcome.ROLLED_BACK, "retargeted to the baseline")
    retarget = Retarget(
        change=message.change, strategy=message.strategy, by=message.by, onto_baseline=message.onto_baseline,
        accept=message.accept,
    )  # fmt: skip
    return state.but(retarget=retarget, overrules=state.foreign is not None)


@_receive.register
def _(message: Abort, state: State, now: float) -> State:
    if state.goal is Goal.BACK:
        changes = {"overrules": state.foreign is not None, "ending": Outcome.ABORTED, "retarget": None}
        return state.but(**changes).noted(now, "aborted", message.reason, message.by)
    return _turn_back(message, state, now, Outcome.ABORTED, "aborted")


@_receive.register
def _(message: Scale, state: State, now: float) -> State:
    _holdable_only(message, state)
    return state.but(resize=message.replicas).noted(now, "scale requested", str(message.replicas), message.by)


@_receive.register
def _(message: Settle, state: State, now: float) -> State:
    _forward_only(message, state)
    _holdable_only(message, state)
    if not state.claimed or state.mark.template not in {"", state.wanted.template}:
        raise _refused(message, "nothing of the wanted version has moved yet", "pause or abort instead")
    if state.retarget is not None:  # it is being prepared, and would take the place of the settle
        state = state.but(retarget=None, overrules=False)
    return state.but(settling=True).noted(now, "settle requested", message.reason, message.by)


@_receive.register
def _(message: Approve, state: State, now: float) -> State:
    reached = _pending(message, state)
    return state.but(waypoint=reached.model_copy(update={"approved": True})).noted(
        now, "approved", f"waypoint {reached.at}{': ' + message.reason if message.reason else ''}", message.by
    )


@_receive.register
def _(message: Reject, state: State, now: float) -> State:
    reached = _pending(message, state)
    why = Problem(cause=Cause.REJECTED, message=f"at waypoint {reached.at} by {message.sender}")
    return state.going_back(Outcome.ROLLED_BACK, why, now, message.by)


def _pending(message: Message, state: State) -> Reached:
    """Return the waypoint whose approval is pending.

    Raises:
        Refused: when none is.
    """
    _forward_only(message, state)
    if state.waypoint is None or state.waypoint.approved:
        raise _refused(message, "no approval is pending", "see `segue status` for what it waits for")
    return state.waypoint


@_receive.register
def _(message: Promote, state: State, now: float) -> State:
    _forward_only(message, state)
    reached = state.waypoint and state.waypoint.model_copy(update={"hold_until": now})
    return state.but(promoted=True, waypoint=reached).noted(now, "promoted", message.reason, message.by)


def _turn_back(message: Message, state: State, now: float, ending: Outcome, what: str) -> State:
    overrules = state.foreign is not None
    reason = requested(f"{what} by {message.sender}")
    return state.going_back(ending, reason, now, message.by).but(overrules=overrules)
