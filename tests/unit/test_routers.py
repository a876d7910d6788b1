"""What routes the traffic, as its router reads and writes it after somebody else changed or removed it."""

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities.clock import Clock
from activities.cluster import Cluster, Object
from activities.levers.ownership import OWNER
from activities.rollout import Activities
from activities.routers.base import SAVED, Sight, as_kept
from activities.routers.httproute import HttpRouteRouter, bypassing
from activities.routers.service import ServiceRouter
from activities.watching import NamespaceWatch
from segue.contract import PrepareInput, WriteInput
from segue.decision import Act, Decision
from segue.errors import Refused, Stale
from segue.observation import Counts, Observation, Routed, Side, Version
from segue.spec import ByRoute, Change, Rules, Strategy
from segue.spec.target import PairTarget
from segue.state import Goal, State

ROUTER = HttpRouteRouter(Cluster.__new__(Cluster))  # reading asks nobody
TARGET = PairTarget(kind="DeploymentPair", namespace="n", old="old", new="new")
GATEWAY = "gateway public (example.com/gateway)"
RULES = Rules(
    strategy=Strategy(traffic=ByRoute.model_validate({"route": "chat", "services": {"old": "old", "new": "new"}}))
)


def rule(**weights: int) -> Object:
    return {"backendRefs": [{"name": name, "weight": weight} for name, weight in weights.items()]}


SAVED_BEFORE = {"rule": 0, "backendRefs": rule(old=100)["backendRefs"]}
OTHER = rule(static=1)


def route(*rules: Object, uid: str = "first", generation: int = 5) -> Object:
    """A route that the rollout holds, accepted by its gateway."""
    conditions = [
        {"type": kind, "status": "True", "observedGeneration": generation} for kind in ("Accepted", "ResolvedRefs")
    ]
    parent = {"parentRef": {"name": "public"}, "controllerName": "example.com/gateway", "conditions": conditions}
    annotations = {OWNER: "us", SAVED: as_kept(SAVED_BEFORE, {**SAVED_BEFORE, **rule(old=0, new=100)})}
    metadata = {
        "name": "chat",
        "uid": uid,
        "generation": generation,
        "resourceVersion": "9",
        "annotations": annotations,
    }
    return {"metadata": metadata, "spec": {"rules": [*rules]}, "status": {"parents": [parent]}}


def state_of(goal: Goal = Goal.FORWARD) -> State:
    routed = Routed(share=50, version=7, saved=json.dumps(SAVED_BEFORE), generation=5, uid="first", gateways=(GATEWAY,))
    return State(
        owner="us", claimed=True, goal=goal, baseline=Version(template="a"), wanted=Version(template="b"), routed=routed
    )


def sight(found: Object | None, goal: Goal = Goal.FORWARD, *, routed: bool = True) -> Sight:
    class Watch(NamespaceWatch):
        def __init__(self) -> None:
            """Show one route."""

        def get(self, kind: str, name: str) -> Object | None:
            return found if kind == ROUTER.kind else None

    state = state_of(goal) if routed else state_of(goal).but(routed=None)
    seen = ROUTER.seen(Watch(), TARGET, RULES, state)
    assert seen is not None
    return seen


HALF = rule(old=50, new=50)


def test_a_route_that_was_created_again_is_accepted_by_its_own_generation() -> None:
    """Its generations begin at 1 again: its gateway never decides on the generation of the deleted one."""
    late = sight(route(HALF, generation=4)).routed
    assert late is not None and "has not decided Accepted for the route's generation 5" in late.pending
    again = sight(route(HALF, uid="second", generation=1))
    assert again.foreign is None and again.routed is not None and (again.routed.share, again.routed.pending) == (50, "")


@pytest.mark.parametrize(
    "found", [None, route(OTHER), route(rule())], ids=["deleted", "no-rule-of-ours", "no-backends"]
)
def test_what_routes_nothing_any_more_is_named_and_keeps_no_rollback(found: Object | None) -> None:
    """Forward it is a foreign change; a rollback continues, with the traffic as it was written last."""
    there, back = sight(found), sight(found, Goal.BACK)
    assert there.foreign is not None and there.routed is None
    assert back.foreign is None and back.routed is not None and (back.routed.share, back.routed.pending) == (50, "")
    if found is not None:
        del found["metadata"]["annotations"]
    assert sight(found, Goal.BACK, routed=False) == Sight(), "a policy may have denied the first write of the route"


@pytest.mark.parametrize("holds", [True, False])
def test_what_leads_users_back_already_keeps_no_rollback(*, holds: bool) -> None:
    """Somebody created it again, or their GitOps tool set it back: a rollback held for a person after each step."""
    restored = route(rule(old=100), uid="second", generation=1)
    wrote = {"manager": "argocd", "operation": "Update", "time": "2026-01-01T00:00:00Z"}
    restored["metadata"]["managedFields"] = [{**wrote, "fieldsV1": {"f:spec": {"f:rules": {}}}}]
    if not holds:
        restored["metadata"]["annotations"] = {}
    there, back = sight(restored), sight(restored, Goal.BACK)
    assert there.foreign is not None and there.foreign.who.startswith("argocd")
    assert back.foreign is None and back.routed is not None and back.routed.share == 0


@pytest.mark.parametrize(("color", "share"), [("green", 100), ("blue", 0), ("red", None)])
def test_a_service_of_a_new_side_that_somebody_deletes_is_read_as_it_was_written(color: str, share: int | None) -> None:
    """Held as somebody's change of the Service, the rollout brought no old replica back, and no traffic to one."""
    kept = as_kept({"color": "blue"}, {"color": "green"})
    metadata = {"name": "chat", "resourceVersion": "9", "annotations": {OWNER: "us", SAVED: kept}}
    service = {"metadata": metadata, "spec": {"selector": {"color": color}}}

    class Watch(NamespaceWatch):
        def __init__(self) -> None:
            """Show one Service, and no Deployment."""

        def get(self, kind: str, name: str) -> Object | None:
            return service if kind == "services" else None

    rules = Rules(strategy=Strategy.model_validate({"type": "blueGreen", "traffic": {"service": "chat"}}))
    routed = Routed(share=share or 0, version=7, saved=json.dumps({"color": "blue"}))
    found = ServiceRouter(Cluster.__new__(Cluster)).seen(Watch(), TARGET, rules, state_of().but(routed=routed))
    assert found is not None and (found.routed and found.routed.share) == share
    assert (found.foreign is None) == (share is not None)


@pytest.mark.parametrize(("new", "why"), [(0, ""), (4, "100 % of the traffic goes to the new side")])
async def test_old_replicas_come_back_where_somebody_deleted_the_side_with_the_traffic(new: int, why: str) -> None:
    """The move was refused because it would empty that side, which is empty."""

    async def routed(*_: object) -> Sight:
        return Sight(Routed(share=100))

    async def observed(*_: object) -> Observation:
        return Observation(replicas=4, old=Side(), new=Side(total=new), requested=Counts(0, new), template="b")

    activities = Activities.__new__(Activities)
    activities._clock = Clock()
    activities._routers = cast("Any", SimpleNamespace(of=lambda _: SimpleNamespace(observe=routed)))
    activities._levers = cast("Any", SimpleNamespace(of=lambda _: SimpleNamespace(observe=observed)))
    back = Decision(act=Act.SCALE, why="old ones come back", counts=Counts(4, 0))
    refusal = await activities._emptied(WriteInput(target=TARGET, rules=RULES, state=state_of(), decision=back))
    assert refusal.startswith(why) and bool(refusal) == bool(why)


def test_a_rule_that_others_moved_is_still_the_rollouts() -> None:
    """Written by its index, the weights would replace the backends of somebody else's rule."""
    moved = route(OTHER, HALF)
    assert sight(moved).foreign is None
    assert ROUTER.patch(moved, SAVED_BEFORE) == {"spec": {"rules": [OTHER, rule(old=100)]}}
    assert ROUTER.free(moved, "before")["spec"] == {"rules": [OTHER, rule(old=100)]}
    unclaimed = route(OTHER, HALF)
    unclaimed["metadata"]["annotations"] = {}
    assert ROUTER.read(unclaimed, RULES)["backendRefs"] == OTHER["backendRefs"], "the spec names the rule"


@pytest.mark.parametrize("rules", [(), (OTHER,), (OTHER, OTHER)], ids=["none", "another", "others"])
def test_a_route_without_the_rule_is_released_as_it_is(rules: tuple[Object, ...]) -> None:
    """Somebody else's rule is not overwritten."""
    bare = route(*rules)
    with pytest.raises(Stale, match="httproute chat has no rule with the backends of this rollout any more"):
        ROUTER.patch(bare, SAVED_BEFORE)
    assert ROUTER.free(bare, "before") == {"metadata": {"annotations": {OWNER: None, SAVED: None}}}
    new_only = route(rule(new=1))
    assert ROUTER.free(new_only, "before")["spec"] == {"rules": [rule(old=100)]}


def test_other_rules_that_lead_to_the_old_side_are_named() -> None:
    """Nobody would answer their requests once the old replicas are gone."""
    by = ByRoute.model_validate({"route": "chat", "rule": 1, "services": {"old": "old", "new": "new"}})
    away = {"backendRefs": [{"name": "old", "namespace": "elsewhere"}]}
    pool = {"backendRefs": [{"name": "old", "group": "inference.networking.k8s.io", "kind": "InferencePool"}]}
    other = {"metadata": {"name": "health"}, "spec": {"rules": [OTHER, rule(old=1)]}}
    routes = [route({"backendRefs": [{"name": "old"}]}, rule(old=1), rule(old=0, static=1), away, pool, {}), other]
    found = bypassing(routes, "n", by)
    named = [each.partition(" also")[0] for each in found]
    assert named == ["httproute n/chat: rules[0]", "httproute n/health: rules[1]"]
    assert all("sends traffic to the old side's Service old" in each and "give it another" in each for each in found)
    assert bypassing([other, route(rule(old=1))], "n", by, "grpcroute")[1].startswith(
        "grpcroute n/chat: rules[0] also"
    ), "of another kind, whatever its name"
    by_pools = ByRoute.model_validate({"route": "chat", "rule": 1, "pools": {"old": "old", "new": "new"}})
    assert [each.partition(" also")[0] for each in bypassing(routes, "n", by_pools)] == ["httproute n/chat: rules[4]"]


@pytest.mark.parametrize(
    ("backends", "why"),
    [
        ([{"name": "old", "namespace": "n"}], ""),
        ([{"name": "old", "namespace": "m"}], "sends traffic to old in the namespace m, and both sides' pods are in n"),
        ([{"name": "old"}, {"name": "new", "namespace": "m", "weight": 0}], "sends traffic to new in the namespace m"),
        ([{"name": "old", "port": 80}, {"name": "old", "port": 81}], "names old more than once"),
    ],
)
async def test_backends_that_are_not_the_two_sides_are_refused(backends: list[Object], why: str) -> None:
    """A Service of the same name elsewhere is another one; of two backends of one name, the weights would drop one."""

    class Seen(Cluster):
        def __init__(self) -> None:
            """Have the Service of each side."""

        async def get(self, kind: str, namespace: str, name: str) -> Object:
            return {"spec": {"selector": {"side": name}}}

    router = HttpRouteRouter(Seen())
    old, new = ({"metadata": {"name": side}, "spec": {"template": {"metadata": {"labels": {"side": side}}}}}
                for side in ("old", "new"))  # fmt: skip
    change = Change.model_validate({"images": {"server": "a/b:2"}})
    request = PrepareInput(target=TARGET, change=change, rules=RULES, owner="us")
    with pytest.raises(Refused, match=why) if why else nullcontext():
        await router.check(request, {"rule": 0, "backendRefs": backends}, old, new)


@pytest.mark.parametrize("saved", ["{", "5", '{"before": {}}'])
def test_a_damaged_note_of_the_former_value_is_named(saved: str) -> None:
    """Somebody changed it. A rollout has its own record, and goes on; without the rollout nothing can restore it."""
    found = route(rule(old=50, new=50))
    found["metadata"]["annotations"][SAVED] = saved
    assert sight(found, Goal.BACK).routed is not None
    assert ROUTER.patch(found, SAVED_BEFORE)["spec"] == {"rules": [rule(old=100)]}
    with pytest.raises(Refused, match=r"chat: has an annotation segue.dev/traffic that cannot be read"):
        ROUTER.free(found, "before")
    assert ROUTER.free(found)["metadata"]["annotations"] == {OWNER: None, SAVED: None}
