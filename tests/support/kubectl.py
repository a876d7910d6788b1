"""The real ``kubectl``, with Segue's plugin, against one lab."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness import Lab, until
from segue_local.build import KUBECTL, ensure_built
from shell import SEGUE

LIMIT_S = 600


class Kubectl:
    """Runs ``kubectl`` in the namespace of a lab, with the rights of its stack; ``folder`` becomes its home."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._path = str(ensure_built(binaries=[KUBECTL])["kubectl"])
        self._namespace = lab.namespace
        settings = {"SEGUE_TASK_QUEUE": lab.task_queue, "SEGUE_CLUSTER": lab.namespace, "NO_COLOR": "1"}
        path = f"{SEGUE.parent}{os.pathsep}{os.environ['PATH']}"  # kubectl finds its plugins there
        self._env = {**os.environ, **lab.stack.env(), **settings, "HOME": str(folder), "PATH": path}

    async def run(self, *arguments: str, expect: int = 0) -> str:
        """Run one command, check its exit code, and return its output."""
        command = [self._path, *arguments]
        if arguments[0] != "segue":
            command += ["-n", self._namespace]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=self._env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        output = str(ended.stdout + ended.stderr)
        assert ended.returncode == expect, f"{arguments}: {ended.returncode}\n{output}"
        return output

    @asynccontextmanager
    async def watching(self, *arguments: str) -> AsyncIterator[list[str]]:
        """Run a command that does not end, and yield the lines that it has printed so far."""
        process = await asyncio.create_subprocess_exec(
            self._path, *arguments, "-n", self._namespace, env=self._env, stdout=asyncio.subprocess.PIPE
        )
        lines: list[str] = []

        async def read() -> None:
            assert process.stdout is not None
            while line := await process.stdout.readline():
                lines.append(line.decode().rstrip())

        reading = asyncio.create_task(read())
        try:
            yield lines
        finally:
            process.terminate()
            await process.wait()
            await reading


async def shows(lines: list[str], *words: str) -> None:
    """Wait until a line has all of these words."""
    await until(f"a line with {words}", lambda: any(all(word in line.split() for word in words) for line in lines))
