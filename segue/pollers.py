"""The workers that poll a task queue, and the errors when none of them takes a rollout."""

from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import VersioningOverride
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client

from segue import contract
from segue.errors import Unreachable

ANSWER_S = 10.0
"""A running worker answers a query, or accepts an update, within this time."""


def no_worker(task_queue: str) -> Unreachable:
    """Return the error for a task queue on which no worker answers."""
    command = "segue worker" if task_queue == contract.TASK_QUEUE else f"segue worker --task-queue {task_queue}"
    return Unreachable(f"no worker answers on task queue {task_queue}", fix=f"start one with `{command}`")


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


def pinned_away(
    found: DescribeTaskQueueResponse, override: VersioningOverride, workflow_id: str, task_queue: str
) -> Unreachable | None:
    """Return the error for a workflow that somebody pinned to a build of which no worker polls; None for any other."""
    pinned = override.pinned.version
    name, build = pinned.deployment_name, pinned.build_id
    if not name:  # older servers fill only the former field
        name, _, build = override.pinned_version.partition(".")
    polls = {(p.deployment_options.deployment_name, p.deployment_options.build_id) for p in found.pollers}
    if not name or (name, build) in polls:
        return None
    command = f"temporal workflow update-options -w {workflow_id} --versioning-override-behavior unspecified"
    return Unreachable(
        f"somebody pinned this rollout in Temporal to deployment {name}, build {build}, and no worker of that build "
        f"polls task queue {task_queue}",
        fix=f"start one, or run `{command}`",
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
