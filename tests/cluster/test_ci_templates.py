"""The scripts of the CI templates on real servers: one completes, a re-run joins, and a cancelled one aborts."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ci_templates import BIN, command, environment
from harness import Lab, until
from shell import COMPLETED, ROLLED_BACK, Shell

ASKS = {"waypoints": [{"at": 1, "approval": True}]}


@pytest.mark.parametrize("system", ["github", "gitlab"])
async def test_the_scripts_roll_join_and_abort(served: Lab, tmp_path: Path, system: str) -> None:
    """A runner that is lost leaves the rollout: the re-run takes its end. A cancelled run takes the target back."""
    shell = Shell(served, tmp_path)
    await served.deploy("chat", 2)
    file = shell.spec("chat", strategy=ASKS)
    async with _running(shell, system, file, tmp_path) as lost:
        await lost.shows("AwaitingApproval")
        lost.process.kill()
    async with _running(shell, system, file, tmp_path) as again:
        await again.shows("AwaitingApproval")
        await shell.run("approve", file, "--by", "someone")
        assert await again.process.wait() == COMPLETED, again.output.read_text()
    assert (tmp_path / "segue-summary.md").read_text().startswith("### Rollout chat: Completed")
    assert "<failure" not in (tmp_path / "segue-junit.xml").read_text()

    file = shell.spec("chat", strategy=ASKS, change={"images": {"server": "example/chat:3"}})
    async with _running(shell, system, file, tmp_path) as cancelled:
        await cancelled.shows("AwaitingApproval")
        if system == "github":  # it signals the first process of the step
            cancelled.process.send_signal(signal.SIGTERM)
            assert await cancelled.process.wait() == ROLLED_BACK, cancelled.output.read_text()
        else:  # some executors kill a cancelled job, and then run what comes after it
            cancelled.process.kill()
            async with _running(shell, "gitlab, cancelled", file, tmp_path) as after:
                assert await after.process.wait() == COMPLETED, after.output.read_text()

    async def ended() -> bool:
        return bool((await shell.json("status", file))["outcome"])

    await until("the rollout to end", ended, poll_s=0.5)
    status = await shell.json("status", file)
    assert status["outcome"] == "Aborted" and "the pipeline was cancelled" in status["reason"], status
    assert {pod.spec.containers[0].image for pod in served.pods("chat")} == {"example/chat:2"}


@dataclass
class Job:
    """A script that runs, and the file of its output."""

    process: asyncio.subprocess.Process
    output: Path

    async def shows(self, words: str) -> None:
        await until(f"the script to show {words}", lambda: words in self.output.read_text(), poll_s=0.5)


@asynccontextmanager
async def _running(shell: Shell, script: str, file: str, folder: Path) -> AsyncIterator[Job]:
    """Run a script in the folder of a job; it is killed if it still runs at the end."""
    (folder / ".segue").mkdir(exist_ok=True)
    if not (folder / ".segue/bin").exists():
        (folder / ".segue/bin").symlink_to(BIN)
    env = environment(file, folder, {**shell.env, "CI_JOB_STATUS": "canceled"})
    output = folder / f"{script}.log"
    with output.open("w") as log:
        process = await asyncio.create_subprocess_exec(*command(script), cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield Job(process, output)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
