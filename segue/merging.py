"""Merges plain objects: by JSON merge patches (RFC 7386), as custom resources are patched, and lists by name. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

Object = dict[str, Any]


def merged(value: Any, patch: Any) -> Any:
    """Return the value with a JSON merge patch (RFC 7386) applied."""
    if not isinstance(patch, dict):
        return patch
    base = value if isinstance(value, dict) else {}
    kept = {k: v for k, v in base.items() if k not in patch}
    return {**kept, **{k: merged(base.get(k), v) for k, v in patch.items() if v is not None}}


def merged_by_name(value: Any, patch: Any) -> Any:
    """Return the value after a strategic merge patch, as for pods: lists merge by ``name``, and null removes."""
    if isinstance(patch, list) and all(isinstance(item, dict) and "name" in item for item in patch):
        there = {item["name"]: item for item in value or []}
        return list({**there, **{i["name"]: merged_by_name(there.get(i["name"]), i) for i in patch}}.values())
    if not isinstance(patch, dict):
        return patch
    base = value if isinstance(value, dict) else {}
    kept = {k: v for k, v in base.items() if k not in patch}
    return {**kept, **{k: merged_by_name(base.get(k), v) for k, v in patch.items() if v is not None}}


def nested(path: Iterable[str], value: Any) -> Any:
    """Return nested objects with the value at this path."""
    for name in reversed(tuple(path)):
        value = {name: value}
    return value


def leaves(patch: Object, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each path that a JSON merge patch sets, with its value; a list is one value."""
    for name, value in patch.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def at(found: Any, path: Iterable[str]) -> Any:
    """Return the value at this path; None when one of its fields does not exist."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def difference(before: Object, after: Object) -> Object:
    """Return the JSON merge patch that turns ``before`` into ``after``."""
    patch: Object = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = difference(old, value)
            patch |= {name: inner} if inner else {}
        elif value != old:
            patch[name] = value
    return patch
