"""The code blocks of README and docs, and the whole spec that a block of YAML belongs to."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPEC: dict[str, Any] = {
    "target": {"kind": "Deployment", "namespace": "serving", "name": "chat"},
    "change": {"images": {"server": "example/chat:2"}},
}
METRIC = {"name": "m", "value": "x", "interval": "20s"}


class Block(NamedTuple):
    """A code block of a page."""

    page: str
    number: int
    text: str


def blocks(language: str) -> list[Any]:
    """All blocks in one language, as parameters."""
    found = []
    for page in PAGES:
        texts = [text for each, text in FENCED.findall(page.read_text()) if each == language]
        name = str(page.relative_to(ROOT))
        found += [pytest.param(Block(name, n, text), id=f"{name}-{n}") for n, text in enumerate(texts, 1)]
    return found


def as_spec(part: Any) -> dict[str, Any]:
    """The whole spec that a part belongs to: a ``spec``, or fields of it, or one level deeper."""
    if isinstance(part, list):
        return as_spec({"serving": {"checks": part}})
    if "kind" in part:
        return dict(part)
    part = part.get("spec", part)
    if "waypoints" in part:
        part = {"strategy": part}
    if "judge" in part:
        part = {"strategy": {"waypoints": [{"at": 1}]}, "metrics": [{**METRIC, **part}]}
    if part.keys() & {"gates", "metrics"} and "strategy" not in part:
        part = {"strategy": {"waypoints": [{"at": 1}]}, **part}
    return {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "x"}, "spec": {**SPEC, **part}}
