"""What became of each request and each stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request: start (seconds since the epoch), latency, and what came of it.

    ``status`` is 0 when there was no answer; then ``error`` says why. ``version`` is the server's own word.
    """

    at: float
    latency_s: float
    status: int
    error: str = ""
    version: str = ""

    @property
    def failed(self) -> bool:
        """Whether it was not served: an error, another status than 2xx, or an answer that names no version."""
        return bool(self.why)

    @property
    def why(self) -> str:
        """Why it failed; empty if it did not."""
        if self.error:
            return self.error
        if not 200 <= self.status < 300:
            return f"status {self.status}"
        return "" if self.version else "the answer names no version"


@dataclass(frozen=True)
class Outcomes:
    """All requests of a load in order of their start.

    ``dropped`` is how many more the load should have sent and did not: unless it is 0 the rate was not constant.
    """

    requests: tuple[Request, ...] = ()
    dropped: int = 0

    @property
    def failed(self) -> tuple[Request, ...]:
        """Those that failed."""
        return tuple(request for request in self.requests if request.failed)

    @property
    def by_version(self) -> Counter[str]:
        """How many each version served."""
        return Counter(request.version for request in self.requests if not request.failed)

    def percentile(self, percent: float) -> float:
        """The latency in seconds that this share of the served requests did not exceed; nan when none was served."""
        return percentile((request.latency_s for request in self.requests if not request.failed), percent)


@dataclass(frozen=True)
class Stream:
    """One streamed completion: start and end (seconds since the epoch), and what came of it.

    ``expected`` is the number of tokens asked for; ``versions`` are all that its events named, in order.
    """

    at: float
    ended_at: float
    status: int
    expected: int
    tokens: int = 0
    done: bool = False
    error: str = ""
    versions: tuple[str, ...] = ()

    @property
    def cut(self) -> bool:
        """Whether it is not the whole answer of one version."""
        return bool(self.why)

    @property
    def why(self) -> str:
        """Why it is cut; empty if it is not."""
        if self.error:
            return self.error
        if not 200 <= self.status < 300:
            return f"status {self.status}"
        if not self.done:
            return f"ended without [DONE] after {self.tokens} of {self.expected} tokens"
        if self.tokens != self.expected:
            return f"{self.tokens} of {self.expected} tokens"
        return "" if len(self.versions) == 1 else f"{len(self.versions)} versions in one answer"


@dataclass(frozen=True)
class StreamOutcomes:
    """All streams of a load in order of their start."""

    streams: tuple[Stream, ...] = ()

    @property
    def cut(self) -> tuple[Stream, ...]:
        """Those that are not whole."""
        return tuple(stream for stream in self.streams if stream.cut)

    @property
    def by_version(self) -> Counter[str]:
        """How many each version served whole."""
        return Counter(stream.versions[0] for stream in self.streams if not stream.cut)


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest of ``values`` that ``percent`` of them do not exceed (nearest rank); nan when there are none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
