"""Each rule: what trips it, what does not, and that the change it names mends it."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from activities.capacity import Sums, taken_by
from activities.levers.judging import judged_deployment, judged_groups, judged_resource, judged_set
from activities.levers.numbered.leaderworkerset import NAME as LWS_NAME
from activities.levers.template import apply_change
from activities.linting import Around, facts_of, refuse_ports
from segue.errors import Refused
from segue.lint import RULES, lint
from segue.lint.facts import NEEDS
from segue.lint.findings import Finding, How, Linted, Mend
from segue.lint.start import refuse_errors
from segue.lint.target import LintSubject
from segue.merging import merged, merged_by_name
from segue.spec import Change, Rollout, read_rollout
from segue.spec.lint_rule import LintRule

Object = dict[str, Any]

DIGEST = "sha256:" + "0123456789abcdef" * 4
GOOD: Object = {
    "name": "server",
    "image": f"example/chat:1@{DIGEST}",
    "ports": [{"name": "http", "containerPort": 8080}],
    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}},
}
LIVENESS = {"httpGet": {"path": "/v2/health/live", "port": "http"}}


@dataclass
class World:
    """A target without findings, unless given otherwise, and what stands around it."""

    target: Object
    rollout: Object | None = None
    around: dict[str, list[Object]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def facts(self) -> Any:
        rollout = read_rollout(self.rollout) if self.rollout else None
        around, sums = dict(self.around), Sums()
        sums.replace_nodes(around.pop("nodes", []))
        sums.replace_pods([taken_by(pod) for pod in around.pop("all_pods", [])])
        return facts_of(judged(self.target, rollout), rollout, Around(**around), self.unknown, sums.nodes())

    def lint(self, *accepted: str) -> Linted:
        return lint(self.facts(), accepted)

    def found(self, rule: str) -> list[Finding]:
        return [finding for finding in self.lint().findings if finding.rule == rule]

    def mend(self, mend: Mend) -> None:
        """Do what a finding says, as a person would."""
        lists = {
            "PodDisruptionBudget": "budgets", "HorizontalPodAutoscaler": "autoscalers", "ResourceQuota": "quotas",
        }  # fmt: skip
        if mend.how is How.SPEC:
            self.rollout = merged_by_name(self.rollout, mend.body)
        elif mend.how is How.CREATE and mend.object.kind == "Deployment":
            named = [each["metadata"]["name"] for each in self.around["deployments"]]
            if mend.object.name in named:
                self.around["deployments"][named.index(mend.object.name)] = mend.body
            else:
                self.target = {**mend.body, "kind": self.target["kind"]}
        elif mend.how is How.CREATE:
            self.around.setdefault("budgets", []).append(mend.body)
        elif mend.object.kind == self.target["kind"]:
            apply = merged_by_name if mend.how is How.PATCH else merged
            self.target = apply(self.target, mend.body)
        else:
            items = self.around[lists[mend.object.kind]]
            items[:] = [merged_by_name(i, mend.body) if i["metadata"]["name"] == mend.object.name else i for i in items]
            for each in items if mend.object.kind == "ResourceQuota" else ():
                each["status"] = {**each["status"], "hard": each["spec"]["hard"]}  # as its controller does


def judged(target: Object, rollout: Rollout | None) -> LintSubject:
    """What the lever of its kind makes of it; the API server's part in it is done here."""
    change = rollout.spec.change if rollout else Change()
    spec = target["spec"]
    match target["kind"]:
        case "Deployment":
            wanted = changed(spec["template"], change)
            return judged_deployment(target, wanted, spec["template"], replicas=spec["replicas"])
        case "StatefulSet":
            return judged_set(target, changed(spec["template"], change))
        case "LeaderWorkerSet":
            groups = spec["leaderWorkerTemplate"]
            made = merged(groups, change.patch) if change.patch else {
                name: apply_change(each, change, "") if isinstance(each, dict) else each
                for name, each in groups.items()
            }  # fmt: skip
            return judged_groups(target, {"spec": made}, LWS_NAME)
    raise AssertionError(target["kind"])


def changed(template: Object, change: Change) -> Object:
    found: Object = merged_by_name(template, change.patch) if change.patch else apply_change(template, change, "")
    return found


def world(replicas: int = 4, *, pod: Object | None = None, spec: Object | None = None, rollout: Object | None = None,
          unknown: dict[str, str] | None = None, bare: bool = False, **around: list[Object]) -> World:  # fmt: skip
    """``bare``: without a disruption budget."""
    labels = {"app": "chat"}
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": "serving"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": pod or {"containers": [copy.deepcopy(GOOD)]}},
            **(spec or {}),
        },
    }
    budgets = [] if bare else [budget(maxUnavailable=1)]
    nodes = [node("a", **EIGHT)]
    return World(deployment, rollout, {"budgets": budgets, "nodes": nodes, **around}, unknown or {})


def server(**fields: Any) -> Object:
    """A pod of one container; what is None is left out."""
    return {"containers": [{k: v for k, v in {**GOOD, **fields}.items() if v is not None}]}


def rollout(**spec: Any) -> Object:
    target = {"namespace": "serving", "name": "chat"}
    change = {"images": {"server": f"example/chat:2@{DIGEST}"}}
    return {
        "apiVersion": "segue.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "chat"},
        "spec": {"target": target, "change": change, **spec},
    }


CLAIMING = {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}]}
TO_HIGH = {"patch": {"spec": {"priorityClassName": "high"}}}
PRIORITIES = [
    {"metadata": {"name": "low"}, "value": 100},
    {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "PreemptLowerPriority"},
    {"metadata": {"name": "polite"}, "value": 1000, "preemptionPolicy": "Never"},
]


def claim(*modes: str) -> Object:
    return {"metadata": {"name": "models", "namespace": "serving"}, "spec": {"accessModes": list(modes)}}


def budget(name: str = "chat", labels: Object | None = None, **spec: Any) -> Object:
    selector = {"matchLabels": labels or {"app": "chat"}}
    return {"metadata": {"name": name, "namespace": "serving"}, "spec": {"selector": selector, **spec}}


def another(selector: Object, labels: Object, name: str = "other") -> Object:
    """Another Deployment of the namespace."""
    template = {"metadata": {"labels": labels}, "spec": {}}
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "serving"},
        "spec": {"selector": {"matchLabels": selector}, "template": template},
    }


APART = {"app": "chat", "track": "canary"}


def autoscaler(low: int | None, high: int, aim: str = "chat") -> Object:
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": aim}, "maxReplicas": high}
    return {
        "metadata": {"name": "chat", "namespace": "serving"},
        "spec": spec if low is None else {**spec, "minReplicas": low},
    }


def node(name: str, *, labels: Object | None = None, taints: list[Object] | None = None, **allocatable: str) -> Object:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": taints or []},
        "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110", **allocatable}},
    }


def running(on: str, **requests: str) -> Object:
    spec = {"nodeName": on, "containers": [{"name": "c", "resources": {"requests": requests}}]}
    return {"metadata": {"uid": f"{on} {requests}"}, "spec": spec}


def quota(hard: Object, used: Object | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": "team"},
        "spec": {"hard": hard, **spec},
        "status": {"hard": hard, "used": used or {}},
    }


OF_HIGH = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
GPU = {"resources": {"limits": {"nvidia.com/gpu": "4"}, "requests": {"cpu": "1500m", "memory": "1Gi"}}}
FULL = [running("a", **{"nvidia.com/gpu": "6"})]
EIGHT: dict[str, Any] = {"nvidia.com/gpu": "8"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
BARE_HOOK = {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}}}
TIGHT = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}, "type": "RollingUpdate"}
ONE_AWAY = {"strategy": {"maxSurge": 0, "maxUnavailable": 1}}
PATCHES = {"change": {"patch": {"spec": {"containers": [{"name": "server", "image": "example/chat:2"}]}}}}
SLOW = {"startupProbe": {**LIVENESS, "periodSeconds": 10, "failureThreshold": 90}}

TRIPS: dict[str, tuple[str, str, World]] = {
    "no tag": ("image-not-immutable", "error", world(pod=server(image="registry:5000/example/chat"))),
    "latest": ("image-not-immutable", "error", world(pod=server(image="example/chat:latest"))),
    "a tag": ("image-not-immutable", "info", world(pod=server(image="example/chat:1.2"))),
    "an init container": (
        "image-not-immutable", "error", world(pod={**server(), "initContainers": [{"name": "a", "image": "loader"}]}),
    ),
    "an image of the spec": (
        "image-not-immutable", "info", world(rollout=rollout(change={"images": {"server": "example/chat:2"}})),
    ),
    "an image of the spec's patch": ("image-not-immutable", "info", world(rollout=rollout(**PATCHES))),
    "no readiness": ("no-readiness-probe", "error", world(pod=server(readinessProbe=None))),
    "no readiness, no port": ("no-readiness-probe", "error", world(pod=server(readinessProbe=None, ports=None))),
    "an open port": (
        "readiness-cannot-tell-a-loaded-model", "warning",
        world(pod=server(readinessProbe={"tcpSocket": {"port": 80}})),
    ),
    "liveness as readiness": (
        "readiness-cannot-tell-a-loaded-model", "warning", world(pod=server(readinessProbe=LIVENESS)),
    ),
    "MLServer's health as readiness": (
        "readiness-cannot-tell-a-loaded-model", "warning", world(pod=server(image="example/mlserver:1")),
    ),
    "SGLang's models as readiness": (
        "readiness-cannot-tell-a-loaded-model", "warning",
        world(pod=server(
            image=f"example/sglang:1@{DIGEST}", readinessProbe={"httpGet": {"path": "/v1/models", "port": 80}},
        )),
    ),
    "the root as readiness": (
        "readiness-cannot-tell-a-loaded-model", "warning", world(pod=server(readinessProbe={"httpGet": {"port": 80}})),
    ),
    "one of two away": ("unavailable-on-few-replicas", "warning", world(2, spec={"strategy": TIGHT})),
    "one of two away by the spec": ("unavailable-on-few-replicas", "warning", world(2, rollout=rollout(**ONE_AWAY))),
    "one of one away": ("unavailable-on-few-replicas", "error", world(1, spec={"strategy": TIGHT})),
    "recreated": ("unavailable-on-few-replicas", "error", world(8, spec={"strategy": {"type": "Recreate"}})),
    "no hook": ("stops-with-loss", "warning", world(pod=server(lifecycle=None))),
    "a short hook": ("stops-with-loss", "warning", world(pod=server(**BARE_HOOK))),
    "a hook over the grace": (
        "stops-with-loss", "warning", world(pod={**server(), "terminationGracePeriodSeconds": 5}),
    ),
    "a drain over the grace": ("stops-with-loss", "warning", world(rollout=rollout(drain={"timeout": "2m"}))),
    "no hook, with a patch": (
        "stops-with-loss", "warning", world(pod=server(lifecycle=None), rollout=rollout(**PATCHES)),
    ),
    "no history": ("revision-history-too-low", "error", world(spec={"revisionHistoryLimit": 0})),
    "a history of one": ("revision-history-too-low", "warning", world(spec={"revisionHistoryLimit": 1})),
    "no budget": ("no-disruption-budget", "warning", world(bare=True)),
    "another's budget": (
        "no-disruption-budget", "warning", world(budgets=[budget(labels={"app": "other"}, maxUnavailable=1)]),
    ),
    "all must be there": ("blocking-disruption-budget", "error", world(budgets=[budget(minAvailable=4)])),
    "two budgets": (
        "blocking-disruption-budget", "warning",
        world(budgets=[budget(maxUnavailable=1), budget("all", maxUnavailable=1)]),
    ),
    "100%": ("blocking-disruption-budget", "error", world(budgets=[budget(minAvailable="100%")])),
    "none may go": ("blocking-disruption-budget", "error", world(budgets=[budget(maxUnavailable=0)])),
    "0%": ("blocking-disruption-budget", "error", world(1, budgets=[budget(maxUnavailable="0%")])),
    "a deadline of the target": (
        "deadline-shorter-than-load", "warning", world(pod=server(**SLOW)),
    ),
    "a deadline of the spec": (
        "deadline-shorter-than-load", "warning", world(pod=server(**SLOW), rollout=rollout()),
    ),
    "a delay of readiness": (
        "deadline-shorter-than-load", "warning",
        world(pod=server(readinessProbe={**GOOD["readinessProbe"], "initialDelaySeconds": 120}),
              rollout=rollout(readiness={"deadline": "1m"})),
    ),
    "killed while it loads": ("slow-load-without-startup-probe", "warning", world(pod=server(livenessProbe=LIVENESS))),
    "wants more": ("autoscaler-fights", "warning", world(autoscalers=[autoscaler(6, 10)])),
    "wants less": ("autoscaler-fights", "warning", world(autoscalers=[autoscaler(None, 3)])),
    "can do nothing": ("autoscaler-fights", "warning", world(autoscalers=[autoscaler(4, 4)])),
    "another selects its pods": (
        "overlapping-selectors", "warning", world(deployments=[another({}, {"app": "other"})]),
    ),
    "it selects another's pods": ("overlapping-selectors", "warning", world(deployments=[another(APART, APART)])),
    "no room on nodes": ("surge-does-not-fit", "warning", world(pod=server(**GPU), all_pods=FULL)),
    "room for some": (
        "surge-does-not-fit", "warning",
        world(8, pod=server(**GPU), spec={"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 0}}}),
    ),
    "room for some, by the spec": (
        "surge-does-not-fit", "warning", world(8, pod=server(**GPU), rollout=rollout(strategy={"maxSurge": 3})),
    ),
    "no room, by the spec": (
        "surge-does-not-fit", "warning", world(8, pod=server(**GPU), all_pods=FULL, rollout=rollout()),
    ),
    "a taint": (
        "surge-does-not-fit", "warning",
        world(pod=server(**GPU), nodes=[node("a", taints=[TAINT], **EIGHT)]),
    ),
    "another node": ("surge-does-not-fit", "warning", world(pod={**server(), "nodeSelector": {"gpu": "h100"}})),
    "no place for pods": ("surge-does-not-fit", "warning", world(nodes=[node("a", pods="0")])),
    "a quota": (
        "surge-does-not-fit", "warning",
        world(pod=server(**GPU), quotas=[quota({"requests.nvidia.com/gpu": "16"}, {"requests.nvidia.com/gpu": "16"})]),
    ),
    "a quota of pods": ("surge-does-not-fit", "warning", world(quotas=[quota({"pods": "4"}, {"pods": "4"})])),
    "a quota of memory": ("surge-does-not-fit", "warning", world(pod=server(**GPU), quotas=[quota({"memory": "1Mi"})])),
    "more than a quota ever allows": (
        "exceeds-quota", "error", world(pod=server(**GPU), quotas=[quota({"requests.nvidia.com/gpu": "0"})]),
    ),
    "more memory than a quota ever allows": (
        "exceeds-quota", "error", world(pod=server(**GPU), rollout=rollout(), quotas=[quota({"memory": "1Mi"})]),
    ),
    "more than a quota of its class ever allows": (
        "exceeds-quota", "error",
        world(pod={**server(**GPU), "priorityClassName": "high"}, rollout=rollout(), quotas=[quota(
            {"memory": "1Mi"}, scopes=["NotBestEffort"], scopeSelector={"matchExpressions": [OF_HIGH]}
        )]),
    ),
    "a higher priority": (
        "preempts-old-replicas", "error",
        world(pod={**server(), "priorityClassName": "low"}, rollout=rollout(change=TO_HIGH), priorities=PRIORITIES,
              unknown={NEEDS.nodes: "no"}),
    ),
    "a volume of one node": (
        "volume-cannot-be-shared", "warning",
        world(pod={**server(), **CLAIMING}, claims=[claim("ReadWriteOnce")]),
    ),
    "a volume of one pod, by the spec": (
        "volume-cannot-be-shared", "warning",
        world(pod={**server(), **CLAIMING}, claims=[claim("ReadWriteOncePod")], rollout=rollout()),
    ),
}  # fmt: skip


KINDS = ("Deployment", "StatefulSet", "LeaderWorkerSet")
NOT_FOR = {
    "StatefulSet": {
        "recreated", "one of two away by the spec", "no room on nodes", "room for some", "room for some, by the spec",
        "no room, by the spec", "a taint", "another node", "no place for pods", "a quota", "a quota of pods",
        "a quota of memory", "a deadline of the target", "a higher priority", "a volume of one node",
        "a volume of one pod, by the spec", "it selects another's pods",
    },
    "LeaderWorkerSet": {
        "recreated", "no history", "a history of one", "a deadline of the target", "it selects another's pods",
    },
}  # fmt: skip
"""What the other kinds do not have: no surge, no history, no deadline of their own."""


def of_kind(kind: str, was: World) -> World:
    """The same in the world of another kind of target, as its controllers have it."""
    made = copy.deepcopy(was)
    if kind == "Deployment":
        return made
    spec = made.target["spec"]
    rolling = spec.pop("strategy").get("rollingUpdate", {})
    away = {"maxUnavailable": rolling.get("maxUnavailable", 0)}
    if kind == "StatefulSet":
        spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": away}
    else:
        leader = spec.pop("template")
        placed = {name: leader["spec"][name] for name in ("nodeSelector", "tolerations") if name in leader["spec"]}
        worker = {"spec": {**placed, "containers": [{"name": "server", "image": GOOD["image"]}]}}
        budget = {"rollingUpdateConfiguration": {"maxSurge": rolling.get("maxSurge", 0), **away}}
        groups = {"size": 2, "leaderTemplate": leader, "workerTemplate": worker}
        spec |= {"rolloutStrategy": {"type": "RollingUpdate", **budget}, "leaderWorkerTemplate": groups}
    made.target["kind"] = kind
    for each in made.around.get("autoscalers", []):
        each["spec"]["scaleTargetRef"]["kind"] = kind
    if made.rollout is not None:
        made.rollout["spec"]["target"]["kind"] = kind
        patch = made.rollout["spec"]["change"].get("patch")
        if patch and kind == "LeaderWorkerSet":
            whole = merged_by_name(made.target["spec"]["leaderWorkerTemplate"]["leaderTemplate"], patch)
            made.rollout["spec"]["change"]["patch"] = {"leaderTemplate": whole}
    return made


TRIPPED = [(kind, case) for kind in KINDS for case in TRIPS if case not in NOT_FOR.get(kind, ())]


@pytest.mark.parametrize(("kind", "case"), TRIPPED)
def test_it_is_found_and_mended(kind: str, case: str) -> None:
    rule, severity, given = TRIPS[case]
    bad = of_kind(kind, given)
    (finding,) = bad.found(rule)
    assert finding.severity == severity
    assert finding.found and finding.why and finding.field.startswith("spec")
    before = {f.rule for f in bad.lint().findings}
    bad.mend(finding.mend)
    assert bad.found(rule) == []
    after = {f.rule for f in bad.lint().findings}
    # What makes room takes from what is ready: a person has to weigh that, so the finding says it.
    assert after <= before | ({"unavailable-on-few-replicas"} if rule == "surge-does-not-fit" else set())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_a_kind_does_not_have_is_not_found(kind: str) -> None:
    for case in NOT_FOR[kind] - {"one of two away by the spec", "room for some, by the spec", "recreated"}:
        rule, _, given = TRIPS[case]
        assert of_kind(kind, given).found(rule) == [], case


def test_the_fix_of_a_controlled_autoscaler_is_made_at_its_controller() -> None:
    """That object would restore the bounds."""
    scaler = autoscaler(6, 10)
    scaler["metadata"]["ownerReferences"] = [{"kind": "ScaledObject", "name": "chat", "controller": True}]
    (finding,) = world(autoscalers=[scaler]).found("autoscaler-fights")
    assert finding.mend.note == "ScaledObject chat controls it: change the bounds there"


def owned(kind: str, *, rollout: Object | None = None, controller: bool = True) -> World:
    made = world(rollout=rollout)
    owner = {"apiVersion": "example.org/v1", "kind": kind, "name": "llm", "uid": "1", "controller": controller}
    made.target["metadata"]["ownerReferences"] = [owner]
    return made


@pytest.mark.parametrize(
    ("kind", "target", "note"),
    [
        ("InferenceService", {"kind": "Supervised", "resource": "InferenceService", "name": "llm"}, ""),
        ("LeaderWorkerSet", {"kind": "LeaderWorkerSet", "name": "llm"}, ""),
        (
            "NIMService", {"kind": "Supervised", "resource": "NIMService", "name": "llm"},
            "first describe NIMService to Segue: see docs/targets/supervised.md",
        ),
    ],
)  # fmt: skip
def test_a_target_of_an_operator_is_rolled_by_the_operators_object(kind: str, target: Object, note: str) -> None:
    (finding,) = owned(kind, rollout=rollout()).found("controlled-by-another-object")
    assert (finding.severity, finding.found) == ("error", f"{kind} llm controls it")
    assert (finding.mend.how, finding.mend.body, finding.mend.note) == (How.SPEC, {"spec": {"target": target}}, note)


def test_without_a_spec_its_operators_object_is_named() -> None:
    (finding,) = owned("InferenceService").found("controlled-by-another-object")
    assert str(finding.mend.object) == "InferenceService serving/llm" and finding.mend.body == {}
    with pytest.raises(Refused, match=r"patch InferenceService serving/llm \(change the version there"):
        refuse_errors(owned("InferenceService").lint())


def test_an_owner_that_does_not_control_it_is_no_hindrance() -> None:
    assert owned("Application", controller=False).found("controlled-by-another-object") == []


def test_each_side_of_a_pair_is_checked_for_a_controller() -> None:
    spec = rollout()
    spec["spec"]["target"] = {"kind": "DeploymentPair", "namespace": "serving", "old": "old", "new": "chat"}
    made = owned("Canary", rollout=spec)
    other = another({"app": "old"}, {"app": "old"}, name="old")
    other["metadata"]["ownerReferences"] = [{"kind": "InferenceService", "name": "first", "controller": True}]
    made.around["deployments"] = [other]
    found = {str(f.object): f.found for f in made.found("controlled-by-another-object")}
    assert found == {
        "Deployment serving/chat": "Canary llm controls it",
        "Deployment serving/old": "InferenceService first controls it",
    }


PASSES: dict[str, World] = {
    "itself": world(deployments=[another({"app": "chat"}, {"app": "chat"}, name="chat")]),
    "another that is apart": world(deployments=[another({"app": "other"}, {"app": "other"})]),
    "a pair's new side": world(
        deployments=[another({**APART, "segue.dev/deployment": "n"}, {**APART, "segue.dev/deployment": "n"})]
    ),
    "as it should be": world(),
    "one replica": world(1, bare=True),
    "no replicas": world(0, autoscalers=[autoscaler(1, 3)]),
    "one of four away": world(4, spec={"strategy": TIGHT}),
    "with a spec": world(rollout=rollout()),
    "a sidecar that does not serve": world(
        pod={"containers": [GOOD, {"name": "logs", "image": f"example/logs@{DIGEST}"}]}
    ),
    "another handler": world(pod=server(readinessProbe={"grpc": {"port": 80}})),
    "slow, and allowed to be": world(pod=server(**SLOW), spec={"progressDeadlineSeconds": 900}),
    "slow liveness": world(pod=server(livenessProbe={**LIVENESS, "initialDelaySeconds": 30})),
    "liveness after startup": world(
        pod=server(livenessProbe=LIVENESS, startupProbe={**LIVENESS, "failureThreshold": 30})
    ),
    "one may go": world(budgets=[budget(minAvailable=3)]),
    "a share rounded up": world(budgets=[budget(maxUnavailable="1%")]),
    "a budget of all": world(budgets=[{**budget(minAvailable=4), "status": {"expectedPods": 9}}]),
    "another's autoscaler": world(autoscalers=[autoscaler(6, 6, aim="other")]),
    "an autoscaler": world(autoscalers=[autoscaler(2, 8)]),
    "room": world(pod=server(**GPU), all_pods=[running("a", **{"nvidia.com/gpu": "4"})]),
    "a taint that is tolerated": world(
        pod={**server(**GPU), "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
        nodes=[node("a", taints=[TAINT], **EIGHT)],
    ),
    "a taint that admission lets its pods tolerate": world(
        pod=server(**GPU),
        nodes=[node("a", taints=[TAINT], **EIGHT)],
        own_pods=[{"spec": {"tolerations": [TOLERATION]}}, {"spec": {"tolerations": [TOLERATION]}}, {"spec": {}}],
    ),
    "a taint that only discourages": world(nodes=[node("a", taints=[{**TAINT, "effect": "PreferNoSchedule"}])]),
    "the right node": world(
        pod={**server(), "nodeSelector": {"gpu": "h100"}}, nodes=[node("a"), node("b", labels={"gpu": "h100"})]
    ),
    "a quota of others": world(quotas=[quota({"pods": "0"}, scopes=["Terminating"])]),
    "a quota of another class": world(
        pod={**server(**GPU), "priorityClassName": "low"},
        quotas=[quota({"memory": "1Mi"}, scopeSelector={"matchExpressions": [OF_HIGH]})],
    ),
    "a quota of something else": world(quotas=[quota({"requests.nvidia.com/gpu": "0", "count/jobs.batch": "0"})]),
    "no surge": world(nodes=[], rollout=rollout(strategy={"maxSurge": 0, "maxUnavailable": 1})),
}


PASSED = [(kind, case) for kind in KINDS for case in PASSES if (kind, case) != ("StatefulSet", "one replica")]
"""The one replica of a StatefulSet is away in any case."""


@pytest.mark.parametrize(("kind", "case"), PASSED)
def test_nothing_is_found(kind: str, case: str) -> None:
    assert [f"{f.rule}: {f.found}" for f in of_kind(kind, PASSES[case]).lint().findings] == []


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("vllm/vllm-openai", "/health"),
        ("lmsysorg/sglang", "/health"),
        ("ghcr.io/ggml-org/llama.cpp", "/health"),
        ("seldonio/mlserver", "/v2/models/MODEL/ready"),
        ("example/chat", "/v2/health/ready"),
    ],
)
def test_the_path_of_a_readiness_probe_fits_the_server(image: str, path: str) -> None:
    """A path that the server does not have would keep each replica from being ready."""
    (finding,) = world(pod=server(image=f"{image}:1@{DIGEST}", readinessProbe=None)).found("no-readiness-probe")
    (container,) = finding.mend.body["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == path


def test_the_tolerations_that_every_pod_gets_do_not_count() -> None:
    defaults = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in ("not-ready", "unreachable")
    ]
    (pods,) = world(own_pods=[{"spec": {"tolerations": [*defaults, TOLERATION]}}]).facts().pods
    assert pods.demand.tolerations == (TOLERATION,)


def test_a_toleration_that_a_change_removes_is_missing() -> None:
    """The running pods have it from their template, and not from admission."""
    given = world(
        pod={**server(**GPU), "tolerations": [TOLERATION]},
        nodes=[node("a", taints=[TAINT], **EIGHT)],
        own_pods=[{"spec": {"tolerations": [TOLERATION]}}],
        rollout=rollout(change={"patch": {"spec": {"tolerations": None}}}),
    )
    assert [each.rule for each in given.found("surge-does-not-fit")] == ["surge-does-not-fit"]


def test_a_worker_is_judged_by_what_it_serves() -> None:
    """A worker that opens no port is behind its leader: only its image counts. One that does is judged like any."""
    given = of_kind("LeaderWorkerSet", world())
    worker = given.target["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]
    worker |= {"image": "example/worker", "livenessProbe": LIVENESS}
    (finding,) = given.lint().findings
    assert (finding.rule, finding.field) == (
        "image-not-immutable", "spec.leaderWorkerTemplate.workerTemplate.spec.containers[server].image",
    )  # fmt: skip
    worker["ports"] = [{"containerPort": 80}]
    found = [f for f in given.lint().findings if f.rule != "image-not-immutable"]
    assert {f.rule for f in found} == {"no-readiness-probe", "slow-load-without-startup-probe"}
    mend = found[0].mend
    (mended,) = mend.body["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"]
    assert mend.how is How.MERGE and mended.keys() >= worker.keys(), "a merge patch has the whole list"
    assert mend.note.endswith("it replaces whole lists: lint again before the next fix")


def test_a_group_finds_room_on_several_nodes() -> None:
    """Its pods need not stand on one node; what all of them ask for together is counted."""
    gpus: dict[str, Any] = {"nvidia.com/gpu": "4"}
    given = of_kind("LeaderWorkerSet", world(pod=server(**GPU), nodes=[node("a", **gpus), node("b", **gpus)]))
    groups = given.target["spec"]["leaderWorkerTemplate"]
    groups["workerTemplate"]["spec"]["containers"][0] |= GPU
    assert given.facts().room.more == 1
    groups["size"] = 3
    assert given.facts().room.more == 0
    (finding,) = given.found("surge-does-not-fit")
    assert "each is a group of 3 pods; " in finding.found


def test_one_replica_under_its_own_number_is_always_away() -> None:
    """A StatefulSet of one: nothing serves meanwhile; the mend is more replicas."""
    given = of_kind("StatefulSet", world(1, bare=True, spec={"strategy": TIGHT}, rollout=rollout()))
    (finding,) = given.found("unavailable-on-few-replicas")
    assert finding.severity == "error" and finding.mend.body == {"spec": {"replicas": 4}}
    assert "under its own number" in finding.mend.note


def test_a_resource_of_an_operator_is_judged_by_what_it_says() -> None:
    """Its images, and budgets around its pods; what its operator adds is not known, so probes are not required."""
    spec = {"predictor": {"minReplicas": 2, "containers": [{"name": "server", "image": "example/chat"}]}}
    found = {"kind": "InferenceService", "metadata": {"name": "chat", "namespace": "serving"}, "spec": spec}
    labels = {"serving.kserve.io/inferenceservice": "chat"}

    def linted(found: Object, *budgets: Object) -> Any:
        version = ("spec", "predictor")
        lists, selector = [("containers",), ("model",)], {"matchLabels": labels}
        judged = judged_resource(
            found, found["spec"]["predictor"], version, lists, replicas=2, labels=labels, selector=selector
        )
        return lint(facts_of(judged, None, Around(budgets=budgets), {})).findings

    image, budgets = linted(found)
    assert (image.rule, image.field) == ("image-not-immutable", "spec.predictor.containers[server].image")
    assert budgets.rule == "no-disruption-budget" and budgets.mend.body["spec"]["selector"] == {"matchLabels": labels}
    rules = [f.rule for f in linted(found, budget(labels=labels, maxUnavailable=0))]
    assert rules == ["image-not-immutable", "blocking-disruption-budget"]
    mended = merged(found, image.mend.body)
    assert [f.rule for f in linted(mended, budget(labels=labels, maxUnavailable=1))] == []


def test_every_rule_is_tripped() -> None:
    by_its_own_tests = {LintRule.CONTROLLED_BY_ANOTHER}  # its fix is another target
    assert {rule for rule, _, _ in TRIPS.values()} | by_its_own_tests == {rule.name for rule in RULES}


def test_every_rule_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs/lint.md").read_text()
    assert [rule.name for rule in RULES if f"| `{rule.name}` |" not in page] == []


def test_the_digest_is_that_of_what_runs() -> None:
    image = "example/chat:1.2"
    pods = [
        {"spec": server(image=image), "status": {"containerStatuses": [{"name": "server", "imageID": f"x@{digest}"}]}}
        for digest in (DIGEST, DIGEST)
    ]
    (finding,) = world(pod=server(image=image), own_pods=pods).found("image-not-immutable")
    assert finding.mend.body["spec"]["template"]["spec"]["containers"][0]["image"] == f"{image}@{DIGEST}"
    assert finding.mend.note == ""
    pods[1]["status"]["containerStatuses"][0]["imageID"] = f"x@{DIGEST.replace('01', 'ff')}"
    (finding,) = world(pod=server(image=image), own_pods=pods).found("image-not-immutable")
    assert "crane digest example/chat:1.2" in finding.mend.note


def test_a_pod_asks_for_what_the_scheduler_counts() -> None:
    """Sidecars stay, other init containers go before the rest comes, and a limit alone is a request."""
    pod = {
        "initContainers": [
            {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
            {"name": "load", "resources": {"requests": {"cpu": "3", "memory": "1Gi"}}},
        ],
        "containers": [{**GOOD, "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "2"}}}],
        "overhead": {"cpu": "100m"},
    }
    requests = world(pod=pod).facts().pods[0].demand.requests
    assert {name: float(amount) for name, amount in requests.items()} == {
        "cpu": 3.6, "memory": 2.0**30, "nvidia.com/gpu": 2.0,
    }  # fmt: skip


def test_what_cannot_be_read_is_said() -> None:
    """A rule that cannot be checked finds nothing, and says why; one that can be checked in part is."""
    seen = world(bare=True, quotas=[quota({"pods": "0"})], unknown={NEEDS.budgets: "forbidden", NEEDS.nodes: "also"})
    found = seen.lint()
    assert {f.rule for f in found.findings} == {"surge-does-not-fit"}
    assert [(u.rule, u.why) for u in found.unasked] == [
        ("no-disruption-budget", "forbidden"), ("blocking-disruption-budget", "forbidden"),
        ("surge-does-not-fit", "also"),
    ]  # fmt: skip


def test_accepted_errors_do_not_fail() -> None:
    bad = world(spec={"revisionHistoryLimit": 0})
    assert bad.lint().fails and not bad.lint("revision-history-too-low").fails
    assert not world(bare=True).lint().fails


@pytest.mark.parametrize(
    ("old", "new", "known", "severity"),
    [
        pytest.param("low", "high", PRIORITIES, "warning", id="held while nodes are counted"),
        pytest.param("low", "high", [], "warning", id="not known whether it is higher"),
        pytest.param("high", "low", PRIORITIES, None, id="lower"),
        pytest.param("low", "low", [], None, id="the same"),
        pytest.param(None, "high", PRIORITIES, "warning", id="where there was none"),
        pytest.param("low", None, PRIORITIES, None, id="none is below a positive one"),
        pytest.param("low", "polite", PRIORITIES, None, id="higher, and its class never preempts"),
    ],
)
def test_only_a_higher_priority_preempts(old: str | None, new: str | None, known: list[Object], severity: str) -> None:
    """A class whose value is not known may be higher; no class is 0, unless another one is the default."""
    pod = server() if old is None else {**server(), "priorityClassName": old}
    change = {"patch": {"spec": {"priorityClassName": new}}}
    unknown = {} if known else {NEEDS.priorities: "forbidden"}
    found = world(pod=pod, rollout=rollout(change=change), priorities=known, unknown=unknown).found(
        "preempts-old-replicas"
    )
    assert [f.severity for f in found] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("port", "refused"), [("http", False), ("sidecar", False), (9999, False), ("setup", True), ("nowhere", True)]
)
@pytest.mark.parametrize("asks", ["serving", "loadFailures"])
def test_a_checks_port_must_be_there(asks: str, port: int | str, refused: bool) -> None:
    """A name is one of a container that serves, or of a native sidecar; a number is taken as it is."""
    ports = [{"name": "sidecar", "containerPort": 8000}]
    others = [
        {"name": "proxy", "restartPolicy": "Always", "ports": ports},
        {"name": "init", "ports": [{"name": "setup"}]},
    ]
    given = {"checks": [{"http": {"path": "/health"}}]} if asks == "serving" else {"protocol": "openInference"}
    facts = world(
        pod={**server(), "initContainers": others}, rollout=rollout(**{asks: {**given, "port": port}})
    ).facts()
    if not refused:
        return refuse_ports(facts.rules, facts)
    with pytest.raises(Refused) as found:
        refuse_ports(facts.rules, facts)
    assert found.value.field == f"spec.{asks}.port" and "http, sidecar" in found.value.fix
    return None


def test_a_volume_that_is_shared_or_not_known_is_fine() -> None:
    """Modes for many nodes, a claim that is not there yet, and a rollout that adds nothing."""
    pod = {**server(), **CLAIMING}
    none = rollout(strategy={"maxSurge": 0, "maxUnavailable": 1})
    worlds = (
        world(pod=pod, claims=[claim("ReadWriteMany")]),
        world(pod=pod),
        world(pod=pod, claims=[claim("ReadWriteOnce")], rollout=none),
    )
    assert [each.found("volume-cannot-be-shared") for each in worlds] == [[], [], []]


def test_a_refusal_says_how_to_start_all_the_same() -> None:
    """All errors at once, the one command that accepts them, and what each then means."""
    bad = world(pod=server(image="example/chat:latest", readinessProbe=None))
    with pytest.raises(Refused) as refused:
        refuse_errors(bad.lint())
    first, second, command, *means, last = str(refused.value).splitlines()
    assert first.startswith("lint: ") and second.startswith("lint: ")
    both = "--accept image-not-immutable --accept no-readiness-probe"
    assert command == f"To start without the fixes: segue start FILE {both}"
    assert [line.partition(":")[0].strip() for line in means] == ["image-not-immutable", "no-readiness-probe"]
    assert last.startswith("The rollout then starts")
    refuse_errors(bad.lint("image-not-immutable", "no-readiness-probe"))


def test_making_room_and_keeping_replicas_are_weighed() -> None:
    """Where one more does not fit, the rule that asks for a surge says so."""
    (finding,) = world(2, spec={"strategy": TIGHT}, nodes=[]).found("unavailable-on-few-replicas")
    assert "does not fit now" in finding.mend.note
