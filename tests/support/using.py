"""Which tests may use a shared stack at the same time: all of them, or one alone that stops a part of it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def using(folder: Path, *, alone: bool) -> Iterator[None]:
    """Use what ``folder`` stands for beside others, or alone; blocks until that is possible, in the order of arrival.

    The kernel frees the locks of a process that is killed.
    """
    with (folder / ".queue.lock").open("w") as queue, (folder / ".use.lock").open("w") as use:
        # Whoever waits to be alone keeps the queue, so that those who come later cannot pass.
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(use, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield
