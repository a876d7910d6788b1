"""The command line against real servers, as a pipeline and a person use it."""

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from harness import Lab, Run, pod_template, until
from kube_api import create
from kubernetes.client import ApiException
from shell import NEEDS_PERSON, REFUSED, ROLLED_BACK, TIMED_OUT, UNREACHABLE, Shell
from subjects import DeploymentSubject, PairSubject, Subject
from weather.api_proxy import api_proxy

from activities.levers.ownership import BASELINE, OWNER, left_of_us
from activities.release import release
from segue.clusters import Access
from segue.naming import target_named

ROOT = Path(__file__).parents[2]
HOLDS_AT_1 = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


@pytest.fixture
async def shell(lab: Lab, tmp_path: Path) -> Shell:
    return Shell(lab, tmp_path)


async def test_a_pipeline_reads_plan_start_status_and_report(lab: Lab, shell: Shell) -> None:
    """Plan from the cluster, start and wait: JSON on stdout, exit code 0, and the report is there afterwards."""
    await lab.deploy("chat", 4)
    await lab.worker().serves()
    file = shell.spec("chat", strategy={"maxSurge": 1})
    plan = await shell.json("plan", file)
    assert (plan["replicas"], plan["floor"], plan["ceiling"]) == (4, 4, 5)
    assert set(plan) == {"replicas", "floor", "ceiling", "stages", "warnings"}
    assert "has no preStop hook" in plan["warnings"][0]
    ended = await shell.run("start", file, "--wait", "-o", "json")
    assert json.loads(ended.stdout)["outcome"] == "Completed"
    status = await shell.json("status", f"{lab.namespace}/chat")
    keys = "id phase outcome replicas floor ceiling old new waitingFor reason baseline wanted"
    assert set(keys.split()) <= status.keys()
    assert status["new"] == {"replicas": 4, "ready": 4}
    assert "| scaled |" in (await shell.run("report", file)).stdout
    assert f"{lab.namespace}/chat" in (await shell.run("list")).stdout


async def test_exit_codes_of_start_and_wait(lab: Lab, shell: Shell) -> None:
    """A bad version is 3, one that waits for a person 4, and a caller without patience 6."""
    names = ("bad", "holds", "slow")
    await asyncio.gather(*(lab.deploy(name, 2) for name in names))
    await lab.worker().serves()
    crash = {"patch": {"metadata": {"labels": {"segue.dev/fake": "crash-loop"}}}}
    slow = {"images": {"server": "example/chat:2"}, "annotations": {"segue.dev/ready-after": "15s"}}
    bad, paused, late = await asyncio.gather(
        shell.run("start", shell.spec("bad", change=crash), "--wait", expect=ROLLED_BACK),
        shell.run("start", shell.spec("holds", change=crash, onFailure="pause"), "--wait", expect=NEEDS_PERSON),
        shell.run("start", shell.spec("slow", change=slow), "--wait", "--timeout", "3s", expect=TIMED_OUT),
    )
    assert "CrashLoop" in bad.stderr + bad.stdout
    assert "CrashLoop" in paused.stderr + paused.stdout
    assert "slow" in late.stderr
    await asyncio.gather(*(shell.run("abort", f"{lab.namespace}/{name}") for name in ("holds", "slow")))


async def test_a_second_start_is_refused_or_joins(lab: Lab, shell: Shell) -> None:
    """The second start names the first and the fix; with --join it retargets the one under way."""
    await lab.deploy("chat", 2)
    await lab.worker().serves()
    await shell.run("start", shell.spec("chat", strategy=HOLDS_AT_1))
    third = shell.spec("chat", change={"images": {"server": "example/chat:3"}}, strategy=HOLDS_AT_1)

    async def asks() -> bool:
        return bool((await shell.json("status", third))["phase"] == "AwaitingApproval")

    await until("it holds the target", asks)
    refused = await shell.run("start", third, expect=REFUSED)
    assert "under way" in refused.stderr and "--join" in refused.stderr
    undone = await shell.run("undo", f"{lab.namespace}/chat", "--to-revision", "1", expect=REFUSED)
    assert "under way" in undone.stderr and "segue abort" in undone.stderr and "--join" not in undone.stderr
    planned = await shell.run("plan", third)
    assert "is held by a rollout (rollout/" in planned.stderr and "`--join`" in planned.stderr
    # As a side of a pair it is held too; what that rollout saved is no damage, and the refusal stays one of its start.
    sides = {"kind": "DeploymentPair", "namespace": lab.namespace, "old": "chat", "new": "next"}
    pair, place = shell.spec("next", target=sides), f"{lab.namespace}/{lab.namespace}"
    held = f"is held by rollout/{place}/Deployment/chat@"
    for command in ("plan", "lint", "release", "start"):
        refused = await shell.run(command, pair, expect=REFUSED)
        assert held in refused.stderr and "whose target is a Deployment; wait for its end" in refused.stderr
    shown = await shell.run("status", pair, expect=REFUSED)
    assert re.search(f"/chat that was to start at .* UTC was refused: deployment chat: {held}", shown.stderr)
    await shell.run("start", third, "--join")
    status = await shell.json("status", third)
    assert status["wanted"]["images"] == {"server": "example/chat:3"}
    await shell.run("abort", third)


async def test_a_cancelled_pipeline_aborts_and_a_second_run_joins(lab: Lab, shell: Shell, tmp_path: Path) -> None:
    """A run joins the rollout under way and takes its outcome; SIGTERM aborts it, or leaves it running."""
    await lab.deploy("chat", 2)
    await lab.worker().serves()
    file, results = shell.spec("chat", strategy=HOLDS_AT_1), tmp_path / "junit.xml"
    options = ("start", file, "--wait", "--join")

    async def shows(run: asyncio.subprocess.Process, words: str) -> None:
        assert run.stderr is not None
        async for line in run.stderr:
            if words.encode() in line:
                return
        raise AssertionError(f"it ended without {words}")

    left = await shell.begin(*options)
    await shows(left, "AwaitingApproval")
    left.terminate()
    _, errors = await asyncio.wait_for(left.communicate(), 60)
    assert left.returncode == 143 and b"continues: `segue watch" in errors
    assert (await shell.json("status", file))["phase"] == "AwaitingApproval"

    first, second = [await shell.begin(*options, *more) for more in (("--on-cancel", "abort"), ("--junit", results))]
    await asyncio.gather(shows(first, "AwaitingApproval"), shows(second, "AwaitingApproval"))
    first.terminate()
    (out, errors), (joined, _) = await asyncio.wait_for(asyncio.gather(first.communicate(), second.communicate()), 120)
    assert (first.returncode, second.returncode) == (ROLLED_BACK, ROLLED_BACK), errors
    assert out.startswith(b"Aborted: ") and b"the pipeline was cancelled by SIGTERM" in out
    assert joined.startswith(b"Aborted: ")
    assert '<failure type="Aborted"' in results.read_text()
    assert len(lab.pods("chat", "chat:1")) == 2 == len(lab.pods("chat"))


async def test_the_job_of_the_ci_templates_is_accepted(lab: Lab) -> None:
    """The API server knows each of its fields, and a restricted namespace admits its pod."""
    lab.core.patch_namespace(
        lab.namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    job = yaml.safe_load((ROOT / "deploy/ci/kubernetes/job.yaml").read_text())
    pod = {"metadata": {"generateName": "segue-"}, "spec": job["spec"]["template"]["spec"]}
    strictly = {"dry_run": "All", "field_validation": "Strict"}
    create(lab.batch.create_namespaced_job, lab.namespace, job, **strictly)
    create(lab.core.create_namespaced_pod, lab.namespace, pod, **strictly)
    del pod["spec"]["containers"][0]["securityContext"]
    with pytest.raises(ApiException, match="violates PodSecurity"):
        create(lab.core.create_namespaced_pod, lab.namespace, pod, **strictly)


async def test_steering_by_name(lab: Lab, shell: Shell) -> None:
    """Pause, resume, scale, approve and watch take namespace/name; what makes no sense is refused with the reason."""
    await lab.deploy("chat", 2)
    await lab.worker().serves()
    file, name = shell.spec("chat", strategy=HOLDS_AT_1), f"{lab.namespace}/chat"
    await shell.run("start", file)

    async def asks() -> bool:
        return bool((await shell.json("status", name))["phase"] == "AwaitingApproval")

    await until("it asks", asks)

    async def listed(*options: str) -> list[str]:
        return [each["target"] for each in await shell.json("list", "--needs-person", *options)]

    async def has_it() -> bool:
        return await listed() == [name]

    await until("the list to have it", has_it)
    assert await listed("-n", lab.namespace) == [name]
    assert await listed("-n", "elsewhere") == []
    assert "not paused" in (await shell.run("resume", name, expect=REFUSED)).stderr
    await shell.run("pause", name, "--reason", "lunch")
    assert "lunch" in (await shell.run("status", name)).stdout
    await shell.run("resume", name)
    await shell.run("scale", name, "3")
    await shell.run("approve", name, "--by", "ann")
    seen = await shell.run("watch", name)
    assert "Completed" in seen.stdout
    assert "ann" in (await shell.run("report", name)).stdout
    assert len(lab.pods("chat", "chat:2")) == 3


@pytest.mark.parametrize("way", ["baseline", "wanted"])
async def test_release_needs_no_temporal(lab: Lab, shell: Shell, way: str) -> None:
    """Where Temporal is lost, `release` goes back or on by what is written on the target, within floor and ceiling."""
    await lab.deploy("chat", 4)
    before = lab.deployment("chat").spec
    worker = lab.worker()
    run = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]})
    await run.until("it stands in the middle", lambda s: s.phase == "AwaitingApproval")
    worker.kill()
    with lab.watch("chat") as watcher:
        told = await shell.run("release", f"{lab.namespace}/chat", "--to", way, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert "warning" not in told.stderr  # nobody else wrote it
    watcher.assert_within(4, 5, passing=1)
    image = {"baseline": "chat:1", "wanted": "chat:2"}[way]
    assert len(lab.pods("chat", image)) == 4 == len(lab.pods("chat"))
    after = lab.deployment("chat")
    assert (after.spec.strategy, after.spec.min_ready_seconds) == (before.strategy, before.min_ready_seconds)
    left = {key for key in after.metadata.annotations if key.startswith("segue.dev/")}
    assert left == {"baseline": set(), "wanted": {"segue.dev/change"}}[way]
    assert not any(left_of_us(each) for each in lab.replicasets("chat"))
    assert not after.spec.paused
    assert ("Released: " in after.metadata.annotations.get("kubernetes.io/change-cause", "")) is (way == "wanted")
    made = [each["cause"] for each in await shell.json("history", f"{lab.namespace}/chat") if each["note"]]
    assert [cause.startswith({"baseline": "Aborted: ", "wanted": "Released: "}[way]) for cause in made] == [True]
    assert (way == "baseline") is ("(released by " in made[0]), made
    lab.worker()  # a worker that comes back finds the target released, and writes nothing
    report = await run.end()
    assert report.status.outcome == "Aborted"
    assert lab.deployment("chat").metadata.generation == after.metadata.generation


async def test_release_of_targets_that_are_not_whole(served: Lab, tmp_path: Path) -> None:
    """After a retarget whose version is not ready the floor holds; a pair ends as it was before.

    Many writes meet a conflict, as where controllers write the same objects: each is made again.
    """

    async def released(subject: Subject, run: Run) -> None:
        await run.handle.terminate("its history is lost")
        kind = "" if subject.kind == "Deployment" else f"{subject.kind}/"
        target = target_named(f"{kind}{served.namespace}/{subject.name}")
        with api_proxy(served.stack.kubeconfig, tmp_path, seed=1) as proxy:
            proxy.weather = {"api-conflicts"}
            await release(target, "baseline", "test", 120.0, print, Access(kubeconfig=str(proxy.kubeconfig)))

    async def retargeted() -> None:
        strategy = {"maxSurge": 2, "waypoints": [{"at": 4, "approval": True}]}
        async with served.case("retargeted", strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            slow = {**DeploymentSubject.changed(3), "annotations": {"segue.dev/ready-after": "10m"}}
            await case.run.send("retarget", change=slow, onto_baseline=True)
            await until("three versions run", lambda: len(served.pods("retargeted", "chat:3")) == 2)
            await released(case.subject, case.run)
        case.watcher.assert_within(4, 6, passing=1)

    async def pair() -> None:
        await PairSubject(served, "pair").create(3)
        served.relabel(served.pods("pair")[0].metadata.name, "never-ready")
        await until("one is not ready", lambda: (served.deployment("pair").status.ready_replicas or 0) == 2)
        strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
        async with served.rolled("pair", kind=PairSubject, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await released(case.subject, case.run)

    await asyncio.gather(retargeted(), pair())


async def test_release_ignores_what_an_earlier_rollout_left(lab: Lab, shell: Shell) -> None:
    """Where no rollout holds the target, annotations that `kubectl rollout undo` copied lead nowhere."""
    await lab.deploy("chat", 1, image="example/chat:7")
    saved = json.dumps({"template": pod_template("chat", "ready", "300ms", "example/chat:1")})
    lab.patch("chat", {"metadata": {"annotations": {OWNER: "rollout/default/a/b@1", BASELINE: saved}}})
    before = lab.deployment("chat").metadata.generation
    refused = await shell.run("release", f"{lab.namespace}/chat", expect=REFUSED)
    assert "is not held by a rollout" in refused.stderr and "kubectl annotate deployment" in refused.stderr
    assert lab.deployment("chat").metadata.generation == before


async def test_what_is_away_is_named(lab: Lab, shell: Shell) -> None:
    """No worker, no Temporal, no cluster, nothing to release: each says what to do, with its exit code."""
    await lab.deploy("chat", 2)
    file, name = shell.spec("chat"), f"{lab.namespace}/chat"
    no_cluster, acting = {"KUBECONFIG": "/nonexistent"}, shell.folder / "acting"
    found = yaml.safe_load(lab.stack.kubeconfig.read_text())
    for each in found["users"]:
        each["user"]["as"] = "bob"
    acting.write_text(yaml.safe_dump(found))
    cases = [
        (("history", name), {"KUBECONFIG": str(acting)}, REFUSED, 'User "bob" cannot get resource "deployments"'),
        (("start", file), {"TEMPORAL_ADDRESS": "127.0.0.1:1"}, UNREACHABLE, "Temporal does not answer at 127.0.0.1:1"),
        (("plan", file), no_cluster, REFUSED, "KUBECONFIG: '/nonexistent': is not a file"),
        (("status", name), {}, REFUSED, "no rollout of"),
        (("status", f"svc/{name}"), {}, REFUSED, "svc is read as a cluster; the kinds that Segue rolls"),
        (("release", name), {}, REFUSED, "has no saved baseline"),
        (("plan", shell.spec("absent")), {}, REFUSED, "absent"),
        (("start", file), {}, UNREACHABLE, f"no worker answers on task queue {lab.task_queue}; start one with"),
        (
            ("status", name),
            {"SEGUE_TASK_QUEUE": "other"},
            UNREACHABLE,
            f"no worker answers on task queue {lab.task_queue}",
        ),
    ]
    for arguments, env, code, expected in cases:
        assert expected in (await shell.run(*arguments, expect=code, **env)).stderr
    assert lab.deployment("chat").metadata.generation == 1
