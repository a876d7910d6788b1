"""A run of the tests is killed in the middle of a rollout under traffic: nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, until
from segue_local import Stack, node_is_possible, processes

HINDRANCE = node_is_possible()


@pytest.mark.skipif(HINDRANCE is not None, reason=f"no real node here: {HINDRANCE}")
async def test_a_killed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to pytest while servers, node, worker and traffic run: all end, and so do link, namespace and files."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    before = _links_and_groups()
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-k", "worker_is_killed", "--basetemp", tmp_path / "pytest", "tests/node"],
        cwd=ROOT, env={k: v for k, v in os.environ.items() if not k.startswith("SEGUE_TEST_")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until("traffic", lambda: list(tmp_path.rglob("lines.jsonl")), limit_s=180)
        (name,) = Stack.names()
        found = Stack.find(name)
        assert found is not None
        assert {"k6", "kubelet", "temporal"} <= _programs(found.state_dir)
        workers = _children_of_fork_server(run.pid)
        assert workers
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    await until("nothing to be left", lambda: not processes.marked(found.state_dir) and not Stack.names())
    await until("no worker to be left", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert _links_and_groups() == before


def _programs(state_dir: Path) -> set[str]:
    return {Path(f"/proc/{each.pid}/comm").read_text().strip() for each in processes.marked(state_dir)}


def _children_of_fork_server(pid: int) -> list[int]:
    """The fork server and the workers that it forked."""
    servers = _children(pid)
    return [*servers, *(child for server in servers for child in _children(server))]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _links_and_groups() -> tuple[set[str], set[str]]:
    links = {path.name for path in Path("/sys/class/net").iterdir()}
    groups = {path.name for path in Path("/sys/fs/cgroup").glob("*/segue*")}
    return links, groups
