"""Fake pods that become ready only when a test allows it, so that a stage lasts as long as the test needs."""

import functools
import threading
from typing import TYPE_CHECKING, Any

from kubernetes import client
from watcher import Stream, is_live, is_ready

if TYPE_CHECKING:
    from harness import Lab

NEVER_READY = {"mode": "never-ready"}
"""The settings of the target: a pod that may become ready is moved to the mode ``ready``."""
_ALL = 1000


class Readiness:
    """Lets pods of one target become ready: all of version 1, and the number that the test sets of others."""

    def __init__(self, lab: "Lab", name: str, old_image: str) -> None:
        self._lab, self._old = lab, old_image
        self._new = 0
        self._moved: set[str] = set()
        """The uids of the pods that were moved to the mode ``ready``."""
        self._lock = threading.Lock()
        read = functools.partial(lab.core.list_namespaced_pod, lab.namespace)
        self._pods = Stream(read, f"app={name}", lambda _: self._move())

    def __enter__(self) -> "Readiness":
        self._pods.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._pods.stop()
        assert self._pods.error is None, self._pods.error

    @property
    def ready(self) -> int:
        """Return the number of ready pods."""
        return sum(map(is_ready, list(self._pods.objects.values())))

    def let(self, new: int = _ALL) -> None:
        """Set how many replicas of other versions may be ready; by default all."""
        self._new = new
        self._move()

    def _move(self) -> None:
        with self._lock:
            pods = [pod for pod in list(self._pods.objects.values()) if is_live(pod)]
            old = [pod for pod in pods if pod["spec"]["containers"][0]["image"] == self._old]
            # Numbered replicas: the highest first.
            new = sorted((p for p in pods if p not in old), key=lambda p: str(p["metadata"]["name"]), reverse=True)
            waiting = [pod for pod in new if not self._was_moved(pod)]
            places = max(0, self._new - (len(new) - len(waiting)))
            for pod in [*(p for p in old if not self._was_moved(p)), *waiting[:places]]:
                self._make_ready(pod["metadata"])

    def _was_moved(self, pod: Any) -> bool:
        return pod["metadata"]["uid"] in self._moved

    def _make_ready(self, metadata: Any) -> None:
        self._moved.add(metadata["uid"])
        try:
            self._lab.relabel(metadata["name"], "ready")
        except client.ApiException as error:
            if error.status != 404:  # deleted meanwhile
                raise
