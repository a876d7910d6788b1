"""One activity of a rollout at a time: the next one that this worker gets ends the former watch.

A cancelled watch learns of it only by Temporal's answer to its next heartbeat. A rollout that waits sends few of them;
until then its former watch would decide on an old state, beside the present one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

TIGHT = 0.8
"""The share of a worker's slots from which on its waiting watches send heartbeats as often as the others."""


class Turn:
    """The turn of one watch."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.is_over = False
        """Whether another activity of the same rollout began: this watch is cancelled, and must ask Temporal."""

    def end(self) -> None:
        """End the turn, and wake its watch."""
        self.is_over = True
        self._wake()


class Turns:
    """The watches of a worker, by the workflow that each belongs to."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._open: dict[str, Turn] = {}

    @property
    def are_tight(self) -> bool:
        """Whether watches take so many of the slots that a cancelled one must leave its slot soon."""
        return len(self._open) >= self._slots * TIGHT

    def end(self, workflow_id: str) -> None:
        """End the watch of a rollout, if this worker has one."""
        turn = self._open.pop(workflow_id, None)
        if turn is not None:
            turn.end()

    @contextmanager
    def take(self, workflow_id: str, wake: Callable[[], None]) -> Iterator[Turn]:
        """Yield the turn of a rollout's watch, which ``wake`` wakes at the turn's end; the former one is over."""
        self.end(workflow_id)
        turn = self._open[workflow_id] = Turn(wake)
        try:
            yield turn
        finally:
            if self._open.get(workflow_id) is turn:
                del self._open[workflow_id]
