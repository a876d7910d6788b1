"""The control groups of one node: all its pods run below the node's own group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from segue_local.errors import LocalStackError

_ROOT = Path("/sys/fs/cgroup")
_NEEDED = ("cpu", "cpuacct", "cpuset", "memory", "pids")
_NEEDED_V2 = ("cpu", "cpuset", "memory", "pids")
# The kubelet requires it where the machine has it.
_WELCOME_V2 = "hugetlb"
# The node has priority over all else on this machine. Otherwise the servers of all its pods together would get the
# share of one process, and starve beside running tests. One share is 1024 in v1 and 100 in v2.
_SHARE = {"cpu.shares": "16384", "cpu.weight": "1600"}
_GONE_WITHIN_S = 10.0


def hindrance() -> str | None:
    """Return why the kubelet cannot use this machine's control groups, or None when it can."""
    if _is_v2():
        missing = [name for name in _NEEDED_V2 if name not in _controllers_v2()]
    else:
        missing = [name for name in _NEEDED if not (_ROOT / name / "cgroup.procs").exists()]
    return f"a real node needs control groups below {_ROOT}; missing: {', '.join(missing)}" if missing else None


def create(name: str) -> None:
    """Create the node's group in every hierarchy. Raises ``LocalStackError``."""
    try:
        if _is_v2():
            wanted = [f"+{name}" for name in (*_NEEDED_V2, _WELCOME_V2) if name in _controllers_v2()]
            (_ROOT / "cgroup.subtree_control").write_text(" ".join(wanted))
        for hierarchy in _hierarchies():
            (hierarchy / name).mkdir(exist_ok=True)
            for file, share in _SHARE.items():
                if (hierarchy / name / file).exists():
                    (hierarchy / name / file).write_text(share)
        # A new v1 cpuset is empty, and no process can enter an empty one.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (_ROOT / "cpuset" / file).exists():
                (_ROOT / "cpuset" / name / file).write_text((_ROOT / "cpuset" / file).read_text())
    except OSError as error:
        raise LocalStackError(f"the control group {name} cannot be made: {error}") from error


def remove(name: str) -> bool:
    """Remove the group and all groups below it; return False when there was none.

    Its processes must be dead. Raises ``LocalStackError`` when a group stays busy.
    """
    groups = [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).is_dir()]
    deadline = time.monotonic() + _GONE_WITHIN_S
    for group in groups:
        for folder in [*_below(group), group]:
            _remove(folder, deadline)
    return bool(groups)


def _remove(folder: Path, deadline: float) -> None:
    """Remove a group; it can be busy for a moment after its last process has ended."""
    while True:
        try:
            with suppress(FileNotFoundError):
                folder.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise LocalStackError(f"the control group {folder} cannot be removed: {error}") from error
            time.sleep(0.02)
        else:
            return


def _below(group: Path) -> Iterator[Path]:
    """Yield all groups below one, the deepest first."""
    for child in group.iterdir():
        if child.is_dir():
            yield from _below(child)
            yield child


def _is_v2() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _controllers_v2() -> list[str]:
    return (_ROOT / "cgroup.controllers").read_text().split()


def _hierarchies() -> list[Path]:
    if _is_v2():
        return [_ROOT]
    return [folder for folder in _ROOT.glob("*") if (folder / "cgroup.procs").exists() and not folder.is_symlink()]
