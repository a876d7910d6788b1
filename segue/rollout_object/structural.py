"""Turns pydantic's JSON Schema into the structural schema that a CRD needs."""

from typing import Any

Schema = dict[str, Any]

_KEPT = (
    "type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
)  # fmt: skip
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}


def structural(schema: Schema, *, partial: bool = False) -> Schema:
    """Return the structural schema of a model's JSON Schema.

    A default becomes part of the description: a default that the API server writes would look like the user's own
    field, and would override a profile. ``partial`` requires no field, for parts that a profile may complete.
    """
    definitions: Schema = schema.get("$defs", {})
    return _node(schema, definitions, partial=partial)


def _node(given: Schema, definitions: Schema, *, partial: bool) -> Schema:
    node = _resolved(given, definitions)
    choices = [_resolved(each, definitions) for each in node.get("anyOf") or node.get("oneOf") or ()]
    described = {"description": text} if (text := _description(node)) else {}
    if not choices:
        return {**described, **_plain(node, definitions, partial=partial)}
    real = [each for each in choices if each.get("type") != "null"]
    null = {"nullable": True} if len(real) < len(choices) else {}
    if len(real) == 1:
        return {**_node(real[0], definitions, partial=partial), **described, **null}
    return {**described, **_union(real, definitions, partial=partial), **null}


def _resolved(node: Schema, definitions: Schema) -> Schema:
    """Return a node with its reference replaced; what is beside the reference takes precedence."""
    if "$ref" not in node:
        return node
    found = definitions[node["$ref"].split("/")[-1]]
    return {**found, **{key: value for key, value in node.items() if key != "$ref"}}


def _description(node: Schema) -> str:
    text = str(node.get("description", "")).replace("``", "`")
    default = node.get("default")
    if default in (None, "", [], {}, False):
        return text
    return f"{text} Default: {_shown(default)}.".strip()


def _shown(default: Any) -> str:
    """Return a default as a spec writes it: pydantic's schema has ``PT30S`` for ``30s``."""
    text = str(default)
    return text.removeprefix("PT").lower() if text.startswith("PT") else text


def _union(choices: list[Schema], definitions: Schema, *, partial: bool) -> Schema:
    types = {each.get("type") for each in choices}
    if types == {"integer", "string"}:
        pattern = next((each["pattern"] for each in choices if "pattern" in each), None)
        return {"x-kubernetes-int-or-string": True, **({"pattern": pattern} if pattern else {})}
    if types == {"object"}:
        return _merged([_node(each, definitions, partial=True) for each in choices])
    return dict(_ANYTHING)


def _merged(objects: list[Schema]) -> Schema:
    """Return one object with the properties of all; a schema with alternatives is not structural."""
    found: Schema = {}
    for each in objects:
        for name, schema in each.get("properties", {}).items():
            known = found.get(name)
            found[name] = schema if known is None else _either(known, schema)
    return {"type": "object", "properties": found}


def _either(one: Schema, other: Schema) -> Schema:
    if "enum" in one and "enum" in other:
        return {**one, "enum": [*one["enum"], *(each for each in other["enum"] if each not in one["enum"])]}
    return one


def _plain(node: Schema, definitions: Schema, *, partial: bool) -> Schema:
    kind = node.get("type")
    if "const" in node:
        return {"type": "string", "enum": [node["const"]]}
    if kind is None:
        return dict(_ANYTHING)
    found = {key: node[key] for key in _KEPT if key in node}
    if "exclusiveMinimum" in node:  # a number there, a flag here
        found |= {"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}
    if kind == "array":
        found["items"] = _node(node["items"], definitions, partial=partial)
    elif kind == "object":
        found |= _object(node, definitions, partial=partial)
    return found


def _object(node: Schema, definitions: Schema, *, partial: bool) -> Schema:
    if "properties" in node:
        properties = {name: _node(each, definitions, partial=partial) for name, each in node["properties"].items()}
        required = [] if partial else node.get("required", [])
        return {"properties": properties, **({"required": required} if required else {})}
    values = [*node.get("patternProperties", {}).values()] or [node.get("additionalProperties")]
    if isinstance(values[0], dict):
        return {"additionalProperties": _node(values[0], definitions, partial=partial)}
    return dict(_ANYTHING)


def nullable(schema: Schema) -> Schema:
    """Return the schema of a part that a profile gives: null leaves out a field of the profile, at any depth."""
    found = {**schema, "nullable": True}
    if "properties" in schema:
        found["properties"] = {name: nullable(each) for name, each in schema["properties"].items()}
    if "items" in schema:
        items = schema["items"]
        found["items"] = {**items, **{k: v for k, v in nullable(items).items() if k == "properties"}}
    return found
