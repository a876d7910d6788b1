"""One local stack: starts, finds and inspects it, kills and restarts its parts, and removes it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from segue_local import kserve, lws, parts, ports, processes, temporal_config
from segue_local import node as real_node
from segue_local.build import (
    BINARIES,
    KSERVE,
    LWS,
    NODE_BINARIES,
    PROMETHEUS,
    TEMPORAL_SERVER,
    Progress,
    ensure_built,
)
from segue_local.errors import LocalStackError, PartFailed, Refused, StackNotRunning
from segue_local.gateway import add_definitions, ensure_definitions
from segue_local.layout import MASTERS, Layout
from segue_local.node import machine, network
from segue_local.node.handle import Node
from segue_local.node.servers import NODE_PARTS, NodeServers
from segue_local.parts import PARTS, PORTS, Blueprint
from segue_local.paths import stacks_dir, state_dir
from segue_local.postgres import ensure_postgres
from segue_local.prometheus import SCRAPE_INTERVAL_S, Access, configuration, write_targets
from segue_local.state import NodeRecord, PartRecord, State

DEFAULT_NODE_RESOURCES: Mapping[str, str] = MappingProxyType(
    {"cpu": "256", "memory": "2Ti", "pods": "1000", "nvidia.com/gpu": "8"}
)

# Long enough for a busy machine; a part that dies is reported at once, not at this deadline.
_HEALTHY_WITHIN_S = 90.0
_POLL_S = 0.05
_PORT_TRIES = 3
_LOG_LINES = 20
_PORT_TAKEN = re.compile(r"address already in use|can't set \w+ (\w+ )?port|can't use default UI port", re.I)


@dataclass(frozen=True)
class PartStatus:
    """The current state of one server.

    ``why`` and ``log_end`` are None while it is alive. ``since`` is the time of its last start, or None if it
    never started.
    """

    name: str
    pid: int | None
    alive: bool
    since: dt.datetime | None
    ports: Mapping[str, int]
    log: Path
    why: str | None = None
    log_end: str | None = None


@dataclass(frozen=True)
class _Plan:
    """The arguments of ``Stack.up``."""

    binaries: Mapping[str, Path]
    fake_nodes: int
    node: bool
    node_resources: Mapping[str, str] | None
    feature_gates: Mapping[str, bool]
    lws: bool
    kserve: bool
    prometheus: bool
    postgres: bool
    scrape_interval_s: float
    admits: Sequence[str]
    say: Progress

    def has(self, part: str) -> bool:
        """Return whether the requested stack has this part."""
        optional = {parts.LWS: self.lws, parts.KSERVE: self.kserve, parts.PROMETHEUS: self.prometheus}
        optional |= dict.fromkeys(temporal_config.PARTS, self.postgres)
        return optional.get(part, not (part == parts.DEV_SERVER and self.postgres))

    @property
    def fake_resources(self) -> Mapping[str, str]:
        return DEFAULT_NODE_RESOURCES if self.node_resources is None else self.node_resources

    def node_record(self, stack_dir: Path) -> NodeRecord | None:
        """Return the record of the real node, or None without one. Raises ``LocalStackError``."""
        if not self.node:
            return None
        chosen = network.choose(stack_dir)
        # Extended resources have a domain; the kubelet detects all others itself.
        extended = {name: amount for name, amount in (self.node_resources or {}).items() if "/" in name}
        return NodeRecord(chosen.name, chosen.subnet, extended, [*self.admits])


class _CancelledError(Exception):
    """Another part failed, so the wait ends."""


class Stack:
    """A Temporal server and a Kubernetes control plane, as processes on this machine, with fake nodes or a real one.

    Get one from ``Stack.up`` or ``Stack.find``.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._state_lock = threading.Lock()
        self._cancelled = threading.Event()
        self._layout = Layout(state_dir(state.name))
        binaries = {name: Path(path) for name, path in state.binaries.items()}
        self._blueprint = Blueprint(self._layout, state.ports, binaries, feature_gates=state.feature_gates)
        self._node: NodeServers | None = None
        if state.node is not None:
            joined = network.Network(state.node.network, state.node.subnet)
            self._blueprint = dataclasses.replace(self._blueprint, kubelet_network=joined)
            api_server = self._blueprint.api_server
            admits = state.node.admits
            self._blueprint = dataclasses.replace(self._blueprint, is_open=bool(admits))
            self._node = NodeServers(self._layout, joined, binaries, api_server, state.node.resources, admits)

    # -- start and find ---------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        name: str = "default",
        *,
        fake_nodes: int | None = None,
        node: bool = False,
        node_resources: Mapping[str, str] | None = None,
        feature_gates: Mapping[str, bool] | None = None,
        lws: bool = False,
        kserve: bool = False,
        prometheus: bool = False,
        postgres: bool = False,
        scrape_interval_s: float = SCRAPE_INTERVAL_S,
        admits: Sequence[str] = (),
        on_progress: Callable[[str], None] | None = None,
    ) -> Stack:
        """Start a stack and return when every part answers; a stack that is up is returned unchanged.

        ``node`` adds a real node with label ``segue.dev/node=real`` (``node_is_possible`` checks the machine).
        ``fake_nodes`` defaults to 3, or to 0 with a real node. Fake nodes have label ``segue.dev/node=fake``.
        ``node_resources`` are the resources of each fake node; the real node gets only the extended ones, such as
        ``example.com/accelerator``. ``feature_gates`` are those of the API server and the controller manager.
        ``lws`` adds LeaderWorkerSet, and ``kserve`` KServe (in standard mode: plain Deployments and Services), each
        with controller and webhooks. ``prometheus`` adds a Prometheus that scrapes pods annotated with
        ``prometheus.io/scrape``, every ``scrape_interval_s``. ``postgres`` replaces Temporal's dev server by two whole
        servers on PostgreSQL, with mutual TLS and JWT authorization; this installs Debian's package if it is missing.
        ``admits`` are namespaces whose pods on the real node may open connections to the API server (by Service
        ``kubernetes``) and to Temporal's dev server; all other pods reach nothing.

        Builds the servers if they are missing (minutes, once). First removes a broken stack of the same name.
        ``on_progress`` takes one line at a time, from several threads.
        Raises ``Refused``, ``GoMissing``, ``GoTooOld``, ``BuildFailed``, ``PartFailed`` or ``LocalStackError``;
        after a failure nothing runs, and the logs stay until the next ``up`` or ``down``.
        """
        state_dir(name)
        fake_nodes = (0 if node else 3) if fake_nodes is None else fake_nodes
        if fake_nodes < 1 and not node:
            raise Refused(f"{fake_nodes} fake nodes cannot run a pod: use 1 or more, or add a real node")
        if not 0.1 <= scrape_interval_s <= 3600:
            raise Refused(f"the scrape interval cannot be {scrape_interval_s:g} s: use 0.1 to 3600 s")
        if admits and postgres:
            raise Refused("pods reach only Temporal's dev server: admit none, or leave out postgres")
        if admits and not node:
            raise Refused(f"pods of {', '.join(admits)} can be admitted only on a real node: add one")
        say = on_progress or (lambda _line: None)
        if node:
            machine.prepare(say)
        wanted = BINARIES + NODE_BINARIES * node
        wanted += (LWS,) * lws + (KSERVE,) * kserve + (PROMETHEUS,) * prometheus + TEMPORAL_SERVER * postgres
        programs = {temporal_config.POSTGRES: ensure_postgres(say) / "postgres"} if postgres else {}
        gates = feature_gates or {}
        plan = _Plan(
            binaries={**ensure_built(on_progress, wanted), **programs},
            fake_nodes=fake_nodes,
            node=node,
            node_resources=node_resources,
            feature_gates=gates,
            lws=lws,
            kserve=kserve,
            prometheus=prometheus,
            postgres=postgres,
            scrape_interval_s=scrape_interval_s,
            admits=admits,
            say=say,
        )
        with _locked(name):
            running = cls.find(name)
            if running is not None and all(part.alive for part in running.status()):
                if node and running.node is None:
                    raise Refused(f"stack {name} is up without a real node: take it down first, or use another name")
                lacks = [
                    part
                    for part in (*parts.OPTIONAL, *temporal_config.PARTS)
                    if plan.has(part) and part not in running._parts
                ]
                others = running._state.node is not None and {*admits} != {*running._state.node.admits}
                if lacks or others or gates != dict(running._state.feature_gates):
                    raise Refused(f"stack {name} is up with other options: take it down first, or use another name")
                say(f"stack {name} is up already")
                return running
            for tries_left in reversed(range(_PORT_TRIES)):
                if _remove(name):
                    say(f"removed what was left of stack {name}")
                try:
                    return cls._start(name, plan)
                except PartFailed as failure:
                    if not tries_left or not _PORT_TAKEN.search(failure.log_end):
                        raise
                    say(f"another program took a port of {failure.part}: starting over with other ports")
        raise AssertionError("unreachable")

    @classmethod
    def find(cls, name: str = "default") -> Stack | None:
        """Return the stack of this name, even if parts have died; None when none came up."""
        state = State.load(Layout(state_dir(name)).state)
        return cls(state) if state is not None and state.complete else None

    @classmethod
    def all(cls) -> list[Stack]:
        """Return all stacks that came up, by name."""
        found = (cls.find(name) for name in cls.names())
        return [stack for stack in found if stack is not None]

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all stacks with a state folder, also of broken ones."""
        try:
            folders = sorted(path.name for path in stacks_dir().iterdir() if path.is_dir())
        except FileNotFoundError:
            return []
        return [name for name in folders if not name.startswith(".")]

    @classmethod
    def remove(cls, name: str = "default") -> bool:
        """Stop and remove the stack of this name, whatever its state; return False when there was none."""
        with _locked(name):
            return _remove(name)

    # -- what it is -------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name."""
        return self._state.name

    @property
    def state_dir(self) -> Path:
        """Its folder (0700), which contains all its files."""
        return self._layout.root

    @property
    def node(self) -> Node | None:
        """Its real node as last started, or None without one."""
        return self._node.handle(self._init) if self._node is not None else None

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator."""
        return self._layout.kubeconfig("admin")

    @property
    def temporal_address(self) -> str:
        """Host and port of Temporal's gRPC frontend, or of the balancer in front of several."""
        return f"{self._blueprint.temporal_host}:{self._temporal_port}"

    @property
    def temporal_ui(self) -> str | None:
        """The URL of Temporal's web UI, or None with whole servers."""
        return None if self._state.postgres else f"http://127.0.0.1:{self._state.ports['temporal-ui']}"

    def temporal_token(
        self, subject: str, permissions: Sequence[str], life_s: float = temporal_config.TOKEN_LIFE_S
    ) -> str:
        """Return a token (JWT) with permissions such as ``default:write``. Raises ``Refused`` without whole servers."""
        if not self._state.postgres:
            raise Refused(f"stack {self.name} needs no tokens: start one with `segue local up --postgres`")
        return self._blueprint.temporal_servers.token(subject, permissions, life_s)

    @property
    def prometheus(self) -> str | None:
        """The URL of its Prometheus, or None without one."""
        return f"http://127.0.0.1:{self._state.ports[parts.PROMETHEUS]}" if self._state.prometheus else None

    def scrape(self, name: str, addresses: Sequence[str], labels: Mapping[str, str] | None = None) -> None:
        """Let its Prometheus also scrape servers on this machine (host:port).

        A second call with the same name replaces them. Raises ``Refused`` for a stack without a Prometheus.
        """
        self._check(parts.PROMETHEUS)
        write_targets(self._layout.prometheus_targets / f"{name}.yaml", list(addresses), dict(labels or {}))

    def env(self) -> dict[str, str]:
        """Return the environment that points clients, workers and kubectl at this stack."""
        providers = {"SEGUE_PROMETHEUS": json.dumps({"default": {"url": self.prometheus}})} if self.prometheus else {}
        ui = {"SEGUE_TEMPORAL_UI": self.temporal_ui} if self.temporal_ui else {}
        access = self._blueprint.temporal_servers.access() if self._state.postgres else {}
        return {
            **providers,
            "KUBECONFIG": str(self.kubeconfig),
            "TEMPORAL_ADDRESS": self.temporal_address,
            "TEMPORAL_NAMESPACE": parts.NAMESPACE,
            **access,
            **ui,
        }

    @property
    def feature_gates(self) -> Mapping[str, bool]:
        """The feature gates that its API server and controller manager are started with."""
        return self._blueprint.gates

    @property
    def mark(self) -> dict[str, str]:
        """An environment variable that makes a process end with the stack."""
        return processes.mark_of(self._layout.root)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig (0600) with a client certificate for this user in these groups; return its path."""
        digest = hashlib.sha256("\0".join([user, *groups]).encode()).hexdigest()[:8]
        stem = f"user-{re.sub(r'[^A-Za-z0-9.-]+', '_', user)[:60]}-{digest}"
        return self._layout.write_kubeconfig(stem, self._blueprint.api_server, user, groups)

    def status(self) -> list[PartStatus]:
        """Return the current state of every part; for a dead one, with the reason and the end of its log."""
        self._reload()
        return [self._status_of(part) for part in self._parts]

    def add_gateway_api(self, on_progress: Progress | None = None) -> None:
        """Create the kinds of the Gateway API (no gateway). Idempotent.

        Raises ``BuildFailed`` or ``LocalStackError``.
        """
        add_definitions(self._blueprint.client, ensure_definitions(on_progress))

    # -- break and end ----------------------------------------------------------------------------------

    def kill(self, part: str) -> None:
        """SIGKILL one part and wait until it is gone. Raises ``Refused`` for an unknown part.

        Pods keep running without containerd, kubelet and kube-proxy; killing ``node`` ends the whole node.
        """
        self._check(part)
        self._reload()
        record = self._state.parts.get(part)
        if record is not None and record.process.alive:
            record.process.kill()
            self._record(part, dataclasses.replace(record, note="was killed on request"))

    def restart(self, part: str) -> None:
        """Kill a part if it runs, start it with the same ports and data, and return when it answers.

        ``node`` starts with all its parts; its pods restart after a moment, as after a reboot.
        A restart of ``etcd`` also restarts the fake nodes.

        Raises ``Refused`` for an unknown part, ``PartFailed`` when the part does not answer, and
        ``LocalStackError`` when the restart needs the API server and that does not answer, or its node is dead.
        """
        self._check(part)
        with _locked(self.name):
            self._restart(part)
            if part == "etcd" and self._state.parts["kube-apiserver"].process.alive:
                self._await("kube-apiserver")
                if self._state.parts["kwok"].process.alive:
                    # kwok, unlike a kubelet, does not retry a write that the outage interrupted: the pod would hang.
                    self._restart("kwok")

    def down(self) -> None:
        """End every process of the stack and remove its folder. Idempotent."""
        Stack.remove(self.name)

    # -- inside -----------------------------------------------------------------------------------------

    def _restart(self, part: str) -> None:
        self.kill(part)
        if part == "kwok":
            self._drop_leases()
        if part in NODE_PARTS[1:] and not self._init:
            raise LocalStackError(f"{part} cannot be restarted while the node is dead: restart node first")
        for each in NODE_PARTS if part == "node" else [part]:
            self._begin(each)

    @classmethod
    def _start(cls, name: str, plan: _Plan) -> Stack:
        layout = Layout(state_dir(name))
        record = plan.node_record(layout.root)
        names = [port for part, group in PORTS.items() if plan.has(part) for port in group]
        chosen = ports.pick(names, _ports_of_all_stacks())
        binaries = {binary: str(path) for binary, path in plan.binaries.items()}
        state = State(name, chosen, binaries, node=record, feature_gates=plan.feature_gates, lws=plan.lws)
        stack = cls(dataclasses.replace(state, kserve=plan.kserve, prometheus=plan.prometheus, postgres=plan.postgres))
        layout.create([] if record is None else [stack._blueprint.api_host])
        stack._save()
        stack._write_kubeconfigs()
        try:
            if stack._node is not None:
                stack._node.prepare(chosen["kube-apiserver"], stack._temporal_port)
            stack._start_all(plan)
        except BaseException:
            _end(layout.root)
            raise
        stack._state = dataclasses.replace(stack._state, complete=True)
        stack._save()
        return stack

    def _write_kubeconfigs(self) -> None:
        # All act as masters: with roles, a controller manager would need a token for each controller.
        users = {"admin": "admin", "kwok": "kwok"}
        users |= {part: f"system:{part}" for part in ("kube-controller-manager", "kube-scheduler")}
        users |= {part: part for part in parts.OPTIONAL if part in self._parts}
        for stem, user in users.items():
            self._layout.write_kubeconfig(stem, self._blueprint.api_server, user, [MASTERS])

    def _start_all(self, plan: _Plan) -> None:
        """Start Temporal and the node's runtime beside etcd → API server → the rest; stop at the first failure."""

        def begin(*parts: str) -> None:
            for part in parts:
                started = time.monotonic()
                self._begin(part)
                plan.say(f"{part} answers ({time.monotonic() - started:.1f} s)")

        def nodes() -> None:
            self._create_nodes(plan.fake_nodes, plan.fake_resources)
            begin("kwok")

        def agents(runtime: Future[None]) -> None:
            runtime.result()
            begin("kubelet", "kube-proxy")

        def operator(part: str) -> None:
            prepare, add_webhooks = {
                parts.LWS: (self._prepare_lws, self._add_lws_webhooks),
                parts.KSERVE: (self._prepare_kserve, self._add_kserve_webhooks),
            }[part]
            prepare(plan.say)
            begin(part)
            add_webhooks()

        def guarded(task: Callable[[], None]) -> None:
            try:
                task()
            except BaseException:
                self._cancelled.set()
                raise

        with ThreadPoolExecutor(max_workers=len(self._parts)) as pool:
            aside = [pool.submit(guarded, lambda: self._start_temporal(begin))]
            if plan.node:
                runtime = pool.submit(guarded, lambda: begin("node", "containerd"))
                aside.append(runtime)
            try:
                begin("etcd")
                begin("kube-apiserver")
                aside.append(pool.submit(guarded, lambda: begin("kube-controller-manager")))
                aside.append(pool.submit(guarded, lambda: begin("kube-scheduler")))
                operators = [part for part in (parts.LWS, parts.KSERVE) if plan.has(part)]
                aside += [pool.submit(guarded, functools.partial(operator, part)) for part in operators]
                if plan.prometheus:
                    self._prepare_prometheus(plan.scrape_interval_s)
                    aside.append(pool.submit(guarded, lambda: begin(parts.PROMETHEUS)))
                if plan.node:
                    aside.append(pool.submit(guarded, lambda: agents(runtime)))
                nodes()
                wait(aside)
            except _CancelledError:
                pass  # the failed part is among ``aside``
            except BaseException:
                self._cancelled.set()
                raise
        _raise_first(aside)

    def _start_temporal(self, begin: Callable[..., None]) -> None:
        if not self._state.postgres:
            begin(parts.DEV_SERVER)
            if self._blueprint.is_open:
                begin(parts.RELAY)
            return
        servers = self._blueprint.temporal_servers
        servers.prepare()
        begin(temporal_config.POSTGRES)
        servers.create_schemas()
        # One after the other: two new servers at once race for the cluster's metadata, and one of them ends.
        begin(*temporal_config.SERVERS, temporal_config.FRONT)
        servers.create_namespace()

    def _prepare_lws(self, say: Progress) -> None:
        lws.add_kinds(self._blueprint.client, lws.FILES.ensure(say))
        certificates = self._layout.pki / "lws"
        certificates.mkdir(mode=0o700)
        for pair, name in zip(self._layout.pair("components"), ("tls.crt", "tls.key"), strict=True):
            (certificates / name).symlink_to(pair)
        self._layout.lws_configuration.write_text(lws.configuration(self._state.ports, certificates))

    def _prepare_kserve(self, say: Progress) -> None:
        kserve.add_kinds(self._blueprint.client, kserve.FILES.ensure(say))
        kserve.add_certificate(self._layout.kserve_temporary, self._layout.pair("components"))

    def _add_kserve_webhooks(self) -> None:
        manifests = kserve.FILES.ensure()[-1]
        port, authority = self._state.ports[parts.KSERVE], self._layout.cluster_ca.cert_path
        kserve.add_webhooks(self._blueprint.client, manifests, port, authority)

    def _prepare_prometheus(self, interval_s: float) -> None:
        layout = self._layout
        layout.prometheus_targets.mkdir(mode=0o700)
        kubeconfig = layout.kubeconfig(parts.PROMETHEUS)
        kubelets = Access(layout.cluster_ca.cert_path, *layout.pair("admin")) if self._node is not None else None
        text = configuration(kubeconfig, layout.prometheus_targets, interval_s, kubelets)
        layout.prometheus_configuration.write_text(text)

    def _add_lws_webhooks(self) -> None:
        manifests = lws.FILES.ensure()[-1]
        lws.add_webhooks(
            self._blueprint.client, manifests, self._state.ports[parts.LWS], self._layout.cluster_ca.cert_path
        )

    def _begin(self, part: str) -> None:
        """Start a part and return when it answers. Raises ``PartFailed``."""
        if self._cancelled.is_set():
            raise _CancelledError
        before = self._state.parts.get(part)
        starts = 0 if before is None else before.starts + 1
        now = time.time()
        process = self._launch(part, starts)
        self._record(part, PartRecord(process.pid, process.start_ticks, now, starts))
        self._await(part)

    def _launch(self, part: str, starts: int) -> processes.Process:
        if self._node is not None and part in NODE_PARTS:
            return self._node.start(part, self._init)
        command = self._blueprint.command(part, starts)
        environment = self._blueprint.environment(part)
        return processes.start(
            command,
            stack_dir=self._layout.root,
            log=self._layout.log(part),
            environment=environment,
            wrapped=part == temporal_config.POSTGRES,
        )

    def _probe(self, part: str) -> None:
        if self._node is not None and part in NODE_PARTS:
            self._node.probe(part, self._init, self._state.parts[part].started_at, self._blueprint.client)
        else:
            self._blueprint.probe(part)

    def _await(self, part: str) -> None:
        process = self._state.parts[part].process
        deadline = time.monotonic() + _HEALTHY_WITHIN_S
        while not self._cancelled.is_set():
            if not process.alive:
                raise self._failure(part, _ending(process.exit_status()))
            try:
                return self._probe(part)
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    why = f"did not answer within {_HEALTHY_WITHIN_S:g} s (last: {error})"
                    raise self._failure(part, why) from error
            self._cancelled.wait(_POLL_S)
        raise _CancelledError

    def _create_nodes(self, count: int, resources: Mapping[str, str]) -> None:
        for number in range(count):
            node = parts.node(f"fake-{number}", number, resources)
            try:
                self._blueprint.client.create("/api/v1/nodes", node)
            except OSError as error:
                raise self._failure("kube-apiserver", f"refused fake node {number} ({error})") from error

    def _drop_leases(self) -> None:
        """Delete the fake nodes' leases: otherwise a new kwok waits for their expiry, up to 40 s."""
        try:
            for node in self._blueprint.fake_nodes():
                self._blueprint.client.delete(f"{parts.LEASES}/{node}")
        except OSError as error:
            raise LocalStackError(
                f"kwok cannot be restarted while the API server does not answer ({error}): restart kube-apiserver first"
            ) from error

    def _failure(self, part: str, why: str) -> PartFailed:
        log = self._layout.log(part)
        return PartFailed(part, why, log, _end_of(log))

    @property
    def _parts(self) -> tuple[str, ...]:
        has = {parts.LWS: self._state.lws, parts.KSERVE: self._state.kserve, parts.PROMETHEUS: self._state.prometheus}
        optional = tuple(part for part in parts.OPTIONAL if has[part])
        always = tuple(part for part in PARTS if not (part == parts.DEV_SERVER and self._state.postgres))
        always += temporal_config.PARTS * self._state.postgres
        return always + optional + (parts.RELAY,) * self._blueprint.is_open + NODE_PARTS * (self._node is not None)

    @property
    def _temporal_port(self) -> int:
        return self._state.ports[temporal_config.FRONT if self._state.postgres else parts.DEV_SERVER]

    @property
    def _init(self) -> int:
        """The pid of the node's first process, or 0 while it is dead.

        Another process may have the pid of a dead one, and commands for the node would run there.
        """
        record = self._state.parts.get(NODE_PARTS[0])
        return record.pid if record is not None and record.process.alive else 0

    def _check(self, part: str) -> None:
        if part not in self._parts:
            raise Refused(f"{part!r} is not a part of the stack: use one of {', '.join(self._parts)}")

    def _status_of(self, part: str) -> PartStatus:
        record = self._state.parts.get(part)
        log = self._layout.log(part)
        own_ports = {name: self._state.ports[name] for name in PORTS.get(part, ())}
        if record is None:
            return PartStatus(part, None, False, None, own_ports, log, "was never started", "")
        since = dt.datetime.fromtimestamp(record.started_at, dt.UTC)
        if record.process.alive:
            return PartStatus(part, record.pid, True, since, own_ports, log)
        why = record.note or _ending(record.process.exit_status())
        return PartStatus(part, record.pid, False, since, own_ports, log, why, _end_of(log))

    def _record(self, part: str, record: PartRecord) -> None:
        with self._state_lock:
            self._state = self._state.with_part(part, record)
            self._state.save(self._layout.state)

    def _save(self) -> None:
        with self._state_lock:
            self._state.save(self._layout.state)

    def _reload(self) -> None:
        """Read the state again, since others may have changed it. Raises ``StackNotRunning`` after a removal."""
        state = State.load(self._layout.state)
        if state is None:
            raise StackNotRunning(self.name)
        self._state = state


def _raise_first(futures: Sequence[Future[None]]) -> None:
    """Raise the first failure; cancelled ones do not count."""
    failures = [future.exception() for future in futures]
    for failure in failures:
        if failure is not None and not isinstance(failure, _CancelledError):
            raise failure


def _remove(name: str) -> bool:
    root = state_dir(name)
    found = root.exists() or bool(processes.marked(root))
    found |= _end(root)
    if root.exists():
        shutil.rmtree(root)
    return found


def _end(root: Path) -> bool:
    """End a stack's processes and remove what it has outside its folder; return False when that was nothing."""
    processes.kill_marked(root)
    return real_node.remove(root)


def _ports_of_all_stacks() -> Collection[int]:
    """Return the ports of all stacks, also of parts that are down and will use them again."""
    states = (State.load(Layout(state_dir(name)).state) for name in Stack.names())
    return {port for state in states if state is not None for port in state.ports.values()}


def _ending(status: int | None) -> str:
    if status is None:
        return "ended; its exit status is not known, because another process started it"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def _end_of(log: Path) -> str:
    """Return the last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 32_768))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the lock by which one process at a time changes a stack; the kernel frees it on death."""
    folder = stacks_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Its last holder removed the file, so no other process can find this lock.
            if not _is_same_file(path, file.fileno()):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
