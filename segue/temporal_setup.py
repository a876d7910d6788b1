"""Checks whether a Temporal namespace is ready for Segue, and sets up what it lacks."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueResponse,
    GetSystemInfoRequest,
    RegisterNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from segue import __version__, contract
from segue.checks import CONNECTION, OLDEST_TEMPORAL, CheckVerdict, SetupCheck, retention_check, version_check
from segue.errors import NotFound, Refused, Unreachable
from segue.pollers import pollers_of, uncurrent, unserved
from segue.requests import first_event, principal_of
from segue.temporal_errors import DENIED, translated

AREA = "Temporal"
ANSWER = timedelta(seconds=10)
READ_BACK_S = 60.0
"""Temporal's own caches show a new namespace or search attribute within this time."""
RETENTION = timedelta(days=7)
ATTRIBUTES: dict[str, IndexedValueType.ValueType] = {
    contract.PHASE_ATTRIBUTE: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contract.TARGET_ATTRIBUTE: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contract.OUTCOME_ATTRIBUTE: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    contract.NEEDS_HUMAN_ATTRIBUTE: IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
}
_DENIED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}
_ROLLOUTS = f'WorkflowType = "{contract.WORKFLOW}"'
FOUR_EYES = "four eyes"
_NOBODY = "segue-doctor/nobody"
"""A workflow id that does not exist: a signal to it shows whether the caller may write, and changes nothing."""


# --- checks ----------------------------------------------------------------------------------------------


async def check_temporal(
    connect: Callable[[], Awaitable[Client]], task_queue: str, clusters: Sequence[str], *, workers: bool,
    four_eyes: Sequence[str] = (),
) -> list[SetupCheck]:  # fmt: skip
    """Return the checks of Temporal; those of its workers, also of each cluster, only with ``workers``.

    ``four_eyes`` are the rules of the policy by which another person than the starter approves.
    """
    try:
        client = await connect()
    except Unreachable as error:
        return [_failed(CONNECTION, error.why, error.fix)]
    except Refused as error:
        return [_failed("settings", error.found, error.fix)]
    address = client.service_client.config.target_host
    found = [_ok(CONNECTION, f"{address} answers{_secured(client)}"), await _version(client)]
    namespace = await _namespace(client)
    found += namespace
    if any(check.verdict is CheckVerdict.FAILED for check in namespace):
        return found
    more = [_attributes(client), _permission(client)]
    if four_eyes:
        more.append(_principals(client, four_eyes))
    if workers:
        more += [_workers(client, task_queue), *(_served(client, task_queue, name) for name in clusters or (None,))]
    return found + [check for checks in await asyncio.gather(*more) for check in checks]


def _secured(client: Client) -> str:
    return " by TLS" if client.service_client.config.tls else ""


async def _version(client: Client) -> SetupCheck:
    try:
        info = await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=ANSWER)
    except RPCError as error:
        return _not_checked("version", error.message)
    return version_check(AREA, info.server_version, OLDEST_TEMPORAL, "upgrade the Temporal server")


async def _namespace(client: Client) -> list[SetupCheck]:
    name = client.namespace
    try:
        found = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=name), timeout=ANSWER
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            fix = "`segue setup --create-namespace`, or set TEMPORAL_NAMESPACE to an existing one"
            return [_failed("namespace", f"{name} does not exist", fix)]
        return [_denied("namespace", f"{name} cannot be read", error)]
    retention = found.config.workflow_execution_retention_ttl.ToTimedelta()
    return [_ok("namespace", f"{name} exists"), retention_check(name, retention)]


async def _attributes(client: Client) -> list[SetupCheck]:
    name = "search attributes"
    try:
        missing, wrong = _compared(await _registered(client))
    except RPCError as error:
        if error.status is RPCStatusCode.UNIMPLEMENTED or error.status in _DENIED:
            return [_not_checked(name, f"this client may not list them ({error.message})", f"create {_listed()}")]
        return [_denied(name, "they cannot be listed", error)]
    if wrong:
        fix = "remove them (`temporal operator search-attribute remove --name NAME`), then run `segue setup`"
        return [_failed(name, f"of another type than {_listed()}: {', '.join(wrong)}", fix)]
    if missing:
        return [_failed(name, f"missing: {', '.join(missing)}", "run `segue setup`")]
    return [_ok(name, f"all {len(ATTRIBUTES)} are registered")]


def _listed() -> str:
    return ", ".join(f"{name} ({_kind(kind)})" for name, kind in ATTRIBUTES.items())


def _kind(kind: IndexedValueType.ValueType) -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").capitalize()


async def _registered(client: Client) -> dict[str, int]:
    found = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace), timeout=ANSWER
    )
    return dict(found.custom_attributes)


def _compared(registered: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return the names of missing attributes, and of those with another type."""
    missing = [name for name in ATTRIBUTES if name not in registered]
    wrong = [name for name, kind in ATTRIBUTES.items() if registered.get(name, kind) != kind]
    return missing, wrong


async def _permission(client: Client) -> list[SetupCheck]:
    """Check reading and writing by requests that change nothing."""
    found = []
    tries: dict[str, Callable[[], Awaitable[Any]]] = {
        "read": lambda: client.count_workflows(_ROLLOUTS, rpc_timeout=ANSWER),
        "write": lambda: client.get_workflow_handle(_NOBODY).signal("nothing", rpc_timeout=ANSWER),
    }
    for what, request in tries.items():
        name = f"permission to {what}"
        try:
            await request()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                found.append(_denied(name, f"the request fails in namespace {client.namespace}", error))
                continue
        found.append(_ok(name, "granted"))
    return found


async def _principals(client: Client, rules: Sequence[str]) -> list[SetupCheck]:
    """Check by the latest rollout whether Temporal records who sends requests."""
    try:
        latest = [each async for each in client.list_workflows(_ROLLOUTS, limit=1)]
        first = [await first_event(client.get_workflow_handle(each.id, run_id=each.run_id)) for each in latest]
    except RPCError as error:
        return [_denied(FOUR_EYES, "the latest rollout cannot be read", error)]
    return [principal_check(rules, next((principal_of(event) for event in first if event), None))]


def principal_check(rules: Sequence[str], principal: str | None) -> SetupCheck:
    """Judge whether four eyes compare proven names: by the latest rollout's principal, None if there is no rollout."""
    if principal is None:
        return _not_checked(FOUR_EYES, "no rollout shows yet whether Temporal records who sends requests")
    if principal:
        return _ok(FOUR_EYES, f"Temporal records who sends requests, such as {principal}")
    named = ", ".join(rules)
    why = f"the policy compares claimed names in {named}, because Temporal records nobody: anybody may claim any name"
    fix = "turn on tokens and frontend.enablePrincipalPropagation in Temporal (docs/temporal.md)"
    return _warning(FOUR_EYES, why, fix)


async def _workers(client: Client, task_queue: str) -> list[SetupCheck]:
    try:
        polled = await pollers_of(client, task_queue)
    except RPCError as error:
        return [_denied("workers", f"task queue {task_queue} cannot be described", error)]
    return worker_checks(polled, task_queue)


async def _served(client: Client, task_queue: str, cluster: str | None) -> list[SetupCheck]:
    queue = contract.activity_queue(task_queue, cluster)
    try:
        polled = await pollers_of(client, queue, activities=True)
        runs = bool((await pollers_of(client, task_queue)).pollers)
    except RPCError as error:
        return [_denied("workers", f"task queue {queue} cannot be described", error)]
    return served_checks(task_queue, cluster, is_served=bool(polled.pollers), runs=runs)


def served_checks(task_queue: str, cluster: str | None, *, is_served: bool, runs: bool) -> list[SetupCheck]:
    """Judge whether a worker serves a cluster; of None, the targets that name no cluster.

    ``runs`` is whether a worker runs workflows at all; if not, that is reported elsewhere.
    """
    name = f"workers of cluster {cluster}" if cluster else "workers of targets without a cluster"
    if is_served:
        return [_ok(name, f"poll task queue {contract.activity_queue(task_queue, cluster)}")] if cluster else []
    missing = unserved(task_queue, cluster)
    if cluster:
        return [_failed(name, missing.why, missing.fix)]
    return [_warning(name, missing.why, missing.fix)] if runs else []


def worker_checks(polled: DescribeTaskQueueResponse, task_queue: str) -> list[SetupCheck]:
    """Check who polls the task queue: whether any worker does, one of the current version, and one of this release."""
    if not polled.pollers:
        fix = f"start one with `segue worker --task-queue {task_queue}`"
        return [_failed("workers", f"none polls task queue {task_queue}", fix)]
    count = f"{len(polled.pollers)} poll{'s' if len(polled.pollers) == 1 else ''} task queue {task_queue}"
    found = [_ok("workers", count)]
    problem = uncurrent(polled, task_queue)
    if problem is not None:
        found.append(_failed("current version", problem.why, problem.fix))
    elif any(poller.deployment_options.deployment_name for poller in polled.pollers):
        version = polled.versioning_info.current_deployment_version
        found.append(_ok("current version", f"{version.build_id} of deployment {version.deployment_name}"))
    others = {release for poller in polled.pollers if (release := _release(poller)) not in {"", __version__}}
    if others:
        why = f"workers run {', '.join(sorted(others))}, and this command is {__version__}"
        found.append(_warning("release", why, "use the same release of both"))
    return found


def _release(poller: PollerInfo) -> str:
    """Return the release of an unversioned worker; empty for a versioned one, whose build id is its owner's."""
    return "" if poller.deployment_options.deployment_name else poller.worker_version_capabilities.build_id


# --- set-up ----------------------------------------------------------------------------------------------


async def set_up(client: Client, *, create_namespace: bool, retention: timedelta = RETENTION) -> list[str]:
    """Create what the namespace lacks, read it back, and return a line for each part.

    Raises:
        Refused: when the namespace does not exist, or an attribute exists with another type.
        NotAllowed, Unreachable.
    """
    with translated("any target"):
        lines = [await _set_up_namespace(client, create=create_namespace, retention=retention)]
        return [*lines, *await _set_up_attributes(client)]


async def _set_up_namespace(client: Client, *, create: bool, retention: timedelta) -> str:
    name = client.namespace
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=name), timeout=ANSWER)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        if not create:
            fix = "create it with --create-namespace, or set it to a namespace that your Temporal has"
            raise NotFound("does not exist", field="TEMPORAL_NAMESPACE", value=name, fix=fix) from error
        kept = Duration()
        kept.FromTimedelta(retention)
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=kept), timeout=ANSWER
        )
        await _until_known(lambda: _registered(client))
        return f"namespace {name}: created"
    return f"namespace {name}: exists"


async def _set_up_attributes(client: Client) -> list[str]:
    missing, wrong = _compared(await _registered(client))
    if wrong:
        fix = f"remove them in Temporal first; Segue needs {_listed()}"
        raise Refused("have another type", field="search attributes", value=", ".join(wrong), fix=fix)
    if missing:
        added = {name: ATTRIBUTES[name] for name in missing}
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=added), timeout=ANSWER
        )
        await _until_registered(client)
    return [
        f"search attribute {name}: {f'created ({_kind(kind)})' if name in missing else 'exists'}"
        for name, kind in ATTRIBUTES.items()
    ]


async def _until_registered(client: Client) -> None:
    ends = asyncio.get_running_loop().time() + READ_BACK_S
    while any(_compared(await _registered(client))):
        if asyncio.get_running_loop().time() > ends:
            raise Unreachable(f"Temporal does not show the new search attributes within {READ_BACK_S:g} s")
        await asyncio.sleep(0.2)


async def _until_known(describe: Callable[[], Awaitable[Any]]) -> None:
    """Wait until every service of Temporal knows a new namespace: each updates its list at intervals."""
    ends = asyncio.get_running_loop().time() + READ_BACK_S
    while True:
        try:
            await describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND or asyncio.get_running_loop().time() > ends:
                raise
            await asyncio.sleep(0.2)
        else:
            return


# --- one line each ---------------------------------------------------------------------------------------


def _ok(name: str, found: str) -> SetupCheck:
    return SetupCheck(area=AREA, name=name, verdict=CheckVerdict.OK, found=found)


def _warning(name: str, found: str, fix: str) -> SetupCheck:
    return SetupCheck(area=AREA, name=name, verdict=CheckVerdict.WARNING, found=found, fix=fix)


def _failed(name: str, found: str, fix: str) -> SetupCheck:
    return SetupCheck(area=AREA, name=name, verdict=CheckVerdict.FAILED, found=found, fix=fix)


def _not_checked(name: str, found: str, fix: str = "") -> SetupCheck:
    return SetupCheck(area=AREA, name=name, verdict=CheckVerdict.NOT_CHECKED, found=found, fix=fix)


def _denied(name: str, found: str, error: RPCError) -> SetupCheck:
    fix = DENIED if error.status in _DENIED else "try again"
    return _failed(name, f"{found}: {error.message.rstrip('.')}", fix)
