"""Many rollouts at once on one worker, beside the plain Deployment controller on the same targets, in one run.

Each target rolls to the next version three times: by its own controller; by Segue as far as an approval, where all of
them wait; and, for some of them, back again by an abort. CPU seconds compare better than times: the machine is shared.
"""

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from figures import percentile
from kubernetes import client
from procs import Taken, taken
from segue_local import Stack
from watches import watched

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from harness import ROOT, Lab, Run, WorkerProcess, open_lab, pod_template, until
from kube_api import client_of, create
from scraping import free_address, sample
from stacks import plain_stack

from segue import contract

REPLICAS, READY_AFTER_S = 3, 2.0
BUDGET = {"maxSurge": 1, "maxUnavailable": 0}
WAVES = REPLICAS - 1
"""So many replicas become ready one after the other after the approval."""
AT_ONCE = 40
"""The most requests of this bench under way at one time."""
PER_NAMESPACE = 12
NEIGHBOUR = 100
"""Replicas of each other server in the namespaces of the targets."""
PODS_PER_NODE = 1000
"""What a fake node takes."""
LIMIT_S = 1800.0
SLOW_S = 5.0
"""A replica that is Ready for longer than this has waited too long for the next write."""
HEARTBEATS = 'operation="RecordActivityTaskHeartbeat"'
HELD = "ExecutionStatus = 'Running' AND SeguePhase = 'Held'"
READS, WRITES = ("get", "list", "watch"), ("create", "update", "patch", "delete")


@dataclass
class Figures:
    """What one run measured; its names are the keys of the JSON line."""

    rollouts: int
    namespaces: int
    neighbours: int
    """Pods of other servers in the same namespaces."""
    machine: str
    starts_per_s: float = 0.0
    all_at_approval_s: float = 0.0
    start_worker_cpu_s: float = 0.0
    idle_worker_cores: float = 0.0
    idle_temporal_cores: float = 0.0
    idle_worker_mib: float = 0.0
    idle_temporal_mib: float = 0.0
    worker_mib_before: float = 0.0
    heartbeats_per_s: float = 0.0
    looks_per_s: float = 0.0
    abort_to_write_s: list[float] = field(default_factory=list)
    all_done_s: float = 0.0
    held: int = 0
    """Rollouts that needed a person after the approval: there must be none."""
    bound_s: float = WAVES * READY_AFTER_S
    roll_worker_cpu_s: float = 0.0
    ready_to_write_s: list[float] = field(default_factory=list)
    slow_at_s: list[float] = field(default_factory=list)
    """When pods became Ready that waited longer than ``SLOW_S`` for the next write: seconds after the approval."""
    plain_all_done_s: float = 0.0
    plain_controller_cpu_s: float = 0.0
    reads_per_rollout: float = 0.0
    writes_per_rollout: float = 0.0
    largest_payload_bytes: int = 0


class Cluster:
    """The targets, and what two watches of the whole cluster saw of them."""

    def __init__(self, stack: Stack, labs: Sequence[Lab], number: int, neighbours: int) -> None:
        self.targets = [(labs[i % len(labs)], f"chat-{i}") for i in range(number)]
        self._neighbours = [(labs[i % len(labs)], f"other-{i}") for i in range(math.ceil(neighbours / NEIGHBOUR))]
        api = client_of(str(stack.kubeconfig))
        self._apps, self._core = client.AppsV1Api(api), client.CoreV1Api(api)
        self._namespaces = {lab.namespace for lab in labs}
        self.ready: list[tuple[tuple[str, str], float]] = []
        """Each new Ready pod by its target: (namespace, name), and when it was seen."""
        self.writes: dict[tuple[str, str], list[float]] = {}
        """Writes of each target that move it: times, in seconds of the monotonic clock."""
        self._known: set[str] = set()
        self._generations: dict[tuple[str, str], int] = {}
        self.deployments: dict[tuple[str, str], Any] = {}

    def watched(self) -> AbstractContextManager[None]:
        pods = self._core.list_pod_for_all_namespaces, self._pod
        deployments = self._apps.list_deployment_for_all_namespaces, self._deployment
        return watched(pods, deployments, limit_s=3600)

    def _pod(self, found: Any, now: float) -> None:
        metadata = found["metadata"]
        if metadata["namespace"] not in self._namespaces or metadata["uid"] in self._known:
            return
        if any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", [])):
            self._known.add(metadata["uid"])
            self.ready.append(((metadata["namespace"], metadata["labels"]["app"]), now))

    def _deployment(self, found: Any, now: float) -> None:
        metadata = found["metadata"]
        key = metadata["namespace"], metadata["name"]
        if key[0] not in self._namespaces:
            return
        self.deployments[key] = found
        before, self._generations[key] = self._generations.get(key, 0), metadata["generation"]
        if metadata["generation"] > before and not found["spec"].get("paused"):  # a pause ends a move, begins none
            self.writes.setdefault(key, []).append(now)

    def ready_to_write(self, since: float, keys: set[tuple[str, str]]) -> list[tuple[float, float]]:
        """Return when each pod became Ready, in seconds since then, and the seconds to its target's next write."""
        pairs = ((at, min((w for w in self.writes.get(key, []) if w >= at), default=None))
                 for key, at in self.ready if at >= since and key in keys)  # fmt: skip
        return [(at - since, write - at) for at, write in pairs if write is not None]

    def are_rolled(self, image: str) -> bool:
        """Whether every target runs only this image, and all of it is available."""
        return all(_is_rolled(self.deployments.get((lab.namespace, name)), image) for lab, name in self.targets)

    def have_neighbours(self) -> bool:
        """Whether every other server is available."""
        found = (self.deployments.get((lab.namespace, name), {}) for lab, name in self._neighbours)
        return all(each.get("status", {}).get("availableReplicas") == NEIGHBOUR for each in found)

    def create(self) -> Iterable[Callable[[], Any]]:
        every = ((self.targets, REPLICAS), (self._neighbours, NEIGHBOUR))
        for lab, name, replicas in ((*each, replicas) for servers, replicas in every for each in servers):
            template = pod_template(name, "ready", f"{READY_AFTER_S:g}s", "example/chat:1")
            spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template,
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": BUDGET}}  # fmt: skip
            body = {"metadata": {"name": name}, "spec": spec}
            yield partial(create, lab.apps.create_namespaced_deployment, lab.namespace, body)

    def set_image(self, image: str) -> Iterable[Callable[[], Any]]:
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": image}]}}}}
        for lab, name in self.targets:
            yield partial(lab.patch, name, patch)


def _is_rolled(found: Any, image: str) -> bool:
    if found is None or found["spec"]["template"]["spec"]["containers"][0]["image"] != image:
        return False
    status = found.get("status", {})
    counts = {status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas")}
    is_seen: bool = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    return is_seen and counts == {REPLICAS}


async def all_of(calls: Iterable[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Run them with at most AT_ONCE under way."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(call: Callable[[], Awaitable[Any]]) -> Any:
        async with room:
            return await call()

    return await asyncio.gather(*(one(call) for call in calls))


async def in_threads(calls: Iterable[Callable[[], Any]]) -> None:
    await all_of(partial(asyncio.to_thread, call) for call in calls)


class Counted:
    """Requests of the worker, as the API server counts them: one flow schema for its reads, one for its writes."""

    def __init__(self, stack: Stack) -> None:
        self._api = client_of(str(stack.kubeconfig))
        self._schemas = client.FlowcontrolApiserverV1Api(self._api)
        self._names = {"reads": READS, "writes": WRITES}

    @contextmanager
    def counting(self) -> Iterator["Counted"]:
        for name, verbs in self._names.items():
            create(self._schemas.create_flow_schema, _schema(f"bench-scale-{name}", verbs))
        try:
            yield self
        finally:
            for name in self._names:
                self._schemas.delete_flow_schema(f"bench-scale-{name}")

    def so_far(self) -> tuple[int, int]:
        """Return how many reads and writes there were."""
        url = f"{self._api.configuration.host}/metrics"
        text = str(self._api.rest_client.request("GET", url).read().decode())  # type: ignore[no-untyped-call]
        lines = [line for line in text.splitlines()
                 if line.startswith("apiserver_flowcontrol_dispatched_requests_total")]  # fmt: skip
        reads, writes = (
            sum(float(line.rpartition(" ")[2]) for line in lines if f'"bench-scale-{name}"' in line)
            for name in self._names
        )
        return round(reads), round(writes)


def _schema(name: str, verbs: Sequence[str]) -> dict[str, Any]:
    every = {"verbs": list(verbs), "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    subject = {"kind": "User", "user": {"name": "segue-worker"}}
    return {
        "metadata": {"name": name},
        "spec": {
            "matchingPrecedence": 500,
            "priorityLevelConfiguration": {"name": "workload-high"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [subject], "resourceRules": [every]}],
        },
    }


@dataclass
class Bench:
    """One run."""

    stack: Stack
    lab: Lab
    cluster: Cluster
    worker: WorkerProcess
    metrics: str
    sdk_metrics: str
    found: Figures
    runs: dict[tuple[str, str], Run] = field(default_factory=dict)

    def _pid(self, part: str) -> int:
        found = next(status.pid for status in self.stack.status() if status.name == part)
        assert found is not None
        return found

    @property
    def worker_now(self) -> Taken:
        return taken(self.worker.process.pid)

    def _heartbeats(self) -> float:
        return sample(self.sdk_metrics, "temporal_request_total", HEARTBEATS)

    def _looks(self) -> float:
        return sample(self.metrics, "segue_looks_total")

    async def plain(self) -> None:
        """Roll all targets by the Deployment controller."""
        _say("the plain controller rolls all")
        pid = self._pid("kube-controller-manager")
        cpu, began = taken(pid).cpu_s, time.monotonic()
        await in_threads(self.cluster.set_image("example/chat:2"))
        await until("all to be rolled by their controller", lambda: self.cluster.are_rolled("example/chat:2"), LIMIT_S)
        self.found.plain_all_done_s = time.monotonic() - began
        self.found.plain_controller_cpu_s = taken(pid).cpu_s - cpu

    async def start(self) -> None:
        """Start all rollouts, and wait until each waits for an approval."""
        _say("all rollouts start")
        before = self.worker_now
        self.found.worker_mib_before = before.rss_mib
        began = time.monotonic()
        await all_of((lambda lab=lab, name=name: self._start(lab, name)) for lab, name in self.cluster.targets)  # type: ignore[misc]
        self.found.starts_per_s = len(self.cluster.targets) / (time.monotonic() - began)
        await self._until_count(len(self.cluster.targets), "SeguePhase = 'AwaitingApproval'")
        self.found.all_at_approval_s = time.monotonic() - began
        self.found.start_worker_cpu_s = self.worker_now.cpu_s - before.cpu_s

    async def _start(self, lab: Lab, name: str) -> None:
        strategy = {**BUDGET, "waypoints": [{"at": 1, "approval": True}]}
        change = {"images": {"server": "example/chat:3"}}
        readiness = {"minReady": "0s", "deadline": "30m"}
        self.runs[lab.namespace, name] = await lab.start(
            name, change, tuning=contract.Tuning(), strategy=strategy, readiness=readiness
        )

    async def _count(self, query: str) -> int:
        mine = f"TaskQueue = '{self.lab.task_queue}' AND {query}"
        return (await self.lab.temporal.count_workflows(mine)).count

    async def _until_count(self, wanted: int, *queries: str) -> None:
        async def are_there() -> bool:
            return sum([await self._count(query) for query in queries]) >= wanted

        await until(f"{wanted} of {' or '.join(queries)}", are_there, LIMIT_S, 0.5)

    async def rest(self, seconds: float, settle_s: float) -> None:
        """Measure what rollouts cost that wait for a person."""
        _say("all wait")
        await asyncio.sleep(settle_s)  # what belongs to the starts ends
        temporal = self._pid("temporal")
        began, worker, server = time.monotonic(), self.worker_now, taken(temporal)
        beats, looks = self._heartbeats(), self._looks()
        await asyncio.sleep(seconds)
        found, took, now, server_now = self.found, time.monotonic() - began, self.worker_now, taken(temporal)
        found.idle_worker_cores = (now.cpu_s - worker.cpu_s) / took
        found.idle_temporal_cores = (server_now.cpu_s - server.cpu_s) / took
        found.idle_worker_mib, found.idle_temporal_mib = now.rss_mib, server_now.rss_mib
        found.heartbeats_per_s = (self._heartbeats() - beats) / took
        found.looks_per_s = (self._looks() - looks) / took

    async def abort_some(self, number: int) -> None:
        """Abort some, one after the other, while all others wait."""
        _say(f"{number} are aborted one after the other")
        for key in list(self.runs)[:number]:
            began = time.monotonic()
            await self.runs.pop(key).send("abort", reason="bench")

            def written(key: tuple[str, str] = key, began: float = began) -> float | None:
                return min((at for at in self.cluster.writes.get(key, []) if at >= began), default=None)

            at = await until(f"{key} to be written back", written, LIMIT_S, 0.01)
            self.found.abort_to_write_s.append(at - began)

    async def approve_all(self) -> None:
        """Approve all others at once, and wait for their ends."""
        _say("all others are approved")
        began, cpu = time.monotonic(), self.worker_now.cpu_s
        keys = set(self.runs)
        await all_of((lambda run=run: run.signal("approve")) for run in self.runs.values())  # type: ignore[misc]
        await self._until_count(len(keys), "SegueOutcome = 'Completed'", HELD)
        self.found.all_done_s = time.monotonic() - began
        self.found.held = await self._count(HELD)
        self.found.roll_worker_cpu_s = self.worker_now.cpu_s - cpu
        waited = self.cluster.ready_to_write(began, keys)
        self.found.ready_to_write_s = [seconds for _, seconds in waited]
        self.found.slow_at_s = [at for at, seconds in waited if seconds > SLOW_S]

    async def payloads(self) -> None:
        """Find the largest payload in one history."""
        run = next(iter(self.runs.values()))
        events = (await run.handle.fetch_history()).events
        self.found.largest_payload_bytes = max(event.ByteSize() for event in events)


async def measure(stack: Stack, options: argparse.Namespace) -> Figures:
    namespaces = math.ceil(options.rollouts / PER_NAMESPACE)
    found = Figures(options.rollouts, namespaces, options.neighbours, machine())
    async with AsyncExitStack() as ends:
        lab = await ends.enter_async_context(open_lab(stack))
        labs = [lab, *[await ends.enter_async_context(open_lab(stack, lab.task_queue)) for _ in range(namespaces - 1)]]
        if options.room:
            ends.callback(_grant_room(stack))
        cluster = Cluster(stack, labs, options.rollouts, options.neighbours)
        counted = ends.enter_context(Counted(stack).counting())
        ends.enter_context(cluster.watched())
        _say("all targets are created")
        await in_threads(cluster.create())
        await until("all targets", lambda: cluster.are_rolled("example/chat:1"), LIMIT_S)
        await until("all other servers", cluster.have_neighbours, LIMIT_S)
        metrics, sdk_metrics = free_address(), free_address()
        worker = lab.worker(SEGUE_HEALTH_ADDRESS=metrics, SEGUE_SDK_METRICS_ADDRESS=sdk_metrics)
        await worker.serves()
        bench = Bench(stack, lab, cluster, worker, metrics, sdk_metrics, found)
        await bench.plain()
        before = counted.so_far()
        await bench.start()
        await bench.rest(options.rest, options.settle)
        await bench.abort_some(max(1, options.rollouts // 10))
        await bench.approve_all()
        reads, writes = (a - b for a, b in zip(counted.so_far(), before, strict=True))
        found.reads_per_rollout, found.writes_per_rollout = reads / options.rollouts, writes / options.rollouts
        await bench.payloads()
    return found


def _grant_room(stack: Stack) -> Callable[[], None]:
    """Let the worker count the room on nodes, as deploy/rbac-room.yaml publishes it; the result takes it back."""
    rbac = client.RbacAuthorizationV1Api(client_of(str(stack.kubeconfig)))
    role, binding = yaml.safe_load_all((ROOT / "deploy/rbac-room.yaml").read_text())
    rbac.create_cluster_role(role)
    rbac.create_cluster_role_binding(binding)

    def take_back() -> None:
        rbac.delete_cluster_role_binding(binding["metadata"]["name"])
        rbac.delete_cluster_role(role["metadata"]["name"])

    return take_back


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def machine() -> str:
    """Return the machine's state: without it, no figure can be compared."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def print_table(found: Figures) -> None:
    done = found.rollouts - len(found.abort_to_write_s)
    rows = [
        (f"{found.rollouts} rollouts of {REPLICAS} replicas in {found.namespaces} namespaces", found.machine),
        ("pods of other servers in them", str(found.neighbours)),
        ("starts accepted", f"{found.starts_per_s:.1f} a second"),
        ("start to all at their approval", f"{found.all_at_approval_s:.1f} s"),
        ("  worker's CPU for it, a rollout", f"{found.start_worker_cpu_s / found.rollouts:.3f} s"),
        ("all wait: worker", f"{found.idle_worker_cores:.3f} cores, {found.idle_worker_mib:.0f} MiB"),
        ("  memory a rollout", f"{(found.idle_worker_mib - found.worker_mib_before) / found.rollouts:.2f} MiB"),
        ("all wait: Temporal", f"{found.idle_temporal_cores:.3f} cores, {found.idle_temporal_mib:.0f} MiB"),
        ("all wait: heartbeats, looks", f"{found.heartbeats_per_s:.1f}, {found.looks_per_s:.1f} a second"),
        ("abort to first write back, beside the others", _quantiles(found.abort_to_write_s)),
        (f"{done} approved at once, to all done", f"{found.all_done_s:.1f} s (bound {found.bound_s:g} s)"),
        ("  of them held for a person (must be 0)", str(found.held)),
        ("  worker's CPU for it, a rollout", f"{found.roll_worker_cpu_s / max(1, done):.3f} s"),
        ("  Ready to next write", _quantiles(found.ready_to_write_s)),
        (f"  of them later than {SLOW_S:g} s, by the time after the approval", _span(found.slow_at_s)),
        ("plain Deployment controller, all done", f"{found.plain_all_done_s:.1f} s"),
        ("  its CPU, a target", f"{found.plain_controller_cpu_s / found.rollouts:.3f} s"),
        ("API reads, writes a rollout", f"{found.reads_per_rollout:.1f}, {found.writes_per_rollout:.1f}"),
        ("largest event of a history", f"{found.largest_payload_bytes} bytes"),
    ]
    for name, figure in rows:
        print(f"{name:<60}{figure}")


def _quantiles(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"p50 {percentile(values, 0.5):.3f} s, p99 {percentile(values, 0.99):.3f} s ({len(values)})"


def _span(values: Sequence[float]) -> str:
    if not values:
        return "none"
    least, most = percentile(values, 0.0), percentile(values, 1.0)
    return f"{len(values)}, after {least:.0f} to {most:.0f} s (p50 {percentile(values, 0.5):.0f} s)"


def as_json(found: Figures) -> str:
    """Return one line for comparing runs: lists as their percentiles."""
    shown = {
        key: {"p50": round(percentile(value, 0.5), 3), "p99": round(percentile(value, 0.99), 3)}
        if isinstance(value, list) and value
        else round(value, 4) if isinstance(value, float) else value
        for key, value in asdict(found).items()
    }  # fmt: skip
    return json.dumps(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--rest", type=float, default=30.0, help="seconds of waiting that are measured")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before that")
    parser.add_argument("--neighbours", type=int, default=0, help="pods of other servers in the same namespaces")
    parser.add_argument("--room", action="store_true", help="grant deploy/rbac-room.yaml too")
    options = parser.parse_args()
    pods = options.rollouts * (REPLICAS + BUDGET["maxSurge"]) + options.neighbours
    with plain_stack("bench-scale", fake_nodes=max(3, 1 + math.ceil(pods / PODS_PER_NODE))) as stack:
        found = asyncio.run(measure(stack, options))
    print_table(found)
    print(as_json(found))


if __name__ == "__main__":
    main()
