"""Builds something slow once, by one process at a time, with progress for those who wait."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str], None]

_REPORT_EVERY_S = 10.0
_OUTPUT_LINES = 30


def to_stderr(line: str) -> None:
    """Print a line to standard error: the default progress."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def locked(target: Path, label: str, say: Progress) -> Iterator[int]:
    """Hold the lock to build ``target``, as a descriptor; the kernel frees it when its holders are dead.

    Creates the folder of ``target``; ``label`` is its name in messages.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that builds {label}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def reported(label: str, say: Progress) -> Iterator[None]:
    """Report when a build begins, every ten seconds while it runs, and how long it took."""
    started = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_REPORT_EVERY_S):
            say(f"building {label} … {time.monotonic() - started:.0f} s so far")

    say(f"building {label} …")
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    say(f"building {label} … {time.monotonic() - started:.0f} s")


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], lock: int) -> tuple[str, int]:
    """Run a command to its end; return the last lines of its output, and its status."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # If this process is killed, the build continues: it keeps the lock, so no second build writes the same file.
        pass_fds=[lock],
    ) as process:
        try:
            assert process.stdout is not None
            lines = deque(process.stdout, maxlen=_OUTPUT_LINES)
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    return "".join(lines), status
