"""A policy that really governs: a frozen namespace refuses starts, holds what runs, and lets everything go back."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Case, Lab, open_lab, until
from killing_worker import KillingWorker
from kube_api import create
from kubernetes import client
from segue_local import Stack
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

from segue import messages
from segue.spec import Strategy

GOLD = {"example.com/tier": "gold"}
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


def frozen_rule(lab: Lab) -> dict[str, Any]:
    """Return the rule that freezes the lab's gold targets for two hours around now."""
    begin, end = ((datetime.now(UTC) + timedelta(hours=n)).strftime("%Y-%m-%d %H:%M") for n in (-1, 1))
    freeze = {"name": "release-day", "from": begin, "to": end, "timeZone": "UTC", "running": "pause"}
    return {
        "name": "frozen", "namespaces": [lab.namespace], "labels": GOLD, "approve": ["bob"], "breakGlass": ["alice"],
        "freezes": [freeze],
    }  # fmt: skip


def written(folder: Path, rule: dict[str, Any]) -> str:
    """Write a policy of one rule; return its file."""
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "segue.dev/v1alpha1", "kind": "Policy", "rules": [rule]}))
    return str(file)


async def send(case: Case, message: messages.Message) -> str:
    return str(await case.run.handle.execute_update(messages.name_of(message), message, result_type=str))


async def refused(case: Case, message: messages.Message) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await send(case, message)
    return str(caught.value.cause)


async def test_four_eyes_in_namespaces_with_a_label(stack: Stack, tmp_path: Path) -> None:
    """Who started a rollout or retargeted it cannot approve it, by an update or by a signal; another person can."""
    async with open_lab(stack) as lab:
        lab.core.patch_namespace(lab.namespace, {"metadata": {"labels": {"env": "production"}}})
        rule = {"name": "pairs", "namespaceLabels": {"env": "prod*"}, "fourEyes": True}
        KillingWorker(lab, environment={"SEGUE_POLICY": written(tmp_path, rule)})
        async with lab.case("chat", 2, strategy=ASKS) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            message = await refused(case, messages.Approve(by="test"))
            assert "by: 'test': may not approve here: test started the rollout (claimed; " in message
            assert "rule pairs of the policy requires another person (fourEyes)" in message
            await case.run.signal("approve")  # by "test" too
            await send(case, messages.RetargetTo(by="bob", strategy=Strategy.model_validate(ASKS)))
            await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
            assert "bob retargeted the rollout (claimed; " in await refused(case, messages.Approve(by="bob"))
            await case.run.handle.signal("approve", {"by": "carol"})
            report = await case.ends("Completed")
            answers = [
                (entry.what, entry.who) for entry in report.entries if entry.what in ("signal refused", "approved")
            ]
            assert answers == [("signal refused", "test"), ("approved", "carol")]
        await _without_the_right(lab)


async def _without_the_right(lab: Lab) -> None:
    """A worker that may not read the namespace refuses a start: the rule might hold."""
    rbac = client.RbacAuthorizationV1Api(lab.core.api_client)
    reviews = client.AuthorizationV1Api(lab.core.api_client)
    role: Any = rbac.read_namespaced_role("segue-worker", lab.namespace)
    fewer = [each for each in role.rules if "namespaces" not in each.resources]
    rbac.patch_namespaced_role("segue-worker", lab.namespace, {"rules": fewer})
    attributes = {"verb": "get", "resource": "namespaces", "namespace": lab.namespace, "name": lab.namespace}
    review = {"spec": {"user": "segue-worker", "resourceAttributes": attributes}}
    await until("the role applies", lambda: not create(reviews.create_subject_access_review, review).status.allowed)
    run = await lab.start("chat", {"images": {"server": "example/chat:3"}})
    with pytest.raises(WorkflowFailureError) as caught:  # it may end before an update arrives
        await run.handle.result()
    message = str(caught.value.cause)
    assert f"namespace {lab.namespace}: " in message and 'cannot get resource "namespaces"' in message
    assert "; rule pairs of the policy selects by the labels of the namespace; " in message
    assert f"kubectl apply -n {lab.namespace} -f deploy/rbac.yaml" in message


async def deploy_gold(lab: Lab, name: str, replicas: int) -> None:
    await lab.deploy(name, replicas)
    lab.patch(name, {"metadata": {"labels": GOLD}})


async def test_frozen_targets(stack: Stack, tmp_path: Path) -> None:
    """A freeze that is declared while rollouts run holds them, until it is lifted; one who may, breaks the glass."""
    async with open_lab(stack) as lab:
        rule = frozen_rule(lab)
        file = written(tmp_path, {**rule, "labels": {"example.com/tier": "none"}})
        worker = lab.worker(SEGUE_POLICY=file)
        await asyncio.gather(*(deploy_gold(lab, name, 2) for name in ("undone", "held", "urgent", "lifted")))
        lab.patch(
            "undone", {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "example/chat:9"}]}}}}
        )
        async with (
            lab.rolled("held", strategy=ASKS) as started, lab.rolled("urgent", strategy=ASKS) as urgent,
            lab.rolled("lifted", strategy=ASKS) as lifted,
        ):  # fmt: skip
            cases = (started, urgent, lifted)
            for case in cases:
                await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            written(tmp_path, rule)
            for case in cases:
                frozen = await case.run.until("it is frozen", lambda s: s.phase == "Paused")
                assert "freeze release-day of rule frozen, until " in frozen.reason and "freeze" in frozen.waiting_for
            await asyncio.gather(_frozen(started), _urgent(urgent), _starts(lab))
            Path(file).write_text("rules: [")
            await until("it is told", lambda: "the policy stays as it was: " in worker.log.read_text())
            assert (await lifted.run.status()).phase == "Paused"
            written(tmp_path, {**rule, "freezes": []})
            await lifted.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
            assert "may not approve here" in await refused(lifted, messages.Approve(by="eve"))
            await send(lifted, messages.Approve(by="bob"))
            await lifted.ends("Completed")


async def _frozen(case: Case) -> None:
    """Nobody continues it, and everybody may take it back."""
    assert "the rollout is frozen" in await refused(case, messages.Resume(by="alice"))
    assert "may not approve here" in await refused(case, messages.Approve(by="eve"))
    await case.run.signal("approve")  # by "test": the refusal is in the report
    await send(case, messages.Abort(by="eve", reason="not today"))
    report = await case.ends("Aborted")
    refusals = [entry.detail for entry in report.entries if entry.what == "signal refused"]
    assert len(refusals) == 1 and "by: 'test': may not approve here" in refusals[0]


async def _urgent(case: Case) -> None:
    glass = {"reason": "outage of the old version", "break_glass": True}
    assert "may not break the glass" in await refused(case, messages.Resume(by="eve", **glass))
    await send(case, messages.Resume(by="alice", **glass))
    await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
    assert "may not approve here" in await refused(case, messages.Approve(by="alice"))
    await send(case, messages.Approve(by="bob"))
    report = await case.ends("Completed")
    broke = [(entry.who, entry.detail) for entry in report.entries if entry.what == "freeze overruled"]
    assert broke == [("alice", "outage of the old version")]


async def _starts(lab: Lab) -> None:
    """A start is refused before anything changes; an undo is not, and neither is a target without the rule's label."""
    await asyncio.gather(deploy_gold(lab, "late", 1), lab.deploy("free", 1))
    free = await lab.start("free", strategy={"maxSurge": 1})
    run = await lab.start("late")
    with pytest.raises(WorkflowFailureError) as caught:  # it may end before an update arrives
        await run.handle.result()
    message = str(caught.value.cause)
    assert f"spec.target.namespace: {lab.namespace!r}: is frozen: freeze release-day" in message and "alice" in message
    assert lab.deployment("late").metadata.annotations.get("segue.dev/owner") is None
    undo = await lab.start("undone", {"revision": 1}, strategy={"maxSurge": 1})
    assert [(await each.end()).status.outcome for each in (undo, free)] == ["Completed"] * 2
    await until("version 1 runs again", lambda: len(lab.pods("undone", "chat:1")) == 2)
