"""A wrong value anywhere in a spec is refused with a fix, whatever it is; nothing else is ever raised."""

import copy
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import as_spec, blocks

from segue.errors import Refused
from segue.files import parse
from segue.spec import named_profile, read_rollout

EXAMPLES = Path(__file__).parents[2] / "examples"
WRONG: list[Any] = [
    None, [], {}, "", "x", -1, 0, 1.5, True, 10**30, float("inf"), float("nan"), "x" * 5000, [1], {"a": 1}, {1: 2},
    {None: None}, "\0", "9" * 30 + "h", "200%", [[]], b"x", datetime.date(2026, 1, 1),
]  # fmt: skip
"""Values of each kind that YAML has; some of them are right at some places."""


def specs() -> list[Any]:
    """The specs of the examples and of the pages, as parameters."""
    files = [path for path in sorted(EXAMPLES.glob("*.yaml")) if "kind: Rollout" in path.read_text()]
    found = {path.name: parse(path.read_text(), path.name) for path in files}
    for block in blocks("yaml"):
        page = block.values[0]
        if not page.text.startswith("judge: "):
            found[f"{page.page}-{page.number}"] = as_spec(yaml.safe_load(page.text))
    return [pytest.param(document, id=name) for name, document in found.items() if document["kind"] == "Rollout"]


def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a document."""
    pairs = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return the document with another value at one place."""
    made = copy.deepcopy(document)
    part = made
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return made


@pytest.mark.parametrize("document", specs())
def test_each_wrong_value_is_refused_with_a_fix(document: dict[str, Any]) -> None:
    if named_profile(document):
        document = {**document, "spec": {k: v for k, v in document["spec"].items() if k != "profile"}}
    refusals = 0
    for path in places(document):
        for value in WRONG:
            changed = replaced(document, path, value)
            named_profile(changed)
            try:
                read_rollout(changed, "spec.yaml")
            except Refused as error:
                refusals += 1
                assert str(error).startswith("spec.yaml: ")
                assert all("; " in line for line in str(error).splitlines()), error
    assert refusals
