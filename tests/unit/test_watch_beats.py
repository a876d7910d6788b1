"""What one watch of a rollout reports: an activity on objects that do not change."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.cluster import Cluster
from activities.levers.ownership import OWNER
from activities.levers.template import fingerprint
from activities.rollout import Activities
from segue.contract import Beat, Watched, WatchInput
from segue.decision import Act
from segue.observation import Version
from segue.spec import DeploymentTarget, Rules
from segue.state import Mark, State

TEMPLATE = {"metadata": {}, "spec": {"containers": [{"name": "server", "image": "chat:1"}]}}
OLD = Version(template=fingerprint(TEMPLATE))
NEW = Version(template="next")
FRESH = State(owner="us", baseline=OLD, wanted=NEW, mark=Mark(template=OLD.template))
OBJECTS: dict[str, list[dict[str, Any]]] = {
    "deployments": [
        {"metadata": {"name": "chat", "uid": "d", "annotations": {OWNER: "us"}},
         "spec": {"replicas": 1, "template": TEMPLATE, "strategy": {}}}
    ],
    "replicasets": [
        {"metadata": {"name": "chat-1", "uid": "r", "ownerReferences": [{"uid": "d", "controller": True}]},
         "spec": {"replicas": 1, "template": TEMPLATE}}
    ],
    "pods": [
        {"metadata": {"name": "chat-1-1", "uid": "p", "ownerReferences": [{"uid": "r", "controller": True}]},
         "spec": {"nodeName": "a"}, "status": {"phase": "Running", "conditions": [
             {"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-15T07:00:00Z"}]}}
    ],
}  # fmt: skip


class _Still(Cluster):
    """An API server whose objects never change."""

    async def pages(self, kind: str, namespace: str = "", fields: str = "") -> AsyncIterator[dict[str, Any]]:
        yield {"items": OBJECTS.get(kind, []), "metadata": {"resourceVersion": "1"}}

    async def watch(self, *_: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        await asyncio.Event().wait()
        yield "", {}


@pytest.mark.parametrize(
    ("state", "act", "beats"),
    [
        pytest.param(FRESH, Act.SCALE, 0, id="a move"),
        pytest.param(FRESH.but(paused="by ann"), Act.WAIT, 1, id="it waits until its attempt is over"),
    ],
)
async def test_a_decision_that_ends_the_watch_at_once_is_not_reported_in_a_heartbeat(
    state: State, act: Act, beats: int
) -> None:
    """The result reports it: a heartbeat would cost a request, and a write of Temporal's database."""
    sent: list[Beat] = []
    environment = ActivityEnvironment(cast("Any", SimpleNamespace(identity="7@here")))
    environment.on_heartbeat = lambda beat: sent.append(cast("Beat", beat))
    activities = Activities(_Still.__new__(_Still))
    target = DeploymentTarget(namespace="n", name="chat")
    request = WatchInput(target=target, rules=Rules(), state=state, attempt_s=0.3)
    try:
        watched: Watched = await environment.run(activities.await_ready, request)
    finally:
        await activities.close()
    assert watched.decision.act is act
    assert [beat.worker for beat in sent if beat.seen is not None] == ["7@here"] * beats
