"""Processes that outlive the one that started them, and can be found again.

Pid *and* start time identify a process, since the kernel reuses pids. All processes of a stack also carry
the stack's folder in their environment. This finds those whose launcher died before it could record them.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segue_local.errors import LocalStackError

MARKER = "SEGUE_LOCAL_STACK"

# Child processes must be reaped, and only a Popen object knows their exit status.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Process:
    """A process, identified by pid and start time (clock ticks since boot)."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie counts as ended."""
        self.exit_status()
        return _start_ticks(self.pid) == self.start_ticks

    def exit_status(self) -> int | None:
        """Return its exit status (negative: the signal), or None in a process that did not start it."""
        child = _children.get(self.pid)
        if child is None:
            return None
        if child.pid != self.pid and _start_ticks(self.pid) != self.start_ticks:
            return child.wait()  # a wrapper ends right after what it wraps, and in the same way
        return child.poll()

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
    command: Sequence[str],
    *,
    stack_dir: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    wrapped: bool = False,
) -> Process:
    """Start a marked process in its own session, and append its output to ``log``.

    ``wrapped``: the command forks once and ends as its child does (``nsenter --pid``); returns the child.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            cwd=stack_dir,
            # A short environment, without the caller's settings (proxies, TEMPORAL_*, KUBECONFIG).
            env={**_own_environment(stack_dir), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = Process(child.pid, _start_ticks(child.pid) or 0)
    if wrapped:
        process = _child_of(child) or process
    _children[process.pid] = child
    return process


def run(
    command: Sequence[str], *, stack_dir: Path, stdin: str = "", environment: Mapping[str, str] | None = None
) -> None:
    """Run a marked command to its end. Raises ``LocalStackError`` with its output when it fails."""
    done = subprocess.run(
        command,
        env={**_own_environment(stack_dir), **(environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalStackError(f"`{shlex.join(command)}` failed: {(done.stderr or done.stdout).strip()}")


def marked(stack_dir: Path) -> list[Process]:
    """Return all running processes that carry this stack's mark."""
    mark = f"{MARKER}={stack_dir}".encode()
    return [process for process in _all() if mark in _environment(process.pid)]


def kill_marked(stack_dir: Path) -> None:
    """SIGKILL all processes of a stack until none is left. Raises ``TimeoutError``."""
    while found := marked(stack_dir):
        for process in found:
            process.kill()


def mark_of(stack_dir: Path) -> dict[str, str]:
    """Return the environment variable that makes a process end with the stack."""
    return {MARKER: str(stack_dir)}


def _own_environment(stack_dir: Path) -> dict[str, str]:
    # Memory is plentiful and cores are few: half as many garbage collections save 4 % of a rollout's processor time.
    return {"PATH": os.defpath, "HOME": str(stack_dir), "GOGC": "200", **mark_of(stack_dir)}


def _child_of(wrapper: subprocess.Popen[bytes]) -> Process | None:
    """Return the process that a wrapper forks, or None when the wrapper ends without one."""
    while wrapper.poll() is None:
        for process in _all():
            if _stat(process.pid)[1:2] == [str(wrapper.pid).encode()]:
                return process
        time.sleep(0.005)
    return None


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
    """Return the start time (clock ticks since boot), or None when no such process runs."""
    fields = _stat(pid)
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc's stat from the state (field 3) on; ``[b"X"]`` for no process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return [b"X"]
    # The command's name is in parentheses and may hold any characters: read behind the last parenthesis.
    return text.rpartition(b")")[2].split()
