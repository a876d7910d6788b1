"""Collects what lint judges. What the caller may not read is told, and does not stop the rest."""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from decimal import Decimal
from typing import NamedTuple

from kubernetes.utils.quantity import parse_quantity

from activities.cluster import Cluster, Object, connected
from activities.levers.deployment_patches import saved_baseline, start_of
from activities.levers.deployment_reading import Objects, is_held, selector_of
from activities.levers.template import apply_change, stopping_of
from segue.contract import Prepared, PrepareInput
from segue.errors import NotAllowed, NotFound
from segue.lint import lint
from segue.lint.facts import NEEDS, Demand, Facts, Node, Quota
from segue.lint.findings import Linted
from segue.lint.start import refuse_errors
from segue.spec import Change, DeploymentTarget, Metadata, Rollout, Spec, Target

_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")
_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"
_SCOPES_OF_SERVERS = {"NotTerminating"}
_ORDINARY = ("strategy", "minReadySeconds", "progressDeadlineSeconds")

Numbers = dict[str, Decimal]


class Around(NamedTuple):
    """What stands around a target, as the API server gives it."""

    budgets: Sequence[Object] = ()
    autoscalers: Sequence[Object] = ()
    quotas: Sequence[Object] = ()
    own_pods: Sequence[Object] = ()
    nodes: Sequence[Object] = ()
    all_pods: Sequence[Object] = ()


async def read_facts(target: Target, rollout: Rollout | None) -> Facts:
    """Read a target and all that stands around it.

    Raises:
        NotFound, NotAllowed: for the target itself.
        Refused: when the spec's change does not fit the target.
        Unreachable: when the API server does not answer.
    """
    async with connected() as cluster:
        return await facts_in(cluster, target, rollout)


async def lint_start(cluster: Cluster, asked: PrepareInput, prepared: Prepared) -> Linted | None:
    """Lint what is about to be rolled; none for a kind of target that lint does not know.

    What ran before may run again: a way back is never refused, only told what is wrong with it.

    Raises:
        Refused: naming each error that is not accepted, and what mends it.
    """
    if not isinstance(asked.target, DeploymentTarget):
        return None
    found = lint(await facts_in(cluster, asked.target, _rollout_of(asked)), asked.accept)
    if not asked.change.goes_back and prepared.wanted.template != prepared.baseline.template:
        refuse_errors(found)
    return found


def _rollout_of(asked: PrepareInput) -> Rollout:
    given = {"target": asked.target.model_dump(), "change": asked.change, "accept": asked.accept}
    spec = Spec.model_validate({**given, **dict(asked.rules)})
    name = asked.name or asked.target.name
    return Rollout(apiVersion="segue.dev/v1alpha1", kind="Rollout", metadata=Metadata(name=name), spec=spec)


async def facts_in(cluster: Cluster, target: Target, rollout: Rollout | None) -> Facts:
    """Read the same by a connection that is there."""
    deployment = _ordinary(await cluster.get("deployments", target.namespace, target.name))
    reading = _Reading(cluster, target.namespace)
    template = await _wanted(reading, deployment, rollout.spec.change if rollout else None)
    around = Around(
        *await asyncio.gather(
            reading.items(NEEDS.budgets),
            reading.items(NEEDS.autoscalers),
            reading.items(NEEDS.quotas),
            reading.items("pods", selector_of(deployment)),
            reading.everywhere("nodes"),
            reading.everywhere("pods", _ALIVE),
        )
    )
    return facts_of(deployment, template, rollout, around, reading.unknown)


def facts_of(
    deployment: Object, template: Object, rollout: Rollout | None, around: Around, unknown: dict[str, str]
) -> Facts:
    """Turn objects into what lint judges. Pure."""
    return Facts(
        deployment=deployment,
        template=template,
        old=stopping_of(deployment["spec"]["template"]),
        new=stopping_of(template),
        demand=Demand(requests=_asked(template["spec"], "requests"), limits=_asked(template["spec"], "limits")),
        rollout=rollout,
        digests=_digests(around.own_pods),
        budgets=around.budgets,
        autoscalers=around.autoscalers,
        nodes=_nodes(around),
        quotas=[_quota(quota) for quota in around.quotas if _counts_servers(quota)],
        unknown=unknown,
    )


class _Reading:
    """Reads what it may, and keeps why it could not read the rest."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.unknown: dict[str, str] = {}

    async def items(self, kind: str, selector: str = "") -> list[Object]:
        """List objects of the namespace; nothing where that is not allowed."""
        found = await self.allowed(kind, self.cluster.list(kind, self.namespace, selector))
        return found["items"] if found else []

    async def everywhere(self, kind: str, fields: str = "") -> list[Object]:
        """List objects of the cluster; both kinds are needed to know the nodes."""
        found = await self.allowed(NEEDS.nodes, self.cluster.list_everywhere(kind, fields))
        return found["items"] if found else []

    async def allowed(self, what: str, request: Awaitable[Object]) -> Object | None:
        """Return the answer; where the caller may not ask, or the cluster has no such kind, note why."""
        try:
            return await request
        except (NotAllowed, NotFound) as error:
            self.unknown[what] = f"{what} cannot be read: {error.why}"
            return None


def _ordinary(deployment: Object) -> Object:
    """Return a Deployment with the settings of its own, also while a rollout holds it."""
    if not is_held(deployment):
        return deployment
    own = {name: value for name, value in saved_baseline(deployment).items() if name in _ORDINARY}
    return {**deployment, "spec": {**deployment["spec"], **own}}


async def _wanted(reading: _Reading, deployment: Object, change: Change | None) -> Object:
    """Return the template that the change makes; a strategic-merge patch is only tried by the API server."""
    template: Object = deployment["spec"]["template"]
    if change is None:
        return template
    if is_held(deployment):  # a change is one of what ran before
        template = saved_baseline(deployment)["template"]
    if change.patch is None:
        sets = (await reading.cluster.list("replicasets", reading.namespace, selector_of(deployment)))["items"]
        return apply_change(start_of(Objects(deployment, sets, []), change, template), change)
    name = deployment["metadata"]["name"]
    trial = reading.cluster.patch(
        "deployments", reading.namespace, name, {"spec": {"template": change.patch}}, dry_run=True
    )
    tried = await reading.allowed(NEEDS.template, trial)
    wanted: Object = tried["spec"]["template"] if tried else template
    return wanted


def _digests(pods: Sequence[Object]) -> dict[tuple[str, str], str]:
    """Return the digest of each container's image, where all replicas agree on it."""
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


def _nodes(around: Around) -> list[Node]:
    """Return every node that takes pods, with what it has left."""
    taken: dict[str, Numbers] = {}
    for pod in around.all_pods:
        asked = {**_asked(pod["spec"], "requests"), "pods": Decimal(1)}
        _add(taken.setdefault(pod["spec"].get("nodeName", ""), {}), asked)
    taking = [node for node in around.nodes if not node["spec"].get("unschedulable")]
    return [_node(node, taken.get(node["metadata"]["name"], {})) for node in taking]


def _node(node: Object, taken: Numbers) -> Node:
    allocatable = _numbers(node.get("status", {}).get("allocatable", {}))
    free = {name: amount - taken.get(name, Decimal(0)) for name, amount in allocatable.items()}
    metadata = node["metadata"]
    return Node(metadata["name"], metadata.get("labels", {}), tuple(node["spec"].get("taints", [])), free)


def _counts_servers(quota: Object) -> bool:
    """Whether a quota counts every pod that serves, and not only those of some priority or class."""
    spec = quota["spec"]
    return set(spec.get("scopes", [])) <= _SCOPES_OF_SERVERS and not spec.get("scopeSelector")


def _quota(quota: Object) -> Quota:
    status = quota.get("status", {})
    hard, used = _numbers(status.get("hard") or quota["spec"].get("hard", {})), _numbers(status.get("used", {}))
    return Quota(quota["metadata"]["name"], {name: most - used.get(name, Decimal(0)) for name, most in hard.items()})


def _asked(pod: Object, kind: str) -> Numbers:
    """Return what the scheduler counts for a pod: its containers, or the largest of what runs before them."""
    total: Numbers = {}
    peak: Numbers = {}
    for container in pod.get("initContainers", []):
        own = _of(container, kind)
        if container.get("restartPolicy") == "Always":  # a sidecar: it stays
            _add(total, own)
            own = {}
        for name in {*total, *own}:
            peak[name] = max(peak.get(name, Decimal(0)), total.get(name, Decimal(0)) + own.get(name, Decimal(0)))
    for container in pod.get("containers", []):
        _add(total, _of(container, kind))
    asked = {name: max(total.get(name, Decimal(0)), peak.get(name, Decimal(0))) for name in {*total, *peak}}
    asked |= _of(pod, kind)  # said for the pod as a whole
    _add(asked, _numbers(pod.get("overhead", {})))
    return asked


def _of(found: Object, kind: str) -> Numbers:
    """Return a container's requests or limits; what is limited and not requested is requested so."""
    resources = found.get("resources") or {}
    limits = resources.get("limits") or {}
    return _numbers(limits if kind == "limits" else {**limits, **(resources.get("requests") or {})})


def _numbers(quantities: dict[str, str]) -> Numbers:
    return {name: Decimal(parse_quantity(text)) for name, text in quantities.items()}  # type: ignore[no-untyped-call]


def _add(total: Numbers, more: Numbers) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount
