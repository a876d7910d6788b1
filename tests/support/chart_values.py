"""Writes the table of values in the chart's README from the comments in its values.yaml."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from helm import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
_LINE = re.compile(r"^( *)(?:# ?(.*)|(?!- )([\w]+):.*)$")
_DESCRIBES = "-- "


class Value(NamedTuple):
    """A value with a description of its own."""

    path: tuple[str, ...]
    description: str


def described(text: str) -> Iterator[Value]:
    """Yield each key that has a description directly above it."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        indent, message, key = found.groups() if found else ("", None, None)
        if message is not None and (comment or message.startswith(_DESCRIBES)):
            comment.append(message.removeprefix(_DESCRIBES))
            continue
        if key is not None:
            path = [*path[: len(indent) // 2], key]
            if comment:
                yield Value(tuple(path), " ".join(comment))
        comment = []


def leaves(values: Any, known: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each value that neither has a description nor belongs to one that has."""
    if path in known:
        return
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, known, (*path, key))
    else:
        yield path


def table() -> str:
    """Return the table, in the order of the file."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, description in described(text):
        default = values
        for key in path:
            default = default[key]
        shown = "–" if default == "" else f"`{json.dumps(default) if not isinstance(default, str) else default}`"
        rows.append(f"| `{'.'.join(path)}` | {shown} | {description.replace('|', '&#124;')} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """Return the page with the table between its marks."""
    before, after = page[: page.index(BEGIN)], page[page.index(END) :]
    return f"{before}{BEGIN}\n{table()}\n{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
