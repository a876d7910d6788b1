"""Composes a worker. One plugin configures client, worker and replayer, so that replay tests run with production's
converter and interceptors."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import temporalio.client
import temporalio.worker
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.plugin import SimplePlugin
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.cluster import Cluster
from activities.gates.serving_checks import Believer
from activities.notifying import Notifier
from activities.pod_http import reach_of
from activities.rollout import Activities
from segue import __version__
from segue.codec import data_converter
from segue.contract import activity_queue
from segue.errors import Refused
from segue.supervision import SUPERVISIONS
from worker.late_queries import RefusingLateQueries
from worker.one_input import OneInput
from worker.settings import Settings
from worker.telemetry import tracing
from workflows.notification import NotificationWorkflow
from workflows.rollout import RolloutWorkflow

WORKFLOWS = [RolloutWorkflow, NotificationWorkflow]
DISTRIBUTION = "segue-rollouts"
PURE_MODULES = ("regex", "jsonpath_rfc9535")
"""Libraries that validate specs, also inside a workflow; they import parts of themselves only on use."""
_SANDBOX = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PURE_MODULES))
STICKY_LIMIT = timedelta(seconds=3)
WORKFLOW_TASKS_AT_ONCE = 4
"""They share one interpreter lock. More at once are not faster, and on a busy machine each would exceed the two seconds
after which the SDK takes a workflow task for a deadlock; starting a workflow costs some milliseconds of CPU."""


def make_plugin(workflows: Sequence[type] = WORKFLOWS, *, sandboxed: bool = False) -> SimplePlugin:
    """Return the plugin of client, worker and replayer. A test may replay another version of the workflows.

    ``sandboxed`` runs workflows in Temporal's sandbox, which finds code that would not replay. Tests do so; a worker
    does not, because the sandbox loads the workflow's module again for each run, and runs some of its code for each
    payload (decision 42).

    Raises:
        Refused: when the file of the encryption keys cannot be used.
    """
    return SimplePlugin(
        "segue",
        data_converter=data_converter(),
        interceptors=[tracing(), OneInput()],
        workflows=workflows,
        workflow_runner=RefusingLateQueries(_SANDBOX if sandboxed else UnsandboxedWorkflowRunner()),
    )


def make_activities(cluster: Cluster, settings: Settings) -> Activities:
    """Return all activities for a cluster, configured by the settings."""
    reach = reach_of(settings.pod_access, cluster)
    credentials = {name: each.pair for name, each in settings.serving_credentials.items()}
    return Activities(
        cluster,
        {**SUPERVISIONS, **settings.supervised},
        believer=Believer(reach, credentials, cluster.clock),
        reach=reach,
        webhooks=settings.webhooks,
        prometheus=settings.prometheus,
        notifier=Notifier(settings.notifications, settings.temporal_ui),
        policy=settings.the_policy,
        slots=settings.slots_each,
        moves_at_once=settings.moves_at_once,
    )


def make_workers(
    client: temporalio.client.Client,
    settings: Settings,
    activities: Mapping[str | None, Activities],
    interceptors: Sequence[temporalio.worker.Interceptor] = (),
) -> list[Worker]:
    """Return the worker of the workflows, and one for each cluster, for a client that has a plugin without workflows.

    ``activities`` are by cluster. Those under None are of targets that name no cluster.
    """
    unnamed = activities.get(None)
    cached = settings.slots if settings.max_cached_workflows is None else settings.max_cached_workflows
    workflows = _worker(
        client, settings, settings.task_queue, interceptors,
        workflows=WORKFLOWS, activities=unnamed.all if unnamed else (),
        max_cached_workflows=cached, max_concurrent_workflow_tasks=WORKFLOW_TASKS_AT_ONCE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        # After this time, tasks that wait for a dead worker go to any other.
        sticky_queue_schedule_to_start_timeout=STICKY_LIMIT,
    )  # fmt: skip
    clusters = [
        _worker(client, settings, activity_queue(settings.task_queue, name), interceptors, activities=each.all)
        for name, each in activities.items()
        if name is not None
    ]
    return [workflows, *clusters]


def _worker(
    client: temporalio.client.Client, settings: Settings, task_queue: str,
    interceptors: Sequence[temporalio.worker.Interceptor], **more: Any,
) -> Worker:  # fmt: skip
    deployment = _deployment(settings)
    return Worker(
        client,
        task_queue=task_queue,
        interceptors=interceptors,
        max_concurrent_activities=settings.slots_each,
        # A watch that moves sends a heartbeat this often: a cancelled one learns of it by the answer.
        max_heartbeat_throttle_interval=timedelta(seconds=2),
        default_heartbeat_throttle_interval=timedelta(seconds=2),
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_s),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        # Without an id, the SDK hashes the code of every loaded module, which takes seconds at each start.
        build_id=None if deployment else settings.build_id or __version__,
        deployment_config=deployment,
        **more,
    )


def _deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    if not settings.deployment_name:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment_name, settings.build_id or "dev"),
        use_worker_versioning=True,
        # The release that began a rollout also finishes it.
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


def refuse_collisions() -> None:
    """Refuse to start when another distribution owns one of Segue's top-level package names.

    Raises:
        Refused: ``workflows`` and ``activities`` are common names; the wrong code would run under them.
    """
    owners = importlib.metadata.packages_distributions()
    for name in ("segue", "workflows", "activities", "worker"):
        others = sorted({o for o in owners.get(name, []) if o != DISTRIBUTION})
        if others:
            raise Refused(
                f"is also installed by {', '.join(others)}",
                field=f"package {name}",
                fix="install Segue in an environment of its own",
            )
