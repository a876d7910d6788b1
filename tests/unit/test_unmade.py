"""Which StatefulSets cannot create a pod, as far as an observation shows it."""

from typing import Any

import pytest

from activities.unmade import _sets_of
from segue.contract import WatchInput
from segue.observation import Counts, Observation, Side
from segue.replica import Pods, Replica
from segue.spec import KINDS, Rules
from segue.state import Goal, State

ON, OFF = Replica("chat-2", "v1", ready_since=1.0), Replica("chat-3", "v1")


def named(kind: str, old: tuple[Replica, ...], new: tuple[Replica, ...], more: dict[str, Any]) -> tuple[str, ...]:
    """Return the answer where each side requests two replicas."""
    state = State(owner="us", goal=more.get("goal", Goal.FORWARD))
    request = WatchInput(
        target=KINDS[kind](kind=kind, namespace="a", name="chat"), rules=Rules(), attempt_s=1, state=state
    )
    two = Side(total=2)
    seen = Observation(
        replicas=4, old=two, new=two, asked=Counts(2, 2), template="v1", numbered=more.get("numbered", True),
        pods=Pods(old, new),
    )  # fmt: skip
    return _sets_of(request, seen)


@pytest.mark.parametrize(
    ("kind", "old", "new", "more", "names"),
    [
        pytest.param("StatefulSet", (), (ON, OFF), {}, (), id="all are there"),
        pytest.param("StatefulSet", (), (ON,), {}, ("chat",), id="a new one is missing"),
        pytest.param("StatefulSet", (), (ON, OFF), {"goal": Goal.BACK}, ("chat",), id="an old one, on the way back"),
        pytest.param("LeaderWorkerSet", (), (ON, ON), {}, (), id="all groups are ready"),
        pytest.param("LeaderWorkerSet", (), (ON, OFF), {}, ("chat", "chat-3"), id="a group's workers"),
        pytest.param("LeaderWorkerSet", (), (ON,), {}, ("chat",), id="a leader is missing"),
        pytest.param("Deployment", (), (), {"numbered": False}, (), id="a ReplicaSet has a condition"),
    ],
)
def test_the_events_of_these_sets_are_read(
    kind: str, old: tuple[Replica, ...], new: tuple[Replica, ...], more: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert named(kind, old, new, more) == names
