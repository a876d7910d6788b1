"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from segue_local.errors import LocalStackError

_LOWEST = 15000
_TRIES = 2000


def pick(names: Sequence[str], taken: Collection[int] = ()) -> dict[str, int]:
    """A free port for each name, none of them in ``taken``. Raises ``LocalStackError`` when there are none.

    They lie below the range that the kernel hands to outgoing connections: a server that is restarted must
    find its port as it left it.
    """
    highest = _ephemeral_start() - 1
    low = _LOWEST if highest > _LOWEST + 1000 else 1025
    chosen: dict[str, int] = {}
    for _ in range(_TRIES):
        if len(chosen) == len(names):
            return chosen
        port = random.randint(low, highest)  # noqa: S311 (no secret)
        if port not in taken and port not in chosen.values() and is_free(port):
            chosen[names[len(chosen)]] = port
    raise LocalStackError(f"fewer than {len(names)} ports are free on 127.0.0.1 between {low} and {highest}")


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As Go's servers do: connections of a server that ended must not hold its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _ephemeral_start() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
