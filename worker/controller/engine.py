"""What the controller needs of Temporal: the latest run of a workflow, starts that are safe to repeat, and messages."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.converter import encode_search_attributes
from temporalio.service import RPCError, RPCStatusCode

from segue import contract
from segue.client import PHASE, TARGET, Rollouts, details, summary
from segue.contract import Task
from segue.errors import AlreadyRolling, Cut, NotFound, Refused, SegueError, Unchanged, Unreachable, Unreadable
from segue.messages import Message
from segue.pollers import ANSWER_S
from segue.report import Report
from segue.rollout_object import MEMO
from segue.rollout_object.deciding import REFUSED, Owner, Run, handled_now
from segue.rollout_object.desired import DesiredRollout
from segue.rollout_object.status import Handled
from segue.spec import Strategy
from segue.state import TO_BASELINE, Outcome, Phase
from segue.status import Status
from segue.temporal_errors import translated


class Engine:
    """Temporal, which may be away: each method raises ``Unreachable`` then, and connects again when it is called."""

    def __init__(
        self, connect: Callable[[], Awaitable[Client]], cluster: str, task_queue: str, *, is_named: bool = False
    ) -> None:
        self._connect, self.cluster, self._task_queue = connect, cluster, task_queue
        self.is_named = is_named
        """Whether the cluster has workers of its own, by its name."""
        self._reader: _Reader | None = None

    async def latest(self, workflow_id: str, uid: str, run_id: str) -> Run | None:
        """Return the latest run of a workflow; None if Temporal has none.

        Returns the run with this id instead if somebody else started a later one and that has ended.
        """
        return await (await self._connected()).latest(workflow_id, uid, run_id)

    async def later(self, workflow_id: str, uid: str) -> Run | None:
        """Return the latest run of a workflow if it is not this object's; else None."""
        return await (await self._connected()).later(workflow_id, uid)

    async def start(self, desired: DesiredRollout) -> None:
        """Start the rollout of an object; for the same object and generation only once, also if it has ended.

        Raises:
            AlreadyRolling: when another rollout of the target is under way.
        """
        await (await self._connected()).begin(desired)

    async def send(self, workflow_id: str, message: Message, update_id: str = "") -> str:
        """Send a message, and return the answer: what happens now.

        Raises:
            Refused: when the rollout refuses it.
        """
        return await (await self._connected()).send(workflow_id, message, update_id=update_id) or ""

    def forget(self, workflow_id: str) -> None:
        """Forget what is kept about a workflow."""
        if self._reader is not None:
            self._reader.known.pop(workflow_id, None)

    def use(self, client: Client) -> None:
        """Use another client from now on."""
        self._reader = _Reader(client, self.cluster, self._task_queue)

    async def _connected(self) -> "_Reader":
        if self._reader is None:
            self._reader = _Reader(await self._connect(), self.cluster, self._task_queue)
        return self._reader


class _Reader(Rollouts):
    known: dict[str, tuple[tuple[str, int], Status, Strategy | None]]
    """By workflow id: its last status, and the history that it is of. A longer history is queried again."""

    def __init__(self, client: Client, cluster: str, task_queue: str) -> None:
        super().__init__(client, cluster, task_queue)
        self.known = {}

    async def _described(self, workflow_id: str) -> WorkflowExecutionDescription | None:
        try:
            return await self._describe(workflow_id)
        except NotFound as error:
            if error.field:  # Temporal's namespace is missing, not the rollout
                raise
            return None

    async def later(self, workflow_id: str, uid: str) -> Run | None:
        description = await self._described(workflow_id)
        owner = await _owner_of(description) if description is not None else None
        if description is None or (owner is not None and owner.uid == uid):
            return None
        return await self.latest(workflow_id, uid, "")

    async def latest(self, workflow_id: str, uid: str, run_id: str) -> Run | None:
        description = await self._described(workflow_id)
        if description is None:
            return None
        owner = await _owner_of(description)
        if description.status is WorkflowExecutionStatus.RUNNING:
            return Run(workflow_id, description.run_id, True, owner, await self._live_status(description))
        self.known.pop(workflow_id, None)
        is_own = owner is not None and owner.uid == uid
        if run_id and not is_own:
            return await self._own(workflow_id, uid, run_id)
        return await self._ended(workflow_id, description.run_id, owner)

    async def _own(self, workflow_id: str, uid: str, run_id: str) -> Run | None:
        """Return an object's own run, although somebody else started a later one; None if Temporal deleted it."""
        with translated(self._what(workflow_id), self.task_queue):
            try:
                description = await self._handle(workflow_id, run_id).describe(rpc_timeout=timedelta(seconds=ANSWER_S))
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
        return await self._ended(workflow_id, run_id, await _owner_of(description))

    async def _live_status(self, description: WorkflowExecutionDescription) -> Status:
        mark = (description.run_id, description.history_length)
        known = self.known.get(description.id)
        if known is None or known[0] != mark:
            status = await self._query(description, contract.STATUS_QUERY, Status)
            strategy = known[2] if known and known[0][0] == mark[0] else await self._strategy(description)
            known = self.known[description.id] = (mark, status, strategy)
        return await self._live(known[1], description, known[2])

    async def _ended(self, workflow_id: str, run_id: str, owner: Owner | None) -> Run:
        """Return an ended run with its result, also if it was refused."""

        def ended(outcome: str, why: str = "", report: Report | None = None) -> Run:
            status = report.status if report else None
            return Run(workflow_id, run_id, False, owner, status, outcome, why, _retargeted_by(report))

        try:
            report = await self._end(self._handle(workflow_id, run_id), self._what(workflow_id))
        except (Unreachable, Unreadable):
            raise
        except Unchanged:
            return ended(Outcome.COMPLETED)
        except Cut as error:
            return ended("Terminated", str(error))
        except SegueError as error:
            return replace(ended(REFUSED, str(error)), is_missing=isinstance(error, Refused) and error.missing)
        return ended(report.status.outcome or "", report=report)

    async def begin(self, desired: DesiredRollout) -> None:
        assert desired.rollout is not None, "only an accepted spec starts"
        what = str(desired.rollout.spec.target)
        request = await self._request(desired)
        with translated(what, self.task_queue):
            try:
                await self.client.workflow_service.start_workflow_execution(
                    request, retry=True, timeout=timedelta(seconds=ANSWER_S)
                )
            except RPCError as error:
                if error.status is RPCStatusCode.ALREADY_EXISTS:
                    raise AlreadyRolling(f"a rollout of {what} is under way") from error
                raise

    async def _request(self, desired: DesiredRollout) -> StartWorkflowExecutionRequest:
        """Return what ``Rollouts._start`` sends, with a request id of ours.

        Temporal answers the same request id with the same run, also when it has ended: two controllers, or one that
        was killed, start one workflow. The library makes a new id for each call, so the request is made here.
        """
        rollout, converter = desired.rollout, self.client.data_converter
        assert rollout is not None, "only an accepted spec starts"
        cluster = rollout.spec.target.cluster or self.cluster
        task = Task(spec=rollout.spec, name=desired.name, cluster=cluster, by=desired.chosen_by)
        request = StartWorkflowExecutionRequest(
            namespace=self.client.namespace,
            workflow_id=desired.workflow_id,
            workflow_type=WorkflowType(name=contract.WORKFLOW),
            task_queue=TaskQueue(name=self.task_queue),
            identity=self.client.identity,
            request_id=request_id(desired),
            workflow_id_reuse_policy=WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
            workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        )  # fmt: skip
        request.input.payloads.extend(await converter.encode([task]))
        request.memo.fields[MEMO].CopyFrom((await converter.encode([_memo(desired)]))[0])
        attributes = [
            SearchAttributePair(TARGET, str(rollout.spec.target)),
            SearchAttributePair(PHASE, str(Phase.PREPARING)),
        ]
        encode_search_attributes(TypedSearchAttributes(attributes), request.search_attributes)
        request.user_metadata.summary.CopyFrom((await converter.encode([summary(rollout)]))[0])
        request.user_metadata.details.CopyFrom((await converter.encode([details(rollout, desired.chosen_by)]))[0])
        return request


def _retargeted_by(report: Report | None) -> frozenset[str]:
    """Return who retargeted an ended rollout: an accepted retarget, or one to the version that ran before."""
    entries = report.entries if report else ()
    return frozenset(each.who for each in entries if each.what == "retargeted" or TO_BASELINE in each.detail)


def request_id(desired: DesiredRollout) -> str:
    """Return the id of the start for this object and generation."""
    return hashlib.sha256(f"{desired.uid}/{desired.generation}/{desired.marks}".encode()).hexdigest()[:32]


def _memo(desired: DesiredRollout) -> dict[str, Any]:
    return {
        "uid": desired.uid, "namespace": desired.namespace, "name": desired.name,
        "handled": handled_now(desired).model_dump(by_alias=True),
    }  # fmt: skip


async def _owner_of(description: WorkflowExecutionDescription) -> Owner | None:
    """Return the object that started a run; None if none did."""
    memo = await description.memo_value(MEMO, None)
    if not isinstance(memo, dict):
        return None
    try:
        handled = Handled.model_validate(memo["handled"])
        return Owner(str(memo["uid"]), str(memo["namespace"]), str(memo["name"]), handled)
    except (KeyError, ValidationError):
        return None
