"""The cluster's time, also on a machine whose own clock is wrong.

Conditions of pods carry the cluster's time, and ``minReady``, deadlines and drains compare it with the present. A
worker on a virtual machine that slept may be minutes behind. So the ``Date`` of the API server's answers corrects the
time here (docs/decisions/0063-the-clusters-time.md).
"""

import logging
import time
from email.utils import parsedate_to_datetime

RESOLUTION_S = 1.0
"""A ``Date`` has whole seconds: it is up to so much late."""
PROMPT_S = 1.0
"""An answer within this time shows whether this machine's clock is right."""
TRUSTED_S = 1.0
"""This machine's clock counts if it is at most so far outside of what an answer allows."""

log = logging.getLogger(__name__)


class Clock:
    """The time of one cluster. Until its first answer it is this machine's; jumps of that clock do not count."""

    def __init__(self) -> None:
        self._began = time.time() - time.monotonic()
        """When the monotonic clock was 0, by the cluster: seconds since the epoch."""
        self._is_trusted = True

    def now(self) -> float:
        """Return the cluster's time, in seconds since the epoch."""
        return time.monotonic() + self._began

    def note(self, date: str, asked_at: float) -> None:
        """Take the ``Date`` of an answer into account; the request was sent at ``asked_at`` of the monotonic clock."""
        try:
            theirs = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        answered_at = time.monotonic()
        least, most = theirs - answered_at, theirs + RESOLUTION_S - asked_at
        own = time.time() - answered_at
        if answered_at - asked_at > PROMPT_S:  # too late to show whether this machine's clock is right
            self._began = min(max(self._began, least), most)
            return
        is_trusted = least - TRUSTED_S <= own <= most + TRUSTED_S
        self._began = own if is_trusted else min(max(self._began, least), most)
        if is_trusted != self._is_trusted:
            log.warning("%s", _told(own - self._began))
        self._is_trusted = is_trusted


def _told(ahead_s: float) -> str:
    if not ahead_s:
        return "this machine's clock agrees with the API server's again"
    skew = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'}"
    return f"this machine's clock is {skew} the API server's, whose time counts: synchronize it by NTP"
