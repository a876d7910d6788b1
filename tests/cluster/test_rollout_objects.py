"""Rollout objects on real servers: `segue controller` follows them, and their status tells what happens."""

import asyncio
import functools
import itertools
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import pytest
import yaml
from expiring import Expiring
from harness import ACCEPTED, ROOT, Lab, open_lab, until
from killing_controller import DIARY, POINT, Diary
from kubectl import Kubectl, shows
from kubernetes.client import ApiException, RbacAuthorizationV1Api
from people import API, Person, refusal
from segue_local import Stack
from segue_local.apply import apply
from shell import Shell
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from activities.cluster import Cluster
from activities.cluster_checks import check_cluster
from segue import contract, messages
from segue.clusters import Access
from segue.rollout_object import FINALIZER, guarding
from segue.rollout_object.crd import Definition, file_of
from segue.rollout_object.desired import desired_rollout
from segue.rollout_object.events import STEP
from segue.rollout_object.orders import GUARDED
from segue.spec import DeploymentTarget
from segue.spec.profile import ProfileName
from segue.spec.resolving import fields_of
from worker.controller.engine import Engine

LIMIT_S = 600.0
"""A controller starts in seconds, and in a minute if many processes share the machine."""
Object = dict[str, Any]


@pytest.fixture(scope="session")
def defined(stack: Stack) -> None:
    """The kinds of Segue, which the API server serves; they stay with the stack."""
    for name in Definition:
        apply(stack.kubeconfig, ROOT / file_of(name))


class Objects:
    """The Rollout objects of a lab's namespace, and the controllers that follow them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        for each in yaml.safe_load_all((ROOT / "deploy/rbac-controller.yaml").read_text()):
            kind = "role" if each["kind"] == "Role" else "role_binding"
            getattr(lab._rbac, f"create_namespaced_{kind}")(lab.namespace, each)
        self.controllers: list[Any] = []
        self.logs: list[Path] = []

    def controller(self, command: Sequence[str] = ("segue", "controller"), **env: str) -> Any:
        """Start a real controller, which has the published rights only; return its process."""
        log = self.lab.stack.state_dir / "logs" / f"controller-{self.lab.namespace}-{len(self.controllers)}.log"
        rights = {"KUBECONFIG": str(self.lab.stack.kubeconfig_for("segue-controller"))}
        place = {"SEGUE_CLUSTER": self.lab.namespace, "SEGUE_NAMESPACES": self.lab.namespace}
        environment = {**os.environ, **self.lab.worker_environment(env), **rights, **place}
        started = forked.start(self.lab.stack.mark, environment, log, forked.run_module, *command)
        self.controllers.append(started)
        self.logs.append(log)
        return started

    def body(self, name: str, change: Object | None = None, **spec: Any) -> Object:
        """Return an object that the API server's schema accepts, also if Segue refuses it."""
        given = {"images": {"server": "example/chat:2"}} if change is None else change
        return {
            "apiVersion": "/".join(API), "kind": "Rollout", "metadata": {"name": name},
            "spec": {
                "target": {"name": name}, "change": given, "readiness": {"minReady": "0s", "deadline": "1m"},
                "accept": ACCEPTED, **spec,
            },
        }  # fmt: skip

    def create(self, name: str, change: Object | None = None, **spec: Any) -> None:
        """Create an object."""
        self.lab.custom.create_namespaced_custom_object(
            *API, self.lab.namespace, "rollouts", self.body(name, change, **spec), field_validation="Strict"
        )

    def create_profile(self, name: str, **options: Any) -> None:
        """Create a RolloutProfile, by default one that stops at the first new replica."""
        spec = options.pop("spec", {"strategy": STOPS})
        body = {"apiVersion": "/".join(API), "kind": "RolloutProfile", "metadata": {"name": name}, "spec": spec}
        self.lab.custom.create_namespaced_custom_object(
            *API, self.lab.namespace, "rolloutprofiles", body, field_validation="Strict", **options
        )

    def get(self, name: str) -> Object:
        found: Any = self.lab.custom.get_namespaced_custom_object(*API, self.lab.namespace, "rollouts", name)
        return {**found}

    def patch(self, name: str, patch: Object) -> None:
        self.lab.custom.patch_namespaced_custom_object(*API, self.lab.namespace, "rollouts", name, patch)

    def delete(self, name: str) -> None:
        self.lab.custom.delete_namespaced_custom_object(*API, self.lab.namespace, "rollouts", name)

    def exists(self, name: str) -> bool:
        try:
            return bool(self.get(name))
        except ApiException as error:
            assert error.status == 404
            return False

    def conditions(self, name: str) -> dict[str, str]:
        """Return the status of each condition that is about the present generation."""
        found = self.get(name)
        generation = found["metadata"]["generation"]
        conditions = found.get("status", {}).get("conditions", [])
        return {each["type"]: each["status"] for each in conditions if each["observedGeneration"] == generation}

    async def becomes(self, name: str, kind: str) -> Object:
        """Wait until a condition is True for the present generation, as `kubectl wait` does; return the status."""
        await until(f"{name} to be {kind}", lambda: self.conditions(name).get(kind) == "True", LIMIT_S, poll_s=0.5)
        return self.get(name)["status"]  # type: ignore[no-any-return]

    async def says(self, name: str, kind: str, reason: str) -> Object:
        """Wait until a condition is True with this reason, and return it."""

        def look() -> Object | None:
            conditions = self.get(name).get("status", {}).get("conditions", [])
            found = [each for each in conditions if (each["type"], each["status"]) == (kind, "True")]
            return found[0] if found and found[0]["reason"] == reason else None

        return await until(f"{name} to be {kind} by {reason}", look, LIMIT_S, poll_s=0.5)  # type: ignore[no-any-return]

    async def reaches(self, name: str, phase: str) -> Object:
        def look() -> Object | None:
            found: Object = self.get(name).get("status", {})
            return found if found.get("phase") == phase else None

        return await until(f"{name} in phase {phase}", look, LIMIT_S, poll_s=0.5)  # type: ignore[no-any-return]

    def handle(self, name: str) -> WorkflowHandle[Any, Any]:
        target = DeploymentTarget(namespace=self.lab.namespace, name=name)
        return self.lab.temporal.get_workflow_handle(contract.workflow_id(self.lab.namespace, target))

    async def has_runs(self, name: str, wanted: list[WorkflowExecutionStatus]) -> None:
        """Wait until a target has had these workflows: Temporal lists what happened a moment later."""

        async def look() -> bool:
            return await self.runs(name) == wanted

        await until(f"{name} to have had {wanted}", look, LIMIT_S, poll_s=0.5)

    async def runs(self, name: str) -> list[WorkflowExecutionStatus | None]:
        """Return how each workflow of a target ended, the oldest first."""
        query = f'WorkflowId = "{self.handle(name).id}"'
        found = [each async for each in self.lab.temporal.list_workflows(query)]
        return [each.status for each in sorted(found, key=lambda each: each.start_time)]

    def images(self, name: str) -> list[str]:
        return [pod.spec.containers[0].image for pod in self.lab.pods(name)]

    def events(self, name: str, of: str = "Rollout") -> list[str]:
        found: list[Any] = self.lab.core.list_namespaced_event(self.lab.namespace).items
        about = [(each.involved_object.kind, each.involved_object.name, each.reason) for each in found]
        return [reason for kind, named, reason in about if (kind, named) == (of, name)]

    def close(self) -> None:
        for each in self.controllers:
            each.kill()
            each.join(timeout=10)
        found: Any = self.lab.custom.list_namespaced_custom_object(*API, self.lab.namespace, "rollouts")
        for each in found["items"]:
            if FINALIZER in each["metadata"].get("finalizers", []):
                self.patch(each["metadata"]["name"], {"metadata": {"finalizers": None}})


@pytest.fixture
def objects(served: Lab, defined: None) -> Any:
    found = Objects(served)
    try:
        yield found
    finally:
        found.close()


BAD = {"patch": {"metadata": {"labels": {"segue.dev/fake": "crash-loop"}}}}
STOPS = {"waypoints": [{"at": 1, "approval": True}]}
LONG = "--timeout=300s"
TOLD = ("Progressing", "AwaitingApproval", "Progressing", "Completed")
"""Phases that `kubectl get -w` shows, beside short ones."""


@pytest.mark.timeout(1200)
async def test_rollouts_follow_their_objects(objects: Objects) -> None:
    """A controller without Temporal tells so and loses nothing; then two of them roll everything, each thing once."""
    lab = objects.lab
    names = ("good", "bad", "edited", "deleted", "left", "same", "shared")
    await asyncio.gather(*(lab.deploy(name, 2) for name in names))
    alone = objects.controller(TEMPORAL_ADDRESS="127.0.0.1:1")
    objects.create("good")
    condition = await objects.says("good", "Reconciling", "Unreachable")
    assert "127.0.0.1:1" in condition["message"]
    assert (await objects.runs("good"), objects.conditions("good")["Accepted"]) == ([], "True")
    alone.kill()

    objects.create("bad", BAD)
    objects.create("invalid", strategy={"maxSurge": 0, "maxUnavailable": 0})
    objects.create("same", {"images": {"server": "example/chat:1"}})
    for name in ("edited", "deleted", "left"):
        objects.create(name, strategy=STOPS, onDelete="leave" if name == "left" else "abort")
    for name, image in SHARED.items():
        objects.create(name, {"images": {"server": image}}, target={"name": "shared"})
    objects.create("early")
    objects.controller()
    objects.controller()
    await asyncio.gather(
        _is_early(objects), _is_good(objects), _is_bad(objects), _is_invalid(objects), _is_edited(objects),
        _is_deleted(objects), _is_left(objects), _is_shared(objects), objects.becomes("same", "Ready"),
    )  # fmt: skip
    # A start that is repeated late, as by a controller that was frozen, is answered with the run that has ended.
    engine = Engine(lambda: asyncio.sleep(0, lab.temporal), lab.namespace, lab.task_queue)
    await asyncio.gather(
        *(engine.start(desired_rollout(objects.get(name), lab.namespace)) for name in ("good", "bad", "same"))
    )
    for name in ("good", "bad", "same"):
        latest = await objects.handle(name).describe()
        assert latest.run_id == objects.get(name)["status"]["runId"], name
    ended = WorkflowExecutionStatus.COMPLETED
    others = {
        "edited": [ended, ended],
        "same": [WorkflowExecutionStatus.FAILED],
        "shared": [ended] * 3,
    }
    await asyncio.gather(*(objects.has_runs(name, others.get(name, [ended])) for name in names))


async def _is_good(objects: Objects) -> None:
    status = await objects.becomes("good", "Ready")
    assert (status["phase"], status["outcome"], status["new"]) == (
        "Completed",
        "Completed",
        {"replicas": 2, "ready": 2},
    )
    assert (status["floor"], status["workflowId"].split("/")[-1]) == (2, "good")
    assert objects.conditions("good") == {
        "Accepted": "True", "Ready": "True", "Reconciling": "False", "Stalled": "False",
    }  # fmt: skip
    await until("no finalizer at rest", lambda: FINALIZER not in objects.get("good")["metadata"].get("finalizers", []))
    assert {"Preparing", "Completed"} & {*objects.events("good")} >= {"Completed"}
    phases = [each for each in objects.events("good") if each != STEP]
    assert len(phases) == len({*phases}), "two controllers make each event once"
    await until("events of the target", lambda: {STEP, "Completed"} <= {*objects.events("good", "Deployment")})
    uids = {
        each.involved_object.uid
        for each in objects.lab.core.list_namespaced_event(
            objects.lab.namespace, field_selector="involvedObject.kind=Deployment,involvedObject.name=good,source=segue"
        ).items
    }
    assert uids == {objects.lab.deployment("good").metadata.uid}, "`kubectl describe` finds them by the uid"


async def _is_bad(objects: Objects) -> None:
    status = await objects.becomes("bad", "Stalled")
    assert (status["phase"], status["new"]["replicas"]) == ("RolledBack", 0)
    assert "CrashLoop" in status["reason"]
    assert "RolledBack" in objects.events("bad")


async def _is_early(objects: Objects) -> None:
    """An object that is applied before its target starts once that exists, without any edit."""
    condition = await objects.says("early", "Stalled", "Refused")
    assert "not found" in condition["message"] and objects.conditions("early")["Accepted"] == "False"
    await objects.lab.deploy("early", 1)
    await objects.becomes("early", "Ready")
    assert objects.conditions("early")["Accepted"] == "True"


async def _is_invalid(objects: Objects) -> None:
    """The spec is refused with field, value and fix; nothing starts, until it is mended."""
    condition = await objects.says("invalid", "Stalled", "Invalid")
    assert condition["message"].startswith("spec.strategy") and "; " in condition["message"]
    assert objects.conditions("invalid")["Accepted"] == "False"
    assert await objects.runs("invalid") == []
    assert FINALIZER not in objects.get("invalid")["metadata"].get("finalizers", [])


async def _is_edited(objects: Objects) -> None:
    """An edit retargets the rollout under way, and pauses it; after its end, an edit starts the next one."""
    await objects.reaches("edited", "AwaitingApproval")
    image = {"images": {"server": "example/chat:3"}}
    objects.patch("edited", {"spec": {"change": image, "strategy": {"waypoints": None}, "paused": True}})
    await objects.reaches("edited", "Paused")
    objects.patch("edited", {"spec": {"paused": False}})
    await objects.becomes("edited", "Ready")
    assert len(objects.lab.pods("edited", "example/chat:3")) == 2
    await objects.has_runs("edited", [WorkflowExecutionStatus.COMPLETED])
    objects.patch("edited", {"spec": {"change": {"images": {"server": "example/chat:4"}}}})
    await objects.becomes("edited", "Ready")
    assert len(objects.lab.pods("edited", "example/chat:4")) == 2


async def _is_deleted(objects: Objects) -> None:
    """A deletion aborts; the object is gone once the target is back."""
    await objects.reaches("deleted", "AwaitingApproval")
    objects.delete("deleted")
    await until("the object to be gone", lambda: not objects.exists("deleted"), LIMIT_S)
    await until("only the old version", lambda: objects.images("deleted") == ["example/chat:1"] * 2)


async def _is_left(objects: Objects) -> None:
    """Its rollout goes on without it; whoever creates it again gets that rollout, with its own version."""
    await objects.reaches("left", "AwaitingApproval")
    objects.delete("left")
    await until("the object to be gone", lambda: not objects.exists("left"), LIMIT_S)
    await objects.has_runs("left", [WorkflowExecutionStatus.RUNNING])
    objects.create("left", {"images": {"server": "example/chat:3"}})
    await objects.becomes("left", "Ready")
    assert objects.images("left") == ["example/chat:3"] * 2


SHARED = {"first": "example/chat:2", "second": "example/chat:3"}


async def _is_shared(objects: Objects) -> None:
    """Of two objects for one target, and beside a command, Ready is only the one whose version runs."""

    def ready() -> list[str]:
        return [name for name in SHARED if objects.conditions(name).get("Ready") == "True"]

    def superseded() -> list[str]:
        return [name for name in SHARED if objects.get(name).get("status", {}).get("phase") == "Superseded"]

    await until("one of two", lambda: len(ready()) == 1 == len(superseded()), LIMIT_S, poll_s=0.5)
    [last], [former] = ready(), superseded()
    assert objects.images("shared") == [SHARED[last]] * 2
    message = objects.get(former)["status"]["reason"]
    assert f"that of Rollout {objects.lab.namespace}/{last}, left another version (server={SHARED[last]})" in message
    started = await objects.lab.start("shared", {"images": {"server": "example/chat:9"}})
    await started.end()
    objects.patch(last, {"metadata": {"annotations": {"read": "again"}}})  # else within some minutes
    assert "started by a command" in (await objects.becomes(last, "Stalled"))["reason"]


async def test_an_edit_that_is_taken_back_before_it_is_recorded(objects: Objects) -> None:
    """The controller is killed when the retarget has arrived. The next one found its record of the former version."""
    lab = objects.lab
    await lab.deploy("chat", 2)
    diary = Diary(str(lab.stack.state_dir / "logs" / f"controller-{lab.namespace}.diary"))
    killed = objects.controller(("killing_controller",), **{DIARY: diary.path, POINT: "send#1:after"})
    objects.create("chat", strategy=STOPS)
    await objects.reaches("chat", "AwaitingApproval")
    objects.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:3"}}}})
    await until("the controller to be killed", lambda: killed.exitcode is not None)
    objects.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:2"}}, "strategy": None}})
    objects.controller()
    await objects.becomes("chat", "Ready")
    assert objects.images("chat") == ["example/chat:2"] * 2


def message_of(error: ApiException) -> str:
    """Return what the API server says."""
    assert error.body
    return str(json.loads(error.body)["message"])


REFUSED: dict[str, tuple[Object, str]] = {
    "unknown field": ({"chnage": {}}, 'unknown field "spec.chnage"'),
    "unknown field below": ({"strategy": {"maxsurge": 1}}, 'unknown field "spec.strategy.maxsurge"'),
    "field of another kind": ({"target": {"name": "a", "old": "b"}}, "target.old is required for kind DeploymentPair"),
    "half a pair": ({"target": {"kind": "DeploymentPair", "old": "a"}}, "target.new is required"),
    "no name": ({"target": {"kind": "StatefulSet"}}, "target.name is missing"),
    "unknown kind": ({"target": {"kind": "X", "name": "a"}}, "Unsupported value"),
    "unit": ({"readiness": {"minReady": "5 parsecs"}}, "spec.readiness.minReady"),
    "percentage": ({"strategy": {"maxSurge": "x%"}}, "spec.strategy.maxSurge"),
    "choice": ({"onDelete": "x"}, "spec.onDelete"),
}


async def test_the_api_server_knows_the_kind(lab: Lab, defined: None) -> None:
    """It takes every example, and refuses what its schema can tell, with the field."""
    objects = Objects(lab)
    for file in sorted((ROOT / "examples").rglob("*.yaml")):
        for body in filter(None, yaml.safe_load_all(file.read_text())):
            if body["kind"] == "Rollout":
                body["metadata"].pop("namespace", None)
                lab.custom.create_namespaced_custom_object(
                    *API, lab.namespace, "rollouts", body, field_validation="Strict", dry_run="All"
                )
    for case, (spec, expected) in REFUSED.items():
        with pytest.raises(ApiException) as caught:
            objects.create("chat", **spec)
        assert expected in message_of(caught.value), case


# --- profiles of a team -----------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
async def test_rollouts_use_the_profiles_of_their_team(objects: Objects, tmp_path: Path) -> None:
    """What was started keeps its profile as it was; what cannot be read yet starts when it can."""
    lab = objects.lab
    await asyncio.gather(*(lab.deploy(name, 2) for name in ("chat", "wide")))
    objects.create_profile("ours")
    objects.create_profile("planned")
    objects.create("chat", profile={"name": "ours"})
    objects.create("wide", profile={"name": lab.namespace})
    objects.controller()
    await asyncio.gather(_keeps_its_profile(objects), _waits_for_a_profile(objects), _is_planned(lab, tmp_path))


async def _keeps_its_profile(objects: Objects) -> None:
    place = (*API, objects.lab.namespace, "rolloutprofiles", "ours")
    await objects.reaches("chat", "AwaitingApproval")
    objects.lab.custom.patch_namespaced_custom_object(*place, {"spec": {"strategy": {"waypoints": [], "step": 1}}})
    objects.patch("chat", {"spec": {"paused": True}})  # so the controller reads it again
    await objects.reaches("chat", "Paused")
    objects.lab.custom.delete_namespaced_custom_object(*place)
    objects.patch("chat", {"spec": {"paused": False}})
    await objects.reaches("chat", "AwaitingApproval")
    await objects.handle("chat").execute_update("approve", messages.Approve(by="test"), result_type=str)
    await objects.becomes("chat", "Ready")
    # The next rollout takes the profile as it is then: without a stop.
    objects.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:3"}}}})
    condition = await objects.says("chat", "Stalled", "Invalid")
    assert "spec.profile.name: 'ours': is not a built-in profile" in condition["message"]
    objects.create_profile("ours", spec={"strategy": {"step": 1}})
    await objects.becomes("chat", "Ready")
    assert len(objects.lab.pods("chat", "example/chat:3")) == 2


async def _waits_for_a_profile(objects: Objects) -> None:
    """A controller may read ClusterRolloutProfiles only by a right of its own, and its refusal says how to grant it."""
    lab = objects.lab
    condition = await objects.says("wide", "Stalled", "Invalid")
    missing = f"spec.profile.name: '{lab.namespace}': is no RolloutProfile of namespace {lab.namespace}"
    assert condition["message"].startswith(missing)
    assert "kubectl apply -f deploy/rbac-profiles.yaml" in condition["message"]
    rbac = RbacAuthorizationV1Api(lab.core.api_client)
    role, binding = yaml.safe_load_all((ROOT / "deploy/rbac-profiles.yaml").read_text())
    role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = lab.namespace
    body = {"apiVersion": "/".join(API), "kind": "ClusterRolloutProfile", "metadata": {"name": lab.namespace}}
    body |= {"spec": {"strategy": {"step": 1}}}
    rbac.create_cluster_role(role)
    rbac.create_cluster_role_binding(binding)
    lab.custom.create_cluster_custom_object(*API, "clusterrolloutprofiles", body, field_validation="Strict")
    try:
        await objects.becomes("wide", "Ready")
    finally:
        lab.custom.delete_cluster_custom_object(*API, "clusterrolloutprofiles", lab.namespace)
        rbac.delete_cluster_role_binding(lab.namespace)
        rbac.delete_cluster_role(lab.namespace)


async def _is_planned(lab: Lab, folder: Path) -> None:
    """The command line reads the same object, by the user's own rights."""
    shell = Shell(lab, folder)
    plan = await shell.json("plan", shell.spec("chat", profile={"name": "planned"}), "--replicas", "2")
    source = f"RolloutProfile {lab.namespace}/planned"
    assert (plan["profile"]["source"], plan["profile"]["given"]) == (source, ["strategy"])


BAD_PROFILES = {
    "unknown field": ({"stategy": {}}, 'unknown field "spec.stategy"'),
    "a target": ({"target": {"name": "a"}}, 'unknown field "spec.target"'),
    "nothing": ({}, "should have at least 1 properties"),
    "a profile of a team below": ({"profile": {"name": "ours"}}, "spec.profile.name: Unsupported value"),
    "unit": ({"readiness": {"minReady": "5 parsecs"}}, "spec.readiness.minReady"),
}


async def test_the_api_server_knows_profiles(lab: Lab, defined: None) -> None:
    """It takes each built-in one as an object, with a part of a metric, and refuses what its schema can tell."""
    objects = Objects(lab)
    for name in ProfileName:
        objects.create_profile("ours", spec=fields_of(name, "a"), dry_run="All")
    part = {"profile": {"name": "vllm"}, "metrics": [{"name": "errors", "interval": "1m"}], "drain": None}
    objects.create_profile("ours", spec=part, dry_run="All")
    for case, (spec, expected) in BAD_PROFILES.items():
        with pytest.raises(ApiException) as caught:
            objects.create_profile("ours", spec=spec, dry_run="All")
        assert expected in message_of(caught.value), case
    with pytest.raises(ApiException, match="it is the name of a built-in profile"):
        objects.create_profile("vllm", dry_run="All")


# --- orders by annotations ----------------------------------------------------------------------------------


ADMISSION = ("admissionregistration.k8s.io", "v1")


@contextmanager
def guarded(lab: Lab) -> Iterator[None]:
    """The published policies of orders, for this lab's namespace only."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}
    made = []
    try:
        for each in yaml.safe_load_all((ROOT / "deploy/admission/steering.yaml").read_text()):
            name, plural = (
                f"{each['metadata']['name']}-{lab.namespace}",
                f"{each['kind'].lower()}s".replace("ys", "ies"),
            )
            each["metadata"]["name"] = name
            if "policyName" in each["spec"]:
                each["spec"] |= {"policyName": name, "matchResources": {"namespaceSelector": selector}}
            lab.custom.create_cluster_custom_object(*ADMISSION, plural, each)
            made.append((plural, name))
        yield
    finally:
        for plural, name in reversed(made):
            lab.custom.delete_cluster_custom_object(*ADMISSION, plural, name)


async def answered(objects: Objects, name: str, verb: str, value: str) -> Object:
    """Wait until an order has its answer, and return it."""

    def look() -> Object | None:
        found = objects.get(name).get("status", {}).get("orders", [])
        return next((each for each in found if (each["verb"], each["value"]) == (verb, value)), None)

    return await until(f"{verb} {value} of {name} to be answered", look, LIMIT_S, poll_s=0.5)  # type: ignore[no-any-return]


async def test_people_steer_by_rights_of_kubernetes(objects: Objects) -> None:
    """With the verb, an annotation approves once and aborts; without it, or under another name, it is refused."""
    lab = objects.lab
    alice = Person(lab, "alice", ["get", "patch", "approve", "abort", "promote", "settle", "resume", "scale"])
    bob = Person(lab, "bob", ["get", "patch", "update"])
    diary = Diary(str(lab.stack.state_dir / "logs" / f"controller-{lab.namespace}.diary"))
    killed = objects.controller(("killing_controller",), **{DIARY: diary.path, POINT: "send#1:after"})
    await asyncio.gather(*(lab.deploy(name, 2) for name in ("chat", "other")))
    for name in ("chat", "other"):
        objects.create(name, strategy=STOPS)
    asks = (await objects.reaches("chat", "AwaitingApproval"))["approval"]

    # Without the policies, anybody can claim to be Alice.
    assert alice.annotate("chat", approve=asks)["metadata"]["annotations"].keys() == {"segue.dev/approve"}
    assert not (await answered(objects, "chat", "approve", asks))["taken"]
    bob.annotate("chat", approve=f"{asks} in the name of Alice", approve_by="alice")
    claimed = await answered(objects, "chat", "approve", f"{asks} in the name of Alice")
    assert not claimed["taken"] and "no admission policy" in claimed["answer"]
    alice.annotate("chat", aprove=asks)
    mistyped = await answered(objects, "chat", "aprove", asks)
    assert not mistyped["taken"] and mistyped["answer"].endswith("perhaps you mean segue.dev/approve")
    await until("its event", lambda: "AnnotationUnknown" in objects.events("chat"), LIMIT_S)

    with guarded(lab):
        await until(
            "the policies",
            lambda: "may not approve" in refusal(bob.annotate, "chat", dry_run=True, approve="x"),
            LIMIT_S,
        )
        # Under a wrong name: Bob wrote the right one before there was a policy.
        forged = {"approve": "x", "approve_by": "carol"}
        await until("the stamps", lambda: not refusal(alice.annotate, "chat", dry_run=True, **forged), LIMIT_S)
        assert "only the API server sets" in refusal(alice.annotate, "chat", approve_by="bob")
        assert "may not edit rollouts" in refusal(alice.patch, "chat", {"spec": {"strategy": None}})
        assert "cannot patch resource" in refusal(
            alice.apps.patch_namespaced_deployment, "chat", lab.namespace, {"spec": {"replicas": 1}}
        )
        assert objects.get("chat")["status"]["phase"] == "AwaitingApproval"

        # The controller is killed after the order arrived, and before it recorded the answer.
        stamped = alice.annotate("chat", approve=f"{asks} looks good", approve_by="carol")
        assert stamped["metadata"]["annotations"]["segue.dev/approve-by"] == "alice"
        await until("the controller to be killed", lambda: killed.exitcode is not None)
        objects.controller()
        assert (await answered(objects, "chat", "approve", f"{asks} looks good"))["taken"]
        await objects.becomes("chat", "Ready")
        report = await objects.handle("chat").result()
        approvals = [(each["who"], each["detail"]) for each in report["entries"] if each["what"] == "approved"]
        assert approvals == [("kubernetes user alice", "waypoint 1: looks good")]
        assert "ApproveTaken" in objects.events("chat")

        await _is_settled_and_resumed(objects, alice)
        await _is_aborted_by_order(objects, alice)
        await _is_not_approved_again(objects, alice, asks)


async def _is_settled_and_resumed(objects: Objects, alice: Person) -> None:
    """A resume ends the pause that it names, and no later one."""
    status = await objects.reaches("other", "AwaitingApproval")
    alice.annotate("other", settle=status["rollout"], scale=f"{status['rollout']} 3 more users")
    assert (await answered(objects, "other", "scale", f"{status['rollout']} 3 more users"))["taken"]
    pause = (await objects.reaches("other", "Paused"))["pause"]
    alice.annotate("other", resume=pause)
    assert (await objects.reaches("other", "AwaitingApproval"))["pause"] == ""
    alice.annotate("other", resume=f"{pause} again")
    again = await answered(objects, "other", "resume", f"{pause} again")
    assert not again["taken"] and f"it is for {pause}, and none is pending" in again["answer"]
    assert objects.lab.deployment("other").spec.replicas == 3


async def _is_aborted_by_order(objects: Objects, alice: Person) -> None:
    rollout = (await objects.reaches("other", "AwaitingApproval"))["rollout"]
    alice.annotate("other", abort="another wrong id")
    assert not (await answered(objects, "other", "abort", "another wrong id"))["taken"]
    alice.annotate("other", abort=f"{rollout} it is late")
    status = await objects.becomes("other", "Stalled")
    assert (status["phase"], status["approval"]) == ("Aborted", "")
    assert status["reason"] == "Requested: aborted by kubernetes user alice: it is late"


async def _is_not_approved_again(objects: Objects, alice: Person, former: str) -> None:
    """The former approval stays on the object, and approves neither the next rollout nor its waypoint."""
    objects.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:3"}}}})
    status = await objects.reaches("chat", "AwaitingApproval")
    assert status["approval"] not in {"", former}
    alice.annotate("chat", approve=f"{former} again", promote=status["rollout"])
    assert not (await answered(objects, "chat", "approve", f"{former} again"))["taken"]
    assert (await answered(objects, "chat", "promote", status["rollout"]))["taken"]
    assert objects.get("chat")["status"]["phase"] == "AwaitingApproval"


@pytest.mark.timeout(1200)
async def test_who_wrote_an_object_does_not_approve_it(stack: Stack, defined: None, tmp_path: Path) -> None:
    """Four eyes refuse the author of a start and of a retarget, and take another person."""
    rule = {"name": "pairs", "namespaces": ["*"], "fourEyes": True}
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"apiVersion": "segue.dev/v1alpha1", "kind": "Policy", "rules": [rule]}))
    async with open_lab(stack) as lab:
        worker, objects = lab.worker(SEGUE_POLICY=str(policy)), Objects(lab)
        verbs = ["get", "create", "patch", "update", "approve"]
        alice, bob, carol = (Person(lab, name, verbs) for name in ("alice", "bob", "carol"))
        await lab.deploy("chat", 2)
        try:
            with guarded(lab):
                await _has_its_author(objects, alice, bob)
                objects.controller()
                await worker.serves()
                await _is_approved_by_another(objects, alice, bob, carol)
                connect = functools.partial(Cluster.connect, Access(kubeconfig=str(lab.stack.kubeconfig)))
                [check] = [e for e in await check_cluster(connect, [lab.namespace]) if e.name == guarding.NAME]
                assert check.verdict == "ok" and "guards, as this release needs it" in check.found, check
        finally:
            objects.close()


async def _has_its_author(objects: Objects, alice: Person, bob: Person) -> None:
    """The API server names whoever writes what a rollout does; no other write changes the name, or removes it."""
    place = (*API, objects.lab.namespace, "rollouts")
    body = objects.body("chat", strategy=STOPS, paused=True)
    forged = {**body, "metadata": {"name": "chat", "annotations": {"segue.dev/edit-by": "bob"}}}

    def author(write: Any, *given: Any, **named: Any) -> str:
        try:
            return str(write(*place, *given, **named)["metadata"]["annotations"]["segue.dev/edit-by"])
        except ApiException as error:
            return str(error.body)

    await until(
        "the stamp",
        lambda: author(alice.custom.create_namespaced_custom_object, forged, dry_run="All") == "alice",
        LIMIT_S,
    )
    assert author(alice.custom.create_namespaced_custom_object, body) == "alice"
    await until("the guard", lambda: GUARDED in refusal(bob.annotate, "chat", dry_run=True, edit_by="bob"), LIMIT_S)
    found = objects.get("chat")
    del found["metadata"]["annotations"]
    assert author(bob.custom.replace_namespaced_custom_object, "chat", found) == "alice"
    assert author(bob.custom.patch_namespaced_custom_object, "chat", {"spec": {"paused": False}}) == "alice"


async def _is_approved_by_another(objects: Objects, alice: Person, bob: Person, carol: Person) -> None:
    first = (await objects.reaches("chat", "AwaitingApproval"))["approval"]
    alice.annotate("chat", approve=first)
    own = await answered(objects, "chat", "approve", first)
    assert not own["taken"] and "kubernetes user alice started the rollout (claimed; " in own["answer"]
    assert "ask another person to approve" in own["answer"]
    carol.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:3"}}}})

    def asks_again() -> str:
        return str(objects.get("chat")["status"]["approval"]).replace(first, "")

    second = await until("it asks again", asks_again, LIMIT_S, poll_s=0.5)
    carol.annotate("chat", approve=second)
    edited = await answered(objects, "chat", "approve", second)
    assert not edited["taken"] and "kubernetes user carol retargeted the rollout (claimed; " in edited["answer"]
    bob.annotate("chat", approve=f"{second} fine")
    assert (await answered(objects, "chat", "approve", f"{second} fine"))["taken"]
    await objects.becomes("chat", "Ready")
    by = f"Rollout {objects.lab.namespace}/chat generation"
    assert (await objects.handle("chat").result())["startedBy"] == f"{by} 2 by kubernetes user alice"


# --- by kubectl -------------------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
async def test_the_page_by_kubectl(objects: Objects, tmp_path: Path) -> None:
    """The examples of the README by the real kubectl: apply, watch, wait, describe, the plugin, edit and delete."""
    kubectl, here = Kubectl(objects.lab, tmp_path), objects.lab.namespace

    def written(name: str, change: Object | None = None) -> str:
        """Write an example for this namespace, with short holds."""
        text = (ROOT / f"examples/{name}.yaml").read_text()
        parts = [*yaml.safe_load_all(text.replace("serving", here).replace("hold: 30s", "hold: 1s"))]
        if change is not None:
            parts[0]["spec"]["change"] = change
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all(parts))
        return str(file)

    async def wants(change: str) -> None:
        await until(change, lambda: objects.get("chat")["status"]["change"] == change, LIMIT_S, poll_s=0.5)

    await kubectl.run("apply", "-f", written("deployment"))
    await kubectl.run("wait", "deployment/chat", "--for=condition=Available", LONG)
    objects.controller()
    async with kubectl.watching("get", "rollouts", "-w") as story:
        await kubectl.run("apply", "-f", written("rollout"))
        await kubectl.run("wait", "rollout/chat", "--for=jsonpath={.status.phase}=AwaitingApproval", LONG)
        await kubectl.run("segue", "approve", f"{here}/chat", "--by", "alice")
        await kubectl.run("wait", "rollout/chat", "--for=condition=Ready", LONG)
        await shows(story, "chat", "Completed", "True")
    assert story[0].split() == ["NAME", "TARGET", "PHASE", "READY", "OLD", "NEW", "FLOOR", "AGE", "REASON"]
    phases = [line.split()[2] for line in story[1:]]
    assert [each for each, _ in itertools.groupby(filter(TOLD.__contains__, phases))] == [*TOLD]
    for described in ("rollout", "deployment"):
        assert {STEP, "AwaitingApproval", "Completed"} <= {*(await kubectl.run("describe", described, "chat")).split()}

    await kubectl.run("apply", "-f", written("rollout", BAD))
    await kubectl.run("wait", "rollout/chat", "--for=condition=Stalled", LONG)
    timed_out = await kubectl.run("wait", "rollout/chat", "--for=condition=Ready", "--timeout=1s", expect=1)
    assert "timed out waiting for the condition" in timed_out

    for image in ("example/chat:3", "example/chat:4"):
        await kubectl.run("apply", "-f", written("rollout", {"images": {"server": image}}))
        await wants(f"server={image}")
    await kubectl.run("delete", "rollout", "chat")
    assert {*objects.images("chat")} == {"example/chat:2"}, "an edit retargets, and a deletion goes back"
    assert len(await objects.runs("chat")) == 3


# --- killed at each call ----------------------------------------------------------------------------------


AT_ONCE = 4
FIRST = 5
"""It is killed at so many calls of each kind: later ones repeat them while it waits."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_killed_at_each_call(fleet: Lab, defined: None) -> None:
    """Killed before and after the first calls of each kind, and started again: the same end, the same workflows."""
    diary = await _story(fleet, "")
    calls = [line for line in diary.lines if int(line.partition("#")[2]) <= FIRST]
    assert {"start", "send", "patch", "patch_status", "get", "latest"} <= {call.partition("#")[0] for call in calls}
    free = asyncio.Semaphore(AT_ONCE)

    async def killed(point: str) -> None:
        # A point may not be reached: a later controller makes fewer calls where it finds what a former one has done.
        async with free:
            await _story(fleet, point)

    await asyncio.gather(*(killed(f"{call}:{when}") for call in calls for when in ("before", "after")))


async def _story(fleet: Lab, point: str) -> Diary:
    """Tell the story with a controller that is killed at this point."""
    async with open_lab(fleet.stack, fleet.task_queue) as lab:
        objects = Objects(lab)
        diary = Diary(str(lab.stack.state_dir / "logs" / f"controller-{lab.namespace}.diary"))
        try:
            lab.tasks["restarts"] = asyncio.create_task(_restarted(objects, diary, point))
            await _recorded_events(objects)
        except AssertionError as error:
            error.add_note(f"killed at {point}: {diary.had_accident}")
            raise
        else:
            return diary
        finally:
            lab.tasks["restarts"].cancel()
            objects.close()


async def _restarted(objects: Objects, diary: Diary, point: str) -> None:
    """Run the controller with the accident, and again after it."""
    env = {DIARY: diary.path, POINT: point, "SEGUE_NAMESPACES": objects.lab.namespace}
    while True:
        started = objects.controller(("killing_controller",), **env)
        await asyncio.to_thread(started.join)
        assert started.exitcode == -signal.SIGKILL, started.exitcode


async def _recorded_events(objects: Objects) -> None:
    """Create, edit while it runs, edit to a bad version, delete; and check the end, which is always the same."""
    await objects.lab.deploy("chat", 2)
    objects.create("chat", strategy=STOPS)
    await objects.reaches("chat", "AwaitingApproval")
    objects.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:3"}}, "strategy": None}})
    await objects.becomes("chat", "Ready")
    objects.patch("chat", {"spec": {"change": {**BAD, "images": None}}})
    await objects.becomes("chat", "Stalled")
    objects.delete("chat")
    await until("the object to be gone", lambda: not objects.exists("chat"), LIMIT_S)
    await until("only the version before", lambda: objects.images("chat") == ["example/chat:3"] * 2, LIMIT_S)
    ended = [WorkflowExecutionStatus.COMPLETED]
    await objects.has_runs("chat", ended * 2)


async def test_a_renewed_certificate_is_used(objects: Objects, tmp_path: Path, unused_tcp_port: int) -> None:
    """The controller goes on without a restart when Temporal takes its former certificate no more."""
    expiring = Expiring(objects.lab.stack, tmp_path, unused_tcp_port)
    await objects.lab.deploy("chat", 1)
    async with expiring.served(expiring.former):
        controller = objects.controller(**expiring.environment)
        objects.create("chat")
        await objects.becomes("chat", "Ready")
        expiring.show(expiring.later)
    async with expiring.served(expiring.later):
        await until("it is connected again", lambda: "renewed credentials" in objects.logs[0].read_text(), LIMIT_S)
        objects.patch("chat", {"spec": {"change": {"images": {"server": "example/chat:3"}}}})
        await objects.becomes("chat", "Ready")
    assert "example/chat:3" in objects.images("chat")
    assert controller.is_alive()
