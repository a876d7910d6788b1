"""Pods that ended: whose fault that is, and when a version has failed by them."""

from typing import Any

import pytest

from activities.ended_pods import Gone, read_ended, seconds_of
from segue.ended_pods import ended_problem, is_own, taken_at
from segue.messages import Resume, receive
from segue.observation import Cause, Problem
from segue.replica import Ended, Replica
from segue.state import State

SHORT = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 40Mi. "
ABOVE = "Container server was using 5Gi, request is 4Gi, has larger consumption of memory. "
OWN = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
REJECTED = "Pod was rejected: Allocate failed due to no healthy devices present"
FAULTS = [
    ("its own limit", {"reason": "Evicted", "message": OWN}, True),
    ("above its request", {"reason": "Evicted", "message": SHORT + ABOVE}, True),
    ("within its request", {"reason": "Evicted", "message": SHORT}, False),
    ("requests nothing", {"reason": "Evicted", "message": SHORT + ABOVE.replace("4Gi", "0")}, False),
    ("the node's pressure", {"reason": "Evicted", "message": "The node had condition: [DiskPressure]. "}, False),
    (
        "turned away by pressure",
        {"reason": "Evicted", "message": "Pod was rejected: The node had condition: [DiskPressure]. "},
        False,
    ),
    ("rejected", {"reason": "UnexpectedAdmissionError", "message": REJECTED}, True),
    ("out of", {"reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu"}, True),
    ("its own deadline", {"reason": "DeadlineExceeded"}, True),
    ("shut down", {"reason": "Terminated", "disruption": "TerminationByKubelet"}, False),
    ("rejected by a node that stops", {"reason": "NodeShutdown", "message": "Pod was rejected as ..."}, False),
    ("for a critical pod", {"reason": "Preempting", "disruption": "TerminationByKubelet"}, False),
    ("preempted", {"disruption": "PreemptionByScheduler"}, False),
    ("drained", {"disruption": "EvictionByEvictionAPI"}, False),
    ("lost", {"reason": "", "disruption": "DeletionByPodGC"}, False),
]


@pytest.mark.parametrize(("facts", "own"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_whose_fault_an_end_is(facts: dict[str, str], own: bool) -> None:
    """What the pod used or requested is its version's; what a node or somebody else did is not."""
    assert is_own(Ended("chat-a", **facts)) is own  # type: ignore[arg-type]


EVICTED, TURNED_AWAY = Ended("chat-a", "Evicted", OWN), Ended("chat-b", "UnexpectedAdmissionError", REJECTED)
NO_PLACE = Ended("chat-b", "OutOfcpu", "Node didn't have enough resource: cpu")
NO_PROFILE = Ended("chat-b", "AppArmor", "Pod was rejected: Cannot enforce AppArmor")
TAKEN = Ended("chat-c", disruption="PreemptionByScheduler", message="preempted")
WAITS, READY = Replica("chat-z", "v"), Replica("chat-z", "v", ready_since=50.0)


@pytest.mark.parametrize(
    ("ended", "replica", "allowed", "hopeless"),
    [
        pytest.param([EVICTED], READY, 0, True, id="an eviction counts like a restart, also while all are ready"),
        pytest.param([EVICTED] * 2, WAITS, 2, False, id="so many are allowed"),
        pytest.param([EVICTED] * 3, WAITS, 2, True, id="and no more"),
        pytest.param([EVICTED] * 3, WAITS, 3, False, id="of those that ran, as many as may restart"),
        pytest.param([TURNED_AWAY] * 2, WAITS, 0, False, id="a node that just began rejects some"),
        pytest.param([TURNED_AWAY] * 3, WAITS, 0, True, id="three in a row"),
        pytest.param([TURNED_AWAY] * 3, READY, 0, None, id="another one became ready since"),
        pytest.param([NO_PLACE] * 2, WAITS, 0, False, id="rejected, by its reason alone"),
        pytest.param([NO_PROFILE] * 2, WAITS, 0, False, id="rejected, by its message alone"),
        pytest.param([TAKEN] * 9, WAITS, 0, False, id="reported, and not held against it"),
        pytest.param([TAKEN] * 9, READY, 0, None, id="made good"),
        pytest.param([], WAITS, 0, None, id="none"),
    ],
)
def test_when_ends_fail_a_version(ended: list[Ended], replica: Replica, allowed: int, hopeless: bool | None) -> None:
    """A version whose pods keep ending is not proven, whatever is ready in between."""
    found = [each._replace(made_at=10.0) for each in ended]
    problem = ended_problem(found, [replica], allowed, began_at=10.4)
    assert (problem.hopeless if problem else None) is hopeless
    assert ended_problem(found, [replica], allowed, began_at=11.0) is None, "those are of an earlier rollout"


def test_a_resume_forgives_the_pods_that_ended_before() -> None:
    """Nothing else could: an ended pod stays one of this version, so the rollout would be held again at once."""
    failed = State(owner="us").failing(Problem(cause=Cause.ENDED, message=OWN), 90.0, roll_back=False)
    for state, counts in ((failed, True), (receive(Resume(), failed, 100.0), False)):
        assert (ended_problem([EVICTED], [READY], 0, state.judged_from) is not None) is counts
    paused = receive(Resume(), State(owner="us", paused="paused by her"), 100.0)
    assert ended_problem([EVICTED], [READY], 0, paused.judged_from), "it has not failed"


def test_it_is_told_with_its_message_and_the_litter() -> None:
    """The kubelet's words, how many there were, and how many Failed pods are left to delete."""
    problem = ended_problem([each._replace(is_left=True) for each in (TURNED_AWAY,) * 3], [WAITS], 0, 0.0)
    assert str(problem) == (
        f"Ended: chat-b: UnexpectedAdmissionError: {REJECTED}; 3 pods of this version ended so far; "
        "3 Failed pods of it remain"
    )
    two = ended_problem([EVICTED, EVICTED._replace(is_left=True)], [WAITS], 9, 0.0)
    assert two and two.message == (f"Evicted: {OWN}; 2 pods of this version ended so far; 1 Failed pod of it remains")
    bare = ended_problem([Ended("chat-d", message="")], [WAITS], 9, 0.0)
    assert bare and bare.message == "it ended", "whatever the API server leaves out"
    gently = ended_problem([TAKEN], [WAITS], 0, 0.0)
    assert gently and gently.message == "PreemptionByScheduler: preempted; that is not held against the version"


def pod(phase: str, *, stops: bool = False, disrupted: str = "") -> dict[str, Any]:
    taken = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:30Z"}
    conditions = [{**taken, "reason": disrupted}] if disrupted else []
    metadata = {"name": "chat-a", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {**metadata, **({"deletionTimestamp": "2026-01-01T00:01:00Z"} if stops else {})},
        "status": {"phase": phase, "reason": "Evicted", "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        (pod("Failed"), True),
        (pod("Failed", stops=True), False),
        (pod("Running", stops=True), False),
        (pod("Running", stops=True, disrupted="PreemptionByScheduler"), True),
        (pod("Succeeded"), False),
    ],
    ids=["failed", "stopped on request, and failed by that", "stops", "preempted", "ended well"],
)
def test_which_pods_ended(seen: dict[str, Any], counts: bool) -> None:
    """A pod that its controller stops ends as it should; one that is gone counts as it was seen last."""
    assert bool(read_ended([seen], ())) is counts
    assert [e.is_left for e in read_ended((), [Gone(seen, 1.0)])] == ([False] if counts else [])


def test_when_a_replica_was_taken_for_no_reason_of_its_own() -> None:
    """Its condition says when; a pod that is evicted for its own usage is not taken."""
    evicted = pod("Running", stops=True, disrupted="EvictionByEvictionAPI")
    assert taken_at(read_ended([evicted], ())) == seconds_of("2026-01-01T00:00:30Z")
    assert taken_at(read_ended((), [Gone(evicted, 1.0)])) == seconds_of("2026-01-01T00:00:30Z")
    own = EVICTED._replace(disruption="TerminationByKubelet", disrupted_at=9.0)
    assert taken_at([TAKEN._replace(disrupted_at=4.0), TAKEN._replace(disrupted_at=5.0), own]) == 5.0
    assert taken_at([]) == 0.0
