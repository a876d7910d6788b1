"""Lint on a real API server: each mend is one that it takes, and that mends."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Lab, reaching, until
from kube_api import create
from kubernetes import client
from shell import Shell
from subjects import SUBJECTS, DeploymentSubject, LeaderWorkerSetSubject, Subject, SupervisedSubject

from activities.capacity import counting
from activities.levers import Levers
from activities.linting import facts_in
from segue.lint import RULES, lint
from segue.lint.findings import Finding, How, Mend
from segue.spec.lint_rule import LintRule

REFUSED = 2
LIVENESS = {"httpGet": {"path": "/v2/health/live", "port": 80}}
READY = {"readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 80}}}
BRIDGED = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
PINNED = {"image": f"example/chat:1@sha256:{'0' * 64}"}
FINE = {**READY, **BRIDGED, **PINNED}
CALM = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.fixture
async def shell(lab: Lab, tmp_path: Path) -> Shell:
    return Shell(lab, tmp_path)


async def linted(shell: Shell, what: str, *, fails: bool, **env: str) -> Any:
    ran = await shell.run("lint", what, "-o", "json", expect=REFUSED if fails else 0, **env)
    found = json.loads(ran.stdout)
    assert found["fails"] is fails
    return found


def mend(subject: Subject, fix: Mend) -> None:
    """Do what a finding says with an object of the cluster, as `kubectl patch` and `kubectl create` do."""
    lab = subject.lab
    policy, autoscaling = client.PolicyV1Api(lab.core.api_client), client.AutoscalingV2Api(lab.core.api_client)
    name, body = fix.object.name, fix.body
    match fix.how, fix.object.kind:
        case How.CREATE, "PodDisruptionBudget":
            create(policy.create_namespaced_pod_disruption_budget, lab.namespace, body)
        case How.PATCH, "PodDisruptionBudget":
            policy.patch_namespaced_pod_disruption_budget(name, lab.namespace, body)
        case How.PATCH, "HorizontalPodAutoscaler":
            autoscaling.patch_namespaced_horizontal_pod_autoscaler(name, lab.namespace, body)
        case (How.PATCH | How.MERGE) as how, subject.kind:
            assert (how is How.MERGE) is (subject.kind == "LeaderWorkerSet"), "a custom resource takes only that"
            subject.patch(body)
        case other:
            raise AssertionError(other)


def protect(lab: Lab, name: str, **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, **spec}}
    create(client.PolicyV1Api(lab.core.api_client).create_namespaced_pod_disruption_budget, lab.namespace, body)


def autoscale(subject: Subject, low: int, high: int) -> None:
    aim = {"apiVersion": subject.raw["apiVersion"], "kind": subject.kind, "name": subject.name}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
    spec = {"scaleTargetRef": aim, "minReplicas": low, "maxReplicas": high, "metrics": [cpu]}
    body = {"metadata": {"name": subject.name}, "spec": spec}
    lab = subject.lab
    api = client.AutoscalingV2Api(lab.core.api_client)
    create(api.create_namespaced_horizontal_pod_autoscaler, lab.namespace, body)


async def findings_of(subject: Subject) -> tuple[Finding, ...]:
    target = subject.lab.rollout(subject.name, target=subject.target, strategy=subject.ways[0].strategy).spec.target
    async with reaching(subject.lab) as cluster, counting(cluster) as capacity:
        return lint(await facts_in(cluster, capacity, Levers(cluster).of(target), target)).findings


async def mended(subject: Subject, limit: int = 24) -> set[str]:
    """Mend the worst finding until there is none, and return the rules that found something.

    The autoscaler comes first: it is real, and would take back the replicas that another mend adds.
    """
    tripped: set[str] = set()
    before: Finding | None = None
    for _ in range(limit):
        found = await findings_of(subject)
        if before is not None:
            same = (before.rule, before.object, before.field)
            assert same not in {(f.rule, f.object, f.field) for f in found}, before
        if not found:
            return tripped
        before = next((each for each in found if each.rule == "autoscaler-fights"), found[0])
        assert "DIGEST" not in before.mend.note, before
        tripped.add(before.rule)
        mend(subject, before.mend)
    raise AssertionError(f"it never ends: {found}")


WRONG = {
    "image": "example/chat:latest",
    "ports": [{"containerPort": 80}],
    "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
    "readinessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 30},
    "livenessProbe": LIVENESS,
}
BESIDE = {"name": "beside", "image": "example/beside:1", "ports": [{"containerPort": 90}]}
_AROUND = {
    "no-disruption-budget", "exceeds-quota", "surge-does-not-fit", "preempts-old-replicas", "volume-cannot-be-shared",
    "overlapping-selectors", "controlled-by-another-object",
}  # fmt: skip
ALL = {rule.name for rule in RULES} - _AROUND
WORST: dict[str, tuple[int, dict[str, Any], set[LintRule]]] = {
    "Deployment": (
        4, {"revisionHistoryLimit": 0, "progressDeadlineSeconds": 20, "strategy": {"type": "Recreate"}}, ALL
    ),
    "StatefulSet": (3, {"revisionHistoryLimit": 0}, ALL - {"deadline-shorter-than-load"}),
    "LeaderWorkerSet": (
        3, {"rolloutStrategy": {"rollingUpdateConfiguration": {"maxUnavailable": 3}}},
        ALL - {"deadline-shorter-than-load", "revision-history-too-low"},
    ),
}  # fmt: skip
"""How many replicas, with what settings, and the rules that find something then: what a kind has."""
judged_kinds = pytest.mark.parametrize("kind", [pytest.param(SUBJECTS[name], id=name) for name in WORST])


@judged_kinds
async def test_the_api_server_takes_each_mend(served: Lab, kind: type[Subject]) -> None:
    """A target with everything wrong is mended change by change, and then nothing is found."""
    replicas, settings, rules = WORST[kind.kind]
    subject = kind(served, "chat")
    await subject.create(replicas, container=WRONG, **settings)
    containers = {"spec": {"containers": [BESIDE]}}
    if kind is LeaderWorkerSetSubject:  # a merge patch has the whole list
        leader = subject.raw["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
        containers["spec"]["containers"] += leader["spec"]["containers"]
        subject.patch({"spec": {"leaderWorkerTemplate": {"leaderTemplate": containers}}})
    else:
        subject.patch({"spec": {"template": containers}})
    whole = {"server", "beside"}

    def run() -> bool:
        pods = served.pods("chat")
        return len(pods) == replicas and all({c.name for c in p.status.container_statuses or []} == whole for p in pods)

    await until("both containers run", run)
    protect(served, "chat", minAvailable="100%")
    autoscale(subject, replicas, replicas)
    assert await mended(subject) == rules


@judged_kinds
async def test_a_budget_is_created(served: Lab, kind: type[Subject]) -> None:
    calm = {"strategy": CALM} if kind is DeploymentSubject else {}
    subject = kind(served, "chat")
    await subject.create(4, container=FINE, **calm)
    assert await mended(subject) == {"no-disruption-budget"}
    api = client.PolicyV1Api(served.core.api_client)
    made: Any
    (made,) = api.list_namespaced_pod_disruption_budget(served.namespace).items
    pods = 8 if kind is LeaderWorkerSetSubject else 4
    budgets = api.read_namespaced_pod_disruption_budget
    await until(
        "it counts all pods of every group",
        lambda: (s := budgets(made.metadata.name, served.namespace).status) and s.expected_pods == pods,
    )


async def test_a_resource_of_an_operator_is_judged_by_what_it_names(served: Lab) -> None:
    """Its images, pinned by a merge patch that the API server takes, and budgets around its pods."""
    subject = SupervisedSubject(served, "chat")
    await subject.create(2)
    image, budget = sorted(await findings_of(subject), key=lambda finding: finding.rule)
    assert (image.rule, image.field) == ("image-not-immutable", "spec.containers[server].image")
    selector = budget.mend.body["spec"]["selector"]
    assert selector["matchLabels"] == {"name": "modelmesh-serving-chat"}
    assert selector["matchExpressions"] == [{"key": "modelmesh-service", "operator": "Exists"}]
    assert image.mend.how is How.MERGE
    subject.patch(image.mend.body)
    mend(subject, budget.mend)
    assert await findings_of(subject) == ()


async def test_a_quota_leaves_no_room(lab: Lab, shell: Shell) -> None:
    """What the quota's own controller has counted is what is left."""
    body = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}
    create(lab.core.create_namespaced_resource_quota, lab.namespace, body)
    gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    await lab.deploy("chat", 4, container={**FINE, **gpu}, strategy=CALM)
    protect(lab, "chat", maxUnavailable=1)
    await until("it is counted", lambda: lab.quota_used("team").get("requests.nvidia.com/gpu") == "4")
    (finding,) = (await linted(shell, f"{lab.namespace}/chat", fails=False))["findings"]
    assert "the ResourceQuota team has less left" in finding["found"]
    assert await mended(DeploymentSubject(lab, "chat")) == {"surge-does-not-fit"}
    assert lab.deployment("chat").spec.strategy.rolling_update.max_surge == 0


async def test_a_spec_is_judged_by_what_it_makes(lab: Lab, shell: Shell) -> None:
    """The API server tries the spec's patch; the target itself is not written, and the spec's mends mend it."""
    await lab.deploy("chat", 4, container=FINE, strategy=CALM)
    protect(lab, "chat", maxUnavailable=1)
    pod = {"containers": [{"name": "server", "image": "example/chat:latest"}], "nodeSelector": {"gpu": "none"}}
    file = shell.spec("chat", change={"patch": {"spec": pod}})
    found = (await linted(shell, file, fails=True))["findings"]
    assert [f["rule"] for f in found] == ["image-not-immutable", "surge-does-not-fit"]
    assert lab.deployment("chat").metadata.generation == 1
    pin, room = (f["mend"]["body"]["spec"] for f in found)
    pod["containers"] = [{**pin["change"]["patch"]["spec"]["containers"][0]}]
    fixed = shell.spec("chat", change={"patch": {"spec": pod}}, strategy=room["strategy"])
    assert (await linted(shell, fixed, fails=False))["findings"] == []


async def test_the_command_for_people_and_pipelines(lab: Lab, shell: Shell) -> None:
    """An error is exit code 2, unless it is accepted; the table has the patch as it can be applied."""
    await lab.deploy("chat", 4, container=FINE, revisionHistoryLimit=0, strategy=CALM)
    name = f"{lab.namespace}/chat"
    table = (await shell.run("lint", name, expect=REFUSED)).stdout
    lines = table.splitlines()
    assert lines[0] == f"{name}: 1 error, 1 warning"
    assert lines[2].split() == ["error", "revision-history-too-low"]
    after = lines[lines.index(f"        fix: patch Deployment {name}") + 1 :]
    patch = yaml.safe_load("\n".join(after[: after.index("")]))
    assert patch == {"spec": {"revisionHistoryLimit": 10}}
    accepted = await shell.run("lint", name, "--accept", "revision-history-too-low")
    assert "revision-history-too-low (accepted)" in accepted.stdout
    refused = (await shell.run("lint", name, "--accept", "history", expect=REFUSED)).stderr
    assert "--accept: 'history': is not a lint rule; use one of: image-not-immutable, " in refused
    assert "absent" in (await shell.run("lint", f"{lab.namespace}/absent", expect=REFUSED)).stderr


async def test_a_missing_right_is_said(lab: Lab, shell: Shell) -> None:
    """A caller with a worker's rights may not read everything: the rest is judged, and what is not is named."""
    await lab.deploy("chat", 4, container=FINE, revisionHistoryLimit=0, strategy=CALM)
    protect(lab, "chat", maxUnavailable=1)
    rights = {"KUBECONFIG": str(lab.stack.kubeconfig_for("segue-worker"))}
    found = await linted(shell, f"{lab.namespace}/chat", fails=True, **rights)
    assert [f["rule"] for f in found["findings"]] == ["revision-history-too-low"]
    unasked = {u["rule"] for u in found["unasked"]}
    assert unasked == {"surge-does-not-fit"}
    assert all("is forbidden" in u["why"] and "deploy/rbac-room.yaml" in u["why"] for u in found["unasked"])
    table = (await shell.run("lint", f"{lab.namespace}/chat", expect=REFUSED, **rights)).stdout
    assert "surge-does-not-fit: nodes cannot be read: " in table


async def test_without_the_right_to_patch_a_patch_is_not_judged(lab: Lab, shell: Shell) -> None:
    """The API server tries a strategic-merge patch only for who may write it: the rest is judged."""
    await lab.deploy("chat", 4, container=FINE, revisionHistoryLimit=0, strategy=CALM)
    protect(lab, "chat", maxUnavailable=1)
    lab.grant(writes=False)
    rights = {"KUBECONFIG": str(lab.stack.kubeconfig_for("segue-worker"))}
    file = shell.spec("chat", change={"patch": {"spec": {"containers": [{"name": "server", "image": "new"}]}}})

    async def checks() -> Any:
        found = await linted(shell, file, fails=True, **rights)
        not_checked = [u for u in found["unasked"] if u["rule"] == "image-not-immutable"]
        return (found["findings"], not_checked) if not_checked else None

    findings, not_checked = await until("the right is gone", checks)
    assert [f["rule"] for f in findings] == ["revision-history-too-low"]
    assert 'cannot patch resource "deployments"' in not_checked[0]["why"]


async def test_a_rollout_under_way_is_no_finding(lab: Lab, shell: Shell) -> None:
    """What a rollout writes to hold its target is not held against the target."""
    protected: dict[str, Any] = {"container": FINE, "strategy": CALM}
    await lab.deploy("chat", 3, **protected)
    protect(lab, "chat", maxUnavailable=1)
    await lab.worker().serves()
    strategy = {"maxSurge": 0, "maxUnavailable": 2, "waypoints": [{"at": 1, "approval": True}]}
    run = await lab.start("chat", {"images": {"server": f"example/chat:2@sha256:{'1' * 64}"}}, strategy=strategy)
    await run.until("it asks", lambda s: s.phase == "AwaitingApproval")
    assert lab.deployment("chat").spec.strategy.rolling_update.max_unavailable != 0
    assert (await linted(shell, f"{lab.namespace}/chat", fails=False))["findings"] == []
    await run.send("abort")
    assert (await run.end()).status.outcome == "Aborted"
