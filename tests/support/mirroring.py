"""An admission policy that rewrites the images of what is written, as clusters with a mirror registry have it."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from harness import GROUPS, Lab, until
from kube_api import create, raw
from kubernetes import client


class Kinds(NamedTuple):
    """What a policy rewrites: resources of a group, and where their pod template is."""

    group: str
    resources: tuple[str, ...]
    template: str
    shows: Callable[[Lab], str]
    """Return the image that the API server would store, by a dry run."""


def _tried(lab: Lab) -> str:
    container = {"name": "server", "image": "example/chat:1"}
    labels = {"app": "probe"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    body: dict[str, Any] = {
        "metadata": {"name": "probe"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
    made = raw(lab.apps.create_namespaced_deployment, lab.namespace, body, dry_run="All")
    return str(made["spec"]["template"]["spec"]["containers"][0]["image"])


def _tried_groups(lab: Lab) -> str:
    group, version, plural = GROUPS
    found: Any = lab.custom.patch_namespaced_custom_object(
        group, version, lab.namespace, plural, "good", {"metadata": {"labels": {"probe": "yes"}}}, dry_run="All"
    )
    return str(found["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]["containers"][0]["image"])


PLAIN = Kinds("apps", ("deployments", "statefulsets"), "template", _tried)
OF_GROUPS = Kinds(GROUPS[0], (GROUPS[2],), "leaderWorkerTemplate.leaderTemplate", _tried_groups)


@contextlib.asynccontextmanager
async def mirrored(lab: Lab, kinds: Kinds = PLAIN) -> AsyncIterator[None]:
    """Rewrite the images of this namespace's targets at each write; wait until the API server does so."""
    api, name = client.AdmissionregistrationV1Api(lab.core.api_client), f"mirror-{lab.namespace}"
    path = f"/spec/{kinds.template.replace('.', '/')}/spec/containers/0/image"
    image = f"object.spec.{kinds.template}.spec.containers[0].image"
    mirror = f'{image}.startsWith("mirror.local/") ? {image} : "mirror.local/" + {image}'
    patch = f'[JSONPatch{{op: "replace", path: "{path}", value: {mirror}}}]'
    rule = {"apiGroups": [kinds.group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
            "resourceRules": [{**rule, "resources": list(kinds.resources)}],
        },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    create(api.create_mutating_admission_policy, {"metadata": {"name": name}, "spec": spec})
    create(api.create_mutating_admission_policy_binding, {"metadata": {"name": name}, "spec": {"policyName": name}})
    try:
        await until("the policy to change what is written", lambda: kinds.shows(lab).startswith("mirror.local/"))
        yield
    finally:
        api.delete_mutating_admission_policy_binding(name)
        api.delete_mutating_admission_policy(name)
