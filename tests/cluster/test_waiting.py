"""A rollout that waits for a person costs nothing, and still reacts at once to its own events and messages."""

from harness import Lab, until
from scraping import free_address, sample

from segue.contract import Tuning

QUIET_S = 5.0
"""A rollout that moves is observed at least twice in this time."""
NEVER = Tuning(rest_heartbeat_s=36_000.0, rest_attempt_s=36_000.0, queue_s=0.1)
"""While such a rollout waits, only events and messages can end the watch's sleep within the test."""
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


async def test_a_waiting_rollout_only_reacts(lab: Lab) -> None:
    """No observation for some seconds; then a lost replica rolls one back, and a message pauses the other."""
    address = free_address()
    await lab.worker(SEGUE_HEALTH_ADDRESS=address).serves()
    seen = 0.0

    def is_quiet() -> bool:
        """Whether nothing was observed since the last time."""
        nonlocal seen
        before, seen = seen, sample(address, "segue_looks_total")
        return before == seen

    async with (
        lab.case("lost", 2, strategy=ASKS, tuning=NEVER) as lost,
        lab.case("steered", 2, strategy=ASKS, tuning=NEVER) as steered,
    ):
        for case in (lost, steered):
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await until("it only watches", case.only_watches)
        await until("no more observations", is_quiet, poll_s=QUIET_S)
        await steered.run.send("pause")
        await steered.run.until("it is paused", lambda s: s.phase == "Paused")
        await until("the former watch to end", steered.only_watches)
        lab.relabel(lab.pods("lost", "chat:2")[0].metadata.name, "crash-loop")
        await lost.ends("RolledBack")
        await steered.run.send("abort")
        await steered.ends("Aborted")
    assert sample(address, "segue_looks_total") > seen
