"""One stack with a real node for all tests of real model servers; elsewhere they are skipped, and say why."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import stacks
from harness import open_lab
from segue_local import Stack, node_is_possible
from serving import Serving
from using import using


@pytest.fixture(scope="session")
def node_stack() -> Iterator[Stack]:
    """Real servers and a real node, with the images of all model servers."""
    hindrance = node_is_possible()
    if hindrance:
        pytest.skip(f"no real node here: {hindrance}")
    with stacks.node_stack("test", prometheus=True) as started:
        yield started


@pytest.fixture
async def serving(request: pytest.FixtureRequest, node_stack: Stack, tmp_path: Path) -> AsyncIterator[Serving]:
    """An empty namespace on the real node, which a test marked ``alone`` has for itself."""
    assert node_stack.node is not None
    mine = using(node_stack.state_dir, alone=request.node.get_closest_marker("alone") is not None)
    with ExitStack() as turns:
        await asyncio.to_thread(turns.enter_context, mine)
        async with open_lab(node_stack) as lab:
            yield Serving(lab, node_stack.node, tmp_path)
