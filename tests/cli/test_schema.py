"""The published JSON Schema takes the examples, and refuses what the models refuse."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
Segue = Callable[..., Any]

_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def _fits(value: Any, schema: Any, root: Any) -> bool:
    """As much of JSON Schema as the models use."""
    if schema is True:
        return True
    if "$ref" in schema:
        return _fits(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema and not any(_fits(value, s, root) for s in schema["anyOf"]):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        return all(_fits(v, schema.get("items", True), root) for v in value)
    return not isinstance(value, dict) or _object_fits(value, schema, root)


def _object_fits(value: dict[str, Any], schema: Any, root: Any) -> bool:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    rest = schema.get("additionalProperties", True)
    for key, item in value.items():
        found = known.get(key) or next((s for p, s in patterns.items() if re.search(p, key)), rest)
        if found is False or not _fits(item, found, root):
            return False
    return set(schema.get("required", ())) <= set(value)


@pytest.fixture
def schema(segue: Segue) -> Any:
    """What ``segue schema`` prints."""
    ran = segue("schema")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_it_takes_every_example(schema: Any) -> None:
    """Each example file fits the schema."""
    found = [yaml.safe_load(p.read_text()) for p in sorted(EXAMPLES.glob("*.yaml")) if p.name != "deployment.yaml"]
    assert len(found) >= 4
    for document in found:
        assert _fits(document, schema, schema), document


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("onFailure", "onFailur", id="unknown field"),
        pytest.param("30s", "30", id="hold without unit"),
        pytest.param("25%", "'25'", id="percentage without sign"),
        pytest.param("rollback ", "panic ", id="unknown failure policy"),
        pytest.param("metadata: {name: chat}", "", id="missing metadata"),
        pytest.param("step: 2 ", "step: 0 ", id="step zero"),
    ],
)
def test_it_refuses_what_the_models_refuse(schema: Any, old: str, new: str) -> None:
    """An editor that uses the schema marks these before ``segue`` is run."""
    text = (EXAMPLES / "rollout.yaml").read_text()
    assert old in text
    assert not _fits(yaml.safe_load(text.replace(old, new)), schema, schema)


def test_it_says_which_dialect_it_is(schema: Any) -> None:
    """Editors need the dialect."""
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"]["spec"]
