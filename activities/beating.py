"""When a watch sends heartbeats: at each change of what it reports, and otherwise as rarely as their timeout allows."""

import random
import time
from collections.abc import Callable

from temporalio import activity

from segue.contract import Beat

BEAT_S = 2.0
"""The longest interval between two observations of a rollout that moves, and between its heartbeats."""
OF_TIMEOUT = 0.8
"""The share of the heartbeat timeout after which a waiting rollout sends the next heartbeat.

If one is lost, the watch only begins again: the workflow and the target do not notice it.
"""
TICK_S = 1.0
"""All watches of a worker are due at whole multiples of this time.

A worker that wakes for one rollout after the other spends most of its CPU on waking up: it observes a rollout in a
third of the time if it has just observed another one.
"""


def interval_s(timeout_s: float | None, *, rests: bool) -> float:
    """Return the interval between heartbeats that report no change, in seconds; at least a tenth of a second."""
    if not rests or timeout_s is None:
        return BEAT_S
    return max(0.1, timeout_s * OF_TIMEOUT)


def due_at(now: float, interval_s: float) -> float:
    """Return when a heartbeat is due, on the tick before the interval ends; a short interval ends between two ticks."""
    at = now + interval_s
    return at - at % TICK_S if interval_s >= 2 * TICK_S else at


class Heart:
    """The heartbeats of one watch. Its loop sends them, so a loop that hangs sends none."""

    def __init__(
        self, interval_s: Callable[[], float], send: Callable[[Beat], None] = activity.heartbeat,
        clock: Callable[[], float] = time.monotonic, worker: str = "",
    ) -> None:  # fmt: skip
        self._interval_s, self._send, self._clock, self._worker = interval_s, send, clock, worker
        self._latest: Beat | None = None
        self._due_at = 0.0

    @property
    def due_in_s(self) -> float:
        """The seconds until a heartbeat is due even if nothing changes."""
        return self._due_at - self._clock()

    def beat(self, beat: Beat, *, at_once: bool = False) -> None:
        """Send a heartbeat if it reports a change, if one is due, or ``at_once``."""
        latest = self._latest
        changed = latest is None or (beat.seen, beat.why) != (latest.seen, latest.why)
        if changed or at_once or self.due_in_s <= 0:
            self._latest, interval_s = beat, self._interval_s()
            if latest is None and interval_s > BEAT_S:
                interval_s *= random.random()  # noqa: S311 - no secret; many watches may have begun at one time
            self._due_at = due_at(self._clock(), interval_s)
            self._send(beat.model_copy(update={"worker": self._worker}))
