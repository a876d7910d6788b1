"""Custom resources whose own operator rolls: Segue writes, watches, judges, and writes the old value back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from harness import FAST, Lab, Run, open_lab, until
from operators import Operator, define
from segue_local import Stack
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from watcher import PodWatcher

from segue import contract
from segue.report import Report, to_markdown
from segue.spec import read_rollout

RUNTIME = ("serving.kserve.io", "v1alpha1", "servingruntimes")
LABELS = {"modelmesh-service": "modelmesh-serving", "name": "modelmesh-serving-{name}"}
REPLICAS = 3


def resource(image: str = "example/chat:1") -> dict[str, Any]:
    return {"replicas": REPLICAS, "containers": [{"name": "server", "image": image}], "supportedModelFormats": ["onnx"]}


@asynccontextmanager
async def operated(lab: Lab) -> AsyncIterator[Operator]:
    define(lab, *RUNTIME, "ServingRuntime")
    async with Operator(lab, *RUNTIME, LABELS).running() as operator:
        yield operator


async def start(
    lab: Lab, name: str, change: dict[str, Any] | None = None, *, kind: str = "ServingRuntime", **spec: Any
) -> Run:
    body = {
        "target": {"kind": "Supervised", "resource": kind, "namespace": lab.namespace, "name": name},
        "change": change or {"images": {"server": "example/chat:2"}},
        "readiness": {"minReady": "0s", "deadline": "20s"},
        **spec,
    }
    rollout = read_rollout(
        {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": name}, "spec": body}
    )
    handle = await lab.temporal.start_workflow(
        contract.WORKFLOW,
        contract.Task(spec=rollout.spec, name=name, by="test", tuning=FAST),
        id=contract.workflow_id(lab.namespace, rollout.spec.target),
        task_queue=lab.task_queue,
        result_type=Report,
    )
    return Run(handle)


def pods(lab: Lab, name: str) -> PodWatcher:
    return PodWatcher(lab.core.api_client, lab.namespace, f"name=modelmesh-serving-{name}")


def runs(lab: Lab, name: str, image: str) -> bool:
    """Whether the operator has made a pod of an image."""
    found = lab.core.list_namespaced_pod(lab.namespace, label_selector=f"name=modelmesh-serving-{name}").items
    return any(pod.spec.containers[0].image == image for pod in found)


def left(operator: Operator, name: str) -> dict[str, Any]:
    """What a rollout must leave as it was: the spec, and no annotation of ours."""
    found = operator.get(name)
    return {"spec": found["spec"], "annotations": found["metadata"].get("annotations", {})}


async def ends(run: Run, outcome: str) -> Report:
    report = await run.end()
    assert report.status.outcome == outcome, to_markdown(report)
    return report


async def test_a_good_version_and_a_bad_one(served: Lab) -> None:
    """The good one runs alone; the bad one is told, and its operator gets the old value back."""
    async with operated(served) as operator:

        async def good() -> None:
            await operator.make("ServingRuntime", "good", resource())
            with pods(served, "good") as watcher:
                report = await ends(await start(served, "good"), "Completed")
            watcher.assert_within(REPLICAS, REPLICAS + 1, passing=1)
            assert left(operator, "good") == {"spec": resource("example/chat:2"), "annotations": {}}
            assert [(s.old, s.new) for s in report.plans[0].stages] == [(REPLICAS, 0), (0, REPLICAS)]
            assert "own operator moves" in report.plans[0].warnings[0]

        async def bad() -> None:
            await operator.make("ServingRuntime", "bad", resource())
            with pods(served, "bad") as watcher:
                change = {"images": {"server": "example/chat:bad"}}
                run = await start(served, "bad", change, readiness={"minReady": "0s", "deadline": "2s"})
                report = await ends(run, "RolledBack")
                await until("the baseline alone", lambda: operator.is_ready("bad"))
            watcher.assert_within(REPLICAS, REPLICAS + 1, passing=1)
            assert left(operator, "bad") == {"spec": resource(), "annotations": {}}
            assert report.status.reason.startswith("Unready")

        await asyncio.gather(good(), bad())


async def test_what_people_ask(served: Lab) -> None:
    """Retarget and abort work on the way; what its operator cannot do is refused, and says what can be done."""
    async with operated(served) as operator:
        await operator.make("ServingRuntime", "chat", resource())
        run = await start(served, "chat", {"images": {"server": "example/chat:bad"}})
        await until("a bad replica", lambda: runs(served, "chat", "example/chat:bad"))
        for message, fields in (("pause", {}), ("settle", {}), ("scale", {"replicas": 5})):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await run.send(message, **fields)
            assert "cannot be held in between" in str(refused.value.cause)
        await run.send("retarget", change={"images": {"server": "example/chat:3"}}, onto_baseline=True)
        await ends(run, "Completed")
        assert operator.get("chat")["spec"] == resource("example/chat:3")

        run = await start(served, "chat", {"images": {"server": "example/chat:bad"}})
        await until("a bad replica", lambda: runs(served, "chat", "example/chat:bad"))
        await run.send("abort")
        await ends(run, "Aborted")
        assert left(operator, "chat") == {"spec": resource("example/chat:3"), "annotations": {}}


async def test_somebody_elses_change_is_told_and_not_fought(served: Lab) -> None:
    async with operated(served) as operator:
        await operator.make("ServingRuntime", "chat", resource())
        run = await start(served, "chat", {"images": {"server": "example/chat:bad"}})
        await until("a bad replica", lambda: runs(served, "chat", "example/chat:bad"))
        operator.patch("chat", {"spec": {"containers": [{"name": "server", "image": "example/chat:9"}]}})
        status = await run.until("it holds", lambda s: s.phase == "Held")
        assert "a-person changed" in status.reason
        assert operator.get("chat")["spec"] == resource("example/chat:9")
        await run.send("abort")
        await ends(run, "Aborted")
        assert left(operator, "chat") == {"spec": resource(), "annotations": {}}


async def test_a_resource_of_ones_own_is_described_in_the_settings(stack: Stack) -> None:
    """A kind that Segue does not know, by the worker's settings alone; complete only when its operator says so."""
    own = ("example.com", "v1", "chatservers")
    described = {"Chatserver": {"resource": "chatservers.example.com/v1", "pods": "chat={name}", "done": ["Ready"]}}
    async with open_lab(stack) as lab:
        define(lab, *own, "Chatserver")
        lab.grant_more("example.com", "chatservers")
        lab.worker(SEGUE_SUPERVISED=json.dumps(described))
        async with Operator(lab, *own, {"chat": "{name}"}).running() as operator:
            await operator.make("Chatserver", "mine", resource())
            await ends(await start(lab, "mine", kind="Chatserver"), "Completed")
            assert operator.is_ready("mine")
            assert left(operator, "mine") == {"spec": resource("example/chat:2"), "annotations": {}}


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nobody described it": ({"kind": "Chatserver"}, ["spec.target.resource", "'Chatserver'", "use one of"]),
    "no such object": ({"name": "absent"}, ["absent", "not found"]),
    "no such container": ({"change": {"images": {"other": "a/b:1"}}}, ["spec.change.images", "'other'", "server"]),
    "nothing changes": ({"change": {"images": {"server": "example/chat:1"}}}, ["what the target runs already"]),
}


async def test_bad_input_is_refused_and_the_target_untouched(served: Lab) -> None:
    async with operated(served) as operator:
        await operator.make("ServingRuntime", "chat", resource())
        before = left(operator, "chat")
        for what, (given, words) in BAD.items():
            run = await start(served, **{"name": "chat", **given})
            with pytest.raises(WorkflowFailureError) as refused:
                await run.end()
            for word in words:
                assert word in str(refused.value.cause), what
        assert left(operator, "chat") == before
