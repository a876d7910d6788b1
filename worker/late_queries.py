"""Refuses a query that would advance a cached workflow (decision 58)."""

from typing import Any

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import Info

from segue.contract import LATE_QUERY

_QUERY_TASK = "legacy_query"
"""The SDK's id of a query that has a task of its own. A query within a workflow task has another id."""


class HandledEvents:
    """What a cached workflow has handled, and whether a workflow task that the server knows brought it."""

    def __init__(self) -> None:
        self._task = (0, 0)
        """When the last workflow task started (ns), and the size of the history then (bytes)."""
        self._length = 0
        self._handled_at = 0
        """The history's length when the workflow last handled events."""
        self._ahead = False
        """Whether these events came after the start of that task."""
        self._live = False
        """Whether they were new, so no part of a replay."""
        self._proven = False
        """Whether this run is known to hold no workflow task that nobody completed."""

    def is_late(self, act: WorkflowActivation) -> bool:
        """Take note of an activation, and return whether it is a query whose task brought the last events.

        A query task applies its events directly before the query, so the query finds the length that they left. After a
        completed workflow task, a query without history finds that length too. Only the events of a workflow task begin
        with its start. A run that was built anew may have got that start by a query task, and nobody completes the
        workflow task then. So such a run answers only when it holds what followed its last workflow task.
        """
        task = (act.timestamp.ToNanoseconds(), act.history_size_bytes)
        is_new, grew = task != self._task, act.history_length > self._length
        self._task, self._length = task, act.history_length
        if any(not job.HasField("query_workflow") for job in act.jobs):
            if not self._handled_at:
                self._proven = not act.is_replaying
            self._proven |= is_new and self._live
            self._ahead = not is_new and (grew or self._ahead)
            self._live, self._handled_at = not act.is_replaying, act.history_length
            return False
        if act.history_length > self._handled_at:
            self._proven = True
        is_of_query_task = any(job.query_workflow.query_id == _QUERY_TASK for job in act.jobs)
        return is_of_query_task and (self._ahead or not self._proven)


class RefusingLateQueries(WorkflowRunner):
    """Runs workflows by another runner, and fails each query whose task brought new events.

    A query that waited for a poller arrives with the history of that later moment. The SDK applies all of it, and
    keeps the commands for the next workflow task. A signal or an update in that task then runs after these events, but
    a replay runs it before them: the history does not replay. The failed query removes the run from the cache, so the
    next workflow task handles everything in the order of a replay.
    """

    def __init__(self, runner: WorkflowRunner) -> None:
        self._runner = runner

    def prepare_workflow(self, defn: Any) -> None:
        """Prepare a workflow, as the other runner does."""
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the other runner's instance, which gets no late query."""
        return _Instance(self._runner.create_instance(det))

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """Set them for the other runner."""
        self._runner.set_worker_level_failure_exception_types(types)


class _Instance(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance
        self._handled = HandledEvents()

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        return _refused() if self._handled.is_late(act) else self._instance.activate(act)

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        return self._instance.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()


def _refused() -> WorkflowActivationCompletion:
    completion = WorkflowActivationCompletion()
    completion.failed.failure.message = f"{LATE_QUERY}; query again"
    return completion
