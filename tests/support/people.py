"""People who steer Rollout objects by the rights that Kubernetes gives them."""

import json
from typing import Any

from harness import Lab
from kube_api import client_of, create
from kubernetes import client
from kubernetes.client import ApiException

API = ("segue.dev", "v1alpha1")


class Person:
    """A user of the API server with these verbs on rollouts in a lab's namespace, and no other right."""

    def __init__(self, lab: Lab, name: str, verbs: list[str]) -> None:
        self.name, self.namespace = name, lab.namespace
        rules = [{"apiGroups": ["segue.dev"], "resources": ["rollouts"], "verbs": verbs}]
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
        metadata = {"metadata": {"name": name}}
        binding = {**metadata, "roleRef": role, "subjects": [subject]}
        create(lab._rbac.create_namespaced_role, lab.namespace, {**metadata, "rules": rules})
        create(lab._rbac.create_namespaced_role_binding, lab.namespace, binding)
        api = client_of(str(lab.stack.kubeconfig_for(name)))
        self.custom, self.apps = client.CustomObjectsApi(api), client.AppsV1Api(api)

    def annotate(self, rollout: str, *, dry_run: bool = False, **notes: str) -> dict[str, Any]:
        """Write annotations of Segue: ``approve_by`` is ``segue.dev/approve-by``."""
        written = {f"segue.dev/{name.replace('_', '-')}": value for name, value in notes.items()}
        return self.patch(rollout, {"metadata": {"annotations": written}}, dry_run="All" if dry_run else None)

    def patch(self, rollout: str, patch: dict[str, Any], dry_run: str | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {} if dry_run is None else {"dry_run": dry_run}
        patched: Any = self.custom.patch_namespaced_custom_object(
            *API, self.namespace, "rollouts", rollout, patch, **options
        )
        return {**patched}


def refusal(call: Any, *given: Any, **named: Any) -> str:
    """Return why the API server refuses a call; empty if it does not."""
    try:
        call(*given, **named)
    except ApiException as error:
        assert error.status in {403, 422}, error
        return str(json.loads(error.body or "")["message"])
    return ""
