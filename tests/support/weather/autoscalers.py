"""An autoscaler of a rollout's target, with bounds that the rollout holds and gives back."""

from collections.abc import Iterator
from typing import Any

from kube_api import create
from kubernetes import client
from subjects import Subject

LEAST, MOST = 1, 60
"""They change nothing: without metrics, its controller only brings the replicas within its bounds."""


def autoscale(subject: Subject) -> None:
    """Create an autoscaler of the target."""
    aim = {"apiVersion": "apps/v1", "kind": subject.kind, "name": subject.name}
    spec = {"scaleTargetRef": aim, "minReplicas": LEAST, "maxReplicas": MOST}
    body = {"metadata": {"name": subject.name}, "spec": spec}
    create(_scalers(subject).create_namespaced_horizontal_pod_autoscaler, subject.lab.namespace, body)


def changed_autoscalers(subject: Subject) -> Iterator[str]:
    """Yield what is not as it was before the rollout."""
    found: list[Any] = _scalers(subject).list_namespaced_horizontal_pod_autoscaler(subject.lab.namespace).items
    for each in found:
        bounds, notes = (each.spec.min_replicas, each.spec.max_replicas), sorted(each.metadata.annotations or {})
        if each.metadata.name == subject.name and (bounds != (LEAST, MOST) or notes):
            yield f"the autoscaler at {bounds} with annotations {notes}"


def _scalers(subject: Subject) -> client.AutoscalingV2Api:
    return client.AutoscalingV2Api(subject.lab.core.api_client)
