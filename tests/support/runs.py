"""The names of stacks that end with the run of the tests: the run's process is part of them."""

import os

RUN = "SEGUE_TEST_RUN"
"""The environment variable that names the run to its processes."""


def stack_of_run(kind: str) -> str:
    """Return the name of the run's stack of this kind."""
    return f"segue-{kind}-{_run()}"


def ends_with_run(stack: str) -> bool:
    """Return whether a stack ends with the run, and with it all that is in its cluster."""
    return stack.startswith("segue-") and stack.endswith(f"-{_run()}")


def _run() -> str:
    return os.environ.get(RUN, str(os.getpid()))
