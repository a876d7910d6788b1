"""Profiles: a valid spec for each model server, with the spec's own fields over it."""

from typing import Any

import pytest

from segue.errors import Refused
from segue.spec import Rollout, Rules, Spec, Strategy, read_rollout
from segue.spec.own_profile import read_own_profile
from segue.spec.profile import Profile, ProfileName
from segue.spec.resolving import fields_of, laid_over, layers_of, origins, profile_text
from segue.state import Retarget
from workflows.rollout import _respecified

NAMES = pytest.mark.parametrize("name", list(ProfileName))


def read(name: str, kind: str = "Deployment", **own: Any) -> Spec:
    """Return the spec of a target with this profile and these fields of its own."""
    spec = {
        "target": {"kind": kind, "name": "chat"},
        "change": {"images": {"server": "example/chat:2"}},
        "profile": {"name": name, "model": "llama-3"},
        **own,
    }
    return read_rollout(
        {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "chat"}, "spec": spec}
    ).spec


def layers(spec: Spec) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return what the built-in profile gives, and what the spec overrides."""
    return [(each.given, each.overridden) for each in origins(spec, layers_of(spec.profile, None))]


@NAMES
def test_each_profile_makes_a_valid_spec_that_checks_the_model(name: ProfileName) -> None:
    spec = read(name)
    assert spec.profile == Profile(name=name, model="llama-3")
    assert spec.serving is not None
    assert [check.asks.model for check in spec.serving.checks] == ["llama-3"]  # type: ignore[attr-defined]
    assert spec.rules == Rules.model_validate(fields_of(name, "llama-3"))
    assert "{model}" not in profile_text(name, "llama-3")


@NAMES
def test_each_profile_asks_only_its_own_server(name: ProfileName) -> None:
    """A preset or protocol of another server would never answer."""
    spec = read(name)
    assert {metric.preset.split("/")[0] for metric in spec.metrics if metric.preset} <= {name}
    if spec.drain is not None:
        assert spec.drain.until is not None and spec.serving is not None
        assert str(spec.drain.until.preset) == str(name)
        assert spec.drain.until.where == spec.serving.port
    if spec.load_failures is not None:
        protocols = {"triton": "openInference", "mlserver": "openInference", "torchserve": "torchServe"}
        assert spec.load_failures.protocol == protocols.get(name, "tfServing")


@NAMES
def test_each_profile_needs_no_waypoint(name: ProfileName) -> None:
    """A metric that is evaluated only at the end decides when no old replica is left."""
    assert all(metric.continuous for metric in read(name).metrics)


def test_the_profile_of_kserve_fits_its_operator() -> None:
    assert read("kserve", kind="Supervised", target={"kind": "Supervised", "resource": "InferenceService", "name": "a"})


@pytest.mark.parametrize(
    ("base", "own", "wanted"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}, id="maps-merge"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 3, "d": 4}}, {"a": {"b": 1, "c": 3, "d": 4}}, id="deep"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null-leaves-out"),
        pytest.param({"a": 1}, {"b": {"c": None}}, {"a": 1, "b": {"c": None}}, id="other-nulls-stay"),
        pytest.param([{"name": "a", "x": 1}, {"name": "b"}], [{"name": "c"}, {"name": "a", "y": 2}],
                     [{"name": "a", "x": 1, "y": 2}, {"name": "b"}, {"name": "c"}], id="lists-by-name"),
        pytest.param([{"name": "a"}], [], [], id="an-empty-list-replaces"),
        pytest.param([{"name": "a"}], [{"name": "b"}, {"x": 1}], [{"name": "b"}, {"x": 1}], id="unnamed-replaces"),
        pytest.param([{"name": "a"}], [{"name": ["a"]}], [{"name": ["a"]}], id="a-name-that-is-no-text"),
        pytest.param(["a"], ["b"], ["b"], id="a-list-of-text-replaces"),
        pytest.param({"a": 1}, "text", "text", id="another-type-replaces"),
        pytest.param([{"name": "a"}], 2 * [{"name": "b"}], 2 * [{"name": "b"}], id="one-name-twice-replaces"),
    ],
)  # fmt: skip
def test_own_fields_lie_over_those_of_the_profile(base: Any, own: Any, wanted: Any) -> None:
    assert laid_over(base, own) == wanted


def test_a_part_can_be_left_out_or_replaced() -> None:
    http = {"name": "model", "openAI": None, "http": {"path": "/health"}}
    spec = read("vllm", drain=None, metrics=[], serving={"checks": [http]}, onFailure="pause")
    assert (spec.drain, spec.metrics) == (None, ())
    assert spec.serving is not None and spec.serving.port == 8000
    assert spec.serving.checks[0].http is not None
    assert layers(spec) == [(("serving",), ("serving.checks.model.openAI", "drain", "metrics"))]


def test_what_a_profile_does_not_give_can_be_left_out() -> None:
    """docs/profiles.md says to write `metrics: null`, and some profiles have none."""
    strategy = {"maxSurge": 1, "waypoints": None}
    spec = read("kserve", metrics=None, drain=None, gates=None, strategy=strategy, readiness={"minReady": None})
    assert (spec.metrics, spec.drain, spec.gates, spec.strategy.waypoints) == ((), None, (), ())
    assert layers(spec) == [(("serving",), ())]
    below = {"apiVersion": "segue.dev/v1alpha1", "kind": "RolloutProfile", "metadata": {"name": "ours"}}
    ours = read_own_profile({**below, "spec": {"profile": {"name": "kserve"}, "metrics": None}}, "ours.yaml")
    assert ours.base is not None


def test_origins_name_parts_and_the_fields_that_differ() -> None:
    own = {"name": "errors", "interval": "1m", "judge": {"compare": {"effect": 2}}}
    spec = read("vllm", serving={"port": "http", "warmup": 3}, metrics=[own, {**own, "name": "mine", "value": "x"}])
    given = ("serving", "drain", "metrics.errors", "metrics.first-token")
    assert layers(spec) == [(given, ("serving.port", "metrics.errors.judge.compare"))]
    assert layers(read("vllm", drain={"timeout": "600s"})) == [(given, ())]


def test_two_metrics_with_one_name_are_refused_as_without_a_profile() -> None:
    metric = {"name": "mine", "value": "x", "judge": {"compare": {}}}
    with pytest.raises(Refused, match="'mine': is the name of two gates"):
        read("vllm", metrics=[metric, metric])


def test_a_spec_without_a_profile_has_no_origins() -> None:
    assert layers(read("vllm", profile=None)) == []
    assert read("vllm", profile=None).serving is None


def test_a_resolved_spec_is_read_again_unchanged() -> None:
    """A stored spec is its own record: neither a release with other profiles nor a second reading changes it."""
    spec = read("vllm", drain=None, metrics=[])
    stored = {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "chat"}}
    dumped: dict[str, Any] = {**stored, "spec": spec.model_dump(mode="json", by_alias=True)}
    assert Rollout.model_validate(dumped).spec == read_rollout(dumped).spec == spec
    assert Spec.model_validate({**dumped["spec"], "serving": None}).serving is None
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_a_retarget_by_another_strategy_keeps_the_profile() -> None:
    spec = read("vllm")
    retargeted = _respecified(spec, Retarget(by="a", strategy=Strategy(maxSurge=1)))  # type: ignore[call-arg]
    assert retargeted.strategy != spec.strategy
    assert (retargeted.profile, retargeted.serving) == (spec.profile, spec.serving)


def test_a_refusal_names_the_profile_that_gives_fields() -> None:
    """Its reader looks for the field in the file, where it is not."""
    with pytest.raises(Refused) as caught:
        read("vllm", kind="StatefulSet")
    assert str(caught.value).splitlines() == [
        "spec.drain.until: '...': is not for a StatefulSet: its next replica cannot leave its Services before it "
        "stops; leave it out; a preStop hook and terminationGracePeriodSeconds let it finish its streams",
        "spec.profile: 'vllm': gives fields of this spec; `segue profiles vllm` prints them, and null leaves one out",
    ]
    assert read("vllm", kind="StatefulSet", drain={"until": None}).drain is not None
