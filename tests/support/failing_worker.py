"""Production's worker with a fault in workflow code: recording a move fails for some versions.

The image ``example/chat:error`` causes an ordinary error. ``example/chat:other-steps`` acts as a release whose steps
differ from the history: the SDK's own way to fail a workflow task. ``example/chat:late`` does so too, after a first
attempt that takes longer than the test allows.
"""

import time

from temporalio.workflow import NondeterminismError

import segue.transition
from segue.decision import Act
from segue.leaving import leave
from segue.state import State
from worker.__main__ import main

ERRORS = {
    "example/chat:error": RuntimeError("the fault of this test"),
    "example/chat:other-steps": NondeterminismError("other steps than the history's"),
    "example/chat:late": NondeterminismError("other steps, known only to later attempts"),
}
LATE_S = [3.0]
"""How long the first attempt takes: longer than the SDK gives workflow code, so no failure of its own is recorded."""
_scaled = segue.transition._RECORDERS[Act.SCALE]


def _faulty(state: State, done: segue.transition._Done) -> State:
    image = state.wanted.images.get("server", "")
    error = ERRORS.get(image)
    if image == "example/chat:late" and LATE_S:
        time.sleep(LATE_S.pop())
    if error is not None:
        raise error
    return _scaled(state, done)


if __name__ == "__main__":
    segue.transition._RECORDERS[Act.SCALE] = _faulty
    leave(main())
