"""Pod templates: their fingerprint, a change applied to one, and what differs between two."""

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from activities.cluster import Object
from activities.levers.configs import point
from segue.errors import Refused
from segue.observation import Version
from segue.spec import Change
from segue.spec.container import EnvFrom, Resources
from segue.stopping import Hook, Stopping

HASH_LABEL = "pod-template-hash"
BY_CONTAINER = ("images", "env", "args", "resources")
"""The fields of a change that name containers."""

_known: ContextVar[dict[int, tuple[Object, str]] | None] = ContextVar("known", default=None)
"""The fingerprint of each template, by its identity. The entry keeps the template, so no other gets its identity."""


@contextmanager
def fingerprinting_once() -> Iterator[None]:
    """Compute the fingerprint of each template at most once in a block that changes no template."""
    known = _known.get()
    token = _known.set({} if known is None else known)
    try:
        yield
    finally:
        _known.reset(token)


def fingerprint(template: Object) -> str:
    """Return a hash of a pod template: the same for a Deployment's and its ReplicaSet's.

    The API server has set every default in both; only the controller's own label differs.
    """
    known = _known.get()
    if known is None:
        return _fingerprint(template)
    if id(template) not in known:
        known[id(template)] = template, _fingerprint(template)
    return known[id(template)][1]


def _fingerprint(template: Object) -> str:
    if "metadata" not in template:
        return digest(template)
    metadata = {name: value for name, value in template["metadata"].items() if name != "creationTimestamp"}
    if metadata.get("labels"):
        metadata["labels"] = {name: value for name, value in metadata["labels"].items() if name != HASH_LABEL}
    return digest({**template, "metadata": metadata})


def digest(value: Object) -> str:
    """Return a short hash of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def version_of(template: Object) -> Version:
    """Return the version of a template."""
    images, more = (
        {c["name"]: c.get("image", "") for c in template["spec"].get(kind, [])}
        for kind in ("containers", "initContainers")
    )
    return Version(template=fingerprint(template), images=images, more_images=more)


def containers_of(template: Object) -> frozenset[str]:
    """Return the names of all containers, init containers too; of both templates of a group."""
    spec = template.get("spec", {})
    specs = [spec, *(spec[name]["spec"] for name in ("leaderTemplate", "workerTemplate") if name in spec)]
    found = (c for each in specs for kind in ("containers", "initContainers") for c in each.get(kind, []))
    return frozenset(c["name"] for c in found)


def sidecars_of(spec: Object) -> list[Object]:
    """Return the init containers that run as long as the pod."""
    return [c for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]


def refuse_patch_elsewhere(start: Object, present: Object) -> None:
    """Refuse a patch, which the API server merges onto the ``present`` template, if it is for another one.

    Raises:
        Refused: naming how to end the rollout that holds the target.
    """
    if fingerprint(start) != fingerprint(present):
        raise Refused(
            "can only be applied while the target runs its baseline",
            field="spec.change.patch",
            fix="first end the rollout that holds the target: `segue abort`, or `segue release` if its workflow was "
            "terminated; then start with the new patch",
        )


def at_revision(change: Change, templates: Mapping[str, Object]) -> Object:
    """Return the template of the revision that a change names; ``templates`` are those that the controller keeps.

    Raises:
        Refused: for a revision that it does not keep.
    """
    found = templates.get(str(change.revision))
    if found is None:
        known = ", ".join(sorted(templates, key=int))
        raise Refused(
            "is not a revision of the target", field="spec.change.revision", value=change.revision,
            fix=f"use one of: {known} (see `segue history`)",
        )  # fmt: skip
    return copy.deepcopy(found)


def apply_change(template: Object, change: Change, uid: str) -> Object:
    """Return a copy of ``template``, which is of the target with this uid, with the named changes made.

    Raises:
        Refused: when the change names a container that the template does not have.
    """
    changed = copy.deepcopy(template)
    containers = {c["name"]: c for kind in ("initContainers", "containers") for c in changed["spec"].get(kind, [])}
    refuse_unknown_containers(change, containers.keys())
    for name, container in containers.items():
        _change_container(container, name, change)
    point(changed, change, uid)
    if change.annotations:
        metadata = changed.setdefault("metadata", {})
        metadata["annotations"] = _overlaid(metadata.get("annotations", {}), change.annotations)
    return changed


def refuse_unknown_containers(change: Change, known: Set[str]) -> None:
    """Refuse a change of a container that the target does not have.

    Raises:
        Refused: with the names that it has.
    """
    for name in sorted(change.containers - known):
        field = next(f for f in BY_CONTAINER if name in getattr(change, f))
        names = ", ".join(sorted(known))
        raise Refused(
            "is not a container of the target", field=f"spec.change.{field}", value=name, fix=f"use one of: {names}"
        )


def _change_container(container: Object, name: str, change: Change) -> None:
    if name in change.images:
        container["image"] = change.images[name]
    if name in change.args:
        container["args"] = list(change.args[name])
    if name in change.env:
        container["env"] = _changed_env(container.get("env", []), change.env[name])
    if name in change.resources:
        container["resources"] = _changed_resources(container.get("resources", {}), change.resources[name])


def _changed_env(env: list[Object], changes: dict[str, str | EnvFrom | None]) -> list[Object]:
    """Change variables in place (later ones can refer to earlier ones); append new ones."""
    wanted = {name: _variable(name, value) for name, value in changes.items()}
    kept = [wanted.get(e["name"], e) for e in env]
    known = {e["name"] for e in env}
    return [e for e in (*kept, *(v for n, v in wanted.items() if n not in known)) if e is not None]


def _variable(name: str, value: str | EnvFrom | None) -> Object | None:
    if value is None:
        return None
    if isinstance(value, str):
        return {"name": name, "value": value}
    return {"name": name, **value.model_dump(exclude_none=True)}


def _changed_resources(resources: Object, change: Resources) -> Object:
    merged = {**resources}
    for kind in ("requests", "limits"):
        changed: dict[str, str] = getattr(change, kind)
        if changed:
            merged[kind] = {**resources.get(kind, {}), **changed}
    return merged


def _overlaid(old: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    return {k: v for k, v in {**old, **changes}.items() if v is not None}


def stopping_of(template: Object) -> Stopping:
    """Return how the serving containers of a template stop."""
    spec = template["spec"]
    containers = spec.get("containers", [])
    serving = [c for c in containers if c.get("ports")] or containers
    return Stopping(grace_s=spec.get("terminationGracePeriodSeconds", 30), hooks=tuple(_hook(c) for c in serving))


def _hook(container: Object) -> Hook:
    pre_stop = container.get("lifecycle", {}).get("preStop")
    return Hook(container=container["name"], has_pre_stop=bool(pre_stop), sleep_s=_sleep_s(pre_stop or {}))


def _sleep_s(pre_stop: Object) -> float | None:
    if "sleep" in pre_stop:
        return float(pre_stop["sleep"].get("seconds", 0))
    command = " ".join(pre_stop.get("exec", {}).get("command", []))
    found = re.fullmatch(r"(?:(?:/bin/)?(?:ba)?sh -c )?(?:exec )?(?:/bin/)?sleep (\d+(?:\.\d+)?)s?", command)
    return float(found[1]) if found else None


def differences(before: Object, after: Object) -> list[str]:
    """Return up to five fields that differ, images with their values: ``containers[server].image a → b``."""
    found = list(differing(before.get("spec", {}), after.get("spec", {}), "spec"))
    found += list(differing(_bare(before), _bare(after), "metadata"))
    return found[:5] + ([f"and {len(found) - 5} more"] if len(found) > 5 else [])


def _bare(template: Object) -> Object:
    metadata = template.get("metadata", {})
    labels = {k: v for k, v in metadata.get("labels", {}).items() if k != HASH_LABEL}
    return {"labels": labels, "annotations": metadata.get("annotations", {})}


def differing(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield the paths of fields that differ, images with their values."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differing(before.get(key), after.get(key), f"{path}.{key}")
    elif _named(before) and _named(after):
        old, new = ({item["name"]: item for item in items} for items in (before, after))
        for name in sorted(old.keys() | new.keys()):
            yield from differing(old.get(name), new.get(name), f"{path}[{name}]")
    elif path.endswith(".image"):
        yield f"{path} {before} → {after}"
    else:
        yield path  # values may be secrets: only images are shown


def _named(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(isinstance(i, dict) and "name" in i for i in items)
