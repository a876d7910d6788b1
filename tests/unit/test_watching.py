"""What a watch remembers of pods that are not there any more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from activities.cluster import Cluster
from activities.ended import read_ended
from activities.watching import NamespaceWatch


def pod(phase: str, *, stops: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "chat-0", "uid": "u", "resourceVersion": "1"}
    return {"metadata": {**metadata, **({"deletionTimestamp": "..."} if stops else {})}, "status": {"phase": phase}}


class _Events:
    """The API server's answers, as recorded of a StatefulSet whose pod the kubelet rejects."""

    def __init__(self, *events: tuple[str, dict[str, Any]]) -> None:
        self._events = events

    async def list(self, kind: str, namespace: str) -> dict[str, Any]:
        return {"items": [], "metadata": {"resourceVersion": "1"}}

    async def watch(self, kind: str, namespace: str, version: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        for event in self._events:
            yield event
        await asyncio.Event().wait()


async def test_a_pod_that_ended_is_remembered_though_its_controller_deletes_it_at_once() -> None:
    """The deletion is shown before the pod is gone, and then looks like that of any pod which was told to stop."""
    failed, stopped = pod("Failed"), pod("Failed", stops=True)
    events = _Events(("ADDED", pod("Running")), ("MODIFIED", failed), ("MODIFIED", stopped), ("DELETED", stopped))
    watch = NamespaceWatch(cast("Cluster", events), "n", ("pods",))
    watch.start()
    while not watch.gone:
        await watch.changed(1.0)
    await watch.stop()
    assert [e.name for e in read_ended((), watch.gone)] == ["chat-0"]
