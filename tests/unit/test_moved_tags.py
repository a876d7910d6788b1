"""Replicas of one version that run different images under one tag are named."""

import pytest

from activities.levers.pods import read_replica
from segue.moved_tags import moved_tag
from segue.observation import Version
from segue.replica import Replica
from segue.state import State

ONE, OTHER = (f"docker.io/example/chat@sha256:{digit * 64}" for digit in "ab")


def replica(name: str, image_id: str, version: str = "v2") -> Replica:
    pod = {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "server", "image": "example/chat:2"}]},
        "status": {"containerStatuses": [{"name": "server", "imageID": image_id, "ready": True}]},
    }
    return read_replica(pod, version)


@pytest.mark.parametrize(
    ("replicas", "moved"),
    [
        pytest.param([replica("a", ONE), replica("b", ONE)], False, id="the-same"),
        pytest.param([replica("a", ONE), replica("b", OTHER)], True, id="moved"),
        pytest.param([replica("a", ONE), replica("b", OTHER, "v1")], False, id="of-another-version"),
        pytest.param([replica("a", ONE), replica("b", "")], False, id="not-reported"),
        pytest.param([replica("a", ONE), replica("b", "sha256:00ff")], False, id="not-a-digest-of-a-registry"),
    ],
)
def test_a_tag_that_moved(replicas: list[Replica], moved: bool) -> None:
    expected = "server=example/chat:2 is sha256:aaaaaaaaaaaa on a, sha256:bbbbbbbbbbbb on b; "
    assert (expected in moved_tag(replicas)) is moved


def test_it_stands_once_in_the_report() -> None:
    """A stop and the end both say it."""
    state = State(owner="us", baseline=Version(template="v1"), wanted=Version(template="v2"))
    state = state.warned("moved", 1.0).warned("moved", 2.0).warned("x" * 9_999, 3.0).warned("x" * 9_999, 4.0)
    assert len(state.log) == 2
