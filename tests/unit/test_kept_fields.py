"""The fields that a watch keeps are those that levers read: every lever observes objects that record what is read."""

import copy
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from activities import watching
from activities.clock import Clock
from activities.cluster import Cluster
from activities.kept_fields import KEPT, WHOLE, Fields, kept
from activities.levers import Levers
from activities.levers.base import Lever
from activities.levers.numbered.leaderworkerset import GROUP, NAME, REVISION, WORKER
from activities.levers.ownership import BASELINE, OWNER
from activities.watching import NamespaceWatch, Watches
from segue.observation import Observation, Version
from segue.spec import DeploymentTarget, PairTarget, Rules, SupervisedTarget, Target
from segue.spec.target import LeaderWorkerSetTarget, StatefulSetTarget
from segue.state import Outcome, State, requested

Object = dict[str, Any]
Path = tuple[str, ...]

EVERYTHING = "*"
NOW = 1_800_000_000.0
T0, T1 = "2027-01-15T07:00:00Z", "2027-01-15T07:30:00Z"


class Recorded(Object):
    """An object that records the paths that are read; a read of all names counts for everything below."""

    def __init__(self, content: Object, seen: set[Path], path: Path = ()) -> None:
        super().__init__({name: recorded(value, seen, (*path, name)) for name, value in content.items()})
        self._seen, self._path = seen, path

    def __getitem__(self, name: str) -> Any:
        self._seen.add((*self._path, name))
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._seen.add((*self._path, name))
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self._seen.add((*self._path, str(name)))
        return super().__contains__(name)

    def _all(self) -> None:
        self._seen.add((*self._path, EVERYTHING))

    def __iter__(self) -> Iterator[str]:
        self._all()
        return super().__iter__()

    def keys(self) -> Any:
        self._all()
        return super().keys()

    def items(self) -> Any:
        self._all()
        return super().items()

    def values(self) -> Any:
        self._all()
        return super().values()


def recorded(value: Any, seen: set[Path], path: Path = ()) -> Any:
    if isinstance(value, dict):
        return Recorded(value, seen, path)
    return [recorded(each, seen, path) for each in value] if isinstance(value, list) else value


def missing(path: Path, fields: Fields) -> bool:
    """Whether what was read is not kept."""
    for name in path:
        if fields is WHOLE:
            return False
        if name == EVERYTHING or name not in fields:
            return True
        fields = fields[name]
    return False


def leaves(fields: Fields, path: Path = ()) -> Iterator[Path]:
    for name, below in fields.items():
        yield from leaves(below, (*path, name)) if below else [(*path, name)]


# --- objects as an API server has them, with more than what is kept ----------------------------------------------

NOISE = {"managedFields": [{"manager": "m", "fieldsV1": {}}], "resourceVersion": "1", "generation": 1, "selfLink": "x"}
CONTAINER = {
    "name": "server", "image": "c:1", "env": [{"name": "A", "value": "b"}], "volumeMounts": [],
    "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
    "resources": {"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"cpu": "1"}},
    "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
}  # fmt: skip
SIDECAR = {**CONTAINER, "name": "proxy", "restartPolicy": "Always"}


def template(version: int) -> Object:
    return {"metadata": {"labels": {"app": "chat"}}, "spec": {"containers": [{**CONTAINER, "image": f"c:{version}"}]}}


def condition(kind: str, status: str, **more: str) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": T1, "lastProbeTime": None, **more}


READY = [condition("Ready", "True"), condition("PodScheduled", "True"), condition("ContainersReady", "True")]
CRASHING = {
    "name": "server", "restartCount": 3, "ready": False, "imageID": "x",
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": T1}},
}  # fmt: skip
NOT_STARTED: Object = {"terminated": {"reason": "StartError", "exitCode": 128, "message": "context canceled"}}
PODS: list[Object] = [  # metadata, spec and status of each
    {"status": {"phase": "Running", "podIP": "10.0.0.1", "startTime": T0, "conditions": READY}},
    {"status": {"phase": "Running", "conditions": [condition("Ready", "False", message="m")],
                "containerStatuses": [CRASHING], "initContainerStatuses": [
                    {"name": "proxy", "restartCount": 1, "state": {"terminated": {"reason": "Error", "exitCode": 1}}},
                    {**CRASHING, "name": "proxy"}]}},
    {"status": {"phase": "Running", "containerStatuses": [
        {"name": "server", "restartCount": 1, "state": {"terminated": {"reason": "Error", "exitCode": 1}}}]}},
    {"spec": {"nodeName": ""}, "status": {"phase": "Pending", "conditions": [
        condition("PodScheduled", "False", reason="Unschedulable", message="Insufficient nvidia.com/gpu")]}},
    {"spec": {"nodeName": "", "schedulingGates": [{"name": "quota"}]}, "status": {"phase": "Pending"}},
    {"metadata": {"deletionTimestamp": T1, "deletionGracePeriodSeconds": 30}, "status": {"phase": "Running"}},
    {"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}},
    {"status": {"phase": "Running", "conditions": [
        condition("Ready", "False"), condition("ContainersReady", "True"),
        condition("DisruptionTarget", "True", reason="PreemptionByScheduler", message="preempted")]}},
    {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-2147483648", "other": "x"}},
     "status": {"phase": "Running", "conditions": [condition("Ready", "False", reason="Draining")]}},
    {"status": {"phase": "Running", **{statuses: [
        {"name": "server", "restartCount": 1, "state": NOT_STARTED},
        {"name": "proxy", "restartCount": 1, "state": {"running": {}}, "lastState": NOT_STARTED},
    ] for statuses in ("initContainerStatuses", "containerStatuses")}}},
]  # fmt: skip


def pods(owner: str, name: str = "{owner}-{n}", labels: Object | None = None) -> list[Object]:
    """One pod in each condition, owned by ``owner``."""
    return [
        {
            "metadata": {
                **NOISE, "name": name.format(owner=owner, n=n), "uid": f"uid of {owner}-{n}", "creationTimestamp": T0,
                "labels": {"app": "chat", **{k: v.format(n=n) for k, v in (labels or {}).items()}},
                "ownerReferences": [{"kind": "X", "name": owner, "uid": f"uid of {owner}", "controller": True}],
                **each.get("metadata", {}),
            },
            "spec": {"nodeName": "a", "volumes": [], "containers": [CONTAINER], "initContainers": [SIDECAR],
                     **each.get("spec", {})},
            "status": {"hostIP": "1", **each["status"]},
        }
        for n, each in enumerate(PODS)
    ]  # fmt: skip


def owned(name: str, owner: str, **body: Any) -> Object:
    controller = [{"kind": "X", "name": owner, "uid": f"uid of {owner}", "controller": True}]
    metadata = {**NOISE, "name": name, "uid": f"uid of {name}", "ownerReferences": controller, "creationTimestamp": T0}
    return {"metadata": {**metadata, **body.pop("metadata", {})}, **body}


def replicaset(owner: str, version: int) -> Object:
    failing = {"type": "ReplicaFailure", "status": "True", "message": "quota", "reason": "FailedCreate"}
    return owned(
        f"{owner}-{version}", owner, metadata={"annotations": {"x": "y"}},
        spec={"replicas": 9, "template": template(version), "selector": {}},
        status={"replicas": 9, "availableReplicas": 3, "conditions": [failing]},
    )  # fmt: skip


def workload(name: str, spec: Object, **annotations: str) -> Object:
    return {
        "metadata": {**NOISE, "name": name, "uid": f"uid of {name}", "annotations": {OWNER: "us", **annotations}},
        "spec": {"replicas": 9, "selector": {"matchLabels": {"app": "chat"}}, **spec},
        "status": {"observedGeneration": 1, "updateRevision": "chat-2"},
    }


def deployment(name: str) -> Object:
    rolling = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return workload(name, {"template": template(2), "strategy": {"type": "RollingUpdate", **rolling}})


def revision(number: int, spec: Object, saved: Object | None = None, **labels: str) -> Object:
    metadata = {"labels": labels, "annotations": {BASELINE: json.dumps(saved)} if saved else {}}
    return owned(f"chat-{number}", "chat", metadata=metadata, revision=number, data={"spec": spec})


GROUPS = "leaderworkersets.leaderworkerset.x-k8s.io/v1"
SERVICE = "inferenceservices.serving.kserve.io/v1beta1"
GROUP_SPEC = {"leaderWorkerTemplate": {"size": 1, "workerTemplate": template(2)}}
OF_GROUP = {NAME: "chat", GROUP: "{n}", WORKER: "0", REVISION: "2"}
ROLLING = {"rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": {"partition": 2}}}
OF_SERVICE = {
    "serving.kserve.io/inferenceservice": "chat", "component": "predictor",
    "app": "isvc.chat-predictor", "pod-template-hash": "2",
}  # fmt: skip
SAVED = json.dumps({"version": {"model": 1}, "revisions": ["1"], "parts": [], "replicas": 9, "superseded": []})

WORLDS: dict[str, tuple[Target, dict[str, list[Object]]]] = {
    "Deployment": (
        DeploymentTarget(namespace="n", name="chat"),
        {"deployments": [deployment("chat")], "replicasets": [replicaset("chat", 1), replicaset("chat", 2)],
         "pods": [*pods("chat-1"), *pods("chat-2")]},
    ),
    "DeploymentPair": (
        PairTarget(kind="DeploymentPair", namespace="n", old="chat", new="next"),
        {"deployments": [deployment("chat"), deployment("next")],
         "replicasets": [replicaset("chat", 1), replicaset("next", 2)], "pods": [*pods("chat-1"), *pods("next-2")]},
    ),
    "StatefulSet": (
        StatefulSetTarget(kind="StatefulSet", namespace="n", name="chat"),
        {"statefulsets": [workload("chat", {"template": template(2), "updateStrategy": {"type": "RollingUpdate",
                                            "rollingUpdate": {"partition": 2}}})],
         "controllerrevisions": [
             revision(n, {"template": template(n)}, {"template": template(1), "own": {}} if n > 1 else None)
             for n in (1, 2)
         ],
         "pods": pods("chat", labels={"controller-revision-hash": "chat-2"})},
    ),
    "LeaderWorkerSet": (
        LeaderWorkerSetTarget(kind="LeaderWorkerSet", namespace="n", name="chat"),
        {GROUPS: [workload("chat", {**GROUP_SPEC, **ROLLING})],
         "statefulsets": [owned("chat", "chat", spec={"updateStrategy": {"rollingUpdate": {"partition": 2}}})],
         "controllerrevisions": [revision(n, GROUP_SPEC, None, **{REVISION: str(n)}) for n in (1, 2)],
         "pods": pods("chat", labels=OF_GROUP)},
    ),
    "InferenceService": (
        SupervisedTarget(kind="Supervised", resource="InferenceService", namespace="n", name="chat"),
        {SERVICE: [workload("chat", {"predictor": {"minReplicas": 9, "model": {}}}, **{BASELINE: SAVED})],
         "pods": pods("chat-predictor-2", labels=OF_SERVICE)},
    ),
}  # fmt: skip


class _Server:
    """The API server: it lists the objects of a world; half of the pods are then removed."""

    def __init__(self, world: dict[str, list[Object]]) -> None:
        self._world, self.clock = world, Clock()

    async def pages(self, kind: str, namespace: str, fields: str) -> AsyncIterator[Object]:
        yield {"items": copy.deepcopy(self._world[kind]), "metadata": {"resourceVersion": "1"}}


@asynccontextmanager
async def watched(lever: Lever, world: dict[str, list[Object]]) -> AsyncIterator[NamespaceWatch]:
    """Yield a view of a world, with every third pod removed after it was listed."""
    watches = Watches(cast("Cluster", _Server(world)))
    for kind in lever.kinds:
        stream = watching.KindWatch(cast("Cluster", _Server(world)), kind, "n")
        watches._open["n", kind] = stream
        stream.replace([stream.keep(each) for each in copy.deepcopy(world[kind])])
        stream.current = True
        for each in world[kind][::3] if kind == "pods" else ():
            stream.apply("DELETED", copy.deepcopy(each))
    async with watches.use("n", lever.kinds) as view:
        yield view
    await watches.close()


def states() -> Iterable[State]:
    version = [Version(template=watching_fingerprint(n)) for n in (1, 2)]
    start = State(owner="us", claimed=True).after_prepare(version[0], version[1], NOW - 3600)
    return start, start.going_back(Outcome.ROLLED_BACK, requested("why"), NOW)


def watching_fingerprint(version: int) -> str:
    from activities.levers.template import fingerprint

    return fingerprint(template(version))


async def observed(kind: str) -> list[Observation | None]:
    target, world = WORLDS[kind]
    lever = Levers(Cluster.__new__(Cluster)).of(target)
    found = []
    for state in states():
        async with watched(lever, world) as view:
            seen = lever.seen(view, target, Rules(), state, NOW)
            found.append(seen and seen.model_copy(update={"seen_since": 0.0}))
    return found


async def read_by_all(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[Path]]:
    seen: dict[str, set[Path]] = {}
    record = lambda kind, found: recorded(found, seen.setdefault(kind, set()))  # noqa: E731
    monkeypatch.setattr(watching, "kept", record)
    for kind in WORLDS:
        await observed(kind)
    return seen


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still: a removed pod is noted with its time."""
    monkeypatch.setattr(Clock, "now", lambda clock: NOW)


async def test_what_is_read_is_kept_and_what_is_kept_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads a field that the watch drops, and no field is kept that nobody reads."""
    seen = await read_by_all(monkeypatch)
    dropped = {kind: sorted(path for path in seen[kind] if missing(path, fields)) for kind, fields in KEPT.items()}
    assert not any(dropped.values()), dropped
    useless = {kind: [leaf for leaf in leaves(fields) if leaf not in seen[kind]] for kind, fields in KEPT.items()}
    assert not any(useless.values()), useless


@pytest.mark.parametrize("kind", WORLDS)
async def test_an_observation_of_the_kept_fields_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await observed(kind)
    monkeypatch.setattr(watching, "kept", lambda kind, found: found)
    assert seen == await observed(kind)
    assert all(each is not None and len(each.pods.old) + len(each.pods.new) > 3 for each in seen)


def test_what_is_not_kept_of_a_pod() -> None:
    """Managed fields, environment and volumes are most of a pod."""
    (pod, *_) = pods("chat-1")
    found = kept("pods", pod)
    assert "managedFields" not in found["metadata"] and "volumes" not in found["spec"]
    assert "env" not in found["spec"]["containers"][0] and found["spec"]["containers"][0]["name"] == "server"
    assert kept("deployments", pod) is pod
