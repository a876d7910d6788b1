"""Reads a target for the command line, without Temporal."""

import contextlib
from collections.abc import Mapping, Sequence

from activities.capacity import counting
from activities.cluster import connected
from activities.levers import Levers
from activities.linting import linted
from activities.preparing import tried, with_namespace_labels
from activities.routers import Routers
from activities.watching import controller_uid
from segue.clusters import HERE, Access
from segue.contract import Prepared, PrepareInput
from segue.errors import Refused
from segue.history import Revision
from segue.policy import NO_POLICY, Policy
from segue.spec import Rollout, Target
from segue.supervision import SUPERVISIONS, Supervision


async def try_out(
    rollout: Rollout, owner: str, access: Access = HERE, policy: Policy = NO_POLICY,
    supervisions: Mapping[str, Supervision] = SUPERVISIONS,
) -> Prepared:  # fmt: skip
    """Prepare a rollout as a worker does at its start, and write nothing. Lint's findings refuse nothing here.

    Nor does the policy: for it, only the labels are read by which its rules select.

    ``owner`` is the owner that the rollout would have.

    Raises:
        Refused: for a target that cannot be rolled by this spec.
        NotFound, NotAllowed, Unreachable.
    """
    spec = rollout.spec
    request = PrepareInput(
        target=spec.target, owner=owner, change=spec.change, rules=spec.rules, name=rollout.metadata.name,
        accept=spec.accept,
    )  # fmt: skip
    async with connected(access) as cluster, counting(cluster) as capacity:
        lever = Levers(cluster, supervisions).of(spec.target)
        prepared = await tried(cluster, lever, Routers(cluster).of(spec.strategy), request)
        prepared = await with_namespace_labels(cluster, policy, spec.target, prepared)
        return await linted(cluster, capacity, lever, request, prepared, refuses=False)


async def first_existing(targets: Sequence[Target], access: Access = HERE) -> Target:
    """Return the first of these targets that the cluster has; the first of all if it has none that may be read.

    What another object controls is not meant: a LeaderWorkerSet makes a StatefulSet of its own name.

    Raises:
        Unreachable.
    """
    async with connected(access) as cluster:
        levers = Levers(cluster)
        for target in targets:
            with contextlib.suppress(Refused):  # it does not exist, is of a kind that is not served, or not to be read
                found = await cluster.get(levers.of(target).kinds[0], target.namespace, target.name)
                if not controller_uid(found):
                    return target
    return targets[0]


async def read_history(target: Target, access: Access = HERE) -> list[Revision]:
    """Return the target's revisions, the oldest first.

    Raises:
        Refused: for a target without revisions.
        NotFound, NotAllowed, Unreachable.
    """
    async with connected(access) as cluster:
        return await Levers(cluster).of(target).history(target)
