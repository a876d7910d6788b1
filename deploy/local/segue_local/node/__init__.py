"""A real node for the local stack: containerd, kubelet and kube-proxy in a network namespace without a way out.

The control plane stays on the host, which has a route to the pods. What runs in the namespace reaches the API server
and begins nothing else; pods begin nothing at all. Everything that the node makes outside the stack's folder (link,
namespace, control groups) has one name that follows from that folder: it is found again with no record of it.
"""

from __future__ import annotations

from pathlib import Path

from segue_local.node import cgroups, network


def remove(stack_dir: Path) -> bool:
    """Remove what the node of a stack left outside its folder, once all its processes are dead.

    False when there was nothing. Raises ``LocalStackError``.
    """
    found = [network.remove(stack_dir), cgroups.remove(network.name_of(stack_dir))]
    return any(found)
