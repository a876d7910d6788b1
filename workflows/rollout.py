"""The rollout: one durable workflow per target.

    observe → decide → act → await → verify → record

An activity decides what to do, so that the decision is recorded and a replay never depends on a release. This file only
does it, and records it in the one state. Messages change the same state, only between two awaits.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy, SearchAttributeKey, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TemporalError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from segue import contract, messages
    from segue.contract import (
        Activity,
        NotifyInput,
        PermitInput,
        Prepared,
        PrepareInput,
        Task,
        VerifyInput,
        Watched,
        WatchInput,
        WriteInput,
        Written,
    )
    from segue.decide import movable_since
    from segue.decision import Act, Decision
    from segue.errors import Refused, shown
    from segue.gates import Result, combined
    from segue.history import Note, described
    from segue.messages import Message
    from segue.notices import notice_of
    from segue.observation import Cause, Frozen, Observation
    from segue.plan import Plan, kept
    from segue.planning import first_plan, planned, unchanged
    from segue.report import Report
    from segue.resting import rests
    from segue.spec import Spec
    from segue.spec.notifications import Event
    from segue.state import Goal, Outcome, Retarget, State, requested
    from segue.status import Status, as_text, make_status, to_markdown
    from segue.traffic import ALL, acceptance, kept_until, pending_of
    from segue.transition import (
        applied,
        attempted,
        begun,
        denied,
        is_wanted_already,
        is_written,
        judged,
        learned,
        retargeted,
        stuck,
    )

PHASE = SearchAttributeKey.for_keyword(contract.PHASE_ATTRIBUTE)
TARGET = SearchAttributeKey.for_keyword(contract.TARGET_ATTRIBUTE)
OUTCOME = SearchAttributeKey.for_keyword(contract.OUTCOME_ATTRIBUTE)
NEEDS_HUMAN = SearchAttributeKey.for_bool(contract.NEEDS_HUMAN_ATTRIBUTE)

PREPARE_LIMIT = timedelta(minutes=5)
WRITE_LIMIT = timedelta(days=30)
"""Long enough that no outage of the API server ends the retries of a write: it must not change where a rollout ends."""
TURN = "its turn, if other rollouts move"
SUMMARY_LENGTH = 120  # the UI cuts longer ones

NOTHING = RawValue(Payload())
"""What a person sends who gives a message no input."""

R = TypeVar("R", bound=Frozen)


# A handler's ``self`` has no annotation: the SDK would take it for an argument of the message.


def _signal(name: str) -> Any:
    """Return the handler of a message as a signal."""

    async def handle(self, sent: RawValue = NOTHING) -> None:  # type: ignore[no-untyped-def]
        await self._signalled(name, sent)

    return workflow.signal(name=name)(handle)


def _update(name: str) -> Any:
    """Return the handler of a message as an update, which is refused before it is recorded in the history."""

    async def handle(self, sent: RawValue = NOTHING) -> str:  # type: ignore[no-untyped-def]
        return str(await self._updated(name, sent))

    def check(self, sent: RawValue = NOTHING) -> None:  # type: ignore[no-untyped-def]
        self._check(name, sent)

    update: Any = workflow.update(name=name)(handle)
    update.validator(check)
    return update


@workflow.defn(name=contract.WORKFLOW)
class RolloutWorkflow:
    """One rollout of one target."""

    @workflow.init
    def __init__(self, given: RawValue = NOTHING) -> None:
        task, info = _task_of(given), workflow.info()
        self._task = task
        self._spec: Spec = task.spec
        self._started_at = task.started_at or info.workflow_start_time.timestamp()
        first = info.first_execution_run_id
        new = State(owner=f"{info.workflow_id}@{first}", autonomous=task.spec.autonomous)
        self._state = (task.state or new).but(run=first)
        self._plans: tuple[Plan, ...] = task.plans
        self._seen: Observation | None = task.seen
        self._shown_at = self._started_at
        self._waits = task.waits or "the target to be read"
        self._queued = task.state is None  # the next move waits, or may wait, for those of other rollouts
        self._refusal: ApplicationError | None = None
        self._finishing = False  # the end is being written: whether the rollout can still turn back is unknown
        self._heard = 0  # messages so far; a change ends the current wait
        self._cancelled = False  # the cancel is handled: a retarget after it goes forward again
        self._retarget_answer: dict[int, str | ApplicationError] = {}
        self._retargets = 0
        self._noticed = task.noticed
        self._sends: set[asyncio.Task[None]] = set()
        self._permits = asyncio.Lock()  # messages that wait for their permit keep their order

    # --- the loop ---------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, given: RawValue = NOTHING) -> Report:
        """Roll from (R, 0) to (0, R), or back."""
        try:
            await self._until_the_end()
        finally:
            self._show()
        self._notice()
        await self._handlers_finished()
        return self.report()

    async def _until_the_end(self) -> None:
        while self._state.outcome is None:
            try:
                await self._step()
            except BaseException as error:
                # The only place for cancellation: any await may raise it, and it means abort.
                if not is_cancelled_exception(error):
                    raise
                self._abort_by_cancel()
            if self._state.outcome is None and self._history_is_long() and self._is_answered():
                workflow.continue_as_new(self._continued())

    def _is_answered(self) -> bool:
        """Whether every message has its answer, and the workflow of each notification has started."""
        return workflow.all_handlers_finished() and not self._sends

    async def _handlers_finished(self) -> None:
        """Wait until every message has its answer, and the workflow of each notification has started.

        A cancel in this time is an abort, as everywhere.
        """
        while True:
            try:
                await workflow.wait_condition(self._is_answered)
            except asyncio.CancelledError:
                self._abort_by_cancel()
            else:
                return

    async def _step(self) -> None:
        """Take one step. No error in it fails the workflow task: Temporal would retry it for ever, without messages.

        Before the first change, an error refuses the rollout. After it, the rollout holds and needs a person.
        """
        try:
            await self._go()
        except Exception as error:
            if is_cancelled_exception(error) or error is self._refusal or _is_temporals(error):
                raise
            if not self._state.baseline.template:
                await self._refuse(error)
            if isinstance(error, ApplicationError):  # no fault of ours: see _result
                workflow.logger.warning("the rollout needs a person: %s", error)
            else:
                workflow.logger.exception("the rollout needs a person")
            await self._block(str(_refusal_of(error).message))

    async def _go(self) -> None:
        if workflow.cancellation_reason() is not None and not self._cancelled:
            self._abort_by_cancel()  # a cancel that arrives with another event raises nothing
        self._state = self._state.passing(_now())
        self._notice()
        self._show()
        if not self._state.baseline.template:
            await self._prepare()
        elif self._state.retarget is not None:
            await self._retarget(self._state.retarget)
        else:
            decision = await self._decision()
            if decision is not None:
                await self._perform(decision)

    @property
    def _observed(self) -> Observation:
        """The observation that the decision is based on."""
        if self._seen is None:
            raise AssertionError("the target must be observed before a decision")
        return self._seen

    async def _decision(self) -> Decision | None:
        """Watch until there is something to do, and return it.

        Returns None when a message arrives, or a hold or the time for an answer ends.
        """
        heard, state = self._heard, self._state
        hold_s, watch = self._hold_left_s(), self._start_watch()
        try:
            await workflow.wait_condition(
                lambda: watch.done() or self._heard != heard,
                timeout=hold_s,
                timeout_summary=state.waypoint.waits_for(_now(), kept=True) if state.waypoint and hold_s else None,
            )
        except TimeoutError:
            pass  # the hold is over, or nobody answered in time: the next step handles it
        finally:
            if not watch.done():
                watch.cancel()
                watch.add_done_callback(_ended)
        if not watch.done() or self._heard != heard:
            await asyncio.gather(watch, return_exceptions=True)
            self._queued = rests(state) and self._state.goal is not Goal.BACK
            self._waits = TURN if self._queued else self._waits
            return None
        try:
            watched = _result(contract.AWAIT_READY, await watch)
        except ActivityError as error:
            await self._stuck(error)
            return None
        self._learn(watched)
        self._state = self._state.after_record(self._spec.repeated_gates, watched.verdicts, _now())
        return watched.decision

    def _start_watch(self) -> workflow.ActivityHandle[RawValue]:
        """Start to watch the target until there is something to do."""
        state, tuning = self._state.brief, self._task.tuning
        # A waiting rollout costs little, because it is observed and taken over less often. The first move, and the
        # first one after a rest, may wait: if many rollouts are approved at once, none needs another activity for it.
        queued = self._queued and not rests(state) and state.goal is not Goal.BACK
        resting = rests(state) or queued
        attempt_s = tuning.rest_attempt_s if resting else tuning.attempt_s
        return workflow.start_activity(
            contract.AWAIT_READY.name,
            WatchInput(
                target=self._spec.target,
                rules=self._spec.rules,
                state=state,
                attempt_s=attempt_s,
                goes_back=self._spec.change.goes_back,
                configures=tuple(sorted(self._spec.change.config_maps)),
                queued=queued,
                queue_s=tuning.queue_s,
            ),
            result_type=RawValue,
            task_queue=self._activity_queue,
            start_to_close_timeout=timedelta(seconds=attempt_s + 60),
            heartbeat_timeout=timedelta(seconds=tuning.rest_heartbeat_s if resting else tuning.heartbeat_s),
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=5)),
            summary=_summary(f"{state.phase}: {self._counts()}"),
        )

    def _learn(self, watched: Watched) -> None:
        self._seen = watched.seen
        self._waits, self._queued = watched.decision.waits_for, watched.queued
        if watched.restored is not None:
            self._state = self._state.after_restored(watched.restored.mark, watched.restored.routed, _now())
        self._state = learned(self._state.but(governed=watched.governed), watched.seen)
        if watched.warning:
            self._state = self._state.warned(watched.warning, _now())

    def _hold_left_s(self) -> float | None:
        reached = self._state.waypoint
        if reached is None or self._state.stopped or self._state.unaccepted:
            return None
        now = _now()
        ends_at = reached.next_at(now)
        return None if ends_at is None else ends_at - now

    async def _perform(self, decision: Decision) -> None:
        if decision.act is Act.VERIFY:
            await self._verify(decision)
        elif is_written(self._state, decision):
            await self._write(decision)
        else:
            self._state = applied(self._spec.rules, self._state, self._observed, decision, _now())
            if decision.act is Act.FAIL and self._state.goal is Goal.BACK:
                self._waits = "the rollback"  # the failure is the reason; it is not what the rollout waits for

    # --- doing ------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        self._waits = "the target to be read"
        prepared = await self._tried(
            self._spec, "read the target, dry-run the change",
            notifications=self._spec.notifications, by=self._task.by, broke_glass=self._task.break_glass,
        )  # fmt: skip
        refused = unchanged(prepared)
        if refused is not None:
            raise refused
        plan = first_plan(self._spec, prepared)
        self._state = begun(self._state, prepared, _now(), self._task.by)
        if self._task.break_glass:
            reason = f"{self._task.by}: {self._task.break_glass}"
            self._state = self._state.but(broke_glass=reason).noted(
                _now(), "freeze overruled", self._task.break_glass, self._task.by
            )
        self._plans, self._waits = (plan,), TURN

    async def _tried(self, spec: Spec, summary: str, **more: Any) -> Prepared:
        """Read the target, and try a spec's change by a dry run."""
        given = PrepareInput(
            target=spec.target, owner=self._state.owner, change=spec.change, rules=spec.rules, name=self._task.name,
            accept=spec.accept, **more,
        )  # fmt: skip
        return await self._do(contract.PREPARE, given, summary, limit=PREPARE_LIMIT)

    async def _refuse(self, error: Exception) -> NoReturn:
        """End the workflow before it has changed anything.

        Who waits for the plan, or for the answer to a retarget, gets the same error.
        """
        self._refusal = self._retarget_answer[self._retargets] = _refusal_of(error)
        self._send(Event.REFUSED, self._noticed.number + 1, str(self._refusal.message))
        await self._handlers_finished()
        raise self._refusal from error

    async def _retarget(self, retarget: Retarget) -> None:
        """Prepare another version. The rollout continues with it, or as before when it is refused."""
        number = self._retargets
        try:
            spec = _respecified(self._spec, retarget)
            prepared = await self._tried(
                spec, f"retarget by {retarget.by}: dry-run the change",
                baseline=self._state.baseline if self._state.claimed else None,
                wanted=self._state.wanted if retarget.change is None and self._state.foreign is None else None,
                by=retarget.by, retargets=True, broke_glass=self._state.broke_glass,
            )  # fmt: skip
            if self._state.retarget is not retarget:
                return  # withdrawn by an abort, or replaced by a newer retarget
            self._retarget_answer[number] = self._retargeted(retarget, spec, prepared)
        except Exception as error:
            if is_cancelled_exception(error) or _is_temporals(error):
                raise
            refusal = _refusal_of(Refused(str(error), field="change") if isinstance(error, ValueError) else error)
            self._retarget_answer[number] = refusal
            self._state = self._state.noted(_now(), "retarget refused", str(refusal.message), retarget.by)
            if self._state.retarget is retarget:
                self._state = self._state.but(retarget=None, overrules=False)

    def _retargeted(self, retarget: Retarget, spec: Spec, prepared: Prepared) -> str:
        before, after = self._state, retargeted(self._state, retarget, prepared, _now())
        if after.goal is Goal.BACK:
            self._state = after
            return "rolls back to the baseline"
        if is_wanted_already(before, retarget, prepared):
            self._state = after
            return f"{before.wanted} is already the wanted version"
        plan = planned(spec, prepared, found=True, parent=str(before.wanted))  # raises when there is no plan
        self._state, self._spec, self._plans = after, spec, kept((*self._plans, plan))
        same = prepared.wanted.template == before.wanted.template
        return f"now wants {prepared.wanted}" if not same else f"still wants {before.wanted}, by another strategy"

    async def _verify(self, decision: Decision) -> None:
        index = decision.waypoint
        waypoint = None if index is None else self._spec.strategy.waypoints[index]
        what = "the end" if waypoint is None else f"waypoint {waypoint.at}"
        try:
            verified = await self._do(
                contract.VERIFY,
                VerifyInput(target=self._spec.target, rules=self._spec.rules, state=self._state.brief),
                f"gates at {what}",
                limit=PREPARE_LIMIT,
            )
        except ActivityError as error:
            await self._stuck(error)
            return
        self._state = judged(self._spec.rules, self._state, self._observed, decision, verified.verdicts, _now())
        verdict = combined(verified.verdicts)
        if self._state.goal is Goal.FORWARD and verdict.result is Result.INCONCLUSIVE:
            self._waits = f"evidence: {verdict.why}"
            self._show()
            await self._rest(f"evaluate the gates again: {verdict.why}")

    async def _write(self, decision: Decision) -> None:
        """Write what was decided, and record it. The next step observes what changed meanwhile, and decides on it."""
        self._state = attempted(self._state, decision, self._observed)
        try:
            written = await self._carry_out(decision)
        except ActivityError as error:
            await self._stuck(error, decision)
            return
        self._state = applied(self._spec.rules, self._state, self._observed, decision, _now(), written)
        if not written.done:
            self._waits = f"the next try: {decision.why}: {written.why}"
            self._show()
            await self._rest(f"observe again: {written.why}", seconds=1.0)
            return
        counts = decision.counts
        self._waits = f"{counts.old} old and {counts.new} new replicas to be ready" if counts else decision.waits_for

    async def _carry_out(self, decision: Decision) -> Written:
        seen = self._observed
        unwritten = seen.template != self._state.wanted.template
        needs_change = unwritten or decision.act is Act.CONFIGURE
        self._finishing = decision.act is Act.FINISH
        try:
            return await self._do(
                self._activity_of(decision),
                WriteInput(
                    target=self._spec.target,
                    rules=self._spec.rules,
                    state=self._state.brief,
                    decision=decision,
                    replicas=seen.replicas,
                    change=self._spec.change if needs_change else None,
                    generation=seen.generation,
                    routed=seen.routed,
                    ready_at=movable_since(self._spec.rules, self._state, seen),
                    note=self._note(decision) if unwritten or self._finishing else None,
                ),
                decision.why,
                limit=WRITE_LIMIT,
                longer=self._spec.drain.longest if self._spec.drain else timedelta(0),
            )
        finally:
            self._finishing = False

    def _note(self, decision: Decision) -> Note:
        failure = self._state.failure
        return Note(
            rollout=workflow.info().workflow_id,
            by=self._task.by,
            at=self._started_at,
            what=described(self._spec.change, self._state.wanted),
            outcome=str(self._state.ending) if decision.act is Act.FINISH else "",
            why=str(failure) if failure else "",
        )

    def _activity_of(self, decision: Decision) -> Activity[WriteInput, Written]:
        if decision.act is Act.SCALE:
            taken = decision.counts is not None and decision.counts.old < self._observed.old.total
            return contract.SCALE_OLD if taken else contract.SCALE_NEW
        return {
            Act.PAUSE_CONTROLLER: contract.SCALE_NEW,
            Act.CONFIGURE: contract.SCALE_NEW,
            Act.RESIZE: contract.RESIZE,
            Act.SETTLE: contract.SETTLE,
            Act.ROUTE: contract.ROUTE,
            Act.UNDO: contract.UNDO,
            Act.FINISH: contract.FINISH,
        }[decision.act]

    async def _do(
        self, act: Activity[Any, R], given: Frozen, summary: str, *, limit: timedelta, longer: timedelta = timedelta(0)
    ) -> R:
        """Run an activity to its end, even on a cancel: a change of the cluster must be known to have ended."""
        result = await workflow.execute_activity(
            act.name,
            given,
            result_type=RawValue,
            task_queue=self._activity_queue,
            start_to_close_timeout=timedelta(seconds=self._task.tuning.write_s) + longer,
            schedule_to_close_timeout=limit,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=5)
            ),
            summary=_summary(summary),
        )
        return _result(act, result)

    @property
    def _activity_queue(self) -> str:
        """The task queue that the workers of the target's cluster poll."""
        return contract.activity_queue(workflow.info().task_queue, self._spec.target.cluster)

    async def _rest(self, why: str, seconds: float = 0.0) -> None:
        """Wait a little before the next attempt; a message ends the wait."""
        heard = self._heard
        try:
            await workflow.wait_condition(
                lambda: self._heard != heard,
                timeout=seconds or self._task.tuning.recheck_s,
                timeout_summary=_summary(why),
            )
        except TimeoutError:
            return

    async def _stuck(self, error: ActivityError, decision: Decision | None = None) -> None:
        """Need a person: an activity failed for good (a missing right, say, or a target with another owner).

        ``decision`` is what it was to write.
        """
        if is_cancelled_exception(error):
            raise error
        cause = error.cause
        message = str(cause.message) if isinstance(cause, ApplicationError) else str(cause)
        if isinstance(cause, ApplicationError) and cause.type == "Fenced":
            self._state = self._state.after_fenced(message, _now())
            return
        await self._block(message, decision)

    async def _block(self, message: str, decision: Decision | None = None) -> None:
        """Need a person, and try again after a while: the cause may have been removed."""
        if decision is None:
            self._state = stuck(self._state, message, _now())
        else:
            self._state = denied(self._state, self._observed, decision, message, _now())
        self._waits = f"a person: {Cause.CONFIGURATION}: {message}"
        self._show()
        self._notice()
        await self._rest(f"try again: {message}")

    def _abort_by_cancel(self) -> None:
        """Treat Temporal's own cancel as an abort: the rollback happens in the run, not in an exception handler."""
        self._cancelled = True
        if self._state.goal is Goal.FORWARD and self._state.outcome is None:
            why = workflow.cancellation_reason() or "in the Temporal UI or CLI"
            self._state = self._state.going_back(Outcome.ABORTED, requested(f"cancelled: {why}"), _now())

    # --- history, and what a person sees ----------------------------------------------------------------

    def _history_is_long(self) -> bool:
        info = workflow.info()
        long = info.is_continue_as_new_suggested() or (
            info.get_current_history_length() >= self._task.tuning.history_events
        )
        return long and self._state.retarget is None  # the next step prepares it

    def _continued(self) -> Task:
        changed = {
            "spec": self._spec, "state": self._state, "plans": self._plans, "started_at": self._started_at,
            "noticed": self._noticed, "seen": self._seen, "waits": self._waits,
        }  # fmt: skip
        return self._task.model_copy(update=changed)

    def _notice(self) -> None:
        """Send the notification of the present phase; the rollout does not wait for it."""
        if not self._spec.notifications:
            return
        noticed, before = self._noticed.after(self._state.phase), self._noticed
        self._noticed = noticed
        if noticed.event is not None and noticed.number > before.number:
            self._send(noticed.event, noticed.number)

    def _send(self, event: Event, number: int, refusal: str = "") -> None:
        receivers = [each.name for each in self._spec.notifications if event in each.events]
        if not receivers:
            return
        try:
            notice = notice_of(
                self.status(), event, number=number, at=_now(), kind=self._spec.target.kind,
                cluster=self._task.cluster, run_id=workflow.info().first_execution_run_id, refusal=refusal,
            )  # fmt: skip
        except Exception:
            workflow.logger.exception("the notification cannot be made")  # the rollout continues
            return
        heartbeat_s, cluster = self._task.tuning.heartbeat_s, self._spec.target.cluster
        for receiver in receivers:
            request = NotifyInput(receiver=receiver, notice=notice, heartbeat_s=heartbeat_s, cluster=cluster)
            task = asyncio.create_task(_start_notification(request))
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    def _counts(self) -> str:
        seen = self._seen
        if seen is None:
            return "read the target"
        old, new = seen.old, seen.new
        return f"old {old.ready}/{old.total}, new {new.ready}/{new.total} ready; waits for {self._waiting_for()}"

    def _show(self) -> None:
        """Update the UI: the current details, and the attributes that saved views filter on."""
        self._shown_at = _now()
        try:
            status = self.status()
        except Exception:
            workflow.logger.exception("the status cannot be shown")  # the rollout continues
            return
        workflow.set_current_details(to_markdown(status))
        shown = workflow.info().typed_search_attributes
        updates: list[Any] = []
        if shown.get(PHASE) != str(status.phase):
            updates.append(PHASE.value_set(str(status.phase)))
        if shown.get(NEEDS_HUMAN) != status.needs_person:
            updates.append(NEEDS_HUMAN.value_set(status.needs_person))
        if shown.get(TARGET) is None:
            updates.append(TARGET.value_set(status.target))
        if status.outcome is not None and shown.get(OUTCOME) is None:
            updates.append(OUTCOME.value_set(status.outcome))
        if updates:
            workflow.upsert_search_attributes(updates)

    @workflow.query(name=contract.STATUS_QUERY)
    def status(self) -> Status:
        """Return where the rollout is, what it waits for, and which messages it accepts."""
        return make_status(
            workflow_id=workflow.info().workflow_id, name=self._task.name, target=self._spec.target,
            change=self._spec.change, rules=self._spec.rules, state=self._state, seen=self._seen,
            waits=self._waiting_for(), started_at=self._started_at, updated_at=self._shown_at,
        )  # fmt: skip

    def _waiting_for(self) -> str:
        now, waypoint = _now(), self._state.waypoint
        here = waypoint.waits_for(now, kept=True) if waypoint else self._retains(now)
        gateways = acceptance(self._state, pending_of(self._state, self._seen))
        return self._state.stopped or gateways or here or self._waits

    def _retains(self, now: float) -> str:
        """Return that the old side is kept for a switch back; empty when it is not."""
        routed = self._state.routed
        is_led = self._state.goal is Goal.FORWARD and routed is not None and routed.share == ALL
        is_kept = is_led and now < kept_until(self._spec.strategy, self._state)
        return "the end of retain, with the old side whole for an instant switch back" if is_kept else ""

    @workflow.query(name=contract.REPORT_QUERY)
    def report(self) -> Report:
        """Return everything that happened so far."""
        return Report(
            status=self.status(), plans=self._plans, entries=self._state.log, dropped=self._state.dropped,
            writes=self._state.writes,
            started_by=self._task.by, ended_at=_now() if self._state.outcome is not None else None,
        )  # fmt: skip

    # --- messages: each as a signal, and as an update that answers ------------------------------------------

    # Anybody may send anything, and the SDK fails the workflow task for ever if a handler cannot be called: so each one
    # takes the raw input, or none, and reads it itself.

    @workflow.signal(name=contract.SENDER_SIGNAL)
    def sender(self, sent: RawValue = NOTHING) -> None:
        """Do nothing: the event in the history shows who sends the update that follows."""

    @workflow.signal(dynamic=True)
    async def unknown(self, name: str, sent: Sequence[RawValue]) -> None:
        """Refuse a signal of a name that no message has."""
        await self._signalled(name, NOTHING)

    @workflow.update(name=contract.PREPARED_UPDATE)
    async def prepared(self) -> Plan:
        """Return the plan as soon as the rollout is prepared, or raise the refusal."""
        await workflow.wait_condition(lambda: bool(self._plans) or self._refusal is not None)
        if self._refusal is not None:
            raise self._refusal
        return self._plans[-1]

    async def _receive(self, message: Message) -> str:
        """Apply a message that the policy permits; nothing delays one that stops or goes back."""
        if self._state.governed and not messages.stops(message):
            async with self._permits:
                await self._permit(message)
        return await self._apply(message)

    async def _permit(self, message: Message) -> None:
        """Ask a worker's policy, or raise its refusal."""
        update = workflow.current_update_info()
        request = PermitInput(
            target=self._spec.target, strategy=self._spec.strategy, message=messages.name_of(message), by=message.by,
            replicas=message.replicas if isinstance(message, messages.Scale) else None,
            breaks_glass=isinstance(message, messages.Resume) and message.break_glass, labels=self._state.labels,
            namespace_labels=self._state.namespace_labels, reason=message.reason, about=message.about,
            update_id=update.id if update is not None else "",
        )  # fmt: skip
        try:
            await self._do(contract.PERMIT, request, f"{request.message} by {request.by}: policy", limit=PREPARE_LIMIT)
        except ActivityError as error:
            raise _refusal_of(error) from error

    async def _apply(self, message: Message) -> str:
        """Apply a message and return the answer, or raise the refusal.

        While the end is being written, nobody knows whether the message is in time: it waits for that write, and is
        refused if it is late. After that, no await interrupts the change of the state, which needs no lock.
        """
        if self._finishing:
            await workflow.wait_condition(lambda: not self._finishing)
        if self._refusal is not None:
            raise self._refusal
        try:
            now = _now()
            state = messages.receive(message, self._state, now)
        except Exception as refused:
            raise _refusal_of(refused) from refused
        if state.retarget is not self._state.retarget:
            self._retargets += 1
        self._state = state
        self._heard += 1
        return messages.answer(message, state, now)

    async def _signalled(self, name: str, sent: RawValue) -> None:
        """Apply a signal, or note in the report why it is refused."""
        by = ""
        try:
            message = _read(name, sent)
            by = message.by
            await self._receive(message)
        except ApplicationError as refused:
            self._state = self._state.noted(_now(), "signal refused", str(refused.message), by)

    async def _updated(self, name: str, sent: RawValue) -> str:
        """Apply an update and return the phase; for a retarget, return as soon as the API server has tried it."""
        message = _read(name, sent)
        response = await self._receive(message)
        if not isinstance(message, messages.RetargetTo) or messages.stops(message):
            return response
        number = self._retargets
        await workflow.wait_condition(
            lambda: number in self._retarget_answer or self._state.retarget is None or self._retargets != number
        )
        answer = self._retarget_answer.pop(number, "withdrawn by a later message")
        if isinstance(answer, ApplicationError):
            raise answer
        return answer

    def _check(self, name: str, sent: RawValue) -> None:
        """Refuse an invalid update before it is recorded in the history."""
        message = _read(name, sent)
        try:
            messages.receive(message, self._state, _now())
        except Refused as refused:
            raise _application_error(refused) from None

    signal_pause = _signal("pause")
    signal_resume = _signal("resume")
    signal_retarget = _signal("retarget")
    signal_abort = _signal("abort")
    signal_scale = _signal("scale")
    signal_settle = _signal("settle")
    signal_approve = _signal("approve")
    signal_reject = _signal("reject")
    signal_promote = _signal("promote")

    update_pause = _update("pause")
    update_resume = _update("resume")
    update_retarget = _update("retarget")
    update_abort = _update("abort")
    update_scale = _update("scale")
    update_settle = _update("settle")
    update_approve = _update("approve")
    update_reject = _update("reject")
    update_promote = _update("promote")


def _result(act: Activity[Any, R], raw: RawValue | None) -> R:
    """Return an activity's result. Anybody may complete one in Temporal, with any result.

    Raises:
        ApplicationError: if it is not such a result. The SDK itself would fail the workflow task for ever.
    """
    try:
        found = workflow.payload_converter().from_payload(raw.payload, act.result) if raw is not None else None
    except Exception as error:
        raise _not_a_result(act) from error
    if not isinstance(found, act.result):
        raise _not_a_result(act)
    return found


def _not_a_result(act: Activity[Any, Any]) -> ApplicationError:
    why = f"somebody completed the activity {act.name} in Temporal, with a result that it never has; it is tried again"
    return ApplicationError(why, type="SegueError", non_retryable=True)


def _task_of(given: RawValue) -> Task:
    """Return the workflow's input. Anybody may start one in Temporal, with any input.

    Raises:
        ApplicationError: for a wrong input at the start. The workflow fails, and nothing was written.
            Later, the error itself fails the task, until a worker of the release that wrote the input takes it.
    """
    try:
        task = workflow.payload_converter().from_payload(given.payload, Task)
    except Exception as error:
        if workflow.unsafe.is_replaying() or workflow.info().continued_run_id:
            raise
        raise _wrong_input(error) from None
    if not isinstance(task, Task):
        raise _wrong_input(None)
    return task


def _wrong_input(error: Exception | None) -> ApplicationError:
    first = error.errors()[0] if isinstance(error, ValidationError) else None
    where = ".".join(["input", *map(str, first["loc"])]) if first else "input"
    why = f"is not the input of a rollout ({first['msg']})" if first else "is not the input of a rollout"
    fix = "start it with `segue start`; if a newer client started it, upgrade the workers first"
    return _application_error(Refused(why, field=where, fix=fix))


def _read(name: str, sent: RawValue) -> Message:
    """Return the message that somebody sent, or raise the refusal."""
    encoding = sent.payload.metadata.get("encoding", b"").decode(errors="replace")
    try:
        return messages.read_message(name, sent.payload.data, encoding)
    except Refused as refused:
        raise _application_error(refused) from None  # its details are for us: temporal prints each cause


async def _start_notification(request: NotifyInput) -> None:
    """Start the workflow that sends one message. It outlives the rollout, so no receiver can hold up a rollout."""
    try:
        sending = await workflow.start_child_workflow(
            contract.NOTIFICATION_WORKFLOW,
            request,
            id=contract.notification_id(request.notice, request.receiver),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
            static_summary=f"{request.notice.event} of {request.notice.target} to {request.receiver}"[:SUMMARY_LENGTH],
        )
    except WorkflowAlreadyStartedError:
        return  # sent before a reset of this workflow
    sending.add_done_callback(_ended)


def _ended(watch: "asyncio.Task[Any]") -> None:
    """Retrieve the exception of a task that nobody awaits any more."""
    if not watch.cancelled():
        watch.exception()


def _summary(text: str) -> str:
    """Return a summary, which the UI renders as Markdown."""
    return as_text(text[:SUMMARY_LENGTH])


def _now() -> float:
    return workflow.now().timestamp()


def _respecified(spec: Spec, retarget: Retarget) -> Spec:
    """Return the spec that a retarget requests.

    Raises:
        ValueError: when the change cannot be added to the current one, or does not fit the kind of target.
    """
    spec = spec.accepting(retarget.accept)
    change = spec.change
    if retarget.change is not None:
        change = retarget.change if retarget.onto_baseline else spec.change.overlaid(retarget.change)
    if retarget.strategy is None:
        return spec.model_copy(update={"change": change})
    if (retarget.strategy.type, retarget.strategy.traffic) != (spec.strategy.type, spec.strategy.traffic):
        raise ValueError(
            "a strategy's type and traffic cannot change during a rollout; abort, then start with the new ones"
        )
    rules = spec.rules.model_copy(update={"strategy": retarget.strategy})
    return Spec(
        target=spec.target, change=change, accept=spec.accept, profile=spec.profile, notifications=spec.notifications,
        **dict(rules),
    )  # fmt: skip


def _application_error(refused: Refused) -> ApplicationError:
    details = {"field": refused.field, "value": shown(refused.value), "fix": refused.fix}
    return ApplicationError(str(refused), details, type=type(refused).__name__, non_retryable=True)


def _is_temporals(error: Exception) -> bool:
    """Whether Temporal fails a workflow task by this error, as for steps that differ from the history's."""
    return isinstance(error, TemporalError) and not isinstance(error, FailureError)


def _refusal_of(error: Exception) -> ApplicationError:
    """Return an error as the answer to the requester; an activity's error keeps the activity's message."""
    if is_cancelled_exception(error):
        raise error
    if isinstance(error, Refused):
        return _application_error(error)
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        return ApplicationError(str(cause.message), *cause.details, type=cause.type, non_retryable=True)
    if isinstance(error, ActivityError):
        return ApplicationError(
            f"the target could not be read in time: {cause}", type="Unreachable", non_retryable=True
        )
    text = f"Segue itself failed ({type(error).__name__}: {error}); please report it, with the output of `segue report`"
    return ApplicationError(text, type="SegueError", non_retryable=True)
