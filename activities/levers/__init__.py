"""Levers: each holds one kind of target at exactly (old, new). ``base`` defines what a lever does."""

from collections.abc import Mapping

from activities.cluster import Cluster
from activities.levers.base import Lever
from activities.levers.deployment.lever import DeploymentLever
from activities.levers.numbered.leaderworkerset import LeaderWorkerSetLever
from activities.levers.numbered.statefulset import StatefulSetLever
from activities.levers.pair.lever import PairLever
from activities.levers.supervised import SupervisedLever
from activities.watching import Watches
from segue.errors import Refused
from segue.spec import SupervisedTarget, Target
from segue.supervision import SUPERVISIONS, Supervision


class Levers:
    """The levers of all kinds of targets over one cluster.

    With a worker's ``watches``, a write waits for an event of the target; without them it reads again and again.
    """

    def __init__(
        self, cluster: Cluster, supervisions: Mapping[str, Supervision] = SUPERVISIONS, watches: Watches | None = None
    ) -> None:
        self._by_kind: dict[str, Lever] = {
            "Deployment": DeploymentLever(cluster, watches),
            "StatefulSet": StatefulSetLever(cluster),
            "LeaderWorkerSet": LeaderWorkerSetLever(cluster),
            "DeploymentPair": PairLever(cluster, watches),
        }
        self._by_resource = {name: SupervisedLever(cluster, kind) for name, kind in supervisions.items()}

    def of(self, target: Target) -> Lever:
        """Return the lever of a target.

        Raises:
            Refused: for a resource that the settings do not describe.
        """
        if not isinstance(target, SupervisedTarget):
            return self._by_kind[target.kind]
        found = self._by_resource.get(target.resource)
        if found is None:
            known = ", ".join(sorted(self._by_resource))
            fix = f"use one of {known}, or describe it in SEGUE_SUPERVISED (docs/targets/supervised.md)"
            why = "is not described in the settings"
            raise Refused(why, field="spec.target.resource", value=target.resource, fix=fix)
        return found
