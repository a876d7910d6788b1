"""A rollout can be named in several ways, everywhere."""

from pathlib import Path

import pytest

from segue.errors import NotFound, Refused
from segue.naming import ids_named, none_in_cluster, none_in_namespace, target_named

EXAMPLES = Path(__file__).parents[2] / "examples"

CHAT = "rollout/default/serving/Deployment/chat"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        pytest.param("serving/chat", CHAT, id="namespace/name"),
        pytest.param("deployment/serving/chat", CHAT, id="kind/namespace/name"),
        pytest.param("deployments/serving/chat", CHAT, id="plural kind"),
        pytest.param("sts/a/b", "rollout/default/a/StatefulSet/b", id="short kind"),
        pytest.param("west/isvc/a/b", "rollout/west/a/InferenceService/b", id="cluster/short kind"),
        pytest.param("ServingRuntime/a/b", "rollout/default/a/ServingRuntime/b", id="supervised resource"),
        pytest.param("rollout/x/a/Mine/b", "rollout/x/a/Mine/b", id="id of a resource of one's own"),
        pytest.param("chat", "rollout/default/default/Deployment/chat", id="bare name"),
        pytest.param("west/serving/chat", "rollout/west/serving/Deployment/chat", id="cluster/namespace/name"),
        pytest.param("west/StatefulSet/a/b", "rollout/west/a/StatefulSet/b", id="cluster/kind/namespace/name"),
        pytest.param(CHAT, CHAT, id="workflow id"),
        pytest.param("rollout/other/a/Deployment/b", "rollout/other/a/Deployment/b", id="id of another cluster"),
        pytest.param(str(EXAMPLES / "rollout.yaml"), CHAT, id="spec file"),
        pytest.param("models/llama-3.1", "rollout/default/models/Deployment/llama-3.1", id="name with dots"),
    ],
)
def test_a_name_is_understood(named: str, expected: str) -> None:
    """Each way gives the workflow's id."""
    assert ids_named(named, "default")[0] == expected


def test_the_cluster_is_part_of_the_id() -> None:
    """The same target in another cluster is another rollout."""
    assert ids_named("serving/chat", "eu-1")[0] == "rollout/eu-1/serving/Deployment/chat"


def test_where_no_kind_is_said_any_may_be_meant() -> None:
    """Temporal then says which one there is; a kind, an id or a file names exactly one."""
    assert {"rollout/c/a/Deployment/b", "rollout/c/a/ServingRuntime/b"} <= {*ids_named("a/b", "c")}
    for text in ("deployment/a/b", "rollout/c/a/Deployment/b", str(EXAMPLES / "rollout.yaml")):
        assert len(ids_named(text, "c")) == 1


def test_several_kinds_of_a_named_cluster() -> None:
    """Without a kind, each kind of that cluster may be meant; the client's own cluster is none of them."""
    found = ids_named("west/a/b", "east")
    assert {"rollout/west/a/Deployment/b", "rollout/west/a/ServingRuntime/b"} <= {*found}
    assert all(each.startswith("rollout/west/") for each in found)


@pytest.mark.parametrize(
    "text", ["", "/", "/a", "a/", "A", "a b", "a/-b", "../etc/passwd", "a//b/c", "west/mine/a/b", "a/b/Deployment/c/d"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """Nothing that is not a name gets near an id."""
    with pytest.raises(Refused, match="name it NAMESPACE/NAME"):
        target_named(text)


def test_a_first_part_that_leads_nowhere_may_have_been_meant_as_a_kind() -> None:
    """What Temporal does not have is reported with how its name was read; what holds all rollouts, without."""
    missing = NotFound("no rollout of svc/serving/chat exists", fix="`segue list` shows the existing ones")
    told = str(none_in_cluster(missing, "svc"))
    assert "svc is read as a cluster; the kinds that Segue rolls are Deployment, " in told
    assert told.endswith("`segue list --all-clusters` shows the existing ones")
    kind = NotFound("no rollout of deploy/chat exists", fix="`segue list` shows the existing ones")
    told = str(none_in_namespace(kind, "deploy/chat"))
    assert "(deploy is read as a namespace); with a kind, write deploy/NAMESPACE/chat" in told
    assert none_in_namespace(kind, "serving/chat") is kind
    namespace = NotFound("Namespace prod is not found", field="TEMPORAL_NAMESPACE", fix="set it")
    assert none_in_cluster(namespace, "svc") is namespace
