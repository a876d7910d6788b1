"""Configuration that a pod template refers to, as immutable copies that are named by their content and their target.

A ConfigMap that is changed in place reaches some pods and not others, and is not rolled back with the version. So a
change makes a new object under a new name, and the template refers to it. The old object stays for the rollback.
No two targets share a copy: it is deleted with its target.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from activities.cluster import Object
from segue.errors import Refused
from segue.spec import Change

COPY_OF = "segue.dev/copy-of"
"""The label of a copy; its value is the name in the spec."""
_DIGITS = 10
_SUFFIX = f"-[0-9a-f]{{{_DIGITS}}}"

Place = tuple[dict[str, Any], str]
"""A mapping of a template, and the key whose value names an object."""


def copies_of(change: Change, uid: str) -> dict[str, Object]:
    """Return the copies that a change of the target with this uid needs, by their names in the spec."""
    return {name: _copy(name, data, uid) for name, data in change.config_maps.items()}


def _copy(name: str, data: Mapping[str, str], uid: str) -> Object:
    digest = hashlib.sha256(json.dumps([uid, data], sort_keys=True).encode()).hexdigest()[:_DIGITS]
    metadata = {"name": f"{name}-{digest}", "labels": {COPY_OF: name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data), "immutable": True}


def owned_by(copy: Object, target: Object, *, controlled: bool = False) -> Object:
    """Return the copy with the target as its owner (or controller): Kubernetes deletes both together."""
    metadata = target["metadata"]
    owner = {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        **({"controller": True} if controlled else {}),
    }
    return {**copy, "metadata": {**copy["metadata"], "ownerReferences": [owner]}}


def owner_uid(found: Object) -> str | None:
    """Return the uid of an object's only owner. Returns None for no owner, or several."""
    owners = found["metadata"].get("ownerReferences", [])
    return str(owners[0]["uid"]) if len(owners) == 1 else None


def is_copy(name: str, of: str = "") -> bool:
    """Whether a ConfigMap has the name of a copy: of any, or of the one that the spec names ``of``."""
    return re.fullmatch(rf"{re.escape(of) or '.+'}{_SUFFIX}", name) is not None


def point(template: Object, change: Change, uid: str) -> None:
    """Make the template of the target with this uid refer to the copies and Secrets of a change, in place.

    Raises:
        Refused: for a name that the template does not refer to.
    """
    # All places are found before any is changed: the name that one gets may be a name to replace, too.
    renames: list[tuple[list[Place], str]] = []
    for name, copy in copies_of(change, uid).items():
        # The template may refer to the copy of an earlier change.
        called = re.compile(f"{re.escape(name)}({_SUFFIX})?")
        renames.append((_meant(_config_maps(template), called, f"configMaps.{name}"), copy["metadata"]["name"]))
    for name, other in change.secrets.items():
        renames.append((_meant(_secrets(template), re.compile(re.escape(name)), f"secrets.{name}"), other))
    for places, name in renames:
        for place, key in places:
            place[key] = name


def config_maps_of(template: Object) -> set[str]:
    """Return the names of all ConfigMaps that a template refers to."""
    return {str(place[key]) for place, key in _config_maps(template)}


def _meant(found: Iterable[Place], called: re.Pattern[str], field: str) -> list[Place]:
    """Return the places that name an object that is ``called`` so.

    Raises:
        Refused: if there is none.
    """
    places = list(found)
    meant = [(place, key) for place, key in places if called.fullmatch(place[key])]
    if not meant:
        known = ", ".join(sorted({str(place[key]) for place, key in places})) or "none (it refers to no such object)"
        raise Refused(
            "is not referred to by the target's pod template", field=f"spec.change.{field}", fix=f"use one of: {known}"
        )
    return meant


def _config_maps(template: Object) -> Iterator[Place]:
    yield from _references(template, "configMap", "name", "configMapRef", "configMapKeyRef")


def _secrets(template: Object) -> Iterator[Place]:
    yield from _references(template, "secret", "secretName", "secretRef", "secretKeyRef")
    # Kubernetes takes a pull secret without a name, as charts write one for an empty value.
    yield from ((each, "name") for each in template["spec"].get("imagePullSecrets", []) if each.get("name"))


def _references(template: Object, volume: str, name: str, whole: str, key: str) -> Iterator[Place]:
    """Yield each place of a template that names an object of one kind, as (mapping, key)."""
    spec = template["spec"]
    for each in spec.get("volumes", []):
        if volume in each:
            yield each[volume], name
        yield from ((s[volume], "name") for s in each.get("projected", {}).get("sources", []) if volume in s)
    for container in (*spec.get("initContainers", []), *spec.get("containers", [])):
        yield from ((e[whole], "name") for e in container.get("envFrom", []) if whole in e)
        variables = (e.get("valueFrom", {}) for e in container.get("env", []))
        yield from ((v[key], "name") for v in variables if key in v)
