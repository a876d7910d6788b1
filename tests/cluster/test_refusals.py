"""Input that only the real servers can refuse: the error names field, value and fix, and the target is untouched."""

import asyncio
from typing import Any

import pytest
from harness import Lab, until
from subjects import SUBJECTS, DeploymentSubject
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError


async def refusal(lab: Lab, name: str, change: dict[str, Any] | None = None, **spec: Any) -> ApplicationError:
    """Start a rollout that must be refused; the waiting client and the workflow's end say the same."""
    run = await lab.start(name, change, **spec)
    with pytest.raises(WorkflowFailureError) as ended:
        await run.end()
    cause = ended.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.non_retryable
    return cause


BAD_CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such container": ({"images": {"sidecar": "a/b:1"}}, ["spec.change.images", "'sidecar'", "use one of: server"]),
    "what runs already": ({"images": {"server": "example/chat:1"}}, ["spec.change", "is what the target runs already"]),
    "a bad quantity": ({"resources": {"server": {"limits": {"memory": "plenty"}}}}, ["memory", "plenty"]),
    "a request over its limit": (
        {"resources": {"server": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
        ["requests", "must be less than or equal to cpu limit"],
    ),
    "a bad annotation": ({"annotations": {"not a key": "x"}}, ["annotations", "not a key"]),
    "a configuration that it does not use": (
        {"configMaps": {"nothing": {"a": "1"}}},
        ["spec.change.configMaps.nothing", "is not referred to by the target's pod template"],
    ),
    "an unknown field": ({"patch": {"spec": {"replicaz": 1}}}, ["replicaz"]),
    "another selector label": ({"patch": {"metadata": {"labels": {"app": "other"}}}}, ["selector"]),
    "a secret that is not one": (
        {"env": {"server": {"A": {"valueFrom": {"secretKeyRef": {"name": "Bad_Name", "key": "k"}}}}}},
        ["Bad_Name"],
    ),
}


async def test_bad_changes(served: Lab) -> None:
    """A change that the target or the API server does not take is refused before anything is written."""
    await served.deploy("chat", 1)
    before = served.raw("chat")["metadata"]["resourceVersion"]
    for what, (change, words) in BAD_CHANGES.items():
        try:
            refused = await refusal(served, "chat", change)
        except Exception as error:  # the spec itself refuses it: as good
            refused = error  # type: ignore[assignment]
        for word in words:
            assert word in str(refused), (what, str(refused))
        assert served.raw("chat")["metadata"]["resourceVersion"] == before, what


async def test_targets_that_cannot_be_rolled(served: Lab) -> None:
    """Absent, without replicas, paused, or in the middle of a rollout of its own: refused, with what to do."""

    async def absent() -> None:
        message = str(await refusal(served, "nowhere"))
        assert f"deployment {served.namespace}/nowhere" in message and "check its name and namespace" in message

    async def absent_namespace() -> None:
        run = await served.start("elsewhere", target={"namespace": "no-such-namespace", "name": "elsewhere"})
        with pytest.raises(WorkflowFailureError) as ended:
            await run.end()
        assert "rights in namespace no-such-namespace" in str(ended.value.cause)

    async def untouched(name: str, *words: str) -> None:
        generation = served.raw(name)["metadata"]["generation"]
        message = str(await refusal(served, name))
        for word in words:
            assert word in message, message
        assert served.raw(name)["metadata"]["generation"] == generation
        assert not [m for m in served.raw(name)["metadata"]["managedFields"] if m["manager"] == "segue"]

    async def none() -> None:
        await served.deploy("none", 0, mode="never-ready")
        await untouched("none", "target.replicas", "0", "has no replicas", "scale it to 1 or more first")

    async def paused() -> None:
        await served.deploy("paused", 1)
        served.patch("paused", {"spec": {"paused": True}})
        await untouched("paused", "target", "is paused", "kubectl rollout resume deployment/paused")

    async def busy() -> None:
        await served.deploy("busy", 2)
        labels = {"metadata": {"labels": {"segue.dev/fake": "never-ready"}}}
        served.patch("busy", {"spec": {"template": labels}})
        await until("its own rollout is under way", lambda: len(served.pods("busy", "never-ready")) == 1)
        await untouched("busy", "target", "is in the middle of a rollout of its own", "kubectl rollout undo")

    await asyncio.gather(absent(), absent_namespace(), none(), paused(), busy())


async def test_the_one_who_starts_is_told(served: Lab) -> None:
    """Whoever waits for the plan gets the refusal as the answer."""
    run = await served.start("nowhere")
    with pytest.raises((WorkflowUpdateFailedError, Exception), match=r"nowhere|failed|completed"):
        await run.plan()


async def test_a_worker_without_rights(lab: Lab) -> None:
    """A worker that may not read the target refuses, and names what to grant."""
    await lab.deploy("chat", 1)
    before = lab.raw("chat")["metadata"]["resourceVersion"]
    lab.worker(KUBECONFIG=str(lab.stack.kubeconfig_for("nobody")))
    message = str(await refusal(lab, "chat"))
    assert "the worker may not list, watch pods; " in message
    assert "rbac.yaml" in message
    assert lab.raw("chat")["metadata"]["resourceVersion"] == before


def settled(deployment: dict[str, Any]) -> bool:
    status = deployment["status"]
    counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return bool(status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == [1, 1, 1])


async def test_annotations_that_leave_no_place(served: Lab) -> None:
    """Found before anything is written, and blamed on the annotations; a long template alone fits, compressed."""
    full = {"metadata": {"annotations": {"full": "x" * 255_000}}}

    async def refused(kind: str) -> None:
        subject = SUBJECTS[kind](served, kind.lower())
        await subject.create(1)
        (DeploymentSubject(served, subject.name) if kind == "DeploymentPair" else subject).patch(full)
        before = subject.version()
        message = str(await refusal(served, subject.name, subject.changed(2), target=subject.target))
        assert f"annotations of {subject.name}: have 255," in message and "remove " in message, message
        assert subject.version() == before

    async def fits() -> None:
        await served.deploy("long", 1)
        served.patch("long", {"spec": {"template": {"metadata": {"annotations": {"long": "y" * 220_000}}}}})
        await until("its own rollout ends", lambda: settled(served.raw("long")))
        report = await (await served.start("long")).end()
        assert report.status.outcome == "Completed"

    await asyncio.gather(fits(), *map(refused, ("Deployment", "DeploymentPair", "StatefulSet", "Supervised")))
