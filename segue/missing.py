"""Pods that a controller cannot create although their version is not the reason. Pure.

A quota that is full is a lack of room, as for a pod that no node takes. An admission webhook that does not answer
blocks every version, and so does a controller that does not act.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segue.failures import unplaced_why
from segue.hindrance import Hindrance
from segue.observation import Cause, Problem
from segue.replica import Replica

_LACKS_QUOTA = re.compile(r"exceeded quota|insufficient quota|status unknown for quota")
_UNASKED = re.compile(r"failed calling webhook")
PASSES_S = 5.0
"""A webhook that does not answer for so long is in the way; a controller tries again sooner at first."""


class Missing(NamedTuple):
    """Pods of one ReplicaSet that its controller cannot create."""

    number: int
    why: str
    """The API server's answer."""
    since: float
    """Since when: seconds since the epoch."""

    @property
    def lacks_quota(self) -> bool:
        """Whether only a quota refuses them: they are created when it has room."""
        return bool(_LACKS_QUOTA.search(self.why))

    @property
    def told(self) -> str:
        """Why, for a person."""
        return f"no pod can be created: {self.why}"


class Unplaced(NamedTuple):
    """Replicas for which there is no room, in the fields of an observation."""

    unplaced: int = 0
    unplaced_since: float = 0.0
    unplaced_why: str = ""

    @property
    def waits(self) -> bool:
        """Whether any replica waits for room."""
        return bool(self.unplaced)


def unplaced_of(replicas: Iterable[Replica], missing: Iterable[Missing], named: Iterable[Replica]) -> Unplaced:
    """Return the replicas that no node takes, and those that a quota refuses; the reason is that of ``named`` first."""
    pending = [each.unplaced_since for each in replicas if each.unplaced_since is not None]
    refused = [each for each in missing if each.lacks_quota]
    return Unplaced(
        len(pending) + sum(each.number for each in refused),
        min((*pending, *(each.since for each in refused)), default=0.0),
        unplaced_why(named) or next((each.told for each in refused), ""),
    )


def with_unasked(found: Hindrance, missing: Sequence[Missing], deadline_s: float, now: float) -> Hindrance:
    """Return the hindrance, or else the admission webhook that does not answer, and how many pods it keeps away."""
    patience_s = min(PASSES_S, deadline_s / 2)
    kept = [each for each in missing if _UNASKED.search(each.why) and now >= each.since + patience_s]
    if not kept:
        return found
    number = found.hindered + sum(each.number for each in kept)
    return Hindrance(number, found.hindrance or f"{kept[0].told}; repair that webhook, or remove its configuration")


def with_absent(found: Hindrance, absent: str, number: int) -> tuple[Hindrance, Problem | None]:
    """Return that a controller does not act (``absent``) as the hindrance of all replicas, and as their problem."""
    if not absent:
        return found, None
    return Hindrance(max(1, number), absent), Problem(cause=Cause.DEADLINE, message=absent)
