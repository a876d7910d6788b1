"""What the command line reads of a target, without Temporal."""

from activities.cluster import connected
from activities.levers import Levers
from activities.levers.base import TargetFacts
from segue.history import Revision
from segue.spec import Target


async def read_target(target: Target) -> TargetFacts:
    """Return what a plan needs to know of the target.

    Raises:
        NotFound, NotAllowed, Unreachable.
    """
    async with connected() as cluster:
        return await Levers(cluster).of(target).look(target)


async def read_history(target: Target) -> list[Revision]:
    """Return the revisions that there are of the target, the oldest first.

    Raises:
        Refused: for a target that has none.
        NotFound, NotAllowed, Unreachable.
    """
    async with connected() as cluster:
        return await Levers(cluster).of(target).history(target)
