"""An admission webhook stops answering between two writes of one action: it is told, and nothing waits without end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from harness import Case, Lab, until
from kubernetes import client
from kubernetes import config as kubeconfig
from subjects import PairSubject
from test_autoscaler import autoscale, bounds

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
CANNOT_ASK = "cannot ask an admission webhook"
WORKER = "request.userInfo.username == 'segue-worker'"
PAUSES = "has(object.spec.paused) && object.spec.paused"
REAL = "request.dryRun != true"
LABELLED: dict[str, Any] = {"metadata": {"labels": {"probe": "yes"}}}


@contextlib.asynccontextmanager
async def down(lab: Lab, resource: str, condition: str = "true", group: str = "apps") -> AsyncIterator[None]:
    """Let the API server ask a webhook that nobody serves, for what the worker updates under a condition."""
    api, name = client.AdmissionregistrationV1Api(lab.core.api_client), f"{resource}-{lab.namespace}"
    hook = {
        "name": "nobody.example.org",
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": [resource]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
        "matchConditions": [
            {"name": "ours", "expression": f"request.userInfo.username == 'segue-worker' && {condition}"}
        ],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    api.create_validating_webhook_configuration({"metadata": {"name": name}, "webhooks": [hook]})
    try:
        yield
    finally:
        api.delete_validating_webhook_configuration(name)


def as_worker(lab: Lab) -> Any:
    return kubeconfig.new_client_from_config(str(lab.stack.kubeconfig_for("segue-worker")))


async def in_force(attempt: Callable[[], Any]) -> None:
    """Wait until the API server asks the webhook."""

    def fails() -> bool:
        try:
            attempt()
        except client.ApiException as error:
            return "failed calling webhook" in str(error.body)
        return False

    await until("the API server asks the webhook", fails)


async def asked(case: Case) -> None:
    await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")


async def test_the_pause_after_a_move(served: Lab) -> None:
    """The moves go on without it, and the report says why the controller is not paused."""
    apps = client.AppsV1Api(as_worker(served))
    async with served.case("chat", 3, strategy=ASKS) as case:
        await asked(case)
        async with down(served, "deployments", PAUSES):
            patch, paused = apps.patch_namespaced_deployment, {"spec": {"paused": True}, **LABELLED}
            await in_force(lambda: patch("chat", served.namespace, paused, dry_run="All"))
            await case.run.send("approve")
            report = await case.ends("Completed")
    assert any(e.what == "not written" and CANNOT_ASK in e.detail for e in report.entries)
    case.watcher.assert_within(3, 4)


async def test_the_replica_sets_at_the_end(served: Lab) -> None:
    """The end is not done before they are written, forward and back, and the status says what it waits for."""
    apps = client.AppsV1Api(as_worker(served))

    async def one(case: Case, message: str, outcome: str) -> None:
        await case.run.send(message)
        await case.run.until("it says so", lambda s: CANNOT_ASK in s.waiting_for)
        told.release()
        await case.ends(outcome)

    told = asyncio.Semaphore(0)
    async with contextlib.AsyncExitStack() as stack:
        on = await stack.enter_async_context(served.case("on", 2, strategy=ASKS))
        back = await stack.enter_async_context(served.case("pair", 2, kind=PairSubject, strategy=ASKS))
        await asyncio.gather(asked(on), asked(back))
        async with asyncio.TaskGroup() as running, down(served, "replicasets"):
            name, patch = served.replicasets("on")[0]["metadata"]["name"], apps.patch_namespaced_replica_set
            await in_force(lambda: patch(name, served.namespace, LABELLED, dry_run="All"))
            running.create_task(one(on, "approve", "Completed"))
            running.create_task(one(back, "abort", "Aborted"))
            for _ in range(2):
                await told.acquire()


async def test_the_autoscaler_after_a_move(served: Lab) -> None:
    """The move counts as made; the report says that the autoscaler is not held, and the next move holds it."""
    scalers = client.AutoscalingV2Api(as_worker(served))
    await served.deploy("chat", 2)
    autoscale(served, "chat", 2, 9)
    async with contextlib.AsyncExitStack() as stack:
        async with down(served, "horizontalpodautoscalers", REAL, "autoscaling"):
            patch = scalers.patch_namespaced_horizontal_pod_autoscaler
            await in_force(lambda: patch("chat", served.namespace, LABELLED))
            case = await stack.enter_async_context(served.rolled("chat", strategy=ASKS, autoscaler="hold"))
            await asked(case)
            assert bounds(served, "chat")[:2] == (2, 9)
        await case.run.send("approve")
        await until("it is held", lambda: bounds(served, "chat")[:2] == (2, 2))
        report = await case.ends("Completed")
    warnings = [e.detail for e in report.entries if e.what == "warning"]
    assert any("the autoscaler was not written" in w and CANNOT_ASK in w for w in warnings)
    assert bounds(served, "chat") == (2, 9, None)
