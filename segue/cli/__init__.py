"""The command line ``segue``: data goes to stdout, messages go to stderr; exit codes are ``segue.errors.Exit``."""

import logging
import os
import traceback
from collections.abc import Sequence

import typer

from segue.cli import builds, codec, install, judging, lint, operate, plans, see, steer
from segue.cli.app import app
from segue.cli.console import say, write_any_terminal
from segue.cli.usage import is_help, usage_error
from segue.errors import Exit, SegueError
from segue.leaving import leave

for _group in (plans, lint, see, steer, operate, codec, judging, install, builds):
    _group.register(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one message on stderr."""
    logging.getLogger().addHandler(logging.NullHandler())  # libraries' warnings belong in a worker's log
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="segue", standalone_mode=False)
        return code if isinstance(code, int) else Exit.COMPLETED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except typer.TyperException as error:
        return Exit.REFUSED if is_help(error) else _reported(str(usage_error(error)), Exit.REFUSED)
    except SegueError as error:
        return _reported(str(error), error.exit_code)
    except Exception as error:  # the outermost handler: a person gets a message for every error
        text = f"unexpected {type(error).__name__}: {error}; set SEGUE_DEBUG=1 to see the traceback"
        return _reported(text, Exit.UNEXPECTED)


def main() -> None:
    """Entry point of the console script."""
    write_any_terminal()
    leave(run())


def _reported(text: str, code: Exit) -> int:
    if os.environ.get("SEGUE_DEBUG"):
        traceback.print_exc()
    say(f"error: {text}")
    return int(code)
