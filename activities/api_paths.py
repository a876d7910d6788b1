"""The paths of the Kubernetes API, and its parameters."""

from typing import Any
from urllib.parse import quote

_VERSIONS = {
    "api/v1": (
        "configmaps",
        "events",
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "pods",
        "resourcequotas",
        "services",
    ),
    "apis/apps/v1": ("controllerrevisions", "deployments", "replicasets", "statefulsets"),
    "apis/authorization.k8s.io/v1": (
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
        "subjectaccessreviews",
    ),
    "apis/autoscaling/v2": ("horizontalpodautoscalers",),
    "apis/batch/v1": ("jobs",),
    "apis/discovery.k8s.io/v1": ("endpointslices",),
    "apis/policy/v1": ("poddisruptionbudgets",),
    "apis/scheduling.k8s.io/v1": ("priorityclasses",),
}
BUILT_IN = {kind: version for version, kinds in _VERSIONS.items() for kind in kinds}
"""The API of each built-in kind that Segue knows."""
_OF_THE_CLUSTER = frozenset({"namespaces", "nodes"})


def is_custom(kind: str) -> bool:
    """Whether a kind is written with its group and version."""
    return "." in kind


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    """Return the path of the objects of a kind, or of one of them; without a namespace, those of the whole cluster.

    A kind is the plural name of a built-in one, such as ``deployments``, or ``PLURAL.GROUP/VERSION`` of a custom one. A
    part of an object follows the plural name: ``pods/status``.
    """
    plural, _, version = kind.partition(".")
    plural, _, part = plural.partition("/")
    api = f"apis/{version}" if version else BUILT_IN[plural]
    inside = ("namespaces", namespace) if namespace and plural not in _OF_THE_CLUSTER else ()
    return "".join(f"/{quote(each, safe=':')}" for each in (*api.split("/"), *inside, plural, name, part) if each)


def parameters(**given: Any) -> list[tuple[str, Any]]:
    """Return the parameters of a request by the API's names, such as ``limitBytes``, without those that are empty.

    One that is a word of Python ends with ``_`` here: ``continue_``.
    """
    return [(_camel(name), value) for name, value in given.items() if value or isinstance(value, int)]


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
