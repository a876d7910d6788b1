"""An admission webhook that nobody serves, for what the worker writes."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from harness import Lab, until
from kube_api import client_of, create
from kubernetes import client

WORKER = "request.userInfo.username == 'segue-worker'"
CANNOT_ASK = "cannot ask an admission webhook"
LABELLED: dict[str, Any] = {"metadata": {"labels": {"probe": "yes"}}}
"""A patch that changes nothing that matters, to try whether the API server asks the webhook."""


@contextlib.asynccontextmanager
async def down(
    lab: Lab, resource: str, condition: str = "true", group: str = "apps", *, who: str = WORKER,
    operation: str = "UPDATE",
) -> AsyncIterator[None]:  # fmt: skip
    """Let the API server ask a webhook that nobody serves, for what the worker updates under a condition.

    ``who`` and ``operation`` are for what others do.
    """
    api, name = client.AdmissionregistrationV1Api(lab.core.api_client), f"{resource}-{lab.namespace}"
    hook = {
        "name": "nobody.example.org",
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": [operation], "resources": [resource]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
        "matchConditions": [{"name": "ours", "expression": f"{who} && {condition}"}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    create(api.create_validating_webhook_configuration, {"metadata": {"name": name}, "webhooks": [hook]})
    try:
        yield
    finally:
        api.delete_validating_webhook_configuration(name)


def as_worker(lab: Lab) -> client.ApiClient:
    return client_of(str(lab.stack.kubeconfig_for("segue-worker")))


async def in_force(attempt: Callable[[], Any], refusal: str = "failed calling webhook") -> None:
    """Wait until the API server asks the webhook, or refuses by another ``refusal``."""

    def fails() -> bool:
        try:
            attempt()
        except client.ApiException as error:
            return refusal in str(error.body)
        return False

    await until(f"the API server answers {refusal!r}", fails)
