"""Ends a process that used Temporal's client."""

import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Flush all output, and end the process now with ``code``.

    The Temporal SDK's own threads may still hold Python objects while the interpreter shuts down. Now and then this
    ends in an abort ("PyGILState_Release") instead of the exit code, which a pipeline would read as a failure.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # The reader has closed the pipe: `segue list | head -1`.
            continue
    os._exit(code)
