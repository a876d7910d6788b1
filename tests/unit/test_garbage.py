"""A worker's garbage collector leaves out what lives as long as the process, and still frees what does not."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from worker.garbage import THRESHOLDS, spare_what_stays


@pytest.fixture
def spared() -> Iterator[None]:
    before = gc.get_threshold()
    spare_what_stays()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("spared")
def test_only_what_is_new_is_collected() -> None:
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())
    freed = weakref.ref(Cycle())
    gc.collect()
    assert freed() is None
    assert gc.get_threshold() == THRESHOLDS
