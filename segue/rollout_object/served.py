"""Compares a kind that an API server serves with this release's definition of it. Pure.

Helm installs definitions with the first release of a chart, and never upgrades them.
"""

from collections.abc import Iterator, Mapping

from segue.rollout_object.crd import Definition, definition
from segue.rollout_object.structural import Schema

SHOWN = 3
"""So many of the missing fields are named."""


def outdated(served: Mapping[str, Schema]) -> list[str]:
    """Return what the served kinds lack, one line for each kind; ``served`` are their OpenAPI schemas, by kind."""
    return [text for name in Definition if (text := _outdated(name, served))]


def _outdated(name: Definition, served: Mapping[str, Schema]) -> str:
    wanted = definition(name)["spec"]
    kind = wanted["names"]["kind"]
    if kind not in served:
        return f"{kind} is not served"
    missing = [*_missing(wanted["versions"][0]["schema"]["openAPIV3Schema"], served[kind], "")]
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return f"{kind} lacks {', '.join(missing[:SHOWN])}{more}" if missing else ""


def _missing(wanted: Schema, served: Schema, path: str) -> Iterator[str]:
    """Yield the path of each field and of each choice that the served schema does not accept."""
    if served.get("x-kubernetes-preserve-unknown-fields"):
        return
    for choice in wanted.get("enum", ()):
        if choice not in served.get("enum", (choice,)):
            yield f"{path}: {choice}"
    for name, schema in wanted.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        known = served.get("properties", {}).get(name)
        if known is None:
            yield place
        else:
            yield from _missing(schema, known, place)
    for inner in ("items", "additionalProperties"):
        if inner in wanted:
            yield from _missing(wanted[inner], served.get(inner, {}), path)
