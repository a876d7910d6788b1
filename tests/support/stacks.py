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

from runs import RUN, stack_of_run
from segue_local import Stack, tied_stack
from segue_local.images import ensure_images
from segue_local.once import locked
from serving import ACCELERATOR, ACCELERATORS

ADMITTED = ("segue", "segue-traffic", "segue-upgrade", "segue-objects")
"""The namespaces of installed workers: pods there reach the API server and Temporal."""
_SHARED = ("test", "test-node", "test-open", "test-postgres")


@contextmanager
def shared_stacks() -> Iterator[None]:
    """Let all processes that start in the block share stacks, which end with the block or this process."""
    os.environ[RUN] = str(os.getpid())
    names = [stack_of_run(kind) for kind in _SHARED]
    # It waits for the end of a pipe that only this process holds open. The kernel closes it even after SIGKILL.
    code = "import sys; from segue_local import Stack; sys.stdin.read(); [*map(Stack.remove, sys.argv[1:])]"
    guard = subprocess.Popen([sys.executable, "-c", code, *names], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate()
        del os.environ[RUN]


@contextmanager
def plain_stack(
    kind: str, *, lws: bool = False, prometheus: bool = False, fake_nodes: int | None = None
) -> Iterator[Stack]:
    """Yield servers without a real node; SEGUE_TEST_STACK names a running stack to use instead."""
    options = {"lws": lws, "prometheus": prometheus, "fake_nodes": fake_nodes}
    with _given("SEGUE_TEST_STACK") or _started(kind, **options) as started:
        yield started


@contextmanager
def one_by_one_stack() -> Iterator[Stack]:
    """Yield servers with LeaderWorkerSet, without the feature gate by which a StatefulSet moves several at once.

    They end with the block. SEGUE_TEST_ONE_BY_ONE names a running stack to use instead.
    """
    options = {"lws": True, "feature_gates": {"MaxUnavailableStatefulSet": False}}
    with _given("SEGUE_TEST_ONE_BY_ONE") or _tied("test-one-by-one", **options) as started:
        yield started


@contextmanager
def kserve_stack() -> Iterator[Stack]:
    """Yield servers with KServe, which end with the block; SEGUE_TEST_KSERVE names a running stack to use instead."""
    with _given("SEGUE_TEST_KSERVE") or _tied("test-kserve", kserve=True) as started:
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
    name = stack_of_run(kind)
    if RUN in os.environ:
        # Use a running stack as it is: a test may have stopped one of its parts for a moment.
        yield Stack.find(name) or Stack.up(name, on_progress=_say, **options)
        return
    with _tied(kind, **options) as started:
        yield started


def _tied(kind: str, **options: Any) -> AbstractContextManager[Stack]:
    return tied_stack(stack_of_run(kind), on_progress=_say, **options)


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
