"""Fake pods that become ready when a test lets them: a stage lasts as long as the test needs it to last."""

import asyncio
import json
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kubernetes import client
from watcher import is_live

if TYPE_CHECKING:
    from harness import Lab

NEVER_READY = {"mode": "never-ready"}
"""How the target is made; what is let is moved to the mode ``ready``."""
_LOOK_S = 0.1
_ALL = 1000


class Readiness:
    """Lets pods of one target become ready: of version 1 all, of other versions as many as the test says."""

    def __init__(self, lab: "Lab", name: str, old_image: str) -> None:
        self._lab, self._name, self._old = lab, name, old_image
        self._new = 0

    def let(self, new: int = _ALL) -> None:
        """Let so many replicas of other versions be ready, without an argument all of them."""
        self._new = new

    async def __aenter__(self) -> "Readiness":
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if error is None and not self._task.cancelled():
            self._task.result()

    async def _keep(self) -> None:
        while True:
            await asyncio.to_thread(self._mend)
            await asyncio.sleep(_LOOK_S)

    def _mend(self) -> None:
        read = self._lab.core.list_namespaced_pod
        found = read(self._lab.namespace, label_selector=f"app={self._name}", _preload_content=False)
        pods = [pod for pod in json.loads(found.data)["items"] if is_live(pod)]
        old = [pod for pod in pods if pod["spec"]["containers"][0]["image"] == self._old]
        # Of numbered replicas the highest go first.
        new = sorted((p for p in pods if p not in old), key=lambda p: str(p["metadata"]["name"]), reverse=True)
        may_be_ready = self._new - sum(map(_is_let, new))
        for pod in [*filter(_waits, old), *list(filter(_waits, new))[: max(0, may_be_ready)]]:
            try:
                self._lab.relabel(pod["metadata"]["name"], "ready")
            except client.ApiException as error:
                if error.status != 404:  # it has gone meanwhile
                    raise


def _is_let(pod: Any) -> bool:
    return bool(pod["metadata"]["labels"]["segue.dev/fake"] == "ready")


def _waits(pod: Any) -> bool:
    return not _is_let(pod)
