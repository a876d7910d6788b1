"""A worker that was frozen: it reads what happened meanwhile before it judges."""

import signal
import time

from harness import Lab, until

DEADLINE_S = 6


async def test_a_frozen_worker_does_not_blame_the_version(lab: Lab) -> None:
    """New pods become Ready while the worker is stopped past their deadline; the rollout completes."""
    worker = lab.worker()
    await worker.serves()
    readiness = {"minReady": "0s", "deadline": f"{DEADLINE_S}s"}
    async with lab.case("chat", 2, target={"ready_after": "3s"}, readiness=readiness) as case:
        await until("the first new pod", lambda: lab.pods("chat", "chat:2"))
        worker.send(signal.SIGSTOP)
        try:
            frozen = time.monotonic()
            await case.reaches(2, 1)
            await until("the deadline to pass", lambda: time.monotonic() > frozen + DEADLINE_S + 2)
        finally:
            worker.send(signal.SIGCONT)
        await case.ends("Completed")
