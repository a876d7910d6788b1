"""Runs a worker or a controller: its settings, logs and telemetry, and its exit code."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from segue.errors import Exit, SegueError
from worker.settings import Settings, load_settings
from worker.telemetry import flush_telemetry, set_up_logs, set_up_telemetry


def run(serve: Callable[[Settings], Coroutine[Any, Any, None]], check: Callable[[], None]) -> int:
    """Run ``serve`` until it ends, and return the exit code of the process; ``check`` may refuse to begin."""
    try:
        check()
        settings = load_settings()
        set_up_logs(settings)
        set_up_telemetry(settings)
        asyncio.run(serve(settings))
    except SegueError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    finally:
        flush_telemetry()
    return int(Exit.COMPLETED)
