"""Few moves at one time: each is written soon after it is decided. The others wait in order.

Without a limit, all rollouts that may move share the worker, the API server and Temporal. Each of them is slow then,
and keeps its extra replicas for longer.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics

from segue.admission import MoveOrder

LEASE_S = 60.0
"""A move whose write is not seen for so long no longer counts: a worker may be lost, or the API server may be away."""

_METER = metrics.get_meter("segue")


class Place:
    """What one watch has: nothing, a place in the queue, or the admission of its move."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.order: MoveOrder | None = None
        self.is_admitted = False
        self.is_kept = False

    @property
    def waits(self) -> bool:
        """Whether its move waits in the queue."""
        return self.order is not None and not self.is_admitted


class Moves:
    """The moves of a worker between their decision and their first write."""

    def __init__(self, at_once: int, meter: metrics.Meter = _METER) -> None:
        self.at_once = at_once
        self._number = meter.create_up_down_counter(
            "segue.moves.waiting", description="Moves that wait for their turn among those of other rollouts"
        )
        self._number.add(0)  # so that it is exported before the first move
        self._admitted = 0
        self._waiting: list[tuple[MoveOrder, int, Place]] = []
        self._arrivals = itertools.count()
        self._kept: dict[str, asyncio.Task[None]] = {}

    @contextmanager
    def place(self, workflow_id: str, wake: Callable[[], None]) -> Iterator[Place]:
        """Yield a place for a rollout's watch, which ``wake`` wakes when its move is admitted.

        The rollout's former move no longer counts.
        """
        former = self._kept.pop(workflow_id, None)
        if former is not None:
            former.cancel()
        place = Place(wake)
        try:
            yield place
        finally:
            if not place.is_kept:
                self.leave(place)

    def ask(self, place: Place, order: MoveOrder) -> bool:
        """Return whether the move is admitted. If not, it waits, and its watch is woken when it is."""
        if not place.is_admitted and place.order != order:
            self._number.add(0 if place.waits else 1)
            place.order = order
            heapq.heappush(self._waiting, (order, next(self._arrivals), place))
            self._admit()
        return place.is_admitted

    def leave(self, place: Place) -> None:
        """Leave the queue, or give the admission to the next move."""
        self._number.add(-1 if place.waits else 0)
        place.order = None
        if place.is_admitted:
            place.is_admitted = False
            self._admitted -= 1
            self._admit()

    def keep(self, workflow_id: str, place: Place, written: Coroutine[Any, Any, None]) -> None:
        """Count the move beyond its watch: until its write is seen, the next watch begins, or LEASE_S is over."""
        place.is_kept = True
        task = self._kept[workflow_id] = asyncio.create_task(written)

        def free(ended: asyncio.Task[None]) -> None:
            if self._kept.get(workflow_id) is ended:
                del self._kept[workflow_id]
            self.leave(place)

        task.add_done_callback(free)

    def close(self) -> None:
        """End all waits for writes."""
        for task in self._kept.values():
            task.cancel()

    def _admit(self) -> None:
        while self._waiting and self._admitted < self._most_for(self._waiting[0][0]):
            order, _, place = heapq.heappop(self._waiting)
            if place.order == order and not place.is_admitted:  # else it left the queue, or has another place there
                self._number.add(-1)
                place.is_admitted = True
                self._admitted += 1
                place.wake()

    def _most_for(self, order: MoveOrder) -> int:
        """Return how many moves may be admitted for the next one to be: a first move leaves half to what it begins."""
        return -(-self.at_once // 2) if order.begins else self.at_once
