"""A messy cluster: pods that end, wait or hang for what is, or is not, their version's fault."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness import FAST, PATIENT, Lab, until
from kube_api import create
from policies import admission, rewriting
from puppets import ATTACHED, EVICTED, PUPPET, REJECTED, lose_node, puppets
from subjects import SUBJECTS, LeaderWorkerSetSubject, StatefulSetSubject, Subject

READ = {"minReady": "1s", "deadline": "40s"}
SLOW = {"minReady": "3s", "deadline": "60s"}
"""Each move takes so long that the first replica is evicted before the last one is proven."""


@pytest.fixture
async def played(served: Lab) -> AsyncIterator[Lab]:
    """A namespace whose puppets play."""
    with puppets(served.core, served.namespace):
        yield served


def image(mode: str) -> dict[str, Any]:
    return {"images": {"server": f"example/chat:2-{mode}"}}


KINDS = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(SUBJECTS["Deployment"], id="Deployment"),
        pytest.param(SUBJECTS["StatefulSet"], id="StatefulSet"),
        pytest.param(SUBJECTS["DeploymentPair"], id="DeploymentPair", marks=pytest.mark.soak),
    ],
)


@KINDS
async def test_a_version_whose_pods_end_is_taken_back(played: Lab, kind: type[Subject]) -> None:
    """Evicted for its own usage after it was Ready, or rejected by the kubelet: reported soon, with little litter."""

    async def ends(name: str, mode: str, expected: str, litter: int) -> None:
        await kind(played, name).create(3, mode=PUPPET)
        await until(f"{name} ready", lambda: sum(map(ready, played.pods(name))) == 3)
        async with played.rolled(name, image(mode), kind=kind, readiness=SLOW) as case:
            report = await case.run.end()
            assert report.status.outcome == "RolledBack", report
            assert case.subject.settings() == case.subject.settled("RolledBack", case.before)
        reason = report.status.reason
        assert reason.startswith(f"Ended: {name}-") and expected in reason, reason
        left = [p for p in played.pods(name) if p.status.phase == "Failed"]
        assert len(left) <= litter, f"{len(left)} Failed pods are left"

    await asyncio.gather(
        ends("evicted", "evict.6", f"Evicted: {EVICTED}", 3),
        ends("rejected", "reject", f"UnexpectedAdmissionError: {REJECTED}", 6),
    )


def ready(pod: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


async def test_what_passes_or_is_not_the_versions_is_waited_for(played: Lab) -> None:
    """A cache, a registry or a Secret that is late, a gate, a lost node: it goes on. A volume is named."""

    async def deployed(name: str, replicas: int = 2) -> None:
        await played.deploy(name, replicas, mode=PUPPET)
        await until(f"{name} ready", lambda: sum(map(ready, played.pods(name))) == replicas)

    async def cache() -> None:
        await deployed("cache")
        async with played.rolled("cache", image("config.4"), readiness=READ) as case:
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    async def gated() -> None:
        await deployed("gated")
        spec = {
            "schedulingGates": [{"name": "example.org/queue"}],
            "containers": [{"name": "server", "image": "example/chat:2"}],
        }
        change = {"patch": {"spec": spec}}
        async with played.rolled("gated", change, readiness=PATIENT) as case:
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert "gated-" in status.waiting_for and "example.org/queue" in status.waiting_for

            def admit() -> bool:
                for pod in played.pods("gated", "chat:2"):
                    if pod.spec.scheduling_gates:
                        body = {"spec": {"schedulingGates": None}}
                        played.core.patch_namespaced_pod(pod.metadata.name, played.namespace, body)
                return len([p for p in played.pods("gated", "chat:2") if ready(p)]) == 2

            await until("the queue admits all", admit, poll_s=0.3)
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    async def lost() -> None:
        await deployed("lost")
        waypoints = [{"at": 1, "approval": True}]
        strategy = {"maxSurge": 1, "waypoints": waypoints}
        change = {"images": {"server": "example/chat:2"}}
        async with played.rolled("lost", change, readiness=PATIENT, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            (new,) = played.pods("lost", "chat:2")
            lose_node(played.core, new)
            await case.run.send("approve")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert f"its node {new.spec.node_name} does not answer" in status.waiting_for
            # What the taint manager does in the end: another is made elsewhere.
            played.core.delete_namespaced_pod(new.metadata.name, played.namespace, grace_period_seconds=0)
            await case.ends("Completed")

    async def volume() -> None:
        await deployed("volume", 1)
        async with played.rolled("volume", image("mount"), readiness={"minReady": "0s", "deadline": "5s"}) as case:
            report = await case.ends("RolledBack")
        assert f"FailedAttachVolume: {ATTACHED}" in report.status.reason
        case.watcher.assert_within(1, 2)

    async def late(name: str, mode: str) -> None:
        await deployed(name, 1)
        async with played.rolled(name, image(mode), readiness=READ) as case:
            await case.ends("Completed")
        case.watcher.assert_within(1, 2)

    async def balanced() -> None:
        """A load balancer sets the condition of a readiness gate some seconds late."""
        gate = "example.org/health"

        async def passes(version: str) -> None:
            pod = await until("it waits", lambda: next(iter(played.pods("balanced", version)), None))
            condition = {"type": gate, "status": "True"}
            body = {"status": {"conditions": [condition]}}
            played.core.patch_namespaced_pod_status(pod.metadata.name, played.namespace, body)

        gated = {"readinessGates": [{"conditionType": gate}]}
        await played.deploy("balanced", 1, mode=PUPPET, image="example/chat:1-gate", pod=gated)
        await passes("chat:1")
        await until("it is ready", lambda: any(map(ready, played.pods("balanced"))))
        async with played.rolled("balanced", image("gate"), readiness={"minReady": "0s", "deadline": "8s"}) as case:
            report = await case.ends("RolledBack")
            told = f'corresponding condition of pod readiness gate "{gate}" does not exist. (no progress for 8 s)'
            assert told in report.status.reason, report.status.reason  # whether its node answers may be unknown
        async with played.rolled("balanced", image("gate"), readiness=READ) as case:
            await passes("chat:2")
            await case.ends("Completed")
        case.watcher.assert_within(1, 2)

    passing = (late("pulled", "pull.3"), late("absent", "absent.3"))
    await asyncio.gather(cache(), gated(), lost(), volume(), balanced(), *passing)


ADDS = """[JSONPatch{op: "add", path: "/spec/containers/-",
    value: Object.spec.containers{name: "proxy", image: "example/proxy:1"}}]"""


@KINDS
async def test_what_admission_adds_to_pods_is_not_the_version(played: Lab, kind: type[Subject]) -> None:
    """A policy adds a sidecar to pods that are created from now on, and it is never ready in the new ones."""
    await kind(played, "chat").create(2, mode=PUPPET)
    await until("all are ready", lambda: sum(map(ready, played.pods("chat"))) == 2)
    probe = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [{"name": "server", "image": "a"}]}}

    def adds() -> bool:
        made = create(played.core.create_namespaced_pod, played.namespace, probe, dry_run="All")
        return len(made.spec.containers) == 2

    soon = {"minReady": "0s", "deadline": "5s"}
    spec = rewriting(ADDS, "pods", group="", operation="CREATE")
    async with admission(played, "Mutating", "adds", spec):
        await until("the policy is in force", adds)
        async with played.rolled("chat", image("beside"), kind=kind, readiness=soon) as case:
            report = await case.ends("RolledBack")
        told = "containers with unready status: [proxy] (proxy is not part of the version: a webhook or policy added it"
        assert told in report.status.reason, report.status.reason
    case.watcher.assert_within(1, 3)


async def test_a_pod_that_does_not_go_is_named(served: Lab) -> None:
    """A finalizer keeps an old pod of a StatefulSet: held past the deadline, and named, forward and back."""

    def keep(name: str, by: list[str] | None) -> None:
        served.core.patch_namespaced_pod(name, served.namespace, {"metadata": {"finalizers": by}})

    async def one(name: str, *, back: bool) -> None:
        await StatefulSetSubject(served, name).create(2, pod={"terminationGracePeriodSeconds": 2})
        pod = f"{name}-1"
        keep(pod, ["example.org/keep"])
        strategy = {"maxUnavailable": 1}
        async with served.rolled(name, kind=StatefulSetSubject, strategy=strategy, readiness=PATIENT) as case:
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert status.waiting_for.startswith(f"room: {pod}: was to be gone by "), status.waiting_for
            assert status.waiting_for.endswith("; its finalizers keep it: example.org/keep"), status.waiting_for
            if back:
                await case.run.send("abort")
                status = await case.run.until("it needs a person", lambda s: s.phase == "NeedsHuman")
                assert f"{pod}: was to be gone by " in status.reason, status.reason
            keep(pod, None)
            await case.ends("Aborted" if back else "Completed")
        case.watcher.assert_within(1, 2)

    await asyncio.gather(one("kept", back=False), one("back", back=True))


MAX_ANNOTATION_BYTES, FILLS = 262_144, "example.org/fills"


@pytest.mark.soak
async def test_a_controller_that_cannot_write_its_replicasets(served: Lab) -> None:
    """Annotations leave its ReplicaSets no place: the rollout holds, past its deadline, until they are gone."""
    soon, asks = {"minReady": "0s", "deadline": "12s"}, {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    patient = FAST.model_copy(update={"write_s": 30.0})  # a move waits some seconds for the controller

    def fill(name: str, *, full: bool) -> None:
        there = served.raw(name)["metadata"]["annotations"]
        left = MAX_ANNOTATION_BYTES - sum(len(k.encode()) + len(v.encode()) for k, v in there.items())
        served.patch(name, {"metadata": {"annotations": {FILLS: "x" * (left - len(FILLS)) if full else None}}})

    async def one(name: str, kind: type[Subject]) -> None:
        await kind(served, name).create(2)
        async with served.rolled(name, kind=kind, strategy=asks, readiness=soon, tuning=patient) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            fill(name, full=True)
            await case.run.send("approve")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert f"the controller of deployment {name} has not acted on its spec for" in status.waiting_for, status
            fill(name, full=False)
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)

    await asyncio.gather(one("one", SUBJECTS["Deployment"]), one("pair", SUBJECTS["DeploymentPair"]))


async def test_what_pod_security_refuses_is_told_at_once(served: Lab) -> None:
    """The dry run's warning stands in the plan; the refusal ends the rollout long before its deadline."""
    await served.deploy("chat", 2)
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    served.core.patch_namespace(served.namespace, {"metadata": {"labels": modes}})
    async with served.rolled("chat", readiness={"minReady": "0s", "deadline": "10m"}) as case:
        plan = await case.run.plan()
        assert any("would violate PodSecurity" in warning for warning in plan.warnings), plan.warnings
        report = await case.ends("RolledBack", 60.0)
    assert report.status.reason.startswith("Configuration: no pod can be created: ")
    assert "violates PodSecurity" in report.status.reason
    case.watcher.assert_within(2, 3)


CAPABLE = {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}
REFUSED = {"containers": [{"name": "server", "image": "example/chat:2", **CAPABLE}]}


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        pytest.param(StatefulSetSubject, {"spec": REFUSED}, id="StatefulSet"),
        pytest.param(LeaderWorkerSetSubject, {"leaderTemplate": {"spec": REFUSED}}, id="LeaderWorkerSet"),
    ],
)
async def test_why_no_numbered_pod_is_made_is_told_at_once(
    served: Lab, kind: type[Subject], patch: dict[str, Any]
) -> None:
    """Only events tell it. The refusal ends the rollout long before its deadline."""
    await kind(served, "chat").create(2)
    enforces = {"pod-security.kubernetes.io/enforce": "baseline"}
    served.core.patch_namespace(served.namespace, {"metadata": {"labels": enforces}})
    long = {"minReady": "0s", "deadline": "10m"}
    async with served.rolled("chat", {"patch": patch}, kind=kind, readiness=long) as case:
        report = await case.ends("RolledBack")
    assert report.status.reason.startswith("Configuration: no pod can be created: "), report.status.reason
    assert "violates PodSecurity" in report.status.reason
    case.watcher.assert_within(1, 2)


async def test_a_pod_that_keeps_the_name_of_a_missing_one_holds_the_rollout(served: Lab) -> None:
    """Somebody removed its label to debug it: its controller can create no other one before it is gone."""

    async def quarantined(name: str, kind: type[Subject], label: str) -> None:
        strategy = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}
        async with served.case(name, 3, kind=kind, strategy=strategy, readiness=PATIENT) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            served.core.patch_namespaced_pod(f"{name}-0", served.namespace, {"metadata": {"labels": {label: None}}})
            await case.run.send("approve")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert f"pod {name}-0 exists and is not the target's" in status.reason, status
            served.core.delete_namespaced_pod(f"{name}-0", served.namespace, grace_period_seconds=0)
            await case.ends("Completed")

    async def outlived(name: str) -> None:
        """Somebody removed the owner of a group's workers, as a restore of a backup does: they outlive their leader."""
        strategy = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}
        readiness = {"minReady": "0s", "deadline": "40s"}
        async with served.case(name, 3, kind=LeaderWorkerSetSubject, strategy=strategy, readiness=readiness) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            nobody = {"metadata": {"ownerReferences": None}}
            served.apps.patch_namespaced_stateful_set(f"{name}-0", served.namespace, nobody)
            await case.run.send("approve")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")

            def workers() -> list[str]:
                return [pod.metadata.name for pod in served.pods(name) if pod.metadata.name.startswith(f"{name}-0-")]

            assert f"pod {name}-0-1 of the former leader still exists" in status.reason, status
            served.apps.delete_namespaced_stateful_set(f"{name}-0", served.namespace)
            await until("its workers are gone", lambda: not workers())
            served.core.delete_namespaced_pod(f"{name}-0", served.namespace)
            await case.ends("Completed")

    await asyncio.gather(
        outlived("orphaned"),
        quarantined("set", StatefulSetSubject, "app"),
        quarantined("groups", LeaderWorkerSetSubject, "leaderworkerset.sigs.k8s.io/name"),
    )
