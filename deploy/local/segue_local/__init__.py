"""A real Temporal server and a real Kubernetes control plane, as plain processes on this machine.

The servers are built once from pinned Go modules. KWOK simulates the nodes and pods; everything else (API
server, controllers, scheduler, etcd, Temporal) is real. Where the machine allows it, ``node=True`` adds a
real node that runs real containers. ``Stack.up()`` starts a stack, and ``Stack.down()`` leaves nothing behind.
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
from segue_local.node.handle import Node
from segue_local.node.machine import node_is_possible
from segue_local.stack import PartStatus, Stack
from segue_local.tied import tied_stack

__all__ = [
    "BuildFailed",
    "GoMissing",
    "GoTooOld",
    "LocalStackError",
    "Node",
    "PartFailed",
    "PartStatus",
    "Refused",
    "Stack",
    "StackNotRunning",
    "node_is_possible",
    "tied_stack",
]
