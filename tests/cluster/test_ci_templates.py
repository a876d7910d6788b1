"""The scripts of the CI templates on real servers: one completes, a re-run joins, and a cancelled one aborts."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
        await _awaits_approval(shell)
        lost.kill()
    async with _running(shell, system, file, tmp_path) as again:
        await shell.run("approve", file, "--by", "someone")
        assert await again.wait() == COMPLETED
    assert (tmp_path / "segue-summary.md").read_text().startswith("### Rollout chat: Completed")
    assert 'failures="0"' in (tmp_path / "segue-junit.xml").read_text()

    file = shell.spec("chat", strategy=ASKS, change={"images": {"server": "example/chat:3"}})
    async with _running(shell, system, file, tmp_path) as cancelled:
        await _awaits_approval(shell)
        if (
            system == "github"
        ):  # it signals the first process; GitLab's executor kills the job, and runs what comes after
            cancelled.send_signal(signal.SIGTERM)
            assert await cancelled.wait() == ROLLED_BACK
        else:
            cancelled.kill()
            async with _running(shell, "gitlab, cancelled", file, tmp_path) as after:
                assert await after.wait() == COMPLETED
    await until("the target to be back", lambda: {p.spec.containers[0].image for p in served.pods("chat")} == {BEFORE})
    status = await shell.json("status", file)
    assert status["outcome"] == "Aborted" and "the pipeline was cancelled" in status["reason"]


BEFORE = "example/chat:2"


async def _awaits_approval(shell: Shell) -> None:
    async def asks() -> bool:
        found = await shell.json("list")
        return any(each["phase"] == "AwaitingApproval" for each in found)

    await until("it asks", asks, poll_s=0.5)


@asynccontextmanager
async def _running(shell: Shell, script: str, file: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a script in the folder of a job; it is killed if it still runs at the end."""
    (folder / ".segue").mkdir(exist_ok=True)
    if not (folder / ".segue/bin").exists():
        (folder / ".segue/bin").symlink_to(BIN)
    env = environment(file, folder, {**shell.env, "CI_JOB_STATUS": "canceled"})
    process = await asyncio.create_subprocess_exec(*command(script), cwd=folder, env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
