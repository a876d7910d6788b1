"""Which pods are missing, and whose events tell why, as far as an observation shows it."""

from typing import Any

import pytest

from activities.unmade import _Absent, _absent_of, _made_by
from segue.contract import WatchInput
from segue.observation import Counts, Observation, Side
from segue.replica import Pods, Replica
from segue.spec import KINDS, Rules
from segue.state import Goal, State

ON, OFF = Replica("chat-2", "v1", ready_since=1.0), Replica("chat-3", "v1")
PART = OFF._replace(lacks=1)


def absent(kind: str, old: tuple[Replica, ...], new: tuple[Replica, ...], more: dict[str, Any]) -> _Absent:
    """Return the answer where each side requests two replicas."""
    state = State(owner="us", goal=more.get("goal", Goal.FORWARD))
    named = {"resource": "ServingRuntime"} if kind == "Supervised" else {}
    target = KINDS[kind].model_validate({"kind": kind, "namespace": "a", "name": "chat", **named})
    request = WatchInput(target=target, rules=Rules(), attempt_s=1, state=state)
    two = Side(total=2)
    seen = Observation(
        replicas=4, old=two, new=two, requested=more.get("requested", Counts(2, 2)), template="v1",
        numbered=more.get("numbered", True), makers=more.get("makers", ()), pods=Pods(old, new),
    )  # fmt: skip
    return _absent_of(request, seen)


BACK = {"goal": Goal.BACK}
OPERATED = {"numbered": False, "makers": ("chat-predictor",), "requested": Counts(0, 4)}


@pytest.mark.parametrize(
    ("kind", "old", "new", "more", "expected"),
    [
        pytest.param("StatefulSet", (ON, OFF), (ON, OFF), {}, _Absent(), id="all are there"),
        pytest.param("StatefulSet", (ON, OFF), (ON,), {}, _Absent(1, 0, ("chat",)), id="a new one is missing"),
        pytest.param("StatefulSet", (ON,), (ON, OFF), {}, _Absent(0, 1, ("chat",)), id="an old one is lost"),
        pytest.param("StatefulSet", (), (ON, OFF), BACK, _Absent(2, 0, ("chat",)), id="old ones, on the way back"),
        pytest.param("LeaderWorkerSet", (ON, ON), (ON, OFF), {}, _Absent(), id="all pods of the groups are there"),
        pytest.param(
            "LeaderWorkerSet", (ON, ON), (ON, PART), {}, _Absent(1, 0, ("chat", "chat-3")), id="a group's worker"
        ),
        pytest.param("LeaderWorkerSet", (ON, ON), (ON,), {}, _Absent(1, 0, ("chat",)), id="a leader is missing"),
        pytest.param("Deployment", (), (), {"numbered": False}, _Absent(), id="a ReplicaSet has a condition"),
        pytest.param(
            "Supervised", (ON, ON), (), OPERATED, _Absent(4, makers=("chat-predictor",)), id="an operator's new ones"
        ),
        pytest.param("Supervised", (), (ON, ON, ON, OFF), OPERATED, _Absent(), id="an operator has made all of them"),
    ],
)
def test_what_is_missing(
    kind: str, old: tuple[Replica, ...], new: tuple[Replica, ...], more: dict[str, Any], expected: _Absent
) -> None:
    assert absent(kind, old, new, more) == expected


@pytest.mark.parametrize(
    ("name", "is_its"),
    [("chat-predictor-7d9f", True), ("chat-predictor", True), ("chat-predictor-canary-7d9f", False), ("chat", False)],
)
def test_events_of_an_operators_sets(name: str, is_its: bool) -> None:
    assert _made_by({"involvedObject": {"name": name}}, ("chat-predictor",)) is is_its
