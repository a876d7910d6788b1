"""StatefulSets and LeaderWorkerSets on servers with and without MaxUnavailableStatefulSet: what only they have."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from harness import Lab, open_lab, until
from kube_api import create
from subjects import LeaderWorkerSetSubject, StatefulSetSubject
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from watcher import Stream

GATES = [
    pytest.param("fleet", id="several at once"),
    pytest.param("one_by_one_fleet", id="one by one"),
]
STUCK = {"minReady": "0s", "deadline": "4s"}


@pytest.fixture
def fleet_of(request: pytest.FixtureRequest) -> Lab:
    found: Lab = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def served(fleet_of: Lab) -> AsyncIterator[Lab]:
    """An empty namespace, on servers with one or the other setting."""
    async with open_lab(fleet_of.stack, fleet_of.task_queue) as opened:
        yield opened


@contextmanager
def volumes(lab: Lab, name: str) -> Iterator[Callable[[int], None]]:
    """Yield what makes a volume for one number of a StatefulSet with ``claims_of``."""
    made = list[str]()

    def make(number: int) -> None:
        made.append(f"{lab.namespace}-{name}-{number}")
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/none"}}
        body = {"metadata": {"name": made[-1]}, "spec": {**spec, "storageClassName": f"{lab.namespace}-{name}"}}
        create(lab.core.create_persistent_volume, body)

    try:
        yield make
    finally:
        for each in made:
            lab.core.delete_persistent_volume(each)


def claims_of(lab: Lab, name: str) -> dict[str, Any]:
    """Return the claims of one volume for each replica; no provisioner makes one."""
    wants = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "data"}, "spec": {**wants, "storageClassName": f"{lab.namespace}-{name}"}}
    return {"volumeClaimTemplates": [claim]}


both = pytest.mark.parametrize("fleet_of", GATES, indirect=True)
one_is_enough = pytest.mark.parametrize("fleet_of", GATES[1:], indirect=True)


def is_one_by_one(lab: Lab) -> bool:
    return not lab.stack.feature_gates["MaxUnavailableStatefulSet"]


@both
async def test_statefulset(served: Lab) -> None:
    """In either order of its pods, by two: up, and back from a version that would block its own way back."""

    async def up(policy: str) -> None:
        name = f"up-{policy}".lower()
        strategy, target = {"step": 2}, {"policy": policy}
        async with served.case(name, kind=StatefulSetSubject, strategy=strategy, target=target) as case:
            plan = await case.run.plan()
            assert any("one" in w or "1 at a time" in w for w in plan.warnings) is is_one_by_one(served), plan.warnings
            await case.ends("Completed")
            assert case.only("chat:2")
        case.watcher.assert_within(2, 4)

    async def back(policy: str) -> None:
        name, change = f"back-{policy}".lower(), StatefulSetSubject.changed(2, "never-ready")
        async with served.case(
            name, kind=StatefulSetSubject, change=change, strategy={"step": 2}, readiness=STUCK,
            target={"policy": policy},
        ) as case:  # fmt: skip
            await case.ends("RolledBack")
        case.watcher.assert_within(2, 4)

    async def messages(moves: int) -> None:
        """Told to go back while one is being replaced: no other is taken before that one is ready again."""
        strategy, slow = {"maxUnavailable": 1}, {"ready_after": "1s"}
        async with served.case(f"messages-{moves}", kind=StatefulSetSubject, strategy=strategy, target=slow) as case:
            await case.run.until("a move", lambda status: status.moves >= moves)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(3, 4)

    async def away() -> None:
        """A retarget leaves a version behind that blocks its controller."""
        change = StatefulSetSubject.changed(2, "never-ready")
        async with served.case(
            "away", kind=StatefulSetSubject, change=change, strategy={"step": 2}, target={"policy": "OrderedReady"}
        ) as case:
            await until("a broken one", lambda: served.pods("away", "never-ready"))
            await case.run.send("retarget", change=StatefulSetSubject.changed(3), onto_baseline=True)
            await case.ends("Completed")
            assert case.only("chat:3")
        case.watcher.assert_within(2, 4)

    async def on_delete() -> None:
        """Rolled by hand before: its controller would make a lost replica of the first version again."""
        target = {"updateStrategy": {"type": "OnDelete"}}
        subject, strategy = StatefulSetSubject(served, "deleted"), {"waypoints": [{"at": 1, "approval": True}]}
        await subject.create(2, **target)
        container = {"name": "server", "image": "example/chat:2"}
        subject.patch({"spec": {"template": {"spec": {"containers": [container]}}}})
        with served.watch("deleted") as watcher:
            for name in ("deleted-0", "deleted-1"):
                served.core.delete_namespaced_pod(name, served.namespace)
            await until("both are 2", lambda: watcher.samples[-1].by_image == (("example/chat:2 ready", 2, 2),))
        change = StatefulSetSubject.changed(3)
        async with served.rolled("deleted", kind=StatefulSetSubject, change=change, strategy=strategy) as case:
            plan = await case.run.plan()
            assert any("OnDelete" in warning for warning in plan.warnings)
            await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            at_rest = case.watcher.mark()
            served.core.delete_namespaced_pod("deleted-0", served.namespace)
            await until("it stops", lambda: any(sample.ready == 1 for sample in case.watcher.samples[at_rest:]))
            await until("it is back", lambda: case.watcher.samples[-1].ready == 2)
            assert case.watcher.samples[-1].by_image == (("example/chat:2 ready", 1, 1), ("example/chat:3 ready", 1, 1))
            await case.run.send("approve")
            await case.ends("Completed")
        case.watcher.assert_within(1, 2, until=at_rest)

    async def waits() -> None:
        """Its controller waits for minReadySeconds after each replica, longer than the deadline."""
        soon, target = {"minReady": "0s", "deadline": "6s"}, {"minReadySeconds": 8}
        strategy = {"maxUnavailable": 1}
        async with served.case(
            "waits", 2, kind=StatefulSetSubject, strategy=strategy, readiness=soon, target=target
        ) as case:
            await case.ends("Completed")

    async def unbound() -> None:
        """The volume of one number is missing: that holds the rollout, also longer than its deadline."""
        strategy, target = {"waypoints": [{"at": 1, "approval": True}]}, claims_of(served, "unbound")
        with volumes(served, "unbound") as make:
            for number in range(2):
                make(number)
            async with served.case(
                "unbound", 2, kind=StatefulSetSubject, strategy=strategy, readiness=STUCK, target=target
            ) as case:
                await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
                served.core.delete_namespaced_persistent_volume_claim("data-unbound-0", served.namespace)
                await case.run.send("approve")
                status = await case.run.until("it holds", lambda status: status.phase == "Held")
                assert "waits until the volume claim data-unbound-0 can be bound" in status.reason, status.reason
                make(2)
                await case.ends("Completed")
        case.watcher.assert_within(1, 2)

    await asyncio.gather(
        up("Parallel"), up("OrderedReady"), back("Parallel"), back("OrderedReady"), messages(1), messages(2), away(),
        on_delete(), waits(), unbound(),
    )  # fmt: skip


@one_is_enough
async def test_fewer_replicas_take_no_ready_one_with_them(served: Lab) -> None:
    """The unready one that its controller waits for goes, while three lower ones are not ready: no other follows."""
    subject, change = StatefulSetSubject(served, "fewer"), StatefulSetSubject.changed(2, "never-ready")

    def ready() -> int:
        return int(subject.raw["status"].get("readyReplicas", 0))

    def is_followed() -> bool:
        found = subject.raw
        seen = found["status"].get("observedGeneration") == found["metadata"]["generation"]
        return bool(seen and found["spec"]["replicas"] == found["status"]["replicas"] == 5)

    async with served.case("fewer", 6, kind=StatefulSetSubject, change=change, strategy={"step": 3}) as case:
        await until("the highest is new", lambda: served.pods("fewer", "never-ready"))
        await case.run.send("pause")
        lower = [f"fewer-{number}" for number in range(3)]
        for name in lower:
            served.relabel(name, "never-ready")
        await until("three others are not ready", lambda: ready() == 2)
        await case.run.send("scale", replicas=5)
        await until("its controller has followed", is_followed)
        for name in lower:
            served.relabel(name, "ready")
        await until("all are ready", lambda: ready() == 5)
        await case.run.send("abort")
        await case.ends("Aborted")
    case.watcher.assert_within(2, 6)


def follow_leaders(lab: Lab, name: str, seen: list[tuple[int, int]]) -> Stream:
    """Record each (partition, replicas) that the leaders' StatefulSet gets."""

    def record(event: str) -> None:
        found = stream.objects.get(name)
        if found is None:
            return
        stage = (found["spec"]["updateStrategy"]["rollingUpdate"]["partition"], found["spec"]["replicas"])
        if not seen or seen[-1] != stage:
            seen.append(stage)

    read = functools.partial(lab.apps.list_namespaced_stateful_set, lab.namespace)
    stream = Stream(read, f"leaderworkerset.sigs.k8s.io/name={name},!leaderworkerset.sigs.k8s.io/group-index", record)
    stream.start()
    return stream


def is_passed(seen: list[tuple[int, int]], planned: list[tuple[int, int]]) -> bool:
    """Whether what was seen is the plan, with some stages left out."""
    rest = iter(planned)
    return all(stage in rest for stage in seen)


@one_is_enough
async def test_groups_by_their_own_controller(served: Lab) -> None:
    """Without waypoints the stages that its controller passes are those of the plan; some it may take at once."""

    two = {"maxSurge": 2, "maxUnavailable": 2}

    async def up(name: str, strategy: dict[str, Any], floor: int, ceiling: int) -> None:
        seen: list[tuple[int, int]] = []
        await LeaderWorkerSetSubject(served, name).create(4)
        leaders = follow_leaders(served, name, seen)
        async with served.rolled(name, kind=LeaderWorkerSetSubject, strategy=strategy) as case:
            plan = await case.run.plan()
            await case.ends("Completed")
            await until("the surge is gone", lambda: seen[-1] == (0, 4) and case.only("chat:2"))
            leaders.stop()
        planned = [(stage.partition or 0, stage.old + stage.new) for stage in plan.stages]
        assert is_passed(seen, planned), (seen, planned)
        assert seen[0] == seen[-1] == (0, 4) and len(seen) > 3
        assert any("1 at a time" in w for w in plan.warnings) is (
            is_one_by_one(served) and strategy.get("maxUnavailable") == 2
        )
        case.watcher.assert_within(floor, ceiling)

    await asyncio.gather(
        up("both", two, 2, 6), up("surge", {}, 4, 5), up("none", {"order": "scaleInPriority"}, 3, 4)
    )  # fmt: skip


@one_is_enough
async def test_groups_go_back(served: Lab) -> None:
    """From a version that is never ready, held or not, and on request: nothing of it stays, and the floor holds."""
    stops_at_end = {"waypoints": [{"at": "100%"}]}

    async def bad(name: str, strategy: dict[str, Any], floor: int, ceiling: int) -> None:
        change = LeaderWorkerSetSubject.changed(2, "never-ready")
        async with served.case(
            name, kind=LeaderWorkerSetSubject, change=change, strategy=strategy, readiness=STUCK
        ) as case:
            await case.ends("RolledBack")
        case.watcher.assert_within(floor, ceiling)

    async def abort(name: str, strategy: dict[str, Any], floor: int, ceiling: int, *, stop_after: str = "3s") -> None:
        """While the first is on its way out, when its controller takes it for ready, or has just been made anew."""
        slow = {"ready_after": "2s", "annotations": {"segue.dev/stop-after": stop_after}}

        def is_begun() -> bool:
            return f"{name}-3" not in {p.metadata.name for p in served.pods(name, "chat:1")}

        async with served.case(name, kind=LeaderWorkerSetSubject, strategy=strategy, target=slow) as case:
            await until("the first is replaced", is_begun)
            await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(floor, ceiling)

    both = {"maxSurge": 1, "maxUnavailable": 1}
    two = {"maxSurge": 0, "maxUnavailable": 2}
    await asyncio.gather(
        bad("held", {"step": 2, **stops_at_end}, 2, 4), bad("none", {"maxUnavailable": 2, "maxSurge": 0}, 2, 4),
        bad("surge", {"maxSurge": 1}, 4, 5),
        abort("made", both, 3, 5, stop_after="100ms"), abort("out", both, 3, 5),
        abort("surge-out", {"maxSurge": 1}, 4, 5), abort("none-out", two, 2, 4),
        abort("held-out", {"step": 2, **stops_at_end}, 2, 4),
    )  # fmt: skip


@one_is_enough
async def test_groups_keep_what_they_were_created_with(served: Lab) -> None:
    """Of the former size they stay ready; a lost one comes back older, and a warning tells that."""
    asks = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}

    def of_image(version: int, mode: str = "ready") -> dict[str, Any]:
        container = {"name": "server", "image": f"example/chat:{version}"}
        return {"metadata": {"labels": {"segue.dev/fake": mode}}, "spec": {"containers": [container]}}

    async def of_another_size() -> None:
        change = {"patch": {"size": 3, "leaderTemplate": of_image(2)}}
        async with served.case("sized", 3, kind=LeaderWorkerSetSubject, change=change, strategy=asks) as case:
            status = await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            assert (status.old.ready, status.new.ready) == (2, 1)
            await case.run.send("approve")
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    async def that_comes_back_older() -> None:
        """Image 0, then image 1 of which one leader is not ready: the StatefulSet of the leaders still returns to 0."""

        def are(count: int) -> bool:
            return len(served.pods("older", "chat:1")) == count

        await served.deploy_groups("older", 3, image="example/chat:0")
        templates = {"leaderTemplate": of_image(1, "never-ready"), "workerTemplate": of_image(1)}
        served.patch_groups("older", {"spec": {"leaderWorkerTemplate": templates}})
        for count, name in ((1, "older-2"), (2, "older-1")):
            await until(f"{name} is replaced", partial(are, count))
            served.relabel(name, "ready")
        await until("all are replaced", partial(are, 3))
        await until("two are ready", lambda: served.groups("older")["status"]["readyReplicas"] == 2)
        change = {"patch": {"leaderTemplate": of_image(2), "workerTemplate": of_image(2)}}
        async with served.rolled("older", change, kind=LeaderWorkerSetSubject, strategy=asks) as case:
            told = "a replica that is lost before its turn comes back as server=example/chat:0, and stays so"
            assert any(told in warning for warning in (await case.run.plan()).warnings)
            await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            served.core.delete_namespaced_pod("older-1", served.namespace)
            await until("it is back", lambda: served.pods("older", "chat:0"))
            await case.run.send("approve")
            await case.ends("Completed")
            assert case.only("chat:2")

    await asyncio.gather(of_another_size(), that_comes_back_older())


@one_is_enough
async def test_somebody_else(served: Lab) -> None:
    """Who changes the partition or the template meanwhile is named, and nothing is written over it."""
    strategy = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}

    async def at_waypoint(kind: Any, name: str, patch: dict[str, Any], word: str) -> None:
        async with served.case(name, kind=kind, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            if kind is StatefulSetSubject:
                StatefulSetSubject(served, name).patch(patch)
            else:
                served.patch_groups(name, patch)
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert "an-autoscaler" in status.waiting_for and word in status.waiting_for, status.waiting_for
            await case.run.send("abort")

    rolling = {"updateStrategy": {"rollingUpdate": {"partition": 2}}}
    groups = {"rolloutStrategy": {"rollingUpdateConfiguration": {"partition": 2}}}
    labels = {"template": {"metadata": {"labels": {"other": "x"}}}}
    await asyncio.gather(
        at_waypoint(StatefulSetSubject, "set", {"spec": rolling}, "partition=2"),
        at_waypoint(StatefulSetSubject, "other", {"spec": labels}, "metadata.labels.other"),
        at_waypoint(LeaderWorkerSetSubject, "groups", {"spec": groups}, "partition=2"),
    )


@one_is_enough
async def test_bad_input(served: Lab) -> None:
    """Refused with field, value and fix, and nothing is written."""
    await asyncio.gather(
        served.deploy_set("set", 1), served.deploy_groups("groups", 1), served.deploy_set("busy", 2, mode="ready")
    )
    StatefulSetSubject(served, "busy").patch(
        {"spec": {"template": {"metadata": {"labels": {"segue.dev/fake": "never-ready"}}}}}
    )
    await until("its own rollout", lambda: served.pods("busy", "never-ready"))

    async def refused(kind: str, name: str, *words: str, change: dict[str, Any] | None = None) -> None:
        target = {"kind": kind, "namespace": served.namespace, "name": name}
        with pytest.raises(WorkflowFailureError) as ended:
            await (await served.start(name, change, target=target)).end()
        cause = ended.value.cause
        assert isinstance(cause, ApplicationError) and cause.type in {"Refused", "Unchanged", "NotFound"}
        for word in words:
            assert word in str(cause), str(cause)

    before = [served.groups("groups")["metadata"]["resourceVersion"], StatefulSetSubject(served, "set").raw]
    for kind, name in (("StatefulSet", "set"), ("LeaderWorkerSet", "groups")):
        await refused(
            kind, name, "spec.change.images", "'sidecar'", "use one of: server", change={"images": {"sidecar": "a:1"}}
        )
        await refused(kind, name, "is what the target runs already", change={"images": {"server": "example/chat:1"}})
        await refused(kind, name, "spec.change.revision", "use one of: 1", change={"revision": 9})
        await refused(kind, "nowhere", "nowhere", "check its name")
    await refused("LeaderWorkerSet", "groups", "spec.change.secrets", change={"secrets": {"a": "b"}})
    await refused("StatefulSet", "busy", "is in the middle of a rollout of its own")
    after = [served.groups("groups")["metadata"]["resourceVersion"], StatefulSetSubject(served, "set").raw]
    assert json.dumps(before) == json.dumps(after)
