"""What the judge observes: every event of the pods and of the target, through any outage of the API server."""

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from subjects import Subject
from watcher import is_live, is_ready

from weather.judge import Moment, Pod, Requested, Size

_AGAIN_S = 0.1
_CATCH_UP_S = 60.0
REPLICAS = "segue.dev/replicas"
"""Where a pair keeps its replicas."""
DRAINING = "Draining"
"""The reason of the Ready condition of a pod that Segue takes out of its Services."""


class Follower:
    """Lists and watches one kind in one namespace, and lists again after each error."""

    def __init__(
        self, read: Callable[..., Any], selector: str, on_event: Callable[[str, dict[str, Any], int], None]
    ) -> None:
        self._read = functools.partial(read, label_selector=selector, _preload_content=False)
        self._on_event, self._stopping = on_event, False
        self._response: Any = None
        self.objects: dict[str, Any] = {}
        self._list()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Observe all that there is now, then stop."""
        ends = time.monotonic() + _CATCH_UP_S
        while not self._is_current():
            assert time.monotonic() < ends, "the watcher did not catch up"
            time.sleep(_AGAIN_S)
        self._stopping = True
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # no stream is open
            self._response.shutdown()
        self._thread.join(timeout=40)

    def _is_current(self) -> bool:
        try:
            there = {_name(each): _version(each) for each in self._listed()["items"]}
        except Exception:
            return False
        return there == {_name(each): _version(each) for each in list(self.objects.values())}

    def _listed(self) -> Any:
        return json.loads(self._read(_request_timeout=10).data)

    def _list(self) -> str:
        found = self._listed()
        self.objects = {_name(each): each for each in found["items"]}
        version = str(found["metadata"]["resourceVersion"])
        self._on_event("list", self.objects, int(version))
        return version

    def _follow(self) -> None:
        while not self._stopping:
            try:
                self._watch(self._list())
            except Exception:  # an outage is what this is for
                time.sleep(_AGAIN_S)

    def _watch(self, version: str) -> None:
        while not self._stopping:
            self._response = self._read(resource_version=version, watch=True, timeout_seconds=20, _request_timeout=30)
            rest = b""
            for chunk in self._response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, map(bytes.strip, lines)):
                    version = self._take(json.loads(line))

    def _take(self, event: Any) -> str:
        found = event["object"]
        if event["type"] == "ERROR":
            raise RuntimeError(str(found))
        if event["type"] == "DELETED":
            self.objects.pop(_name(found), None)
        else:
            self.objects[_name(found)] = found
        self._on_event(f"{event['type']} {_name(found)}", self.objects, int(_version(found)))
        return _version(found)


class Eyes:
    """All moments of the pods of a target, and its requested replicas."""

    def __init__(self, subject: Subject, replicas: int) -> None:
        lab, self._kind = subject.lab, subject.kind
        self._names = {subject.name, f"{subject.name}-next"}
        self.moments: list[Moment] = []
        self.sizes = [Size(time.monotonic(), replicas)]
        self._pods = Follower(
            functools.partial(lab.core.list_namespaced_pod, lab.namespace), subject.selector, self._see_pods
        )
        self._target = Follower(_reading(subject), "", self._see_target)
        self.requested: list[Requested] = []
        self._sets = Follower(
            functools.partial(lab.apps.list_namespaced_replica_set, lab.namespace), subject.selector, self._see_sets
        )

    def close(self) -> None:
        """Observe the last events, and stop."""
        for each in (self._pods, self._target, self._sets):
            each.stop()

    @property
    def pods(self) -> list[Any]:
        """The live pods."""
        return [pod for pod in list(self._pods.objects.values()) if is_live(pod)]

    def _see_pods(self, event: str, found: dict[str, Any], revision: int) -> None:
        pods = {p["metadata"]["uid"]: _pod(p) for p in found.values()}
        self.moments.append(Moment(time.monotonic(), pods, event, revision))

    def _see_sets(self, _: str, found: dict[str, Any], revision: int) -> None:
        replicas = {each["metadata"]["uid"]: int(each["spec"]["replicas"]) for each in found.values()}
        self.requested.append(Requested(revision, replicas))

    def _see_target(self, _: str, targets: dict[str, Any], __: int) -> None:
        found = self._replicas([each for name, each in targets.items() if name in self._names])
        if found is not None and found != self.sizes[-1].replicas:
            self.sizes.append(Size(time.monotonic(), found))

    def _replicas(self, targets: list[Any]) -> int | None:
        if self._kind != "DeploymentPair":
            return int(targets[0]["spec"]["replicas"]) if targets else None
        kept = [t["metadata"].get("annotations", {}).get(REPLICAS) for t in targets]
        if not any(kept) and len(targets) == 1:  # before the first move
            return int(targets[0]["spec"]["replicas"])
        return next((int(each) for each in kept if each), None)


def _reading(subject: Subject) -> Callable[..., Any]:
    lab = subject.lab
    custom = {
        "LeaderWorkerSet": ("leaderworkerset.x-k8s.io", "v1", lab.namespace, "leaderworkersets"),
        "Supervised": ("serving.kserve.io", "v1alpha1", lab.namespace, "servingruntimes"),
    }
    if subject.kind in custom:
        return functools.partial(lab.custom.list_namespaced_custom_object, *custom[subject.kind])
    apps = lab.apps
    read = apps.list_namespaced_stateful_set if subject.kind == "StatefulSet" else apps.list_namespaced_deployment
    return functools.partial(read, lab.namespace)


def _pod(pod: Any) -> Pod:
    live = is_live(pod)
    image = str(pod["spec"]["containers"][0]["image"])
    owner = next((each["uid"] for each in pod["metadata"].get("ownerReferences", []) if each.get("controller")), "")
    return Pod(image.rpartition(":")[2], live and is_ready(pod), live, _is_drained(pod), _name(pod), owner)


def _is_drained(pod: Any) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each.get("reason") == DRAINING for each in conditions)


def _name(found: Any) -> str:
    return str(found["metadata"]["name"])


def _version(found: Any) -> str:
    return str(found["metadata"]["resourceVersion"])
