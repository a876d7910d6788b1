"""Production's worker with a fault in workflow code: recording a move fails for some versions.

The image ``example/chat:error`` causes an ordinary error. ``example/chat:other-steps`` acts as a release whose steps
differ from the history: the SDK's own way to fail a workflow task.
"""

from temporalio.workflow import NondeterminismError

import segue.transition
from segue.decision import Act
from segue.leaving import leave
from segue.state import State
from worker.__main__ import main

ERRORS = {
    "example/chat:error": RuntimeError("the fault of this test"),
    "example/chat:other-steps": NondeterminismError("other steps than the history's"),
}
_scaled = segue.transition._RECORDERS[Act.SCALE]


def _faulty(state: State, done: segue.transition._Done) -> State:
    error = ERRORS.get(state.wanted.images.get("server", ""))
    if error is not None:
        raise error
    return _scaled(state, done)


if __name__ == "__main__":
    segue.transition._RECORDERS[Act.SCALE] = _faulty
    leave(main())
