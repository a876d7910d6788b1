"""Steps of the workflow that no recorded history takes: each on a rollout of its own, without Temporal."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from activity_errors import of_activity
from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.workflow import NondeterminismError

from segue import contract, messages
from segue.contract import Permitted, Prepared, Task, Verified, Watched, Written
from segue.decision import Act, Decision
from segue.gates import Result, Verdict
from segue.history import Note
from segue.notices import Noticed
from segue.observation import Cause, Counts, Observation, Problem, Routed, Side, Version
from segue.spec import Approval, Change, Drain, Spec, Strategy
from segue.spec.notifications import Event
from segue.spec.own_gates import OwnGate, WebhookGate
from segue.state import Goal, Outcome, Reached, Retarget, State, requested
from workflows.rollout import NOTHING, RolloutWorkflow, _ended, _respecified, _result

NOW = 1_000.0
CONVERTER = pydantic_data_converter.payload_converter
TARGET = {"kind": "Deployment", "namespace": "serving", "name": "chat"}
SPEC = Spec.model_validate({"target": TARGET, "change": {"images": {"server": "chat:2"}}})
ROLLING = State(
    owner="us", claimed=True, baseline=Version(template="v1"), wanted=Version(template="v2"), progress_at=NOW
)
BACK = ROLLING.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)
SEEN = Observation(
    replicas=2, old=Side(total=2, ready=2, proven=2), new=Side(), requested=Counts(2, 0), template="v1", owner="us"
)
NOTE = Note(rollout="rollout/default/serving/Deployment/chat", by="ann", at=NOW, what="chat:2")
UNSURE = Verified(verdicts=(Verdict(gate="errors", result=Result.INCONCLUSIVE, why="no data"),))


def recorded(value: Any) -> RawValue:
    """Return a value as Temporal stores it."""
    return RawValue(CONVERTER.to_payload(value))


@pytest.fixture(autouse=True)
def _converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "payload_converter", lambda: CONVERTER)


class Rollout(RolloutWorkflow):
    """A rollout in some state: its activities answer at once, and its waits end at once."""

    def __init__(self, state: State, *, spec: Spec = SPEC, answer: Any = None, seen: Observation | None = SEEN) -> None:
        self._state, self._spec, self._seen, self._answer = state, spec, seen, answer
        self._task, self._noticed = Task(spec=spec, name="chat"), Noticed()
        self._heard = self._retargets = 0
        self._finishing = self._cancelled = False
        self._waits, self._plans = "", ()
        self._retarget_answer: dict[int, str | ApplicationError] = {}
        self._refusal: ApplicationError | None = None
        self.requests: list[Any] = []
        self.rested: list[str] = []
        self.sent: list[tuple[Event, int]] = []

    async def _go(self) -> None:
        await self._do(None, None, "a step")

    async def _do(self, act: Any, given: Any, summary: str, **limits: Any) -> Any:
        self.requests.append((given, limits))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    async def _rest(self, why: str, seconds: float = 0.0) -> None:
        self.rested.append(why)

    def _show(self) -> None:
        """Show nothing."""

    def _note(self, decision: Decision) -> Note:
        return NOTE

    def _send(self, event: Event, number: int, refusal: str = "") -> None:
        self.sent.append((event, number))


@pytest.fixture(autouse=True)
def at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.rollout._now", lambda: NOW)


# --- an error in the workflow's own code ---------------------------------------------------------------------

REFUSAL = ApplicationError("refused", type="Refused")


@pytest.mark.parametrize(
    "error", [NondeterminismError("steps differ"), of_activity(CancelledError("cancelled")), REFUSAL], ids=str
)
async def test_these_errors_end_a_step(error: Exception) -> None:
    rollout = Rollout(ROLLING, answer=error)
    rollout._refusal = REFUSAL
    with pytest.raises(type(error)):
        await rollout._step()
    assert rollout.rested == []


async def test_any_other_error_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporal would try the step for ever, and the rollout would take no message."""
    monkeypatch.setattr(workflow, "logger", logging.getLogger("workflow"))
    rollout = Rollout(ROLLING, answer=KeyError("odd"))
    await rollout._step()
    assert rollout._state.unresolved is not None and "Segue itself failed" in rollout._state.unresolved.message
    assert len(rollout.rested) == 1


# --- a write that fails for good -----------------------------------------------------------------------------


async def test_a_write_of_another_owners_target_ends_the_rollout() -> None:
    rollout = Rollout(ROLLING)
    await rollout._stuck(of_activity(ApplicationError("belongs to another rollout", type="Fenced")))
    assert rollout._state.outcome is not None and "belongs to another rollout" in str(rollout._state.failure)
    assert rollout.rested == []


@pytest.mark.parametrize("cause", [ApplicationError("is denied", type="NotAllowed"), RuntimeError("is denied")])
async def test_any_other_failed_write_needs_a_person(cause: Exception) -> None:
    rollout = Rollout(ROLLING)
    await rollout._stuck(of_activity(cause))
    assert rollout._state.outcome is None and rollout._state.unresolved == Problem(
        cause=Cause.CONFIGURATION, message="is denied"
    )
    assert rollout.rested == ["try again: is denied"]


async def test_a_cancelled_write_is_no_failed_one() -> None:
    rollout = Rollout(ROLLING)
    with pytest.raises(ActivityError):
        await rollout._stuck(of_activity(CancelledError("cancelled")))
    assert rollout._state == ROLLING


async def test_a_write_that_changed_nothing_is_tried_again() -> None:
    rollout = Rollout(ROLLING, answer=Written(done=False, why="it changed"))
    await rollout._write(Decision(act=Act.SCALE, why="old 2→1", counts=Counts(1, 1)))
    assert rollout.rested == ["observe again: it changed"] and rollout._waits.startswith("the next try")


@pytest.mark.parametrize(
    ("act", "template", "noted"),
    [(Act.SCALE, "v1", True), (Act.SCALE, "v2", False), (Act.FINISH, "v2", True)],
    ids=["the-first-move", "a-later-one", "the-end"],
)
async def test_the_first_write_and_the_last_keep_a_note(act: Act, template: str, noted: bool) -> None:
    """With the version, and with its outcome; the change goes with the first one only."""
    seen = SEEN.model_copy(update={"template": template})
    rollout = Rollout(ROLLING, answer=Written(done=True), seen=seen)
    await rollout._carry_out(Decision(act=act, why="why", counts=Counts(1, 1)))
    [(request, _)] = rollout.requests
    assert (request.note, request.change) == (NOTE if noted else None, SPEC.change if template == "v1" else None)


# --- messages and retargets ----------------------------------------------------------------------------------


async def test_only_a_retarget_counts_as_one() -> None:
    """Who waits for the answer to an earlier retarget learns by the number that it was withdrawn."""
    rollout = Rollout(ROLLING)
    await rollout._apply(messages.Pause(by="ann"))
    assert rollout._retargets == 0
    await rollout._apply(messages.RetargetTo(by="ann", change=Change(images={"server": "chat:3"})))
    await rollout._apply(messages.RetargetTo(by="ann", change=Change(images={"server": "chat:4"})))
    assert (rollout._retargets, rollout._heard) == (2, 3)


@pytest.mark.parametrize(
    ("state", "retargets"),
    [
        pytest.param(ROLLING, 1, id="by-an-abort"),
        pytest.param(ROLLING.but(retarget=Retarget(by="bob")), 2, id="by-a-newer-one"),
    ],
)
async def test_a_retarget_that_is_withdrawn_is_answered(
    state: State, retargets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for what no longer happens."""
    rollout = Rollout(ROLLING)

    async def waits(ends: Callable[[], bool]) -> None:
        assert not ends(), "it is not answered yet"
        rollout._state, rollout._retargets = state, retargets
        assert ends()

    monkeypatch.setattr(workflow, "wait_condition", waits)
    message = messages.RetargetTo(by="ann", change=Change(images={"server": "chat:3"}))
    rollout._receive = rollout._apply  # type: ignore[method-assign]
    update: Callable[..., Any] = rollout.update_retarget
    assert await update(recorded(message)) == "withdrawn by a later message"


async def test_a_retarget_of_a_refused_rollout_gets_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits until each message has its answer: without one, the workflow would never end."""
    rollout = Rollout(State(owner="us"))
    rollout._sends = set()
    message = recorded(messages.RetargetTo(by="ann", change=Change(images={"server": "chat:3"})))

    async def waits(ends: Callable[[], bool]) -> None:
        while not ends():
            await asyncio.sleep(0)

    monkeypatch.setattr(workflow, "wait_condition", waits)
    update: Callable[..., Any] = rollout.update_retarget
    early = asyncio.create_task(update(message))
    await asyncio.sleep(0)
    assert rollout._state.retarget is not None and not early.done()
    monkeypatch.setattr(workflow, "all_handlers_finished", early.done)
    async with asyncio.timeout(2):
        with pytest.raises(ApplicationError, match="no such image"):
            await rollout._refuse(ApplicationError("no such image", type="Refused"))
    with pytest.raises(ApplicationError, match="no such image"):
        await early
    with pytest.raises(ApplicationError, match="no such image"):  # it arrives while a notification starts
        await update(message)


@pytest.mark.parametrize("error", [NondeterminismError("steps differ"), of_activity(CancelledError("cancelled"))])
async def test_what_temporal_raises_refuses_no_retarget(error: Exception) -> None:
    rollout = Rollout(ROLLING, answer=error)
    with pytest.raises(type(error)):
        await rollout._retarget(Retarget(by="ann", change=Change(images={"server": "chat:3"})))
    assert rollout._retarget_answer == {}


@pytest.mark.parametrize("newer", [False, True])
async def test_a_refused_retarget_is_forgotten_unless_a_newer_one_came(newer: bool) -> None:
    retarget = Retarget(by="ann", change=Change(images={"server": "chat:3"}))
    rollout = Rollout(ROLLING.but(retarget=retarget, overrules=True), answer=ApplicationError("no", type="Refused"))
    if newer:
        rollout._state = rollout._state.but(retarget=Retarget(by="bob"))
    await rollout._retarget(retarget)
    assert (rollout._state.retarget is None, rollout._state.overrules) == (not newer, newer)
    assert str(rollout._retarget_answer[0]) == "Refused: no"


async def test_a_retarget_to_what_ran_before_rolls_back() -> None:
    retarget = Retarget(by="ann", change=Change(images={"server": "chat:1"}))
    prepared = Prepared(baseline=ROLLING.baseline, wanted=ROLLING.baseline, replicas=2, old=2, owner="us")
    rollout = Rollout(ROLLING.but(retarget=retarget), answer=prepared)
    await rollout._retarget(retarget)
    assert rollout._retarget_answer == {0: "rolls back to the baseline"} and rollout._state.goal is Goal.BACK
    assert rollout._plans == () and rollout._spec is SPEC, "the way back is no other plan"


async def test_a_retarget_to_what_is_wanted_already_changes_nothing() -> None:
    retarget = Retarget(by="ann", change=Change(images={"server": "chat:2"}))
    prepared = Prepared(baseline=ROLLING.baseline, wanted=ROLLING.wanted, replicas=2, old=1, new=1, owner="us")
    rollout = Rollout(ROLLING.but(retarget=retarget), answer=prepared)
    await rollout._retarget(retarget)
    assert rollout._retarget_answer[0] == f"{ROLLING.wanted} is already the wanted version"
    assert (rollout._state.retarget, rollout._state.goal, rollout._plans) == (None, Goal.FORWARD, ())


@pytest.mark.parametrize("reason", [None, "the pipeline was cancelled"])
def test_a_cancel_says_where_it_came_from(reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "cancellation_reason", lambda: reason)
    rollout = Rollout(ROLLING)
    rollout._abort_by_cancel()
    assert f"cancelled: {reason or 'in the Temporal UI or CLI'}" in str(rollout._state.failure)
    before = rollout._state
    rollout._abort_by_cancel()
    assert rollout._state is before, "it is on its way back"


async def test_a_cancel_is_handled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporal shows it for ever. A retarget after it, when the rollback needs a person, goes forward."""

    async def waits() -> None:
        return None

    monkeypatch.setattr(workflow, "cancellation_reason", lambda: "the pipeline was cancelled")
    rollout = Rollout(ROLLING)
    monkeypatch.setattr(rollout, "_decision", waits)
    await RolloutWorkflow._go(rollout)
    assert rollout._state.goal is Goal.BACK
    rollout._state = rollout._state.after_alarm("stuck", NOW).after_retarget(Version(template="v3"), NOW)
    await RolloutWorkflow._go(rollout)
    assert rollout._state.goal is Goal.FORWARD


@pytest.mark.parametrize(
    ("message", "breaks", "replicas"),
    [
        (messages.Resume(by="ann", break_glass=True, reason="fire"), True, None),
        (messages.Resume(by="ann"), False, None),
        (messages.Promote(by="ann"), False, None),
        (messages.Scale(by="ann", replicas=5), False, 5),
    ],
)
async def test_the_policy_learns_what_a_message_asks_for(
    message: messages.Message, breaks: bool, replicas: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "current_update_info", lambda: None)
    rollout = Rollout(ROLLING.but(labels={"team": "chat"}), answer=Permitted())
    await rollout._permit(message)
    [(request, _)] = rollout.requests
    assert (request.breaks_glass, request.replicas, request.labels) == (breaks, replicas, {"team": "chat"})


def test_a_retarget_keeps_the_kind_of_strategy() -> None:
    """Its traffic is claimed, and its other side is there."""
    slower = Strategy(max_surge=1)
    assert _respecified(SPEC, Retarget(by="ann", strategy=slower)).strategy == slower
    other = Strategy.model_validate({"type": "blueGreen", "traffic": {"service": "chat"}})
    with pytest.raises(ValueError, match="a strategy's type and traffic cannot change during a rollout"):
        _respecified(SPEC, Retarget(by="ann", strategy=other))


@pytest.mark.parametrize(("onto_baseline", "env"), [(False, {"server": {"A": "1"}}), (True, {})])
def test_a_retarget_is_added_to_the_change_or_to_the_baseline(onto_baseline: bool, env: dict[str, Any]) -> None:
    spec = SPEC.model_copy(update={"change": Change(env={"server": {"A": "1"}})})
    change = Change(images={"server": "chat:3"})
    found = _respecified(spec, Retarget(by="ann", change=change, onto_baseline=onto_baseline)).change
    assert (found.images, found.env) == ({"server": "chat:3"}, env)


# --- what it waits for, and what it tells ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "waits"), [(ROLLING, "evidence: no data"), (BACK, "")], ids=["forward", "a-message-came"]
)
async def test_an_inconclusive_end_waits_for_evidence(state: State, waits: str) -> None:
    rollout = Rollout(state, answer=UNSURE)
    await rollout._verify(Decision(act=Act.VERIFY, why="the end"))
    assert (rollout._waits, bool(rollout.rested)) == (waits, bool(waits))


async def test_a_failure_waits_for_its_rollback() -> None:
    """The failure is the reason of the rollback, and not what it waits for."""
    problem = Problem(cause=Cause.CRASH_LOOP, message="it crashes")
    rolls_back = Decision(act=Act.FAIL, why=str(problem), problem=problem, rolls_back=True)
    holds = rolls_back.model_copy(update={"rolls_back": False})
    for decision, state, waits in (
        (rolls_back, ROLLING, "the rollback"),
        (holds, ROLLING, ""),
        (Decision(act=Act.WAIT, why="old replicas"), BACK, ""),
    ):
        rollout = Rollout(state)
        await rollout._perform(decision)
        assert rollout._waits == waits, decision


@pytest.mark.parametrize(
    ("share", "goal", "promoted", "retained"),
    [
        (100, Goal.FORWARD, False, True),
        (0, Goal.FORWARD, False, False),
        (100, Goal.BACK, False, False),
        (100, Goal.FORWARD, True, False),
    ],
)
def test_only_a_side_that_lost_its_traffic_is_retained(share: int, goal: Goal, promoted: bool, retained: bool) -> None:
    pair = {"kind": "DeploymentPair", "namespace": "serving", "old": "blue", "new": "green"}
    strategy = {"type": "blueGreen", "traffic": {"service": "chat", "lag": "1s"}, "retain": "10m"}
    spec = Spec.model_validate({"target": pair, "change": {}, "strategy": strategy})
    routed = Routed(share=share, since=NOW - 60)
    rollout = Rollout(ROLLING.but(routed=routed, goal=goal, promoted=promoted), spec=spec)
    assert bool(rollout._retains(NOW)) is retained


@pytest.mark.parametrize(
    ("waypoint", "changes", "left"),
    [
        pytest.param(Reached(index=0, at="1", hold_until=NOW + 7, approved=True), {}, 7.0, id="a-hold"),
        pytest.param(Reached(index=0, at="1", hold_until=0.0, approved=False), {}, None, id="an-approval"),
        pytest.param(
            Reached(index=0, at="1", hold_until=NOW + 7, approved=True), {"paused": "by ann"}, None, id="paused"
        ),
        pytest.param(None, {}, None, id="between-waypoints"),
    ],
)
def test_how_long_a_hold_lasts(waypoint: Reached | None, changes: dict[str, Any], left: float | None) -> None:
    """A rollout that is stopped for another reason does not wake at the end of the hold."""
    assert Rollout(ROLLING.but(waypoint=waypoint, **changes))._hold_left_s() == left


def test_each_phase_is_told_once() -> None:
    spec = SPEC.model_copy(
        update={
            "notifications": Spec.model_validate(
                {**SPEC.model_dump(by_alias=True), "notifications": [{"name": "a"}]}
            ).notifications
        }
    )
    rollout = Rollout(ROLLING, spec=spec)
    rollout._notice()
    rollout._notice()
    rollout._state = BACK
    rollout._notice()
    assert rollout.sent == [(Event.STARTED, 1), (Event.ROLLING_BACK, 2)]
    silent = Rollout(ROLLING)
    silent._notice()
    assert silent.sent == []


def test_an_approval_with_a_time_for_the_answer_says_until_when() -> None:
    """Whoever reads it later needs the time of day, and not how long is left."""
    timed = Approval(expires=timedelta(hours=1), default="reject")
    waypoint = Reached(index=0, at="1", hold_until=0.0, approved=False, approval=timed, expires_at=NOW + 3600)
    assert "else reject at 1970-01-01 01:16:40 UTC" in Rollout(ROLLING.but(waypoint=waypoint))._waiting_for()


def test_the_next_run_says_what_the_rollout_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for an hour until it observes its target again. A report has an end only after it."""
    about = SimpleNamespace(workflow_id="rollout/default/serving/Deployment/chat", first_execution_run_id="r-1")
    monkeypatch.setattr(workflow, "info", lambda: about)
    rollout = Rollout(ROLLING)
    rollout._started_at, rollout._waits, rollout._shown_at = NOW - 60, "old replicas to stop", NOW
    following = RolloutWorkflow(recorded(rollout._continued()))
    assert (following._waits, following._state.run, following._queued) == ("old replicas to stop", "r-1", False)
    assert following.report().ended_at is None
    following._state = following._state.but(outcome=Outcome.COMPLETED)
    assert following.report().ended_at == NOW


@pytest.mark.parametrize(
    ("given", "where"),
    [
        pytest.param({"bad": 1}, "input.spec", id="another"),
        pytest.param([], "input", id="list"),
        pytest.param({"spec": {"target": TARGET, "change": {"images": {"server": 7}}}, "name": "chat"},
                     "input.spec.change.images.server", id="a-wrong-value"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, given: Any, where: str) -> None:
    """It would fail the task for ever. Later, the input may be of another release, whose worker can read it."""
    about = SimpleNamespace(continued_run_id=None)
    monkeypatch.setattr(workflow, "info", lambda: about)
    monkeypatch.setattr(workflow.unsafe, "is_replaying", lambda: False)
    for sent, place in ((recorded(given), where), (NOTHING, "input")):
        with pytest.raises(
            ApplicationError, match=f"{place}: is not the input of a rollout.*; start it with"
        ) as raised:
            RolloutWorkflow(sent)
        assert raised.value.non_retryable
    about.continued_run_id = "r-0"
    with pytest.raises(ValidationError):
        RolloutWorkflow(recorded(given))
    about.continued_run_id = None
    monkeypatch.setattr(workflow.unsafe, "is_replaying", lambda: True)
    with pytest.raises(ValidationError):
        RolloutWorkflow(recorded(given))


async def test_the_end_waits_for_answers_and_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel in this time is an abort, and the wait goes on."""
    rollout, sending, cancels = Rollout(ROLLING), asyncio.create_task(asyncio.sleep(0)), [asyncio.CancelledError()]
    answered = False

    async def waits(ends: Callable[[], bool]) -> None:
        nonlocal answered
        if cancels:
            raise cancels.pop()
        rollout._sends, answered = {sending}, True
        assert not ends(), "a notification has not started"
        rollout._sends, answered = set(), False
        assert not ends(), "a message has no answer"
        answered = True
        assert ends()

    monkeypatch.setattr(workflow, "cancellation_reason", lambda: None)
    monkeypatch.setattr(workflow, "all_handlers_finished", lambda: answered)
    monkeypatch.setattr(workflow, "wait_condition", waits)
    await rollout._handlers_finished()
    await sending
    assert answered and rollout._state.goal is Goal.BACK


async def test_a_long_history_ends_once_every_message_has_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the rollout goes on: the answer to a retarget, which had to wait for its permit, is its next step."""
    rollout, steps = Rollout(ROLLING), list[str]()
    rollout._sends = set()

    async def step() -> None:
        steps.append("a step")

    class Continued(Exception):
        """The next run begins."""

    def continues(_: Any) -> None:
        raise Continued

    monkeypatch.setattr(rollout, "_step", step)
    monkeypatch.setattr(rollout, "_history_is_long", lambda: True)
    monkeypatch.setattr(rollout, "_continued", lambda: None)
    monkeypatch.setattr(workflow, "all_handlers_finished", lambda: len(steps) == 3)
    monkeypatch.setattr(workflow, "continue_as_new", continues)
    with pytest.raises(Continued):
        async with asyncio.timeout(2):
            await rollout._until_the_end()
    assert len(steps) == 3


class Ended:
    """A watch that nobody awaits any more."""

    def __init__(self, *, cancelled: bool) -> None:
        self.is_cancelled, self.retrieved = cancelled, False

    def cancelled(self) -> bool:
        return self.is_cancelled

    def exception(self) -> None:
        assert not self.is_cancelled, "it has none"
        self.retrieved = True


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_error_of_a_dropped_watch_is_retrieved(cancelled: bool) -> None:
    """Otherwise Python logs it as lost."""
    watch: Any = Ended(cancelled=cancelled)
    _ended(watch)
    assert watch.retrieved is not cancelled


# --- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "first", "queued", "rests"),
    [
        pytest.param(ROLLING, False, False, False, id="moves"),
        pytest.param(ROLLING, True, True, True, id="may-wait-for-others"),
        pytest.param(ROLLING.but(paused="by ann"), True, False, True, id="waits-for-a-person"),
        pytest.param(BACK, True, False, False, id="goes-back"),
    ],
)
async def test_what_waits_is_observed_less_often(
    state: State, first: bool, queued: bool, rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watch lasts longer and its heartbeats are rarer; a rollback waits for nobody."""
    given: dict[str, Any] = {}
    watch = asyncio.get_running_loop().create_future()
    watch.set_result(recorded(Watched(decision=Decision(act=Act.WAIT, why="old replicas to stop"), seen=SEEN)))

    def begin(_: str, request: contract.WatchInput, **options: Any) -> Any:
        given.update(options, request=request)
        return watch

    async def waits(ends: Callable[[], bool], **_: Any) -> None:
        assert ends()

    monkeypatch.setattr(workflow, "start_activity", begin)
    monkeypatch.setattr(workflow, "wait_condition", waits)
    monkeypatch.setattr(RolloutWorkflow, "_activity_queue", "segue")
    rollout, times = Rollout(state), contract.Tuning()
    rollout._queued = first
    decision = await rollout._decision()
    assert decision is not None and rollout._waits == "old replicas to stop"
    assert given["request"].queued is queued
    assert given["request"].attempt_s == (times.rest_attempt_s if rests else times.attempt_s)
    heartbeat_s = times.rest_heartbeat_s if rests else times.heartbeat_s
    assert given["heartbeat_timeout"] == timedelta(seconds=heartbeat_s)
    assert given["start_to_close_timeout"] > timedelta(seconds=given["request"].attempt_s)


@pytest.mark.parametrize("verdicts", [(), UNSURE.verdicts], ids=["none", "one"])
async def test_the_verdicts_of_a_watch_are_recorded(
    verdicts: tuple[Verdict, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = asyncio.get_running_loop().create_future()
    found = Watched(decision=Decision(act=Act.WAIT, why="evidence"), seen=SEEN, verdicts=verdicts)
    watch.set_result(recorded(found))

    async def waits(ends: Callable[[], bool], **_: Any) -> None:
        assert ends()

    monkeypatch.setattr(workflow, "start_activity", lambda *_, **__: watch)
    monkeypatch.setattr(workflow, "wait_condition", waits)
    monkeypatch.setattr(RolloutWorkflow, "_activity_queue", "segue")
    gate = OwnGate(name="errors", webhook=WebhookGate(name="errors"))
    spec = SPEC.model_copy(update={"gates": (gate,)})
    rollout = Rollout(ROLLING.after_measure([gate], NOW, stops=False), spec=spec)
    rollout._queued = False
    await rollout._decision()
    tally = rollout._state.tally("errors")
    assert tally is not None and tally.measurements == len(verdicts)


@pytest.mark.parametrize("raw", [None, *map(recorded, (None, "done", {"done": "perhaps"}))])
def test_a_result_that_is_none_is_no_fault_of_the_workflow(raw: RawValue | None) -> None:
    """Somebody completed the activity by hand: the rollout needs a person, and its task does not fail."""
    with pytest.raises(ApplicationError, match="somebody completed the activity undo in Temporal"):
        _result(contract.UNDO, raw)


async def test_a_write_has_the_time_of_its_drain_too(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    async def execute(*_: Any, **options: Any) -> RawValue:
        given.update(options)
        return recorded(Written(done=True))

    monkeypatch.setattr(workflow, "execute_activity", execute)
    monkeypatch.setattr(RolloutWorkflow, "_activity_queue", "segue")
    drained = SPEC.model_copy(update={"drain": Drain(timeout=timedelta(seconds=90))})
    rollout = Rollout(ROLLING, spec=drained)
    for longer in (timedelta(0), timedelta(seconds=90)):
        await RolloutWorkflow._do(rollout, contract.UNDO, SEEN, "undo", limit=timedelta(days=1), longer=longer)
        write_s = rollout._task.tuning.write_s
        assert given["start_to_close_timeout"] == timedelta(seconds=write_s) + longer


@pytest.mark.parametrize(("seconds", "waited"), [(1.0, 1.0), (0.0, 10.0)])
async def test_how_long_it_rests(seconds: float, waited: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as given, else until gates are due again; a message ends it."""
    rollout = Rollout(ROLLING)
    given: dict[str, Any] = {}

    async def waits(ends: Callable[[], bool], **options: Any) -> None:
        given.update(options)
        assert not ends()
        rollout._heard += 1
        assert ends()

    monkeypatch.setattr(workflow, "wait_condition", waits)
    await RolloutWorkflow._rest(rollout, "why", seconds)
    assert given["timeout"] == waited
