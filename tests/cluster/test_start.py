"""Lint before every start: errors refuse it, unless somebody accepts them; a way back is never refused."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from harness import ACCEPTED, Lab, until
from kube_api import create
from shell import REFUSED, Shell
from subjects import SUBJECTS, PairSubject, Subject
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

PROBED: dict[str, Any] = {"readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 80}}}
LATEST = {"images": {"server": "example/chat:latest"}}


async def test_errors_refuse_a_start_unless_they_are_accepted(served: Lab, tmp_path: Path) -> None:
    """The refusal names each rule, what is there and what mends it; accepted, the report says by whom."""
    shell = Shell(served, tmp_path)
    await served.deploy("chat", 2)
    before = served.raw("chat")["metadata"]["resourceVersion"]
    file = shell.spec("chat", change=LATEST, strategy={"maxSurge": 1}, accept=[])
    refused = (await shell.run("start", file, expect=REFUSED)).stderr
    assert "lint: image-not-immutable: Rollout " in refused and "chat spec.change.images.server: " in refused
    assert '"example/chat:latest@DIGEST"' in refused and "or accept it: --accept image-not-immutable" in refused
    assert "lint: no-readiness-probe: Deployment " in refused and '"readinessProbe":{"httpGet":' in refused
    assert "no-disruption-budget" not in refused, "a warning refuses nothing"
    assert served.raw("chat")["metadata"]["resourceVersion"] == before
    unknown = (await shell.run("start", file, "--accept", "probes", expect=REFUSED)).stderr
    assert "--accept: 'probes': is not a lint rule; use one of: image-not-immutable, " in unknown

    both = ("--accept", "image-not-immutable", "--accept", "no-readiness-probe")
    begun = await shell.run("start", file, *both, "--by", "ann")
    assert "warning: no-disruption-budget: Deployment " in begun.stderr

    async def ended() -> bool:
        return bool((await shell.json("status", file))["outcome"] == "Completed")

    await until("it has ended", ended)
    entries = (await shell.json("report", file))["entries"]
    kept = {(e["what"], e["detail"].partition(":")[0], e["who"]) for e in entries}
    assert kept >= {
        ("accepted", "image-not-immutable", "ann"), ("accepted", "no-readiness-probe", "ann"),
        ("lint warning", "no-disruption-budget", ""),
    }  # fmt: skip


async def test_more_than_a_quota_ever_allows(served: Lab) -> None:
    """It could never start: refused, with what the quota allows; accepted, it holds with that reason."""
    await served.deploy("chat", 2, container={"resources": {"requests": {"cpu": "1"}}})
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "4"}}}
    create(served.core.create_namespaced_resource_quota, served.namespace, quota)
    await until("the quota counts", lambda: served.quota_used("small").get("requests.cpu") == "2")
    change, never = (
        {"resources": {"server": {"requests": {"cpu": "8"}}}},
        "a pod needs 8 requests.cpu, and the ",
    )
    with pytest.raises(WorkflowFailureError) as refused:
        await (await served.start("chat", change, strategy={"maxSurge": 1})).end()
    assert never in str(refused.value.cause) and "exceeds-quota" in str(refused.value.cause)
    async with served.rolled("chat", change, strategy={"maxSurge": 1}, accept=[*ACCEPTED, "exceeds-quota"]) as case:
        status = await case.run.until("it holds", lambda status: status.phase == "Held")
        assert never in status.waiting_for, status.waiting_for
        await case.run.send("abort")
        await case.ends("Aborted")


async def test_every_other_kind_is_linted_before_its_start(served: Lab) -> None:
    """An error that nobody accepts refuses it, and the target is untouched; accepted, it rolls, and that is kept."""

    async def one(kind: type[Subject]) -> None:
        subject = kind(served, kind.kind.lower())
        await subject.create(4)
        before = subject.version()
        spec: dict[str, Any] = {"target": subject.target, "strategy": kind.ways[0].strategy}
        run = await served.start(subject.name, LATEST, **spec, accept=["no-readiness-probe"])
        with pytest.raises(WorkflowFailureError) as refused:
            await run.end()
        assert "lint: image-not-immutable: Rollout " in str(refused.value.cause), kind
        assert subject.version() == before, kind
        run = await served.start(subject.name, LATEST, **spec, accept=["no-readiness-probe", "image-not-immutable"])
        report = await run.end()
        assert report.status.outcome == "Completed", kind
        kept = {(entry.what, entry.detail.partition(":")[0]) for entry in report.entries}
        assert kept >= {("accepted", "image-not-immutable"), ("lint warning", "no-disruption-budget")}, kind

    await asyncio.gather(*(one(kind) for name, kind in SUBJECTS.items() if name != "Deployment"))


async def test_the_plan_is_that_of_the_start(served: Lab, tmp_path: Path) -> None:
    """`segue plan` shows the stages and the warnings that the start of the same file returns."""
    shell = Shell(served, tmp_path)

    async def one(name: str, kind: type[Subject], change: dict[str, Any] | None = None, **strategy: Any) -> Any:
        file = shell.spec(name, target=kind(served, name).target, change=change or kind.changed(2), strategy=strategy)
        planned, begun = await shell.json("plan", file), await shell.json("start", file)
        assert planned == begun["plan"], name
        await shell.run("watch", file)
        return planned

    async def hooked() -> None:
        await served.deploy("hooked", 2)
        container = {"name": "server", "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
        planned = await one("hooked", SUBJECTS["Deployment"], {"patch": {"spec": {"containers": [container]}}})
        lost = [warning for warning in planned["warnings"] if "requests will be lost" in warning]
        assert len(lost) == 1 and "in a rollback" not in lost[0], "the new version has a hook"

    async def half() -> None:
        subject = PairSubject(served, "half")
        await subject.create(4)
        async with served.rolled("half", kind=PairSubject, strategy={"maxSurge": 1, "to": {"new": "50%"}}) as case:
            await case.ends("Completed")
        planned = await one("half", PairSubject, maxSurge=1)
        stages = [(stage["old"], stage["new"]) for stage in planned["stages"]]
        assert stages == [(2, 2), (2, 3), (1, 3), (1, 4), (0, 4)], "what runs the change already is not emptied first"

    async def plain(kind: type[Subject], **strategy: Any) -> None:
        await kind(served, kind.kind.lower()).create(2)
        await one(kind.kind.lower(), kind, **strategy)

    await asyncio.gather(
        hooked(), half(), plain(SUBJECTS["StatefulSet"], maxUnavailable=1), plain(SUBJECTS["Supervised"])
    )


async def test_a_retarget_is_linted_too(served: Lab) -> None:
    """A refused request changes nothing; an accepted one goes on, and stays accepted."""
    waypoint = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with served.case("chat", 2, target={"container": PROBED}, strategy=waypoint, accept=[]) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await case.run.send("retarget", change=LATEST)
        assert "lint: image-not-immutable: " in str(refused.value.cause)
        assert (await case.run.status()).phase == "AwaitingApproval"
        answer = await case.run.send("retarget", change=LATEST, accept=["image-not-immutable"])
        assert answer == "now wants server=example/chat:latest"
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval" and "latest" in str(s.wanted))
        await case.run.send("approve")
        report = await case.ends("Completed")
    assert [e.who for e in report.entries if e.what == "accepted"] == ["test"]


async def test_a_way_back_is_never_refused(served: Lab, tmp_path: Path) -> None:
    """At three in the morning the old revision counts, also with lint findings against it: the report lists them."""
    shell = Shell(served, tmp_path)
    await served.deploy("chat", 2, image="example/chat:latest")
    probed = {"patch": {"spec": {"containers": [{"name": "server", "image": "example/chat:2", **PROBED}]}}}
    async with served.rolled("chat", probed, accept=[]) as case:
        await case.ends("Completed")
    undone = await shell.run("undo", f"{served.namespace}/chat", "--to-revision", "1", "--wait")
    assert undone.stdout.startswith(f"Completed: {served.namespace}/chat runs server=example/chat:latest")
    entries = (await shell.json("report", f"{served.namespace}/chat"))["entries"]
    errors = [e["detail"].partition(":")[0] for e in entries if e["what"] == "lint error"]
    assert errors == ["image-not-immutable", "no-readiness-probe"]
