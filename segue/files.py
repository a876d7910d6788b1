"""Reads spec files. Refuses what cannot be read, with the place and the fix."""

import sys
from pathlib import Path
from typing import Any

import yaml

from segue.errors import NotFound, Refused
from segue.spec import Rollout, read_rollout

MAX_BYTES = 262_144
"""More than any spec needs; Temporal accepts 2 MB in one message."""
MAX_RECORDED_BYTES = 33_554_432
"""More than ten thousand intervals of a histogram need."""
STDIN = "-"


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes accepts it: no duplicate keys, and no aliases, which can blow up a small file."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not supported; write the value out", problem_mark=mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                why = f"{key.value!r} is given twice; keep one"
                raise yaml.MarkedYAMLError(problem=why, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def read_spec(path: str) -> Rollout:
    """Read and validate one spec file (``-``: standard input).

    Raises:
        Refused: naming file, field, value and fix.
    """
    return read_rollout(read_document(path), _source(path))


def read_document(path: str) -> Any:
    """Read one YAML or JSON document (``-``: standard input).

    Raises:
        Refused: naming file, line and column.
    """
    return parse(_text(path), _source(path))


def read_recording(path: str) -> str:
    """Read the text of recorded series, which may be large.

    Raises:
        Refused: when the file cannot be read.
    """
    return _text(path, MAX_RECORDED_BYTES)


def _source(path: str) -> str:
    return "standard input" if path == STDIN else path


def parse(text: str, source: str) -> Any:
    """Parse the one YAML or JSON document in ``text``.

    Raises:
        Refused: naming line and column.
    """
    try:
        documents = [d for d in yaml.load_all(text, Loader=_Loader) if d is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Refused(_problem(error), field=f"{source}{_place(error)}") from error
    if not documents:
        raise Refused("is empty", field=source, fix="write a Rollout; `segue schema` describes it")
    if len(documents) > 1:
        raise Refused(
            f"holds {len(documents)} documents",
            field=source,
            fix="keep one Rollout per file, and remove the ---",
        )
    return documents[0]


def _text(path: str, most: int = MAX_BYTES) -> str:
    try:
        raw = sys.stdin.buffer.read(most + 1) if path == STDIN else _bytes(Path(path), most)
        if len(raw) > most:
            raise Refused(f"is over {most // 1024} KiB", field=path, fix="check the path: a spec is far smaller")
        return raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFound("does not exist", field=path, fix="check the path; examples/ has specs to start from") from error
    except UnicodeDecodeError as error:
        raise Refused(f"is not UTF-8 text (byte {error.start})", field=path, fix="save it as UTF-8") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refused(f"cannot be read: {why}", field=path, fix="give a readable file") from error


def _bytes(path: Path, most: int) -> bytes:
    if path.is_dir():
        raise Refused("is a directory", field=str(path), fix="give one file in it")
    with path.open("rb") as file:
        return file.read(most + 1)


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"does not parse: {problem}"
