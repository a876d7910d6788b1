"""A real node for the local stack: containerd, kubelet and kube-proxy in a network namespace without a way out.

The control plane stays on the host, which has a route to the pods. Programs in the namespace can connect only to the
API server. Pods cannot open any connection, except those of admitted namespaces: to the API server and to Temporal.
Everything that the node creates outside the stack's folder (link, namespace, control groups) has one name, derived from
that folder, so it can be found without a record.
"""

from __future__ import annotations

from pathlib import Path

from segue_local.node import cgroups, network


def remove(stack_dir: Path) -> bool:
    """Remove what a stack's node left outside its folder, after all its processes are dead.

    Returns False when there was nothing. Raises ``LocalStackError``.
    """
    found = [network.remove(stack_dir), cgroups.remove(network.name_of(stack_dir))]
    return any(found)
