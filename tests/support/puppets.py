"""Writes the status of pods with the label ``segue.dev/fake: puppet`` as a kubelet does, in ways that KWOK cannot.

The text after the dash in the first container's tag is the behaviour: ``chat:2-evict.4`` is evicted 4 s after Ready.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from kube_api import create
from kubernetes import client

PUPPET = "puppet"
_TICK_S = 0.2
EVICTED = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
REJECTED = "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices gpu"
CACHE = "failed to sync secret cache: timed out waiting for the condition"
ABSENT = 'secret "model-token" not found'
BUSY = "failed to pull and unpack image: unexpected status from GET request: 429 Too Many Requests"
BACK_OFF = f'Back-off pulling image "example/chat": ErrImagePull: {BUSY}'
ATTACHED = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) another'

Object = dict[str, Any]


@contextlib.contextmanager
def puppets(core: client.CoreV1Api, namespace: str) -> Iterator[None]:
    """Run all puppets of a namespace during the block."""
    player = _Player(core, namespace)
    thread = threading.Thread(target=player.play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        player.over.set()
        thread.join(timeout=15)
    if player.error is not None:
        raise player.error


def lose_node(core: client.CoreV1Api, pod: Any) -> None:
    """Write only what the node lifecycle controller writes for a pod on a node that does not answer."""
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": _now(), "reason": None, "message": None}
    core.patch_namespaced_pod_status(pod.metadata.name, pod.metadata.namespace, {"status": {"conditions": [ready]}})


class _Player:
    def __init__(self, core: client.CoreV1Api, namespace: str) -> None:
        self._core, self._namespace = core, namespace
        self._begun: dict[str, float] = {}
        self._done: set[tuple[str, str]] = set()
        self.over = threading.Event()
        self.error: BaseException | None = None

    def play(self) -> None:
        try:
            while not self.over.wait(_TICK_S):
                for pod in self._core.list_namespaced_pod(
                    self._namespace, label_selector=f"segue.dev/fake={PUPPET}"
                ).items:
                    if _is_alive(pod):
                        self._step(pod)
        except BaseException as error:
            self.error = error

    def _step(self, pod: Any) -> None:
        age_s = time.monotonic() - self._begun.setdefault(pod.metadata.uid, time.monotonic())
        mode, _, after = pod.spec.containers[0].image.rpartition(":")[2].partition("-")[2].partition(".")
        after_s = float(after or 0)
        match mode:
            case "":
                self._once(pod, "ready", age_s > 0.3, _ready(pod))
            case "evict":
                self._once(pod, "ready", age_s > 0.3, _ready(pod))
                if age_s > after_s:
                    self._write(pod, {"phase": "Failed", "reason": "Evicted", "message": EVICTED})
            case "reject":
                if age_s > 0.2:
                    self._write(pod, {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": REJECTED})
            case "config":
                self._once(pod, "waits", True, _waiting(pod, "CreateContainerConfigError", CACHE))
                self._once(pod, "ready", age_s > after_s, _ready(pod))
            case "absent":
                self._once(pod, "waits", True, _waiting(pod, "CreateContainerConfigError", ABSENT))
                self._once(pod, "ready", age_s > after_s, _ready(pod))
            case "pull":
                self._once(pod, "fails", True, _waiting(pod, "ErrImagePull", BUSY))
                self._once(pod, "waits", age_s > after_s / 2, _waiting(pod, "ImagePullBackOff", BACK_OFF))
                self._once(pod, "ready", age_s > after_s, _ready(pod))
            case "beside":
                self._once(pod, "runs", age_s > 0.3, _unready_beside(pod))
            case "gate":
                gates = {each.condition_type for each in pod.spec.readiness_gates}
                true = {each.type for each in pod.status.conditions if each.status == "True"}
                self._once(pod, "waits", True, _gated(pod, *sorted(gates)))
                self._once(pod, "ready", gates <= true, _ready(pod))
            case "mount":
                if self._once(pod, "waits", True, _waiting(pod, "ContainerCreating", "")):
                    self._event(pod, "FailedAttachVolume", ATTACHED)

    def _once(self, pod: Any, stage: str, is_due: bool, status: Object) -> bool:
        key = (pod.metadata.uid, stage)
        if not is_due or key in self._done or not self._write(pod, status):
            return False
        self._done.add(key)
        return True

    def _write(self, pod: Any, status: Object) -> bool:
        body = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        try:
            self._core.patch_namespaced_pod_status(pod.metadata.name, self._namespace, body)
        except client.ApiException as error:
            if error.status not in {404, 409}:  # deleted, or another pod has its name
                raise
            return False
        return True

    def _event(self, pod: Any, reason: str, message: str) -> None:
        metadata = pod.metadata
        involved = {"kind": "Pod", "namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid}
        body = {
            "metadata": {"generateName": "puppet-"}, "type": "Warning", "reason": reason, "message": message,
            "involvedObject": involved, "firstTimestamp": _now(), "lastTimestamp": _now(), "count": 1,
        }  # fmt: skip
        create(self._core.create_namespaced_event, self._namespace, body)


def _is_alive(pod: Any) -> bool:
    """Return whether KWOK has started the pod, and nothing has ended it."""
    begun = any(c.type == "segue.dev/Fake" for c in pod.status.conditions or [])
    return begun and pod.metadata.deletion_timestamp is None and pod.status.phase not in {"Failed", "Succeeded"}


def _ready(pod: Any) -> Object:
    running = {"running": {"startedAt": _now()}, "waiting": None}
    return {
        "phase": "Running",
        "conditions": _conditions(ready=True),
        "containerStatuses": _containers(pod, running, ready=True),
    }


def _gated(pod: Any, gate: str) -> Object:
    """Return the status of a pod whose containers are ready, and whose readiness gate is not."""
    message = f'corresponding condition of pod readiness gate "{gate}" does not exist.'
    false = {"status": "False", "reason": "ReadinessGatesNotReady", "message": message}
    status = _ready(pod)
    return {**status, "conditions": [{**c, **(false if c["type"] == "Ready" else {})} for c in status["conditions"]]}


def _unready_beside(pod: Any) -> Object:
    """Return the status of a pod whose last container is not ready, and all others are."""
    *others, last = _ready(pod)["containerStatuses"]
    message = f"containers with unready status: [{last['name']}]"
    conditions = [{**c, "reason": "ContainersNotReady", "message": message} for c in _conditions(ready=False)]
    statuses = [*others, {**last, "ready": False}]
    return {"phase": "Running", "conditions": conditions, "containerStatuses": statuses}


def _waiting(pod: Any, reason: str, message: str) -> Object:
    waiting = {"waiting": {"reason": reason, "message": message}, "running": None}
    return {"phase": "Pending", "containerStatuses": _containers(pod, waiting, ready=False)}


def _conditions(*, ready: bool) -> list[Object]:
    fields = {"status": "True", "reason": None, "message": None} if ready else {"status": "False"}
    return [{"type": kind, "lastTransitionTime": _now(), **fields} for kind in ("ContainersReady", "Ready")]


def _containers(pod: Any, state: Object, *, ready: bool) -> list[Object]:
    return [
        {
            "name": c.name, "image": c.image, "imageID": "", "ready": ready, "started": ready, "restartCount": 0,
            "lastState": {}, "state": state,
        }
        for c in pod.spec.containers
    ]  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
