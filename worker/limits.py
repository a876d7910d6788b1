"""How many rollouts a worker takes: one slot each while it is watched, as many as fit into its memory."""

import os
from pathlib import Path

from segue.errors import Refused

MIB = 2**20
BASE_MIB = 400
"""What a worker may take without rollouts: 243 MiB were measured, and watches of many pods take more."""
PER_ROLLOUT_MIB = 1
"""What a rollout may take, with its cached workflow; 0.24 MiB were measured (docs/scaling.md)."""
FEWEST, MOST = 50, 2_000
"""The bounds of the default. ``MOST`` is a choice, not a measured limit."""
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def slots_in(memory_mib: float) -> int:
    """Return how many slots fit into this much memory; at least ``FEWEST``, so that a small worker works too."""
    return max(FEWEST, int((memory_mib - BASE_MIB) / PER_ROLLOUT_MIB))


def slots(wanted: int | None, memory_mib: float) -> int:
    """Return the number of slots: the wanted one, or as many as fit into the memory, at most ``MOST``.

    Raises:
        Refused: when the wanted number does not fit.
    """
    fits = slots_in(memory_mib)
    if wanted is None:
        return min(fits, MOST)
    if wanted > fits:
        raise Refused(
            f"needs about {BASE_MIB + wanted * PER_ROLLOUT_MIB:,} MiB of memory, and this worker may use "
            f"{memory_mib:,.0f} MiB",
            field="SEGUE_MAX_CONCURRENT_ACTIVITIES",
            value=wanted,
            fix=f"set at most {fits}, unset it, or give the worker more memory",
        )
    return wanted


def memory_limit_mib() -> float:
    """Return how much memory this process may use: the limit of its container, or what the machine has."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in _LIMIT_FILES:
        file = Path(name)
        if file.is_file() and (text := file.read_text().strip()).isdecimal():
            limits.append(int(text))
    return min(limits) / MIB


def memory_used_mib() -> float:
    """Return the resident memory of this process; 0 where the system does not report it."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB if file.is_file() else 0.0
