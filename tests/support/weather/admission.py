"""An admission policy that rewrites the images of a target's pods, for as long as it exists."""

import contextlib
import json
from typing import Any

from kubernetes import client
from subjects import Subject

MIRROR = "mirror.local/"
_GROUP = ("admissionregistration.k8s.io", "v1")
_POLICIES, _BINDINGS = "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"
_REWRITES = f"""[JSONPatch{{op: "replace", path: "/spec/template/spec/containers/0/image",
    value: "{MIRROR}" + object.spec.template.spec.containers[0].image.replace("{MIRROR}", "")}}]"""


def rewrite_images(subject: Subject) -> None:
    """Create the policy, for this target only."""
    namespace, name = subject.lab.namespace, _name(subject)
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resourceNames": [subject.name],
            "resources": ["deployments", "statefulsets"]}  # fmt: skip
    constraints = {
        "resourceRules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }
    mutation = {"patchType": "JSONPatch", "jsonPatch": {"expression": _REWRITES}}
    policy = {"matchConstraints": constraints, "mutations": [mutation], "reinvocationPolicy": "Never"}
    _create(subject, _POLICIES, "MutatingAdmissionPolicy", policy)
    _create(subject, _BINDINGS, "MutatingAdmissionPolicyBinding", {"policyName": name})


def rewrite_no_more(subject: Subject) -> None:
    """Delete the policy."""
    for plural in (_BINDINGS, _POLICIES):
        with _is_allowed(404):
            subject.lab.custom.delete_cluster_custom_object(*_GROUP, plural, _name(subject))


def as_sent(settings: Any) -> Any:
    """Return settings with the images as they were before the policy rewrote them."""
    return json.loads(json.dumps(settings).replace(MIRROR, ""))


def _create(subject: Subject, plural: str, kind: str, spec: dict[str, Any]) -> None:
    body = {"apiVersion": "/".join(_GROUP), "kind": kind, "metadata": {"name": _name(subject)}, "spec": spec}
    with _is_allowed(409):
        subject.lab.custom.create_cluster_custom_object(*_GROUP, plural, body)


def _name(subject: Subject) -> str:
    return f"{subject.lab.namespace}-{subject.name}"


@contextlib.contextmanager
def _is_allowed(status: int) -> Any:
    """An earlier try, whose answer was lost, has done it."""
    try:
        yield
    except client.ApiException as error:
        if error.status != status:
            raise
