"""Pods that a controller cannot create although their version is not the reason. Pure.

A quota that is full is a lack of room, as for a pod that no node takes. An admission webhook that does not answer
blocks every version, and so does a controller that does not act. An old replica
that is lost, and cannot be created again, says nothing about the new version.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from segue.failures import unplaced_why, with_unmade
from segue.hindrance import Hindrance
from segue.observation import Cause, Observation, Problem
from segue.replica import Replica

_LACKS_QUOTA = re.compile(r"exceeded quota|insufficient quota|status unknown for quota")
_UNASKED = re.compile(r"failed calling webhook")
_DENIES = re.compile(r"ValidatingAdmissionPolicy '[^']+'|admission webhook \"[^\"]+\"|violates PodSecurity \"[^\"]+\"")
_FORBIDDEN = " is forbidden: "
PASSES_S = 5.0
"""A webhook that has not answered for so long is a hindrance; at first, a controller tries again sooner."""


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
    def is_unasked(self) -> bool:
        """Whether an admission webhook that does not answer keeps them away."""
        return bool(_UNASKED.search(self.why))

    @property
    def denier(self) -> str:
        """Which policy or webhook refuses them, or else why they are refused; empty if only a quota or nobody does.

        Without the pod's name, a reason has the same words for each version: a service account that is gone, say.
        """
        if self.lacks_quota or self.is_unasked:
            return ""
        found = _DENIES.search(self.why)
        return found.group() if found else self.why.partition(_FORBIDDEN)[2]

    def lasts(self, deadline_s: float, now: float) -> bool:
        """Whether they are missing for so long that the reason does not pass by itself soon."""
        return now >= self.since + min(PASSES_S, deadline_s / 2)

    @property
    def told(self) -> str:
        """Why, for a person."""
        return f"no pod can be created: {self.why}"

    @property
    def blocks(self) -> str:
        """The same, with what a person can do."""
        if self.is_unasked:
            return f"{self.told}; repair that webhook, or remove its configuration"
        return f"{self.told}; free or raise that quota" if self.lacks_quota else self.told


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


def denying_both(coming: Iterable[Missing], leaving: Iterable[Missing]) -> frozenset[str]:
    """Return what refuses pods of both versions, so that the new one is not to blame."""
    return frozenset({each.denier for each in coming} & {each.denier for each in leaving} - {""})


def excused(problem: Problem | None, deniers: Collection[str]) -> Problem | None:
    """Return a problem that waiting may solve, if it only says that one of these refuses pods."""
    if problem is None or not any(each in problem.message for each in deniers):
        return problem
    return problem.model_copy(update={"hopeless": False})


def with_kept_away(
    found: Hindrance, missing: Iterable[Missing], deadline_s: float, now: float, *, in_place: bool = False,
    deniers: Collection[str] = (),
) -> Hindrance:  # fmt: skip
    """Return the hindrance, or else what keeps pods away although their version is not the reason.

    ``in_place``: a new replica takes the place of an old one, so a quota that refuses it has no room for either.
    Otherwise such a replica counts as one without room (``unplaced_of``). ``deniers`` refuse pods of both versions.
    """
    blocking = (
        each for each in missing if each.is_unasked or each.denier in deniers or (in_place and each.lacks_quota)
    )
    kept = [each for each in blocking if each.lasts(deadline_s, now)]
    if not kept:
        return found
    both = f"{kept[0].told}; this keeps pods of both versions away: correct it" if kept[0].denier in deniers else ""
    return Hindrance(found.hindered + sum(each.number for each in kept), found.hindrance or both or kept[0].blocks)


def with_full_quota(
    found: Hindrance, missing: Iterable[Missing], short: int, deadline_s: float, now: float
) -> Hindrance:
    """Return the hindrance, or else the quota that leaves fewer than R replicas; ``short``: by how many.

    A new replica in the place of an old one does not fit, and neither would the old one. They count as without room.
    """
    full = [each for each in missing if each.lacks_quota and each.lasts(deadline_s, now)]
    return found._replace(hindrance=found.hindrance or full[0].blocks) if short > 0 and full else found


def with_missing(
    seen: Observation, coming: Missing | None, leaving: Missing | None, deadline_s: float, now: float
) -> Observation:
    """Return the observation of a target whose controller tells only in events why pods are missing.

    A lost old replica holds the rollout whatever the reason is: under its number, it cannot be given up.
    """
    hindrance = Hindrance(seen.hindered, seen.hindrance)
    if coming is not None:
        hindrance = with_kept_away(hindrance, (coming,), deadline_s, now, in_place=True)
        problem = with_unmade(seen.problem, coming.why)
        return seen.model_copy(update={"problem": problem, **hindrance._asdict()})
    if leaving is None or seen.hindrance or not leaving.lasts(deadline_s, now):
        return seen
    return seen.model_copy(update={"hindrance": f"an old replica is lost, and {leaving.blocks}"})


def with_absent(found: Hindrance, absent: str, number: int) -> tuple[Hindrance, Problem | None]:
    """Return that a controller does not act (``absent``) as the hindrance of all replicas, and as their problem."""
    if not absent:
        return found, None
    return Hindrance(max(1, number), absent), Problem(cause=Cause.DEADLINE, message=absent)
