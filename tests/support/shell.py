"""The command line as a process, as pipelines and people use it."""

import asyncio
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from harness import ACCEPTED, Lab

SEGUE = Path(sys.executable).with_name("segue")
COMPLETED, REFUSED, ROLLED_BACK, NEEDS_PERSON, UNREACHABLE, TIMED_OUT = 0, 2, 3, 4, 5, 6


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
        """Run one command, and check its exit code."""
        run = functools.partial(
            subprocess.run, [SEGUE, *arguments], env={**self.env, **env}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        ended: subprocess.CompletedProcess[str] = await asyncio.to_thread(run)
        assert ended.returncode == expect, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended

    async def begin(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        """Begin one command, whose output the test reads."""
        return await asyncio.create_subprocess_exec(
            SEGUE, *arguments, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def json(self, *arguments: str) -> Any:
        return json.loads((await self.run(*arguments, "-o", "json")).stdout)
