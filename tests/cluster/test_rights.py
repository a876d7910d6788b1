"""The list of rights on the real API server: the worker uses these rights, needs each, and needs no other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import ACCEPTED, Lab, Run, open_lab, pod_template, until
from kube_api import create
from kubernetes import client
from recording_worker import RECORDED, recorded
from segue_local import Stack
from subjects import LeaderWorkerSetSubject, PairSubject, StatefulSetSubject, SupervisedSubject
from temporalio.client import WorkflowFailureError
from traffic_watcher import GROUP, PLURAL, VERSION

from segue.report import to_markdown
from segue.rights import ROLES, Right, Use, described, needed

NEVER = {"patch": {"metadata": {"labels": {"segue.dev/fake": "never-ready"}}}}
OPTIONAL = {right for role in ROLES.values() for rule in role.rules if not rule.uses for right in rule.rights} | {
    # Lint reads these two for every kind of target; some kinds or parts of the spec need them as well.
    Right("list", "autoscaling", "horizontalpodautoscalers"),
    Right("list", "apps", "deployments"),
}
"""Without these, Segue reports what it cannot check or explain."""
REVIEWS = {Right("create", "authorization.k8s.io", f"selfsubject{which}reviews") for which in ("access", "rules")}
"""Every authenticated user has them."""
SIDES = {"old": "blue", "new": "green"}
POOLS = "inference.networking.k8s.io"
CONFIG: dict[str, Any] = {
    "volumes": [{"name": "model", "configMap": {"name": "model"}}],
}


async def grant(lab: Lab, rights: set[Right]) -> None:
    """Give the worker exactly these rights in the namespace, and wait until the API server applies them."""
    rules = [{"apiGroups": [r.group], "resources": [r.resource], "verbs": [r.verb]} for r in sorted(rights)]
    rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
    role: Any = rbac.read_namespaced_role("segue-worker", lab.namespace)
    before = {
        Right(verb, rule.api_groups[0], resource)
        for rule in role.rules
        for resource in rule.resources
        for verb in rule.verbs
    }
    rbac.patch_namespaced_role("segue-worker", lab.namespace, {"rules": rules})
    changed = before ^ rights
    await until("the role applies", lambda: all(_may(lab, each) is (each in rights) for each in changed))


def _may(lab: Lab, right: Right) -> bool:
    resource, _, part = right.resource.partition("/")
    attributes = {
        "verb": right.verb, "group": right.group, "resource": resource, "subresource": part, "namespace": lab.namespace,
    }  # fmt: skip
    review = {"spec": {"user": "segue-worker", "resourceAttributes": attributes}}
    reviews = client.AuthorizationV1Api(lab.core.api_client)
    return bool(create(reviews.create_subject_access_review, review).status.allowed)


def configured(lab: Lab) -> dict[str, Any]:
    """A target whose template refers to a ConfigMap."""
    create(lab.core.create_namespaced_config_map, lab.namespace, {"metadata": {"name": "model"}, "data": {"a": "1"}})
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


async def deployment(lab: Lab) -> None:
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


async def pair(lab: Lab) -> None:
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


async def numbered(lab: Lab) -> None:
    """A broken version blocks the rollback of its ordered StatefulSet, until Segue deletes its pod."""
    subject = StatefulSetSubject(lab, "chat")
    await subject.create(3, policy="OrderedReady")
    strategy = {"maxUnavailable": 1}
    run = await lab.start("chat", subject.changed(2, "crash-loop"), target=subject.target, strategy=strategy)
    await ends(run, "RolledBack")


async def supervised(lab: Lab) -> None:
    """A ServingRuntime, rolled by its own operator."""
    subject = SupervisedSubject(lab, "chat")
    await subject.create(1)
    await ends(await lab.start("chat", subject.changed(2), target=subject.target, strategy={}), "Completed")


async def ends(run: Run, outcome: str) -> None:
    report = await run.end()
    assert report.status.outcome == outcome, to_markdown(report)


async def groups(lab: Lab) -> None:
    """A broken version is rolled back; the next one completes, and the version before it is kept."""
    subject = LeaderWorkerSetSubject(lab, "chat")
    await subject.create(2)
    strategy = {"maxUnavailable": 1, "waypoints": [{"at": "100%"}]}
    bad = await lab.start("chat", subject.changed(2, "crash-loop"), target=subject.target, strategy=strategy)
    await ends(bad, "RolledBack")
    await ends(await lab.start("chat", subject.changed(3), target=subject.target, strategy=strategy), "Completed")


async def routed(lab: Lab, strategy: dict[str, Any]) -> None:
    """From one Deployment to the other, with a Service for users and one for each side."""
    for side, replicas in (("blue", 1), ("green", 0)):
        labels = {"app": "chat", "side": side}
        template = pod_template("chat", "ready", "300ms", f"example/chat:{1 if replicas else 2}")
        template["metadata"]["labels"] |= labels
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        body = {"metadata": {"name": f"chat-{side}"}, "spec": spec}
        create(lab.apps.create_namespaced_deployment, lab.namespace, body)
    for name, side in (("chat", "blue"), ("blue", "blue"), ("green", "green")):
        ports = {"selector": {"app": "chat", "side": side}, "ports": [{"port": 80}]}
        create(lab.core.create_namespaced_service, lab.namespace, {"metadata": {"name": name}, "spec": ports})
    blue = "chat-blue"
    await until("blue serves", lambda: lab.deployment(blue).status.available_replicas)
    target = {"kind": "DeploymentPair", "namespace": lab.namespace, "old": blue, "new": "chat-green"}
    await ends(await lab.start(blue, target=target, strategy=strategy), "Completed")


async def by_service(lab: Lab) -> None:
    await routed(lab, {"type": "blueGreen", "retain": "1s", "traffic": {"service": "chat", "lag": "1s"}})


async def by_route(lab: Lab) -> None:
    lab.stack.add_gateway_api()
    await weighted(lab, {"services": SIDES}, {})


async def by_pools(lab: Lab) -> None:
    lab.stack.add_gateway_api()
    for side in SIDES.values():
        spec = {
            "selector": {"matchLabels": {"app": "chat", "side": side}}, "targetPorts": [{"number": 80}],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        }  # fmt: skip
        pool = {"apiVersion": f"{POOLS}/v1", "kind": "InferencePool", "metadata": {"name": side}, "spec": spec}
        lab.custom.create_namespaced_custom_object(POOLS, "v1", lab.namespace, "inferencepools", pool)
    await weighted(lab, {"pools": SIDES}, {"group": POOLS, "kind": "InferencePool"})


async def weighted(lab: Lab, backends: dict[str, Any], kind: dict[str, str]) -> None:
    refs = [{**kind, "name": "blue", "port": 80, "weight": 1}]
    spec = {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": refs}]}
    route = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "HTTPRoute", "metadata": {"name": "chat"}, "spec": spec}
    lab.custom.create_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL, route)
    await routed(lab, {"maxSurge": 1, "traffic": {"route": "chat", **backends, "lag": "1s"}})


class Scenario(NamedTuple):
    """What is played, what it has rights for, and whose rights it must use up."""

    play: Callable[[Lab], Awaitable[None]]
    uses: set[Use]
    all_of: set[Use]
    besides: frozenset[Right] = frozenset()
    """Needed rights that it takes more to use."""


OWN = [
    Scenario(deployment, {Use.DEPLOYMENT, Use.HOLD, Use.CONFIG_MAPS, Use.DRAIN}, set(Use)),
    Scenario(pair, {Use.PAIR}, set(Use)),
    Scenario(numbered, {Use.STATEFUL_SET}, set(Use)),
    Scenario(supervised, {Use.SUPERVISED}, set(Use)),
]
ROUTED = [
    Scenario(by_service, {Use.PAIR, Use.SERVICE}, {Use.SERVICE}),
    Scenario(by_route, {Use.PAIR, Use.ROUTE}, {Use.ROUTE}),
    Scenario(by_pools, {Use.PAIR, Use.POOLS}, {Use.POOLS}),
]
GROUPED = [
    Scenario(
        groups,
        {Use.LEADER_WORKER_SET},
        set(Use),
        # Copies of versions are deleted from the eleventh on, and pods only where they block the rollback.
        frozenset({Right("delete", "apps", "controllerrevisions"), Right("delete", "", "pods")}),
    ),
]
RUNTIMES = "servingruntimes.serving.kserve.io/v1alpha1"


@asynccontextmanager
async def recording(stack: Stack, path: Path) -> AsyncIterator[str]:
    """Yield the task queue of a worker that records its requests."""
    async with open_lab(stack) as lab:
        worker = lab.worker(module="recording_worker", **{RECORDED: str(path)})
        await worker.serves()
        yield lab.task_queue


async def play(stack: Stack, path: Path, scenarios: Sequence[Scenario]) -> None:
    """Play scenarios side by side, each with only its rights; compare them with those that the worker used."""
    async with recording(stack, path) as queue:

        async def one(scenario: Scenario) -> None:
            only = set(needed(scenario.uses, RUNTIMES))
            async with open_lab(stack, queue) as lab:
                await grant(lab, only)
                await scenario.play(lab)
                used = recorded(path)[lab.namespace]
            name, more = scenario.play.__name__, used - only - OPTIONAL
            less = set(needed(scenario.uses & scenario.all_of, RUNTIMES)) - used - scenario.besides
            assert not more, f"{name} uses more: {described(sorted(more))}"
            assert not less, f"{name} does not use: {described(sorted(less))}"

        problems = await asyncio.gather(*map(one, scenarios), return_exceptions=True)
        beside = recorded(path).get("", set()) - OPTIONAL - REVIEWS
        assert not any(problems) and not beside, "\n".join(map(str, [*filter(None, problems), *beside]))


async def test_the_worker_uses_exactly_the_rights_that_are_needed(stack: Stack, tmp_path: Path) -> None:
    """With only the needed rights, each kind completes or comes back; it uses each of them, and no right beside."""
    await play(stack, tmp_path / "recorded", OWN)


@pytest.mark.soak
async def test_traffic_uses_exactly_the_rights_that_are_needed(stack: Stack, tmp_path: Path) -> None:
    await play(stack, tmp_path / "recorded", ROUTED)


@pytest.mark.soak
async def test_groups_use_exactly_the_rights_that_are_needed(stack: Stack, tmp_path: Path) -> None:
    await play(stack, tmp_path / "recorded", GROUPED)


# --- each right removed in turn --------------------------------------------------------------------------

JOB: dict[str, Any] = {
    "gates": [{"name": "smoke", "job": {"image": "example/smoke:1"}}],
    "strategy": {"waypoints": [{"at": 1}]},
}
SWITCHED = {"service": "chat", "lag": "1s"}
WEIGHED = {"route": "chat", "services": {"old": "a", "new": "b"}}
POOLED = {"route": "chat", "pools": {"old": "a", "new": "b"}}
PAIRED = {"kind": "DeploymentPair", "old": "chat", "new": "b"}
TURNS: list[tuple[set[Use], dict[str, Any], dict[str, Any]]] = [
    ({Use.PAIR}, {"kind": "DeploymentPair", "old": "chat", "new": "chat-2"}, {"maxSurge": 1}),
    ({Use.PAIR, Use.SERVICE}, PAIRED, {"type": "blueGreen", "traffic": SWITCHED}),
    ({Use.PAIR, Use.ROUTE}, PAIRED, {"traffic": WEIGHED}),
    ({Use.PAIR, Use.POOLS}, PAIRED, {"traffic": POOLED}),
    ({Use.STATEFUL_SET}, {"kind": "StatefulSet", "name": "chat"}, {"maxUnavailable": 1}),
    ({Use.LEADER_WORKER_SET}, {"kind": "LeaderWorkerSet", "name": "chat"}, {"maxUnavailable": 1}),
    ({Use.SUPERVISED}, {"kind": "Supervised", "resource": "ServingRuntime", "name": "chat"}, {}),
]


async def lacks(
    served: Lab, uses: set[Use], change: dict[str, Any], *, check: Callable[[Lab], AbstractAsyncContextManager[Any]],
    target: dict[str, Any] | None = None, **spec: Any,
) -> None:  # fmt: skip
    """Start the rollout without each needed right, in a namespace each: refused before anything is read or written."""
    rights = needed(uses, RUNTIMES)

    async def without(right: Right) -> None:
        async with open_lab(served.stack, served.task_queue) as lab, check(lab):
            await grant(lab, set(rights) - {right})
            placed = {"target": {**target, "namespace": lab.namespace}} if target else {}
            with pytest.raises(WorkflowFailureError) as refused:
                await (await lab.start("chat", change, **{**spec, **placed})).end()
            message = str(refused.value.cause)
            file = "deploy/rbac-gates.yaml" if right.group == "batch" else "deploy/rbac.yaml"
            assert f"the worker may not {right}; grant it: kubectl apply -n {lab.namespace} -f {file}" in message, (
                message
            )

    await asyncio.gather(*map(without, rights))


@asynccontextmanager
async def untouched(lab: Lab) -> AsyncIterator[None]:
    """Create the target, and see that nothing of it has changed at the end."""
    await lab.deploy("chat", 1, pod=configured(lab), mode="never-ready")
    before = lab.raw("chat")["spec"]
    yield
    after = lab.raw("chat")
    assert after["spec"] == before
    assert not [m for m in after["metadata"]["managedFields"] if m["manager"] == "segue"]
    configs: list[Any] = lab.core.list_namespaced_config_map(lab.namespace).items
    assert {each.metadata.name for each in configs} - {"kube-root-ca.crt"} == {"model"}


async def test_each_right_that_is_missing_is_named(served: Lab) -> None:
    """The refusal names the right and the command that grants it, and the target is untouched."""
    uses = {Use.DEPLOYMENT, Use.HOLD, Use.CONFIG_MAPS, Use.DRAIN, Use.JOB}
    assert uses.union(*(each for each, _, _ in TURNS)) == set(Use), "each use has its turn"
    await lacks(served, uses, CHANGED, check=untouched, **PARTS, **JOB)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("uses", "target", "strategy"),
    TURNS,
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else "",
)
async def test_each_right_of_every_kind_that_is_missing_is_named(
    served: Lab, uses: set[Use], target: dict[str, Any], strategy: dict[str, Any]
) -> None:
    """The check comes before the first request for the target, which therefore need not exist."""
    change = {"images": {"server": "example/chat:2"}}
    await lacks(served, uses, change, check=nullcontext, target=target, strategy=strategy)
