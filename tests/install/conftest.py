"""One stack for installed workers: they run as pods on its real node."""

from collections.abc import Iterator

import pytest
import stacks
from segue_local import Stack, node_is_possible


@pytest.fixture(scope="session")
def open_stack() -> Iterator[Stack]:
    """Real servers, a real and a fake node; pods of the workers' namespaces reach the API server and Temporal."""
    hindrance = node_is_possible()
    if hindrance:
        pytest.skip(f"no real node here: {hindrance}")
    with stacks.open_stack("test") as started:
        yield started
