"""A worker whose certificate for Temporal is renewed; tests/cluster/test_rollout_objects.py has the controller's."""

from pathlib import Path

from expiring import Expiring
from harness import open_lab, until
from segue_local import Stack


async def test_a_renewed_certificate_is_used(stack: Stack, tmp_path: Path, unused_tcp_port: int) -> None:
    """The rollout goes on without a restart."""
    expiring = Expiring(stack, tmp_path, unused_tcp_port)
    async with open_lab(stack) as lab:
        await lab.deploy("chat", 2)
        async with expiring.served(expiring.former):
            worker = lab.worker(**expiring.environment)
            await worker.serves()
            run = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]})
            await run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            expiring.show(expiring.later)
            await until("it is told", lambda: "for Temporal cannot be used" in worker.log.read_text())
        async with expiring.served(expiring.later):
            await until("it is connected again", lambda: "renewed credentials" in worker.log.read_text())
            await run.send("approve")
            assert (await run.end()).status.outcome == "Completed"
        assert worker.lives
