"""How many more replicas fit, and what the next one lacks: by the free resources of nodes, and by quotas."""

from decimal import Decimal
from typing import Any

import pytest

from segue.room import Demand, Node, Quota, Room, Scope, exceeded, left_in, room_for, room_for_groups, shown

GPU = "nvidia.com/gpu"
GIB = Decimal(2**30)


def amounts(**given: int) -> dict[str, Decimal]:
    names = {"gpu": GPU, "gib": "memory"}
    return {names.get(name, name): number * GIB if name == "gib" else Decimal(number) for name, number in given.items()}


def node(name: str = "a", *, taints: tuple[dict[str, Any], ...] = (), labels: Any = None, **free: int) -> Node:
    """A node with 8 of everything in total, of which this is free; of what is not given, nothing is left."""
    total = amounts(cpu=8, gpu=8, gib=8, pods=8)
    return Node(name, labels or {}, taints, amounts(**free), total)


def taking(*exclusive: str) -> Node:
    return node(pods=8)._replace(exclusive=frozenset(exclusive))


def demand(**requests: int) -> Demand:
    return Demand(requests=amounts(**requests))


def quota(**left: Any) -> Quota:
    return Quota("q", {name.replace("_", "."): Decimal(number) for name, number in left.items()})


@pytest.mark.parametrize(
    ("wanted", "nodes", "more"),
    [
        pytest.param(demand(cpu=2), [node(cpu=5, pods=8)], 2, id="whole replicas only"),
        pytest.param(demand(cpu=2), [node(cpu=5, pods=8), node("b", cpu=4, pods=8)], 4, id="of each node"),
        pytest.param(demand(cpu=2), [node(cpu=4, pods=1)], 1, id="a node takes so many pods"),
        pytest.param(demand(cpu=1, gpu=1), [node(cpu=8, gpu=3, pods=8)], 3, id="the scarcest resource"),
        pytest.param(demand(cpu=1, gpu=1), [node(cpu=8, pods=8)], 0, id="a node without that resource"),
        pytest.param(demand(cpu=1, gpu=0), [node(cpu=8, pods=8)], 8, id="none is requested of it"),
        pytest.param(demand(cpu=1), [node(cpu=-3, pods=8), node("b", cpu=1, pods=8)], 1, id="overcommitted elsewhere"),
        pytest.param(demand(), [node(pods=2)], 2, id="what requests nothing takes a pod's place"),
        pytest.param(demand(cpu=1), [], 0, id="no node"),
        pytest.param(demand(cpu=1), None, None, id="the nodes are not known"),
    ],
)
def test_what_fits_on_nodes(wanted: Demand, nodes: list[Node] | None, more: int | None) -> None:
    assert room_for(wanted, nodes, ()).more == more


PORT, PLACE = "hostPort 80/TCP", "a place without another pod of serving with app=a (podAntiAffinity)"


@pytest.mark.parametrize(
    ("exclusive", "nodes", "more", "why"),
    [
        ((PORT,), [node(pods=8), node("b", pods=8)], 2, f"{PORT} is free on 2 of the 2 nodes that may run it"),
        ((PORT,), [taking(PORT), node("b", pods=8)], 1, f"{PORT} is free on 1 of the 2 nodes that may run it"),
        ((PORT,), [taking(PORT), taking(PORT)], 0, f"{PORT} is free on none of the 2 nodes that may run it"),
        ((PORT, PLACE), [taking(PORT), taking(PLACE)], 0,
         f"{PORT} and {PLACE} are free on none of the 2 nodes that may run it"),
        ((PORT,), [taking(PLACE)], 1, f"{PORT} is free on 1 of the 1 node that may run it"),
        ((PORT,), [taking(PORT), node("b")], 0,
         "8 of 16 pods free on the 2 nodes that may run it; it requests pods 1"),
        ((), [taking(PORT)], 8, "8 of 8 pods free on the 1 node that may run it; it requests pods 1"),
    ],
)  # fmt: skip
def test_what_one_pod_of_a_node_may_take(exclusive: tuple[str, ...], nodes: list[Node], more: int, why: str) -> None:
    """A host port, and the place that an anti-affinity to the own kind leaves: each node has one."""
    found = room_for(Demand(exclusive=exclusive), nodes, ())
    assert (found.more, found.why) == (more, why)


@pytest.mark.parametrize(
    ("wanted", "nodes", "why"),
    [
        (demand(cpu=1, gpu=2), [node(cpu=8, gpu=1, pods=8)],
         f"1 of 8 {GPU} free on the 1 node that may run it; it requests {GPU} 2"),
        (demand(gpu=2), [node(gpu=1, pods=8), node("b", gpu=-1, pods=8)],
         f"1 of 16 {GPU} free on the 2 nodes that may run it; it requests {GPU} 2"),
        (demand(cpu=1, gpu=1), [node(cpu=8, pods=8)],
         f"0 of 8 {GPU} free on the 1 node that may run it; it requests {GPU} 1"),
        (demand(gib=4), [node(gib=3, pods=8)],
         "3Gi of 8Gi memory free on the 1 node that may run it; it requests memory 4Gi"),
        (demand(cpu=2, gpu=2), [node(cpu=2, gpu=1, pods=8), node("b", cpu=1, gpu=2, pods=8)],
         f"3 of 16 cpu, 3 of 16 {GPU}, 16 of 16 pods free on the 2 nodes that may run it; "
         f"it requests cpu 2, {GPU} 2, pods 1"),
        (demand(cpu=1), [node(taints=({"key": "k", "effect": "NoSchedule"},), cpu=8, pods=8)],
         "no node of 1 matches its node selector and tolerations"),
    ],
    ids=[
        "one-resource", "of-several-nodes", "a-node-without-it", "memory", "no-single-one-is-short",
        "no-node-may-run-it",
    ],
)  # fmt: skip
def test_what_the_next_replica_lacks(wanted: Demand, nodes: list[Node], why: str) -> None:
    assert room_for(wanted, nodes, ()) == Room(more=0, why=why)


TAINT = {"key": "gpu", "value": "a100", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("taint", "toleration", "open_"),
    [
        pytest.param({**TAINT, "effect": "PreferNoSchedule"}, None, True, id="it only prefers others"),
        pytest.param(TAINT, None, False, id="nothing tolerates it"),
        pytest.param({**TAINT, "effect": "NoExecute"}, None, False, id="it evicts"),
        pytest.param(TAINT, {"key": "gpu", "value": "a100"}, True, id="the same value"),
        pytest.param(TAINT, {"key": "gpu", "value": "h100"}, False, id="another value"),
        pytest.param(TAINT, {"key": "other", "value": "a100"}, False, id="another key"),
        pytest.param(TAINT, {"key": "gpu", "operator": "Exists"}, True, id="any value"),
        pytest.param(TAINT, {"key": "other", "operator": "Exists"}, False, id="any value of another key"),
        pytest.param(TAINT, {"operator": "Exists"}, True, id="everything"),
        pytest.param(TAINT, {"operator": "Exists", "effect": "NoExecute"}, False, id="another effect"),
        pytest.param(TAINT, {"operator": "Exists", "effect": "NoSchedule"}, True, id="the same effect"),
        pytest.param({"key": "gpu", "effect": "NoSchedule"}, {"key": "gpu"}, True, id="no value, as the taint"),
    ],
)
def test_taints_keep_off_what_does_not_tolerate_them(taint: Any, toleration: Any, open_: bool) -> None:
    wanted = Demand(requests=amounts(cpu=1), tolerations=(toleration,) if toleration else ())
    assert room_for(wanted, [node(taints=(taint,), cpu=1, pods=1)], ()).more == int(open_)


@pytest.mark.parametrize(("labels", "open_"), [({"pool": "big", "zone": "a"}, True), ({"zone": "a"}, False)])
def test_a_node_selector_chooses_nodes(labels: dict[str, str], open_: bool) -> None:
    wanted = Demand(requests=amounts(cpu=1), node_selector={"pool": "big"})
    assert room_for(wanted, [node(labels=labels, cpu=1, pods=1)], ()).more == int(open_)


WANTED = Demand(requests=amounts(cpu=2), limits=amounts(cpu=4))


@pytest.mark.parametrize(
    ("left", "more"),
    [
        pytest.param(quota(requests_cpu=5), 2, id="requests"),
        pytest.param(quota(cpu=5), 2, id="requests, by their short name"),
        pytest.param(quota(limits_cpu=5), 1, id="limits"),
        pytest.param(quota(pods=3), 3, id="pods"),
        pytest.param(Quota("q", {"count/pods": Decimal(3)}), 3, id="pods, as objects"),
        pytest.param(quota(requests_cpu=9, limits_cpu=5), 1, id="the scarcest"),
        pytest.param(quota(requests_memory=5, services=0), None, id="nothing that it requests"),
        pytest.param(quota(requests_cpu=-1), 0, id="overdrawn"),
    ],
)
def test_what_a_quota_allows(left: Quota, more: int | None) -> None:
    """A replica that a quota refuses cannot be created, so that none can be pending."""
    why = "" if more is None else f"the ResourceQuota q has room for {more} more"
    assert room_for(WANTED, None, [left]) == Room(more=more, why=why, can_pend=more != 0)


HIGH = Demand(requests=amounts(cpu=3), priority_class="high")


@pytest.mark.parametrize(
    ("wanted", "scopes", "is_counted"),
    [
        (demand(cpu=3), [Scope("NotTerminating")], True),
        (demand(cpu=3), [Scope("Terminating")], False),
        (demand(cpu=3), [Scope("NotBestEffort")], True),
        (demand(gpu=3), [Scope("NotBestEffort")], False),
        (Demand(limits=amounts(gib=1)), [Scope("NotBestEffort")], True),
        (demand(), [Scope("BestEffort")], False),
        (HIGH, [Scope("PriorityClass", "In", ("low", "high"))], True),
        (HIGH, [Scope("PriorityClass", "In", ("low",))], False),
        (HIGH, [Scope("PriorityClass", "NotIn", ("low",))], True),
        (HIGH, [Scope("PriorityClass")], True),
        (HIGH, [Scope("PriorityClass", "DoesNotExist")], False),
        (demand(cpu=3), [Scope("PriorityClass", "DoesNotExist")], False),
        (demand(cpu=3), [Scope("PriorityClass", "NotIn", ("low",))], False),
        (HIGH, [Scope("NotBestEffort"), Scope("PriorityClass", "In", ("low",))], False),
        (HIGH, [Scope("CrossNamespacePodAffinity")], False),
    ],
)
def test_a_quota_of_some_pods(wanted: Demand, scopes: list[Scope], is_counted: bool) -> None:
    """It limits what it surely counts. A class or requests may come from defaults of the cluster: that is not sure."""
    scoped = Quota("q", {"requests.cpu": Decimal(2), "pods": Decimal(2)}, {"requests.cpu": Decimal(2)}, tuple(scopes))
    assert (left_in(scoped, wanted) is not None) is is_counted
    assert bool(exceeded(scoped, wanted)) is (is_counted and bool(wanted.requests))
    assert (room_for_groups([(wanted, 1), (wanted, 2)], None, [scoped]).more is not None) is is_counted


def test_the_tightest_limit_is_named() -> None:
    nodes = [node(cpu=6, pods=8)]
    assert room_for(WANTED, nodes, [quota(pods=9)]).why.startswith("6 of 8 cpu")
    assert room_for(WANTED, nodes, [quota(pods=9), quota(requests_cpu=5)]) == Room(
        more=2, why="the ResourceQuota q has room for 2 more"
    )


def test_a_group_needs_room_for_all_its_pods() -> None:
    """A leader and three workers; alike or not, on any nodes, and together within each quota."""
    nodes = [node(cpu=8, gpu=7, pods=8), node("b", cpu=8, gpu=8, pods=8)]
    alike = [(demand(gpu=1), 1), (demand(gpu=1), 3)]
    assert room_for_groups(alike, nodes, ()).more == 3
    other = [(demand(cpu=1), 1), (demand(gpu=2), 3)]
    assert room_for_groups(other, nodes, ()).more == 2
    assert room_for_groups(other, nodes, [Quota("q", {f"requests.{GPU}": Decimal(11)})]).more == 1
    assert room_for_groups(other, None, [quota(pods=7)]) == Room(more=1, why="the ResourceQuota q has room for 1 more")
    assert room_for_groups(other, None, [Quota("q", {f"requests.{GPU}": Decimal(12)})]).more == 2
    assert room_for_groups(other, None, ()) == Room()
    one = node(cpu=1, gpu=8, pods=8)
    assert room_for_groups([(demand(cpu=2), 1), (demand(gpu=2), 3)], [one], ()).more == 0
    assert room_for_groups([(demand(gpu=2), 3), (demand(cpu=2), 1)], [one], ()).more == 0


@pytest.mark.parametrize(
    ("name", "amount", "text"),
    [
        ("memory", 2**41, "2048Gi"),
        ("memory", 2**40 + 2**29, "1024Gi"),
        ("memory", 3 * 2**28, "768Mi"),
        ("memory", 5 * 2**29, "2.5Gi"),
        ("memory", 0, "0Gi"),
        ("hugepages-2Mi", 2**31, "2Gi"),
        (GPU, 1000, "1000"),
    ],
)
def test_amounts_are_readable(name: str, amount: int, text: str) -> None:
    assert shown(name, Decimal(amount)) == text


def test_a_quota_of_limits_does_not_count_what_has_none() -> None:
    assert room_for(demand(cpu=2), None, [quota(limits_cpu=1)]) == Room()
