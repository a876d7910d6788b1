"""A real node runs real containers, cut off from everything but the API server, and goes without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from segue_local import LocalStackError, Node, Refused, Stack, node_is_possible, processes
from segue_local.archive import write_programs
from segue_local.node import cgroups, machine, network
from segue_local.node.servers import NODE_PARTS, admit_program
from segue_local.parts import PARTS, RELAY
from segue_local.paths import state_dir

Eventually = Callable[[Callable[[], bool], str], None]
NothingLeft = Callable[[Path], None]

HINDRANCE = node_is_possible()
needs_node = pytest.mark.skipif(HINDRANCE is not None, reason=f"no real node here: {HINDRANCE}")

IMAGE = "segue.test/web:1"
ACCELERATOR = "example.com/accelerator"
ADMITTED = "admitted"


def test_the_plugin_runs_where_paths_have_blanks(tmp_path: Path) -> None:
    home, plugin = tmp_path / "a home", tmp_path / "admit"
    home.mkdir()
    (home / "python").symlink_to(sys.executable)
    plugin.write_text(admit_program(str(home / "python")))
    plugin.chmod(0o700)
    asked = subprocess.run([str(plugin)], env={"CNI_COMMAND": "VERSION"}, capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout)["cniVersion"] == "1.0.0"


def core(stack: Stack) -> Any:
    return client.CoreV1Api(config.new_client_from_config(str(stack.kubeconfig)))  # type: ignore[no-untyped-call]


def real_node(stack: Stack) -> Node:
    assert stack.node is not None
    return stack.node


def inside(stack: Stack, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the node's network."""
    return subprocess.run(real_node(stack).command(command), capture_output=True, text=True, check=False, timeout=20)


def connects(enter: Sequence[str], address: str, port: int) -> bool:
    """Whether a program that is run so can connect there."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"
    command = [*enter, sys.executable, "-I", "-c", code, address, str(port)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def enter_pod(stack: Stack, namespace: str = "default") -> list[str]:
    """What runs a program of the host in the network of a web server's pod."""
    address = core(stack).read_namespaced_pod("web", namespace).status.pod_ip
    group = next(Path("/sys/fs/cgroup").glob(f"**/{network.name_of(stack.state_dir)}"))
    pids = [int(pid) for file in group.glob("**/cgroup.procs") for pid in file.read_text().split()]
    servers = [pid for pid in pids if b"httpd" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    web = next(pid for pid in servers if address in Path(f"/proc/{pid}/net/fib_trie").read_text())
    return ["nsenter", f"--target={web}", "--net", "--"]


def answer(stack: Stack, address: str) -> str:
    """What the web server there says; nothing when it does not answer."""
    code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode(), end='')"
    return inside(stack, sys.executable, "-I", "-c", code, f"http://{address}/").stdout


def pod_status(stack: Stack, name: str = "web") -> Any:
    return core(stack).read_namespaced_pod(name, "default").status


def is_ready(stack: Stack, name: str = "web") -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod_status(stack, name).conditions or [])


def pod(name: str, **container: object) -> dict[str, object]:
    """A pod of the test's image on the real node."""
    main = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", **container}
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "containers": [main],
            "nodeSelector": {"segue.dev/node": "real"},
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
        },
    }


def processes_in(namespace: int) -> list[int]:
    """The processes in the network namespace of that inode, marked or not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/net").stat().st_ino == namespace:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def traces(stack_dir: Path) -> list[str]:
    """All that bears the name of a stack's node: links, namespaces, control groups, routes, mounts."""
    name = network.name_of(stack_dir)
    folders = [Path("/sys/class/net"), Path("/run/netns"), Path("/sys/fs/cgroup")]
    found = [str(path) for folder in folders for path in folder.glob(f"**/{name}" if "cgroup" in str(folder) else name)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    routes = [line for line in Path("/proc/net/route").read_text().splitlines() if line.split()[0] == name]
    return found + routes + [line for line in mounts if name in line or str(stack_dir) in line]


@pytest.fixture(scope="module")
def stack(stacks_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack with a real and a fake node, and the test's image on it."""
    resources = {"cpu": "8", "memory": "8Gi", "pods": "100", ACCELERATOR: "4"}
    stack = Stack.up("node-tests", node=True, fake_nodes=1, node_resources=resources, admits=[ADMITTED])
    archive = tmp_path_factory.mktemp("image") / "web.tar"
    index = b"hello from a real pod\n"
    serve = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]
    write_programs({"bin/busybox": machine.BUSYBOX.read_bytes(), "www/index.html": index}, IMAGE, serve, archive)
    real_node(stack).load(archive)
    yield stack
    stack.down()


@pytest.fixture(scope="module")
def web(stack: Stack) -> str:
    """The ClusterIP of a Service before a web server's pod, which answers."""
    api = core(stack)
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
    api.create_namespaced_pod("default", pod("web", readinessProbe=probe))
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    address: str = api.create_namespaced_service("default", service).spec.cluster_ip
    deadline = time.monotonic() + 30
    while "hello" not in answer(stack, address):
        assert time.monotonic() < deadline, pod_status(stack)
    return address


@needs_node
def test_real_and_fake_node_are_told_apart(stack: Stack) -> None:
    """Both nodes are Ready, each has its label, and the real one the extended resource and its own processors."""
    assert [(part.name, part.alive) for part in stack.status()] == [
        (part, True) for part in (*PARTS, RELAY, *NODE_PARTS)
    ]
    nodes = {node.metadata.labels["segue.dev/node"]: node for node in core(stack).list_node().items}
    assert nodes.keys() == {"real", "fake"}
    for node in nodes.values():
        assert [c.status for c in node.status.conditions if c.type == "Ready"] == ["True"]
        assert node.status.allocatable[ACCELERATOR] == "4"
    assert nodes["real"].status.allocatable["cpu"] == str(os.cpu_count())


@needs_node
def test_pod_answers_behind_its_service(stack: Stack, web: str) -> None:
    """A pod of an imported image is reached at its Service's address, from inside; its log can be read."""
    assert IMAGE in real_node(stack).images()
    assert answer(stack, web) == "hello from a real pod\n"
    assert core(stack).read_namespaced_pod_log("web", "default") == ""


@needs_node
def test_pods_are_reached_from_the_host(stack: Stack, web: str) -> None:
    """By their own address, which is of the stack's own block, and through the API server's proxy."""
    address = pod_status(stack).pod_ip
    with urllib.request.urlopen(f"http://{address}/", timeout=5) as found:
        assert found.read() == b"hello from a real pod\n"
    assert core(stack).connect_get_namespaced_pod_proxy_with_path("web", "default", "index.html").startswith("hello")
    record = stack._state.node
    assert record is not None and IPv4Address(address) in IPv4Network(record.subnet)


@needs_node
def test_only_the_api_server_is_reached_from_inside(stack: Stack, web: str) -> None:
    """There is no default route, of the host's ports only the API server's is open, and to a pod not even that."""
    assert inside(stack, "ip", "route", "show", "default").stdout == ""
    node, pod = real_node(stack).command([]), enter_pod(stack)
    host, api_port = stack._blueprint.api_host, stack._state.ports["kube-apiserver"]
    assert connects(pod, web, 80)
    assert (connects(node, host, api_port), connects(pod, host, api_port)) == (True, False)
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((host, port), timeout=2):
            assert not connects(node, host, port)
            assert not connects(pod, host, port)
    assert not connects(node, "192.0.2.1", 80)
    assert not connects(pod, "192.0.2.1", 80)


def admitted(stack: Stack) -> str:
    """The addresses that the node's packet filter admits."""
    return inside(stack, "nft", "list", "set", "inet", "segue", "admitted").stdout


@needs_node
def test_pods_of_an_admitted_namespace_reach_two_ports(stack: Stack, web: str, eventually: Eventually) -> None:
    """They reach the API server by its Service, and Temporal; nothing else, and no pod of another namespace does."""
    api = core(stack)
    api.create_namespace({"metadata": {"name": ADMITTED}})
    eventually(lambda: bool(api.list_namespaced_service_account(ADMITTED).items), "the namespace's account")
    api.create_namespaced_pod(ADMITTED, pod("web"))

    def address() -> str:
        return api.read_namespaced_pod("web", ADMITTED).status.pod_ip or ""

    eventually(lambda: bool(address()), "the pod's address")
    eventually(lambda: bool(enter_pod(stack, ADMITTED)), "the pod's server")
    host, ports = stack._blueprint.api_host, stack._state.ports
    temporal_host, temporal_port = stack.temporal_address.split(":")
    ways = [("10.0.0.1", 443), (host, ports["kube-apiserver"]), (temporal_host, int(temporal_port))]
    pod_in = {"admitted": enter_pod(stack, ADMITTED), "default": enter_pod(stack)}
    eventually(lambda: connects(pod_in["admitted"], *ways[0]), "the API server's Service")
    assert [connects(pod_in["admitted"], *way) for way in ways] == [True] * 3
    assert [connects(pod_in["default"], *way) for way in ways] == [False] * 3
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen()
        with socket.create_connection((host, listener.getsockname()[1]), timeout=2):
            assert not connects(pod_in["admitted"], host, listener.getsockname()[1])
    assert not connects(pod_in["admitted"], "192.0.2.1", 443)

    gone = address()
    assert gone in admitted(stack)
    api.delete_namespaced_pod("web", ADMITTED)
    eventually(lambda: gone not in admitted(stack), "the pod's address closed again")


@needs_node
def test_an_address_once_admitted_is_closed_to_its_next_pod(stack: Stack, web: str, eventually: Eventually) -> None:
    """After a power cut nobody takes the addresses of lost pods back; whoever gets one is not admitted."""
    node = stack._state.node
    assert node is not None
    left = ", ".join(map(str, list(IPv4Network(node.subnet).subnets())[1].hosts()))
    assert inside(stack, "nft", "add", "element", "inet", "segue", "admitted", f"{{ {left} }}").returncode == 0
    core(stack).create_namespaced_pod("default", pod("next"))
    eventually(lambda: bool(pod_status(stack, "next").pod_ip), "the next pod's address")
    elements = admitted(stack).replace(",", " ").split()
    assert pod_status(stack, "next").pod_ip not in elements
    assert len(elements) > 100
    core(stack).delete_namespaced_pod("next", "default")
    assert inside(stack, "nft", "flush", "set", "inet", "segue", "admitted").returncode == 0


@needs_node
def test_scheduler_counts_the_extended_resource(stack: Stack, eventually: Eventually) -> None:
    """A pod that wants one more than there is stays Pending until another gives its own back."""
    api = core(stack)
    api.create_namespaced_pod("default", pod("greedy", resources={"limits": {ACCELERATOR: "4"}}))
    eventually(lambda: is_ready(stack, "greedy"), "the first pod Ready")
    api.create_namespaced_pod("default", pod("late", resources={"limits": {ACCELERATOR: "1"}}))

    def unschedulable() -> bool:
        return any(c.reason == "Unschedulable" for c in pod_status(stack, "late").conditions or [])

    eventually(unschedulable, "the second pod Unschedulable")
    api.delete_namespaced_pod("greedy", "default")
    eventually(lambda: is_ready(stack, "late"), "the second pod Ready")
    api.delete_namespaced_pod("late", "default")


@needs_node
@pytest.mark.parametrize("part", ["kubelet", "containerd", "kube-proxy"])
def test_pods_run_on_without_a_part(stack: Stack, web: str, part: str, eventually: Eventually) -> None:
    """While a part is dead the pod answers, and when it is back the pod is the same."""
    before = pod_status(stack).container_statuses[0]
    stack.kill(part)
    [dead] = [p for p in stack.status() if not p.alive]
    assert (dead.name, dead.why) == (part, "was killed on request")
    assert answer(stack, web) == "hello from a real pod\n"
    stack.restart(part)
    assert all(p.alive for p in stack.status())
    eventually(lambda: is_ready(stack), "the pod Ready")
    after = pod_status(stack).container_statuses[0]
    assert (after.container_id, after.restart_count) == (before.container_id, before.restart_count)
    assert core(stack).read_node("real-0").status.allocatable[ACCELERATOR] == "4"


@needs_node
def test_pods_come_back_after_a_power_cut(stack: Stack, web: str, eventually: Eventually) -> None:
    """Killing the node ends its servers and pods; restarting it brings all of them back."""
    before = pod_status(stack).container_statuses[0].restart_count
    stack.kill("node")
    eventually(lambda: {p.name for p in stack.status() if not p.alive} == set(NODE_PARTS), "the node dead")
    assert answer(stack, web) == ""
    with pytest.raises(LocalStackError, match="restart node first"):
        stack.restart("kubelet")
    stack.restart("node")
    assert all(p.alive for p in stack.status())
    eventually(lambda: "hello" in answer(stack, web), "the pod's answer")
    eventually(lambda: pod_status(stack).container_statuses[0].restart_count == before + 1, "one restart in the status")


@needs_node
def test_down_leaves_nothing(stack: Stack, name: str, nothing_left: NothingLeft) -> None:
    """A second stack with a node has its own network; taking it away leaves nothing of it, and the first as it was."""
    other = Stack.up(name, node=True)
    assert real_node(other).namespace != real_node(stack).namespace
    assert real_node(other).address != real_node(stack).address
    assert [node.metadata.name for node in core(other).list_node().items] == ["real-0"]
    namespace = Path("/run/netns", real_node(other).namespace).stat().st_ino
    assert len(processes_in(namespace)) > 3
    assert traces(other.state_dir)
    started = time.monotonic()
    other.down()
    print(f"\ndown took {time.monotonic() - started:.2f} s")
    nothing_left(other.state_dir)
    assert traces(other.state_dir) == []
    assert processes_in(namespace) == []
    other.down()
    assert all(part.alive for part in stack.status())


LAUNCHER = """
import sys
from segue_local import Stack
Stack.up(sys.argv[1], node=True, on_progress=lambda line: print(line, flush=True))
print("up", flush=True)
"""


def launch_and_kill(name: str, at: str, eventually: Eventually) -> None:
    """Run `Stack.up` in another process and SIGKILL that when it comes to a point."""
    command = [sys.executable, "-c", LAUNCHER, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        if at == "a first trace":
            eventually(lambda: traces(state_dir(name)) != [], "a first trace")
        else:
            assert any(line.startswith(at) for line in launcher.stdout)
        launcher.send_signal(signal.SIGKILL)


@needs_node
@pytest.mark.parametrize(
    "at",
    ["a first trace", "up"] + [pytest.param(at, marks=pytest.mark.soak) for at in ("node answers", "kubelet answers")],
)
def test_down_after_a_killed_launcher_leaves_nothing(
    name: str, at: str, eventually: Eventually, nothing_left: NothingLeft
) -> None:
    """Wherever the launcher was killed, down finds all that it made, even when what was written down is lost."""
    launch_and_kill(name, at, eventually)
    (state_dir(name) / "state.json").unlink()
    assert Stack.remove(name)
    nothing_left(state_dir(name))
    assert traces(state_dir(name)) == []


@needs_node
def test_up_cleans_what_a_killed_launcher_left(name: str, eventually: Eventually) -> None:
    """The next up removes the broken leftover; one that was up and lost its node is started anew as well."""
    launch_and_kill(name, "containerd answers", eventually)
    lines: list[str] = []
    stack = Stack.up(name, node=True, on_progress=lines.append)
    assert f"removed what was left of stack {name}" in lines
    [init] = [part.pid for part in stack.status() if part.name == "node"]
    assert init is not None
    os.kill(init, signal.SIGKILL)
    eventually(lambda: len([p for p in stack.status() if not p.alive]) == len(NODE_PARTS), "the node dead")
    again = Stack.up(name, node=True)
    assert all(part.alive for part in again.status())
    assert len(processes.marked(state_dir(name))) > len(PARTS + NODE_PARTS)


@needs_node
def test_failed_up_leaves_no_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a server of the node dies during up, nothing but its logs is left."""
    monkeypatch.setattr("segue_local.node.servers._containerd", lambda: "no = [configuration")
    with pytest.raises(Exception, match="containerd ended with exit status 1") as failure:
        Stack.up(name, node=True)
    assert "toml" in str(failure.value)
    assert traces(state_dir(name)) == []
    assert processes.marked(state_dir(name)) == []


@needs_node
def test_stack_without_a_node_does_not_get_one_later(stacks_home: Path, name: str) -> None:
    """Asking for a node of a stack that is up without one is refused with what to do; so are pods to admit."""
    with pytest.raises(Refused, match="pods of serving can be admitted only on a real node"):
        Stack.up(name, admits=["serving"])
    with pytest.raises(Refused, match="pods reach only Temporal's dev server"):
        Stack.up(name, node=True, postgres=True, admits=["serving"])
    plain = Stack.up(name, fake_nodes=1)
    assert plain.node is None
    with pytest.raises(Refused, match="is up without a real node: take it down first"):
        Stack.up(name, node=True)
    with pytest.raises(Refused, match="'kubelet' is not a part of the stack"):
        plain.kill("kubelet")


def test_unified_control_groups_are_delegated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine with cgroup v2 the node's group gets every controller that the kubelet wants and the machine has."""
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids hugetlb\n")
    assert cgroups.hindrance() is None
    cgroups.create("segue-test")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +cpuset +memory +pids +hugetlb"
    assert (cgroups.remove("segue-test"), cgroups.remove("segue-test")) == (True, False)
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    assert cgroups.hindrance() == f"a real node needs control groups below {tmp_path}; missing: cpuset, memory, pids"


def test_not_root_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root a real node is refused, and the sentence names what works instead."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert node_is_possible() == "a real node needs Linux and root; without --node the stack uses fake nodes"
    with pytest.raises(Refused, match="needs Linux and root"):
        Stack.up("none", node=True)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing can install them, the error names the missing packages; else they are installed."""
    monkeypatch.setattr(machine, "_SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(machine, "CNI_PLUGINS", (tmp_path,))
    everything = ["containernetworking-plugins", "iproute2", "nftables", "runc", "util-linux"]
    assert machine.missing_packages() == everything
    if HINDRANCE is None:
        installed: list[list[str]] = []
        monkeypatch.setattr(machine, "install_packages", lambda packages, say: installed.append(packages))
        monkeypatch.setattr("shutil.which", lambda program, path=None: None if path else f"/bin/{program}")
        machine.prepare(print)
        assert installed == [everything]
