"""Room: how many more replicas fit, by the free resources of nodes and quotas. Pure.

The count respects node selectors, taints, requests, host ports and an anti-affinity to the own kind by host name, but
no other affinities, spread and priorities. So it may be too high, but never too low.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import Field

from segue.observation import Frozen
from segue.units import counted

Amounts = Mapping[str, Decimal]

_KEEPS_OFF = {"NoSchedule", "NoExecute"}
_MIB, _GIB = Decimal(2**20), Decimal(2**30)
_PODS = "pods"
_OF_QOS = ("cpu", "memory")
"""The resources of which a pod of a quality of service other than BestEffort requests some."""
_BYTES, _HUGEPAGES = {"memory", "ephemeral-storage"}, "hugepages-"


class Demand(Frozen):
    """What one replica requests, and which nodes may run it."""

    requests: dict[str, Decimal] = Field(default_factory=dict)
    limits: dict[str, Decimal] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class: str = ""
    """Its PriorityClass; empty if its template names none: the cluster may then have a default."""
    exclusive: tuple[str, ...] = ()
    """What it takes of its node that no other pod there may take: a host port, for example."""
    preempts: bool = False
    """Whether it may preempt replicas of the former version: its priority is, or may be, higher."""


class Node(NamedTuple):
    """One node, with its total and free resources; ``pods`` is one of them."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[dict[str, Any], ...]
    free: Amounts
    total: Amounts
    exclusive: frozenset[str] = frozenset()
    """What its pods have taken that no other pod there may take."""


class Scope(NamedTuple):
    """Which pods a quota counts."""

    name: str
    operator: str = "Exists"
    values: tuple[str, ...] = ()

    def holds(self, demand: "Demand") -> bool:
        """Whether the quota surely counts a serving pod: it has no deadline, and admission may add to the rest."""
        match self.name:
            case "NotTerminating":
                return True
            case "NotBestEffort":
                amounts = (each.get(name, Decimal(0)) for each in (demand.requests, demand.limits) for name in _OF_QOS)
                return any(amount > 0 for amount in amounts)
            case "PriorityClass":
                return bool(demand.priority_class) and self._names(demand.priority_class)
        return False

    def _names(self, priority_class: str) -> bool:
        is_named = priority_class in self.values
        return {"Exists": True, "In": is_named, "NotIn": not is_named}.get(self.operator, False)


class Quota(NamedTuple):
    """One quota of the target's namespace, and what is left of it, by its own names (``requests.cpu``, ``pods``)."""

    name: str
    left: Amounts
    hard: Amounts = MappingProxyType({})
    """What it allows in all."""
    scopes: tuple[Scope, ...] = ()

    def counts(self, demand: "Demand") -> bool:
        """Whether it surely counts a replica."""
        return all(scope.holds(demand) for scope in self.scopes)


class Room(Frozen):
    """How many more replicas fit; None if that is not known, or nothing limits it."""

    more: int | None = None
    why: str = ""
    """What the next replica lacks, or why the room is not known."""
    can_pend: bool = True
    """Whether one more replica can be created and stay pending: no quota refuses it."""


def room_for(demand: Demand, nodes: Sequence[Node] | None, quotas: Sequence[Quota]) -> Room:
    """Return how many more replicas fit, and what limits them; ``nodes`` is None if they are not known."""
    limits: list[tuple[int, str]] = []
    can_pend = all(left_in(quota, demand) != 0 for quota in quotas)
    for quota in quotas:
        left = left_in(quota, demand)
        if left is not None:
            never = next((str(each) for each in exceeded(quota, demand)), "")
            limits.append((left, never or f"the ResourceQuota {quota.name} has room for {left} more"))
    if nodes is not None:
        open_nodes = nodes_for(demand, nodes)
        limits.append((sum(places_on(n, demand) for n in open_nodes), _shortage(demand, open_nodes, len(nodes))))
    more, why = min(limits, default=(None, ""), key=lambda limit: limit[0])
    return Room(more=more, why=why, can_pend=can_pend)


def room_for_groups(pods: Sequence[tuple[Demand, int]], nodes: Sequence[Node] | None, quotas: Sequence[Quota]) -> Room:
    """Return the same for replicas of several pods, each given by its demand and its number.

    Pods of a group may run on different nodes: the count may be too high, but never too low.
    """
    alike: list[tuple[Demand, int]] = []
    for demand, count in pods:
        before = next((n for n, (known, _) in enumerate(alike) if known == demand), None)
        if before is None:
            alike.append((demand, count))
        else:
            alike[before] = (demand, alike[before][1] + count)
    rooms = [(room_for(demand, nodes, quotas), count) for demand, count in alike]
    known = [Room(more=r.more // count, why=r.why) for r, count in rooms if r.more is not None]
    known += [r for r in (room_for(_together(alike), None, quotas),) if r.more is not None]
    return min(known, default=Room(), key=lambda room: room.more or 0)


def _together(pods: Sequence[tuple[Demand, int]]) -> Demand:
    """Return the sum of their requests and limits, and their number."""

    def total(kind: str) -> dict[str, Decimal]:
        names = {name for demand, _ in pods for name in getattr(demand, kind)}
        return {name: sum((getattr(d, kind).get(name, Decimal(0)) * n for d, n in pods), Decimal(0)) for name in names}

    number = Decimal(sum(n for _, n in pods))
    classes = {demand.priority_class for demand, _ in pods}
    return Demand(
        requests={**total("requests"), _PODS: number}, limits=total("limits"),
        priority_class=classes.pop() if len(classes) == 1 else "",
    )  # fmt: skip


def nodes_for(demand: Demand, nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes that may run the replica."""
    wanted = demand.node_selector.items()
    return [
        node
        for node in nodes
        if wanted <= node.labels.items()
        and all(_tolerated(t, demand.tolerations) for t in node.taints if t["effect"] in _KEEPS_OFF)
    ]


def places_on(node: Node, demand: Demand) -> int:
    """Return how many more replicas fit on a node."""
    if not node.exclusive.isdisjoint(demand.exclusive):
        return 0
    places = min(max(0, int(node.free.get(name, Decimal(0)) // need)) for name, need in _needed_on(demand).items())
    return min(places, 1) if demand.exclusive else places


def left_in(quota: Quota, demand: Demand) -> int | None:
    """Return how many more replicas a quota allows; None if it limits nothing that they request."""
    if not quota.counts(demand):
        return None
    allowed = [max(0, int(left // need)) for name, left in quota.left.items() if (need := _needed(name, demand)) > 0]
    return min(allowed, default=None)


class Exceeded(NamedTuple):
    """A resource of which one replica requests more than a quota allows in all: it is never created."""

    quota: Quota
    resource: str
    need: Decimal

    def __str__(self) -> str:
        name = self.resource.removeprefix("requests.").removeprefix("limits.")
        need, most = shown(name, self.need), shown(name, self.quota.hard[self.resource])
        return f"a pod needs {need} {self.resource}, and the ResourceQuota {self.quota.name} allows {most} in all"


def exceeded(quota: Quota, demand: Demand) -> list[Exceeded]:
    """Return of what one replica requests more than a quota allows in all. A number of pods may be 0 for a while."""
    needs = ((name, _needed(name, demand), most) for name, most in quota.hard.items())
    if not quota.counts(demand):
        return []
    return [Exceeded(quota, name, need) for name, need, most in needs if need > most and not name.endswith(_PODS)]


def shown(name: str, amount: Decimal) -> str:
    """Return an amount of a resource as text."""
    if name not in _BYTES and not name.startswith(_HUGEPAGES):
        return f"{amount.normalize():f}"
    unit, size = ("Mi", _MIB) if 0 < amount < _GIB else ("Gi", _GIB)
    number = float(amount / size)
    return f"{number:.0f}{unit}" if number >= 100 else f"{number:.3g}{unit}"


def _needed_on(demand: Demand) -> Amounts:
    return {name: need for name, need in {**demand.requests, _PODS: _number(demand)}.items() if need > 0}


def _number(demand: Demand) -> Decimal:
    """Return the number of pods: one, unless it is the sum of several."""
    return demand.requests.get(_PODS, Decimal(1))


def _shortage(demand: Demand, nodes: Sequence[Node], of: int) -> str:
    """Return what is free of the resources that no node has enough of; of all, if no single one is short."""
    if not nodes:
        return f"no node of {of} matches its node selector and tolerations"
    where = f"the {counted(len(nodes), 'node')} that may run it"
    untaken = [node for node in nodes if node.exclusive.isdisjoint(demand.exclusive)]
    if demand.exclusive and all(places_on(node, demand) for node in untaken):
        are = "are" if len(demand.exclusive) > 1 else "is"
        return f"{' and '.join(demand.exclusive)} {are} free on {len(untaken) or 'none'} of {where}"
    needed = _needed_on(demand)
    short = [n for n, need in needed.items() if all(node.free.get(n, Decimal(0)) < need for node in nodes)]
    free = [f"{_sum(n, (x.free for x in nodes))} of {_sum(n, (x.total for x in nodes))} {n}" for n in short or needed]
    asks = ", ".join(f"{n} {shown(n, needed[n])}" for n in short or needed)
    return f"{', '.join(free)} free on {where}; it requests {asks}"


def _sum(name: str, amounts: Iterable[Amounts]) -> str:
    return shown(name, sum((max(each.get(name, Decimal(0)), Decimal(0)) for each in amounts), Decimal(0)))


def _tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    return any(_tolerates(t, taint) for t in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _needed(name: str, demand: Demand) -> Decimal:
    if name in {_PODS, f"count/{_PODS}"}:
        return _number(demand)
    kind, _, resource = name.partition(".")
    if kind == "limits":
        return demand.limits.get(resource, Decimal(0))
    return demand.requests.get(resource if kind == "requests" else name, Decimal(0))
