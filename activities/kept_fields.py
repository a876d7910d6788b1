"""The fields that a watch keeps of each object: those that levers read of a watched object, and no others.

A pod of a cluster is 10 to 20 kB of JSON, most of it managed fields, environment and volumes. Kinds that are not named
here are targets and routes; they are kept whole, because levers compare their templates and read who wrote them.
"""

from collections.abc import Mapping
from typing import Any, Final

from activities.cluster import Object

Fields = Mapping[str, "Fields"]
"""Names of fields, each with what is kept below it; a list stands for each of its items."""

WHOLE: Final[Fields] = {}

_OWNED: Fields = {"name": WHOLE, "labels": WHOLE, "ownerReferences": {"controller": WHOLE, "uid": WHOLE}}
_TERMINATED: Fields = {"reason": WHOLE, "exitCode": WHOLE, "message": WHOLE}
_STATUS_OF_CONTAINER: Fields = {
    "name": WHOLE,
    "imageID": WHOLE,
    "restartCount": WHOLE,
    "ready": WHOLE,
    "state": {"waiting": {"reason": WHOLE, "message": WHOLE}, "terminated": _TERMINATED},
    "lastState": {"terminated": _TERMINATED},
}
_CONTAINER: Fields = {
    "name": WHOLE,
    "image": WHOLE,
    "ports": {"name": WHOLE, "containerPort": WHOLE},
    "resources": {"limits": {"memory": WHOLE}},
    "resizePolicy": {"restartPolicy": WHOLE},
}

KEPT: Final[Mapping[str, Fields]] = {
    "pods": {
        "metadata": {
            **_OWNED,
            "uid": WHOLE,
            "generateName": WHOLE,
            "generation": WHOLE,
            "ownerReferences": {"controller": WHOLE, "name": WHOLE, "uid": WHOLE},
            "annotations": {
                "controller.kubernetes.io/pod-deletion-cost": WHOLE,
                "leaderworkerset.sigs.k8s.io/size": WHOLE,
                "segue.dev/rollout": WHOLE,
            },
            "creationTimestamp": WHOLE,
            "deletionTimestamp": WHOLE,
            "deletionGracePeriodSeconds": WHOLE,
            "finalizers": WHOLE,
        },
        "spec": {
            "nodeName": WHOLE,
            "schedulingGates": {"name": WHOLE},
            "containers": _CONTAINER,
            "initContainers": {**_CONTAINER, "restartPolicy": WHOLE},
        },
        "status": {
            "phase": WHOLE,
            "reason": WHOLE,
            "message": WHOLE,
            "podIP": WHOLE,
            "startTime": WHOLE,
            "conditions": dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), WHOLE),
            "containerStatuses": _STATUS_OF_CONTAINER,
            "initContainerStatuses": _STATUS_OF_CONTAINER,
        },
    },
    "replicasets": {
        "metadata": {**_OWNED, "uid": WHOLE, "creationTimestamp": WHOLE},
        "spec": {"replicas": WHOLE, "template": WHOLE},
        "status": {
            "availableReplicas": WHOLE,
            "conditions": dict.fromkeys(("type", "status", "message", "lastTransitionTime"), WHOLE),
        },
    },
    "controllerrevisions": {
        "metadata": {**_OWNED, "annotations": {"segue.dev/baseline": WHOLE}},
        "revision": WHOLE,
        "data": WHOLE,
    },
}


def kept(kind: str, found: Object) -> Object:
    """Return an object with only the fields that are kept of its kind."""
    result: Object = _cut(found, KEPT.get(kind, WHOLE))
    return result


def _cut(value: Any, fields: Fields) -> Any:
    if not fields:
        return value
    if isinstance(value, list):
        return [_cut(each, fields) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: _cut(value[name], below) for name, below in fields.items() if name in value}
