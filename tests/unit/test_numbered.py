"""A numbered target: when its controller is let go back, never where it could go under the floor; and what fails."""

import contextlib
import itertools
import json
from datetime import timedelta
from typing import Any, cast

import pytest

from activities.ended_pods import Gone
from activities.levers.controllers import IDLE_S
from activities.levers.numbered.leaderworkerset import KEPT, LeaderWorkerSetLever
from activities.levers.numbered.ordinals import (
    HOLD,
    Numbered,
    Taken,
    ended_by_version,
    may_go_back,
    partition_at,
    read,
    removed_by_version,
    shrinks_under,
)
from activities.levers.numbered.statefulset import StatefulSetLever
from activities.levers.ownership import BASELINE
from activities.levers.pods import made_at
from activities.levers.template import fingerprint
from segue.as_before import as_before
from segue.budget import resolve_budget
from segue.decide import decide
from segue.decision import Act
from segue.errors import Refused, Stale
from segue.observation import Version
from segue.replica import Ended, Replica
from segue.spec import KINDS, Rules, Strategy, Waypoint
from segue.spec.readiness import Readiness
from segue.state import Before, Goal, Outcome, State, requested

R = 4
TEMPLATES: dict[str, Any] = {name: {"spec": {"containers": [{"name": name}]}} for name in ("old", "new")}
OLD, NEW = (fingerprint(TEMPLATES[name]) for name in ("old", "new"))


def numbered(running: str, partition: int, *, template: str = "new", trusted: int = 0, heeded: bool = True) -> Numbered:
    """What runs under each number: ``o`` and ``n`` are old and new, ready in capitals; ``.`` is nothing."""
    versions = {"o": OLD, "n": NEW}
    return Numbered(
        found={"metadata": {}, "spec": {"replicas": R}},
        template=TEMPLATES[template],
        partition=partition,
        running={
            i: Replica(str(i), versions[each.lower()], 1.0 if each.isupper() else None)
            for i, each in enumerate(running)
            if each != "."
        },
        awaited={},
        pods=[],
        trusted=trusted,
        heeded=heeded,
        revisions=[],
        templates={},
        token="",
    )


def rules(surge: int, unavailable: int) -> Rules:
    return Rules(strategy=Strategy(max_surge=surge, max_unavailable=unavailable))


@pytest.mark.parametrize(
    ("there", "budget", "may"),
    [
        pytest.param(numbered("OOOO", HOLD), (0, 1), True, id="nothing-was-released"),
        pytest.param(numbered("OOOO", HOLD, heeded=False), (0, 1), False, id="one-may-still-be-taken"),
        pytest.param(numbered("OOOn", 3), (0, 1), True, id="nothing-ready-is-taken"),
        pytest.param(numbered("OOON", 2), (0, 1), False, id="the-next-was-released"),
        pytest.param(numbered("OOON", 3), (0, 1), True, id="enough-of-the-baseline"),
        pytest.param(numbered("OONN", 2), (0, 1), True, id="one-to-spare"),
        pytest.param(numbered("OO.N", 2), (0, 1), False, id="at-the-floor"),
        pytest.param(numbered("NNNN", 0), (0, 1), True, id="all-new"),
        pytest.param(numbered("OO.nN", 0, trusted=1), (1, 1), False, id="its-own-controller-moves"),
        pytest.param(numbered("OOO.N", HOLD), (1, 1), True, id="the-baseline-makes-the-floor"),
        pytest.param(numbered("OO.NN", HOLD, trusted=1), (1, 1), False, id="one-on-its-way-out-is-taken-for-ready"),
        pytest.param(numbered("OO.NN", HOLD), (1, 1), False, id="the-one-beside-does-not-count"),
        pytest.param(numbered("OOONN", HOLD), (1, 0), True, id="all-are-ready"),
        pytest.param(numbered("OONNN", HOLD, heeded=False), (1, 1), False, id="not-heeded-by-the-leaders"),
        pytest.param(numbered("OO.N", 0, template="old"), (0, 1), False, id="held-again-while-something-is-broken"),
        pytest.param(numbered("OONN", 0, template="old", heeded=False), (0, 1), True, id="let-go-stays-let-go"),
    ],
)
def test_may_go_back(there: Numbered, budget: tuple[int, int], may: bool) -> None:
    assert may_go_back(there, rules(*budget), OLD) is may


@pytest.mark.parametrize(("autonomous", "failing"), [(True, "4"), (False, None)])
def test_a_surge_beside_the_numbers_can_fail(autonomous: bool, failing: str | None) -> None:
    """A controller that moves by itself goes no further while its surge is not ready, so that is what fails.

    Where it is held, what is beside the numbers is on its way out after a drop of R.
    """
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    seen = read(numbered("OOOOn", 0), rules(1, 1), state, None, 0.0, autonomous=autonomous)
    assert (seen.problem and seen.problem.replica) == failing
    looked_for = [replica.name for replica in seen.pods.beside]
    assert looked_for == ([failing] if failing else []), "its log is looked for among these"


def test_a_taken_replica_starts_the_deadline_again() -> None:
    """Only one of the new version; an old one is not waited for."""
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    taken = (Ended("3", disruption="EvictionByEvictionAPI", disrupted_at=50.0),)

    def progress_at(version: str) -> float:
        return read(numbered("OOOn", 3)._replace(ended={version: taken}), rules(0, 1), state, None, 60.0).progress_at

    assert (progress_at(NEW), progress_at(OLD)) == (50.0, 0.0)


@pytest.mark.parametrize(
    ("running", "replicas", "waits"),
    [("oooNNN", 3, True), ("oOONNN", 3, False), ("oooNNN", 5, True), ("ooONNN", 5, False), ("OOOnnn", 2, False),
     ("oooNNN", 6, False), ("oooooo", 1, False)],
)  # fmt: skip
def test_fewer_replicas_wait_until_the_floor_holds_without_the_highest_numbers(
    running: str, replicas: int, waits: bool
) -> None:
    """Half of them may be unavailable, and the lower ones are being replaced: the ready ones would stop."""
    there = numbered(running, 0)._replace(found={"metadata": {}, "spec": {"replicas": len(running)}})
    half = Rules(strategy=Strategy(max_surge=0, max_unavailable="50%"))
    assert bool(shrinks_under(there, half, replicas)) is waits
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW), resize=replicas)
    seen = read(there, half, state, None, 10.0)
    assert (decide(half, state, seen, 10.0).act is Act.RESIZE) is not waits


@pytest.mark.parametrize(
    ("there", "back", "replicas", "partition"),
    [
        pytest.param(numbered("OOOn", 1), False, 3, HOLD, id="two-wait-behind-the-one-that-goes"),
        pytest.param(numbered("OONn", 1), False, 3, 2, id="what-is-new-stays-new"),
        pytest.param(numbered("OONN", 2), False, 3, 2, id="nothing-waits"),
        pytest.param(numbered("OOON", 3), False, 3, 3, id="nothing-is-left-to-wait"),
        pytest.param(numbered("OO.n", 1), False, 3, 2, id="a-missing-one-comes-up-new"),
        pytest.param(numbered("ONNo", 0, template="old"), True, 3, HOLD, id="back-behind-the-one-that-goes"),
        pytest.param(numbered("OOON", 3), False, 5, HOLD, id="added-ones-come-up-old"),
        pytest.param(numbered("ONNo", 0, template="old"), True, 5, 0, id="back-with-more"),
        pytest.param(numbered("NNNN", 0), True, 5, 0, id="more-before-the-way-back"),
    ],
)
def test_another_r_lets_the_controller_replace_no_other(
    there: Numbered, back: bool, replicas: int, partition: int
) -> None:
    """What waits for the replica that goes would follow at once."""
    found = {
        "metadata": {"annotations": {BASELINE: json.dumps({"template": TEMPLATES["old"]})}},
        "spec": {"replicas": R},
    }
    state = State(owner="o", claimed=True, baseline=Version(template=OLD), wanted=Version(template=NEW))
    if back:
        state = state.going_back(Outcome.ABORTED, requested("why"), 0.0)
    assert partition_at(there._replace(found=found), state, replicas) == partition


def test_before_the_first_write_the_partition_is_the_targets_own() -> None:
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    assert [partition_at(numbered("OOOn", 1), state, replicas) for replicas in (3, 5)] == [1, 1]


def test_a_percentage_follows_the_replicas() -> None:
    """An absolute number of 8 would let all of 4 be unavailable after somebody scaled the target down."""

    def written(amount: Any, replicas: int) -> Any:
        rules = Rules(strategy=Strategy(max_surge=0, max_unavailable=amount))
        fields = StatefulSetLever.holding(cast("Any", None), 3, rules, replicas)
        return fields["updateStrategy"]["rollingUpdate"]["maxUnavailable"]

    assert (written("50%", 8), written("10%", 4), written(3, 8), written(9, 4)) == ("50%", "10%", 3, 4)


@pytest.mark.parametrize(("baseline", "engaged"), [("old", True), ("new", False)])
def test_what_admission_made_of_the_baseline_is_undone(baseline: str, engaged: bool) -> None:
    """The saved baseline is another template than the API server's answer: the way back is written all the same."""
    there = numbered("NNNN", 0)
    saved = json.dumps({"template": TEMPLATES["old"]})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    found = {**there.found, "metadata": {"annotations": {BASELINE: saved}}}
    there = there._replace(found=found, awaited=dict.fromkeys(range(R), ready))
    state = State(owner="us", claimed=True, baseline=Version(template=fingerprint(TEMPLATES[baseline])))
    back = state.going_back(Outcome.ROLLED_BACK, requested("why"), 0.0)
    assert read(there, rules(0, 1), back, None, 10.0).engaged is engaged


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param({"finalizers": ["example.org/keep"]}, "its finalizers keep it: example.org/keep", id="finalizer"),
        pytest.param({}, "check whether its node answers", id="no-answer"),
        pytest.param({"deletionTimestamp": "1970-01-01T00:01:10Z"}, "", id="in-its-grace-period"),
    ],
)
def test_a_pod_that_does_not_go_is_named(metadata: dict[str, Any], expected: str) -> None:
    """Its controller creates no other replica of this number until the pod is gone, so the reason names the pod."""
    stuck = {"name": "chat-3", "deletionTimestamp": "1970-01-01T00:00:50Z", **metadata}
    there = numbered("OOO.", 3)._replace(pods=[{"metadata": stuck, "status": {"phase": "Running"}}])
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    seen = read(there, rules(0, 1), state, None, 60.0)
    if expected:
        assert (
            str(seen.problem)
            == f"Deadline: chat-3: was to be gone by 1970-01-01T00:00:50Z, and still exists; {expected}"
        )
    else:
        assert seen.problem is None


def test_the_budget_of_groups_follows_their_number() -> None:
    """An absolute number of 4 would let all of 4 be unavailable after somebody scaled the target down."""

    def written(surge: Any, unavailable: Any, replicas: int, *, held: bool) -> tuple[Any, Any]:
        waypoints = (Waypoint(at=1),) if held else ()
        rules = Rules(strategy=Strategy(max_surge=surge, max_unavailable=unavailable, waypoints=waypoints))
        fields = LeaderWorkerSetLever(cast("Any", None)).holding(3, rules, replicas)
        rolling = fields["rolloutStrategy"]["rollingUpdateConfiguration"]
        return rolling["maxSurge"], rolling["maxUnavailable"]

    assert written("25%", "50%", 8, held=False) == ("25%", "50%")
    assert written("25%", "50%", 8, held=True) == (0, "50%")
    assert written(9, 9, 4, held=False) == (4, 4)
    assert written(0, "10%", 4, held=True) == (0, 1), "its webhook refuses 0 for both"


@pytest.mark.parametrize("replicas", range(1, 12))
def test_what_groups_may_miss_is_read_as_it_was_written(replicas: int) -> None:
    """Otherwise a rollout would write its floor again and again; also where some were not ready before."""
    lever = LeaderWorkerSetLever(cast("Any", None))
    amounts: tuple[int | str, ...] = (0, 1, 3, "25%", "100%")
    for unavailable, ready in itertools.product(amounts, range(replicas + 1)):
        given = Rules(strategy=Strategy(max_surge=1, max_unavailable=unavailable))
        state = State(owner="us", before=Before(replicas=replicas, ready=ready))
        lowered = as_before(given, state, replicas)
        found = {"spec": {"replicas": replicas, **lever.holding(0, lowered, replicas)}}
        assert lever.own_unavailable(found) == resolve_budget(lowered.strategy, replicas).unavailable


@pytest.mark.parametrize(
    ("restarts", "metadata", "counts"),
    [
        pytest.param(1, {"deletionTimestamp": "2027-01-15T08:01:00Z"}, True, id="recreated"),
        pytest.param(1, {}, False, id="it-still-runs"),
        pytest.param(0, {"deletionTimestamp": "2027-01-15T08:01:00Z"}, False, id="deleted-for-another-reason"),
    ],
)
def test_a_group_that_is_recreated_counts_like_a_restart(restarts: int, metadata: dict[str, Any], counts: bool) -> None:
    """Its controller deletes the whole group when a container restarts: the next pods show no restart."""
    terminated = {"terminated": {"exitCode": 1, "reason": "Error"}}
    status = {"name": "server", "restartCount": restarts, "lastState": terminated if restarts else {}, "state": {}}
    metadata = {"name": "llama-3-1", "creationTimestamp": "2027-01-15T08:00:00Z", **metadata}
    pod = {"metadata": metadata, "status": {"phase": "Running", "containerStatuses": [status]}}
    expected = "server ended with exit code 1 and was restarted 1 time"
    for there, gone in (([pod], []), ([], [Gone(pod, 0.0)])):
        ended = ended_by_version(there, gone, lambda _: NEW, recreates=True)[NEW]
        is_there = counts or bool(gone and restarts)
        assert ended == ((Ended("llama-3-1", "RecreateGroup", expected, made_at=1_800_000_000.0),) if is_there else ())
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    known = numbered("OOON", 3)._replace(ended=ended_by_version([], [Gone(pod, 0.0)], lambda _: NEW, recreates=True))
    problem = read(known, rules(0, 1), state, None, 1_800_000_060.0).problem
    assert bool(problem and problem.hopeless) is bool(restarts), problem


WRITTEN_AT = 1_800_000_000.0


def unheeded(kind: str, name: str, observed: int = 1) -> dict[str, Any]:
    """An object whose spec somebody wrote at ``WRITTEN_AT``; its status was written later."""
    managed = [
        {"manager": "segue", "time": "2027-01-15T08:00:00Z"},
        {"manager": "controller", "time": "2027-01-15T08:30:00Z", "subresource": "status"},
    ]
    metadata = {"name": name, "generation": 2, "managedFields": managed}
    return {"kind": kind, "metadata": metadata, "spec": {"replicas": R}, "status": {"observedGeneration": observed}}


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("autonomous", [False, True])
@pytest.mark.parametrize("part", ["found", "controlled"])
def test_a_controller_that_does_not_act_holds_the_rollout(back: bool, autonomous: bool, part: str) -> None:
    """Neither version is the reason: no deadline runs forward, and on the way back the reason names the controller."""
    seen_by_it, absent = unheeded("LeaderWorkerSet", "llama", 2), unheeded("StatefulSet", "llama-leaders")
    parts: dict[str, dict[str, Any]] = {
        "found": {"found": absent},
        "controlled": {"found": seen_by_it, "controlled": (absent,)},
    }
    objects = parts[part]
    saved = json.dumps({"template": TEMPLATES["old"]})
    there = numbered("OOOO", 0 if autonomous else 3)._replace(**objects)
    there.found["metadata"]["annotations"] = {BASELINE: saved}
    state = State(
        owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW), claimed=True, autonomous=autonomous
    )
    state = state.going_back(Outcome.ROLLED_BACK, requested("why"), 0.0) if back else state

    def hindrance(at: float) -> str:
        return read(there, rules(0, 1), state, None, at, autonomous=autonomous).hindrance

    assert hindrance(WRITTEN_AT + IDLE_S - 1) == ""
    expected = "the controller of statefulset llama-leaders has not acted on its spec for 20 s"
    assert hindrance(WRITTEN_AT + 20.0).startswith(expected)
    problem = read(there, rules(0, 1), state, None, WRITTEN_AT + 20.0, autonomous=autonomous).problem
    assert problem is not None and problem.message.startswith(expected)
    if not back:
        # Its own owner is not in this test: what follows is only whether the deadline counts.
        seen = read(there, rules(0, 1), state, None, WRITTEN_AT + 1e6, autonomous=autonomous)
        seen = seen.model_copy(update={"owner": "o"})
        assert decide(rules(0, 1), state, seen, WRITTEN_AT + 1e6).act is Act.CROWDED


@pytest.mark.parametrize(
    ("running", "at_most", "blocks"),
    [
        ("oOON", 1, "0"), ("oOON", 2, ""), ("ooON", 2, "0"), ("OOON", 1, ""), ("oOOn", 1, ""), ("oO.N", 1, ""),
        ("OOoN", 1, ""), ("oOON", None, ""),
    ],
)  # fmt: skip
def test_old_replicas_that_use_up_max_unavailable_are_named(running: str, at_most: int | None, blocks: str) -> None:
    """With the feature gate, its controller counts every replica that is not ready, wherever it is."""
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    problem = read(numbered(running, 2)._replace(at_most=at_most), rules(0, 1), state, None, 60.0).problem
    named = problem is not None and "maxUnavailable" in problem.message
    assert (problem.replica if problem is not None and named else "") == blocks


@pytest.mark.parametrize(
    ("running", "waits"),
    [
        ("oOON", "old replica 0 to be ready: 3 of 4 replicas are ready, and 3 must stay ready"),
        ("ooON", "old replica 0 and 1 more to be ready: 2 of 4 replicas are ready, and 3 must stay ready"),
        ("OOOn", "1 new replica to be proven (0 of 1 ready, 0 proven)"),
        (
            ".OON",
            "the target's controller to create 1 old replica again: 3 of 4 replicas are ready, and 3 must stay ready",
        ),
    ],
)
def test_old_replicas_that_keep_the_rollout_at_its_floor_are_named(running: str, waits: str) -> None:
    """No controller is waited for: nothing was requested that is not there."""
    there = numbered(running, 3)
    there.found["metadata"]["annotations"] = {BASELINE: json.dumps({"template": TEMPLATES["old"]})}
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW), claimed=True)
    state = state.but(progress_at=9.0)
    seen = read(there, rules(0, 1), state, None, 10.0).model_copy(update={"owner": "o"})
    decision = decide(rules(0, 1), state, seen, 10.0)
    assert (decision.act, decision.why) == (Act.WAIT, waits)


@pytest.mark.parametrize(("running", "blocks"), [("oOOO", "0"), ("OOOO", ""), ("OOOo", ""), ("o", "0"), ("OOO", "")])
def test_an_old_replica_that_blocks_its_controller_is_named(running: str, blocks: str) -> None:
    """With OrderedReady, its controller replaces no replica while another one is not ready."""
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW))
    there = numbered(running, 3)._replace(in_order=True)
    problem = read(there, rules(0, 1), state, None, 60.0).problem
    assert (problem.replica if problem else "") == blocks
    assert problem is None or "mend or delete it" in problem.message
    assert read(there._replace(in_order=False), rules(0, 1), state, None, 60.0).problem is None
    held = read(there._replace(partition=HOLD), rules(0, 1), state, None, 60.0).problem
    assert (held.replica if held else "") == (blocks if len(running) < R else ""), "no number is free"


def pod_of(number: int, revision: str, *, ready: bool = True) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2027-01-15T08:00:00Z"}
    owner = {"kind": "StatefulSet", "name": "chat", "uid": "u", "controller": True}
    labels = {"controller-revision-hash": revision}
    metadata = {"name": f"chat-{number}", "labels": labels, "ownerReferences": [owner]}
    return {"metadata": metadata, "status": {"phase": "Running", "conditions": [condition]}}


def statefulset(current: str, kind: str = "RollingUpdate", unready: int = 0, **found: Any) -> Numbered:
    """Four replicas that run the version ``old``; its controller takes ``current`` for the current one."""
    older = {"spec": {"containers": [{"name": "server", "image": "a/b:0"}]}}
    revisions = [
        {"metadata": {"name": name}, "revision": number, "data": {"spec": {"template": template}}}
        for number, (name, template) in enumerate((("older", older), ("old", TEMPLATES["old"])))
    ]
    status = {"currentRevision": current, "updateRevision": "old", "observedGeneration": 1}
    spec = {"replicas": R, "template": TEMPLATES["old"], "updateStrategy": {"type": kind}}
    metadata = {"name": "chat", "uid": "u", "generation": 1, **found}
    pods = [pod_of(number, "old", ready=number >= unready) for number in range(R)]
    lever = StatefulSetLever(cast("Any", None))
    return lever.numbered({"metadata": metadata, "spec": spec, "status": status}, revisions, pods)


@pytest.mark.parametrize(
    ("there", "holds"),
    [
        pytest.param(statefulset("old"), False, id="its-controller-ended-the-rollout-before"),
        pytest.param(statefulset("older", "OnDelete"), True, id="with-OnDelete-it-never-does"),
        pytest.param(statefulset("older", unready=1), False, id="it-cannot-while-one-is-not-ready"),
        pytest.param(statefulset("gone", "OnDelete"), False, id="nothing-is-kept-of-the-older-one"),
    ],
)
def test_lost_replicas_come_back_as_the_baseline(there: Numbered, holds: bool) -> None:
    """Where its controller would make them older, the first write only holds it; the next one has the template."""
    lever, state = StatefulSetLever(cast("Any", None)), State(owner="o", baseline=Version(template=OLD))
    assert lever._holds_first(there, state) is holds
    held = {"annotations": {BASELINE: json.dumps({"template": TEMPLATES["old"]})}, "generation": 2}
    metadata = {**there.found["metadata"], **held}
    claimed = there._replace(found={**there.found, "metadata": metadata}, rolls=True, partition=HOLD, heeded=False)
    if there.below not in {"", OLD}:
        with pytest.raises(Stale, match="has not yet taken"):
            lever._holds_first(claimed, state)
        assert not lever._holds_first(claimed._replace(heeded=True), state)
        assert not lever._holds_first(claimed._replace(template=TEMPLATES["new"]), state), "it is written"


NODES = "0/3 nodes are available: "
UNBOUND = f"{NODES}pod has unbound immediate PersistentVolumeClaims. not found"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind."


@pytest.mark.parametrize(
    ("message", "templates", "volume", "holds"),
    [
        pytest.param(UNBOUND, ("data",), "", True, id="not-bound"),
        pytest.param(f'{NODES}persistentvolumeclaim "data-chat-3" is being deleted.', ("data",), "", True, id="going"),
        pytest.param(f"{NODES}3 {NO_VOLUME}", ("data",), "", True, id="no-volume-for-any-node"),
        pytest.param(f"{NODES}1 Insufficient cpu, 2 {NO_VOLUME}", ("data",), "", False, id="and-another-reason"),
        pytest.param(f"{NODES}3 Insufficient cpu.", ("data",), "", False, id="another-reason"),
        pytest.param(UNBOUND, (), "", False, id="no-claim-of-its-own"),
        pytest.param(UNBOUND, ("data",), "models", False, id="its-version-refers-to-another-claim"),
    ],
)
@pytest.mark.parametrize("back", [False, True])
def test_a_volume_claim_that_cannot_be_bound_is_not_the_versions_fault(
    message: str, templates: tuple[str, ...], volume: str, holds: bool, back: bool
) -> None:
    """The claim belongs to the number: the rollout holds, and continues when the claim is bound."""
    claims = [{"name": volume, "persistentVolumeClaim": {"claimName": volume}}] if volume else []
    template = {"spec": {**TEMPLATES["old"]["spec"], "volumes": claims}}
    pod = pod_of(3, "old", ready=False)
    placed = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod["status"]["conditions"].append({**placed, "lastTransitionTime": "2027-01-15T08:00:00Z"})
    there = statefulset("old").found
    spec = {**there["spec"], "template": template}
    spec["volumeClaimTemplates"] = [{"metadata": {"name": name}} for name in templates]
    revisions = [{"metadata": {"name": "old"}, "revision": 1, "data": {"spec": {"template": template}}}]
    made = StatefulSetLever(cast("Any", None)).numbered({**there, "spec": spec}, revisions, [pod])
    runs = Version(template=made.version)
    state = State(owner="o", baseline=runs if back else Version(template=OLD), wanted=runs)
    state = state.going_back(Outcome.ABORTED, requested("why"), 0.0) if back else state
    seen = read(made, rules(0, 1), state, None, WRITTEN_AT + 60.0)
    named = "the scheduler waits until the volume claim data-chat-3 can be bound"
    assert seen.hindrance.startswith(f"chat-3: {named}") is holds
    assert seen.hindered == int(holds)
    (only,) = (*seen.pods.old, *seen.pods.new)
    assert (only.unschedulable == "") is holds
    assert seen.problem is not None and (named in seen.problem.message) is holds


def test_a_warning_tells_in_which_version_lost_replicas_come_back() -> None:
    lever = StatefulSetLever(cast("Any", None))
    assert lever.warnings(statefulset("old", unready=1)) == []
    (warning,) = lever.warnings(statefulset("older", unready=1))
    assert "1 of 4 replicas are not ready" in warning and "comes back as server=a/b:0" in warning
    assert len(lever.warnings(statefulset("older", "OnDelete"))) == 1
    assert lever.warnings(statefulset("older", "OnDelete", unready=1))[1] == warning


@pytest.mark.parametrize(("version", "act"), [(OLD, Act.WAIT), (NEW, Act.FAIL)])
def test_the_deadline_starts_when_the_replaced_replica_is_gone(version: str, act: Act) -> None:
    """It may stop for longer than the deadline; the new one is created only then. A new one that goes is no reason."""
    removed = removed_by_version([Gone({"metadata": {}}, 90.0), Gone({"metadata": {}}, 95.0)], lambda _: version)
    there = numbered("OOO.", 3)._replace(removed=removed)
    there.found["metadata"]["annotations"] = {BASELINE: json.dumps({"template": TEMPLATES["old"]})}
    state = State(owner="o", baseline=Version(template=OLD), wanted=Version(template=NEW), claimed=True)
    within = rules(0, 1).model_copy(update={"readiness": Readiness(deadline=timedelta(seconds=10))})
    seen = read(there, within, state, None, 100.0).model_copy(update={"owner": "o"})
    assert decide(within, state, seen, 100.0).act is act
    assert decide(within, state, seen, 106.0).act is Act.FAIL


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        ({}, False),
        ({"replicas": 0}, False),
        ({"replicas": 2, "observedGeneration": 1}, False),
        ({"replicas": 2}, True),
    ],
)
def test_a_controller_that_never_says_what_it_observed_is_refused(status: dict[str, Any], refused: bool) -> None:
    """Such as that of LeaderWorkerSets before v0.9: the rollback would wait for it for ever."""
    there = numbered("NNNN", 0)._replace(found={**unheeded("LeaderWorkerSet", "chat"), "status": status})
    lever, target = (
        LeaderWorkerSetLever(cast("Any", None)),
        KINDS["LeaderWorkerSet"](kind="LeaderWorkerSet", namespace="serving", name="chat"),
    )
    with pytest.raises(Refused, match="since v0") if refused else contextlib.nullcontext():
        lever._refuse_unsettled(there, target)


LWS = "leaderworkerset.sigs.k8s.io"
HASH = f"{LWS}/template-revision-hash"


def owned_by(owner: str) -> list[dict[str, Any]]:
    return [{"kind": "Owner", "name": "llama", "uid": owner, "controller": True}]


def revision_of(owner: str, number: int, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """A revision of the LeaderWorkerSet, or of the StatefulSet of its leaders."""
    metadata = {"name": f"{owner}-{name}", "labels": {HASH: name}, "ownerReferences": owned_by(owner)}
    return {"metadata": metadata, "revision": number, "data": {"spec": data}}


def pod_of_group(group: int, worker: int, size: str) -> dict[str, Any]:
    found = pod_of(group, "")
    labels = {"name": "llama", "group-index": str(group), "worker-index": str(worker)}
    found["metadata"]["labels"] = {HASH: "old", **{f"{LWS}/{name}": value for name, value in labels.items()}}
    found["metadata"]["annotations"] = {f"{LWS}/size": size} if size else {}
    return found


def groups_of(groups: dict[int, tuple[int, str, str]], current: str = "leaders-old") -> Numbered:
    """Return a LeaderWorkerSet of size 3: of each group its number of pods, and the sizes that leader and workers tell.

    All groups run the version ``old``; the StatefulSet of the leaders takes ``current`` for its current revision.
    """
    revisions, present = [], dict[str, Any]()
    for number, name in enumerate(("older", "old"), start=1):
        containers = [{"name": "server", "image": f"a/b:{name}"}]
        present = {"size": 3, "workerTemplate": {"spec": {"containers": containers}}}
        of_leaders = {"template": {"metadata": {"labels": {HASH: name}}}}
        revisions += [
            revision_of("u", number, name, {"leaderWorkerTemplate": present}),
            revision_of("leaders", number, name, of_leaders),
        ]
    rolling = {"rollingUpdateConfiguration": {"partition": 0, "maxSurge": 0, "maxUnavailable": 1}}
    spec = {"replicas": R, "leaderWorkerTemplate": present, "rolloutStrategy": rolling}
    leaders = {
        "metadata": {"name": "llama", "uid": "leaders", "ownerReferences": owned_by("u")},
        "spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}},
        "status": {"currentRevision": current},
    }
    pods = [pod_of_group(i, n, told[min(n, 1)]) for i, (count, *told) in groups.items() for n in range(count)]
    found = {"metadata": {"name": "llama", "uid": "u"}, "spec": spec, "status": {}}
    return LeaderWorkerSetLever(cast("Any", None)).numbered(found, revisions, pods, [leaders])


@pytest.mark.parametrize(
    ("count", "leader", "workers", "whole"),
    [
        pytest.param(2, "2", "2", True, id="made-before-the-size-changed"),
        pytest.param(2, "3", "3", False, id="one-is-lost"),
        pytest.param(3, "2", "3", True, id="came-back-in-the-former-version"),
        pytest.param(2, "2", "3", False, id="its-workers-are-of-the-present-size"),
        pytest.param(1, "1", "", True, id="no-workers"),
        pytest.param(1, "2", "", False, id="its-workers-do-not-exist-yet"),
    ],
)
def test_a_group_has_a_size_of_its_own(count: int, leader: str, workers: str, whole: bool) -> None:
    """A change of ``size`` does not make the groups unready that were made before it."""
    replica = groups_of({0: (count, leader, workers)}).running[0]
    assert (replica.ready_since is not None) is whole
    assert ("pods of its group exist" in replica.unready) is not whole


def test_workers_of_a_lost_leader_are_not_of_its_group() -> None:
    """They are ready until the garbage collector deletes them, which can take longer than the next leader's start."""
    there = groups_of({0: (3, "3", "3")})
    leader = there.pods[0]
    workers = [pod_of_group(0, number, "3") for number in (1, 2)]
    for pod, made in ((leader, "2027-01-15T08:00:02Z"), *zip(workers, ("2027-01-15T08:00:01Z",) * 2, strict=True)):
        pod["metadata"]["creationTimestamp"] = made
    for number, worker in enumerate(workers, start=1):
        worker["metadata"]["name"] = f"llama-0-{number}"
    lever = LeaderWorkerSetLever(cast("Any", None))
    replica = lever.numbered(there.found, there.revisions, [leader, *workers]).running[0]
    assert replica.ready_since is None
    assert replica.unready == "only 1 of the 3 pods of its group exist"
    for worker in workers:
        worker["metadata"]["creationTimestamp"] = "2027-01-15T08:00:02Z"
    assert lever.numbered(there.found, there.revisions, [leader, *workers]).running[0].ready_since is not None


@pytest.mark.parametrize(
    ("late_s", "is_being_deleted", "told"), [(5, False, False), (60, False, True), (60, True, False)]
)
def test_a_worker_that_outlives_its_leader_for_long_keeps_the_group(
    late_s: float, is_being_deleted: bool, told: bool
) -> None:
    """No version is to blame: its garbage collector does not act, or somebody removed the owner of its StatefulSet."""
    lever, there = LeaderWorkerSetLever(cast("Any", None)), groups_of({0: (3, "3", "3")})
    leader, worker = there.pods[0], pod_of_group(0, 1, "3")
    leader["metadata"]["creationTimestamp"] = "2027-01-15T08:00:02Z"
    worker["metadata"] |= {"name": f"{leader['metadata']['name']}-1", "creationTimestamp": "2027-01-15T08:00:01Z"}
    if is_being_deleted:
        worker["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:03Z"
    found = lever.numbered(there.found, there.revisions, [leader, worker])
    kept = lever._with_taken(found, {worker["metadata"]["name"]: worker}, made_at(leader) + late_s)
    seen = read(kept, rules(0, 1), State(owner="o", progress_at=1.0), None, made_at(leader) + late_s)
    says = "of the former leader still exists, and no other pod can have its name: delete it" in seen.hindrance
    assert says is told


def test_a_kept_revision_is_not_the_newest() -> None:
    """Its controller deleted the revision that was kept, and gave its number to the next one."""
    there = groups_of({0: (3, "3", "3")})
    superseded = {
        "size": 3,
        "workerTemplate": {"spec": {"containers": [{"name": "server", "image": "a/b:superseded"}]}},
    }
    kept = revision_of("u", 2, "superseded", {"leaderWorkerTemplate": superseded})
    kept["metadata"]["labels"][KEPT] = "llama"
    found = LeaderWorkerSetLever(cast("Any", None)).numbered(there.found, [kept, *there.revisions], [])
    assert found.newest is not None and found.newest["metadata"]["name"] == "u-old"
    assert found.revision(there.version) == found.newest


def test_a_warning_tells_in_which_version_lost_groups_come_back() -> None:
    lever, unready = LeaderWorkerSetLever(cast("Any", None)), {0: (2, "3", "3"), 1: (3, "3", "3")}
    assert lever.warnings(groups_of(unready)) == []
    (warning,) = lever.warnings(groups_of(unready, "leaders-older"))
    assert "1 of 2 replicas are not ready" in warning and "comes back as server=a/b:older" in warning
    assert lever.warnings(groups_of({0: (3, "3", "3")}, "leaders-older")) == [], "its controller is about to end it"
    assert lever.warnings(groups_of(unready, "gone")) == [], "nothing is known of it"


def namesake(name: str, *, owner: str = "", **labels: str) -> dict[str, Any]:
    owners = {"ownerReferences": owned_by(owner)} if owner else {}
    return {"metadata": {"name": name, "labels": labels, **owners}, "status": {"phase": "Running"}}


def set_without(number: int, first: int = 0) -> Numbered:
    there = statefulset("old")
    spec = {**there.found["spec"], "ordinals": {"start": first}}
    pods = [pod_of(first + other, "old") for other in range(R) if other != number]
    return StatefulSetLever(cast("Any", None)).numbered({**there.found, "spec": spec}, there.revisions, pods)


WHOLE_GROUP = (3, "3", "3")


@pytest.mark.parametrize(
    ("lever", "there", "namesakes", "kept"),
    [
        pytest.param(StatefulSetLever, set_without(1), {"chat-1": namesake("chat-1")}, "chat-1", id="lost-labels"),
        pytest.param(StatefulSetLever, set_without(1, 5), {"chat-6": namesake("chat-6", owner="x")}, "chat-6"),
        pytest.param(StatefulSetLever, set_without(1), {"chat-1": namesake("chat-1", owner="u")}, "", id="its-own"),
        pytest.param(StatefulSetLever, set_without(1), {"chat-1": None}, "", id="its-controller-is-about-to-make-it"),
        pytest.param(
            LeaderWorkerSetLever, groups_of({0: WHOLE_GROUP}), {"llama-1": namesake("llama-1")}, "llama-1", id="leader"
        ),
        pytest.param(
            LeaderWorkerSetLever, groups_of({0: (2, "3", "3"), 1: WHOLE_GROUP, 2: WHOLE_GROUP, 3: WHOLE_GROUP}),
            {"chat-0-2": namesake("chat-0-2")}, "chat-0-2", id="worker",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_has_the_name_of_a_missing_one_is_named(
    lever: Any, there: Numbered, namesakes: dict[str, Any], kept: str
) -> None:
    """Somebody took its labels away for debugging: its controller can create no other one, of any version."""
    kind = lever(None)
    assert namesakes.keys() <= kind.missing(there).keys()
    versions = {"baseline": Version(template=OLD), "wanted": Version(template=NEW)}
    state = State(owner="o", claimed=True, progress_at=1.0, **versions)
    seen = read(kind._with_taken(there, namesakes, 1.0), rules(0, 1), state, None, 1.0)
    told = f"pod {kept} exists and is not the target's" if kept else ""
    assert seen.hindrance.startswith(told) and bool(seen.hindrance) is bool(kept)
    assert not kept or told in str(seen.problem)


@pytest.mark.parametrize("running", ["O.ON", "O.oN"])
def test_a_way_back_tells_whose_name_is_taken(running: str) -> None:
    """Also if another old replica is not ready: its controller would make no move for that one."""
    awaited = {i: pod_of(i, "old", ready=each.isupper()) for i, each in enumerate(running)}
    there = numbered(running, 0, template="old")._replace(taken={"chat-1": Taken(1)}, awaited=awaited)
    there.found["metadata"]["annotations"] = {BASELINE: json.dumps({"template": TEMPLATES["old"]})}
    versions = {"baseline": Version(template=OLD), "wanted": Version(template=NEW)}
    state = State(owner="o", claimed=True, goal=Goal.BACK, progress_at=9.0, **versions)
    seen = read(there, rules(0, 1), state, None, 1000.0).model_copy(update={"owner": "o"})
    decision = decide(rules(0, 1), state, seen, 1000.0)
    assert decision.act is Act.ALARM and "pod chat-1 exists and is not the target's" in decision.why


def test_what_has_the_labels_of_a_group_and_no_controller_is_not_of_it() -> None:
    """Such as a copy for debugging (``kubectl debug --copy-to``), or a pod whose number somebody changed."""
    there, lever = groups_of({0: WHOLE_GROUP}), LeaderWorkerSetLever(cast("Any", None))
    pods = [pod_of_group(0, number, "3") for number in range(2)]
    copied, renumbered = pod_of_group(0, 0, "3"), pod_of_group(0, 0, "3")
    copied["metadata"] |= {"name": "debug", "ownerReferences": []}
    renumbered["metadata"]["labels"][f"{LWS}/group-index"] = "aside"
    replica = lever.numbered(there.found, there.revisions, [*pods, copied, renumbered]).running[0]
    assert (replica.name, replica.unready) == ("chat-0", "only 2 of the 3 pods of its group exist")
