"""A stand-in operator: it creates a Deployment of fake pods for each custom resource, and reports its status.

The resource's definition is real, the Deployment and its controller are real; only the operator is small.
"""

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import urllib3.exceptions
from kube_api import create
from kubernetes import client

if TYPE_CHECKING:
    from harness import Lab

Object = dict[str, Any]
RESYNC_S = 0.1
RUNTIME = ("serving.kserve.io", "v1alpha1", "servingruntimes")
RUNTIME_LABELS = {"modelmesh-service": "modelmesh-serving", "name": "modelmesh-serving-{name}"}
"""The labels that ModelMesh's operator puts on the pods of a ServingRuntime."""


def runtimes(lab: "Lab") -> "Operator":
    """Return an operator of ServingRuntimes, which runs while the lab is open."""
    define(lab, *RUNTIME, "ServingRuntime")
    operator = Operator(lab, *RUNTIME, RUNTIME_LABELS)
    if "operator" not in lab.tasks:  # one is enough: each polls the API server
        lab.tasks["operator"] = asyncio.create_task(operator.run())
    return operator


def define(lab: "Lab", group: str, version: str, plural: str, kind: str) -> None:
    """Define a kind of custom resource with any spec and a status subresource, once for each cluster."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    body = {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }
    with contextlib.suppress(client.ApiException):  # it exists
        create(client.ApiextensionsV1Api(lab.core.api_client).create_custom_resource_definition, body)


class Operator:
    """Rolls a Deployment from each resource of one kind."""

    def __init__(self, lab: "Lab", group: str, version: str, plural: str, labels: dict[str, str]) -> None:
        self._lab, self._labels = lab, labels
        self._api = client.CustomObjectsApi(lab.core.api_client)
        self._place = (group, version, lab.namespace, plural)
        self._kind = ""

    async def make(self, kind: str, name: str, spec: Object) -> None:
        """Create a resource, and wait until its Deployment serves."""
        body = {"apiVersion": "/".join(self._place[:2]), "kind": kind, "metadata": {"name": name}, "spec": spec}
        from harness import until

        await until("the kind to be served", lambda: self._created(body))
        await until(f"{name} to serve", lambda: self.is_ready(name))

    def _created(self, body: Object) -> bool:
        with contextlib.suppress(client.ApiException):
            self._api.create_namespaced_custom_object(*self._place, body)
            return True
        return False

    def get(self, name: str) -> Object:
        found: Any = self._api.get_namespaced_custom_object(*self._place, name)
        return {**found}

    def patch(self, name: str, patch: Object) -> None:
        """Change a resource as another writer."""
        self._api.patch_namespaced_custom_object(*self._place, name, patch, field_manager="a-person")

    def is_ready(self, name: str) -> bool:
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            with contextlib.suppress(client.ApiException, urllib3.exceptions.HTTPError):
                listed: Any = self._api.list_namespaced_custom_object(*self._place)
                for found in listed["items"]:
                    self._reconcile(found)
            await asyncio.sleep(RESYNC_S)

    def _reconcile(self, found: Object) -> None:
        name, wanted = found["metadata"]["name"], self._deployment(found)
        try:
            there = self._lab.raw(wanted["metadata"]["name"])
        except client.ApiException:
            create(self._lab.apps.create_namespaced_deployment, self._lab.namespace, wanted)
            return
        if _version(there) != _version(wanted):
            self._lab.patch(wanted["metadata"]["name"], {"spec": wanted["spec"]}, manager="operator")
            return
        status, replicas = there.get("status", {}), there["spec"]["replicas"]
        up = [status.get(f, 0) for f in ("updatedReplicas", "availableReplicas", "replicas")]
        seen = status.get("observedGeneration", 0) >= there["metadata"]["generation"]
        ready = {
            "type": "Ready",
            "status": str(seen and up == [replicas] * 3),
            "message": f"{up[1]} of {replicas} serve",
        }
        made = {"observedGeneration": found["metadata"]["generation"], "conditions": [ready]}
        if found.get("status") != made:
            self._api.patch_namespaced_custom_object_status(*self._place, name, {"status": made})

    def _deployment(self, found: Object) -> Object:
        name, spec = found["metadata"]["name"], found["spec"]
        labels = {key: value.format(name=name) for key, value in self._labels.items()}
        containers = json.loads(json.dumps(spec["containers"]))
        labels["app"] = name
        template = {
            "metadata": {
                "labels": {**labels, "segue.dev/fake": spec.get("mode", "ready")},
                "annotations": {"segue.dev/ready-after": spec.get("readyAfter", "300ms")},
            },
            "spec": {"containers": containers},
        }
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        return {
            "metadata": {"name": f"operated-{name}"},
            "spec": {
                "replicas": spec.get("replicas", 2),
                "selector": {"matchLabels": labels},
                "template": template,
                "strategy": rolling,
            },
        }


def _version(deployment: Object) -> Object:
    template = deployment["spec"]["template"]
    images = [c["image"] for c in template["spec"]["containers"]]
    return {"labels": template["metadata"]["labels"], "images": images}
