"""The Temporal client: starts rollouts, steers them, and returns their status.

``translated`` translates every error of Temporal's library. What needs no worker works without one: an ended rollout
is read from its result, a list from Temporal's visibility store.
"""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel
from temporalio.api.enums.v1 import EventType, PendingActivityState, TaskQueueType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import (
    Client,
    Plugin,
    RPCTimeoutOrCancelledError,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
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
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.exceptions import ApplicationError, TemporalError, WorkflowAlreadyStartedError
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from segue import contract, errors
from segue.budget import resolve_budget
from segue.codec import data_converter, reveal
from segue.contract import Beat, Task
from segue.errors import (
    AlreadyRolling,
    Cut,
    Failing,
    NotAllowed,
    NotFound,
    Refused,
    SegueError,
    TimedOut,
    Unreachable,
)
from segue.messages import Message, RetargetTo, name_of
from segue.observation import Frozen
from segue.plan import Plan
from segue.report import Report
from segue.requests import first_event, principal_of, requests_of
from segue.spec import Approval, Rollout, Strategy, Waypoint
from segue.state import Phase
from segue.status import SideStatus, Status, as_list
from segue.tracing import Traced
from segue.units import format_duration

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_S = 5.0
ANSWER_S = 10.0
"""A running worker answers a query, or accepts an update, within this time."""
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
    phase: str
    outcome: str | None
    running: bool
    started_at: float
    ended_at: float | None


async def connect(
    *, timeout_s: float = CONNECT_S, runtime: Runtime | None = None, plugins: Sequence[Plugin] = (),
    identity: str | None = None,
) -> Client:  # fmt: skip
    """Connect to the Temporal server that the variables ``TEMPORAL_*``, or a profile file, give.

    Temporal records the ``identity`` with each request; by default it names the process and its host.

    Raises:
        Refused: when the profile, a certificate, a key or the file of the encryption keys cannot be read or used.
        Unreachable: when no Temporal server answers at its address within ``timeout_s``.
    """
    config, converter = _profile(), data_converter()
    address = config.setdefault("target_host", DEFAULT_ADDRESS)
    if "://" in address:
        fix = f"write HOST:PORT, such as {DEFAULT_ADDRESS}; TEMPORAL_TLS=true turns TLS on"
        raise Refused("is a URL", field="TEMPORAL_ADDRESS", value=address, fix=fix)
    try:
        async with asyncio.timeout(timeout_s):
            return await Client.connect(
                **config,
                data_converter=converter,
                plugins=plugins,
                interceptors=[Traced()],
                identity=identity,
                connect_timeout=timedelta(seconds=timeout_s),
                # The library's own warnings belong in a worker's log, not on a terminal.
                runtime=runtime or Runtime(telemetry=TelemetryConfig(logging=None)),
            )
    except (RuntimeError, OSError, RPCError, ValueError) as error:
        unusable = next((field for sign, field in _UNUSABLE.items() if sign in str(error)), None)
        if unusable is not None:
            raise Refused(unusable.why, field=unusable.name, fix=unusable.fix) from error
        why, fix = _connect_reason(error, _shown_by(config))
        raise Unreachable(f"Temporal does not answer at {address} ({why})", fix=fix) from error


class _Shown(StrEnum):
    """How a client identifies itself, as far as errors depend on it."""

    PLAIN = "no TLS"
    TLS = "TLS without a client certificate"
    CERTIFICATE = "TLS with a client certificate"


def _shown_by(config: ClientConnectConfig) -> _Shown:
    tls = config.get("tls")
    if isinstance(tls, TLSConfig) and tls.client_cert:
        return _Shown.CERTIFICATE
    # An API key turns TLS on, unless the configuration turns it off.
    return _Shown.TLS if tls or (tls is None and config.get("api_key")) else _Shown.PLAIN


def _profile() -> ClientConnectConfig:
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as error:
        for name in _FILES:
            _check_readable(name)
        named = "TEMPORAL_PROFILE" if str(error).startswith("Profile ") else "TEMPORAL_CONFIG_FILE"
        raise Refused(
            f"Temporal's connection profile cannot be read: {error}",
            field=named,
            fix="correct the file, or unset TEMPORAL_PROFILE and TEMPORAL_CONFIG_FILE",
        ) from error
    if not config.get("api_key"):
        config.pop("api_key", None)  # an empty variable is no key
    return config


_CERT, _KEY_FILE = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"
_FILES = ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", _CERT, _KEY_FILE)


def _check_readable(name: str) -> None:
    """Raise ``Refused`` if a variable names a file that cannot be read: the library's error does not name it."""
    path = os.environ.get(name)
    if path is None:
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        fix = "set it to the path of a PEM file, or unset it"
        raise Refused(f"cannot be read: {error.strerror}", field=name, value=path, fix=fix) from error


class _Field(NamedTuple):
    """A setting that cannot be used: its name, why, and the fix."""

    name: str
    why: str
    fix: str


_UNUSABLE = {
    "Must have both client cert": _Field(f"{_CERT} and {_KEY_FILE}", "only one of them is set", "set both, or neither"),
    "NoCertificatesPresented": _Field(_CERT, "holds no certificate", "set it to a certificate in a PEM file"),
    "PrivateKeyParseError": _Field(_KEY_FILE, "holds no private key", "set it to the certificate's key in a PEM file"),
    "InconsistentKeys": _Field(
        _KEY_FILE, f"holds another key than that of the certificate in {_CERT}", "set both to files of one pair"
    ),
}
"""The setting that cannot be used, by a fragment of the library's text."""


_START = "start a local one with `segue local up`, or set TEMPORAL_ADDRESS to yours"
_KEY = "check TEMPORAL_API_KEY and TEMPORAL_NAMESPACE: the key may have expired, or be for another namespace"
DENIED = "check that TEMPORAL_API_KEY is set, has not expired, and permits this in the namespace of TEMPORAL_NAMESPACE"
"""The fix of a request that Temporal denies."""
_CERTIFICATE = f"set {_CERT} and {_KEY_FILE} to one that it accepts"
_RENEW = "renew the certificate of TEMPORAL_TLS_CLIENT_CERT_PATH"
_CLOSED = (
    "ConnectionReset", "BrokenPipe", "connection closed", "connection was not ready", "UnexpectedEof",
    "operation was canceled",
)  # fmt: skip
_CONNECT_REASONS = {
    "Connection refused": ("connection refused", _START),
    "dns error": ("its host name is not known", _START),
    "CertificateRequired": ("it requires a client certificate", _CERTIFICATE),
    "alert: CertificateExpired": ("the client certificate has expired", _RENEW),
    "fatal alert": ("it does not accept the client certificate", _CERTIFICATE),
    "InvalidCertificate(NotValidForName": (
        "its certificate is for another name",
        "set TEMPORAL_TLS_SERVER_NAME to the name in its certificate",
    ),
    "InvalidCertificate(Expired": (
        "its certificate has expired",
        "renew the server's certificate; if it is still valid, correct this machine's clock",
    ),
    "InvalidCertificate(NotValidYet": (
        "its certificate is not valid yet",
        "correct this machine's clock, or the server's certificate",
    ),
    "InvalidCertificate": (
        "its certificate is not trusted",
        "set TEMPORAL_TLS_SERVER_CA_CERT_PATH to the certificate of its authority",
    ),
    "InvalidContentType": (
        "it does not speak TLS",
        "set TEMPORAL_TLS=false; an API key or a certificate turns TLS on",
    ),
    "Unauthenticated": ("the API key is not accepted", _KEY),
    "PermissionDenied": ("the API key is not accepted", _KEY),
}
"""The reason and the fix, by a fragment of the library's text; the first match counts."""


_CLOSE_REASONS = {
    _Shown.PLAIN: (
        "it closed the connection: perhaps it requires TLS, or what answers is not Temporal",
        "set TEMPORAL_TLS=true, or TEMPORAL_ADDRESS to a Temporal server",
    ),
    _Shown.TLS: ("it closed the connection: perhaps it requires a client certificate", _CERTIFICATE),
    _Shown.CERTIFICATE: (
        "it closed the connection: perhaps it does not accept the client certificate",
        "check that the certificate of TEMPORAL_TLS_CLIENT_CERT_PATH has not expired, and that the server trusts its "
        "authority",
    ),
}


def _connect_reason(error: Exception, shown_by: _Shown) -> tuple[str, str]:
    """Return the reason and the fix: the library's own text is a nested dump with response headers."""
    text = str(error)
    if isinstance(error, TimeoutError) or "timed out" in text or "deadline" in text:
        return "no answer in time", _START
    known = next((reason for sign, reason in _CONNECT_REASONS.items() if sign in text), None)
    if known is not None:
        return known
    if any(sign in text for sign in _CLOSED):  # a TLS server can send its reason too late to be read
        return _CLOSE_REASONS[shown_by]
    return "what answers is not Temporal", "set TEMPORAL_ADDRESS to a Temporal server, and TEMPORAL_TLS as it requires"


# --- errors ---------------------------------------------------------------------------------------------


@contextmanager
def translated(what: str, task_queue: str = contract.TASK_QUEUE) -> Iterator[None]:
    """Turn every error of Temporal's library into a chained ``SegueError``. ``what`` names the target."""
    try:
        yield
    except (TemporalError, TimeoutError) as error:
        raise _translation(error, what, task_queue) from error


def _translation(error: TemporalError | TimeoutError, what: str, task_queue: str) -> SegueError:
    ours: SegueError
    match error:
        case WorkflowAlreadyStartedError():
            ours = AlreadyRolling(f"a rollout of {what} is under way", fix=_JOIN_FIX)
        case WorkflowUpdateFailedError() | WorkflowFailureError():
            ours = _from_failure(error.cause, what)
        case WorkflowQueryFailedError() if _STARVED in str(error):
            ours = Unreachable(
                f"the worker on task queue {task_queue} is too busy to answer for the rollout of {what}; try again, "
                "and give the worker more CPU if it stays so"
            )
        case WorkflowQueryFailedError() | WorkflowQueryRejectedError():
            ours = SegueError(f"the rollout of {what} could not answer: {error}")
        case RPCError():
            ours = _from_status(error, what, task_queue)
        case RPCTimeoutOrCancelledError() | TimeoutError():
            ours = no_worker(task_queue)
        case _:
            ours = SegueError(f"Temporal: {error}")
    return ours


_STARVED = "TMPRL1101"
"""The SDK's code for workflow code that did not yield for two seconds: Segue's never blocks, but may get no CPU."""

_JOIN_FIX = "watch it with `segue watch`, or give it this file's change with `segue start --join`"


def no_worker(task_queue: str) -> Unreachable:
    """Return the error for a task queue on which no worker answers."""
    return Unreachable(f"no worker answers on task queue {task_queue}", fix="start one with `segue worker`")


def uncurrent(found: DescribeTaskQueueResponse, task_queue: str) -> Unreachable | None:
    """Return the error for workers whose deployment has no current version: they get no rollouts.

    Returns None when the deployment has a current version, or no worker is versioned.
    """
    versions = [p.deployment_options for p in found.pollers if p.deployment_options.deployment_name]
    current = found.versioning_info.current_deployment_version
    newest = max(found.pollers, key=lambda p: p.last_access_time.ToNanoseconds(), default=None)
    if current.deployment_name:
        polls = {(each.deployment_name, each.build_id) for each in versions}
        if newest is None or (current.deployment_name, current.build_id) in polls:
            return None
        name, build = current.deployment_name, newest.deployment_options.build_id
        why = (
            f"no worker on task queue {task_queue} runs the current version of deployment {name}, build "
            f"{current.build_id}, so new rollouts wait"
        )
        if newest.deployment_options.deployment_name != name:
            return Unreachable(why, fix=f"start a worker of deployment {name}, build {current.build_id}")
        return Unreachable(why, fix=f"start one of build {current.build_id}, or run {_make_current(name, build)}")
    if not versions:
        return None
    name, build = versions[0].deployment_name, versions[0].build_id
    return Unreachable(
        f"a worker of deployment {name} polls task queue {task_queue}, but its deployment has no current version, so "
        "it gets no new rollouts",
        fix=f"run {_make_current(name, build)}",
    )


def _make_current(deployment: str, build: str) -> str:
    return f"`segue builds current --deployment-name {deployment} --build-id {build}`"


def unserved(task_queue: str, cluster: str | None) -> Unreachable:
    """Return the error for workers that run workflows, while none runs the activities of the target's cluster."""
    if cluster is None:
        why = f"no worker on task queue {task_queue} rolls targets that name no cluster"
        return Unreachable(why, fix="name the target's cluster in target.cluster")
    queue = contract.activity_queue(task_queue, cluster)
    return Unreachable(
        f"no worker serves cluster {cluster}: none polls task queue {queue}",
        fix=f"correct target.cluster, or start a worker with {cluster} in SEGUE_CLUSTERS",
    )


async def pollers_of(
    client: Client, task_queue: str, answer_s: float = ANSWER_S, *, activities: bool = False
) -> DescribeTaskQueueResponse:
    """Return who polls a task queue for workflows, or for activities, and the current version of their deployment.

    Raises:
        RPCError: when Temporal does not answer, or denies it.
    """
    queue = TaskQueue(name=task_queue)
    kind = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY if activities else TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=queue, task_queue_type=kind, report_pollers=True
    )
    return await client.workflow_service.describe_task_queue(request, timeout=timedelta(seconds=answer_s))


def _from_status(error: RPCError, what: str, task_queue: str) -> SegueError:
    ours: SegueError
    match error.status:
        case RPCStatusCode.NOT_FOUND:
            ours = _not_found(error.message, what)
        case RPCStatusCode.UNAUTHENTICATED | RPCStatusCode.PERMISSION_DENIED:
            ours = NotAllowed(f"Temporal denies the request: {error.message.rstrip('.')}", fix=DENIED)
        case RPCStatusCode.INVALID_ARGUMENT:
            search = "search attribute" in error.message.lower()
            fix = "run `segue setup`, which registers Segue's search attributes" if search else ""
            ours = Refused(f"Temporal rejects the request: {error.message}", fix=fix)
        case RPCStatusCode.FAILED_PRECONDITION | RPCStatusCode.DEADLINE_EXCEEDED | RPCStatusCode.CANCELLED:
            ours = no_worker(task_queue)
        case _:
            ours = Unreachable(f"Temporal does not answer ({error.status.name}: {error.message}); try again")
    return ours


def _not_found(text: str, what: str) -> Refused:
    if "already completed" in text:
        return Refused(f"the rollout of {what} has ended", fix=f"see `segue report {what}`, or start a new one")
    if "amespace" in text:
        return NotFound(text, field="TEMPORAL_NAMESPACE", fix="set it to a namespace that your Temporal has")
    return NotFound(f"no rollout of {what} exists", fix="`segue list` shows the existing ones")


def _from_failure(cause: BaseException | None, what: str) -> SegueError:
    """Return the ``SegueError`` that the workflow or its activity failed with."""
    found: ApplicationError | None = None
    while cause is not None:
        if isinstance(cause, ApplicationError):
            found = cause
            if _class_of(found) is not None:
                return _ours(found)
        cause = cause.__cause__
    if found is not None:
        return SegueError(f"the rollout of {what} failed: {found.message}")
    return Cut(
        f"the workflow of {what} was terminated in Temporal; nothing was rolled back: check the target, "
        f"then finish or roll back with `segue release {what}`, or start again"
    )


def _class_of(error: ApplicationError) -> type[SegueError] | None:
    kind = getattr(errors, error.type or "", None)
    return kind if isinstance(kind, type) and issubclass(kind, SegueError) else None


def _ours(error: ApplicationError) -> SegueError:
    """Rebuild the error; its message is already the whole sentence."""
    rebuilt = (_class_of(error) or SegueError)(error.message)
    details = error.details[0] if error.details else None
    if isinstance(rebuilt, Refused) and isinstance(details, dict):
        rebuilt.field, rebuilt.fix = str(details.get("field", "")), str(details.get("fix", ""))
        rebuilt.value = details.get("value")
    return rebuilt


# --- the client -----------------------------------------------------------------------------------------


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
            raise next(each for each in answers if isinstance(each, BaseException))
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

    async def list(self, *, running: bool = False, limit: int = 50, everywhere: bool = False) -> list[Listed]:
        """List this cluster's rollouts, the newest first, from Temporal's visibility store.

        With ``everywhere``, list those of all clusters.
        """
        query = f'WorkflowType = "{contract.WORKFLOW}"'
        if not everywhere:
            query += f' AND WorkflowId STARTS_WITH "rollout/{self.cluster}/"'
        if running:
            query += ' AND ExecutionStatus = "Running"'
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

    async def _pollers(self) -> DescribeTaskQueueResponse:
        """Return who polls the task queue; an empty response when Temporal does not answer."""
        try:
            return await pollers_of(self.client, self.task_queue, self._answer_s)
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
        return not activities.pollers and bool((await self._pollers()).pollers)

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
        return AlreadyRolling(f"a rollout of {what} is under way ({phase}, since {since})", fix=_JOIN_FIX)

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
            failure = await self._task_failure(handle, what)
            if failure:
                raise Failing(failing_text(what, handle.id, failure)) from error
            raise uncurrent(await self._pollers(), self.task_queue) or error from error

    async def _task_failure(self, handle: Handle, what: str) -> str:
        """Return the failure of the workflow's code that Temporal keeps retrying; empty when there is none."""
        with translated(what, self.task_queue):
            description = await handle.describe(rpc_timeout=timedelta(seconds=self._answer_s))
            if description.raw_description.pending_workflow_task.attempt < 2:
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
            return last_task_failure(found.history.events)

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
        return await self._end(self._handle(description.id, description.run_id), self._what(description.id))

    async def _end(self, handle: Handle, what: str) -> Report:
        with translated(what, self.task_queue):
            return await handle.result(rpc_timeout=timedelta(seconds=self._answer_s))

    async def _live(
        self, status: Status, description: WorkflowExecutionDescription, strategy: Strategy | None
    ) -> Status:
        """Return the status, with the latest observation, and with the worker that it waits for, if one is missing."""
        found = live(status, await self._beat(description), strategy)
        missing = untaken(description.raw_description.pending_activities, time.time())
        return found.model_copy(update={"waiting_for": missing}) if missing and found.outcome is None else found

    async def _beat(self, description: WorkflowExecutionDescription) -> Beat | None:
        """Return the latest heartbeat of the running watch; None when there is none."""
        for pending in description.raw_description.pending_activities:
            if _watches(pending):
                beats = await self.client.data_converter.decode(pending.heartbeat_details.payloads, [Beat])
                return beats[0] if isinstance(beats[0], Beat) else None
        return None

    async def _strategy(self, description: WorkflowExecutionDescription) -> Strategy | None:
        """Return the strategy from the input in the run's first event; None when it has none."""
        handle = self._handle(description.id, description.run_id)
        with translated(self._what(description.id), self.task_queue):
            event = await first_event(handle)
            if event is None:
                return None
            payloads = event.workflow_execution_started_event_attributes.input.payloads
            found = await self.client.data_converter.decode(payloads, [Task])
            return found[0].spec.strategy if isinstance(found[0], Task) else None

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
    if strategy is not None and seen.replicas > 0:
        budget = resolve_budget(strategy, seen.replicas)
        changes |= {"floor": budget.floor, "ceiling": budget.ceiling}
    return status.model_copy(update=changes)


def untaken(pending: Iterable[PendingActivityInfo], now: float) -> str:
    """Return which worker is missing, when none has taken an activity for ``UNTAKEN_S``; empty otherwise.

    ``now`` is in seconds since the epoch.
    """
    for each in pending:
        is_free = each.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        since = max(each.scheduled_time.ToSeconds(), each.next_attempt_schedule_time.ToSeconds())
        if is_free and now - since > UNTAKEN_S:
            queue = each.activity_options.task_queue.name  # empty from an old server
            cluster = queue.partition("@")[2]
            place = f"from task queue {queue}" if queue else "of this rollout"
            return f"a worker{f' of cluster {cluster}' * bool(cluster)}: none takes tasks {place}"
    return ""


def target_of(workflow_id: str) -> str:
    """Return ``namespace/name`` from a rollout's workflow id."""
    parts = workflow_id.split("/")
    return f"{parts[2]}/{parts[4]}" if len(parts) == 5 else workflow_id


def cluster_of(workflow_id: str) -> str:
    """Return the cluster in a rollout's workflow id; empty if it is not such an id."""
    parts = workflow_id.split("/")
    return parts[1] if len(parts) == 5 else ""


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


def last_task_failure(newest_first: Iterable[HistoryEvent]) -> str:
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
