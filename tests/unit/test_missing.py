"""Pods that a quota, or a webhook that does not answer, keeps away: no fault of their version, and no deadline."""

from datetime import UTC, datetime
from typing import Any

import pytest

from activities.levers.deployment.reading import HOLD_MIN_READY_S, Objects
from activities.levers.deployment.reading import read as read_deployment
from activities.levers.ownership import BASELINE, OWNER, REPLICAS
from activities.levers.pair.reading import Baseline, Pair, read
from activities.levers.template import fingerprint
from segue.decide import decide
from segue.decision import Act
from segue.hindrance import Hindrance
from segue.missing import Missing, with_kept_away, with_missing
from segue.observation import Counts, Observation, Side, Version
from segue.spec import Rules
from segue.state import State

NOW = 1_800_000_000.0
QUOTA = 'pods "chat-x" is forbidden: exceeded quota: best, requested: pods=1, used: pods=4, limited: pods=4'
WEBHOOK = 'Internal error occurred: failed calling webhook "a.b.c": dial tcp: connection refused'
RULES = Rules.model_validate({"strategy": {"maxSurge": 1}, "readiness": {"minReady": "0s", "deadline": "60s"}})
IN_PLACE = Rules.model_validate({**dict(RULES), "strategy": {"maxSurge": 0, "maxUnavailable": 1}})
POLICY = "pods \"chat-x\" is forbidden: ValidatingAdmissionPolicy 'signed' with binding 'signed' denied request: no"
SECURE = 'pods "chat-x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
ACCOUNT = 'pods "chat-x" is forbidden: error looking up service account serving/chat: serviceaccount "chat" not found'
DENIED = 'admission webhook "a.b.c" denied the request: no'
OLD, NEW, MISSING = 4, 1, 1


def template(version: int) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "chat"}}, "spec": {"containers": [{"name": "c", "image": f"c:{version}"}]}}


def deployment(name: str, replicas: int, version: int, observed: int = 1, **spec: Any) -> dict[str, Any]:
    saved = Baseline(old=OLD, new=0, name="chat-next", made=True, ready=OLD).model_dump_json()
    annotations = {OWNER: "us", BASELINE: saved, REPLICAS: str(OLD)}
    written = [{"manager": "segue", "operation": "Update", "time": timestamp(NOW - 60)}]
    metadata = {"name": name, "uid": name, "generation": 1, "annotations": annotations, "managedFields": written}
    spec = {"replicas": replicas, "template": template(version), "selector": {}, **spec}
    status = {"observedGeneration": observed}
    return {"kind": "Deployment", "metadata": metadata, "spec": spec, "status": status}


def replicaset(name: str, owner: str, replicas: int, version: int) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True}]
    return {
        "metadata": {"uid": name, "name": name, "ownerReferences": owners},
        "spec": {"replicas": replicas, "template": template(version)},
    }


def pods_of(owner: str, number: int) -> list[dict[str, Any]]:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    owners = [{"uid": owner, "controller": True}]
    return [
        {"metadata": {"name": f"{owner}-{n}", "ownerReferences": owners}, "status": {"conditions": [ready]}}
        for n in range(number)
    ]


def timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def failing(replicaset: dict[str, Any], why: str, since: float) -> dict[str, Any]:
    if not why:
        return replicaset
    condition = {"type": "ReplicaFailure", "status": "True", "message": why, "lastTransitionTime": timestamp(since)}
    return {**replicaset, "status": {"conditions": [condition]}}


def known() -> State:
    old, new = (Version(template=fingerprint(template(version))) for version in (1, 2))
    return State(owner="us", claimed=True).after_prepare(old, new, NOW - 60).but(progress_at=NOW - 30)


def of_deployment(why: str, since: float, observed: int = 1) -> Observation:
    """(4, 1) of 4, and the controller cannot create the new pod."""
    old, new = replicaset("v1", "chat", OLD, 1), replicaset("v2", "chat", NEW, 2)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    found = deployment("chat", OLD, 2, observed, paused=True, strategy=rolling, minReadySeconds=HOLD_MIN_READY_S)
    return read_deployment(Objects(found, [old, failing(new, why, since)], pods_of("v1", OLD)), RULES, known(), NOW)


def of_pair(why: str, since: float, observed: int = 1) -> Observation:
    """The same of a pair."""
    old, new = replicaset("v1", "chat", OLD, 1), replicaset("v2", "chat-next", NEW, 2)
    sides = deployment("chat", OLD, 1), deployment("chat-next", NEW, 2, observed)
    left, right = Objects(sides[0], [old], pods_of("v1", OLD)), Objects(sides[1], [failing(new, why, since)], [])
    return read(Pair(left, right), RULES, known(), NOW)


@pytest.mark.parametrize("seen", [of_deployment, of_pair])
def test_a_full_quota_is_a_lack_of_room(seen: Any) -> None:
    """The rollout holds for room, however long ago the deadline was, and the reason names the quota."""
    found = seen(QUOTA, NOW - 20)
    assert (found.unplaced, found.unplaced_since, found.hindered) == (MISSING, NOW - 20, 0)
    decision = decide(RULES, known().but(progress_at=NOW - 300), found, NOW)
    assert decision.act is Act.CROWDED and "exceeded quota: best" in decision.why, decision


def of_pods(left_pod: dict[str, Any], right_pod: dict[str, Any], state: State) -> tuple[Observation, Observation]:
    """(3, 1) of 4, without a surge, as a Deployment and as a pair, with one more pod of each side."""
    old, new = replicaset("v1", "chat", OLD - 1, 1), replicaset("v2", "chat", 1, 2)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    found = deployment("chat", OLD, 2, paused=True, strategy=rolling, minReadySeconds=HOLD_MIN_READY_S)
    there = [*pods_of("v1", OLD - 1), left_pod]
    sides = deployment("chat", OLD - 1, 1), deployment("chat-next", 1, 2)
    left, right = Objects(sides[0], [old], there), Objects(sides[1], [new], [right_pod])
    return (
        read_deployment(Objects(found, [old, new], [*there, right_pod]), IN_PLACE, state, NOW),
        read(Pair(left, right), IN_PLACE, state, NOW),
    )


def pod_of(owner: str, *, pending: bool = False, **metadata: Any) -> dict[str, Any]:
    lacks = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient gpu",
             "lastTransitionTime": timestamp(NOW - 60)}  # fmt: skip
    owners = [{"uid": owner, "controller": True}]
    return {
        "metadata": {
            "name": f"{owner}-x", "generateName": f"{owner}-", "uid": "x", "ownerReferences": owners, **metadata,
        },
        "spec": {}, "status": {"phase": "Pending" if pending else "Running", "conditions": [lacks] * pending},
    }  # fmt: skip


@pytest.mark.parametrize(("late_s", "is_stuck"), [(20.0, True), (3.0, False), (-20.0, False)])
def test_a_pod_that_never_goes_keeps_its_place(late_s: float, is_stuck: bool) -> None:
    """The rollout holds and names it, however long ago the deadline was; on the way back it is named, too."""
    gone_at: dict[str, Any] = {"deletionTimestamp": timestamp(NOW - late_s), "finalizers": ["example.org/keep"]}
    going, pending = pod_of("v1", **gone_at), pod_of("v2", pending=True)
    late = known().but(progress_at=NOW - 300)
    told = f"v1-x: was to be gone by {gone_at['deletionTimestamp']}, and still exists; its finalizers keep it: "
    for found in of_pods(going, pending, state=late):
        assert found.hindrance == (f"{told}example.org/keep" if is_stuck else "")
        assert found.problem is not None and (told in str(found.problem)) is is_stuck
        assert (decide(IN_PLACE, late, found, NOW).act is Act.CROWDED) is is_stuck
    for found in of_pods(going, pod_of("v2"), state=late):
        assert not found.hindrance and told not in str(found.problem), "nothing waits for room"


def in_place_of_deployment(why: str) -> Observation:
    """(3, 1) of 4, without a surge, and the controller cannot create the new pod."""
    old, new = replicaset("v1", "chat", OLD - 1, 1), failing(replicaset("v2", "chat", 1, 2), why, NOW - 20)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    found = deployment("chat", OLD, 2, paused=True, strategy=rolling, minReadySeconds=HOLD_MIN_READY_S)
    return read_deployment(Objects(found, [old, new], pods_of("v1", OLD - 1)), IN_PLACE, known(), NOW)


def in_place_of_pair(why: str) -> Observation:
    """The same of a pair."""
    old, new = replicaset("v1", "chat", OLD - 1, 1), failing(replicaset("v2", "chat-next", 1, 2), why, NOW - 20)
    sides = deployment("chat", OLD - 1, 1), deployment("chat-next", 1, 2)
    left = Objects(sides[0], [old], pods_of("v1", OLD - 1))
    return read(Pair(left, Objects(sides[1], [new], [])), IN_PLACE, known(), NOW)


@pytest.mark.parametrize("seen", [in_place_of_deployment, in_place_of_pair])
def test_a_quota_that_has_no_room_in_the_place_of_an_old_replica(seen: Any) -> None:
    """A rollback would not find room either: the rollout holds, however long ago the deadline was."""
    late = known().but(progress_at=NOW - 300)
    decision = decide(IN_PLACE, late, seen(QUOTA), NOW)
    assert decision.act is Act.CROWDED and "exceeded quota: best" in decision.why, decision
    assert decide(IN_PLACE, late, seen(DENIED), NOW).act is Act.FAIL


@pytest.mark.parametrize("seen", [of_deployment, of_pair])
def test_a_webhook_that_does_not_answer_is_in_the_way(seen: Any) -> None:
    """At first it may pass; then the rollout holds, however long ago the deadline was."""
    assert decide(RULES, known(), seen(WEBHOOK, NOW - 1), NOW).act is Act.WAIT
    found = seen(WEBHOOK, NOW - 20)
    assert (found.unplaced, found.hindered) == (0, MISSING)
    decision = decide(RULES, known().but(progress_at=NOW - 300), found, NOW)
    assert decision.act is Act.CROWDED and "failed calling webhook" in decision.why, decision


@pytest.mark.parametrize("seen", [of_deployment, of_pair])
def test_what_a_policy_refuses_is_late(seen: Any) -> None:
    """A policy that denies the pod may deny each of this version."""
    found = seen('admission webhook "a.b.c" denied the request: no', NOW - 20)
    assert (found.unplaced, found.hindered) == (0, 0)
    assert decide(RULES, known().but(progress_at=NOW - 300), found, NOW).act is Act.FAIL


def both_of_deployment(why: str, other: str) -> Observation:
    """(4, 1) of 4: the controller cannot create the new pod, and not one of the old ones."""
    old, new = (
        failing(replicaset(f"v{n}", "chat", number, n), text, NOW - 20)
        for n, (number, text) in enumerate(((OLD, other), (NEW, why)), 1)
    )
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    found = deployment("chat", OLD, 2, paused=True, strategy=rolling, minReadySeconds=HOLD_MIN_READY_S)
    return read_deployment(Objects(found, [old, new], pods_of("v1", OLD - 1)), RULES, known(), NOW)


def both_of_pair(why: str, other: str) -> Observation:
    """The same of a pair."""
    old = failing(replicaset("v1", "chat", OLD, 1), other, NOW - 20)
    new = failing(replicaset("v2", "chat-next", NEW, 2), why, NOW - 20)
    left = Objects(deployment("chat", OLD, 1), [old], pods_of("v1", OLD - 1))
    return read(Pair(left, Objects(deployment("chat-next", NEW, 2), [new], [])), RULES, known(), NOW)


@pytest.mark.parametrize("seen", [both_of_deployment, both_of_pair])
@pytest.mark.parametrize("why", [DENIED, POLICY, SECURE, ACCOUNT], ids=["webhook", "policy", "pod-security", "account"])
def test_what_a_policy_refuses_of_both_versions_is_no_fault_of_the_new_one(seen: Any, why: str) -> None:
    """The rollout holds, however long ago the deadline was; another policy that refuses old pods is no excuse."""
    late = known().but(progress_at=NOW - 300)
    decision = decide(RULES, late, seen(why, why.replace("chat-x", "chat-y")), NOW)
    assert decision.act is Act.CROWDED and "this keeps pods of both versions away" in decision.why, decision
    assert decide(RULES, late, seen(why, 'admission webhook "other" denied the request: no'), NOW).act is Act.FAIL


def test_what_else_is_in_the_way_is_named_first() -> None:
    there, missing = Hindrance(2, "a: its node does not answer"), [Missing(3, WEBHOOK, NOW - 20)]
    assert with_kept_away(there, missing, 60, NOW) == Hindrance(5, there.hindrance)
    assert with_kept_away(there, [Missing(3, QUOTA, NOW - 20)], 60, NOW) == there


def numbered(missing: str, why: str, since: float) -> Observation:
    """Of 4 replicas, one is missing, and its controller tells why in events: a new one, or a lost old one."""
    is_new = missing == "new"
    old = Side(total=3, ready=3, proven=3) if is_new else Side(total=4, ready=3, proven=3)
    new = Side(total=int(is_new))
    seen = Observation(
        replicas=4, old=old, new=new, requested=Counts(old.total, new.total), template=known().wanted.template,
        owner="us", engaged=True, numbered=True,
    )  # fmt: skip
    there = Missing(1, why, since)
    return with_missing(seen, there if is_new else None, None if is_new else there, 60, NOW)


@pytest.mark.parametrize("missing", ["new", "old"])
@pytest.mark.parametrize("why", [QUOTA, WEBHOOK])
def test_no_replica_can_be_created_under_a_number(missing: str, why: str) -> None:
    """A quota has no room for an old replica in its place either: the rollout holds, and no deadline runs."""
    late = known().but(progress_at=NOW - 300)
    assert decide(IN_PLACE, known(), numbered(missing, why, NOW - 1), NOW).act is Act.WAIT
    decision = decide(IN_PLACE, late, numbered(missing, why, NOW - 20), NOW)
    assert decision.act is Act.CROWDED and why in decision.why, decision


def test_a_denied_replica_under_a_number_is_late() -> None:
    decision = decide(IN_PLACE, known().but(progress_at=NOW - 300), numbered("new", DENIED, NOW - 20), NOW)
    assert decision.act is Act.FAIL and DENIED in decision.why, decision
    lost = decide(IN_PLACE, known().but(progress_at=NOW - 300), numbered("old", DENIED, NOW - 20), NOW)
    assert lost.act is Act.CROWDED and DENIED in lost.why, lost


@pytest.mark.parametrize("seen", [of_deployment, of_pair])
def test_a_controller_that_does_not_act_is_in_the_way(seen: Any) -> None:
    """It is down, or cannot write what it has to: no deadline runs, and the reason names the Deployment."""
    found = seen("", NOW, observed=0)
    assert found.inert and found.problem is not None and found.problem.message == found.hindrance
    decision = decide(RULES, known().but(progress_at=NOW - 300), found, NOW)
    assert decision.act is Act.CROWDED, decision
    moves = found.model_copy(update={"new": Side(total=1, ready=1, proven=1)})
    assert decide(RULES, known(), moves, NOW).act is Act.CROWDED, "a move would have no effect"
    assert decide(RULES, known(), moves.model_copy(update={"inert": False}), NOW).act is Act.SCALE
    assert "the controller of deployment chat" in decision.why and "has not acted on its spec for 60 s" in decision.why
    assert not seen("", NOW).inert
