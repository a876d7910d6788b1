"""A change describes itself: the same words in the command line, Temporal's pages, the report and the history."""

from typing import Any

import pytest

from activities.levers.numbered.leaderworkerset import LeaderWorkerSetLever
from activities.levers.template import version_of
from segue.client import details, summary
from segue.history import described
from segue.observation import Version
from segue.report import Report, to_markdown
from segue.spec import Change, Rollout, Rules, Spec
from segue.state import Entry, Phase, State
from segue.status import Status, make_status
from segue.status import to_markdown as status_markdown

EACH: dict[str, tuple[dict[str, Any], str]] = {
    "image": ({"images": {"server": "chat:2"}}, "server=chat:2"),
    "env": ({"env": {"server": {"LEVEL": "high", "OLD": None}}}, "env server.LEVEL, env server.OLD"),
    "args": ({"args": {"server": ["--fast"]}}, "args server"),
    "resources": ({"resources": {"server": {"limits": {"cpu": "1"}}}}, "resources server"),
    "annotations": ({"annotations": {"a": "b"}}, "annotations a"),
    "configuration": ({"configMaps": {"model": {"a": "value"}}}, "configMaps model"),
    "secret": ({"secrets": {"token": "token-2"}}, "secrets token → token-2"),
    "revision": ({"revision": 3}, "revision 3"),
    "revision and image": ({"revision": 3, "images": {"server": "chat:2"}}, "revision 3, server=chat:2"),
    "patch": ({"patch": {"spec": {}}}, "a patch of the pod template"),
    "nothing": ({}, "replicas only"),
    "very much": (
        {"annotations": {f"a{n:02}": "b" for n in range(20)}},
        f"{', '.join(f'annotations a{n:02}' for n in range(12))}, and 8 more",
    ),
}


def pod(server: str = "chat:1", sidecar: str = "proxy:1") -> dict[str, Any]:
    native = {"name": "proxy", "image": sidecar, "restartPolicy": "Always"}
    return {"spec": {"initContainers": [native], "containers": [{"name": "server", "image": server}]}}


def test_a_version_names_every_image() -> None:
    """A change of a native sidecar's image, or of a worker's, is seen in the report and in the history."""
    assert str(version_of(pod())) == "proxy=proxy:1, server=chat:1"
    assert str(version_of(pod(sidecar="proxy:2"))) == "proxy=proxy:2, server=chat:1"
    assert version_of(pod()).images == {"server": "chat:1"}, "what serves has one tag"
    groups = LeaderWorkerSetLever.__new__(LeaderWorkerSetLever)
    same = {"spec": {"leaderTemplate": pod(), "workerTemplate": pod()}}
    assert str(groups.version(same)) == "proxy=proxy:1, server=chat:1"
    other = {"spec": {"leaderTemplate": pod(), "workerTemplate": pod("chat:2")}}
    assert str(groups.version(other)) == "proxy=proxy:1, server=chat:1, workers' server=chat:2"


def rollout(change: dict[str, Any]) -> Rollout:
    spec: dict[str, Any] = {"target": {"kind": "DeploymentPair", "old": "chat", "new": "chat-2"}, "change": change}
    return Rollout.model_validate(
        {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "chat"}, "spec": spec}
    )


def status_of(spec: Spec) -> Status:
    return make_status(
        workflow_id="rollout/a/b/c/d", name="chat", target=spec.target, change=spec.change, rules=Rules(),
        state=State(owner="us"), seen=None, waits="", started_at=0, updated_at=0,
    )  # fmt: skip


@pytest.mark.parametrize(("change", "words"), EACH.values(), ids=list(EACH))
def test_a_change_is_described_alike_everywhere(change: dict[str, Any], words: str) -> None:
    described = rollout(change)
    status = status_of(described.spec)
    assert summary(described) == f"chat: default/chat → {words}"[:200]
    assert f"- **Change:** {words}\n" in details(described, "her")
    assert f"- **Change:** {words}\n" in status_markdown(status)
    assert f"- Change: {words}\n" in to_markdown(Report(status=status))
    assert status.change == words


def test_a_report_shows_texts_as_they_are() -> None:
    """A pod's message, or a person's reason, is no markup, and no other line or column of the report."""
    said = "![x](http://a/b) <img src=x>\r\n# a_b | c\\| **d** __e__ `f`"
    shown = "![x\\](http://a/b) \\<img src=x> # a_b \\| c\\\\\\| \\*\\*d\\*\\* \\_\\_e\\_\\_ `f`"
    status = Status(id="i", name=said, target="default/chat", phase=Phase.PAUSED, reason=said, waiting_for="resume")
    entry = Entry(at=0.0, what="failed", detail=said, who=said)
    lines = to_markdown(Report(status=status, entries=(entry,), started_by=said)).splitlines()
    assert {f"# {shown}: Paused", f"- Reason: {shown}", f"| +0.0 s | failed | {shown} | {shown} |"} <= {*lines}
    assert any(line.startswith(f"- Started by {shown} at") for line in lines)


def test_every_field_of_a_change_is_described() -> None:
    """A field that is added is described too."""
    fields = {name for change, _ in EACH.values() for name in change}
    assert fields == {field.alias or name for name, field in Change.model_fields.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(Change(images={"server": "chat:2"}), "server=chat:2", id="image"),
        pytest.param(Change(revision=3), "revision 3 (server=chat:1)", id="revision"),
        pytest.param(Change(config_maps={"model": {"a": "b"}}), "configMaps model (server=chat:1)", id="configuration"),
    ],
)
def test_a_history_says_what_changed(change: Change, words: str) -> None:
    assert described(change, Version(template="t", images={"server": "chat:1"})) == words
