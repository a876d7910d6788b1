"""The builds of a Temporal worker deployment: which of them gets new rollouts, and which are drained."""

import asyncio
from enum import StrEnum

from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from segue.errors import Refused
from segue.observation import Frozen
from segue.pollers import pollers_of
from segue.temporal_errors import translated
from segue.temporal_setup import ANSWER

POLL_S = 1.0
_STATUS = WorkerDeploymentVersionStatus.Name
_STATUS_PREFIX = "WORKER_DEPLOYMENT_VERSION_STATUS_"
_NOT_YET = {RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION}
"""Temporal's answers while no worker of the build has polled."""


class BuildState(StrEnum):
    """What Temporal does with a build; other values are shown as Temporal names them."""

    CURRENT = "current"
    DRAINING = "draining"
    DRAINED = "drained"


class Build(Frozen):
    """One build of a worker deployment. ``state`` is a ``BuildState``, or Temporal's own word in lower case."""

    build_id: str
    state: str


async def builds_of(client: Client, deployment: str) -> list[Build]:
    """Return the builds of a worker deployment that Temporal knows, the newest first; empty when it knows none.

    Raises:
        NotAllowed, Unreachable.
    """
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment)
    with translated("any target"):
        try:
            found = await client.workflow_service.describe_worker_deployment(request, timeout=ANSWER)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return []
    known = sorted(
        found.worker_deployment_info.version_summaries, key=lambda each: each.create_time.ToNanoseconds(), reverse=True
    )
    return [
        Build(
            build_id=each.deployment_version.build_id, state=_STATUS(each.status).removeprefix(_STATUS_PREFIX).lower()
        )
        for each in known
    ]


async def make_current(client: Client, task_queue: str, deployment: str, build: str, wait_s: float = 0.0) -> str:
    """Make a build the current one of its deployment, so that it gets new rollouts; return what was done.

    Waits up to ``wait_s`` for a first worker of the build.

    Raises:
        Refused: when no worker of that build has polled yet.
        NotAllowed, Unreachable.
    """
    what = f"build {build} of deployment {deployment}"
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=deployment, build_id=build
    )
    ends = asyncio.get_running_loop().time() + wait_s
    with translated("any target", task_queue):
        before = (await pollers_of(client, task_queue)).versioning_info.current_deployment_version
        if (before.deployment_name, before.build_id) == (deployment, build):
            return f"{what}: is the current one"
        while True:
            try:
                await client.workflow_service.set_worker_deployment_current_version(request, timeout=ANSWER)
            except RPCError as error:
                if error.status not in _NOT_YET:
                    raise
                if asyncio.get_running_loop().time() >= ends:
                    variables = f"SEGUE_DEPLOYMENT_NAME={deployment} and SEGUE_BUILD_ID={build}"
                    fix = f"start a worker with {variables} first; with several clusters, in each of them"
                    raise Refused(f"cannot become the current one: {error.message}", field=what, fix=fix) from error
                await asyncio.sleep(POLL_S)
            else:
                return f"{what}: is now the current one"
