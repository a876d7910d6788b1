"""Processes that outlive the one that started them, and are found again.

A process is known by its pid *and* its start time, since a pid alone may belong to someone else by now.
All processes of a stack also carry the stack's folder in their environment: that finds the ones which
were started by a launcher that died before it could write them down.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "SEGUE_LOCAL_STACK"

# Our own children must be reaped, and only a Popen object can tell how they ended.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Process:
    """A process by pid and start time (clock ticks since boot)."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        self.exit_status()
        return _start_ticks(self.pid) == self.start_ticks

    def exit_status(self) -> int | None:
        """How it ended (negative: by that signal), known only to the process that started it."""
        child = _children.get(self.pid)
        return child.poll() if child is not None else None

    def kill(self, timeout_s: float = 10.0) -> None:
        """SIGKILL it and wait until it is gone. Raises ``TimeoutError``."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # The descriptor pins the process; only now is the comparison safe from a reused pid.
            if _start_ticks(self.pid) != self.start_ticks:
                return
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if not select.select([descriptor], [], [], timeout_s)[0]:
                raise TimeoutError(f"process {self.pid} did not end within {timeout_s:g} s of SIGKILL")
        finally:
            os.close(descriptor)
        self.exit_status()


def start(
    command: Sequence[str], *, stack_dir: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a marked process in a session of its own; what it says is appended to ``log``."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            cwd=stack_dir,
            # A short environment: settings of the caller's (proxies, TEMPORAL_*, KUBECONFIG) stay out.
            env={
                "PATH": os.defpath,
                "HOME": str(stack_dir),
                MARKER: str(stack_dir),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return Process(child.pid, _start_ticks(child.pid) or 0)


def marked(stack_dir: Path) -> list[Process]:
    """All running processes that carry this stack's mark."""
    mark = f"{MARKER}={stack_dir}".encode()
    return [process for process in _all() if mark in _environment(process.pid)]


def kill_marked(stack_dir: Path) -> None:
    """SIGKILL all processes of a stack, until a look finds none. Raises ``TimeoutError``."""
    while found := marked(stack_dir):
        for process in found:
            process.kill()


def _all() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            ticks = _start_ticks(int(entry.name))
            if ticks is not None:
                yield Process(int(entry.name), ticks)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def _start_ticks(pid: int) -> int | None:
    """The start time from /proc (field 22 of stat); None when there is none such, or only its zombie."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    with closing(os.fdopen(descriptor, "rb")) as file:
        try:
            # The command's name stands in parentheses and may hold anything: read on behind the last one.
            fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
