"""The command line as a process, as pipelines and people use it."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import forked
import yaml
from harness import ACCEPTED, Lab

SEGUE = Path(sys.executable).with_name("segue")
LIMIT_S = 120
COMPLETED, UNEXPECTED, REFUSED, ROLLED_BACK, NEEDS_PERSON, UNREACHABLE, TIMED_OUT = range(7)


class Shell:
    """Runs ``segue`` as a process against one lab."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        settings = {"SEGUE_TASK_QUEUE": lab.task_queue, "SEGUE_CLUSTER": lab.namespace, "NO_COLOR": "1"}
        self.env = {**os.environ, **lab.stack.env(), **settings}

    def spec(self, name: str, **spec: Any) -> str:
        """Write a spec file, and return its path."""
        rollout = {
            "apiVersion": "segue.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": name},
            "spec": {
                "target": {"namespace": self.lab.namespace, "name": name},
                "change": {"images": {"server": "example/chat:2"}},
                "readiness": {"minReady": "0s", "deadline": "1m"},
                "accept": ACCEPTED,
                **spec,
            },
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(rollout))
        return str(path)

    async def run(self, *arguments: str, expect: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one command, and check its exit code; it is forked from a process that has imported all of Segue."""
        ended = await asyncio.to_thread(self._ended, arguments, {**self.env, **env})
        assert ended.returncode == expect, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended

    def _ended(self, arguments: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            err.touch()
            process = forked.start(self.lab.stack.mark, env, out, forked.run_command, *arguments, errors=err)
            process.join(LIMIT_S)
            if process.is_alive():
                process.kill()
                process.join()
            return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())

    async def begin(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        """Begin one command by its script; the test reads its output."""
        return await asyncio.create_subprocess_exec(
            SEGUE, *arguments, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def json(self, *arguments: str) -> Any:
        return json.loads((await self.run(*arguments, "-o", "json")).stdout)
