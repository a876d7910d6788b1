"""The stacks that tests, benches and recordings run on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from segue_local import Stack, tied_stack
from segue_local.images import ensure_images
from serving import ACCELERATOR, ACCELERATORS


@contextmanager
def plain_stack(kind: str, *, prometheus: bool = False) -> Iterator[Stack]:
    """A stack of this process's own; SEGUE_TEST_STACK names one that is up instead, for quick work."""
    given = _given("SEGUE_TEST_STACK")
    if given is not None:
        yield given
        return
    with tied_stack(f"segue-{kind}-{os.getpid()}", prometheus=prometheus, on_progress=_say) as started:
        yield started


@contextmanager
def group_stack(kind: str, *, at_once: bool) -> Iterator[Stack]:
    """The same with LeaderWorkerSet, and with or without the feature gate by which a StatefulSet moves several at once.

    SEGUE_TEST_GROUPS_ON and SEGUE_TEST_GROUPS_OFF name ones that are up.
    """
    gate = "ON" if at_once else "OFF"
    given = _given(f"SEGUE_TEST_GROUPS_{gate}")
    if given is not None:
        yield given
        return
    name, gates = f"segue-{kind}-groups-{gate.lower()}-{os.getpid()}", {"MaxUnavailableStatefulSet": at_once}
    with tied_stack(name, lws=True, feature_gates=gates, on_progress=_say) as started:
        yield started


@contextmanager
def kserve_stack(kind: str) -> Iterator[Stack]:
    """The same with KServe; SEGUE_TEST_KSERVE names one that is up."""
    given = _given("SEGUE_TEST_KSERVE")
    if given is not None:
        yield given
        return
    with tied_stack(f"segue-{kind}-kserve-{os.getpid()}", kserve=True, on_progress=_say) as started:
        yield started


@contextmanager
def node_stack(kind: str, *, prometheus: bool = False) -> Iterator[Stack]:
    """The same with a real node and the images of all model servers; SEGUE_TEST_NODE names one that is up."""
    given = _given("SEGUE_TEST_NODE")
    if given is not None:
        yield given
        return
    name, resources = f"segue-{kind}-node-{os.getpid()}", {ACCELERATOR: str(ACCELERATORS)}
    with tied_stack(name, node=True, node_resources=resources, prometheus=prometheus, on_progress=_say) as started:
        assert started.node is not None
        started.node.load(ensure_images(_say))
        yield started


def _given(variable: str) -> Stack | None:
    name = os.environ.get(variable)
    if not name:
        return None
    found = Stack.find(name)
    if found is None:
        raise SystemExit(f"{variable}={name}: no such stack is up")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
