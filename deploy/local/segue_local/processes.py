"""Processes that outlive the one that started them, and are found again.

A process is known by its pid *and* its start time, since a pid alone may belong to someone else by now.
All processes of a stack also carry the stack's folder in their environment: that finds the ones which
were started by a launcher that died before it could write them down.
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
    """Start a marked process in a session of its own; what it says is appended to ``log``.

    ``wrapped``: the command forks once and ends as its child does (``nsenter --pid``); the child is returned.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            cwd=stack_dir,
            # A short environment: settings of the caller's (proxies, TEMPORAL_*, KUBECONFIG) stay out.
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


def run(command: Sequence[str], *, stack_dir: Path, stdin: str = "") -> None:
    """Run a marked command to its end. Raises ``LocalStackError`` with its last words when it fails."""
    done = subprocess.run(
        command, env=_own_environment(stack_dir), input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LocalStackError(f"`{shlex.join(command)}` failed: {(done.stderr or done.stdout).strip()}")


def marked(stack_dir: Path) -> list[Process]:
    """All running processes that carry this stack's mark."""
    mark = f"{MARKER}={stack_dir}".encode()
    return [process for process in _all() if mark in _environment(process.pid)]


def kill_marked(stack_dir: Path) -> None:
    """SIGKILL all processes of a stack, until a look finds none. Raises ``TimeoutError``."""
    while found := marked(stack_dir):
        for process in found:
            process.kill()


def mark_of(stack_dir: Path) -> dict[str, str]:
    """The variable that a process carries which shall end with the stack."""
    return {MARKER: str(stack_dir)}


def _own_environment(stack_dir: Path) -> dict[str, str]:
    # Memory is there and cores are few: collecting garbage half as often spares 4 % of a rollout's processor time.
    return {"PATH": os.defpath, "HOME": str(stack_dir), "GOGC": "200", **mark_of(stack_dir)}


def _child_of(wrapper: subprocess.Popen[bytes]) -> Process | None:
    """The process that a wrapper forks; None when the wrapper ends without one."""
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
    """The start time (clock ticks since boot); None when there is none such, or only its zombie."""
    fields = _stat(pid)
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _stat(pid: int) -> list[bytes]:
    """What /proc tells of a process from its state on (field 3 of stat); ``[b"X"]`` when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return [b"X"]
    # The command's name stands in parentheses and may hold anything: read on behind the last one.
    return text.rpartition(b")")[2].split()
