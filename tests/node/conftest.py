"""One stack with a real node for all tests of real model servers; elsewhere they are skipped, and say why."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness import open_lab
from segue_local import Stack, node_is_possible
from segue_local.images import ensure_images
from serving import ACCELERATOR, ACCELERATORS, Serving


@pytest.fixture(scope="session")
def node_stack() -> Iterator[Stack]:
    """Real servers and a real node, with the images of all model servers; SEGUE_TEST_NODE names one that is up."""
    hindrance = node_is_possible()
    if hindrance:
        pytest.skip(f"no real node here: {hindrance}")
    given = os.environ.get("SEGUE_TEST_NODE")
    if given:
        found = Stack.find(given)
        assert found is not None and found.node is not None, f"SEGUE_TEST_NODE={given}: no such stack with a node is up"
        yield found
        return
    started = Stack.up(
        f"segue-test-node-{os.getpid()}",
        node=True,
        fake_nodes=0,
        node_resources={ACCELERATOR: str(ACCELERATORS)},
        on_progress=print,
    )
    try:
        assert started.node is not None
        started.node.load(ensure_images(print))
        yield started
    finally:
        started.down()


@pytest.fixture
async def serving(node_stack: Stack, tmp_path: Path) -> AsyncIterator[Serving]:
    """An empty namespace on the real node."""
    assert node_stack.node is not None
    async with open_lab(node_stack) as lab:
        yield Serving(lab, node_stack.node, tmp_path)
