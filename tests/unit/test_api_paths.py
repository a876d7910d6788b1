"""The paths and parameters of requests to the Kubernetes API."""

import pytest

from activities.api_paths import is_custom, parameters, path_of


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        ("pods", "", "", "/api/v1/pods"),
        ("pods", "ml", "", "/api/v1/namespaces/ml/pods"),
        ("pods/status", "ml", "chat-0", "/api/v1/namespaces/ml/pods/chat-0/status"),
        ("pods/proxy", "ml", "chat-0:8080", "/api/v1/namespaces/ml/pods/chat-0:8080/proxy"),
        ("namespaces", "ml", "ml", "/api/v1/namespaces/ml"),
        ("nodes", "", "", "/api/v1/nodes"),
        ("deployments", "ml", "chat", "/apis/apps/v1/namespaces/ml/deployments/chat"),
        ("endpointslices", "ml", "", "/apis/discovery.k8s.io/v1/namespaces/ml/endpointslices"),
        ("rollouts.segue.dev/v1alpha1", "", "", "/apis/segue.dev/v1alpha1/rollouts"),
        (
            "inferenceservices.serving.kserve.io/v1beta1", "ml", "llama",
            "/apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices/llama",
        ),
        ("pods", "ml", "../secrets", "/api/v1/namespaces/ml/pods/..%2Fsecrets"),
    ],
)  # fmt: skip
def test_a_path_names_an_object_or_all_of_a_kind(kind: str, namespace: str, name: str, path: str) -> None:
    """Built-in kinds, custom ones, parts of an object, and names that are no names."""
    assert path_of(kind, namespace, name) == path
    assert is_custom(kind) == ("." in kind)


def test_parameters_have_the_names_of_the_api() -> None:
    """What is empty is not sent; a number or a flag is."""
    given = parameters(label_selector="", field_selector=None, limit=5, watch=True, previous=False, dry_run="All")
    assert given == [("limit", 5), ("watch", True), ("previous", False), ("dryRun", "All")]
    assert parameters(continue_="abc") == [("continue", "abc")]
