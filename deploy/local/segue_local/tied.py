"""A stack that ends with the process that started it, however that process ends.

A guard waits for the end of a pipe that only this process holds open. The kernel closes it even after SIGKILL.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from segue_local.stack import Stack

_REMOVED_WITHIN_S = 120.0


@contextmanager
def tied_stack(
    name: str,
    *,
    fake_nodes: int | None = None,
    node: bool = False,
    node_resources: Mapping[str, str] | None = None,
    feature_gates: Mapping[str, bool] | None = None,
    lws: bool = False,
    kserve: bool = False,
    prometheus: bool = False,
    postgres: bool = False,
    admits: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> Iterator[Stack]:
    """Start a stack as ``Stack.up`` does, and remove it at the end of the block or of this process.

    All processes that carry its mark end with it, see ``Stack.mark``.
    """
    guard = subprocess.Popen(
        [sys.executable, "-m", "segue_local.guard", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # In its own session, so that a ^C does not end it.
        start_new_session=True,
    )
    try:
        yield Stack.up(
            name,
            fake_nodes=fake_nodes,
            node=node,
            node_resources=node_resources,
            feature_gates=feature_gates,
            lws=lws,
            kserve=kserve,
            prometheus=prometheus,
            postgres=postgres,
            admits=admits,
            on_progress=on_progress,
        )
    finally:
        Stack.remove(name)
        guard.communicate(timeout=_REMOVED_WITHIN_S)
