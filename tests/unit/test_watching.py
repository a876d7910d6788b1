"""What a watch tells: gaps of its own process, and pods that are no longer there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from activities.cluster import Cluster
from activities.ended_pods import read_ended
from activities.watching import GAP_S, PULSE_S, Clocks, NamespaceWatch

BEFORE = Clocks(monotonic=100.0, wall=5_000.0)


@pytest.mark.parametrize(
    ("monotonic_s", "wall_s", "gap"),
    [
        pytest.param(PULSE_S, PULSE_S, False, id="runs"),
        pytest.param(GAP_S, GAP_S, False, id="slow"),
        pytest.param(10.0, 10.0, True, id="frozen"),
        pytest.param(PULSE_S, 3_600.0, True, id="suspended-machine"),
        pytest.param(PULSE_S, 600.0, True, id="clock-set-forward"),
        pytest.param(PULSE_S, -600.0, True, id="clock-set-back"),
    ],
)
def test_a_gap_is_told_by_both_clocks(monotonic_s: float, wall_s: float, gap: bool) -> None:
    """Either clock tells: one stands still in a suspended machine, the other can be set."""
    now = Clocks(BEFORE.monotonic + monotonic_s, BEFORE.wall + wall_s)
    assert now.is_gap(BEFORE) is gap


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
