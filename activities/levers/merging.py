"""JSON merge patches (RFC 7386): what custom resources take."""

from typing import Any

from activities.cluster import Object


def merged(value: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    base = value if isinstance(value, dict) else {}
    kept = {k: v for k, v in base.items() if k not in patch}
    return {**kept, **{k: merged(base.get(k), v) for k, v in patch.items() if v is not None}}


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
