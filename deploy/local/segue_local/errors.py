"""The errors of the local stack.

LocalStackError
├── Refused            an input is invalid; the message names the value and the fix
├── StackNotRunning    no stack of that name is up
├── GoMissing          no Go toolchain is installed, and the servers need one
├── GoTooOld           the installed Go toolchain is too old to build the servers
├── BuildFailed        ``go build`` failed; its last lines are in the message
└── PartFailed         a server died or did not answer in time; the end of its log is in the message
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class LocalStackError(Exception):
    """Base of every error of this package; the command line exits with ``exit_code``."""

    exit_code: ClassVar[int] = 1


class Refused(LocalStackError):
    """An input is invalid."""

    exit_code = 2


class StackNotRunning(LocalStackError):
    """No stack of that name is up."""

    exit_code = 5

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no local stack named {name!r} is running: start it with "
            f"`segue local up{'' if name == 'default' else f' --name {name}'}`"
        )


class GoMissing(LocalStackError):
    """There is no ``go`` command."""

    def __init__(self, searched: str, needed: str) -> None:
        super().__init__(
            f"no `go` command was found ({searched}). Go {needed} or newer is needed to build the "
            f"servers of the local stack: install it from https://go.dev/dl/ and put its bin folder on PATH"
        )


class GoTooOld(LocalStackError):
    """The ``go`` command is older than the servers need."""

    def __init__(self, path: str, found: str, needed: str) -> None:
        super().__init__(
            f"{path} is Go {found}, and Go {needed} or newer is needed to build the servers of the local "
            f"stack: install it from https://go.dev/dl/ and put its bin folder first on PATH"
        )


class BuildFailed(LocalStackError):
    """``go build`` failed."""

    def __init__(self, binary: str, command: str, output_end: str) -> None:
        self.binary = binary
        super().__init__(
            f"building {binary} failed: `{command}` ended with an error. The end of its output:\n{output_end}\n"
            f"If a module is missing, check that the Go module proxy (`go env GOPROXY`) can be reached."
        )


class PartFailed(LocalStackError):
    """A server of the stack died or did not answer in time."""

    def __init__(self, part: str, why: str, log: Path, log_end: str) -> None:
        self.part = part
        self.why = why
        self.log = log
        self.log_end = log_end
        super().__init__(f"{part} {why}. The end of its log ({log}):\n{log_end or '(the log is empty)'}")
