"""What a process takes: its CPU seconds and its memory, as the kernel counts them."""

import os
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Taken(NamedTuple):
    """What a process has taken so far."""

    cpu_s: float
    """User and system time."""
    rss_mib: float
    """Resident memory now."""


def taken(pid: int) -> Taken:
    """Return what a running process has taken.

    Raises:
        FileNotFoundError: when it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, rss_pages = int(fields[11]), int(fields[12]), int(fields[21])
    return Taken((user + system) / _TICKS, rss_pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
