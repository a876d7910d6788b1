"""An error in the workflow's own code: the rollout holds and says so; what Temporal itself fails is told as that."""

import asyncio
from pathlib import Path

import pytest
from harness import Lab, until
from shell import NEEDS_PERSON, Shell

from segue.client import Rollouts
from segue.errors import Failing, SegueError


async def _an_error_of_ours_needs_a_person(lab: Lab) -> None:
    change = {"images": {"server": "example/chat:error"}}
    async with lab.case("held", 2, change, readiness={"minReady": "0s", "deadline": "10m"}) as case:
        status = await case.run.until("it holds", lambda s: s.phase == "Held")
        assert status.needs_person
        assert "Segue itself failed (RuntimeError: the fault of this test)" in status.reason
        assert status.waiting_for.startswith("a person: ")
        await case.run.send("abort")
        await case.ends("Aborted")


async def _a_failing_task_is_told(lab: Lab, shell: Shell) -> None:
    await lab.deploy("failing", 2)
    before = lab.settings("failing")
    change = {"images": {"server": "example/chat:other-steps"}}
    name = f"{lab.namespace}/failing"
    await shell.run("start", shell.spec("failing", change=change))
    rollouts, workflow_id = Rollouts(lab.temporal, lab.namespace, lab.task_queue), (await shell.json("list"))[0]["id"]

    async def is_told() -> bool:
        try:
            await rollouts.status(workflow_id)
        except Failing as error:
            return "other steps than the history's" in str(error)
        except SegueError:
            pass  # its task has failed once, or not yet
        return False

    await until("status to tell it", is_told)
    for command in ("status", "abort", "watch"):
        told = (await shell.run(command, name, expect=NEEDS_PERSON)).stderr
        assert "fails each time a worker runs it" in told
        assert "no worker answers" not in told
    with pytest.raises(Failing, match=f"segue release {name}"):
        await rollouts.report(workflow_id)
    await lab.temporal.get_workflow_handle(workflow_id).terminate()
    await shell.run("release", name)
    assert lab.settings("failing") == before


async def test_an_error_in_the_workflow(lab: Lab, tmp_path: Path) -> None:
    """One of ours waits for a person, and abort works; one that fails the task is not taken for an absent worker."""
    await lab.worker(module="failing_worker").serves()
    await asyncio.gather(_an_error_of_ours_needs_a_person(lab), _a_failing_task_is_told(lab, Shell(lab, tmp_path)))
