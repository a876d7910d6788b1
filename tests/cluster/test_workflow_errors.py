"""An error in the workflow's own code: the rollout holds and says so; a failure of Temporal is reported as such."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, Run, until
from operators import define
from shell import NEEDS_PERSON, UNEXPECTED, Shell
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

from segue import contract
from segue.client import Rollouts
from segue.errors import Failing, SegueError
from segue.spec import DeploymentTarget

SERVICES = ("serving.kserve.io", "v1beta1", "inferenceservices")
NONE_TO_ROLL = "has no replicas, so there is nothing to roll; scale it to 1 or more first"
UNCLEAR = "Temporal keeps the reason only of the first attempt"
RUNTIME = {"containers": [{"name": "server", "image": "example/chat:1"}], "supportedModelFormats": ["onnx"]}


async def _an_error_of_ours_needs_a_person(lab: Lab) -> None:
    change = {"images": {"server": "example/chat:error"}}
    async with lab.case("held", 2, change, readiness={"minReady": "0s", "deadline": "10m"}) as case:
        status = await case.run.until("it holds", lambda s: s.phase == "Held")
        assert status.needs_person
        assert "Segue itself failed (RuntimeError: the fault of this test)" in status.reason
        assert status.waiting_for.startswith("a person: ")
        await case.run.send("abort")
        await case.ends("Aborted")


async def _is_failing(rollouts: Rollouts, workflow_id: str, *reasons: str) -> None:
    async def is_reported() -> bool:
        try:
            await rollouts.status(workflow_id)
        except Failing as error:
            return any(reason in str(error) for reason in reasons)
        except SegueError:
            pass  # its task has failed once, or not yet
        return False

    await until("status to tell it", is_reported)


async def _a_failing_task_without_a_reason_is_reported(lab: Lab) -> None:
    """Its first attempt timed out, as on a worker that was killed; workers fail it since."""
    await lab.deploy("late", 2)
    run = await lab.start("late", {"images": {"server": "example/chat:late"}}, task_limit=timedelta(seconds=1))
    rollouts = Rollouts(lab.temporal, lab.namespace, lab.task_queue)
    await _is_failing(rollouts, run.handle.id, UNCLEAR)
    await run.handle.terminate()


async def _a_failing_task_is_reported(lab: Lab, shell: Shell) -> None:
    await lab.deploy("failing", 2)
    before = lab.settings("failing")
    change = {"images": {"server": "example/chat:other-steps"}}
    name = f"{lab.namespace}/failing"
    await shell.run("start", shell.spec("failing", change=change))
    rollouts = Rollouts(lab.temporal, lab.namespace, lab.task_queue)
    workflow_id = contract.workflow_id(lab.namespace, DeploymentTarget(namespace=lab.namespace, name="failing"))
    # A busy worker's first attempt may time out: Temporal keeps no later reason.
    await _is_failing(rollouts, workflow_id, "other steps than the history's", UNCLEAR)
    for command in ("status", "abort", "watch"):
        output = (await shell.run(command, name, expect=NEEDS_PERSON)).stderr
        assert "fails each time a worker runs it" in output
        assert "no worker answers" not in output
    with pytest.raises(Failing, match=f"segue release {name}"):
        await rollouts.report(workflow_id)
    await lab.temporal.get_workflow_handle(workflow_id).terminate()
    await shell.run("release", name)
    assert lab.settings("failing") == before


async def test_an_error_in_the_workflow(lab: Lab, tmp_path: Path) -> None:
    """One of ours waits for a person, and abort works; one that fails the task is not taken for an absent worker."""
    await lab.worker(module="failing_worker").serves()
    await asyncio.gather(
        _an_error_of_ours_needs_a_person(lab),
        _a_failing_task_is_reported(lab, Shell(lab, tmp_path)),
        _a_failing_task_without_a_reason_is_reported(lab),
    )


async def test_a_worker_of_a_newer_release(lab: Lab, tmp_path: Path) -> None:
    """What it reports may have values that this release does not know: that is said, and messages still arrive."""
    await lab.worker(module="newer_worker").serves()
    await lab.deploy("newer", 2)
    shell, name = Shell(lab, tmp_path), f"{lab.namespace}/newer"
    change = {"images": {"server": "example/chat:2"}}
    await shell.run("start", shell.spec("newer", change=change, strategy={"waypoints": [{"at": 1, "approval": True}]}))
    for command in ("status", "report", "watch"):
        output = (await shell.run(command, name, expect=UNEXPECTED)).stderr
        assert "phase: 'Rehearsing'" in output
        assert "use the release of its worker" in output
    await shell.run("abort", name, "--no-wait")

    async def is_aborted() -> bool:
        return [each["outcome"] for each in await shell.json("list")] == ["Aborted"]

    await until("it to end", is_aborted)


async def _start(lab: Lab, kind: str, name: str, change: dict[str, Any]) -> Run:
    target = {"kind": "Supervised", "resource": kind, "namespace": lab.namespace, "name": name}
    return await lab.start(name, change, target=target, strategy={})


async def _a_service_scaled_to_zero(lab: Lab) -> None:
    define(lab, *SERVICES, "InferenceService")
    group, version, plural = SERVICES
    place = (group, version, lab.namespace, plural)
    predictor = {"minReplicas": 0, "model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/a"}}
    body = {
        "apiVersion": f"{group}/{version}", "kind": "InferenceService", "metadata": {"name": "llm"},
        "spec": {"predictor": predictor},
    }  # fmt: skip

    def made() -> bool:
        try:
            lab.custom.create_namespaced_custom_object(*place, body)
        except Exception:  # the kind is not served yet
            return False
        return True

    await until("the kind to be served", made)
    run = await _start(lab, "InferenceService", "llm", {"patch": {"model": {"storageUri": "s3://models/b"}}})
    with pytest.raises(WorkflowUpdateFailedError) as raised:
        await run.plan()
    with pytest.raises(WorkflowFailureError) as ended:
        await run.end()
    assert "runs no replica" in str(raised.value.cause)
    assert "runs no replica" in str(ended.value.cause)
    found: Any = lab.custom.get_namespaced_custom_object(*place, "llm")
    assert found["spec"]["predictor"] == predictor


async def _scaled_to_zero_midway(lab: Lab) -> None:
    await lab.deploy("zero", 2)
    strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    run = await lab.start("zero", {"images": {"server": "example/chat:2"}}, strategy=strategy)
    await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
    lab.patch("zero", {"spec": {"replicas": 0}})
    await run.until("it waits for replicas", lambda s: "scaled to 0" in s.waiting_for)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await run.send("retarget", change={"images": {"server": "example/chat:3"}}, onto_baseline=True)
    assert NONE_TO_ROLL in str(refused.value.cause)
    assert "scaled to 0" in (await run.status()).waiting_for
    await run.send("abort")
    assert (await run.end()).status.outcome == "Aborted"
    assert lab.deployment("zero").spec.template.spec.containers[0].image == "example/chat:1"


async def test_a_target_of_no_replicas_is_refused(served: Lab) -> None:
    """At the start, and at a retarget in the middle; the rollout goes on to take messages."""
    await asyncio.gather(_a_service_scaled_to_zero(served), _scaled_to_zero_midway(served))
