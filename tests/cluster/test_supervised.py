"""Custom resources whose own operator rolls: Segue writes, watches, judges, and writes the old value back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, Run, open_lab, pod_template, until
from kube_api import create
from operators import RUNTIME_LABELS, Operator, define, runtimes
from segue_local import Stack
from shell import REFUSED, ROLLED_BACK, Shell
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

from segue.report import Report, to_markdown

REPLICAS = 3
NEVER = {"patch": {"mode": "never-ready", "containers": [{"name": "server", "image": "example/chat:2"}]}}


def resource(image: str = "example/chat:1") -> dict[str, Any]:
    return {"replicas": REPLICAS, "containers": [{"name": "server", "image": image}], "supportedModelFormats": ["onnx"]}


def target_of(lab: Lab, name: str, resource: str = "ServingRuntime") -> dict[str, str]:
    return {"kind": "Supervised", "resource": resource, "namespace": lab.namespace, "name": name}


async def start(lab: Lab, name: str, change: dict[str, Any] | None = None, kind: str = "ServingRuntime") -> Run:
    return await lab.start(name, change, target=target_of(lab, name, kind), strategy={})


def runs(lab: Lab, name: str, image: str) -> bool:
    """Whether the operator has made a pod of an image."""
    return bool(lab.pods(name, image))


def left(operator: Operator, name: str) -> dict[str, Any]:
    """What a rollout must leave as it was: the spec, and no annotation of ours."""
    found = operator.get(name)
    return {"spec": found["spec"], "annotations": found["metadata"].get("annotations", {})}


async def ends(run: Run, outcome: str) -> Report:
    report = await run.end()
    assert report.status.outcome == outcome, to_markdown(report)
    return report


async def test_the_plan_and_what_its_operator_cannot_do(served: Lab) -> None:
    """Only the ends are planned, and the plan says so; to hold it in between is refused with what can be done."""
    operator = runtimes(served)
    await operator.make("ServingRuntime", "chat", resource())
    run = await start(served, "chat", NEVER)
    plan = await run.plan()
    assert [(s.old, s.new) for s in plan.stages] == [(REPLICAS, 0), (0, REPLICAS)]
    assert "own operator moves" in plan.warnings[0]
    await until("a new replica", lambda: runs(served, "chat", "example/chat:2"))
    asks: dict[str, dict[str, Any]] = {"pause": {}, "settle": {}, "scale": {"replicas": 5}}
    for message, fields in asks.items():
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await run.send(message, **fields)
        assert "cannot stop it partway" in str(refused.value.cause)
    await run.send("abort")
    await ends(run, "Aborted")
    assert left(operator, "chat") == {"spec": resource(), "annotations": {}}


async def test_somebody_elses_change_is_told_and_not_fought(served: Lab) -> None:
    operator = runtimes(served)
    await operator.make("ServingRuntime", "chat", resource())
    run = await start(served, "chat", NEVER)
    await until("a new replica", lambda: runs(served, "chat", "example/chat:2"))
    operator.patch("chat", {"spec": {"containers": [{"name": "server", "image": "example/chat:9"}]}})
    status = await run.until("it holds", lambda s: s.phase == "Held")
    assert status.reason.startswith("a-person (Update at ")
    assert status.reason.endswith(" changed spec.containers[server].image example/chat:1 → example/chat:9")
    assert operator.get("chat")["spec"]["containers"][0]["image"] == "example/chat:9"
    await run.send("abort")
    await ends(run, "Aborted")
    assert left(operator, "chat") == {"spec": resource(), "annotations": {}}


async def test_pods_that_the_change_does_not_touch_stay(served: Lab) -> None:
    """A resource may have parts, such as a head and its worker, and a change may touch one of them only."""
    operator = runtimes(served)
    labels = {key: value.format(name="chat") for key, value in RUNTIME_LABELS.items()}
    template = pod_template("worker", "ready", "0s", "example/chat:1")
    template["metadata"]["labels"] |= labels
    selector = {"matchLabels": {**labels, "app": "worker"}}
    worker = {"metadata": {"name": "worker"}, "spec": {"selector": selector, "template": template}}
    create(served.apps.create_namespaced_deployment, served.namespace, worker)
    await operator.make("ServingRuntime", "chat", resource())
    before = {pod.metadata.name for pod in served.pods("worker")}
    await ends(await start(served, "chat"), "Completed")
    assert len(served.pods("chat", "example/chat:2")) == REPLICAS
    assert {pod.metadata.name for pod in served.pods("worker")} == before


async def test_a_resource_of_ones_own_is_described_in_the_settings(stack: Stack, tmp_path: Path) -> None:
    """A kind that Segue does not know, by the settings alone; complete only when its operator says so.

    Commands that read the cluster themselves need the same settings.
    """
    own = ("example.com", "v1", "chatservers")
    described = {"Chatserver": {"resource": "chatservers.example.com/v1", "pods": "chat={name}", "done": ["Ready"]}}
    async with open_lab(stack) as lab:
        define(lab, *own, "Chatserver")
        lab.grant_more("example.com", "chatservers")
        lab.worker(SEGUE_SUPERVISED=json.dumps(described))
        operator = Operator(lab, *own, {"chat": "{name}"})
        lab.tasks["operator"] = asyncio.create_task(operator.run())
        await operator.make("Chatserver", "mine", resource())
        shell, settings = Shell(lab, tmp_path), json.dumps(described)
        spec = shell.spec("mine", target=target_of(lab, "mine", "Chatserver"), strategy={})
        refused = await shell.run("plan", spec, expect=REFUSED)
        assert "spec.target.resource: 'Chatserver': is not described in the settings; " in refused.stderr
        planned = await shell.run("plan", spec, SEGUE_SUPERVISED=settings)
        assert f"{lab.namespace}/mine, {REPLICAS} replicas" in planned.stdout
        await ends(await start(lab, "mine", kind="Chatserver"), "Completed")
        assert operator.is_ready("mine")
        after = {"spec": resource("example/chat:2"), "annotations": {}}
        assert left(operator, "mine") == after
        await start(lab, "mine", {"patch": {"mode": "never-ready"}}, kind="Chatserver")
        await until("a new replica", lambda: "mode" in operator.get("mine")["spec"])
        await shell.run("release", f"Chatserver/{lab.namespace}/mine", SEGUE_SUPERVISED=settings)
        assert left(operator, "mine") == after


async def test_a_name_alone_means_what_is_rolled(served: Lab, tmp_path: Path) -> None:
    """Whatever its kind; of two kinds with one name, both running, the kind is needed."""
    operator, shell = runtimes(served), Shell(served, tmp_path)
    await asyncio.gather(operator.make("ServingRuntime", "chat", resource()), served.deploy("chat", 1))
    target = {"kind": "Supervised", "resource": "ServingRuntime", "namespace": served.namespace, "name": "chat"}
    patient = {"minReady": "0s", "deadline": "10m"}
    file = shell.spec("chat", target=target, change=NEVER, strategy={}, readiness=patient)
    await shell.run("start", file)
    name = f"{served.namespace}/chat"
    assert (await shell.json("status", name))["id"].endswith("/ServingRuntime/chat")
    change = {"patch": {"metadata": {"labels": {"segue.dev/fake": "never-ready"}}}}
    await shell.run("start", shell.spec("chat", change=change, readiness=patient))
    refused = await shell.run("status", name, expect=REFUSED)
    assert f"{served.namespace}/Deployment/chat" in refused.stderr
    for kind in ("deployment", "servingruntime"):
        await shell.run("abort", f"{kind}/{name}")
        await shell.run("watch", f"{kind}/{name}", expect=ROLLED_BACK)


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nobody described it": ({"kind": "Chatserver"}, ["spec.target.resource", "'Chatserver'", "use one of"]),
    "no such object": ({"name": "absent"}, ["absent", "not found"]),
    "no such container": ({"change": {"images": {"other": "a/b:1"}}}, ["spec.change.images", "'other'", "server"]),
    "nothing changes": ({"change": {"images": {"server": "example/chat:1"}}}, ["what the target runs already"]),
}


async def test_the_way_back_ends_though_its_operator_keeps_a_bad_pod(served: Lab) -> None:
    """One of 3 was broken before: its Deployment's controller removes no other unready pod. A good version follows."""
    operator = runtimes(served)
    await operator.make("ServingRuntime", "chat", resource())
    before, broken = left(operator, "chat"), served.pods("chat")[0].metadata.name
    served.relabel(broken, "never-ready")
    await until("one is not ready", lambda: not operator.is_ready("chat"))

    async def rolls(change: dict[str, Any], outcome: str) -> Report:
        readiness = {"minReady": "0s", "deadline": "5s"}
        run = await served.start("chat", change, target=target_of(served, "chat"), strategy={}, readiness=readiness)
        return await ends(run, outcome)

    with served.watch("chat") as watcher:
        report = await rolls(NEVER, "RolledBack")
        kept = served.pods("chat", "example/chat:2")[0].metadata.name
        assert any(e.what == "warning" and f"remain, such as {kept}" in e.detail for e in report.entries)
        assert left(operator, "chat") == before
        await rolls({"images": {"server": "example/chat:3"}}, "Completed")
    watcher.assert_within(REPLICAS - 1, REPLICAS + 1, passing=1)


@pytest.mark.soak
async def test_a_release_ends_though_its_operator_keeps_a_bad_pod(served: Lab, tmp_path: Path) -> None:
    """The same without Temporal: as many are ready as before, and nothing of the rollout is left."""
    operator = runtimes(served)
    await operator.make("ServingRuntime", "chat", resource())
    before = left(operator, "chat")
    served.relabel(served.pods("chat")[0].metadata.name, "never-ready")
    await until("one is not ready", lambda: not operator.is_ready("chat"))
    with served.watch("chat") as watcher:
        run = await start(served, "chat", NEVER)
        await until("a new replica", lambda: runs(served, "chat", "example/chat:2"))
        await run.handle.terminate("by a person")
        await Shell(served, tmp_path).run("release", f"ServingRuntime/{served.namespace}/chat")
    assert left(operator, "chat") == before
    assert runs(served, "chat", "example/chat:2"), "its operator kept it"
    watcher.assert_within(REPLICAS - 1, REPLICAS + 1, passing=1)


async def test_bad_input_is_refused_and_the_target_untouched(served: Lab) -> None:
    operator = runtimes(served)
    await operator.make("ServingRuntime", "chat", resource())
    before = left(operator, "chat")
    for what, (given, words) in BAD.items():
        run = await start(served, **{"name": "chat", **given})
        with pytest.raises(WorkflowFailureError) as refused:
            await run.end()
        for word in words:
            assert word in str(refused.value.cause), what
    assert left(operator, "chat") == before
