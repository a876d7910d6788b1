"""A stack comes up, survives the loss of its parts, and goes without a trace."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from segue_local import PartFailed, Refused, Stack, StackNotRunning, kube, ports, processes, temporal_config
from segue_local.parts import PARTS, SEARCH_ATTRIBUTES, Blueprint
from segue_local.paths import state_dir

Eventually = Callable[[Callable[[], bool], str], None]
NothingLeft = Callable[[Path], None]


def api_client(kubeconfig: Path) -> Any:
    return config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]


def core(stack: Stack, kubeconfig: Path | None = None) -> Any:
    return client.CoreV1Api(api_client(kubeconfig or stack.kubeconfig))


def ports_of(stack_dir: Path) -> list[int]:
    """All ports that a stack wrote down; none when it had not come that far."""
    try:
        return list(json.loads((stack_dir / "state.json").read_text())["ports"].values())
    except FileNotFoundError:
        return []


def temporal(stack: Stack, path: str) -> dict[str, object]:
    """What Temporal's HTTP API answers."""
    port = next(p for p in stack.status() if p.name == "temporal").ports["temporal-http"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def start_workflow(stack: Stack, workflow_id: str) -> None:
    """Start a workflow that no worker runs."""
    port = next(p for p in stack.status() if p.name == "temporal").ports["temporal-http"]
    body = {"workflowType": {"name": "none"}, "taskQueue": {"name": "none"}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/namespaces/default/workflows/{workflow_id}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


def listening(pid: int | None) -> list[tuple[str, int]]:
    """The addresses (in hexadecimal) and ports that a process listens on, from /proc."""
    open_files = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    lines = [line.split() for line in tables.splitlines()]
    local = [line[1].split(":") for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in open_files]
    return [(address, int(port, 16)) for address, port in local]


def test_all_parts_answer(stack: Stack) -> None:
    """After up, every part is alive, the nodes are Ready, and Temporal has Segue's search attributes."""
    assert [(part.name, part.alive) for part in stack.status()] == [(part, True) for part in PARTS]
    nodes = core(stack).list_node().items
    assert [node.metadata.name for node in nodes] == ["fake-0", "fake-1", "fake-2"]
    assert all(c.status == "True" for node in nodes for c in node.status.conditions if c.type == "Ready")
    attributes = temporal(stack, "namespaces/default/search-attributes")["customAttributes"]
    assert isinstance(attributes, dict)
    assert attributes.keys() >= SEARCH_ATTRIBUTES.keys()
    assert stack.temporal_ui is not None
    with urllib.request.urlopen(stack.temporal_ui, timeout=10) as page:
        assert b"<html" in page.read()


def test_up_again_returns_the_running_stack(stack: Stack) -> None:
    """A second up of a stack that is up changes nothing."""
    before = [part.pid for part in stack.status()]
    assert [part.pid for part in Stack.up(stack.name).status()] == before


def test_servers_listen_on_loopback_only(stack: Stack) -> None:
    """No server of the stack can be reached from another machine."""
    own = [socket for part in stack.status() for socket in listening(part.pid)]
    assert {port for _, port in own} >= set(ports_of(stack.state_dir))
    assert {address for address, _ in own} == {"0100007F"}  # 127.0.0.1 as the kernel writes it


def test_state_is_private(stack: Stack) -> None:
    """Only the owner can enter the state folder, which holds keys of an administrator."""
    assert stack.state_dir.stat().st_mode & 0o777 == 0o700
    assert stack.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_kubeconfig_for_a_user_is_that_user(stack: Stack) -> None:
    """A kubeconfig for a user is that user in those groups, and is allowed nothing by itself."""
    path = stack.kubeconfig_for("segue-worker", ["rollers"])
    assert path.stat().st_mode & 0o777 == 0o600
    authentication: Any = client.AuthenticationV1Api(api_client(path))
    answer = authentication.create_self_subject_review({})
    assert answer.status.user_info.username == "segue-worker"
    assert "rollers" in answer.status.user_info.groups
    with pytest.raises(client.ApiException) as refusal:
        core(stack, path).list_namespaced_pod("default")
    assert refusal.value.status == 403


def test_dead_part_is_told_with_its_log(stack: Stack, eventually: Eventually) -> None:
    """A part that was killed from outside is dead in the status, with the reason and the end of its log."""
    [before] = [part for part in stack.status() if part.name == "kube-scheduler"]
    assert before.pid is not None
    processes.Process(before.pid, stack._state.parts["kube-scheduler"].start_ticks).kill()
    [dead] = [part for part in stack.status() if not part.alive]
    assert dead.name == "kube-scheduler"
    assert dead.why == "was killed by SIGKILL"
    assert dead.log_end is not None
    assert dead.log_end == "\n".join(dead.log.read_text().splitlines()[-20:])
    stack.restart("kube-scheduler")
    assert all(part.alive for part in stack.status())


@pytest.mark.parametrize("part", PARTS)
def test_restart_keeps_ports_and_data(stack: Stack, part: str) -> None:
    """A killed part comes back on its ports, and what was stored before is still there."""
    api = core(stack)
    api.create_namespaced_config_map("default", {"metadata": {"name": f"before-{part}"}})
    start_workflow(stack, f"before-{part}")
    stack.kill(part)
    [dead] = [p for p in stack.status() if not p.alive]
    assert (dead.name, dead.why) == (part, "was killed on request")
    stack.restart(part)
    [back] = [p for p in stack.status() if p.name == part]
    assert back.alive
    assert (back.ports, back.pid == dead.pid) == (dead.ports, False)
    assert api.read_namespaced_config_map(f"before-{part}", "default")
    found = temporal(stack, f"namespaces/default/workflows/before-{part}")["workflowExecutionInfo"]
    assert isinstance(found, dict)
    assert found["status"] == "WORKFLOW_EXECUTION_STATUS_RUNNING"


def test_pods_live_on_after_a_restart_of_kwok(stack: Stack, eventually: Eventually) -> None:
    """A pod made right after a restart of kwok is Ready at once, with an address of its own."""
    api = core(stack)

    def pod(name: str) -> dict[str, object]:
        return {"metadata": {"name": name}, "spec": {"containers": [{"name": "m", "image": "m"}]}}

    def address(name: str) -> str | None:
        status = api.read_namespaced_pod(name, "default").status
        ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions or [])
        return status.pod_ip if ready else None

    api.create_namespaced_pod("default", pod("one"))
    eventually(lambda: address("one") is not None, "the first pod Ready")
    stack.restart("kwok")
    started = time.monotonic()
    api.create_namespaced_pod("default", pod("two"))
    eventually(lambda: address("two") is not None, "the second pod Ready")
    assert time.monotonic() - started < 35  # until its leases of 40 s run out, a new kwok would do nothing
    assert address("one") != address("two")


@pytest.mark.soak
def test_whole_temporal_servers(stack: Stack, name: str, nothing_left: NothingLeft) -> None:
    """They keep their data when all of them and the database are killed, and nothing is left of them."""
    with pytest.raises(Refused, match="with other options"):
        Stack.up(stack.name, postgres=True)
    stack = Stack.up(name, fake_nodes=1, postgres=True)
    parts = [*(part for part in PARTS if part != "temporal"), *temporal_config.PARTS]
    assert sorted(part.name for part in stack.status() if part.alive) == sorted(parts)
    assert [part.pid for part in Stack.up(name, postgres=True).status()] == [part.pid for part in stack.status()]
    assert {address for part in stack.status() for address, _ in listening(part.pid)} == {"0100007F"}
    assert stack.state_dir.stat().st_mode & 0o777 == 0o700
    for part in temporal_config.PARTS:
        stack.kill(part)
    for part in temporal_config.PARTS:
        stack.restart(part)

    env = stack.env()
    access = [Path(env[f"TEMPORAL_TLS_{file}_PATH"]) for file in ("SERVER_CA_CERT", "CLIENT_CERT", "CLIENT_KEY")]
    for server in temporal_config.SERVERS:
        port = next(part for part in stack.status() if part.name == server).ports[f"{server}-http"]
        request = urllib.request.Request(f"https://127.0.0.1:{port}/api/v1/namespaces/default/search-attributes")
        with pytest.raises(urllib.error.HTTPError):
            kube.fetch(request, kube.tls(*access))
        request.add_header("Authorization", f"Bearer {env['TEMPORAL_API_KEY']}")
        found = json.loads(kube.fetch(request, kube.tls(*access)))
        assert found["customAttributes"].keys() >= SEARCH_ATTRIBUTES.keys()
    stack.down()
    nothing_left(stack.state_dir)


def test_a_stack_with_the_dev_server_needs_no_tokens(stack: Stack) -> None:
    """Its environment has none, and a request for one names the option."""
    assert "TEMPORAL_API_KEY" not in stack.env()
    with pytest.raises(Refused, match="local up --postgres"):
        stack.temporal_token("somebody", ["default:read"])


def test_unknown_names_are_refused(stack: Stack) -> None:
    """A part or a stack name that cannot be is refused with what can."""
    with pytest.raises(Refused, match="use one of temporal, etcd"):
        stack.kill("dns")
    with pytest.raises(Refused, match="lower-case letters, digits and dashes"):
        Stack.up("../etc")
    with pytest.raises(Refused, match="use 1 or more"):
        Stack.up("none", fake_nodes=0)


def test_two_stacks_side_by_side(stack: Stack, name: str, nothing_left: NothingLeft) -> None:
    """A second stack has its own data; taking it away leaves nothing of it, and the first as it was."""
    other = Stack.up(name, fake_nodes=1)
    assert {s.name for s in Stack.all()} >= {name, stack.name}
    core(other).create_namespace({"metadata": {"name": "other"}})
    assert "other" not in {ns.metadata.name for ns in core(stack).list_namespace().items}
    assert len(core(other).list_node().items) == 1
    used = ports_of(other.state_dir)
    started = time.monotonic()
    other.down()
    print(f"\ndown took {time.monotonic() - started:.2f} s")
    nothing_left(other.state_dir)
    assert all(ports.is_free(port) for port in used)
    other.down()
    with pytest.raises(StackNotRunning):
        other.status()
    assert Stack.find(name) is None
    assert all(part.alive for part in stack.status())


def test_part_that_dies_during_up_is_told_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up ends at once with the part's name, its exit status and its last words; nothing goes on running."""
    real = Blueprint.command

    def command(self: Blueprint, part: str, start_number: int) -> list[str]:
        boom = ["/bin/sh", "-c", "echo no such luck; exit 3"]
        return boom if part == "kube-apiserver" else real(self, part, start_number)

    monkeypatch.setattr(Blueprint, "command", command)
    with pytest.raises(PartFailed, match="kube-apiserver ended with exit status 3") as failure:
        Stack.up(name)
    assert failure.value.log_end == "no such luck"
    assert failure.value.log.exists()
    assert processes.marked(state_dir(name)) == []
    assert Stack.find(name) is None


def test_taken_port_is_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody takes a chosen port before its server does, up starts over with other ports."""
    real = ports.pick
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()

        def pick(names: Sequence[str], taken: set[int]) -> dict[str, int]:
            monkeypatch.setattr(ports, "pick", real)
            return real(names, taken) | {"etcd": squatter.getsockname()[1]}

        monkeypatch.setattr(ports, "pick", pick)
        lines: list[str] = []
        stack = Stack.up(name, fake_nodes=1, on_progress=lines.append)
    assert "another program took a port of etcd: starting over with other ports" in lines
    assert all(part.alive for part in stack.status())


LAUNCHER = """
import sys
from segue_local import Stack
Stack.up(sys.argv[1], on_progress=lambda line: print(line, flush=True))
print("up", flush=True)
"""


def launch_and_kill(name: str, at: str, eventually: Eventually) -> None:
    """Run `Stack.up` in another process and SIGKILL that when it comes to a point."""
    command = [sys.executable, "-c", LAUNCHER, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        if at == "folder":
            eventually(lambda: state_dir(name).exists(), "the state folder")
        elif at == "process":
            eventually(lambda: processes.marked(state_dir(name)) != [], "a first process")
        else:
            assert any(line.startswith(at) for line in launcher.stdout)
        launcher.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    "at",
    ["folder", "process", "kube-apiserver answers", "up"]
    + [pytest.param(at, marks=pytest.mark.soak) for at in ("etcd answers", "kwok answers")],
)
def test_down_after_a_killed_launcher_leaves_nothing(
    name: str, at: str, eventually: Eventually, nothing_left: NothingLeft
) -> None:
    """Wherever the launcher was killed, down finds all that it started."""
    launch_and_kill(name, at, eventually)
    used = ports_of(state_dir(name))
    Stack.remove(name)
    nothing_left(state_dir(name))
    assert all(ports.is_free(port) for port in used)


def test_up_cleans_what_a_killed_launcher_left(name: str, eventually: Eventually) -> None:
    """The next up of the same name removes the broken leftover, its processes included."""
    launch_and_kill(name, "kube-apiserver answers", eventually)
    left = {process.pid for process in processes.marked(state_dir(name))}
    lines: list[str] = []
    stack = Stack.up(name, fake_nodes=1, on_progress=lines.append)
    assert f"removed what was left of stack {name}" in lines
    now = {process.pid for process in processes.marked(state_dir(name))}
    assert left
    assert not left & now
    assert now == {part.pid for part in stack.status()}


def test_down_finds_a_process_that_was_never_written_down(name: str, tmp_path: Path) -> None:
    """The mark in its environment is enough to end a process, even without any file."""
    sleeper = processes.start(["/bin/sleep", "600"], stack_dir=tmp_path, log=tmp_path / "log")
    assert processes.marked(tmp_path) == [sleeper]
    processes.kill_marked(tmp_path)
    assert not sleeper.alive
