"""What a pod takes of its node that no other pod there may take: a host port, or the place beside its own kind.

A pod with a required anti-affinity to its own labels by host name allows one such pod on each node. Terms of other
namespaces, and those that differ for each version (``matchLabelKeys``), are left out: the room may be counted too high.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from activities.cluster import Object
from segue.selecting import selects

_ANY_ADDRESS = {"", "0.0.0.0"}  # noqa: S104 - it is compared, and nothing listens there
_HOSTNAME = "kubernetes.io/hostname"
_NARROWS = ("namespaces", "namespaceSelector", "matchLabelKeys", "mismatchLabelKeys")


def exclusive_of(spec: Object, labels: Mapping[str, str], namespace: str) -> tuple[str, ...]:
    """Return the names of what a pod takes, for a person. Equal names exclude each other on a node."""
    return tuple(sorted({*_ports(spec), *_places(spec, labels, namespace)}))


def is_exclusive(name: str) -> bool:
    """Whether it is such a name: no resource has a space in its name."""
    return " " in name


def _ports(spec: Object) -> Iterator[str]:
    sidecars = (each for each in spec.get("initContainers", []) if each.get("restartPolicy") == "Always")
    for container in (*spec.get("containers", []), *sidecars):
        for port in container.get("ports", []):
            # In the network of its node, each port is a host port. The API server writes that into pods, and not into
            # the templates of their controllers.
            taken = port.get("hostPort") or (spec.get("hostNetwork") and port["containerPort"])
            if taken and port.get("hostIP", "") in _ANY_ADDRESS:
                yield f"hostPort {taken}/{port.get('protocol', 'TCP')}"


def _places(spec: Object, labels: Mapping[str, str], namespace: str) -> Iterator[str]:
    rules = (spec.get("affinity") or {}).get("podAntiAffinity") or {}
    for term in rules.get("requiredDuringSchedulingIgnoredDuringExecution", []):
        is_own = term.get("topologyKey") == _HOSTNAME and not any(term.get(each) for each in _NARROWS)
        if is_own and selects(term.get("labelSelector"), labels):
            yield f"a place without another pod of {namespace} with {_shown(term['labelSelector'])} (podAntiAffinity)"


def _shown(selector: Mapping[str, Any]) -> str:
    equal = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    others = [json.dumps(each, sort_keys=True) for each in selector.get("matchExpressions", [])]
    return ",".join((*equal, *others)) or "any labels"
