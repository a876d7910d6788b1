"""How long a missing right may be the API server's start, which knows no rights for a moment."""

import dataclasses
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.rollout import BELIEVED_AT, REFUSED_AT, _may_pass
from segue import contract
from segue.errors import NotAllowed, Refused, SegueError


@pytest.mark.parametrize(
    ("defined", "error", "attempt", "retried"),
    [
        (contract.PREPARE, NotAllowed("pods is forbidden"), 1, True),
        (contract.PREPARE, NotAllowed("pods is forbidden"), REFUSED_AT, False),
        (contract.SCALE_NEW, NotAllowed("pods is forbidden"), REFUSED_AT, True),
        (contract.SCALE_NEW, NotAllowed("pods is forbidden"), BELIEVED_AT, False),
        (contract.PREPARE, Refused("has no replicas"), 1, False),
    ],
)
def test_a_missing_right_is_believed_after_some_attempts(
    defined: contract.Activity[Any, Any], error: SegueError, attempt: int, retried: bool
) -> None:
    """Sooner at the start of a rollout than in its middle; other refusals at once."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=attempt)
    assert environment.run(_may_pass, error, defined) is retried
