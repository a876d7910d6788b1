"""A process that sends requests and records the outcome of each."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from segue_local.errors import PartFailed, Refused

Wrap = Callable[[Sequence[str]], list[str]]
Lines = Sequence[dict[str, Any]]
T = TypeVar("T")

_POLL_S = 0.02
_BEGIN_LIMIT_S = 60.0
_END_MARGIN_S = 20.0
_LOG_END = 2000


class Load(ABC, Generic[T]):
    """A load that runs from ``start()`` to ``stop()``, or as a context manager that leaves no process behind.

    ``folder`` receives its files: ``lines.jsonl`` (a line for its start and one for each outcome),
    ``summary.json`` (its own count of requests sent) and ``log.txt``. ``wrap`` turns its argv into one that
    runs elsewhere, for example in a network namespace; that program must exec the argv, so that signals arrive.
    If its launcher is killed, the load ends after ``longest_s``.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, *, timeout_s: float, longest_s: float, wrap: Wrap = list) -> None:
        self.folder = folder
        self._timeout_s = timeout_s
        self._longest_s = longest_s
        self._wrap = wrap
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the argv. The process writes lines and summary, and ends gracefully on SIGUSR1."""

    @abstractmethod
    def _outcomes(self, lines: Lines, dropped: int) -> T:
        """Return the outcomes in the lines."""

    @property
    def pid(self) -> int | None:
        """The pid of the process, or None while none runs."""
        return self._process.pid if self._process else None

    @property
    def _lines(self) -> Path:
        return self.folder / "lines.jsonl"

    @property
    def _summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def _log(self) -> Path:
        return self.folder / "log.txt"

    def start(self) -> Self:
        """Start it and return when it sends requests. Raises ``PartFailed``, and ``Refused`` for a used folder."""
        if self._lines.exists():
            raise Refused(f"{self.folder} holds the outcomes of another load: use an empty folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._wrap(self._command()),
                # Without the caller's settings: K6_* and proxies would change the requests.
                env={"PATH": os.defpath, "HOME": str(self.folder), "K6_AUTO_EXTENSION_RESOLUTION": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # In its own session: a ^C must not end it before its outcomes are read.
                start_new_session=True,
            )
        atexit.register(self.kill)
        try:
            self._await_beginning(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def so_far(self) -> T:
        """Return the outcomes so far; unchecked, because the load still runs."""
        return self._outcomes(self._read(), 0)

    def stop(self) -> T:
        """Stop sending, wait for the requests in flight, and return all outcomes.

        Takes up to the time limit of a request. Raises ``PartFailed`` when the load ended early, or when its lines
        are not as many as it counted: a missing outcome must not pass for a success.
        """
        process = self._process
        if process is None:
            raise Refused(f"the load in {self.folder} does not run")
        try:
            if process.poll() is not None:
                raise self._failed(f"ended by itself with status {process.returncode}")
            process.send_signal(signal.SIGUSR1)
            self._await_end(process)
        finally:
            self.kill()
        return self._checked()

    def kill(self) -> None:
        """Kill it and all that it started; its outcomes are then unreliable."""
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _await_beginning(self, process: subprocess.Popen[bytes]) -> None:
        ends_at = time.monotonic() + _BEGIN_LIMIT_S
        while not self._began():
            if process.poll() is not None:
                raise self._failed(f"ended with status {process.returncode} before its first request")
            if time.monotonic() > ends_at:
                raise self._failed(f"did not begin within {_BEGIN_LIMIT_S:g} s")
            time.sleep(_POLL_S)

    def _began(self) -> bool:
        return self._lines.exists() and b"\n" in self._lines.read_bytes()

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        limit_s = self._timeout_s + _END_MARGIN_S
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise self._failed(f"did not end within {limit_s:g} s") from None

    def _checked(self) -> T:
        lines = self._read()
        try:
            summary = json.loads(self._summary.read_text())
        except (OSError, ValueError):
            raise self._failed("ended without a summary") from None
        if summary["sent"] != len(lines):
            raise self._failed(f"counted {summary['sent']} requests and recorded {len(lines)}")
        return self._outcomes(lines, summary["dropped"])

    def _read(self) -> Lines:
        # The last line may be incomplete; the first one records the start.
        whole = self._lines.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()[1:]]

    def _failed(self, why: str) -> PartFailed:
        end = self._log.read_bytes()[-_LOG_END:].decode(errors="replace").strip()
        return PartFailed(self.name, why, self._log, end)
