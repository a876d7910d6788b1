"""The list of rights on the real API server: the worker uses these rights, needs each, and needs no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import ACCEPTED, Lab, Run, open_lab, until
from kubernetes import client
from recording_worker import RECORDED, recorded
from segue_local import Stack
from subjects import PairSubject, StatefulSetSubject, SupervisedSubject
from temporalio.client import WorkflowFailureError

from segue.report import to_markdown
from segue.rights import ROLES, Right, Use, described, needed

NEVER = {"patch": {"metadata": {"labels": {"segue.dev/fake": "never-ready"}}}}
OPTIONAL = {right for role in ROLES.values() for rule in role.rules if not rule.uses for right in rule.rights} | {
    # Lint reads these two for every kind of target; some kinds or parts of the spec need them as well.
    Right("list", "autoscaling", "horizontalpodautoscalers"),
    Right("list", "apps", "deployments"),
}
"""Without these, Segue reports what it cannot check or explain."""
REVIEW = Right("create", "authorization.k8s.io", "selfsubjectaccessreviews")
"""Every authenticated user has it."""
CONFIG: dict[str, Any] = {
    "volumes": [{"name": "model", "configMap": {"name": "model"}}],
}


async def grant(lab: Lab, rights: set[Right]) -> None:
    """Give the worker exactly these rights in the namespace, and wait until the API server applies them."""
    rules = [{"apiGroups": [r.group], "resources": [r.resource], "verbs": [r.verb]} for r in sorted(rights)]
    rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
    before = {
        Right(verb, rule.api_groups[0], resource)
        for rule in rbac.read_namespaced_role("segue-worker", lab.namespace).rules
        for resource in rule.resources
        for verb in rule.verbs
    }
    rbac.patch_namespaced_role("segue-worker", lab.namespace, {"rules": rules})
    changed = before ^ rights
    await until("the role applies", lambda: all(_may(lab, each) is (each in rights) for each in changed))


def _may(lab: Lab, right: Right) -> bool:
    resource, _, part = right.resource.partition("/")
    asked = {
        "verb": right.verb, "group": right.group, "resource": resource, "subresource": part, "namespace": lab.namespace,
    }  # fmt: skip
    review = {"spec": {"user": "segue-worker", "resourceAttributes": asked}}
    reviews = client.AuthorizationV1Api(lab.core.api_client)
    return bool(reviews.create_subject_access_review(review).status.allowed)


def configured(lab: Lab) -> dict[str, Any]:
    """A target whose template refers to a ConfigMap."""
    lab.core.create_namespaced_config_map(lab.namespace, {"metadata": {"name": "model"}, "data": {"a": "1"}})
    return CONFIG


def autoscale(lab: Lab, name: str, replicas: int) -> None:
    aim = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    body: Any = {
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": aim, "minReplicas": replicas, "maxReplicas": replicas},
    }
    client.AutoscalingV2Api(lab.core.api_client).create_namespaced_horizontal_pod_autoscaler(lab.namespace, body)


PARTS: dict[str, Any] = {"autoscaler": "hold", "drain": {"quiet": "1s", "timeout": "5s"}}
CHANGED_AGAIN = {"configMaps": {"model": {"a": "3"}}, "images": {"server": "example/chat:3"}}
CHANGED = {"configMaps": {"model": {"a": "2"}}, "images": {"server": "example/chat:2"}}


# --- exactly what is needed ------------------------------------------------------------------------------


async def deployment(lab: Lab) -> set[Use]:
    """In place, with configuration, drain and a held autoscaler; settled on the way, and completed afterwards."""
    await lab.deploy("chat", 2, pod=configured(lab))
    autoscale(lab, "chat", 2)
    stops = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    run = await lab.start("chat", CHANGED, strategy=stops, **PARTS)
    await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
    await run.send("settle")
    await run.until("it has settled", lambda s: s.phase == "Paused" and s.reason == "settled")
    await run.send("resume")
    await run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
    await run.send("approve")
    await ends(run, "Completed")
    # The second rollout drops the copy of the first, once no revision refers to it.
    lab.patch("chat", {"spec": {"revisionHistoryLimit": 0}})
    accepted = [*ACCEPTED, "revision-history-too-low"]
    await ends(await lab.start("chat", CHANGED_AGAIN, accept=accepted, **PARTS), "Completed")
    return {Use.DEPLOYMENT, Use.HOLD, Use.CONFIG_MAPS, Use.DRAIN}


async def pair(lab: Lab) -> set[Use]:
    """Segue makes the new Deployment, and removes it again; the next one is retargeted, and stays."""
    subject = PairSubject(lab, "chat")
    await subject.create(2)
    strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    bad = await lab.start("chat", subject.changed(2, "crash-loop"), target=subject.target, strategy=strategy)
    await ends(bad, "RolledBack")
    run = await lab.start("chat", subject.changed(2), target=subject.target, strategy=strategy)
    await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
    await run.send("retarget", change=subject.changed(3))
    await run.until("it asks again", lambda s: s.phase == "AwaitingApproval" and ":3" in str(s.wanted))
    await run.send("approve")
    await ends(run, "Completed")
    return {Use.PAIR}


async def numbered(lab: Lab) -> set[Use]:
    """A broken version blocks the rollback of its ordered StatefulSet, until Segue deletes its pod."""
    subject = StatefulSetSubject(lab, "chat")
    await subject.create(3, policy="OrderedReady")
    strategy = {"maxUnavailable": 1}
    run = await lab.start("chat", subject.changed(2, "crash-loop"), target=subject.target, strategy=strategy)
    await ends(run, "RolledBack")
    return {Use.STATEFUL_SET}


async def supervised(lab: Lab) -> set[Use]:
    """A ServingRuntime, rolled by its own operator."""
    subject = SupervisedSubject(lab, "chat")
    await subject.create(1)
    await ends(await lab.start("chat", subject.changed(2), target=subject.target, strategy={}), "Completed")
    return {Use.SUPERVISED}


async def ends(run: Run, outcome: str) -> None:
    report = await run.end()
    assert report.status.outcome == outcome, to_markdown(report)


SCENARIOS: dict[str, tuple[Any, set[Use]]] = {
    "Deployment": (deployment, {Use.DEPLOYMENT, Use.HOLD, Use.CONFIG_MAPS, Use.DRAIN}),
    "DeploymentPair": (pair, {Use.PAIR}),
    "StatefulSet": (numbered, {Use.STATEFUL_SET}),
    "Supervised": (supervised, {Use.SUPERVISED}),
}


@asynccontextmanager
async def recording(stack: Stack, path: Path) -> AsyncIterator[str]:
    """Yield the task queue of a worker that records its requests."""
    async with open_lab(stack) as lab:
        worker = lab.worker(module="recording_worker", **{RECORDED: str(path)})
        await worker.serves()
        yield lab.task_queue


async def test_the_worker_uses_exactly_the_rights_that_are_needed(stack: Stack, tmp_path: Path) -> None:
    """With only the needed rights, each kind completes or comes back; it uses each of them, and no right beside."""
    path = tmp_path / "recorded"
    async with recording(stack, path) as queue:

        async def one(name: str) -> None:
            play, uses = SCENARIOS[name]
            only = set(needed(uses, "servingruntimes.serving.kserve.io/v1alpha1"))
            async with open_lab(stack, queue) as lab:
                await grant(lab, only)
                await play(lab)
                used = recorded(path)[lab.namespace]
            assert used <= only | OPTIONAL, f"{name} uses more: {described(sorted(used - only - OPTIONAL))}"
            assert only <= used, f"{name} does not use: {described(sorted(only - used))}"

        problems = await asyncio.gather(*map(one, SCENARIOS), return_exceptions=True)
        beside = recorded(path).get("", set()) - OPTIONAL - {REVIEW}
        assert not any(problems) and not beside, "\n".join(map(str, [*filter(None, problems), *beside]))


# --- each right removed in turn --------------------------------------------------------------------------

JOB = {"gates": [{"name": "smoke", "job": {"image": "example/smoke:1"}}], "strategy": {"waypoints": [{"at": 1}]}}
ROUTED = {"service": "chat", "lag": "1s"}
WEIGHED = {"route": "chat", "services": {"old": "a", "new": "b"}}


async def lacks(lab: Lab, uses: set[Use], change: dict[str, Any], **spec: Any) -> None:
    """Start the rollout with each needed right removed in turn: refused before anything is read or written."""
    rights = needed(uses, "servingruntimes.serving.kserve.io/v1alpha1")
    for right in rights:
        await grant(lab, set(rights) - {right})
        with pytest.raises(WorkflowFailureError) as refused:
            await (await lab.start("chat", change, **spec)).end()
        said = str(refused.value.cause)
        file = "deploy/rbac-gates.yaml" if right.group == "batch" else "deploy/rbac.yaml"
        assert f"the worker may not {right}; grant it: kubectl apply -n {lab.namespace} -f {file}" in said, said


async def test_each_right_that_is_missing_is_named(served: Lab) -> None:
    """The refusal names the right and the command that grants it, and the target is untouched."""
    await served.deploy("chat", 1, pod=configured(served), mode="never-ready")
    before = served.raw("chat")["spec"]
    uses = {Use.DEPLOYMENT, Use.HOLD, Use.CONFIG_MAPS, Use.DRAIN, Use.JOB}
    await lacks(served, uses, CHANGED, **PARTS, **JOB)
    after = served.raw("chat")
    assert after["spec"] == before
    assert not [m for m in after["metadata"]["managedFields"] if m["manager"] == "segue"]
    assert len(served.core.list_namespaced_config_map(served.namespace).items) == 2, "its own, and the cluster's"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("uses", "target", "strategy"),
    [
        ({Use.PAIR}, {"kind": "DeploymentPair", "old": "chat", "new": "chat-2"}, {"maxSurge": 1}),
        (
            {Use.PAIR, Use.SERVICE},
            {"kind": "DeploymentPair", "old": "chat", "new": "b"},
            {"type": "blueGreen", "traffic": ROUTED},
        ),
        ({Use.PAIR, Use.ROUTE}, {"kind": "DeploymentPair", "old": "chat", "new": "b"}, {"traffic": WEIGHED}),
        ({Use.STATEFUL_SET}, {"kind": "StatefulSet", "name": "chat"}, {"maxUnavailable": 1}),
        ({Use.LEADER_WORKER_SET}, {"kind": "LeaderWorkerSet", "name": "chat"}, {"maxUnavailable": 1}),
        ({Use.SUPERVISED}, {"kind": "Supervised", "resource": "ServingRuntime", "name": "chat"}, {}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else "",
)
async def test_each_right_of_every_kind_that_is_missing_is_named(
    served: Lab, uses: set[Use], target: dict[str, Any], strategy: dict[str, Any]
) -> None:
    """The check comes before the first request for the target, which therefore need not exist."""
    change = {"images": {"server": "example/chat:2"}}
    await lacks(served, uses, change, target={**target, "namespace": served.namespace}, strategy=strategy)
