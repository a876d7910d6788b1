"""The Temporal client: starts rollouts, steers them, and returns their status.

``translated`` translates every error of Temporal's library. What needs no worker works without one: an ended rollout
is read from its result, a list from Temporal's visibility store.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateHandle,
    WorkflowUpdateStage,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from segue import contract
from segue.budget import resolve_budget
from segue.codec import reveal
from segue.contract import Beat, Task
from segue.errors import (
    AlreadyRolling,
    Failing,
    NotFound,
    Refused,
    SegueError,
    TimedOut,
    Unreachable,
)
from segue.messages import Message, RetargetTo, name_of
from segue.naming import none_in_cluster, none_in_namespace
from segue.observation import Frozen
from segue.plan import Plan
from segue.pollers import ANSWER_S, no_worker, pinned_away, pollers_of, uncurrent, unserved
from segue.report import Report
from segue.requests import first_event, principal_of, requests_of
from segue.spec import Approval, Rollout, Strategy, Waypoint
from segue.state import Phase
from segue.status import SideStatus, Status, as_list
from segue.temporal_errors import JOIN_FIX, STARVED, translated
from segue.units import format_duration

PREPARE_S = 30.0
"""The worker reads the target, and the API server tries the change, within this time."""
PATIENCE_S = 120.0
"""Following a rollout survives an outage of Temporal for this long: a pipeline ignores a restart."""
POLL_S = 0.5
UNTAKEN_S = 10.0
"""A worker with a free slot takes an activity long before this time."""
UNSERVED_WAITS_S = (0.0, 0.5, 1.0, 2.0)
"""The times before each check for workers of a cluster: a worker that has just started may not poll yet."""
LATEST_EVENTS = 50
"""The number of newest events that show whether the workflow's code fails."""
UNCLEAR_ATTEMPTS = 3
"""From this attempt on, a workflow task counts as failing even if no reason is known: a worker may be lost or busy."""

TARGET = SearchAttributeKey.for_keyword(contract.TARGET_ATTRIBUTE)
PHASE = SearchAttributeKey.for_keyword(contract.PHASE_ATTRIBUTE)
OUTCOME = SearchAttributeKey.for_keyword(contract.OUTCOME_ATTRIBUTE)

Tell = Callable[[Report], None]
Handle = WorkflowHandle[Any, Report]
R = TypeVar("R")


class Started(Frozen):
    """A rollout that is prepared and under way."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    id: str
    run_id: str
    plan: Plan


class Listed(Frozen):
    """One rollout in the list."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    id: str
    cluster: str = ""
    target: str
    kind: str = ""
    phase: str
    outcome: str | None
    running: bool
    started_at: float
    ended_at: float | None


class Rollouts:
    """The rollouts of one cluster, and of other clusters if a target or an id names its cluster."""

    def __init__(
        self,
        client: Client,
        cluster: str = "default",
        task_queue: str = contract.TASK_QUEUE,
        *,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.client, self.cluster, self.task_queue, self._answer_s = client, cluster, task_queue, answer_s

    async def named(self, candidates: Sequence[str]) -> str:
        """Return the workflow id that exists of these: the rollout under way, else the latest.

        Raises:
            Refused: when several are under way.
            NotFound: when none of them exists.
        """
        if len(candidates) == 1:
            return candidates[0]
        answers = await asyncio.gather(*map(self._describe, candidates), return_exceptions=True)
        for each in answers:
            if isinstance(each, BaseException) and not isinstance(each, NotFound):
                raise each
        found = [each for each in answers if isinstance(each, WorkflowExecutionDescription)]
        running = [each.id for each in found if each.status is WorkflowExecutionStatus.RUNNING]
        if len(running) > 1:
            fix = f"name one of them: {', '.join(running)}"
            raise Refused("matches several rollouts", field="NAME", value=self._what(candidates[0]), fix=fix)
        if not found:
            missing = next(each for each in answers if isinstance(each, NotFound))
            cluster = cluster_of(candidates[0])
            if cluster != self.cluster:
                raise none_in_cluster(missing, cluster)
            raise none_in_namespace(missing, self._what(candidates[0]))
        return running[0] if running else max(found, key=lambda each: each.start_time).id

    async def start(self, rollout: Rollout, by: str, break_glass: str = "") -> Started:
        """Start a rollout, and return once it is prepared: the API server has tried the change.

        ``break_glass`` is the reason to overrule a freeze of the policy; empty for none.

        Raises:
            AlreadyRolling: naming the phase of the rollout under way.
            Refused: when the target cannot be rolled; it is unchanged, and the rollout has ended.
            Unreachable: when no worker serves the target's cluster, so that nothing is started; or when no worker, or
                no cluster, answers, and the rollout waits for it.
        """
        spec = rollout.spec
        await self._refuse_unserved(spec.target.cluster)
        workflow_id, what = contract.workflow_id(self.cluster, spec.target), str(spec.target)
        with translated(what, self.task_queue):
            try:
                handle = await self._start(rollout, workflow_id, by, break_glass)
            except WorkflowAlreadyStartedError as error:
                raise await self._under_way(workflow_id) from error
        run_id = handle.result_run_id or ""
        plan = await self._prepared(self._handle(workflow_id, run_id), what)
        return Started(id=workflow_id, run_id=run_id, plan=plan)

    async def join(self, rollout: Rollout, by: str) -> str:
        """Retarget the rollout under way to this rollout's change, applied to its baseline; return what happens now."""
        reason = f"joined by {rollout.metadata.name}"
        message = RetargetTo(
            change=rollout.spec.change, onto_baseline=True, by=by, reason=reason, accept=rollout.spec.accept
        )
        workflow_id = contract.workflow_id(self.cluster, rollout.spec.target)
        return str(await self.send(workflow_id, message))

    async def send(self, workflow_id: str, message: Message, *, answer: bool = True, update_id: str = "") -> str | None:
        """Send one of ``segue.messages.MESSAGES``, and return what happens now; None for a signal.

        The rollout receives messages with the same ``update_id`` once, and each sender gets the answer.

        Raises:
            Refused: when the rollout refuses the message now.
        """
        handle, what, name = self._handle(workflow_id), self._what(workflow_id), name_of(message)
        if answer:
            update_id = await self._announced(handle, what, name, message, update_id)
            return str(await self._update(handle, what, name, message, str, update_id))
        with translated(what, self.task_queue):
            await handle.signal(name, message)
        return None

    async def status(self, workflow_id: str) -> Status:
        """Return where the rollout is. For a rollout that has ended, this needs no worker."""
        description = await self._describe(workflow_id)
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return (await self._result(description)).status
        status = await self._query(description, contract.STATUS_QUERY, Status)
        return await self._live(status, description, await self._strategy(description))

    async def report(self, workflow_id: str) -> Report:
        """Return everything that the rollout did so far. For a rollout that has ended, this needs no worker."""
        description = await self._describe(workflow_id)
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return await self._with_requests(await self._result(description), description)
        report = await self._query(description, contract.REPORT_QUERY, Report)
        strategy = await self._strategy(description)
        shown = _with_status(report, await self._live(report.status, description, strategy))
        return await self._with_requests(shown, description)

    async def list(
        self, *, running: bool = False, limit: int = 50, everywhere: bool = False, namespace: str = "",
        needs_person: bool = False,
    ) -> list[Listed]:  # fmt: skip
        """List this cluster's rollouts, the newest first, from Temporal's visibility store.

        With ``everywhere``, list those of all clusters; with ``namespace``, those of its targets; with
        ``needs_person``, those under way that wait for a person.
        """
        query = f'WorkflowType = "{contract.WORKFLOW}"'
        if not everywhere:
            query += f' AND WorkflowId STARTS_WITH "rollout/{self.cluster}/"'
        if namespace:
            query += f' AND {contract.TARGET_ATTRIBUTE} STARTS_WITH "{namespace}/"'
        if running or needs_person:
            query += ' AND ExecutionStatus = "Running"'
        if needs_person:
            query += f" AND {contract.NEEDS_HUMAN_ATTRIBUTE} = true"
        with translated("any target", self.task_queue):
            async with asyncio.timeout(self._answer_s):
                return [_listed(w) async for w in self.client.list_workflows(query, limit=limit)]

    async def follow(self, workflow_id: str, poll_s: float = POLL_S) -> AsyncGenerator[Report, None]:
        """Yield the report whenever it changes, until the rollout has ended.

        It polls Temporal, and queries the worker only when the history has grown. It waits for a worker that is away.

        Raises:
            Unreachable: when nothing answers at the start, or Temporal is away for ``PATIENCE_S``.
            Failing: when the workflow's code fails at each attempt.
        """
        known: Report | None = None
        shown: Report | None = None
        mark: tuple[str, int] | None = None
        strategy: Strategy | None = None
        while True:
            description = await self._patient(workflow_id) if known else await self._describe(workflow_id)
            if description.status is not WorkflowExecutionStatus.RUNNING:
                yield await self._result(description)
                return
            current = (description.run_id, description.history_length)
            try:
                if known is None or current != mark:
                    known = await self._query(description, contract.REPORT_QUERY, Report)
                    strategy = strategy or await self._strategy(description)
                    mark = current
                report = _with_status(known, await self._live(known.status, description, strategy))
            except (Unreachable, NotFound) as error:
                if known is None:
                    raise
                # The rollout may have ended between the two calls, or its worker is being replaced.
                waits = {"waiting_for": f"a worker: {error}"}
                report = _with_status(known, known.status.model_copy(update=waits))
            if report != shown:
                shown = report
                yield report
            await asyncio.sleep(poll_s)

    async def wait(self, workflow_id: str, timeout_s: float, tell: Tell = lambda _report: None) -> Status:
        """Wait until a rollout ends or needs a person (Held, NeedsHuman); ``tell`` receives each new report.

        Raises:
            TimedOut: after ``timeout_s``; the rollout continues.
            SegueError: the error that its workflow failed with.
        """
        status: Status | None = None
        try:
            async with asyncio.timeout(timeout_s), aclosing(self.follow(workflow_id)) as reports:
                async for report in reports:
                    tell(report)
                    status = report.status
                    if status.outcome is not None or status.phase in {Phase.HELD, Phase.NEEDS_HUMAN}:
                        break
        except TimeoutError as error:
            raise _late(self._what(workflow_id), timeout_s, status) from error
        if status is None:
            raise AssertionError("follow yields at least once")
        return status

    async def _pollers(self, task_queue: str) -> DescribeTaskQueueResponse:
        """Return who polls the task queue; an empty response when Temporal does not answer."""
        try:
            return await pollers_of(self.client, task_queue, self._answer_s)
        except RPCError:
            return DescribeTaskQueueResponse()

    async def _refuse_unserved(self, cluster: str | None) -> None:
        """Refuse to start what no worker would carry out.

        Raises:
            Unreachable: naming the cluster, when workers run workflows, and none runs the activities of this cluster.
        """
        for wait_s in UNSERVED_WAITS_S:
            await asyncio.sleep(wait_s)
            if not await self._is_unserved(contract.activity_queue(self.task_queue, cluster)):
                return
        raise unserved(self.task_queue, cluster)

    async def _is_unserved(self, queue: str) -> bool:
        try:
            activities = await pollers_of(self.client, queue, self._answer_s, activities=True)
        except RPCError:
            return False  # the start reports why Temporal does not answer
        # Without any worker, the rollout starts and waits for one.
        return not activities.pollers and bool((await self._pollers(self.task_queue)).pollers)

    # --- one request to Temporal each ---------------------------------------------------------------------

    def _what(self, workflow_id: str) -> str:
        """Return the name of a rollout for commands and messages: with its cluster, if that is another than ours."""
        what, cluster = target_of(workflow_id), cluster_of(workflow_id)
        return what if cluster in {"", self.cluster} else f"{cluster}/{what}"

    def _handle(self, workflow_id: str, run_id: str | None = None) -> Handle:
        return self.client.get_workflow_handle(workflow_id, run_id=run_id, result_type=Report)

    async def _start(self, rollout: Rollout, workflow_id: str, by: str, break_glass: str) -> WorkflowHandle[Any, Any]:
        cluster = rollout.spec.target.cluster or self.cluster
        task = Task(spec=rollout.spec, name=rollout.metadata.name, cluster=cluster, by=by, break_glass=break_glass)
        attributes = [
            SearchAttributePair(TARGET, str(rollout.spec.target)),
            SearchAttributePair(PHASE, str(Phase.PREPARING)),
        ]
        return await self.client.start_workflow(
            contract.WORKFLOW,
            task,
            id=workflow_id,
            task_queue=self.task_queue,
            result_type=Report,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            search_attributes=TypedSearchAttributes(attributes),
            static_summary=summary(rollout),
            static_details=details(rollout, by),
        )

    async def _under_way(self, workflow_id: str) -> AlreadyRolling:
        found = await self._describe(workflow_id)
        phase = found.typed_search_attributes.get(PHASE) or "phase not yet known"
        since = found.start_time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        what = self._what(workflow_id)
        return AlreadyRolling(f"a rollout of {what} is under way ({phase}, since {since})", fix=JOIN_FIX)

    async def _prepared(self, handle: Handle, what: str) -> Plan:
        try:
            return await self._update(handle, what, contract.PREPARED_UPDATE, None, Plan)
        except Unreachable as error:
            raise await self._stuck(handle, what, error) from error
        except SegueError:
            # A refused rollout ends at once: its result may arrive before its answer, and gives the reason.
            if await self._running(handle, what):
                raise
        return (await self._end(handle, what)).plans[-1]

    async def _running(self, handle: Handle, what: str) -> bool:
        with translated(what, self.task_queue):
            return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING

    async def _announced(self, handle: Handle, what: str, name: str, message: Message, update_id: str) -> str:
        """Let Temporal record who sends the next update, if it authenticates; return the update's id."""
        update_id = update_id or uuid.uuid4().hex
        with translated(what, self.task_queue):
            first = await first_event(handle)
            if first is not None and principal_of(first):
                sent = contract.Sent(update_id=update_id, name=name, message=message)
                try:
                    await handle.signal(contract.SENDER_SIGNAL, sent, rpc_timeout=timedelta(seconds=self._answer_s))
                except RPCError as error:
                    # It has ended: the update is refused, or it arrived before and has its answer.
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
        return update_id

    async def _update(
        self, handle: Handle, what: str, name: str, message: Message | None, result: type[R], update_id: str = ""
    ) -> R:
        """Send an update. A worker accepts it quickly; the answer may need the cluster."""
        async with self._answering(handle, what), asyncio.timeout(self._answer_s):
            sent = await self._sent(handle, name, message, result, update_id)
        try:
            async with self._answering(handle, what), asyncio.timeout(PREPARE_S):
                return await sent.result()
        except Unreachable as error:
            late = f"the rollout of {what} has accepted {name}, but has not answered yet"
            raise Unreachable(f"{late}; see `segue status {what}`") from error

    @asynccontextmanager
    async def _answering(self, handle: Handle, what: str) -> AsyncGenerator[None, None]:
        """Translate the errors of a call that needs a worker's answer.

        Raises:
            Failing: when the worker is there, and the workflow's code fails; with its failure.
        """
        try:
            with translated(what, self.task_queue):
                yield
        except Unreachable as error:
            with translated(what, self.task_queue):
                description = await handle.describe(rpc_timeout=timedelta(seconds=self._answer_s))
            failure = await self._task_failure(description, what)
            if failure:
                raise Failing(failing_text(what, handle.id, failure)) from error
            queue = description.task_queue  # the rollout's: its client may have had another one than this one
            silent = error if queue == self.task_queue else no_worker(queue)
            polling, info = await self._pollers(queue), description.raw_description.workflow_execution_info
            pinned = pinned_away(polling, info.versioning_info.versioning_override, handle.id, queue)
            raise pinned or uncurrent(polling, queue) or silent from error

    async def _task_failure(self, description: WorkflowExecutionDescription, what: str) -> str:
        """Return the failure of the workflow's code that Temporal keeps retrying; empty when there is none."""
        attempt = description.raw_description.pending_workflow_task.attempt
        with translated(what, self.task_queue):
            if attempt < 2:
                return ""
            execution = description.raw_description.workflow_execution_info.execution
            found = await self.client.workflow_service.get_workflow_execution_history_reverse(
                GetWorkflowExecutionHistoryReverseRequest(
                    namespace=self.client.namespace, execution=execution, maximum_page_size=LATEST_EVENTS
                ),
                timeout=timedelta(seconds=self._answer_s),
            )
            for event in found.history.events:
                if event.event_type == _TASK_FAILED:
                    await reveal(event.workflow_task_failed_event_attributes.failure, self.client.data_converter)
            return task_failure(attempt, found.history.events)

    async def _sent(
        self, handle: Handle, name: str, message: Message | None, result: type[R], update_id: str
    ) -> WorkflowUpdateHandle[R]:
        """Send an update until it is accepted; retry when the workflow just continues as new."""
        while True:
            try:
                return await handle.start_update(
                    name,
                    args=[] if message is None else [message],
                    wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                    id=update_id or None,
                    result_type=result,
                )
            except RPCError as error:
                if "unexpected workflow task failure" not in str(error):
                    raise
                await asyncio.sleep(POLL_S)

    async def _stuck(self, handle: Handle, what: str, error: Unreachable) -> Unreachable:
        """Return the error for a started rollout that is not prepared, with the reason."""
        with translated(what, self.task_queue):
            pending = (await handle.describe()).raw_description.pending_activities
        failures = [p.last_failure for p in pending if p.HasField("last_failure")]
        for each in failures[:1]:
            await reveal(each, self.client.data_converter)
        failure = _message(failures[0]) if failures else ""
        waits = f"it waits for {missing}" if (missing := untaken(pending, time.time())) else str(error)
        why = f"its worker keeps retrying: {failure}" if failure else waits
        return Unreachable(
            f"the rollout of {what} was started and waits; its target is unchanged: {why} "
            f"(`segue abort {what} --no-wait` ends it)"
        )

    async def _describe(self, workflow_id: str) -> WorkflowExecutionDescription:
        with translated(self._what(workflow_id), self.task_queue):
            return await self._handle(workflow_id).describe(rpc_timeout=timedelta(seconds=self._answer_s))

    async def _patient(self, workflow_id: str) -> WorkflowExecutionDescription:
        """Describe the workflow; retry for ``PATIENCE_S`` while Temporal does not answer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        while True:
            try:
                return await self._describe(workflow_id)
            except Unreachable:
                if loop.time() > until:
                    raise
                await asyncio.sleep(1)

    async def _query(self, description: WorkflowExecutionDescription, name: str, result: type[R]) -> R:
        handle = self._handle(description.id, description.run_id)
        async with self._answering(handle, self._what(description.id)), asyncio.timeout(self._answer_s):
            while True:
                try:
                    return cast("R", await handle.query(name, result_type=result))
                except WorkflowQueryFailedError as error:
                    if contract.LATE_QUERY not in str(error):
                        raise
                    await asyncio.sleep(POLL_S)

    async def _result(self, description: WorkflowExecutionDescription) -> Report:
        what = self._what(description.id)
        try:
            return await self._end(self._handle(description.id, description.run_id), what)
        except Refused as refused:
            if isinstance(refused.__cause__, WorkflowFailureError):
                # Else it would read as if the target were in that state now, or as if this request were refused.
                at = f"{description.start_time:%Y-%m-%d %H:%M:%S} UTC"
                refused.args = (f"the rollout of {what} that was to start at {at} was refused: {refused}",)
            raise

    async def _end(self, handle: Handle, what: str) -> Report:
        with translated(what, self.task_queue):
            return await handle.result(rpc_timeout=timedelta(seconds=self._answer_s))

    async def _live(
        self, status: Status, description: WorkflowExecutionDescription, strategy: Strategy | None
    ) -> Status:
        """Return the status, with the latest observation, and with what its worker lacks: it is missing, or fails."""
        found = live(status, await self._beat(description), strategy)
        pending = description.raw_description.pending_activities
        waits = untaken(pending, time.time()) or await self._retried(pending, found.waiting_for)
        return found.model_copy(update={"waiting_for": waits}) if waits and found.outcome is None else found

    async def _retried(self, pending: Iterable[PendingActivityInfo], what: str) -> str:
        """Return why what the rollout waits for is not done yet, if its worker keeps retrying; empty otherwise."""
        failure = latest_failure(pending)
        if failure is None:
            return ""
        await reveal(failure, self.client.data_converter)
        return f"{what}; its worker keeps retrying: {_message(failure)}"

    async def _beat(self, description: WorkflowExecutionDescription) -> Beat | None:
        """Return the latest heartbeat of the running watch; None when there is none."""
        for pending in description.raw_description.pending_activities:
            if _watches(pending):
                return await self._decoded(pending.heartbeat_details.payloads, Beat)
        return None

    async def _strategy(self, description: WorkflowExecutionDescription) -> Strategy | None:
        """Return the strategy from the input in the run's first event; None if there is none, or a newer one."""
        handle = self._handle(description.id, description.run_id)
        with translated(self._what(description.id), self.task_queue):
            event = await first_event(handle)
            if event is None:
                return None
            task = await self._decoded(event.workflow_execution_started_event_attributes.input.payloads, Task)
            return task.spec.strategy if task else None

    async def _decoded(self, payloads: Sequence[Payload], kind: type[R]) -> R | None:
        """Return the first value; None when it is something else, such as the input that a newer client sent."""
        try:
            found = await self.client.data_converter.decode(payloads, [kind])
        except ValidationError:
            return None
        return found[0] if isinstance(found[0], kind) else None

    async def _with_requests(self, report: Report, description: WorkflowExecutionDescription) -> Report:
        """Add who made each request, as far as Temporal authenticates and still keeps the runs."""
        with translated(self._what(description.id), self.task_queue):
            first = await first_event(self._handle(description.id, description.run_id))
            if first is None or not principal_of(first):
                return report
            requests = await requests_of(self.client, description.id, description.run_id)
        return report.model_copy(update={"requests": requests.found})


# --- pure helpers ---------------------------------------------------------------------------------------


_MOVING = {Phase.PREPARING, Phase.PROGRESSING, Phase.ROLLING_BACK}
"""In other phases the rollout itself knows what it waits for: a person, a hold, room. The watch only observes."""


def live(status: Status, beat: Beat | None, strategy: Strategy | None = None) -> Status:
    """Return the status, updated by the watch's last observation when that is newer."""
    if status.outcome is not None or beat is None or beat.seen is None or beat.at <= status.updated_at:
        return status
    seen = beat.seen
    changes: dict[str, Any] = {
        "replicas": seen.replicas,
        "old": SideStatus(replicas=seen.old.total, ready=seen.old.ready),
        "new": SideStatus(replicas=seen.new.total, ready=seen.new.ready),
        "waiting_for": (status.phase in _MOVING and beat.why) or status.waiting_for,
        "updated_at": beat.at,
    }
    if not status.reason and seen.problem is not None:
        changes["reason"] = str(seen.problem)
    if strategy is not None and seen.replicas > 0 and (lowered := _lowered(status, strategy)) is not None:
        budget = resolve_budget(strategy, seen.replicas)
        changes |= {"floor": max(0, budget.floor - lowered), "ceiling": budget.ceiling}
    return status.model_copy(update=changes)


def _lowered(status: Status, strategy: Strategy) -> int | None:
    """Return by how much the floor is lower than the budget's, because not all replicas were ready before.

    Returns None if a retarget has replaced the strategy that the run began with.
    """
    if not status.replicas:
        return 0
    budget = resolve_budget(strategy, status.replicas)
    is_in_force = budget.ceiling == status.ceiling and budget.floor >= status.floor
    return budget.floor - status.floor if is_in_force else None


def untaken(pending: Iterable[PendingActivityInfo], now: float) -> str:
    """Return which worker is missing, when none has taken an activity for ``UNTAKEN_S``; empty otherwise.

    An activity that somebody paused is taken by none.

    ``now`` is in seconds since the epoch.
    """
    for each in pending:
        if each.paused:
            command = f"`temporal activity unpause --activity-id {each.activity_id}`"
            return f"the activity {each.activity_type.name}, which somebody paused in Temporal: {command} continues it"
        is_free = each.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        since = max(each.scheduled_time.ToSeconds(), each.next_attempt_schedule_time.ToSeconds())
        if is_free and now - since > UNTAKEN_S:
            queue = each.activity_options.task_queue.name  # empty from an old server
            cluster = queue.partition("@")[2]
            place = f"from task queue {queue}" if queue else "of this rollout"
            return f"a worker{f' of cluster {cluster}' * bool(cluster)}: none takes tasks {place}"
    return ""


def latest_failure(pending: Iterable[PendingActivityInfo]) -> Failure | None:
    """Return the failure after which a short activity is tried again; None without one.

    It leaves out watches: they run for a long time, so their latest failure may be old. It leaves out timeouts: they
    show that a worker was lost, and not that the activity failed.
    """
    short = (each for each in pending if each.activity_type.name != contract.AWAIT_READY.name)
    failed = (each.last_failure for each in short if each.HasField("last_failure"))
    return next((each for each in failed if not each.HasField("timeout_failure_info")), None)


def target_of(workflow_id: str) -> str:
    """Return ``namespace/name`` from a rollout's workflow id."""
    parts = workflow_id.split("/")
    return f"{parts[2]}/{parts[4]}" if len(parts) == 5 else workflow_id


def cluster_of(workflow_id: str) -> str:
    """Return the cluster in a rollout's workflow id; empty if it is not such an id."""
    parts = workflow_id.split("/")
    return parts[1] if len(parts) == 5 else ""


def kind_of(workflow_id: str) -> str:
    """Return the kind of target in a rollout's workflow id; empty if it is not such an id."""
    parts = workflow_id.split("/")
    return parts[3] if len(parts) == 5 else ""


def summary(rollout: Rollout) -> str:
    """Return one line for Temporal's list of workflows."""
    return f"{rollout.metadata.name}: {rollout.spec.target} → {rollout.spec.change.described}"[:200]


def details(rollout: Rollout, by: str) -> str:
    """Return the essentials of the spec as Markdown for Temporal's page, without values of variables."""
    spec = rollout.spec
    strategy, readiness = spec.strategy, spec.readiness
    rows = {
        "Target": f"{spec.target.kind} {spec.target}",
        "Change": spec.change.described,
        "Order": f"{strategy.order}, step {strategy.step or 'as the budget allows'}",
        "Budget": f"maxSurge {strategy.max_surge}, maxUnavailable {strategy.max_unavailable}",
        "Waypoints": ", ".join(_waypoint(w) for w in strategy.waypoints),
        "Gates": ", ".join(gate.name for gate in spec.repeated_gates),
        "Readiness": f"minReady {format_duration(readiness.min_ready)}, deadline {format_duration(readiness.deadline)}",
        "On failure": str(spec.on_failure),
        "Requested by": by,
    }
    return as_list(rows)


def _waypoint(waypoint: Waypoint) -> str:
    hold = f" hold {format_duration(waypoint.hold)}" if waypoint.hold else ""
    approval = waypoint.approval
    otherwise = (
        f", else {approval.default} after {format_duration(approval.expires)}" if isinstance(approval, Approval) else ""
    )
    return f"{waypoint.at}{hold}{' approval' if approval else ''}{otherwise}"


def _watches(pending: PendingActivityInfo) -> bool:
    return (
        pending.activity_type.name == contract.AWAIT_READY.name
        and pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        and len(pending.heartbeat_details.payloads) > 0
    )


def _message(failure: Failure) -> str:
    """Return a failure's message. The server wraps a long failure in one that says only that it is long."""
    wrapped = failure.HasField("server_failure_info") and failure.HasField("cause")
    return failure.cause.message if wrapped else failure.message


def task_failure(attempt: int, newest_first: Iterable[HistoryEvent]) -> str:
    """Return why a workflow task fails at each attempt; empty while its worker may only be late or lost.

    Temporal records only the first attempt. When that one timed out or was starved, the reason of the later ones is
    unknown here.
    """
    recorded = _recorded_failure(newest_first)
    if recorded and STARVED not in recorded:
        return recorded
    if attempt < UNCLEAR_ATTEMPTS:
        return ""
    first = "got no CPU" if recorded else "timed out"
    return (
        f"attempt {attempt}; Temporal keeps the reason only of the first attempt, which {first}: see the log of the "
        "workers, and whether they need more CPU"
    )


def _recorded_failure(newest_first: Iterable[HistoryEvent]) -> str:
    """Return the failure of the latest workflow task; empty when it completed or timed out."""
    for event in newest_first:
        if event.event_type in _TASK_ENDS:
            failure = event.workflow_task_failed_event_attributes.failure
            return _message(failure) or "no reason given" if event.event_type == _TASK_FAILED else ""
    return ""


_TASK_FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
_TASK_ENDS = {
    _TASK_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
}


def failing_text(what: str, workflow_id: str, failure: str) -> str:
    """Return the message for failing workflow code: what happens, and what to do."""
    return (
        f"the workflow of {what} fails each time a worker runs it ({failure}): it accepts no messages, and the target "
        "does not change. Run workers of the release that started it, or of a newer one. Otherwise terminate it with "
        f"`temporal workflow terminate --workflow-id {workflow_id}`, then roll back with `segue release {what}`"
    )


def _with_status(report: Report, status: Status) -> Report:
    return report.model_copy(update={"status": status})


_ENDS = {
    WorkflowExecutionStatus.COMPLETED: "Completed",
    WorkflowExecutionStatus.FAILED: "Refused",  # only the preparation fails a rollout's workflow
    WorkflowExecutionStatus.TERMINATED: "Terminated",
    WorkflowExecutionStatus.CANCELED: "Canceled",
    WorkflowExecutionStatus.TIMED_OUT: "TimedOut",
}


def _listed(found: WorkflowExecution) -> Listed:
    attributes = found.typed_search_attributes
    running = found.status is WorkflowExecutionStatus.RUNNING
    outcome = attributes.get(OUTCOME) or _ENDS.get(found.status or WorkflowExecutionStatus.RUNNING)
    return Listed(
        id=found.id,
        cluster=cluster_of(found.id),
        target=target_of(found.id),
        kind=kind_of(found.id),
        phase=attributes.get(PHASE) or "" if running else outcome or "",
        outcome=outcome or None,
        running=running,
        started_at=_seconds(found.start_time),
        ended_at=_seconds(found.close_time) if found.close_time else None,
    )


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _late(what: str, timeout_s: float, status: Status | None) -> TimedOut:
    waits = f", waiting for {status.waiting_for}" if status and status.waiting_for else ""
    where = f" ({status.phase}{waits})" if status else ""
    ended = f"the rollout of {what} has not ended within {timeout_s:g} s{where}"
    return TimedOut(f"{ended}; it continues, and `segue watch {what}` follows it")
