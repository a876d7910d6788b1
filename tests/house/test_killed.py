"""A run of the tests is killed in the middle of a rollout under traffic: nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, until
from segue_local import Stack, node_is_possible, processes
from segue_local.node import network

HINDRANCE = node_is_possible()


@pytest.mark.soak
@pytest.mark.skipif(HINDRANCE is not None, reason=f"no real node here: {HINDRANCE}")
async def test_a_killed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to pytest while servers, node, worker and traffic run: all end, and so do link, namespace and files.

    As in ``make test`` it runs the tests by another process; of that one too nothing is left.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    own = ("SEGUE_TEST_", "PYTEST_")  # what a run tells its processes is not for another run
    # Looked through many times a second: what the node keeps, with a file system for each container, lies elsewhere.
    base, log = tmp_path / "pytest", tmp_path / "said.txt"
    with log.open("wb") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-n1", "-k", "worker_is_killed", "--basetemp", base, "tests/node"],
            cwd=ROOT, env={k: v for k, v in os.environ.items() if not k.startswith(own)},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def traffic() -> list[Path]:
        assert run.poll() is None, f"the run ended with {run.returncode}:\n{log.read_text()}"
        return list(base.rglob("lines.jsonl"))

    try:
        await until("traffic", traffic, limit_s=240)
        (name,) = Stack.names()
        found = Stack.find(name)
        assert found is not None
        assert {"k6", "kubelet", "temporal"} <= _programs(found.state_dir)
        own_links = _links_and_groups(found)
        workers = _descendants(run.pid)
        assert own_links and len(workers) >= 3  # the one that runs the tests, its fork server, and a worker
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    await until("nothing to be left", lambda: not processes.marked(found.state_dir) and not Stack.names())
    await until("no worker to be left", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not _links_and_groups(found)


def _programs(state_dir: Path) -> set[str]:
    return {Path(f"/proc/{each.pid}/comm").read_text().strip() for each in processes.marked(state_dir)}


def _descendants(pid: int) -> list[int]:
    """All that it has started, but for what has left it."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [*children, *(each for child in children for each in _descendants(child))]


def _links_and_groups(stack: Stack) -> set[str]:
    """What bears the name of the stack's node; others may come and go meanwhile."""
    name = network.name_of(stack.state_dir)
    links = {path.name for path in Path("/sys/class/net").iterdir()} & {name}
    return links | {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{name}")}
