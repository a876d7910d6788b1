"""Writes output: data to stdout, messages to stderr. In a pipe, it is plain and wide enough for any row.

Texts of pods, gates and other people may hold control characters, which could rewrite what a terminal shows: each is
left out. JSON escapes them.
"""

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import typer
from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from segue.observation import FOR_PEOPLE

PIPED_WIDTH = 200
READER_LEFT = 128 + signal.SIGPIPE
"""The exit code of shells for a command whose reader has closed the pipe: ``segue list | head -1``."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and line end."""


class _Console(Console):
    """A console on which only Segue itself sets colours and moves the cursor."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for each in super().render(renderable, options):
            yield each if each.control else Segment(_harmless(each.text), each.style)


def _harmless(text: str) -> str:
    return _CONTROL.sub("", text)  # a table measures them as nothing


def write_any_terminal() -> None:
    """Let a terminal or pipe without Unicode show ``?`` for a character that it does not have.

    Output that the caller has closed (``>&-``) goes nowhere.
    """
    sys.stdout, sys.stderr = (each or _nowhere() for each in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _nowhere() -> TextIO:
    """Return a stream that drops what is written; it is open until the process ends."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.devnull, "w")))


def say(text: str) -> None:
    """Print a message for a person to stderr; never data."""
    print(_harmless(text), file=sys.stderr, flush=True)


def show(what: RenderableType) -> None:
    """Print a table or a picture: in colour on a terminal, plain in a pipe."""
    if sys.stdout.isatty():
        stdout().print(what)
    else:
        lines = io.StringIO()
        _Console(file=lines, width=PIPED_WIDTH, highlight=False, markup=False, emoji=False).print(what)
        write("\n".join(line.rstrip() for line in lines.getvalue().splitlines()))


def width() -> int:
    """Return how many characters a line of stdout has room for."""
    return stdout().width if sys.stdout.isatty() else PIPED_WIDTH


def stdout() -> Console:
    """Return a console that writes to stdout."""
    return _Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def write(text: str) -> None:
    """Write a text, with a line end."""
    _put(_harmless(text))


def _put(text: str) -> None:
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(READER_LEFT) from None


def write_json(data: Any) -> None:
    """Write data as JSON; the keys of a model are its aliases, as Kubernetes writes names."""
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json", by_alias=True, context=FOR_PEOPLE)
    text = json.dumps(data, indent=2, ensure_ascii=False)  # it leaves those above ASCII as they are
    _put(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
