"""What an activity's errors become for Temporal, and how urgent its requests are."""

from dataclasses import replace

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.limits import Urgency
from activities.rollout import BELIEVED_AT, REFUSED_AT, _defined, _urgency, to_application_error
from segue import contract
from segue.contract import PrepareInput, VerifyInput, WriteInput, Written
from segue.decision import Act, Decision
from segue.errors import Conflict, NotFound, Refused, SegueError, Stale, Unadmitted
from segue.spec import Change, DeploymentTarget, Rules
from segue.state import Outcome, State, requested
from segue.temporal_errors import _ours


class Faulty:
    def __init__(self, error: Exception) -> None:
        self.error = error

    @_defined(contract.SCALE_NEW)
    async def act(self) -> None:
        raise self.error


async def act(error: Exception, attempt: int) -> None:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=attempt)
    await environment.run(Faulty(error).act)


@pytest.mark.parametrize(
    ("error", "attempt", "retried"),
    [
        pytest.param(Conflict("changed"), 99, True, id="a-conflict"),
        pytest.param(Refused("no"), 1, False, id="a-refusal"),
        pytest.param(ValueError("odd"), BELIEVED_AT, False, id="unexpected-again-and-again"),
    ],
)
async def test_an_error_is_retried_or_ends_at_a_person(error: Exception, attempt: int, retried: bool) -> None:
    with pytest.raises(ApplicationError) as raised:
        await act(error, attempt)
    assert raised.value.non_retryable is not retried
    assert str(error) in str(raised.value)


class Undecided:
    @_defined(contract.SCALE_NEW)
    async def write(self, request: WriteInput) -> Written:
        raise Unadmitted("the API server cannot ask an admission webhook")

    @_defined(contract.PREPARE)
    async def prepare(self, request: PrepareInput) -> None:
        raise Unadmitted("the API server cannot ask an admission webhook")

    @_defined(contract.VERIFY)
    async def verify(self, request: VerifyInput) -> None:
        raise Stale("another generation")


async def test_a_write_that_cannot_be_made_now_is_decided_again() -> None:
    """Temporal would try it again without end, and nothing else would be decided. Others have no such answer."""
    state, target, environment = State(owner="us"), DeploymentTarget(namespace="n", name="chat"), ActivityEnvironment()
    decision = Decision(act=Act.PAUSE_CONTROLLER, why="why")
    request = WriteInput(target=target, rules=Rules(), state=state, decision=decision)
    written = await environment.run(Undecided().write, request)
    assert written == Written(done=False, why="the API server cannot ask an admission webhook")
    with pytest.raises(ApplicationError, match="another generation"):
        await environment.run(Undecided().verify, VerifyInput(target=target, rules=Rules(), state=state))


@pytest.mark.parametrize(
    ("retargets", "attempt", "retried"),
    [(False, 99, True), (True, REFUSED_AT - 1, True), (True, REFUSED_AT, False)],
)
async def test_a_retarget_that_cannot_be_tried_is_given_up_soon(retargets: bool, attempt: int, retried: bool) -> None:
    """Nobody observes the target meanwhile, or takes it back; a start waits, because nothing is at stake."""
    target, environment = DeploymentTarget(namespace="n", name="chat"), ActivityEnvironment()
    environment.info = replace(environment.info, attempt=attempt)
    request = PrepareInput(target=target, owner="us", change=Change(), rules=Rules(), retargets=retargets)
    with pytest.raises(ApplicationError, match="cannot ask") as raised:
        await environment.run(Undecided().prepare, request)
    assert raised.value.non_retryable is not retried


async def test_an_unexpected_error_may_pass() -> None:
    with pytest.raises(ValueError, match="odd"):
        await act(ValueError("odd"), 1)


def test_requests_of_rollbacks_go_first_and_those_of_starts_last() -> None:
    """A rollback of a pair is made of ordinary moves: the state shows the direction."""
    state = State(owner="us")
    target = DeploymentTarget(namespace="n", name="chat")
    ahead, back = (
        VerifyInput(target=target, rules=Rules(), state=each)
        for each in (state, state.going_back(Outcome.ROLLED_BACK, requested("why"), 0.0))
    )
    assert _urgency(contract.PREPARE, None) is Urgency.START
    assert _urgency(contract.UNDO, ahead) is _urgency(contract.SCALE_NEW, back) is Urgency.UNDO
    assert _urgency(contract.AWAIT_READY, ahead) is _urgency(contract.FINISH, ahead) is Urgency.PROGRESS


@pytest.mark.parametrize(("error", "missing"), [(NotFound("no such Deployment"), True), (Refused("is wrong"), False)])
def test_what_is_missing_is_known_behind_temporal(error: SegueError, missing: bool) -> None:
    """A Rollout object that is applied before its target starts again."""
    rebuilt = _ours(to_application_error(error))
    assert isinstance(rebuilt, Refused) and rebuilt.missing is missing
