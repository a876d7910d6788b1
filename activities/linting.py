"""Collects what lint checks. It reports what the caller may not read, and continues without it."""

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from activities.autoscaling import as_before
from activities.capacity import Capacity, counting
from activities.cluster import Cluster, Object, connected
from activities.levers import Levers
from activities.levers.base import Lever
from activities.levers.ownership import selector_of
from activities.levers.pods import named_ports
from activities.room import quotas_of
from segue.budget import foresee
from segue.clusters import HERE, Access
from segue.contract import Prepared, PrepareInput
from segue.errors import NotAllowed, NotFound, Refused, Unreachable
from segue.lint import lint
from segue.lint.facts import NEEDS, Facts
from segue.lint.room import may_preempt
from segue.lint.start import refuse_errors
from segue.lint.target import KINDS, LintSubject
from segue.room import Node
from segue.spec import Change, DeploymentTarget, Metadata, PairTarget, Rollout, Rules, Spec, Target, Way
from segue.supervision import SUPERVISIONS, Supervision

Read = TypeVar("Read")

_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")


class Around(NamedTuple):
    """The objects around a target, as the API server returns them."""

    budgets: Sequence[Object] = ()
    autoscalers: Sequence[Object] = ()
    quotas: Sequence[Object] = ()
    own_pods: Sequence[Object] = ()
    claims: Sequence[Object] = ()
    priorities: Sequence[Object] = ()
    deployments: Sequence[Object] = ()


async def read_facts(
    target: Target, rollout: Rollout | None, access: Access = HERE,
    supervisions: Mapping[str, Supervision] = SUPERVISIONS,
) -> Facts:  # fmt: skip
    """Return the facts about a target and the objects around it.

    Raises:
        NotFound, NotAllowed: for the target itself.
        Refused: when the spec's change does not fit the target.
        Unreachable: when the API server does not answer.
    """
    async with connected(access) as cluster, counting(cluster) as capacity:
        change = rollout.spec.change if rollout else None
        return await facts_in(cluster, capacity, Levers(cluster, supervisions).of(target), target, rollout, change)


async def linted(
    cluster: Cluster, capacity: Capacity, lever: Lever, request: PrepareInput, prepared: Prepared, *,
    refuses: bool = True,
) -> Prepared:  # fmt: skip
    """Lint the wanted version, and count the room for it.

    A version that ran before may run again: a rollback is never refused, and only gets the findings.
    Without ``refuses`` nothing is refused: a plan shows what a start would report.

    Raises:
        Refused: naming each error that is not accepted, and its fix.
    """
    # With another strategy the same version continues: it is written, and a patch could not be tried on it again.
    change = request.change if request.wanted is None else None
    facts = await facts_in(cluster, capacity, lever, request.target, _rollout_of(request), change)
    refuse_ports(request.rules, facts)
    found = lint(facts, request.accept)
    if refuses and not request.change.goes_back and prepared.wanted.template != prepared.baseline.template:
        refuse_errors(found)
    counted = prepared.model_copy(update={"linted": found, "warnings": (*prepared.warnings, *_tight(facts, request))})
    if not _is_led(request.target):
        return counted
    preempts = any(may_preempt(facts, pods) for pods in facts.pods)
    return counted.model_copy(update={"demand": facts.pods[0].demand.model_copy(update={"preempts": preempts})})


def refuse_ports(rules: Rules, facts: Facts) -> None:
    """Refuse checks of a port name that no container of the wanted version has.

    Accepts any name for the pods of an operator, which may add containers.

    Raises:
        Refused: naming the field.
    """
    serving, loads = rules.serving, rules.load_failures
    ports = {"spec.serving.port": serving and serving.port, "spec.loadFailures.port": loads and loads.port}
    if facts.target.kind not in KINDS or NEEDS.template in facts.unknown:
        return
    named = dict(named_ports(facts.pods[0].spec))
    for field, port in ports.items():
        if isinstance(port, str) and port not in named:
            fix = f"use one of: {', '.join(sorted(named)) or 'none has a name'}; or give its number"
            raise Refused("does not name a port of any container", field=field, value=port, fix=fix)


def _is_led(target: Target) -> bool:
    """Whether the count of room limits a target: Segue itself requests each replica of its surge."""
    return isinstance(target, DeploymentTarget | PairTarget)


def _tight(facts: Facts, request: PrepareInput) -> tuple[str, ...]:
    """Return warnings of how a rollout will move if its surge finds no room."""
    budget, room = facts.budget, facts.room
    if budget is None or _is_led(request.target):
        return foresee(room, budget, whole=request.rules.strategy.type is Way.BLUE_GREEN) if budget else ()
    if room.more is None or room.more >= budget.surge:
        return ()
    return (
        f"there is room for {room.more} of the {budget.surge} replicas of the surge ({room.why}); others stay pending",
    )


def _rollout_of(request: PrepareInput) -> Rollout:
    given = {"target": request.target.model_dump(), "change": request.change, "accept": request.accept}
    spec = Spec.model_validate({**given, **dict(request.rules)})
    name = request.name or request.target.name
    return Rollout(apiVersion="segue.dev/v1alpha1", kind="Rollout", metadata=Metadata(name=name), spec=spec)


async def facts_in(
    cluster: Cluster, capacity: Capacity, lever: Lever, target: Target, rollout: Rollout | None = None,
    change: Change | None = None,
) -> Facts:  # fmt: skip
    """Return the facts, read by an open connection; without a change lint checks the present version."""
    reading = _FactsReader(cluster, target.namespace)
    judged = await lever.judged(target, change)
    objects, nodes = await asyncio.gather(
        asyncio.gather(
            reading.items(NEEDS.budgets),
            reading.items(NEEDS.autoscalers),
            reading.items(NEEDS.quotas),
            reading.items("pods", selector_of({"spec": {"selector": judged.selector}})),
            reading.items(NEEDS.claims) if _mounts_claims(judged) else _nothing(),
            reading.priorities(),
            reading.items(NEEDS.deployments),
        ),
        reading.nodes(capacity),
    )
    return facts_of(judged, rollout, Around(*objects), reading.unknown, nodes)


def facts_of(
    judged: LintSubject, rollout: Rollout | None, around: Around, unknown: Mapping[str, str],
    nodes: Sequence[Node] = (),
) -> Facts:  # fmt: skip
    """Return the facts that lint checks, from the objects. Pure."""
    running = [pod["spec"] for pod in around.own_pods]
    return Facts(
        target=replace(judged, pods=tuple(each.tolerating(running) for each in judged.pods)),
        rollout=rollout,
        digests=_digests(around.own_pods),
        budgets=around.budgets,
        autoscalers=[as_before(each) for each in around.autoscalers],
        deployments=around.deployments,
        nodes=nodes,
        quotas=quotas_of(around.quotas),
        priorities=_priorities(around, unknown),
        never_preempting=_never_preempting(around),
        claims=around.claims,
        unknown={**unknown, **({NEEDS.template: judged.untried} if judged.untried else {})},
    )


def _mounts_claims(judged: LintSubject) -> bool:
    return any("persistentVolumeClaim" in v for pods in judged.pods for v in pods.spec.get("volumes", []))


async def _nothing() -> list[Object]:
    return []


def _priorities(around: Around, unknown: Mapping[str, str]) -> dict[str, int]:
    """Return the values of priority classes by name, including those that only running pods show."""
    own = [pod["spec"] for pod in around.own_pods]
    known = {spec.get("priorityClassName", ""): spec["priority"] for spec in own if "priority" in spec}
    default = {} if NEEDS.priorities in unknown else {"": 0}
    for each in around.priorities:
        known[each["metadata"]["name"]] = each["value"]
        default |= {"": each["value"]} if each.get("globalDefault") else {}
    return {**known, **default}


def _never_preempting(around: Around) -> frozenset[str]:
    """Return the priority classes whose pods do not preempt; admission writes their policy into the pods."""
    classes = [each for each in around.priorities if each.get("preemptionPolicy") == "Never"]
    running = {
        pod["spec"].get("priorityClassName", "")
        for pod in around.own_pods
        if pod["spec"].get("preemptionPolicy") == "Never"
    }
    default = {"" for each in classes if each.get("globalDefault")}
    return frozenset({each["metadata"]["name"] for each in classes} | default | running - {""})


class _FactsReader:
    """Reads what the caller may read, and records why it could not read the rest."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.unknown: dict[str, str] = {}

    async def items(self, kind: str, selector: str = "") -> list[Object]:
        """Return the namespace's objects of a kind; an empty list if that is not allowed."""
        found = await self.allowed(kind, self.cluster.list(kind, self.namespace, selector))
        return found["items"] if found else []

    async def nodes(self, capacity: Capacity) -> list[Node]:
        """Return the schedulable nodes with their free resources; an empty list if they cannot be read."""
        try:
            return await self.allowed(NEEDS.nodes, capacity.nodes()) or []
        except Unreachable as error:
            self.unknown[NEEDS.nodes] = str(error)
            return []

    async def priorities(self) -> list[Object]:
        """Return the cluster's priority classes; an empty list if that is not allowed."""
        found = await self.allowed(NEEDS.priorities, self.cluster.list(NEEDS.priorities, ""))
        return found["items"] if found else []

    async def allowed(self, what: str, request: Awaitable[Read]) -> Read | None:
        """Return the answer. Returns None, and records why, if the right or the kind is missing."""
        try:
            return await request
        except (NotAllowed, NotFound) as error:
            fix = f"; {error.fix}" if isinstance(error, NotAllowed) else ""
            self.unknown[what] = f"{what} cannot be read: {error.why}{fix}"
            return None


def _digests(pods: Sequence[Object]) -> dict[tuple[str, str], str]:
    """Return the digest of each container's image, if all replicas agree on it."""
    seen: dict[tuple[str, str], set[str]] = {}
    for pod in pods:
        containers = (*pod["spec"].get("initContainers", []), *pod["spec"].get("containers", []))
        images = {c["name"]: c.get("image", "") for c in containers}
        status = pod.get("status", {})
        for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            found = _DIGEST.search(each.get("imageID", ""))
            if found:
                seen.setdefault((each["name"], images.get(each["name"], "")), set()).add(found[1])
    return {key: min(found) for key, found in seen.items() if len(found) == 1}
