"""An admission policy that refuses what a rollout writes in the middle: it is told, tried rarely, and can be ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from harness import FAST, Case, Lab, until
from kube_api import create
from kubernetes import client
from policies import admission
from shell import Shell
from subjects import DeploymentSubject, PairSubject, StatefulSetSubject, Subject
from webhooks import as_worker, in_force

from activities.levers.ownership import BASELINE, OWNER

DENIED = "no more than 5 replicas, and no way back"
_IMAGE = "spec.template.spec.containers[0].image.endsWith(':1')"
_RULE = (
    "(!object.metadata.name.startsWith('few') || object.spec.replicas <= 5) && "
    f"(!object.metadata.name.startsWith('back') || !object.{_IMAGE} || oldObject.{_IMAGE})"
)


@contextlib.asynccontextmanager
async def denying(lab: Lab) -> AsyncIterator[None]:
    """Refuse more than 5 replicas of targets named ``few``, and the first version of those named ``back``."""
    api, name = client.AdmissionregistrationV1Api(lab.core.api_client), f"deny-{lab.namespace}"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"]}
    spec = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
            "resourceRules": [{**rule, "resources": ["deployments", "statefulsets"]}],
        },
        "validations": [{"expression": _RULE, "message": DENIED}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    create(api.create_validating_admission_policy, {"metadata": {"name": name}, "spec": spec})
    create(api.create_validating_admission_policy_binding, {"metadata": {"name": name}, "spec": binding})

    def is_in_force() -> bool:
        try:
            many = {"spec": {"replicas": 6}}
            lab.apps.patch_namespaced_deployment("few-deployment", lab.namespace, many, dry_run="All")
        except client.ApiException as error:
            return DENIED in str(error.body)
        return False

    try:
        await until("the policy refuses", is_in_force)
        yield
    finally:
        api.delete_validating_admission_policy_binding(name)
        api.delete_validating_admission_policy(name)


async def test_a_refused_write_ends_at_a_person(served: Lab) -> None:
    """Segue reports a refused number of replicas once and accepts another; a refused rollback continues when it may."""
    in_force, seen = asyncio.Event(), asyncio.Semaphore(0)
    asks = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    taken = {**asks, "maxSurge": 0, "maxUnavailable": 1}

    async def few(kind: type[Subject]) -> None:
        name = f"few-{kind.kind.lower()}"
        strategy = taken if kind is StatefulSetSubject else asks
        async with served.rolled(name, kind=kind, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await in_force.wait()
            await case.run.send("scale", replicas=9)
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            seen.release()
            assert DENIED in status.waiting_for and "run `segue scale`" in status.waiting_for, status.waiting_for
            await case.run.send("scale", replicas=4)
            await case.run.send("resume")
            await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
            await case.run.send("approve")
            report = await case.ends("Completed")
            assert case.subject.replicas() == 4
        assert [entry.what for entry in report.entries].count("scale refused") == 1
        case.watcher.assert_within(2 if kind is StatefulSetSubject else 3, 5)

    async def back() -> None:
        async with served.rolled("back", strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await in_force.wait()
            await case.run.send("abort")
            status = await case.run.until("it needs a person", lambda s: s.phase == "NeedsHuman")
            assert DENIED in status.waiting_for, status.waiting_for
            seen.release()
            await case.ends("Aborted")
        case.watcher.assert_within(3, 4, passing=1)

    kinds = (DeploymentSubject, StatefulSetSubject, PairSubject)
    await DeploymentSubject(served, "back").create(3)
    await asyncio.gather(*(kind(served, f"few-{kind.kind.lower()}").create(3) for kind in kinds))
    async with asyncio.TaskGroup() as running:
        for each in (*map(few, kinds), back()):
            running.create_task(each)
        async with denying(served):
            in_force.set()
            for _ in range(4):
                await seen.acquire()


async def test_a_refused_note_holds_nothing_up(served: Lab) -> None:
    """Segue's notes on revisions are refused after the target is free: the rollout ends, and its report says so."""
    patch = client.AppsV1Api(as_worker(served)).patch_namespaced_controller_revision
    notes, changed = "no notes on revisions", {"metadata": {"labels": {"a": "b"}}}
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"]}
    spec = {
        "matchConstraints": {"resourceRules": [{**rule, "resources": ["controllerrevisions"]}]},
        "validations": [{"expression": "request.userInfo.username != 'segue-worker'", "message": notes}],
    }
    strategy = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with served.case("set", 2, kind=StatefulSetSubject, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        revisions: Any = served.apps.list_namespaced_controller_revision(served.namespace)
        found = revisions.items[0].metadata.name
        async with admission(served, "Validating", "no-notes", spec, validationActions=["Deny"]):
            await in_force(lambda: patch(found, served.namespace, changed, dry_run="All"), notes)
            await case.run.send("approve")
            report = await case.ends("Completed")
    warnings = [entry.detail for entry in report.entries if entry.what == "warning"]
    assert any("the history of this version stays as it is" in each and notes in each for each in warnings), warnings


def strip(case: Case) -> None:
    """Remove every annotation that it does not know, as some operators do."""
    own = (case.lab.raw(case.name)["metadata"]["annotations"]).keys()
    case.lab.patch(case.name, {"metadata": {"annotations": {name: None for name in own if "segue" in name}}})


async def copy(case: Case) -> None:
    """Delete it without its pods, and create it again as it was."""
    lab, name = case.lab, case.name
    found = lab.raw(name)
    metadata = {"name": name, "annotations": found["metadata"]["annotations"]}
    body: Any = {"metadata": metadata, "spec": found["spec"]}
    lab.apps.delete_namespaced_deployment(name, lab.namespace, propagation_policy="Orphan")
    there: Callable[..., Any] = lab.apps.list_namespaced_deployment
    await until("it is gone", lambda: name not in {d.metadata.name for d in there(lab.namespace).items})
    lab.apps.create_namespaced_deployment(lab.namespace, body)


async def test_what_is_left_held_can_be_released(served: Lab, tmp_path: Path) -> None:
    """Somebody removes the annotations, or creates the target again from a copy: the reason says what to do."""
    asks, shell = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}, Shell(served, tmp_path)

    async def one(name: str, expected: str) -> None:
        async with served.case(name, 3, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            if name == "stripped":
                strip(case)
            else:
                await copy(case)
            report = await case.run.end()
            assert report.status.outcome == "Aborted"
            assert expected in report.status.reason, report.status.reason
            await shell.run("release", f"{served.namespace}/{name}")
            assert case.subject.settings() == case.before
        case.watcher.assert_within(3, 4, passing=1)

    async def emptied(name: str) -> None:
        async with served.case(name, 3, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            for each in served.replicasets(name):
                served.apps.delete_namespaced_replica_set(each["metadata"]["name"], served.namespace)
            report = await case.ends("RolledBack")
        assert "somebody deleted its ReplicaSets" in report.status.reason

    async def damaged(way: str) -> None:
        name = f"damaged-{way}"
        patient = FAST.model_copy(
            update={"write_s": 30.0}
        )  # a write that is made again finds it mended, and tells nothing
        async with served.case(name, 3, strategy=asks, target={"minReadySeconds": 1}, tuning=patient) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            served.patch(name, {"metadata": {"annotations": {BASELINE: "{"}}})
            if way == "abort":
                await case.run.send("abort")
                entries = (await case.run.end()).entries
                told = "; ".join(e.detail for e in entries if e.what == "warning")
            else:
                await case.run.handle.terminate("by a person")
                told = (await shell.run("release", f"{served.namespace}/{name}")).stderr
            assert f"the annotation {BASELINE} was removed or damaged" in told, told
            await until("only the baseline runs", case.only_baseline)
        left = served.raw(name)
        assert left["spec"]["minReadySeconds"] == 1 and "paused" not in left["spec"]
        assert not {BASELINE, OWNER} & left["metadata"]["annotations"].keys()
        case.watcher.assert_within(3, 4, passing=1)

    async def interrupted(name: str, kind: str) -> None:
        """A release was killed after its last write of the Deployment: the same command again ends it."""
        await served.deploy(name, 1)
        copies = {BASELINE: "{}", OWNER: "released by a-person"}
        (found,) = served.replicasets(name)
        own = found["metadata"]
        patch = {"metadata": {"annotations": copies}}
        served.apps.patch_namespaced_replica_set(own["name"], served.namespace, patch)
        released = await shell.run("release", f"{kind}{served.namespace}/{name}")
        assert "was released before" in released.stdout
        assert not copies.keys() & served.replicasets(name)[0]["metadata"]["annotations"].keys()

    await asyncio.gather(
        interrupted("interrupted", ""),
        interrupted("interrupted-pair", "DeploymentPair/"),
        damaged("abort"),
        damaged("release"),
        emptied("emptied"),
        one("stripped", "If the target is still held, run `segue release`"),
        one("copied", "the target was deleted"),  # the worker may see that before there is another one
    )
