"""What an activity's errors become for Temporal."""

from dataclasses import replace

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.rollout import BELIEVED_AT, _defined
from segue import contract
from segue.errors import Conflict, Refused


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
    with pytest.raises(ApplicationError) as told:
        await act(error, attempt)
    assert told.value.non_retryable is not retried
    assert str(error) in str(told.value)


async def test_an_unexpected_error_may_pass() -> None:
    with pytest.raises(ValueError, match="odd"):
        await act(ValueError("odd"), 1)
