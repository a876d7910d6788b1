"""Plays one day on a stack: real workers behind a proxy, real servers that are killed and frozen, real rollouts."""

import asyncio
import contextlib
import os
import random
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from gate_servers import SECRET, Webhooks, webhook_server
from harness import Lab, Run, WorkerProcess, open_lab
from kubernetes import client
from segue_local import LocalStackError, Stack
from skewed_worker import SKEW
from subjects import SUBJECTS, Subject
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError
from temporalio.worker import Replayer

from segue import contract
from segue.report import Report, to_markdown
from segue.status import Status
from weather import judge
from weather.admission import as_sent
from weather.api_proxy import ApiProxy, api_proxy
from weather.autoscalers import autoscale, changed_autoscalers
from weather.events import FOREIGN_ANNOTATION, OUTAGE, Events
from weather.eyes import Eyes
from weather.leading import Leading, LedPair
from weather.scenario import FOREIGN, Day, Fault, Rolled
from worker.compose import make_plugin

TUNING = contract.Tuning(heartbeat_s=4.0, rest_heartbeat_s=6.0, write_s=8.0, recheck_s=1.0)
_START_ORDER = ("etcd", "kube-apiserver", "temporal", "kube-controller-manager", "kube-scheduler", "kwok", "lws")
CLUSTER = ("etcd-", "kube-")
"""The names of the faults of the cluster's servers begin so."""
LEASES = "kube-node-lease"
"""The namespace of the leases of nodes."""
OLD_VERSIONS = {"1", "9"}
"""Of a pair's old side; 9 is what somebody else makes of it."""
OUTCOMES = {"Completed", "RolledBack", "Aborted"}
END_S = 360.0
"""A rollout ends within this time once the weather is fine and people answer. In the second half they resume nothing: a
resume begins another `readiness.deadline`, of two minutes at the most."""
SETTLED_S = 120.0
AGAIN_S = 30.0
"""People wait this long before they repeat an abort, and a third of it before they try something else."""
OUTAGE_S = 60.0
OVERDUE_S = 10.0
"""A kubelet removes a pod at the latest so long after its grace period."""
_MUST_NOT_BE_LOGGED = re.compile(r"nondeterminism|TMPRL1100|was never retrieved|AssertionError", re.IGNORECASE)

T = TypeVar("T")


@dataclass
class Outcome:
    """What became of one rollout."""

    rolled: Rolled
    ended: str
    wrong: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """What happened to it, and its report."""


class Weather:
    """The workers and servers of a day, and what happens to them."""

    def __init__(self, stack: Stack, fleet: Lab, proxy: ApiProxy, webhooks: str) -> None:
        self._stack, self._proxy, self._fleet, self._webhooks = stack, proxy, fleet, webhooks
        self._skew = self._fleet.stack.state_dir / f"skew-{self._fleet.namespace}"
        """Holds by how many seconds the workers' clock is wrong."""
        self._skew.write_text("0")
        self.worker = self._new_worker()
        self.log: list[str] = []
        self.outages: list[tuple[float, float]] = []
        """When servers of the cluster were away, in monotonic seconds."""
        self.taken: set[str] = set()
        """The uids of the pods that a fault of a node removed, and of the leaders of their groups."""
        self._down: set[str] = set()
        """The servers that stay dead for now."""
        self._silent: set[str] = set()
        """The nodes that were not ready when they were looked at last."""
        self._restarting = threading.Lock()

    def _new_worker(self) -> WorkerProcess:
        given = {"KUBECONFIG": str(self._proxy.kubeconfig), "SEGUE_WEBHOOKS": self._webhooks, SKEW: str(self._skew)}
        return self._fleet.worker(module="skewed_worker", **given)

    def pass_over(self, faults: tuple[Fault, ...], start: float) -> None:
        """Let all faults happen at their times, and return when each is over; several may overlap."""
        with ThreadPoolExecutor(max(1, len(faults))) as pool:
            list(pool.map(lambda fault: self._happen(fault, start), faults))

    def clear(self) -> None:
        """Start everything that is still dead."""
        self._down.clear()
        self.restart_dead(tries=5)
        if not self.worker.lives:
            self.worker.start()

    def _happen(self, fault: Fault, start: float) -> None:
        time.sleep(max(0.0, start + fault.at - time.monotonic()))
        began = time.monotonic()
        self.log.append(f"{began:.2f} {fault.what} for {fault.lasts} s")
        with self._lasting(fault):
            time.sleep(fault.lasts)
        if fault.what.startswith(CLUSTER):
            self.outages.append((began, time.monotonic()))
        if fault.what.startswith(("etcd", "kube-apiserver")):
            self._renew_nodes()
        self.log.append(f"{time.monotonic():.2f} {fault.what} is over")

    @contextlib.contextmanager
    def _lasting(self, fault: Fault) -> Iterator[None]:
        subject, _, how = fault.what.rpartition("-")
        if fault.what == "worker-clock":
            self._skew.write_text(str(random.Random(fault.dice).choice((-3600, -30, 30, 3600))))
            yield
            self._skew.write_text("0")
        elif subject == "worker":
            yield from self._worker(how)
        elif subject == "node":
            yield from self._silent_node(fault)
        elif fault.what == "two-workers":
            second = self._new_worker()
            yield
            second.kill()
        elif how == "killed":
            with self._restarting:
                self._down.add(subject)
                self._stack.kill(subject)
            yield
            self._down.discard(subject)
            self.restart_dead()
        elif how == "stopped":
            with self._restarting:
                pids = [part.pid for part in self._stack.status() if part.name == subject and part.pid]
            _signal(pids, signal.SIGSTOP)
            yield
            _signal(pids, signal.SIGCONT)
        else:
            self._proxy.weather.add(fault.what)
            yield
            self._proxy.weather.discard(fault.what)

    def _silent_node(self, fault: Fault) -> Iterator[None]:
        """Take a node's lease from the fake kubelet: until it has it again, nothing on the node changes."""
        core, leases = self._fleet.core, client.CoordinationV1Api(self._fleet.core.api_client)
        listed: Any = persistently(core.list_node)
        nodes = sorted(str(node.metadata.name) for node in listed.items)
        name = random.Random(fault.dice).choice(nodes)
        self.log.append(f"{time.monotonic():.2f} the node {name} does not answer")
        taken = {"holderIdentity": "nobody", "leaseDurationSeconds": 3600, "renewTime": datetime.now(UTC)}
        persistently(lambda: leases.patch_namespaced_lease(name, LEASES, {"spec": taken}))
        yield
        expired = {"spec": {"leaseDurationSeconds": 1}}
        persistently(lambda: leases.patch_namespaced_lease(name, LEASES, expired))
        self._remove_unready(name)

    def _remove_unready(self, node: str) -> None:
        """Remove the pods that Kubernetes reported as unready: the fake kubelet reports none of them again."""
        core = self._fleet.core
        listed: Any = persistently(core.list_pod_for_all_namespaces)
        uids = {(pod.metadata.namespace, pod.metadata.name): pod.metadata.uid for pod in listed.items}
        for pod in listed.items:
            metadata = pod.metadata
            is_ready = any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())
            if pod.spec.node_name != node or is_ready:
                continue
            # With a worker of a group, its leader goes: the worker's StatefulSet has its name.
            leaders = [(metadata.namespace, owner.name) for owner in metadata.owner_references or ()]
            self.taken |= {uids[each] for each in ((metadata.namespace, metadata.name), *leaders) if each in uids}
            # Another version of it may be ready by now.
            as_read: Any = {"preconditions": {"resourceVersion": metadata.resource_version}, "gracePeriodSeconds": 0}
            with contextlib.suppress(*OUTAGE):  # it is gone
                core.delete_namespaced_pod(metadata.name, metadata.namespace, body=as_read)

    def _worker(self, how: str) -> Iterator[None]:
        if how == "killed":
            self.worker.kill()
        elif self.worker.lives:  # another fault may have killed it
            self.worker.send(signal.SIGSTOP)
        yield
        with self._restarting:  # two faults may end at the same time
            if self.worker.lives:
                self.worker.send(signal.SIGCONT)
            else:
                self.worker.start()

    def restart_dead(self, tries: int = 1) -> None:
        """Start dead servers, except those that stay dead and what needs them."""
        with self._restarting:
            dead = [part.name for part in self._stack.status() if not part.alive and part.name not in self._down]
            needs_etcd = {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
            possible = [name for name in dead if "etcd" not in self._down or name not in needs_etcd]
            for name in sorted(possible, key=_START_ORDER.index):
                try:
                    self._stack.restart(name)
                except (LocalStackError, OSError) as error:
                    self.log.append(f"{time.monotonic():.2f} {name} does not start: {str(error)[:200]}")
        if tries > 1:
            self.restart_dead(tries - 1)

    def _renew_nodes(self) -> None:
        """Start KWOK again: after an outage of the API server, it may send no more heartbeats of a node."""
        with self._restarting:
            self._stack.kill("kwok")
        self.restart_dead()

    def mend_nodes(self) -> None:
        """Do what kubelets do after an outage, and KWOK may not: keep nodes ready, remove pods until they are gone."""
        core, now = self._fleet.core, datetime.now(UTC)
        with contextlib.suppress(*OUTAGE):
            nodes: Any = core.list_node()
            before, self._silent = self._silent, {node.metadata.name for node in nodes.items if not _is_ready(node)}
            if silent := sorted(before & self._silent):
                self._silent = set()
                self.log.append(f"{time.monotonic():.2f} KWOK is started again: {', '.join(silent)} not ready")
                self._renew_nodes()
            listed: Any = core.list_pod_for_all_namespaces(field_selector="spec.nodeName!=")
            for pod in listed.items:
                killed_at = pod.metadata.deletion_timestamp
                if killed_at is not None and (now - killed_at).total_seconds() > OVERDUE_S:
                    self.log.append(f"{time.monotonic():.2f} {pod.metadata.name} is removed, which KWOK forgot")
                    at_once: Any = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}}
                    core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, body=at_once)

    def alarms(self) -> list[str]:
        """Return the lines of the workers' logs that must not be there."""
        logs = (worker.log.read_text(errors="replace") for worker in self._fleet.workers)
        return [line[:300] for log in logs for line in log.splitlines() if _MUST_NOT_BE_LOGGED.search(line)]


def _is_ready(node: Any) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions or ())


def persistently(call: Callable[[], T]) -> T:
    """Repeat a call through an outage of the API server."""
    ends = time.monotonic() + OUTAGE_S
    while True:
        try:
            return call()
        except OUTAGE:
            if time.monotonic() >= ends:
                raise
            time.sleep(1)


async def play(stack: Stack, day: Day) -> list[Outcome]:
    """Play one day, and return what became of each of its rollouts."""
    with (
        api_proxy(stack.kubeconfig_for("segue-worker"), stack.state_dir, day.seed) as proxy,
        tempfile.TemporaryDirectory() as folder,
    ):
        secret = Path(folder) / "secret"
        secret.write_bytes(SECRET)
        await asyncio.to_thread(stack.add_gateway_api)
        async with open_lab(stack) as fleet, webhook_server(Path(folder)) as hooks:
            weather = Weather(stack, fleet, proxy, hooks.settings(secret))
            # A server can end by itself after an outage of another, such as the scheduler without its lease.
            await asyncio.to_thread(weather.clear)
            await weather.worker.serves()
            together = fleet.namespace if day.together else ""
            made, started = (threading.Barrier(len(day.rollouts) + extra) for extra in (0, 1))
            fine = threading.Event()
            players = [
                Player(stack, fleet.task_queue, rolled, day, proxy, hooks, made, started, fine, together, weather)
                for rolled in day.rollouts
            ]
            # Each has a thread and a loop of its own: a call that hangs in an outage blocks nobody else.
            with ThreadPoolExecutor(len(players) + 1) as pool:
                futures = [pool.submit(lambda each=each: asyncio.run(each.play())) for each in players]  # type: ignore[misc]
                try:
                    await asyncio.to_thread(started.wait, 300)
                    await asyncio.to_thread(weather.pass_over, day.weather, time.monotonic())
                except threading.BrokenBarrierError:
                    pass
                finally:
                    await asyncio.to_thread(weather.clear)
                    fine.set()
                swept = time.monotonic()
                while not all(future.done() for future in futures):
                    # The scheduler and the controller manager end some seconds after they lose the API server.
                    await asyncio.sleep(2)
                    await asyncio.to_thread(weather.restart_dead)
                    if time.monotonic() - swept > OVERDUE_S:
                        await asyncio.to_thread(weather.mend_nodes)
                        swept = time.monotonic()
                outcomes = [await asyncio.wrap_future(future) for future in futures]
            alarms = weather.alarms()
            for outcome in outcomes[:1]:
                outcome.wrong += [f"the worker logs {each}" for each in alarms[:3]]
            for outcome in outcomes:
                outcome.lines = [*weather.log, *outcome.lines]
            return outcomes


class Player:
    """Plays one rollout of a day."""

    def __init__(
        self, stack: Stack, queue: str, rolled: Rolled, day: Day, proxy: ApiProxy, hooks: Webhooks,
        made: threading.Barrier, started: threading.Barrier, fine: threading.Event, together: str,
        weather: Weather,
    ) -> None:  # fmt: skip
        self.stack, self.queue, self.rolled, self.day, self.proxy = stack, queue, rolled, day, proxy
        self.hooks, self.made, self.started, self.fine, self.together = hooks, made, started, fine, together
        self.weather = weather
        self.dice = random.Random(f"people of {day.seed} {rolled.name}")
        self.reasons: set[str] = set()
        self.answered: dict[str, float] = {}
        """What people answered at the end, and when last."""
        self.status: Status | None = None

    async def play(self) -> Outcome:
        """Play it, and judge it."""
        try:
            async with open_lab(self.stack, self.queue, joins=self.together) as lab:
                return await self._play(lab)
        except BaseException:
            self.made.abort()
            self.started.abort()
            raise

    async def _play(self, lab: Lab) -> Outcome:
        if self.rolled.traffic is None:
            subject = SUBJECTS[self.rolled.kind](lab, self.rolled.name)
            await subject.create(self.rolled.replicas, ready_after=self.rolled.ready_after)
            return await self._play_subject(subject, None)
        pair = LedPair(lab, self.rolled.name)
        await pair.create(self.rolled.replicas, ready_after=self.rolled.ready_after)
        async with Leading(pair, self.rolled.traffic).answered() as leading:
            return await self._play_subject(pair, leading)

    async def _play_subject(self, subject: Subject, leading: Leading | None) -> Outcome:
        rolled, lab = self.rolled, subject.lab
        if "autoscaler" in rolled.spec:
            autoscale(subject)
        before = subject.settings()
        eyes = Eyes(subject, rolled.replicas)
        await asyncio.to_thread(self.made.wait, 300)
        change = subject.changed(2, rolled.mode)
        tuning = TUNING.model_copy(update={"history_events": self.dice.choice((4_000, 120))})
        run = await lab.start(rolled.name, change, tuning=tuning, **{"target": subject.target, **rolled.spec})
        await asyncio.to_thread(self.started.wait, 300)
        start, events = time.monotonic(), Events(subject, run, eyes, leading)
        ending = asyncio.create_task(_end(run))
        await self._until_over(events, start, ending)
        ended_as = await self._closed(events, ending)
        outcome = Outcome(rolled, ended_as)
        outcome.wrong += await self._judged(events, before, ended_as)
        if outcome.wrong:
            outcome.lines = [*events.done.log, *(await _reported(run)), *_told(eyes.moments, outcome.wrong)]
        return outcome

    async def _until_over(self, events: Events, start: float, ending: "asyncio.Task[str]") -> None:
        async def at(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, start + fault.at - time.monotonic()))
            if not ending.done():
                await events.happen(fault)

        looking = asyncio.create_task(self._look(events, ending))
        await asyncio.gather(*map(at, self.rolled.faults))
        await asyncio.to_thread(self.fine.wait, 600)
        looking.cancel()

    async def _look(self, events: Events, ending: "asyncio.Task[str]") -> None:
        """Read the status now and then, as a person does."""
        while not ending.done():
            await self._status(events.run)
            await asyncio.sleep(2)

    async def _status(self, run: Run) -> Status | None:
        self.status = None
        with contextlib.suppress(Exception):  # it can be away, or busy
            self.status = await asyncio.wait_for(run.status(), 5)
            self.reasons |= {each for each in (self.status.waiting_for, self.status.reason) if each}
        return self.status

    async def _closed(self, events: Events, ending: "asyncio.Task[str]") -> str:
        """Let people do what the rollout waits for until it ends, and return how it ended; empty if it does not."""
        ends = time.monotonic() + END_S
        last: Status | None = None
        while not ending.done() and time.monotonic() < ends:
            events.mend()
            last = await self._status(events.run) or last
            told = f"{self.status.waiting_for}; {self.status.reason}" if self.status else ""
            await asyncio.to_thread(events.obey, told)
            patient = time.monotonic() < ends - END_S / 2
            answer = None if self.status is None or ending.done() else self._answer(self.status, patient=patient)
            if answer:
                self.answered[answer] = time.monotonic()
                await events.message(answer)
            await asyncio.wait({ending}, timeout=2)
        if ending.done():
            return await ending
        ending.cancel()
        events.note(f"does not end: {last!r}")
        return ""

    def _answer(self, status: Status, *, patient: bool) -> str | None:
        if status.phase == "AwaitingApproval" and "approve" in status.can:
            return "approve"
        if status.phase not in {"Paused", "Held", "NeedsHuman"} and not status.needs_person:
            return None
        if time.monotonic() - max(self.answered.values(), default=0.0) < AGAIN_S / 3:
            return None
        if "resume" in status.can and "resume" not in self.answered:
            return "resume"
        if "retarget" in status.can and "retarget" not in self.answered and self.dice.random() < 0.5:
            return "retarget"
        if patient and "resume" in status.can and self.dice.random() < 0.5:
            return "resume"
        if time.monotonic() - self.answered.get("abort", 0.0) < AGAIN_S:
            return None
        return "abort" if "abort" in status.can else None

    # --- the judgement

    async def _judged(self, events: Events, before: dict[str, Any], ended_as: str) -> list[str]:
        subject, eyes, done = events.subject, events.eyes, events.done
        ready, replicas = -1, -1
        if ended_as in OUTCOMES:
            ready, replicas = await self._settled(events, ended_as)
        await asyncio.to_thread(eyes.close)
        budget = _budget(self.rolled)
        taken, is_groups = done.taken | self.weather.taken, self.rolled.kind == "LeaderWorkerSet"
        taken |= judge.successors(eyes.moments, taken) if is_groups else set()
        rolls_itself = is_groups and not self.rolled.spec["strategy"].get("waypoints")
        # Its own controller may leave no moment at which the floor can rise again, also for a group that just restarts.
        is_lower = ended_as != "Completed" or rolls_itself
        by_name = self.rolled.kind == "StatefulSet" or rolls_itself  # a pod that is lost comes back under its name
        unready = judge.unready_before(eyes.moments, by_name=by_name) if is_lower else 0
        # Only its own controllers move it: what they do while they catch up is theirs.
        catching_up = [ended for _, ended in self.weather.outages] if self.rolled.kind == "Supervised" else []
        seen = judge.Seen(
            eyes.moments, eyes.sizes, budget, eyes.requested, taken, done.spoiled, catching_up, done.misleading,
            outages=self.weather.outages, unready_before=unready,
        )  # fmt: skip
        found = judge.breaches(seen)[:3]
        if events.leading is not None:
            await asyncio.to_thread(events.leading.close)
            found += [*judge.misled(seen, events.leading.leads, OLD_VERSIONS)][:3]
        if ended_as not in OUTCOMES:
            return [*found, ended_as or f"does not end: {self.status!r}"]
        histories = await _histories(subject.lab, events.run)
        end = judge.End(
            outcome=ended_as,
            allowed=self._allowed(done.what),
            status=self.status.reason if self.status else "",
            images={pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in eyes.pods},
            expected_image=self._images(done.what),
            ready=ready,
            replicas=replicas,
            differences=[
                *(each for each in _differences(subject, ended_as, before) if not self._stays(each)),
                *(events.leading.differences(ended_as) if events.leading else ()),
            ],
            leftovers=[*_leftovers(subject, ended_as, eyes)],
            replay_error=await _replayed(histories),
            events=sum(len(history.events) for history in histories),
            writes=self.proxy.written(subject.lab.namespace, subject.name),
            moves=self.status.moves if self.status else 0,
            disturbances=len(done.what) + sum(int(1 + fault.lasts) for fault in self.day.weather),
            reasons=self.reasons,
            hook=self.rolled.hook,
            calls=sum(_is_about(subject, each["target"]) for each in self._questions()),
        )
        report = await events.run.handle.result()
        end.moves = report.status.moves
        return [*found, *judge.faults_of(end)]

    def _questions(self) -> list[dict[str, Any]]:
        return self.hooks.questions.get(self.rolled.hook, [])

    async def _settled(self, events: Events, ended_as: str) -> tuple[int, int]:
        """Wait until the end's pods are all that runs; return how many are ready, and how many are requested.

        What is still broken is mended: the API server may have been away when that was due. The target is read afresh,
        because a watch may lag behind the last write.
        """
        ends, eyes, replicas = time.monotonic() + SETTLED_S, events.eyes, -1
        expected = self._images([*FOREIGN])[ended_as]
        while time.monotonic() < ends:
            events.mend()
            with contextlib.suppress(*OUTAGE):
                replicas = await asyncio.to_thread(events.subject.replicas)
            pods = eyes.pods
            ready = sum(moment.is_ready for moment in eyes.moments[-1].pods.values())
            images = {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}
            if ready == len(pods) == replicas and len(images) == 1 and images <= set(expected):
                return ready, replicas
            await asyncio.sleep(0.5)
        return eyes.moments[-1].ready, replicas

    def _allowed(self, happened: list[str]) -> set[str]:
        all_of_it = {*happened, *self.answered}
        is_bad = self.rolled.mode != ""
        allowed = {"Aborted"} if "abort" in all_of_it else set()
        if not is_bad or "retarget" in all_of_it:
            allowed.add("Completed")
        if self.rolled.hook == "failing":
            allowed = allowed - {"Completed"} | {"RolledBack"}
        if is_bad or all_of_it & {"reject", "retarget-back", "retarget-bad", "pods-crash", "pods-unready"}:
            allowed.add("RolledBack")
        return allowed

    def _images(self, happened: list[str]) -> dict[str, set[str]]:
        wanted = {"3"} | ({"2"} if not self.rolled.mode else set())
        before = {"1", "9"} if self._keeps_foreign and "foreign-image" in happened else {"1"}
        return {"Completed": wanted, "RolledBack": before, "Aborted": before}

    @property
    def _keeps_foreign(self) -> bool:
        """Whether a rollback leaves what somebody else made of the old side: a pair's old template is never written."""
        return self.rolled.kind == "DeploymentPair"

    def _stays(self, difference: str) -> bool:
        return self._keeps_foreign and self.rolled.has("foreign-image") and ".template." in difference


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile: by itself, or by another fault
            os.kill(pid, number)


def _budget(rolled: Rolled) -> judge.Budget:
    if rolled.kind == "Supervised":
        return judge.Budget(1, 0)
    strategy = rolled.spec["strategy"]
    if "type" in strategy:  # both sides are whole at the switch
        return judge.Budget("100%", 0)
    return judge.Budget(strategy["maxSurge"], strategy["maxUnavailable"])


async def _end(run: Run) -> str:
    """Wait for the end through outages of Temporal; return the outcome."""
    while True:
        try:
            report = await run.handle.result()
        except WorkflowFailureError as error:
            return f"failed: {error.cause}"
        except RPCError:
            await asyncio.sleep(1)
        else:
            return str(report.status.outcome)


async def _reported(run: Run) -> list[str]:
    try:
        return to_markdown(
            await asyncio.wait_for(run.handle.query(contract.REPORT_QUERY, result_type=Report), 10)
        ).splitlines()
    except Exception as error:
        return [f"its report has no answer: {error}"]


async def _histories(lab: Lab, run: Run) -> list[Any]:
    """Return the histories of all runs of a rollout, from the first."""
    run_id, found = run.handle.first_execution_run_id or run.handle.result_run_id, []
    while run_id:
        history = await lab.temporal.get_workflow_handle(run.handle.id, run_id=run_id).fetch_history()
        found.append(history)
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


async def _replayed(histories: list[Any]) -> str:
    try:
        for history in histories:
            await Replayer(workflows=[], plugins=[make_plugin(sandboxed=True)]).replay_workflow(history)
    except Exception as error:
        return str(error)[:500]
    return ""


def _differences(subject: Subject, ended_as: str, before: dict[str, Any]) -> list[str]:
    try:
        expected, found = subject.settled(ended_as, before), subject.settings()
    except AssertionError as error:
        return [str(error)[:300]]
    return list(_different(as_sent(expected), as_sent(found), ""))


def _different(expected: Any, found: Any, path: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            if key in {FOREIGN_ANNOTATION, "replicas"}:
                continue
            yield from _different(expected.get(key), found.get(key), f"{path}.{key}")
    elif expected != found and not (expected in (None, {}) and found in (None, {})):
        yield f"{path} from {str(expected)[:200]} to {str(found)[:200]}"


def _is_about(subject: Subject, target: dict[str, str]) -> bool:
    names = {subject.name, f"{subject.name}-next"}
    return target["namespace"] == subject.lab.namespace and target["name"] in names


def _leftovers(subject: Subject, ended_as: str, eyes: Eyes) -> Iterator[str]:
    lab = subject.lab
    expected = {subject.name, f"operated-{subject.name}"}
    if subject.kind == "DeploymentPair" and ended_as == "Completed":
        expected.add(f"{subject.name}-next")
    deployments: list[Any] = lab.apps.list_namespaced_deployment(lab.namespace).items
    jobs: list[Any] = lab.batch.list_namespaced_job(lab.namespace).items
    found = {each.metadata.name for each in deployments}
    names = {name for name in found if subject.name in name.split("-")}  # others may be in the namespace
    yield from (f"Deployment {name}" for name in sorted(names - expected))
    yield from changed_autoscalers(subject)
    yield from (f"Job {each.metadata.name}" for each in jobs)
    for pod in eyes.pods:
        keys = [key for key in pod["metadata"].get("annotations", {}) if key.startswith("segue.dev/")]
        unknown = sorted(set(keys) - {"segue.dev/ready-after"})
        if unknown:
            yield f"annotations {unknown} on pod {pod['metadata']['name']}"


def _told(moments: Sequence[judge.Moment], wrong: Sequence[str]) -> list[str]:
    """Return the moments of its pods before the first one that is wrong, or the last ones."""
    lines = [str(moment) for moment in moments]
    at = next((i for i, line in enumerate(lines) if any(line in each for each in wrong)), len(lines))
    return ["the moments of its pods until then:", *lines[max(0, at - 40) : at + 6]]
