"""Shared code of tests on real servers: targets, workers as processes, rollouts."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import forked
import temporalio.client
import yaml
from kube_api import client_of, create, raw
from kubernetes import client
from kubernetes.client.exceptions import NotFoundException
from runs import ends_with_run
from segue_local import Stack
from subjects import DeploymentSubject, Subject
from temporalio.client import WorkflowQueryFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode
from watcher import PodWatcher

from activities.cluster import Cluster, connected
from segue import contract, messages
from segue.clusters import Access
from segue.messages import Message
from segue.plan import Plan
from segue.report import Report, to_markdown
from segue.spec import Rollout, read_rollout
from segue.status import Status
from segue.status import to_markdown as status_to_markdown

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.05
_TOLD = 40
"""The number of pod events that a failed assertion about an outcome shows."""
_OF_A_ROLLOUT = {"segue.dev/rollout", "segue.dev/baseline", "segue.dev/replicas", "segue.dev/writes"}
"""The annotations that a rollout removes at its end."""
_NO_ANSWER = {RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED}
"""The status codes of a query that timed out, at the client or at the server."""
ASK_S = 0.2
"""The interval between queries of a workflow. Its worker answers each, and many rollouts share few cores."""
ACCEPTED = ["no-readiness-probe", "unavailable-on-few-replicas"]
"""Fake pods have no probe, and many tests use the limits of a budget."""
GROUPS = ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets")

FAST = contract.Tuning(heartbeat_s=4.0, rest_heartbeat_s=4.0, write_s=4.0, recheck_s=1.0)
"""For tests that kill a worker: a lost worker is detected soon."""
PATIENT = {"minReady": "0s", "deadline": "8s"}
"""A readiness for tests that await the deadline, and whose good replicas keep it on a busy machine."""


async def until(what: str, check: Callable[[], Any], limit_s: float = 120.0, poll_s: float = POLL_S) -> Any:
    """Wait until ``check`` (plain or async) returns a true value, and return it; the failure names the state."""
    ends = time.monotonic() + limit_s
    found: Any = None
    while time.monotonic() < ends:
        found = check()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        await asyncio.sleep(poll_s)
        # Poll a slow state less often: many tests wait on few cores.
        poll_s = max(poll_s, min(poll_s * 1.1, ASK_S))
    raise AssertionError(f"{what}: not within {limit_s:g} s; last seen: {found!r}")


_RUNNING = (
    ("segue.dev", "v1alpha1", "rollouts"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("serving.kserve.io", "v1beta1", "inferenceservices"),
    ("serving.kserve.io", "v1alpha1", "servingruntimes"),
    ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets"),
    ("apps", "v1", "deployments"),
    ("apps", "v1", "statefulsets"),
    ("batch", "v1", "jobs"),
    ("apps", "v1", "replicasets"),
)
"""The kinds whose controllers work for them; the pods come last."""


@functools.cache
def published(file: str) -> list[dict[str, Any]]:
    """Return the role of a published manifest, and its binding."""
    return [*yaml.safe_load_all((ROOT / "deploy" / file).read_text())]


@dataclass
class Lab:
    """One namespace of a real cluster and one task queue of a real Temporal, with a test's objects."""

    stack: Stack
    temporal: temporalio.client.Client
    namespace: str
    task_queue: str
    workers: list[Any] = field(default_factory=list)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Background tasks of a test, by name; they end with the lab."""
    joins: bool = False
    """Whether another lab has made the namespace, and removes it."""

    def __post_init__(self) -> None:
        api = client_of(str(self.stack.kubeconfig))
        self.apps, self.core, self.custom = client.AppsV1Api(api), client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.batch = client.BatchV1Api(api)
        self._rbac = client.RbacAuthorizationV1Api(api)
        if self.joins:
            return
        create(self.core.create_namespace, {"metadata": {"name": self.namespace}})
        self._grant_published("rbac.yaml")
        self._await_rights(client.AuthorizationV1Api(api))

    def _await_rights(self, authorization: Any) -> None:
        """Wait until the API server knows the role: it learns of it a moment later."""
        attributes = {"verb": "get", "group": "apps", "resource": "deployments", "namespace": self.namespace}
        review = {"spec": {"user": "segue-worker", "resourceAttributes": attributes}}
        ends = time.monotonic() + 60
        while not authorization.create_subject_access_review(review).status.allowed:
            assert time.monotonic() < ends, "the API server does not know the worker's role"
            time.sleep(POLL_S)

    def grant(self, *, writes: bool = True) -> None:
        """Give the worker's user the published role in this namespace (as at the start), or only read rights."""
        role, _ = published("rbac.yaml")
        rules = role["rules"] if writes else [{**rule, "verbs": ["get", "list", "watch"]} for rule in role["rules"]]
        self._rbac.patch_namespaced_role(role["metadata"]["name"], self.namespace, {"rules": rules})

    def grant_more(self, group: str, resource: str) -> None:
        """Allow the worker's user to roll a kind of custom resource as well."""
        role, _ = published("rbac.yaml")
        rule = {"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch", "patch"]}
        self._rbac.patch_namespaced_role(role["metadata"]["name"], self.namespace, {"rules": [*role["rules"], rule]})

    def let_make_jobs(self) -> None:
        """Give the worker's user the optional rights for gates of kind Job."""
        self._grant_published("rbac-gates.yaml")

    def let_ask_pods(self) -> None:
        """Give the worker's user the optional rights to call pods by the API server, and to read logs and events."""
        self._grant_published("rbac-serving.yaml")

    def _grant_published(self, file: str) -> None:
        role, binding = published(file)
        create(self._rbac.create_namespaced_role, self.namespace, role)
        create(self._rbac.create_namespaced_role_binding, self.namespace, binding)

    # --- targets ---

    async def deploy(
        self, name: str, replicas: int, *, mode: str = "ready", ready_after: str = "300ms",
        image: str = "example/chat:1", annotations: dict[str, str] | None = None,
        container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None,
        labels: dict[str, str] | None = None, **spec: Any,
    ) -> None:  # fmt: skip
        """Create a Deployment of fake pods, and wait until it serves if its pods can."""
        template = pod_template(name, mode, ready_after, image, annotations, container, pod)
        template["metadata"]["labels"].update(labels or {})
        body = {
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template, **spec},
        }
        create(self.apps.create_namespaced_deployment, self.namespace, body)
        if mode == "ready":
            await until(f"{name} available", lambda: (self.deployment(name).status.available_replicas or 0) == replicas)

    async def deploy_set(
        self, name: str, replicas: int, *, mode: str = "ready", ready_after: str = "300ms",
        image: str = "example/chat:1", policy: str = "Parallel", container: dict[str, Any] | None = None,
        pod: dict[str, Any] | None = None, **spec: Any,
    ) -> None:  # fmt: skip
        """Create a StatefulSet of fake pods, and wait until it serves if its pods can."""
        template = pod_template(name, mode, ready_after, image, container=container, pod=pod)
        body = {
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "serviceName": name,
                "podManagementPolicy": policy,
                "selector": {"matchLabels": {"app": name}},
                "template": template,
                **spec,
            },
        }
        create(self.apps.create_namespaced_stateful_set, self.namespace, body)
        read: Callable[..., Any] = self.apps.read_namespaced_stateful_set
        if mode == "ready":
            await until(
                f"{name} ready", lambda: (read(name, self.namespace).status.available_replicas or 0) == replicas
            )

    async def deploy_groups(
        self, name: str, replicas: int, *, mode: str = "ready", ready_after: str = "300ms",
        image: str = "example/chat:1", annotations: dict[str, str] | None = None, size: int = 2,
        container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, worker_mode: str = "", **spec: Any,
    ) -> None:  # fmt: skip
        """Create a LeaderWorkerSet of fake pods, and wait until it serves; only leaders have the label ``app``."""
        modes = (mode, worker_mode or mode)
        leader, worker = (pod_template(name, m, ready_after, image, annotations, container, pod) for m in modes)
        del worker["metadata"]["labels"]["app"]
        template = {"size": size, "leaderTemplate": leader, "workerTemplate": worker}
        body = {
            "apiVersion": "/".join(GROUPS[:2]),
            "kind": "LeaderWorkerSet",
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "leaderWorkerTemplate": template, **spec},
        }
        group, version, plural = GROUPS
        self.custom.create_namespaced_custom_object(group, version, self.namespace, plural, body)
        if mode == "ready":
            status = "readyReplicas"
            await until(f"{name} ready", lambda: self.groups(name).get("status", {}).get(status, 0) == replicas)

    def groups(self, name: str) -> dict[str, Any]:
        """Return a LeaderWorkerSet as the API server's JSON."""
        group, version, plural = GROUPS
        found: Any = self.custom.get_namespaced_custom_object(group, version, self.namespace, plural, name)
        return {**found}

    def patch_groups(self, name: str, patch: dict[str, Any], manager: str = "an-autoscaler") -> None:
        """Change a LeaderWorkerSet as another writer."""
        group, version, plural = GROUPS
        self.custom.patch_namespaced_custom_object(
            group, version, self.namespace, plural, name, patch, field_manager=manager
        )

    def scale_groups(self, name: str, replicas: int) -> None:
        """Scale a LeaderWorkerSet as `kubectl scale` and autoscalers do, by its subresource."""
        group, version, plural = GROUPS
        self.custom.patch_namespaced_custom_object_scale(
            group, version, self.namespace, plural, name, {"spec": {"replicas": replicas}}
        )

    def deployment(self, name: str) -> Any:
        return self.apps.read_namespaced_deployment(name, self.namespace)

    def pods(self, name: str, version: str = "") -> list[Any]:
        """Return a target's pods that are not terminating, of one version (part of the image or mode) or all."""
        found: list[Any] = self.core.list_namespaced_pod(self.namespace, label_selector=f"app={name}").items
        live = [p for p in found if p.metadata.deletion_timestamp is None]
        return [p for p in live if version in f"{p.spec.containers[0].image} {p.metadata.labels.get('segue.dev/fake')}"]

    def watch(self, name: str) -> PodWatcher:
        """Watch the pods with the label ``app`` of this name."""
        return PodWatcher(self.core.api_client, self.namespace, f"app={name}")

    def patch(self, name: str, patch: dict[str, Any], manager: str = "a-person") -> None:
        """Change a target as another writer."""
        self.apps.patch_namespaced_deployment(name, self.namespace, patch, field_manager=manager)

    # --- rollouts ---

    def rollout(self, name: str, change: dict[str, Any] | None = None, **spec: Any) -> Rollout:
        """Return a spec; by default with image 2, and with enough time for a test to act on the pods."""
        body = {
            "target": {"namespace": self.namespace, "name": name},
            "change": {"images": {"server": "example/chat:2"}} if change is None else change,
            "readiness": {"minReady": "0s", "deadline": "1m"},
            "accept": ACCEPTED,
            **spec,
        }
        return read_rollout(
            {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": name}, "spec": body}
        )

    async def start(
        self, name: str, change: dict[str, Any] | None = None, *, tuning: contract.Tuning = FAST,
        task_limit: timedelta | None = None, **spec: Any,
    ) -> "Run":  # fmt: skip
        """Start a rollout; ``task_limit`` is until a workflow task that a stopped worker took goes to another one."""
        rollout = self.rollout(name, change, **spec)
        handle = await self.temporal.start_workflow(
            contract.WORKFLOW,
            contract.Task(spec=rollout.spec, name=name, by="test", tuning=tuning),
            id=contract.workflow_id(self.namespace, rollout.spec.target),
            task_queue=self.task_queue,
            task_timeout=task_limit,
            result_type=Report,
        )
        return Run(handle)

    def worker(self, *, module: str = "worker", **env: str) -> "WorkerProcess":
        """Start a real worker process on this lab's task queue."""
        worker = WorkerProcess(self, module, env)
        self.workers.append(worker)
        return worker

    # --- a target that is rolled, and its expected end ---

    @asynccontextmanager
    async def case(
        self, name: str, replicas: int = 4, change: dict[str, Any] | None = None, *,
        kind: type[Subject] = DeploymentSubject, target: dict[str, Any] | None = None, **spec: Any,
    ) -> AsyncIterator["Case"]:  # fmt: skip
        """Yield a target with its watcher and its rollout (surge 1 by default); ``target`` are its settings."""
        await kind(self, name).create(replicas, **(target or {}))
        async with self.rolled(name, change, kind=kind, **spec) as case:
            yield case

    @asynccontextmanager
    async def rolled(
        self, name: str, change: dict[str, Any] | None = None, *, kind: type[Subject] = DeploymentSubject,
        tuning: contract.Tuning = FAST, **spec: Any,
    ) -> AsyncIterator["Case"]:  # fmt: skip
        """Yield the same for an existing target."""
        subject = kind(self, name)
        before, image = subject.settings(), subject.image()
        given = {"target": subject.target, "strategy": kind.ways[0].strategy, **spec}
        with PodWatcher(self.core.api_client, self.namespace, subject.selector) as watcher:
            run = await self.start(name, subject.changed(2) if change is None else change, tuning=tuning, **given)
            try:
                yield Case(self, name, subject, image, before, run, watcher)
            except AssertionError as error:
                error.add_note("\n".join((f"{name}, as a watcher saw its pods:", *map(str, watcher.samples[-_TOLD:]))))
                raise

    def settings(self, name: str) -> dict[str, Any]:
        """Return the fields of a Deployment that a rollout must not change, without the change and the replicas."""
        return DeploymentSubject(self, name).settings()

    def replicasets(self, name: str) -> list[dict[str, Any]]:
        found = raw(self.apps.list_namespaced_replica_set, self.namespace, label_selector=f"app={name}")
        return [*found["items"]]

    def raw(self, name: str) -> dict[str, Any]:
        """Return a Deployment as the API server's JSON."""
        return {**raw(self.apps.read_namespaced_deployment, name, self.namespace)}

    def quota_used(self, name: str) -> dict[str, str]:
        """Return the usage that counts towards a quota."""
        quota: Any = self.core.read_namespaced_resource_quota(name, self.namespace)
        return quota.status.used or {}

    def relabel(self, pod: str, mode: str) -> None:
        """Move a live pod to another mode, to break or repair it."""
        self.core.patch_namespaced_pod(pod, self.namespace, {"metadata": {"labels": {"segue.dev/fake": mode}}})

    def worker_environment(self, env: dict[str, str]) -> dict[str, str]:
        """Return the environment of a worker of this lab, with only a worker's rights."""
        settings = {"SEGUE_TASK_QUEUE": self.task_queue, "SEGUE_LOG_FORMAT": "text", "SEGUE_GRACEFUL_SHUTDOWN_S": "5"}
        rights = {"KUBECONFIG": str(self.stack.kubeconfig_for("segue-worker"))}
        return {
            **self.stack.env(),
            **self.stack.mark,
            **rights,
            **settings,
            "PYTHONPATH": str(ROOT / "tests/support"),
            **env,
        }

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        for worker in self.workers:
            worker.kill()
        if self.joins:
            return
        if ends_with_run(self.stack.name):
            await asyncio.to_thread(self._empty)
        else:
            self.core.delete_namespace(self.namespace)

    def _empty(self) -> None:
        """Remove what runs or is watched: to delete a namespace costs the servers as much as several moves."""
        for group, version, plural in _RUNNING:
            with contextlib.suppress(NotFoundException):  # a kind that these servers do not have
                self.custom.delete_collection_namespaced_custom_object(group, version, self.namespace, plural)
        self.core.delete_collection_namespaced_pod(self.namespace)


def pod_template(
    name: str, mode: str, ready_after: str, image: str, annotations: dict[str, str] | None = None,
    container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return a template of fake pods, with more fields of the container and of the pod's spec."""
    return {
        "metadata": {
            "labels": {"app": name, "segue.dev/fake": mode},
            "annotations": {"segue.dev/ready-after": ready_after, **(annotations or {})},
        },
        "spec": {"containers": [{"name": "server", "image": image, **(container or {})}], **(pod or {})},
    }


class WorkerProcess:
    """A process that runs ``python -m worker``."""

    def __init__(self, lab: Lab, module: str, env: dict[str, str]) -> None:
        self.log = lab.stack.state_dir / "logs" / f"worker-{lab.task_queue}-{len(lab.workers)}.log"
        self._mark = lab.stack.mark
        self._environment = {**os.environ, **lab.worker_environment(env)}
        self._module = module
        self.start()

    def start(self) -> None:
        self.process = forked.start(self._mark, self._environment, self.log, forked.run_module, self._module)

    async def serves(self) -> None:
        """Wait until the worker serves, because a client that starts a rollout does not."""
        await until(f"the worker to serve: {self.log}", lambda: "worker serves" in self.log.read_text())

    @property
    def lives(self) -> bool:
        return bool(self.process.is_alive())

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Send SIGKILL: no clean-up, no messages."""
        self.process.kill()
        self.process.join(timeout=10)

    def stop(self) -> int:
        """Send SIGTERM, as Kubernetes does, and return the exit code."""
        self.process.terminate()
        self.process.join(timeout=20)
        assert not self.lives, f"the worker does not stop: see {self.log}"
        return int(self.process.exitcode)


@dataclass
class Run:
    """One rollout that was started."""

    handle: temporalio.client.WorkflowHandle[Any, Report]

    async def status(self) -> Status:
        async def answer() -> Status | None:
            try:
                found: Status = await self.handle.query(contract.STATUS_QUERY, result_type=Status)
            except WorkflowQueryFailedError as error:
                if contract.LATE_QUERY not in str(error):
                    raise
                return None
            return found

        answered: Status = await until("the worker to take the query", answer)
        return answered

    async def plan(self) -> Plan:
        found: Plan = await self.handle.execute_update(contract.PREPARED_UPDATE, result_type=Plan)
        return found

    async def send(self, name: str, **fields: Any) -> str:
        """Send an update, and return its answer."""
        message: Message = messages.MESSAGES[name](by="test", **fields)
        while True:
            try:
                return str(await self.handle.execute_update(name, message, result_type=str))
            except RPCError as error:
                # It arrived while the workflow continued as new, and was not accepted: a client sends it again.
                if "unexpected workflow task failure" not in str(error):
                    raise

    async def signal(self, name: str, **fields: Any) -> None:
        await self.handle.signal(name, messages.MESSAGES[name](by="test", **fields))

    async def until(self, what: str, check: Callable[[Status], Any], limit_s: float = 120.0) -> Status:
        """Wait until ``check`` holds for the status."""
        seen: Status | None = None

        async def look() -> Status | None:
            nonlocal seen
            try:
                seen = await self.status()
            except RPCError as error:
                if error.status not in _NO_ANSWER:
                    raise
                return None  # a busy worker did not answer in time: query again
            except WorkflowQueryFailedError as error:
                if "TMPRL1101" not in str(error):
                    raise
                return None  # the same, reported by the worker
            return seen if check(seen) else None

        try:
            found: Status = await until(what, look, limit_s, ASK_S)
        except AssertionError as error:
            error.add_note(status_to_markdown(seen) if seen else "its status is unknown")
            raise
        return found

    async def summaries(self) -> list[str]:
        """Return the UI's summaries of the watches, in order."""
        events = (await self.handle.fetch_history()).events
        named = [(e.activity_task_scheduled_event_attributes.activity_type.name, e.user_metadata) for e in events]
        return [json.loads(activity.summary.data) for name, activity in named if name == contract.AWAIT_READY.name]

    async def end(self, limit_s: float = 180.0) -> Report:
        """Wait for the end, and return the report. A failure says how far the rollout came."""
        try:
            return await asyncio.wait_for(self.handle.result(), limit_s)
        except TimeoutError as error:
            error.add_note(await self._so_far())
            raise

    async def _so_far(self) -> str:
        """Return the report until now, and the activities that run."""
        report: Report = await self.handle.query(contract.REPORT_QUERY, result_type=Report)
        pending = (await self.handle.describe()).raw_description.pending_activities
        return "\n".join((to_markdown(report), *map(str, pending)))


@dataclass
class Case:
    """One target that is rolled and watched."""

    lab: Lab
    name: str
    subject: Subject
    image: str
    """The image of the version that ran before."""
    before: dict[str, Any]
    run: Run
    watcher: PodWatcher

    async def ends(self, outcome: str, limit_s: float = 180.0) -> Report:
        """Wait for the end; assert the outcome, and that the target is free with its original settings."""
        report = await self.run.end(limit_s)
        assert report.status.outcome == outcome, to_markdown(report)
        assert self.subject.settings() == self.subject.settled(outcome, self.before), to_markdown(report)
        await until("nothing is left on its ReplicaSets", lambda: not self._left_on_sets())
        if outcome != "Completed":
            assert await until("only the baseline runs", self.only_baseline)
        return report

    def _left_on_sets(self) -> list[str]:
        """Return what `kubectl rollout undo` would copy back to a Deployment."""
        found = (each["metadata"].get("annotations", {}) for each in self.lab.replicasets(self.name))
        return [name for each in found for name in each if name in _OF_A_ROLLOUT]

    def only_baseline(self) -> bool:
        """Return whether all replicas exist and run the version that ran before."""
        return self.only(self.image)

    def only(self, image: str) -> bool:
        """Return whether all requested replicas exist and run this version."""
        pods = self.lab.pods(self.name)
        return len(pods) == self.subject.replicas() == len(self.lab.pods(self.name, image))

    async def rests(self) -> tuple[int, int]:
        """Wait until all requested replicas are ready and nobody writes; return the requested (old, new)."""
        await until("nothing but the watch is under way", self.only_watches)

        def look() -> tuple[int, int] | None:
            requested = self.subject.requested()
            return requested if self._are(*requested, ready=True) else None

        found: tuple[int, int] = await until("all requested replicas are ready", look)
        return found

    async def only_watches(self) -> bool:
        description = await self.run.handle.describe()
        pending = [a.activity_type.name for a in description.raw_description.pending_activities]
        return pending == ["await_ready"]

    async def reaches(self, old: int, new: int, *, ready: bool = True) -> None:
        """Wait for these numbers of pods of the old image and of others, by default all of them ready."""

        await until(f"{self.name} at ({old}, {new})", lambda: self._are(old, new, ready=ready))

    def _are(self, old: int, new: int, *, ready: bool) -> bool:
        now = self.watcher.samples[-1].by_image
        olds = sum(v[1] for v in now if v[0].startswith(f"{self.image} "))
        return (olds, self.new) == (old, new) and (not ready or all(v[1] == v[2] for v in now))

    @property
    def new(self) -> int:
        """The number of pods of other images than the old one."""
        now = self.watcher.samples[-1].by_image if self.watcher.samples else ()
        return sum(v[1] for v in now if not v[0].startswith(f"{self.image} "))

    async def mend(self, count: int, old: int, new: int) -> None:
        """Let only this many new pods become ready until (old, new) is reached; numbered ones from the highest.

        The group controller can replace a leader again, when a worker of the former group is removed late.
        """

        def look() -> bool:
            found = [p for p in self.lab.pods(self.name) if p.spec.containers[0].image != self.image]
            found.sort(key=lambda pod: pod.metadata.name, reverse=True)
            broken = [p for p in found if p.metadata.labels["segue.dev/fake"] != "ready"]
            for pod in broken[: max(0, count - (len(found) - len(broken)))]:
                self.lab.relabel(pod.metadata.name, "ready")
            return self._are(old, new, ready=False)

        await until(f"{self.name} at ({old}, {new}) with {count} ready", look, poll_s=ASK_S)


@asynccontextmanager
async def reaching(lab: Lab) -> AsyncIterator[Cluster]:
    """Return Segue's client, in this process."""
    async with connected(Access(kubeconfig=str(lab.stack.kubeconfig))) as cluster:
        yield cluster


@asynccontextmanager
async def open_lab(stack: Stack, task_queue: str = "", *, joins: str = "") -> AsyncIterator[Lab]:
    """Yield a lab with a new namespace, or the one that it joins, and a new or given task queue.

    Its workers are killed at the end.
    """
    config = ClientConfig.load_client_connect_config(disable_file=True, override_env_vars=stack.env())
    temporal = await temporalio.client.Client.connect(**config, data_converter=pydantic_data_converter)
    name = joins or f"t-{uuid.uuid4().hex[:8]}"
    lab = Lab(stack, temporal, name, task_queue=task_queue or name, joins=bool(joins))
    try:
        yield lab
    finally:
        await lab.close()
