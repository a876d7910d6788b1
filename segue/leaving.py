"""How a process that used Temporal's client ends."""

import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End now with ``code``, after everything written is flushed.

    The Temporal SDK's own threads may still hold Python objects while the interpreter is torn down, which now and then
    ends in an abort ("PyGILState_Release") instead of the exit code; a pipeline would read that as a failure.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more: `segue list | head -1`.
            continue
    os._exit(code)
