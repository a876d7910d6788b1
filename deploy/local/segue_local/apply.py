"""Applies manifests to a stack, for machines without kubectl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kubernetes import config, dynamic
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

from segue_local.errors import Refused

FIELD_MANAGER = "segue-local"


def apply(kubeconfig: Path, manifest: Path) -> list[str]:
    """Apply every document of a file by server-side apply; return the objects as ``kind/name``.

    Raises:
        Refused: for a file that cannot be read, or an object that the API server refuses.
    """
    documents = _read(manifest)
    client = dynamic.DynamicClient(config.new_client_from_config(str(kubeconfig)))  # type: ignore[no-untyped-call]
    return [_apply(client, document, manifest) for document in documents]


def _read(manifest: Path) -> list[dict[str, Any]]:
    try:
        documents = [d for d in yaml.safe_load_all(manifest.read_text()) if d is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused(f"{manifest} cannot be read: {error}") from error
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= document.keys():
            raise Refused(f"{manifest}: document {number} is not a Kubernetes object: add apiVersion, kind, metadata")
    return documents


def _apply(client: Any, document: dict[str, Any], manifest: Path) -> str:
    what = f"{document['kind'].lower()}/{document['metadata'].get('name', '?')}"
    namespace = document["metadata"].get("namespace", "default")
    try:
        resource = client.resources.get(api_version=document["apiVersion"], kind=document["kind"])
        client.server_side_apply(
            resource, document, namespace=namespace if resource.namespaced else None, field_manager=FIELD_MANAGER
        )
    except ResourceNotFoundError as error:
        raise Refused(f"{manifest}: {what}: the API server does not serve this kind ({error})") from error
    except DynamicApiError as error:
        raise Refused(f"{manifest}: {what}: {error.summary()}") from error  # type: ignore[no-untyped-call]
    return what
