"""The outcome of each request and each stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request: start (seconds since the epoch), latency and outcome.

    ``status`` is 0 when there was no answer; ``error`` is the reason. The answer names the ``version``.
    """

    at: float
    latency_s: float
    status: int
    error: str = ""
    version: str = ""

    @property
    def failed(self) -> bool:
        """Whether it failed: an error, a status other than 2xx, or an answer that names no version."""
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

    ``dropped`` counts requests that were due and not sent; unless it is 0, the rate was not constant.
    """

    requests: tuple[Request, ...] = ()
    dropped: int = 0

    @property
    def failed(self) -> tuple[Request, ...]:
        """The failed requests."""
        return tuple(request for request in self.requests if request.failed)

    @property
    def by_version(self) -> Counter[str]:
        """The number of requests that each version served."""
        return Counter(request.version for request in self.requests if not request.failed)

    def percentile(self, percent: float) -> float:
        """Return this percentile of the served requests' latency in seconds; nan when none was served."""
        return percentile((request.latency_s for request in self.requests if not request.failed), percent)


@dataclass(frozen=True)
class Stream:
    """One streamed completion: start and end (seconds since the epoch) and outcome.

    ``expected`` is the number of requested tokens; ``versions`` are all that its events named, in order.
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
        """Whether it is not the complete answer of one version."""
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
        """The cut streams."""
        return tuple(stream for stream in self.streams if stream.cut)

    @property
    def by_version(self) -> Counter[str]:
        """The number of complete streams that each version served."""
        return Counter(stream.versions[0] for stream in self.streams if not stream.cut)


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the percentile of ``values`` by nearest rank; nan when there are none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
