"""Writes output: data to stdout, messages to stderr. In a pipe, it is plain and wide enough for any row."""

import io
import json
import signal
import sys
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType

PIPED_WIDTH = 200
READER_LEFT = 128 + signal.SIGPIPE
"""The exit code of shells for a command whose reader has closed the pipe: ``segue list | head -1``."""


def write_any_terminal() -> None:
    """Let a terminal or pipe without Unicode show ``?`` for a character that it does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    """Print a message for a person to stderr; never data."""
    print(text, file=sys.stderr, flush=True)


def show(what: RenderableType) -> None:
    """Print a table or a picture: in colour on a terminal, plain in a pipe."""
    if sys.stdout.isatty():
        stdout().print(what)
    else:
        lines = io.StringIO()
        Console(file=lines, width=PIPED_WIDTH, highlight=False, markup=False).print(what)
        write("\n".join(line.rstrip() for line in lines.getvalue().splitlines()))


def width() -> int:
    """Return how many characters a line of stdout has room for."""
    return stdout().width if sys.stdout.isatty() else PIPED_WIDTH


def stdout() -> Console:
    """Return a console that writes to stdout."""
    return Console(file=sys.stdout, highlight=False, markup=False)


def write(text: str) -> None:
    """Write data unchanged, with a line end."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(READER_LEFT) from None


def write_json(data: Any) -> None:
    """Write data as JSON; the keys of a model are its aliases."""
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json", by_alias=True)
    write(json.dumps(data, indent=2, ensure_ascii=False))
