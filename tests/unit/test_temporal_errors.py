"""What each error of Temporal's library becomes: which of ours, and what it says to do."""

import pytest
from pydantic import ValidationError
from temporalio.api.deployment.v1 import WorkerDeploymentOptions, WorkerDeploymentVersion
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.workflow.v1 import VersioningOverride
from temporalio.api.workflowservice.v1 import DescribeTaskQueueResponse
from temporalio.client import WorkflowFailureError, WorkflowQueryFailedError
from temporalio.exceptions import TemporalError, TerminatedError, TimeoutType, WorkflowAlreadyStartedError
from temporalio.exceptions import TimeoutError as TimedOut
from temporalio.service import RPCError, RPCStatusCode

from segue.errors import AlreadyRolling, NotAllowed, NotFound, Refused, SegueError, Unreachable, Unreadable
from segue.pollers import pinned_away
from segue.status import Status
from segue.temporal_errors import translated

QUEUE = "a-queue"
STATUSES: dict[str, tuple[RPCStatusCode, str, type[SegueError], tuple[str, ...]]] = {
    "ended": (
        RPCStatusCode.NOT_FOUND, "workflow execution already completed", Refused, ("serving/chat", "segue report"),
    ),
    "no such namespace": (
        RPCStatusCode.NOT_FOUND, "Namespace prod is not found.", NotFound, ("prod", "TEMPORAL_NAMESPACE"),
    ),
    "no such rollout": (RPCStatusCode.NOT_FOUND, "workflow not found for ID", NotFound, ("serving/chat", "segue list")),
    "no key": (RPCStatusCode.UNAUTHENTICATED, "no key", NotAllowed, ("no key", "TEMPORAL_API_KEY")),
    "no permission": (RPCStatusCode.PERMISSION_DENIED, "not yours", NotAllowed, ("not yours", "TEMPORAL_API_KEY")),
    "search attribute": (
        RPCStatusCode.INVALID_ARGUMENT, "Search attribute SeguePhase is not defined", Refused, ("run `segue setup`",),
    ),
    "invalid": (RPCStatusCode.INVALID_ARGUMENT, "too long", Refused, ("too long",)),
    "no worker": (RPCStatusCode.FAILED_PRECONDITION, "no poller", Unreachable, (QUEUE, "segue worker")),
    "no answer": (RPCStatusCode.DEADLINE_EXCEEDED, "late", Unreachable, (QUEUE, "segue worker")),
    "cancelled": (RPCStatusCode.CANCELLED, "late", Unreachable, (QUEUE, "segue worker")),
    **{
        status.name: (status, "busy", Unreachable, (status.name, "busy", "try again"))
        for status in RPCStatusCode
        if status
        not in {
            RPCStatusCode.OK, RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED,
            RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED,
            RPCStatusCode.CANCELLED,
        }
    },
}  # fmt: skip


def translation(error: Exception) -> SegueError:
    """The error of ours that a caller meets."""
    with pytest.raises(SegueError) as met, translated("serving/chat", QUEUE):
        raise error
    assert met.value.__cause__ is error
    return met.value


@pytest.mark.parametrize("case", STATUSES)
def test_each_status_becomes_an_error_that_says_what_to_do(case: str) -> None:
    status, message, ours, expected = STATUSES[case]
    error = translation(RPCError(message, status, b""))
    assert type(error) is ours
    for part in expected:
        assert part in str(error)


def test_other_invalid_input_needs_no_search_attribute() -> None:
    assert "search attribute" not in str(translation(RPCError("too long", RPCStatusCode.INVALID_ARGUMENT, b"")))


def test_what_is_no_status_is_told_apart() -> None:
    """A rollout that is there, one that cannot answer, nobody who does, and what nobody knows."""
    assert type(translation(WorkflowAlreadyStartedError("id", "Rollout"))) is AlreadyRolling
    assert "could not answer: broken" in str(translation(WorkflowQueryFailedError("broken")))
    starved = translation(WorkflowQueryFailedError("[TMPRL1101] Potential deadlock detected"))
    assert type(starved) is Unreachable and "too busy to answer" in str(starved)
    assert type(translation(TimeoutError())) is Unreachable
    assert str(translation(TemporalError("strange"))) == "Temporal: strange"


def test_a_workflow_that_temporal_ended_says_why() -> None:
    """Nothing was rolled back, whoever ended it."""
    late = TimedOut("late", type=TimeoutType.START_TO_CLOSE, last_heartbeat_details=[])
    for cause, why in ((TerminatedError("by her"), "was terminated in Temporal"), (late, "because its time was over")):
        ended = translation(WorkflowFailureError(cause=cause))
        assert why in str(ended) and "segue release serving/chat" in str(ended)


@pytest.mark.parametrize("former", [False, True], ids=["pinned", "the-former-field"])
def test_a_workflow_that_somebody_pinned_to_a_build_without_workers(former: bool) -> None:
    """A worker runs, and starting another one does not help."""
    version = WorkerDeploymentVersion(deployment_name="segue", build_id="v9")
    pinned = VersioningOverride(pinned_version="segue.v9") if former else VersioningOverride()
    if not former:
        pinned.pinned.version.CopyFrom(version)

    def told(build: str, override: VersioningOverride) -> str:
        poller = PollerInfo(deployment_options=WorkerDeploymentOptions(deployment_name="segue", build_id=build))
        return str(pinned_away(DescribeTaskQueueResponse(pollers=[poller]), override, "rollout/a", "segue") or "")

    assert "pinned this rollout in Temporal to deployment segue, build v9, and no worker of that build" in told(
        "v1", pinned
    )
    assert "-w rollout/a --versioning-override-behavior unspecified" in told("v1", pinned)
    assert told("v9", pinned) == told("v1", VersioningOverride()) == ""


def test_data_of_a_newer_release_is_named() -> None:
    with pytest.raises(ValidationError) as wrong:
        Status.model_validate({"id": "a", "name": "b", "target": "serving/chat", "phase": "Rehearsing"})
    error = translation(wrong.value)
    assert isinstance(error, Unreadable)
    assert str(error) == (
        "the rollout of serving/chat has data that this release of Segue does not know: phase: 'Rehearsing'; "
        "use the release of its worker"
    )
