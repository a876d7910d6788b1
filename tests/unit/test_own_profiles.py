"""Profiles of a team: read from files and objects, under the spec's own fields, over a built-in one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segue.errors import Refused
from segue.files import profile_in_files, read_target
from segue.library import rollout_of
from segue.spec import OwnProfile, Rollout, named_profile, read_rollout
from segue.spec.own_profile import read_own_profile
from segue.spec.profile import Profile
from segue.spec.refusals import NamedProfile
from segue.spec.resolving import layers_of, origins

API = "segue.dev/v1alpha1"
OURS: dict[str, Any] = {
    "profile": {"name": "vllm"},
    "strategy": {"waypoints": [{"at": 1}]},
    "drain": {"timeout": "5m"},
    "metrics": [{"name": "errors", "judge": {"compare": {"effect": 2}}}],
    "notifications": [{"name": "ops"}],
}


def profile(kind: str = "RolloutProfile", name: str = "ours", namespace: str = "", **spec: Any) -> dict[str, Any]:
    """Return the document of a profile."""
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, **place}, "spec": spec or OURS}


def own(**spec: Any) -> OwnProfile:
    return read_own_profile(profile(**spec), "team.yaml")


def rollout(namespace: str = "serving", **spec: Any) -> dict[str, Any]:
    """Return the document of a rollout that names the profile."""
    body = {
        "target": {"namespace": namespace, "name": "chat"},
        "change": {"images": {"server": "example/chat:2"}},
        "profile": {"name": "ours", "model": "llama-3"},
        **spec,
    }
    return {"apiVersion": API, "kind": "Rollout", "metadata": {"name": "chat"}, "spec": body}


def test_a_profile_lies_over_a_built_in_one_and_under_the_spec() -> None:
    found = read_rollout(rollout(drain={"timeout": "9m"}), "", own()).spec
    assert found.serving is not None and [check.asks.model for check in found.serving.checks] == ["llama-3"]  # type: ignore[attr-defined]
    assert found.drain is not None and found.drain.until is not None
    assert (found.drain.timeout.total_seconds(), len(found.strategy.waypoints)) == (540, 1)
    assert [(each.name, each.preset) for each in found.metrics] == [
        ("errors", "vllm/errors"), ("first-token", "vllm/ttft"),
    ]  # fmt: skip
    assert [each.name for each in found.notifications] == ["ops"]
    assert found.profile == Profile(name="ours", model="llama-3")


def test_origins_name_each_profile() -> None:
    found = read_rollout(rollout(drain={"timeout": "9m"}, notifications=[]), "", own()).spec
    given = [(each.layer.name, each.given, each.overridden) for each in origins(found, layers_of(found.profile, own()))]
    assert given == [
        ("vllm", ("serving", "drain", "metrics.errors", "metrics.first-token"),
         ("drain.timeout", "metrics.errors.judge.compare")),
        ("ours", ("strategy", "drain", "metrics.errors", "notifications"), ("drain.timeout", "notifications")),
    ]  # fmt: skip


def test_a_profile_leaves_out_what_lies_under_it() -> None:
    found = read_rollout(rollout(), "", own(profile={"name": "vllm"}, drain=None, metrics=None)).spec
    assert (found.drain, found.metrics) == (None, ())
    assert found.serving is not None
    alone = own(drain=None, metrics=[])
    found = read_rollout(rollout(profile={"name": "ours"}), "", alone).spec
    assert (found.drain, found.metrics, found.serving) == (None, (), None)
    assert [each.given for each in origins(found, layers_of(found.profile, alone))] == [("metrics",)]


def test_the_rollout_names_another_model_than_the_profile() -> None:
    ours = own(profile={"name": "vllm", "model": "a"})
    for named, model in (({"name": "ours"}, "a"), ({"name": "ours", "model": "b"}, "b")):
        found = read_rollout(rollout(profile=named), "", ours).spec
        assert found.serving is not None and [check.asks.model for check in found.serving.checks] == [model]  # type: ignore[attr-defined]


def test_a_resolved_spec_needs_no_profile_any_more() -> None:
    """What is stored is its own record: a changed profile changes no rollout under way."""
    found = read_rollout(rollout(), "", own())
    assert Rollout.model_validate(found.model_dump(mode="json", by_alias=True)) == found
    assert Rollout.model_validate_json(found.model_dump_json()) == found


def test_a_refusal_of_the_whole_names_each_profile() -> None:
    """Its reader looks for the field in the file, where it is not."""
    target = {"kind": "StatefulSet", "namespace": "serving", "name": "chat"}
    with pytest.raises(Refused) as caught:
        read_rollout(rollout(target=target), "a.yaml", own())
    assert str(caught.value).splitlines()[1:] == [
        "spec.profile: 'vllm': gives fields of this spec; `segue profiles vllm` prints them, and null leaves one out",
        "spec.profile: 'ours': gives fields of this spec (see team.yaml), and null leaves one out",
    ]


# --- what is refused --------------------------------------------------------------------------------------

TARGET = {"namespace": "serving", "name": "chat"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no apiVersion": ({"apiVersion": None}, "apiVersion: is not allowed; write 'segue.dev/v1alpha1'"),
    "another version": ({"apiVersion": "segue.dev/v1"}, "apiVersion: 'segue.dev/v1': is not allowed; write"),
    "another kind": ({"kind": "Rollout"}, "kind: 'Rollout': is not allowed; write 'RolloutProfile' or"),
    "misspelt kind": ({"kind": "RolloutProfiles"}, "kind: 'RolloutProfiles': is not allowed"),
    "unknown field beside spec": ({"status": {}}, "status: is not a field that Segue knows; check its spelling"),
    "no name": ({"metadata": {}}, "metadata.name: is missing; add it"),
    "a name that Kubernetes refuses": ({"metadata": {"name": "Our_s"}}, "metadata.name: 'Our_s': is not allowed here"),
    "a built-in name": (
        {"metadata": {"name": "vllm"}},
        "metadata.name: 'vllm': is the name of a built-in profile; give your profile another name",
    ),
    "a namespace, cluster-wide": (
        {"kind": "ClusterRolloutProfile", "metadata": {"name": "ours", "namespace": "serving"}},
        "metadata.namespace: 'serving': is not for a ClusterRolloutProfile; leave it out, or write",
    ),
    "no spec": ({"spec": ...}, "spec: is missing; add it"),
    "spec is text": ({"spec": "vllm"}, "spec: 'vllm': is not a mapping; write"),
    "an empty spec": ({"spec": {}}, "spec: gives nothing; add fields of a Rollout's spec"),
    "unknown field": ({"spec": {"stategy": {}}}, "spec.stategy: is not a field that Segue knows; check its spelling"),
    "unknown field below": ({"spec": {"strategy": {"surge": 1}}}, "spec.strategy.surge: 1: is not a field"),
    "a target": ({"spec": {"target": TARGET}}, "spec.target: '...': does not belong in a profile; move it to the"),
    "a change": ({"spec": {"change": {"images": {"a": "b"}}}}, "spec.change: '...': does not belong in a profile"),
    "accepted rules": ({"spec": {"accept": ["single-replica"]}}, "spec.accept: '...': does not belong in a profile"),
    "a pause": ({"spec": {"paused": True}}, "spec.paused: '...': does not belong in a profile"),
    "a deletion": ({"spec": {"onDelete": "leave"}}, "spec.onDelete: '...': does not belong in a profile"),
    "itself below": (
        {"spec": {"profile": {"name": "ours"}}},
        "spec.profile.name: 'ours': is not a built-in profile, and a profile builds only on a built-in one; write one",
    ),
    "another of the team's below": ({"spec": {"profile": {"name": "base"}}}, "spec.profile.name: 'base': is not a"),
    "a profile as text": ({"spec": {"profile": "vllm"}}, "spec.profile: 'vllm': is not a mapping; write"),
    "a model without a profile": ({"spec": {"profile": {"model": "a"}}}, "spec.profile.name: is missing; add it"),
    "a bad model": ({"spec": {"profile": {"name": "vllm", "model": ""}}}, "spec.profile.model: '': is not allowed"),
    "text for a number": ({"spec": {"passScore": "75"}}, "spec.passScore: '75': is not a whole number; write one"),
    "a number out of bounds": ({"spec": {"passScore": 0}}, "spec.passScore: 0: is too small; write 1 or more"),
    "a bad duration": ({"spec": {"readiness": {"minReady": "5 parsecs"}}}, "spec.readiness.minReady: '5 parsecs': "),
    "an unknown choice": ({"spec": {"onFailure": "retry"}}, "spec.onFailure: 'retry': is not one of the choices; wri"),
    "an unknown preset": ({"spec": {"metrics": [{"name": "a", "preset": "x/y"}]}}, "spec.metrics[0]"),
    "a metric without a judgement": ({"spec": {"metrics": [{"name": "a", "value": "x"}]}}, "spec.metrics[0].judge"),
    "two gates of one name": (
        {"spec": {"metrics": [{"name": "a", "value": "x", "judge": {"compare": {}}}] * 2}},
        "spec.metrics: 'a': is the name of two gates; give each its own name",
    ),
    "one receiver twice": ({"spec": {"notifications": [{"name": "a"}] * 2}}, "spec.notifications: 'a': is given twice"),
    "a list for a map": ({"spec": {"drain": [1]}}, "spec.drain: is not a mapping; write"),
    "no room to move": ({"spec": {"strategy": {"maxSurge": 0, "maxUnavailable": 0}}}, "spec.strategy"),
}  # fmt: skip
"""What is changed in a good profile; ``...`` removes the field."""


@pytest.mark.parametrize(("changed", "expected"), BAD.values(), ids=BAD)
def test_a_bad_profile_is_refused_with_field_value_and_fix(changed: dict[str, Any], expected: str) -> None:
    document = {name: each for name, each in {**profile(), **changed}.items() if each is not ...}
    with pytest.raises(Refused) as caught:
        read_own_profile(document, "team.yaml")
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"team.yaml: {expected}") and "; " in first


USES: dict[str, tuple[Any, OwnProfile | None, str]] = {
    "no such profile": (
        {"name": "ours"}, None,
        "spec.profile.name: 'ours': is not a built-in profile, and no profile of this name was found for namespace "
        "serving; write one of vllm, ",
    ),
    "no model": ({"name": "ours"}, own(), "spec.profile.model: is missing; add it: profile ours (team.yaml) builds on"),
    "a model for nothing": (
        {"name": "ours", "model": "a"}, own(drain=None),
        "spec.profile.model: 'a': is not for profile ours (team.yaml), which builds on no profile of a model server; l",
    ),
    "text": ("ours", own(), "spec.profile: 'ours': is not a mapping; write"),
    "an unknown field": ({"name": "ours", "version": 1}, own(), "spec.profile.version: 1: is not a field that Segue k"),
    "a bad name": ({"name": "OURS"}, None, "spec.profile.name: 'OURS': is not allowed here; it must match"),
}  # fmt: skip


@pytest.mark.parametrize(("named", "given", "expected"), USES.values(), ids=USES)
def test_a_bad_use_is_refused_with_field_value_and_fix(named: Any, given: OwnProfile | None, expected: str) -> None:
    with pytest.raises(Refused) as caught:
        read_rollout(rollout(profile=named), "a.yaml", given)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"a.yaml: {expected}") and "; " in first


# --- where it is found ------------------------------------------------------------------------------------


def test_only_a_profile_of_a_team_is_looked_for() -> None:
    assert named_profile(rollout()) == NamedProfile("serving", "ours")
    beside = {**rollout(target={"name": "chat"}), "metadata": {"name": "chat", "namespace": "prod"}}
    assert named_profile(beside) == NamedProfile("prod", "ours")
    west = rollout(target={"name": "chat", "namespace": "serving", "cluster": "west"})
    assert named_profile(west) == NamedProfile("serving", "ours", "west")
    for other in ({"name": "vllm", "model": "a"}, None, "ours", {"name": 1}):
        assert named_profile(rollout(profile=other)) is None
    assert named_profile(None) is None and named_profile({"spec": []}) is None


def write(folder: Path, **documents: Any) -> str:
    for name, document in documents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return str(folder)


def test_files_give_the_profile_of_the_namespace_before_that_of_the_cluster(tmp_path: Path) -> None:
    team = write(
        tmp_path,
        wide=profile("ClusterRolloutProfile", drain=None),
        serving=profile(namespace="serving", drain={"timeout": "1m"}),
        prod=profile(namespace="prod", drain={"timeout": "2m"}),
        other=profile(name="other", drain=None),
    )
    kinds = {each: profile_in_files(team, rollout(each)) for each in ("serving", "prod", "dev")}
    assert {each: found and (found.kind, found.fields["drain"]) for each, found in kinds.items()} == {
        "serving": ("RolloutProfile", {"timeout": "1m"}), "prod": ("RolloutProfile", {"timeout": "2m"}),
        "dev": ("ClusterRolloutProfile", None),
    }  # fmt: skip
    assert profile_in_files(f"{team}/other.yaml", rollout()) is None
    assert profile_in_files(team, rollout(profile={"name": "vllm", "model": "a"})) is None
    with pytest.raises(
        Refused, match=r"'ours': is the name of two profiles: in .*again.yaml and in .*serving.yaml; re"
    ):
        profile_in_files(write(tmp_path, again=profile(drain=None)), rollout())


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"has no \.yaml, \.yml or \.json file"):
        profile_in_files(str(tmp_path), rollout())
    with pytest.raises(Refused, match=r"a.yaml: kind: 'Rollout': is not allowed"):
        profile_in_files(write(tmp_path, a=rollout()), rollout())
    with pytest.raises(Refused, match="does not exist"):
        profile_in_files(str(tmp_path / "nowhere.yaml"), rollout())


def test_a_program_takes_the_files_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target alone needs no profile: every command finds a rollout by its file."""
    file = write(tmp_path, spec=rollout()) + "/spec.yaml"
    assert str(read_target(file)) == "serving/chat"
    team = tmp_path / "team"
    team.mkdir()
    monkeypatch.setenv("SEGUE_PROFILES", write(team, ours=profile()))
    for given in (rollout(), file):
        assert [each.name for each in rollout_of(given).spec.notifications] == ["ops"]
    monkeypatch.delenv("SEGUE_PROFILES")
    with pytest.raises(Refused, match="no profile of this name was found"):
        rollout_of(rollout())
