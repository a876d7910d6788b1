"""What the types of the Kubernetes client do not say: it takes manifests as dicts, and can return the server's JSON."""

import json
from collections.abc import Callable
from typing import Any

from kubernetes import client
from kubernetes import config as kubeconfig


def client_of(path: str) -> client.ApiClient:
    """Return a client of the API server that a kubeconfig names."""
    made: client.ApiClient = kubeconfig.new_client_from_config(path)  # type: ignore[no-untyped-call]
    return made


def create(call: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Create an object from a manifest, and return the answer: the client's methods name only their models."""
    return call(*given, **options)


def raw(read: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Return the answer of the API server as its JSON."""
    return json.loads(read(*given, **options, _preload_content=False).data)
