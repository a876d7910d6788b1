"""Tests use the same servers side by side, but for one that stops a part of them."""

import fcntl
import threading
from pathlib import Path

from using import using


def test_one_that_stops_a_server_has_it_alone_and_is_not_overtaken(tmp_path: Path) -> None:
    """It waits for those that are there; those that come later wait for it."""
    order: list[str] = []
    first_left, alone_left = threading.Event(), threading.Event()

    def use(name: str, alone: bool, until: threading.Event) -> None:
        with using(tmp_path, alone=alone):
            order.append(f"{name} begins")
            assert until.wait(30)
            order.append(f"{name} ends")

    with using(tmp_path, alone=False):
        threads = [threading.Thread(target=use, args=("alone", True, alone_left))]
        threads[0].start()
        _until_queued(tmp_path)
        threads.append(threading.Thread(target=use, args=("later", False, first_left)))
        threads[1].start()
        assert not order
        first_left.set()
    alone_left.set()
    for each in threads:
        each.join(30)
    assert order == ["alone begins", "alone ends", "later begins", "later ends"]


def _until_queued(folder: Path) -> None:
    """Return once somebody waits to be alone, who therefore holds the queue."""
    for _ in range(3000):
        with (folder / ".queue.lock").open("w") as queue:
            try:
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        threading.Event().wait(0.01)
    raise AssertionError("no thread holds the queue after 30 s")
