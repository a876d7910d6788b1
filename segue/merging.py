"""Merges of plain objects: JSON merge patches (RFC 7386), which custom resources take, and lists by name. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

Object = dict[str, Any]


def merged(value: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    base = value if isinstance(value, dict) else {}
    kept = {k: v for k, v in base.items() if k not in patch}
    return {**kept, **{k: merged(base.get(k), v) for k, v in patch.items() if v is not None}}


def merged_by_name(value: Any, patch: Any) -> Any:
    """Apply a patch as a strategic merge does to pods: lists of what has a name are merged by it, null removes."""
    if isinstance(patch, list) and all(isinstance(item, dict) and "name" in item for item in patch):
        there = {item["name"]: item for item in value or []}
        return list({**there, **{i["name"]: merged_by_name(there.get(i["name"]), i) for i in patch}}.values())
    if not isinstance(patch, dict):
        return patch
    base = value if isinstance(value, dict) else {}
    kept = {k: v for k, v in base.items() if k not in patch}
    return {**kept, **{k: merged_by_name(base.get(k), v) for k, v in patch.items() if v is not None}}


def nested(path: Iterable[str], value: Any) -> Any:
    """Return a value below these fields."""
    for name in reversed(tuple(path)):
        value = {name: value}
    return value


def leaves(patch: Object, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what a JSON merge patch sets, each with its path: lists as a whole, as it replaces them."""
    for name, value in patch.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def at(found: Any, path: Iterable[str]) -> Any:
    """Return what stands below these fields; none where one of them is not there."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def difference(before: Object, after: Object) -> Object:
    """Return the JSON merge patch that makes the one the other."""
    patch: Object = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = difference(old, value)
            patch |= {name: inner} if inner else {}
        elif value != old:
            patch[name] = value
    return patch
