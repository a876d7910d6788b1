"""The stacks that tests, benches and recordings run on.

A stack belongs to the process that starts it. In ``pytest -n`` it belongs to the run: the first process that needs it
starts it, the others join, and it ends with the process that distributes the tests, however that ends.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from segue_local import Stack, tied_stack
from segue_local.images import ensure_images
from segue_local.once import locked
from serving import ACCELERATOR, ACCELERATORS

RUN = "SEGUE_TEST_RUN"
"""The environment variable that names the run to its processes."""
ADMITTED = ("segue", "segue-traffic", "segue-upgrade", "segue-objects")
"""The namespaces of installed workers: pods there reach the API server and Temporal."""
_SHARED = ("test", "test-node", "test-open", "test-groups-on", "test-groups-off", "test-kserve", "test-postgres")


@contextmanager
def shared_stacks() -> Iterator[None]:
    """Let all processes that start in the block share stacks, which end with the block or this process."""
    os.environ[RUN] = str(os.getpid())
    names = [_name(kind) for kind in _SHARED]
    # It waits for the end of a pipe that only this process holds open. The kernel closes it even after SIGKILL.
    code = "import sys; from segue_local import Stack; sys.stdin.read(); [*map(Stack.remove, sys.argv[1:])]"
    guard = subprocess.Popen([sys.executable, "-c", code, *names], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate()
        del os.environ[RUN]


@contextmanager
def plain_stack(kind: str, *, prometheus: bool = False, fake_nodes: int | None = None) -> Iterator[Stack]:
    """Yield servers without a real node; SEGUE_TEST_STACK names a running stack to use instead."""
    with _given("SEGUE_TEST_STACK") or _started(kind, prometheus=prometheus, fake_nodes=fake_nodes) as started:
        yield started


@contextmanager
def group_stack(kind: str, *, at_once: bool) -> Iterator[Stack]:
    """Yield the same with LeaderWorkerSet, with or without the feature gate MaxUnavailableStatefulSet.

    SEGUE_TEST_GROUPS_ON and SEGUE_TEST_GROUPS_OFF name running stacks to use instead.
    """
    gate, gates = "on" if at_once else "off", {"MaxUnavailableStatefulSet": at_once}
    options = {"lws": True, "feature_gates": gates}
    with _given(f"SEGUE_TEST_GROUPS_{gate.upper()}") or _started(f"{kind}-groups-{gate}", **options) as started:
        yield started


@contextmanager
def kserve_stack(kind: str) -> Iterator[Stack]:
    """Yield the same with KServe; SEGUE_TEST_KSERVE names a running stack to use instead."""
    with _given("SEGUE_TEST_KSERVE") or _started(f"{kind}-kserve", kserve=True) as started:
        yield started


@contextmanager
def postgres_stack(kind: str) -> Iterator[Stack]:
    """Yield the same with whole Temporal servers; SEGUE_TEST_POSTGRES names a running stack to use instead."""
    with _given("SEGUE_TEST_POSTGRES") or _started(f"{kind}-postgres", postgres=True) as started:
        yield started


@contextmanager
def node_stack(kind: str, *, prometheus: bool = False) -> Iterator[Stack]:
    """Yield the same with a real node and all images; SEGUE_TEST_NODE names a running stack to use instead."""
    given, resources = _given("SEGUE_TEST_NODE"), {ACCELERATOR: str(ACCELERATORS)}
    started = _started(f"{kind}-node", node=True, node_resources=resources, prometheus=prometheus)
    with given or started as found:
        if given is None:
            _load_images(found)
        yield found


@contextmanager
def open_stack(kind: str) -> Iterator[Stack]:
    """Yield servers with a real node, all images and a fake node; pods of ``ADMITTED`` reach Kubernetes and Temporal.

    SEGUE_TEST_OPEN names a running stack to use instead.
    """
    given = _given("SEGUE_TEST_OPEN")
    with given or _started(f"{kind}-open", node=True, fake_nodes=1, admits=ADMITTED) as found:
        _load_images(found)
        yield found


@contextmanager
def _started(kind: str, **options: Any) -> Iterator[Stack]:
    name = _name(kind)
    if RUN in os.environ:
        # Use a running stack as it is: a test may have stopped one of its parts for a moment.
        yield Stack.find(name) or Stack.up(name, on_progress=_say, **options)
        return
    with tied_stack(name, on_progress=_say, **options) as started:
        yield started


def _name(kind: str) -> str:
    return f"segue-{kind}-{os.environ.get(RUN, os.getpid())}"


def _load_images(stack: Stack) -> None:
    """Load the images of all model servers, once for each stack."""
    loaded = stack.state_dir / "images-are-loaded"
    with locked(loaded, f"the images of {stack.name}", _say):
        if not loaded.exists():
            assert stack.node is not None
            stack.node.load(ensure_images(_say))
            loaded.touch()


def _given(variable: str) -> AbstractContextManager[Stack] | None:
    name = os.environ.get(variable)
    if not name:
        return None
    found = Stack.find(name)
    if found is None:
        raise SystemExit(f"{variable}={name}: no such stack is up")
    return nullcontext(found)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
