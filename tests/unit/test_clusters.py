"""Several clusters: which queue an activity goes to, how each is reached, and what says that nobody serves one."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo

from activities.cluster import Cluster, connected
from segue.checks import CheckVerdict, SetupCheck
from segue.cli.see import _table
from segue.client import UNTAKEN_S, Listed, Rollouts, untaken
from segue.clusters import HERE, Access, access_to
from segue.contract import Task, activity_queue, workflow_id
from segue.errors import Refused
from segue.pollers import unserved
from segue.spec import Rollout, read_rollout
from segue.temporal_setup import served_checks
from worker.settings import load_settings

NOW = 1_800_000_000.0
SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
PAUSED = PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED


def rollout(**target: str) -> Rollout:
    return read_rollout(
        {
            "apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "chat"},
            "spec": {"target": {"namespace": "serving", "name": "chat", **target}, "change": {"images": {"a": "b:2"}}},
        }
    )  # fmt: skip


def test_a_target_that_names_its_cluster_goes_to_its_workers() -> None:
    """Without a name all stays as it is: the client's cluster in the id, and the queue of the workflows."""
    named, unnamed = (each.spec.target for each in (rollout(cluster="west"), rollout()))
    assert (workflow_id("east", named), activity_queue("segue", named.cluster), str(named)) == (
        "rollout/west/serving/Deployment/chat", "segue@west", "west/serving/chat",
    )  # fmt: skip
    assert (workflow_id("east", unnamed), activity_queue("segue", unnamed.cluster), str(unnamed)) == (
        "rollout/east/serving/Deployment/chat", "segue", "serving/chat",
    )  # fmt: skip
    assert rollout().in_cluster("west") == rollout(cluster="west")


def test_what_an_earlier_release_stored_has_no_cluster() -> None:
    """The input of a stored workflow has no such field."""
    task = json.loads(Task(spec=rollout().spec, name="chat").model_dump_json(by_alias=True))
    del task["spec"]["target"]["cluster"]
    assert Task.model_validate_json(json.dumps(task)).spec.target.cluster is None


def test_messages_name_another_cluster_than_the_clients() -> None:
    """What a message calls a rollout also names it on the command line."""
    live = Rollouts(cast("Any", None), "east")
    assert live._what("rollout/east/serving/Deployment/chat") == "serving/chat"
    assert live._what("rollout/west/serving/Deployment/chat") == "west/serving/chat"


def test_a_list_of_all_clusters_names_each() -> None:
    """The list of one cluster has no such column."""
    times = {"started_at": 0.0, "ended_at": 1.0}
    found = [Listed(id="i", cluster="west", target="a/b", phase="Paused", outcome=None, running=True, **times)]
    titles = [
        [str(column.header) for column in _table(found, 200, with_cluster=each).columns] for each in (True, False)
    ]
    assert titles[0] == ["cluster", *titles[1]] and titles[1][0] == "target"


# --- how a cluster is reached ---


def test_a_target_gets_the_way_that_the_settings_give() -> None:
    """A name that they do not have is refused with the setting to write; a target without a name takes no setting."""
    clusters = {"west": Access(context="w")}
    assert access_to(clusters, "west") == Access(context="w")
    assert access_to(clusters, None) is access_to({}, None) is HERE
    with pytest.raises(Refused) as caught:
        access_to(clusters, "east")
    assert (caught.value.field, caught.value.value) == ("target.cluster", "east")
    assert """set SEGUE_CLUSTERS='{"east": {"context": "CONTEXT"}}'""" in caught.value.fix
    assert caught.value.fix.endswith("or name one of: west")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ('{"west": {}, "east": {"context": "e", "default": true}}', ""),
        ('{"west": {"default": true}, "east": {"default": true}}', "only one cluster can be the default"),
        ('{"a/b": {}}', "SEGUE_CLUSTERS"),
        ('{"west": {"cluster": "w"}}', "SEGUE_CLUSTERS_WEST_CLUSTER"),
    ],
    ids=["two", "two-defaults", "no-name", "misspelt"],
)
def test_the_setting_is_checked(monkeypatch: pytest.MonkeyPatch, given: str, why: str) -> None:
    monkeypatch.delenv("SEGUE_SETTINGS", raising=False)
    monkeypatch.setenv("SEGUE_CLUSTERS", given)
    if not why:
        assert [*load_settings().clusters] == ["west", "east"]
        return
    with pytest.raises(Refused, match=why):
        load_settings()


async def test_each_context_is_another_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The context decides, of KUBECONFIG or of a file of its own; a context that does not exist is refused."""
    names = ("one", "two")
    config: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Config", "current-context": "one",
        "users": [{"name": "u", "user": {"token": "t"}}],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.com"}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in names],
    }  # fmt: skip
    file, other = tmp_path / "config", tmp_path / "other"
    file.write_text(yaml.safe_dump(config))
    other.write_text(yaml.safe_dump({**config, "current-context": "two"}))
    monkeypatch.setenv("KUBECONFIG", str(file))
    for access, name in [
        (HERE, "one"), (Access(context="two"), "two"), (Access(kubeconfig=str(other)), "two"),
        (Access(kubeconfig=str(other), context="one"), "one"),
    ]:  # fmt: skip
        cluster = await Cluster.connect(access)
        assert cluster.address == f"https://{name}.example.com"
        await cluster.close()
    with pytest.raises(Refused, match=r"correct the context 'three', or the file .*config"):
        await Cluster.connect(Access(context="three"))
    with pytest.raises(Refused, match=r"SEGUE_CLUSTERS: .*is not a file"):
        await Cluster.connect(Access(kubeconfig=str(tmp_path / "absent")))


async def test_a_user_who_acts_as_another_one_does(tmp_path: Path) -> None:
    """The library ignores these fields, and requests would have the user's own rights."""
    file = tmp_path / "config"

    async def headers(**acting: Any) -> dict[str, str]:
        user = {"name": "u", "user": {"token": "t", **acting}}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [user],
            "clusters": [{"name": "k", "cluster": {"server": "https://one.example.com"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }  # fmt: skip
        file.write_text(yaml.safe_dump(config))
        async with connected(Access(kubeconfig=str(file))) as cluster:
            return {key: value for key, value in cluster._api.default_headers.items() if key.startswith("Imperson")}

    assert await headers() == {}
    assert await headers(**{"as": "bob", "as-uid": "7"}) == {"Impersonate-User": "bob", "Impersonate-Uid": "7"}
    with pytest.raises(Refused, match="SEGUE_CLUSTERS: as-groups: is a part of acting as somebody else that Segue"):
        await headers(**{"as": "bob", "as-groups": ["readers"]})


# --- who serves a cluster ---


def pending(state: Any, scheduled: float, *, queue: str = "segue@west", again: float = 0.0) -> PendingActivityInfo:
    found = PendingActivityInfo(state=state, activity_id="6", paused=state == PAUSED)
    found.activity_type.name = "await_ready"
    found.scheduled_time.FromSeconds(int(scheduled))
    found.next_attempt_schedule_time.FromSeconds(int(again))
    found.activity_options.task_queue.name = queue
    return found


LATE = NOW - UNTAKEN_S - 5


@pytest.mark.parametrize(
    ("activities", "says"),
    [
        ([], ""),
        ([pending(STARTED, LATE)], ""),
        ([pending(SCHEDULED, NOW - 1)], ""),
        ([pending(SCHEDULED, LATE, again=NOW + 3)], ""),
        (
            [pending(PAUSED, LATE)],
            "the activity await_ready, which somebody paused in Temporal: "
            "`temporal activity unpause --activity-id 6` continues it",
        ),
        ([pending(SCHEDULED, LATE)], "a worker of cluster west: none takes tasks from task queue segue@west"),
        ([pending(SCHEDULED, LATE, queue="segue")], "a worker: none takes tasks from task queue segue"),
        ([pending(SCHEDULED, LATE, queue="")], "a worker: none takes tasks of this rollout"),
    ],
    ids=["none", "taken", "just-scheduled", "between-two-attempts", "paused", "of-a-cluster", "of-none", "old-server"],
)
def test_an_activity_that_nobody_takes_is_told(activities: list[PendingActivityInfo], says: str) -> None:
    assert untaken(activities, NOW) == says


def test_nobody_serves_a_cluster() -> None:
    """The name may be misspelt, or its worker missing; a target without a name needs one."""
    assert str(unserved("segue", "west")) == (
        "no worker serves cluster west: none polls task queue segue@west; "
        "correct target.cluster, or start a worker with west in SEGUE_CLUSTERS"
    )
    assert "name the target's cluster in target.cluster" in str(unserved("segue", None))


@pytest.mark.parametrize(
    ("cluster", "is_served", "runs", "verdicts"),
    [
        ("west", True, True, ["ok"]),
        ("west", False, True, ["failed"]),
        ("west", False, False, ["failed"]),
        (None, True, True, []),
        (None, False, True, ["warning"]),
        (None, False, False, []),
    ],
)
def test_doctor_judges_each_clusters_workers(
    cluster: str | None, is_served: bool, runs: bool, verdicts: list[str]
) -> None:
    found = served_checks("segue", cluster, is_served=is_served, runs=runs)
    assert [str(each.verdict) for each in found] == verdicts


def test_a_check_names_its_cluster() -> None:
    check = SetupCheck(area="Kubernetes", name="clock", verdict=CheckVerdict.OK, found="fine")
    assert (check.of("west").area, check.of("").area) == ("Kubernetes west", "Kubernetes")
