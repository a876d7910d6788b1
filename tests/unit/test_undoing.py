"""What an undo asks for: a revision, or a pair's sides exchanged."""

from typing import Any

import pytest

from activities.autoscaling import aims_of
from segue.errors import Refused
from segue.spec import (
    KINDS,
    Autoscaler,
    ByRoute,
    PairTarget,
    RoutePools,
    Rules,
    Spec,
    SupervisedTarget,
    Target,
    read_rollout,
)
from segue.spec.lint_rule import LintRule
from segue.undoing import exchanged, to_revision

BY_ROUTE = {"route": "chat", "rule": 1, "services": {"old": "chat-v1", "new": "chat-v2"}}


def pair(**spec: Any) -> Spec:
    target = {"kind": "DeploymentPair", "cluster": "eu", "namespace": "serving", "old": "chat", "new": "chat-next"}
    body = {"target": target, "change": {"images": {"server": "example/chat:2"}}, **spec}
    return read_rollout(
        {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"}, "spec": body}
    ).spec


def of(kind: str) -> Target:
    return KINDS[kind].model_validate({"kind": kind, "cluster": "eu", "namespace": "serving", "name": "chat"})


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "LeaderWorkerSet"])
def test_by_the_defaults_of_its_kind(kind: str) -> None:
    spec = to_revision(of(kind), 3, None)
    assert spec.target == of(kind) and spec.change.goes_back and spec.change.revision == 3
    assert (spec.strategy.max_surge == 0) is (kind == "StatefulSet")


def test_rules_that_do_not_fit_are_refused() -> None:
    """With field, value and fix, as in a spec file."""
    with pytest.raises(
        Refused, match=r"^strategy.maxSurge: '25%': is more than a StatefulSet can have; write maxSurge: 0"
    ):
        to_revision(of("StatefulSet"), 1, Rules())
    supervised = SupervisedTarget(resource="ServingRuntime", namespace="serving", name="chat")
    with pytest.raises(Refused, match="is not for a supervised target"):
        to_revision(supervised, 1, None)


def test_a_pairs_sides_are_exchanged() -> None:
    """In its own cluster, to the one from before, wholly, by the same rules; lint does not stand in the way."""
    given = pair(strategy={"maxSurge": 1, "to": {"new": "50%"}, "waypoints": [{"at": 1}]}, readiness={"minReady": "7s"})
    back = exchanged(given, None)
    assert back.target == PairTarget(cluster="eu", namespace="serving", old="chat-next", new="chat")
    assert back.change.is_empty and set(back.accept) == set(LintRule)
    assert back.strategy == given.strategy.model_copy(update={"to": None})
    assert back.readiness == given.readiness
    assert exchanged(given, Rules()).strategy == Rules().strategy


def test_only_a_pair_has_two_sides() -> None:
    with pytest.raises(TypeError, match="only a pair has two sides"):
        exchanged(to_revision(of("Deployment"), 3, None), None)


def test_what_led_the_traffic_there_leads_it_back() -> None:
    routed = exchanged(pair(strategy={"traffic": BY_ROUTE, "waypoints": [{"at": 1, "weight": 5}]}), None).strategy
    assert isinstance(routed.traffic, ByRoute) and routed.traffic.rule == 1
    assert (routed.traffic.backends.old, routed.traffic.backends.new) == ("chat-v2", "chat-v1")
    pools = {"route": "chat", "pools": {"old": "chat-v1", "new": "chat-v2"}}
    back = exchanged(pair(strategy={"traffic": pools}), None).strategy.traffic
    assert isinstance(back, ByRoute) and back.services is None
    assert back.pools == RoutePools(old="chat-v2", new="chat-v1")
    switched = pair(strategy={"type": "blueGreen", "traffic": {"service": "chat"}})
    assert exchanged(switched, None).strategy == switched.strategy


def test_a_pair_that_holds_an_autoscaler_is_refused() -> None:
    """An autoscaler knows one of two Deployments, so held at all replicas it would bring back what was moved away."""
    with pytest.raises(Refused, match=r"spec.autoscaler: 'hold': is not for a DeploymentPair"):
        pair(autoscaler="hold")
    with pytest.raises(Refused, match=r"autoscaler: 'hold': is not for a DeploymentPair"):
        exchanged(pair(), Rules(autoscaler=Autoscaler.HOLD))


@pytest.mark.parametrize(
    ("target", "aims"),
    [
        pytest.param(of("Deployment"), {("Deployment", "chat")}, id="deployment"),
        pytest.param(pair().target, {("Deployment", "chat"), ("Deployment", "chat-next")}, id="pair"),
        pytest.param(
            SupervisedTarget(resource="ServingRuntime", name="chat"), {("ServingRuntime", "chat")}, id="supervised"
        ),
    ],
)
def test_what_an_autoscaler_of_a_target_scales(target: Target, aims: set[tuple[str, str]]) -> None:
    assert aims_of(target) == aims
