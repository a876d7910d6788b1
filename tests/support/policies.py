"""Admission policies for one namespace, while a test needs them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from harness import Lab


@asynccontextmanager
async def admission(lab: Lab, kind: str, name: str, spec: dict[str, Any], **binding: Any) -> AsyncIterator[None]:
    """An admission policy of a kind (Mutating, Validating), and its binding, for this lab's namespace only."""
    group, called = ("admissionregistration.k8s.io", "v1"), f"{lab.namespace}-{name}"
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}}
    specs = {
        f"{kind}AdmissionPolicy": {**spec, "matchConstraints": {**spec["matchConstraints"], **selector}},
        f"{kind}AdmissionPolicyBinding": {"policyName": called, **binding},
    }
    plurals = [f"{kind.lower()}admissionpolicies", f"{kind.lower()}admissionpolicybindings"]
    for plural, (each, given) in zip(plurals, specs.items(), strict=True):
        body = {"apiVersion": "/".join(group), "kind": each, "metadata": {"name": called}, "spec": given}
        lab.custom.create_cluster_custom_object(*group, plural, body)
    try:
        yield
    finally:
        for plural in reversed(plurals):
            lab.custom.delete_cluster_custom_object(*group, plural, called)


def rewriting(
    expression: str, *resources: str, group: str = "apps", operation: str = "UPDATE", **rule: Any
) -> dict[str, Any]:
    """Return the spec of a policy that changes what is written by JSON patches."""
    matched = {"apiGroups": [group], "apiVersions": ["v1"], "operations": [operation], "resources": [*resources]}
    return {
        "matchConstraints": {"resourceRules": [{**matched, **rule}]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        "reinvocationPolicy": "Never",
    }
