"""KServe's real controller and webhooks: its InferenceServices are rolled by it, and judged by their pods."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from harness import ACCEPTED, Lab, Run, open_lab, until
from kube_api import client_of
from kubernetes import client
from operators import Operator
from segue_local import Stack
from stacks import kserve_stack
from temporalio.client import WorkflowFailureError

from segue.client import Rollouts
from segue.report import Report, to_markdown

GROUP = "serving.kserve.io"
STOP = "serving.kserve.io/stop"
RUNTIME = {
    "apiVersion": f"{GROUP}/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "fake"},
    "spec": {
        "supportedModelFormats": [{"name": "onnx", "version": "1", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "image": "example/chat:0"}],
    },
}
HEADS_AND_WORKERS = {
    **RUNTIME,
    "metadata": {"name": "several-nodes"},
    "spec": {
        "supportedModelFormats": [{"name": "huggingface", "version": "1", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "image": "example/chat:0"}],
        "workerSpec": {"containers": [{"name": "worker-container", "image": "example/chat:0"}]},
    },
}
NEVER = {"patch": {"labels": {"segue.dev/fake": "never-ready"}, "model": {"image": "example/chat:2"}}}
GOOD = {"images": {"model": "example/chat:2"}}
SOON = {"minReady": "0s", "deadline": "12s"}


@pytest.fixture(scope="module")
def kserve() -> Iterator[Stack]:
    """Servers with KServe."""
    with kserve_stack() as started:
        yield started


@pytest.fixture
async def services(kserve: Stack) -> AsyncIterator[Lab]:
    """A namespace with a runtime, and a worker that may read events."""
    async with open_lab(kserve) as lab:
        lab.let_ask_pods()
        lab.worker()
        lab.custom.create_namespaced_custom_object(GROUP, "v1alpha1", lab.namespace, "servingruntimes", RUNTIME)
        yield lab


def controller(lab: Lab) -> Operator:
    """What reads and changes its resources as a person does; the controller itself is real."""
    return Operator(lab, GROUP, "v1beta1", "inferenceservices", {})


async def make(lab: Lab, name: str, replicas: int = 1, *, least: int = 1, **spec: Any) -> Operator:
    """Make an InferenceService, and wait until it serves."""
    found = controller(lab)
    model = {"modelFormat": {"name": "onnx"}, "image": "example/chat:1"}
    predictor = {"minReplicas": least, "maxReplicas": 5, "model": model, "labels": {"segue.dev/fake": "ready"}}
    await found.make("InferenceService", name, {"predictor": predictor, **spec})
    if replicas != least:
        scale = {"spec": {"replicas": replicas}}
        lab.apps.patch_namespaced_deployment_scale(f"{name}-predictor", lab.namespace, scale)
    await until(f"{name} has its pods", lambda: ready(lab, name) == max(1, replicas))
    return found


def ready(lab: Lab, name: str, image: str = "example/chat:1") -> int:
    """How many pods of an image are ready."""
    conditions = [pod.status.conditions or [] for pod in lab.pods(f"isvc.{name}-predictor", image)]
    return sum(any(c.type == "Ready" and c.status == "True" for c in each) for each in conditions)


async def start(lab: Lab, name: str, change: dict[str, Any], **spec: Any) -> Run:
    target = {"kind": "Supervised", "resource": "InferenceService", "namespace": lab.namespace, "name": name}
    return await lab.start(name, change, target=target, strategy={}, **spec)


async def ends(run: Run, outcome: str) -> Report:
    report = await run.end()
    assert report.status.outcome == outcome, to_markdown(report)
    return report


def predictor(found: Operator, name: str) -> dict[str, Any]:
    """Its version, and that it is free."""
    resource = found.get(name)
    assert not [each for each in resource["metadata"].get("annotations", {}) if each.startswith("segue.dev/")]
    spec: dict[str, Any] = resource["spec"]["predictor"]
    return spec


async def good(lab: Lab) -> None:
    """KServe's observed generation is its Deployment's: it may be behind after what its Deployment does not show."""
    found = await make(lab, "good", 2, least=2)
    for most in (6, 7):
        found.patch("good", {"spec": {"predictor": {"maxReplicas": most}}})
    await ends(await start(lab, "good", GOOD), "Completed")
    assert predictor(found, "good")["model"]["image"] == "example/chat:2"
    assert (ready(lab, "good"), ready(lab, "good", "example/chat:2")) == (0, 2)


async def bad(lab: Lab) -> None:
    found = await make(lab, "bad")
    before = predictor(found, "bad")
    await ends(await start(lab, "bad", NEVER, readiness=SOON), "RolledBack")
    assert predictor(found, "bad") == before
    await until("as it was before", lambda: ready(lab, "bad") == len(lab.pods("isvc.bad-predictor")) == 1)


async def aborted(lab: Lab) -> None:
    """Bounds that a person raises in the middle are no version: nothing holds, and they stay."""
    found = await make(lab, "aborted")
    before = predictor(found, "aborted")
    run = await start(lab, "aborted", NEVER, readiness={"minReady": "0s", "deadline": "10m"})
    await until("a new pod", lambda: lab.pods("isvc.aborted-predictor", "example/chat:2"))
    found.patch("aborted", {"spec": {"predictor": {"minReplicas": 2, "maxReplicas": 9}}})
    await until("its controller follows", lambda: lab.deployment("aborted-predictor").spec.replicas == 2)
    assert not (await run.status()).needs_person
    await run.send("abort")
    await ends(run, "Aborted")
    assert predictor(found, "aborted") == {**before, "minReplicas": 2, "maxReplicas": 9}


async def none_at_least(lab: Lab) -> None:
    """With ``minReplicas: 0`` the pods that run are rolled; stopped, it is refused; going again, it is rolled."""
    found = await make(lab, "none", least=0, replicas=0)
    await ends(await start(lab, "none", GOOD), "Completed")
    assert (ready(lab, "none"), ready(lab, "none", "example/chat:2")) == (0, 1)
    found.patch("none", {"metadata": {"annotations": {STOP: "true"}}})
    await until("it is stopped", lambda: not lab.pods("isvc.none-predictor"))
    again = {"images": {"model": "example/chat:3"}}
    with pytest.raises(WorkflowFailureError) as refused:
        await (await start(lab, "none", again)).end()
    assert "runs no replica" in str(refused.value.cause)
    found.patch("none", {"metadata": {"annotations": {STOP: "false"}}})
    await until("it goes again", lambda: ready(lab, "none", "example/chat:2") == 1)
    await ends(await start(lab, "none", again), "Completed")
    assert ready(lab, "none", "example/chat:3") == 1


async def with_canary(lab: Lab) -> None:
    """A canary's pods, which carry the same labels and are never ready here, are not the target's."""
    model = {"modelFormat": {"name": "onnx"}, "image": "example/chat:9"}
    canary = {"name": "next", "model": model, "labels": {"segue.dev/fake": "never-ready"}}
    await make(lab, "main", canary=[{"predictor": canary, "trafficPercent": 20}])
    await until("its canary is there", lambda: lab.pods("isvc.main-next-predictor"))
    await ends(await start(lab, "main", GOOD), "Completed")
    assert ready(lab, "main", "example/chat:2") == 1
    assert lab.pods("isvc.main-next-predictor", "never-ready")


async def more_than_requested(lab: Lab) -> None:
    """An autoscaler's 3 pods where ``minReplicas`` is 1: all of them are rolled, and a bad version has its deadline."""
    await make(lab, "more", 3)
    await ends(await start(lab, "more", NEVER, readiness=SOON), "RolledBack")
    await until("as it was before", lambda: ready(lab, "more") == 3)
    await ends(await start(lab, "more", GOOD), "Completed")
    assert (ready(lab, "more"), ready(lab, "more", "example/chat:2")) == (0, 3)


async def refused_by_event(lab: Lab) -> None:
    """What KServe cannot carry out it tells by an event only, and what its webhook denies in its own words."""
    await make(lab, "told")
    report = await ends(
        await start(lab, "told", {"patch": {"model": {"storageUri": "bad://models/a"}}}, readiness=SOON), "RolledBack"
    )
    why = str(report.status.reason)
    assert "its operator says: InternalError:" in why and "not supported" in why, why
    with pytest.raises(WorkflowFailureError) as refused:
        await (await start(lab, "told", {"patch": {"model": {"name": "llm"}}})).end()
    cause = str(refused.value.cause)
    assert "denied the request" in cause and "webhook" in cause and "grant the worker" not in cause


async def stopped(lab: Lab) -> None:
    """Somebody stops it in the middle: the rollout sleeps until it goes on, and is taken back while it runs nothing."""
    found = await make(lab, "stopped", 2, least=2)
    before = predictor(found, "stopped")
    run = await start(lab, "stopped", NEVER, readiness={"minReady": "0s", "deadline": "10m"})
    await until("a new pod", lambda: lab.pods("isvc.stopped-predictor", "example/chat:2"))

    async def sleeps() -> None:
        found.patch("stopped", {"metadata": {"annotations": {STOP: "true"}}})
        await run.until("it sleeps", lambda status: status.waiting_for == "replicas: the target is scaled to 0")

    await sleeps()
    found.patch("stopped", {"metadata": {"annotations": {STOP: "false"}}})
    await run.until("it goes on", lambda status: "scaled to 0" not in status.waiting_for)
    await until("a new pod again", lambda: lab.pods("isvc.stopped-predictor", "example/chat:2"))
    await sleeps()
    await run.send("abort")
    await ends(run, "Aborted")
    assert predictor(found, "stopped") == before
    found.patch("stopped", {"metadata": {"annotations": {STOP: "false"}}})
    await until("as it was before", lambda: ready(lab, "stopped") == 2)


async def between_two_pods(lab: Lab) -> None:
    """Its only pod is gone, and the next one not there yet: the start waits, and says what for."""
    await make(lab, "between")

    async def scaled(replicas: int) -> None:
        lab.apps.patch_namespaced_deployment_scale("between-predictor", lab.namespace, {"spec": {"replicas": replicas}})
        await until("its pods", lambda: len(lab.pods("isvc.between-predictor")) == replicas)

    await scaled(0)
    run = await start(lab, "between", GOOD)
    rollouts = Rollouts(lab.temporal, lab.namespace, lab.task_queue)

    async def tells() -> bool:
        return "runs no replica" in (await rollouts.status(run.handle.id)).waiting_for

    await until("it tells what it waits for", tells)
    await scaled(1)
    await ends(run, "Completed")


async def its_deployment(lab: Lab) -> None:
    """Its controller writes its Deployment back: that is told before the start, and costs nothing after it."""
    await make(lab, "made", 2, least=2)
    name, rule = "made-predictor", "controlled-by-another-object"
    change = {"images": {"kserve-container": "example/chat:2"}}
    with pytest.raises(WorkflowFailureError) as refused:
        await (await lab.start(name, change)).end()
    assert f"lint: {rule}: Deployment {lab.namespace}/{name} metadata.ownerReferences: InferenceService made " in str(
        refused.value.cause
    )
    report = await ends(await lab.start(name, change, accept=[*ACCEPTED, rule]), "Aborted")
    assert "somebody else such as an operator, removed its annotation" in report.status.reason
    await until("as it was before", lambda: ready(lab, "made") == len(lab.pods("isvc.made-predictor")) == 2)
    made = lab.deployment(name)
    assert not made.spec.paused
    assert not [each for each in made.metadata.annotations if each.startswith("segue.dev/")]


CASES = (
    good,
    bad,
    aborted,
    none_at_least,
    with_canary,
    more_than_requested,
    refused_by_event,
    stopped,
    between_two_pods,
    its_deployment,
)


async def test_each_case_on_its_real_controller(services: Lab) -> None:
    """Side by side: most of their time is that of deadlines."""
    found = await asyncio.gather(*(case(services) for case in CASES), return_exceptions=True)
    failed = [(case.__name__, error) for case, error in zip(CASES, found, strict=True) if error is not None]
    for name, error in failed[1:]:
        failed[0][1].add_note(f"{name} failed too: {error!r}")
    if failed:
        failed[0][1].add_note(f"in {failed[0][0]}")
        raise failed[0][1]


@pytest.mark.soak
async def test_workers_that_its_controller_deletes_again_and_again_are_not_complete(services: Lab) -> None:
    """KServe 0.20.0 takes the workers' Deployment of multi-node for a canary that is left over."""
    places = (services.namespace, "servingruntimes", HEADS_AND_WORKERS)
    services.custom.create_namespaced_custom_object(GROUP, "v1alpha1", *places)
    worker = {"name": "worker-container", "image": "example/chat:1"}
    predictor = {
        "minReplicas": 1,
        "labels": {"segue.dev/fake": "ready"},
        "model": {"modelFormat": {"name": "huggingface"}, "image": "example/chat:1", "storageUri": "oci://models/a"},
        "workerSpec": {"pipelineParallelSize": 3, "containers": [worker]},
    }
    annotations = {f"{GROUP}/autoscalerClass": "none"}
    body = {"metadata": {"name": "llm", "annotations": annotations}, "spec": {"predictor": predictor}}
    body |= {"apiVersion": f"{GROUP}/v1beta1", "kind": "InferenceService"}
    services.custom.create_namespaced_custom_object(GROUP, "v1beta1", services.namespace, "inferenceservices", body)
    uids: set[str] = set()

    def deployments() -> bool:
        label = f"{GROUP}/inferenceservice=llm"
        found: list[Any] = services.apps.list_namespaced_deployment(services.namespace, label_selector=label).items
        uids.update(each.metadata.uid for each in found if each.metadata.name.endswith("-worker"))
        return len(uids) > 2 and len(services.pods("isvc.llm-predictor-worker")) == 2

    await until("its workers are created again and again", deployments)
    change = {
        "model": {"image": "example/chat:2"},
        "workerSpec": {"containers": [{**worker, "image": "example/chat:2"}]},
    }
    report = await ends(await start(services, "llm", {"patch": change}, readiness=SOON), "RolledBack")
    assert "fewer pods run than before" in str(report.status.reason) or "worker-container" in str(report.status.reason)


async def test_a_killed_worker_changes_nothing(services: Lab) -> None:
    """Killed before the write and after it, in a rollout that completes and in one that goes back."""
    await asyncio.gather(make(services, "on"), make(services, "back"))
    runs = await asyncio.gather(start(services, "on", GOOD), start(services, "back", NEVER, readiness=SOON))
    for new in ("on", "back"):
        await until("a new pod", partial(services.pods, f"isvc.{new}-predictor", "example/chat:2"))
    services.workers[0].kill()
    services.workers[0].start()
    await asyncio.gather(ends(runs[0], "Completed"), ends(runs[1], "RolledBack"))
    assert ready(services, "on", "example/chat:2") == 1
    await until("as it was before", lambda: ready(services, "back") == 1)


def test_its_nodes_are_told_apart_as_real_ones_are(kserve: Stack) -> None:
    """What ModelMesh and others select nodes by."""
    nodes: list[Any] = client.CoreV1Api(client_of(str(kserve.kubeconfig))).list_node().items
    for node in nodes:
        labels = node.metadata.labels
        assert (labels["kubernetes.io/arch"], labels["kubernetes.io/os"]) == ("amd64", "linux")
        assert labels["kubernetes.io/hostname"] == node.metadata.name
