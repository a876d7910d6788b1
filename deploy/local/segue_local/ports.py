"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from segue_local.errors import LocalStackError

_FIRST, _LOWEST, _ENOUGH = 1025, 15000, 1000
_SIGNED = 2**15
_TRIES = 2000


def pick(names: Sequence[str], taken: Collection[int] = ()) -> dict[str, int]:
    """Return a free port for each name, none of them in ``taken``. Raises ``LocalStackError`` when too few are free.

    The ports are below the range of outgoing connections, so that a restarted server finds its port free, unless that
    range leaves too few. They are below 32768: Temporal stores the ports of its members as signed numbers of 16 bits in
    PostgreSQL.
    """
    start = _ephemeral_start()
    highest = (min(start, _SIGNED) if start > _FIRST + _ENOUGH else _SIGNED) - 1
    low = _LOWEST if highest > _LOWEST + _ENOUGH else _FIRST
    chosen: dict[str, int] = {}
    for _ in range(_TRIES):
        if len(chosen) == len(names):
            return chosen
        port = random.randint(low, highest)  # noqa: S311 (no secret)
        if port not in taken and port not in chosen.values() and is_free(port):
            chosen[names[len(chosen)]] = port
    raise LocalStackError(f"fewer than {len(names)} ports are free on 127.0.0.1 between {low} and {highest}")


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port now."""
    with socket.socket() as probe:
        # As Go's servers do: connections of an ended server must not block its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _ephemeral_start() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
