"""A real Temporal server and a real Kubernetes control plane, as plain processes on this machine.

There are no containers in it: the servers are built once from pinned Go modules, the nodes and pods
are played by KWOK, and everything else (API server, controllers, scheduler, etcd, Temporal) is the
real thing. ``Stack.up()`` starts it, ``Stack.down()`` leaves nothing behind.
"""

from segue_local.errors import (
    BuildFailed,
    GoMissing,
    GoTooOld,
    LocalStackError,
    PartFailed,
    Refused,
    StackNotRunning,
)
from segue_local.stack import PartStatus, Stack

__all__ = [
    "BuildFailed",
    "GoMissing",
    "GoTooOld",
    "LocalStackError",
    "PartFailed",
    "PartStatus",
    "Refused",
    "Stack",
    "StackNotRunning",
]
