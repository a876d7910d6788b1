"""``make demo``: a rollout and a rollback on real servers on this machine, with the commands that a person types.

Where the machine allows a real node (Linux and root), the demo rolls real model servers under traffic; elsewhere, or
with ``--fake``, it rolls fake pods. It starts its own local stack and leaves nothing running, also when it fails or is
interrupted.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kubernetes import client, config
from onlooker import Onlooker  # type: ignore[import-not-found]
from segue_local import Stack, node_is_possible, tied_stack
from segue_local.build import K6, ensure_built
from segue_local.images import ensure_images

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out"
SEGUE = Path(sys.executable).with_name("segue")
NAME = f"demo-{os.getpid()}"
TARGET = "serving/chat"
ROLLED_BACK = 3
REPLICAS = 6
READY_LIMIT_S = 120.0
PICTURE_LIMIT_S = 40.0
POLL_S = 0.2
READS_S = 3.0
"""The time that a person takes to read the request for approval; a viewer sees the rollout wait for it."""
APPROVAL = ("approve", TARGET, "--by", "the demo", "--reason", "looks good")


@dataclass(frozen=True)
class Scene:
    """What the demo rolls."""

    folder: str
    deployment: str
    stack: str
    bad: str


REAL = Scene(
    "examples/mlserver",
    "examples/mlserver/deployment.yaml",
    "with a real node and real model servers",
    "A bad version: its pods are Ready, but they answer as another version. A serving check fails; Segue rolls back",
)
FAKE = Scene(
    "examples/fake",
    "examples/deployment.yaml",
    "with fake nodes",
    "A bad version: its pods never become ready, so Segue rolls back",
)


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    hindrance = "with fake nodes, as requested by --fake" if "--fake" in sys.argv[1:] else node_is_possible()
    scene = FAKE if hindrance else REAL
    with ExitStack() as ends:
        title(f"The stack: a real Temporal and a real Kubernetes control plane, {scene.stack}")
        if hindrance:
            print(f"({hindrance})")
        ends.callback(lambda: print("\nThe stack is down; nothing is left running."))
        if scene is REAL:
            ensure_built(_say, [K6])  # minutes, the first time: not in the middle of the show
        stack = ends.enter_context(tied_stack(NAME, node=scene is REAL, on_progress=_say))
        os.environ.update(stack.env())
        config.load_kube_config(str(stack.kubeconfig))  # type: ignore[no-untyped-call]
        if stack.node is not None:
            stack.node.load(ensure_images(_say))
        segue("local", "apply", "--name", NAME, scene.deployment)
        await_serving()
        ends.enter_context(worker(stack))

        title("The plan: Segue shows every stage before it changes anything")
        segue("plan", f"{scene.folder}/rollout.yaml")
        with traffic(stack) as onlooker:
            onlooker.mark("v2 begins")
            good(stack, scene, onlooker)
            onlooker.mark("bad v3 begins")
            bad(stack, scene)
            onlooker.mark("v3 rolled back")

        title("The report")
        segue("report", TARGET)
        segue("list")
        print("\nNext: start a stack with `segue local up`, and follow the first rollout in the README.")
    return 0


def good(stack: Stack, scene: Scene, onlooker: Onlooker) -> None:
    title("The rollout: 6 replicas, two waypoints; at the second one it waits for approval")
    segue("start", f"{scene.folder}/rollout.yaml")
    approver = threading.Thread(target=approve_when_awaited, args=[onlooker], daemon=True)
    approver.start()
    segue("watch", TARGET)
    approver.join()
    picture(stack, "rollout")


def bad(stack: Stack, scene: Scene) -> None:
    title(scene.bad)
    segue("start", f"{scene.folder}/bad.yaml", "--wait", expect=ROLLED_BACK)
    picture(stack, "rollback")


@contextmanager
def traffic(stack: Stack) -> Iterator[Onlooker]:
    """Send requests during the rollouts, and print their outcomes; without a real node, send none."""
    onlooker = Onlooker(*TARGET.split("/"))
    if stack.node is None:
        yield onlooker
        return
    with onlooker.watching(stack.node, REPLICAS, REPLICAS + 2, OUT):
        yield onlooker
        title("The traffic")


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def segue(*arguments: str, expect: int = 0) -> None:
    """Print a segue command and run it."""
    print(f"\n$ segue {' '.join(arguments)}", flush=True)
    ended = subprocess.run([SEGUE, *arguments], cwd=ROOT, check=False)
    if ended.returncode != expect:
        raise SystemExit(f"segue {' '.join(arguments)}: exit code {ended.returncode}, expected {expect}")
    if expect:
        print(f"(exit code {expect}: rolled back)", flush=True)


def await_serving() -> None:
    """Wait until all replicas of the Deployment are available."""
    apps = client.AppsV1Api()
    ends_at = time.monotonic() + READY_LIMIT_S
    namespace, name = TARGET.split("/")
    while time.monotonic() < ends_at:
        found: Any = apps.read_namespaced_deployment(name, namespace)
        if found.status.available_replicas == found.spec.replicas:
            return
        time.sleep(POLL_S)
    raise SystemExit(f"{TARGET}: not all replicas are available after {READY_LIMIT_S:g} s")


@contextmanager
def worker(stack: Stack) -> Iterator[None]:
    """Run a worker that has only the published rights."""
    subprocess.run(
        [SEGUE, "local", "apply", "--name", NAME, _rights(stack)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    environment = {**os.environ, **stack.mark, "KUBECONFIG": str(stack.kubeconfig_for("segue-worker"))}
    log_path = stack.state_dir / "logs" / "worker.log"
    with log_path.open("wb") as log:
        print("\n$ segue worker &", flush=True)
        process = subprocess.Popen([SEGUE, "worker"], env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _rights(stack: Stack) -> Path:
    """Write a manifest of the worker's rights in the demo's namespace, and return its path.

    The worker runs outside the cluster, so it calls pods through the API server.
    """
    namespace = TARGET.split("/")[0]
    roles = "---\n".join((ROOT / "deploy" / name).read_text() for name in ("rbac.yaml", "rbac-serving.yaml"))
    text = roles.replace("metadata:\n  name:", f"metadata:\n  namespace: {namespace}\n  name:")
    path = stack.state_dir / "rights.yaml"  # it goes with the stack
    path.write_text(text)
    return path


def approve_when_awaited(onlooker: Onlooker) -> None:
    """Approve the rollout when it waits for approval; return when it has ended."""
    while True:
        answer = run_segue("status", TARGET, "-o", "json")
        status = json.loads(answer.stdout or "{}")
        if status.get("outcome") or "no rollout" in answer.stderr:
            return
        if status.get("phase") == "AwaitingApproval":
            time.sleep(READS_S)
            print(f"\n(in another terminal) $ {shlex.join(['segue', *APPROVAL])}\n", flush=True)
            if run_segue(*APPROVAL).returncode == 0:
                onlooker.mark("approved")
                return
        time.sleep(1)


def run_segue(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a segue command without showing its output."""
    return subprocess.run([SEGUE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def picture(stack: Stack, name: str) -> None:
    """Save a screenshot of the workflow in the Temporal UI, if a browser is installed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return
    OUT.mkdir(exist_ok=True)
    path = OUT / f"temporal-ui-{name}.png"
    address = f"{stack.temporal_ui}/namespaces/default/workflows/rollout%2Fdefault%2Fserving%2FDeployment%2Fchat"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--window-size=1500,1400", "--virtual-time-budget=8000",
            f"--screenshot={path}", address,
        ]  # fmt: skip
        # In its own session, so that the demo can end all its processes.
        shot = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            shot.wait(timeout=PICTURE_LIMIT_S)
            print(f"(the Temporal UI: {path.relative_to(ROOT)})", flush=True)
        except subprocess.TimeoutExpired:
            print("(no picture of the Temporal UI: the browser did not answer)", flush=True)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shot.pid, signal.SIGKILL)
            shot.wait()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
