"""Kinds of targets under test: what the suite for every lever needs to know about each.

A new kind is a subclass here and a line in ``SUBJECTS``; the tests of ``test_every_lever`` stay as they are.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from kube_api import raw
from operators import runtimes

if TYPE_CHECKING:
    from harness import Lab

IMAGE = "example/chat"


class Way(NamedTuple):
    """How four replicas are rolled, and what a pod watcher may observe."""

    name: str
    strategy: dict[str, Any]
    floor: int
    ceiling: int
    stages: int
    """The moves after which the rollout waits for new replicas. After one less, a message still arrives in time."""
    passing: int = 0
    """The number of pods that may exceed the ceiling for a moment: see ``PodWatcher.assert_within``."""
    passing_back: int = 1
    """The same for a rollback, and for what a retarget leaves behind."""


OUT = Way("out", {"maxSurge": 1}, 4, 5, 5)
IN = Way("in", {"order": "scaleInPriority", "step": 2}, 2, 4, 3, 2, 2)
BOTH = Way("both", {"order": "scaleSimultaneously", "maxSurge": 1, "maxUnavailable": 1}, 3, 5, 3, 2, 2)


BUDGETS = (
    Way("step", {"step": 2}, 4, 6, 0),
    Way("percentages", {"maxSurge": "30%", "maxUnavailable": "30%"}, 3, 6, 0),  # of 4: surge 2, unavailable 1
    Way("at-once", {"maxSurge": "100%"}, 4, 8, 0),
)


class Subject:
    """A target of one kind, by its name in a lab. Its replicas are pods with label ``app``, at first version 1."""

    kind: ClassVar[str]
    ways: ClassVar[tuple[Way, ...]] = (OUT, IN, BOTH)
    """One for each order that the kind supports."""
    budgets: ClassVar[tuple[Way, ...]] = BUDGETS
    """More ways, tested only without an accident."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """The scenarios of the suite that do not apply to the kind, with the reason."""

    at_once: ClassVar[int] = 8
    """The number of its rollouts that two cores can run together without missing their deadlines."""
    notes: ClassVar[tuple[str, ...]] = ("/change-cause", "segue.dev/change")
    """The ends of the annotations that say something about its versions."""
    first_move: ClassVar[str] = "scale_new"
    """The activity that makes its first move."""
    stuck: ClassVar[tuple[dict[str, Any], int, tuple[tuple[int, int], ...]]] = (
        {"maxSurge": 2},
        4,
        ((4, 2), (3, 3), (1, 4)),
    )
    """A strategy, its floor, and the (old, new) at which it waits with zero, one and three new replicas ready."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.lab, self.name = lab, name

    @property
    def target(self) -> dict[str, Any]:
        """The spec's ``target``."""
        return {"kind": self.kind, "namespace": self.lab.namespace, "name": self.name}

    @property
    def selector(self) -> str:
        """The selector of its pods of both sides, and no others."""
        return f"app={self.name}"

    @staticmethod
    def changed(version: int, mode: str = "") -> dict[str, Any]:
        """Return a change to another version; with a mode, to one whose pods have this mode."""
        image = f"{IMAGE}:{version}"
        if not mode:
            return {"images": {"server": image}}
        containers = [{"name": "server", "image": image}]
        return {"patch": {"metadata": {"labels": {"segue.dev/fake": mode}}, "spec": {"containers": containers}}}

    async def create(self, replicas: int, **more: Any) -> None:
        """Create it, and wait until it serves; ``more`` is ``ready_after`` and other settings of the kind."""
        raise NotImplementedError

    def image(self) -> str:
        """Return the image of the version that it runs, while no rollout changes it."""
        raise NotImplementedError

    def replicas(self) -> int:
        """Return its requested replicas, both sides together when it rests."""
        return int(self.raw["spec"]["replicas"])

    def resize(self, replicas: int) -> None:
        """Set the replicas as another writer."""
        self.patch({"spec": {"replicas": replicas}})

    def patch(self, patch: dict[str, Any]) -> None:
        """Change it as another writer."""
        raise NotImplementedError

    @property
    def raw(self) -> dict[str, Any]:
        """As the API server's JSON."""
        raise NotImplementedError

    def requested(self) -> tuple[int, int]:
        """Return the (old, new) at which it is held."""
        raise NotImplementedError

    def version(self) -> Any:
        """Return a value that changes with each write of a rollout, and only then."""
        return self.raw["metadata"]["generation"]

    def is_at_rest(self) -> bool:
        """Return whether a rollout that waits writes nothing more."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return the settings that a rollout must not change: all but replicas, and notes about versions."""
        found = self.raw
        spec = {k: v for k, v in found["spec"].items() if k != "replicas"}
        annotations = found["metadata"].get("annotations", {})
        return {**spec, "annotations": {k: v for k, v in annotations.items() if not k.endswith(self.notes)}}

    def settled(self, outcome: str, before: dict[str, Any]) -> dict[str, Any]:
        """Return the expected settings after an outcome, given those from before."""
        raise NotImplementedError


class DeploymentSubject(Subject):
    """One Deployment, in place."""

    kind = "Deployment"
    notes = ("/revision", *Subject.notes)
    cannot: ClassVar[Mapping[str, str]] = {"release": "it is that of test_cli, step by step"}

    async def create(self, replicas: int, **more: Any) -> None:
        await self.lab.deploy(self.name, replicas, **more)

    def image(self) -> str:
        return str(self.raw["spec"]["template"]["spec"]["containers"][0]["image"])

    def patch(self, patch: dict[str, Any]) -> None:
        self.lab.patch(self.name, patch, manager="an-autoscaler")

    def requested(self) -> tuple[int, int]:
        """Its sizes while it is paused: then its fields move nothing."""
        spec = self.raw["spec"]
        if spec.get("paused"):
            sizes = {True: 0, False: 0}
            for each in self.lab.replicasets(self.name):
                sizes[_bare(each["spec"]["template"]) == _bare(spec["template"])] += each["spec"]["replicas"]
            return sizes[False], sizes[True]
        rolling, replicas = spec["strategy"]["rollingUpdate"], spec["replicas"]
        down = _resolved(rolling["maxUnavailable"], replicas, up=False)
        return replicas - down, _resolved(rolling["maxSurge"], replicas, up=True) + down

    def is_at_rest(self) -> bool:
        """The controller is paused: by the move itself, or by a write of its own if it took the move up late."""
        return bool(self.raw["spec"].get("paused"))

    def settled(self, outcome: str, before: dict[str, Any]) -> dict[str, Any]:
        return {**before, "template": self.settings()["template"]} if outcome == "Completed" else before

    @property
    def raw(self) -> dict[str, Any]:
        """As the API server's JSON."""
        return {**raw(self.lab.apps.read_namespaced_deployment, self.name, self.lab.namespace)}


class NumberedSubject(Subject):
    """Replicas with numbers, held by a partition."""

    def _split_at(self, partition: int) -> tuple[int, int]:
        """Return the (old, new) of a partition: what is below it stays what it is."""
        first = [p.metadata.name for p in self.lab.pods(self.name, f"{IMAGE}:1")]
        old = sum(int(name.rpartition("-")[2]) < partition for name in first)
        return old, self.replicas() - old


class StatefulSetSubject(NumberedSubject):
    """One StatefulSet with parallel replicas, of which its controller can move several at a time."""

    kind = "StatefulSet"
    ways = (
        Way("one", {"maxUnavailable": 1}, 3, 4, 5, 0, 0),
        Way("two", {"step": 2}, 2, 4, 3, 0, 0),
    )
    budgets = (
        Way("percentage", {"maxUnavailable": "50%"}, 2, 4, 0),
        Way("at-once", {"maxUnavailable": "100%"}, 0, 4, 0),
    )
    first_move = "scale_old"
    stuck = ({"maxUnavailable": 2}, 2, ((2, 2), (1, 3), (0, 4)))

    async def create(self, replicas: int, **more: Any) -> None:
        await self.lab.deploy_set(self.name, replicas, **more)

    def image(self) -> str:
        return str(self.raw["spec"]["template"]["spec"]["containers"][0]["image"])

    def patch(self, patch: dict[str, Any]) -> None:
        self.lab.apps.patch_namespaced_stateful_set(self.name, self.lab.namespace, patch, field_manager="an-autoscaler")

    def requested(self) -> tuple[int, int]:
        return self._split_at(self.raw["spec"]["updateStrategy"]["rollingUpdate"]["partition"])

    def settled(self, outcome: str, before: dict[str, Any]) -> dict[str, Any]:
        return {**before, "template": self.settings()["template"]} if outcome == "Completed" else before

    @property
    def raw(self) -> dict[str, Any]:
        """As the API server's JSON."""
        return {**raw(self.lab.apps.read_namespaced_stateful_set, self.name, self.lab.namespace)}


class LeaderWorkerSetSubject(NumberedSubject):
    """One LeaderWorkerSet of groups of two, held at every stage by a waypoint at the end. Only leaders count."""

    kind = "LeaderWorkerSet"
    ways = (
        Way("one", {"maxUnavailable": 1, "waypoints": [{"at": "100%"}]}, 3, 4, 5, 0, 0),
        Way("two", {"step": 2, "waypoints": [{"at": "100%"}]}, 2, 4, 3, 0, 0),
    )
    budgets = ()
    at_once = 4
    first_move = "scale_old"
    stuck = ({"maxUnavailable": 2, "waypoints": [{"at": "100%"}]}, 2, ((2, 2), (1, 3), (0, 4)))

    @staticmethod
    def changed(version: int, mode: str = "") -> dict[str, Any]:
        image = f"{IMAGE}:{version}"
        if not mode:
            return {"images": {"server": image}}
        leader = {
            "metadata": {"labels": {"segue.dev/fake": mode}},
            "spec": {"containers": [{"name": "server", "image": image}]},
        }
        return {"patch": {"leaderTemplate": leader}}

    async def create(self, replicas: int, **more: Any) -> None:
        # Only leaders count, and only they are held back: a group is ready when its workers are ready too.
        workers: dict[str, Any] = {"worker_mode": "ready"} if more.get("mode") == "never-ready" else {}
        await self.lab.deploy_groups(self.name, replicas, **more, **workers)

    def image(self) -> str:
        return str(self.raw["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]["containers"][0]["image"])

    def resize(self, replicas: int) -> None:
        self.lab.scale_groups(self.name, replicas)

    def patch(self, patch: dict[str, Any]) -> None:
        self.lab.patch_groups(self.name, patch)

    def requested(self) -> tuple[int, int]:
        return self._split_at(self.raw["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]["partition"])

    def settled(self, outcome: str, before: dict[str, Any]) -> dict[str, Any]:
        if outcome != "Completed":
            return before
        return {**before, "leaderWorkerTemplate": self.settings()["leaderWorkerTemplate"]}

    @property
    def raw(self) -> dict[str, Any]:
        """As the API server's JSON."""
        return self.lab.groups(self.name)


class PairSubject(Subject):
    """A Deployment, and one that is created from it."""

    kind = "DeploymentPair"
    # Segue writes one Deployment after the other, removals before additions: no pod exceeds the ceiling.
    ways = tuple(way._replace(passing=0, passing_back=0) for way in Subject.ways)
    budgets = tuple(way._replace(passing=0) for way in Subject.budgets)
    cannot: ClassVar[Mapping[str, str]] = {
        "scale by hand": "neither Deployment's replicas is that of the target, so a change of one is a foreign change",
        "release": "it needs room for both sides: see test_pair",
    }

    @property
    def target(self) -> dict[str, Any]:
        return {"kind": self.kind, "namespace": self.lab.namespace, "old": self.name, "new": self.new}

    @property
    def new(self) -> str:
        return f"{self.name}-next"

    async def create(self, replicas: int, **more: Any) -> None:
        await self.lab.deploy(self.name, replicas, **more)

    def image(self) -> str:
        return DeploymentSubject(self.lab, self.name).image()

    def replicas(self) -> int:
        return sum(self.requested())

    def requested(self) -> tuple[int, int]:
        replicas = self._replicas_of_both()
        return replicas.get(self.name, 0), replicas.get(self.new, 0)

    def version(self) -> Any:
        return {d.metadata.name: d.metadata.generation for d in self._both()}

    def settings(self) -> dict[str, Any]:
        """Return the settings of both, by name."""
        return {name: DeploymentSubject(self.lab, name).settings() for name in self._replicas_of_both()}

    def settled(self, outcome: str, before: dict[str, Any]) -> dict[str, Any]:
        """Expect the old one unchanged; the new one exists only if it serves, and differs in its own labels."""
        if outcome != "Completed":
            return before
        new = self.settings()[self.new]
        own = {"template", "selector"}
        assert {k: v for k, v in new.items() if k not in own} == {
            k: v for k, v in before[self.name].items() if k not in own
        }
        return {**before, self.new: new}

    def _replicas_of_both(self) -> dict[str, int]:
        return {d.metadata.name: d.spec.replicas for d in self._both()}

    def _both(self) -> list[Any]:
        found: list[Any] = self.lab.apps.list_namespaced_deployment(self.lab.namespace).items
        return [d for d in found if d.metadata.name in {self.name, self.new}]


def _bare(template: dict[str, Any]) -> dict[str, Any]:
    """Return a pod template without the label by which a Deployment's controller tells its ReplicaSets apart."""
    labels = {k: v for k, v in template["metadata"]["labels"].items() if k != "pod-template-hash"}
    return {**template, "metadata": {**template["metadata"], "labels": labels}}


def _resolved(amount: int | str, replicas: int, *, up: bool) -> int:
    """Resolve a count or percentage as the Deployment controller does."""
    if isinstance(amount, int):
        return amount
    share = int(amount.rstrip("%")) * replicas / 100
    return math.ceil(share) if up else math.floor(share)


class SupervisedSubject(Subject):
    """A custom resource, rolled by its own operator with surge 1."""

    kind = "Supervised"
    ways = (Way("operator", {}, 4, 5, 2, 1),)
    budgets = ()
    first_move = "scale_old"
    cannot: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("pause", "scale", "scale by hand", "settle"), "its operator cannot be stopped partway"
    )

    @property
    def target(self) -> dict[str, Any]:
        return {**super().target, "resource": "ServingRuntime"}

    @staticmethod
    def changed(version: int, mode: str = "") -> dict[str, Any]:
        image = f"{IMAGE}:{version}"
        if not mode:
            return {"images": {"server": image}}
        return {"patch": {"mode": mode, "containers": [{"name": "server", "image": image}]}}

    async def create(self, replicas: int, **more: Any) -> None:
        spec = {"replicas": replicas, "containers": [{"name": "server", "image": f"{IMAGE}:1"}]}
        given = {"ready_after": "readyAfter", "mode": "mode"}
        await runtimes(self.lab).make(
            "ServingRuntime", self.name, {**spec, **{given[name]: value for name, value in more.items()}}
        )

    def image(self) -> str:
        return str(self.raw["spec"]["containers"][0]["image"])

    def settings(self) -> dict[str, Any]:
        found = self.raw
        return {"spec": found["spec"], "annotations": found["metadata"].get("annotations", {})}

    def settled(self, outcome: str, before: dict[str, Any]) -> dict[str, Any]:
        return {**before, "spec": self.raw["spec"]} if outcome == "Completed" else before

    def patch(self, patch: dict[str, Any]) -> None:
        runtimes(self.lab).patch(self.name, patch)

    @property
    def raw(self) -> dict[str, Any]:
        return runtimes(self.lab).get(self.name)


SUBJECTS: dict[str, type[Subject]] = {
    each.kind: each
    for each in (DeploymentSubject, PairSubject, StatefulSetSubject, LeaderWorkerSetSubject, SupervisedSubject)
}
"""All kinds that the suite for every lever rolls."""
