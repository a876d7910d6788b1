"""An admission policy changes what is written: the answer is the version from there on, and nothing is in a loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from harness import Lab, until
from kubernetes import client
from subjects import DeploymentSubject, StatefulSetSubject

from segue.report import Report

MOST_WRITES = 12
STUCK = {"minReady": "0s", "deadline": "5s"}
IMAGE = "object.spec.template.spec.containers[0].image"
MIRROR = f'{IMAGE}.startsWith("mirror.local/") ? {IMAGE} : "mirror.local/" + {IMAGE}'


@contextlib.asynccontextmanager
async def mirrored(lab: Lab) -> AsyncIterator[None]:
    """Rewrite the images of this namespace's targets at each write; wait until the API server does so."""
    api, name = client.AdmissionregistrationV1Api(lab.core.api_client), f"mirror-{lab.namespace}"
    path = "/spec/template/spec/containers/0/image"
    patch = f'[JSONPatch{{op: "replace", path: "{path}", value: {MIRROR}}}]'
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
            "resourceRules": [{**rule, "resources": ["deployments", "statefulsets"]}],
        },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    api.create_mutating_admission_policy({"metadata": {"name": name}, "spec": spec})
    api.create_mutating_admission_policy_binding({"metadata": {"name": name}, "spec": {"policyName": name}})
    try:
        await until("the policy to change what is written", lambda: _is_mirrored(lab))
        yield
    finally:
        api.delete_mutating_admission_policy_binding(name)
        api.delete_mutating_admission_policy(name)


def _is_mirrored(lab: Lab) -> bool:
    container = {"name": "server", "image": "example/chat:1"}
    labels = {"app": "probe"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    body: dict[str, Any] = {
        "metadata": {"name": "probe"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
    made = lab.apps.create_namespaced_deployment(lab.namespace, body, dry_run="All")
    return bool(made.spec.template.spec.containers[0].image.startswith("mirror.local/"))


def assert_few_writes(report: Report) -> None:
    told = [f"{entry.what}: {entry.detail}" for entry in report.entries]
    assert report.writes <= MOST_WRITES, told
    assert not any("NeedsHuman" in line for line in told), told


async def test_what_admission_makes_of_a_write_is_the_version(served: Lab) -> None:
    """Forward and back end with what the API server made of it, whenever the policy came."""

    async def bad(name: str, kind: type[DeploymentSubject | StatefulSetSubject]) -> None:
        change = kind.changed(2, "never-ready")
        async with served.rolled(name, change, kind=kind, readiness=STUCK) as case:
            report = await case.run.end()
        assert report.status.outcome == "RolledBack"
        await until("all run again", lambda: len(served.pods(name)) == 3)
        assert len(served.pods(name, "mirror.local/example/chat:1")) == 3 == len(served.pods(name))
        assert any("server].image example/chat:1 → mirror.local/example/chat:1" in e.detail for e in report.entries)
        assert_few_writes(report)
        case.watcher.assert_within(2, 4)

    async def good(name: str) -> None:
        async with served.rolled(name) as case:
            report = await case.run.end()
        assert report.status.outcome == "Completed"
        assert len(served.pods(name, "mirror.local/example/chat:2")) == 3
        assert_few_writes(report)

    await asyncio.gather(
        DeploymentSubject(served, "bad").create(3),
        DeploymentSubject(served, "good").create(3),
        StatefulSetSubject(served, "set").create(3),
        StatefulSetSubject(served, "held").create(3),
        DeploymentSubject(served, "aborted").create(3),
    )
    asks = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with (
        served.rolled("held", kind=StatefulSetSubject, strategy={**asks, "maxSurge": 0, "maxUnavailable": 1}) as held,
        served.rolled("aborted", strategy=asks) as aborted,
    ):
        for case in (held, aborted):
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        async with mirrored(served):
            await held.run.send("approve")
            await aborted.run.send("abort")
            await asyncio.gather(
                bad("bad", DeploymentSubject),
                bad("set", StatefulSetSubject),
                good("good"),
                held.run.end(),
                aborted.run.end(),
            )
            for case, outcome, image in ((held, "Completed", "chat:2"), (aborted, "Aborted", "chat:1")):
                report = await case.run.end()
                assert report.status.outcome == outcome
                assert len(served.pods(case.name, f"mirror.local/example/{image}")) == 3
                assert_few_writes(report)
