"""Checks a rollout before its start, for workers and for `segue plan`. It writes nothing."""

import asyncio
from collections.abc import Sequence

from activities import autoscaling
from activities.cluster import JUST_STARTED, POD_SECURITY, Cluster, warnings
from activities.levers.base import Lever
from activities.levers.ownership import labels_of
from activities.routers.base import Router
from segue.budget import resolve_budget
from segue.contract import Prepared, PrepareInput
from segue.errors import NotAllowed, Unreachable
from segue.observation import Observation
from segue.policy import Policy
from segue.rights import Right, commands, described, grants, needed, uses_of
from segue.spec import SupervisedTarget, Target
from segue.state import State

_REVIEWS = "selfsubjectaccessreviews"


async def refuse_missing_rights(cluster: Cluster, lever: Lever, request: PrepareInput) -> None:
    """Refuse a rollout that would lack a right later, partway.

    A cluster may deny the reviews themselves; the requests then show what is missing.

    Raises:
        NotAllowed: names all missing rights, and the command that grants them.
        Unreachable: when the API server may not have loaded its access rules yet.
    """
    namespace = request.target.namespace
    resource = lever.kinds[0] if isinstance(request.target, SupervisedTarget) else ""
    rights = needed(uses_of(request.target, request.rules, request.change), resource)
    try:
        missing = await _missing(cluster, rights, namespace)
    except NotAllowed as error:
        if _REVIEWS in error.why:
            return
        raise
    if missing and cluster.was_away:
        raise Unreachable(f"the Kubernetes API server denies to {described(missing)} ({JUST_STARTED})")
    if missing:
        raise NotAllowed(
            f"the worker may not {described(missing)}",
            field=f"rights in namespace {namespace}",
            fix=f"grant it: {commands(missing, namespace)}",
        )


async def _missing(cluster: Cluster, rights: Sequence[Right], namespace: str) -> list[Right]:
    """Return the rights that the worker lacks. Rules may be incomplete: it reviews each right that they do not show."""
    try:
        rules = await cluster.rules_in(namespace)
    except NotAllowed:
        rules = []
    unsure = [right for right in rights if not grants(rules, right)]
    allowed = await asyncio.gather(*(cluster.may(r.verb, r.group, r.resource, namespace) for r in unsure))
    return [right for right, may in zip(unsure, allowed, strict=True) if not may]


async def with_namespace_labels(cluster: Cluster, policy: Policy, target: Target, prepared: Prepared) -> Prepared:
    """Return ``prepared`` with the labels of the namespace, if a rule of the policy selects by them.

    Raises:
        NotAllowed: without the right to read the namespace. The rule might hold, so nothing may start.
    """
    rule = policy.by_namespace_labels(target)
    if not rule:
        return prepared
    try:
        found = await cluster.get("namespaces", target.namespace, target.namespace)
    except NotAllowed as error:
        why = f"{error.why}; rule {rule} of the policy selects by the labels of the namespace"
        raise NotAllowed(why, field=f"namespace {target.namespace}", fix=error.fix) from error
    return prepared.model_copy(update={"namespace_labels": labels_of(found)})


async def tried(cluster: Cluster, lever: Lever, router: Router | None, request: PrepareInput) -> Prepared:
    """Check the target and what routes its traffic, and try the change by a dry run.

    Raises:
        Refused: for a target that cannot be rolled by this spec.
    """
    with warnings() as received:
        prepared = await lever.prepare(request)
        unserved = await router.prepare(request, prepared.owner) if router is not None else ()
    secure = (each for each in received if POD_SECURITY in each)
    foretold = await autoscaling.foretell(cluster, request.target, request.rules)
    prepared = prepared.model_copy(update={"warnings": (*prepared.warnings, *unserved, *secure, *foretold)})
    return await _with_ready(lever, request, prepared, cluster.clock.now())


async def _with_ready(lever: Lever, request: PrepareInput, prepared: Prepared, now: float) -> Prepared:
    """Return ``prepared`` with the number of ready replicas, and a warning if not all are ready."""
    if prepared.claimed or request.baseline is not None:
        return prepared
    start = State(owner=prepared.owner, baseline=prepared.baseline, wanted=prepared.wanted)
    seen = await lever.observe(request.target, request.rules, start, now)
    ready, replicas = seen.old.ready + seen.new.ready, prepared.replicas
    floor = max(0, ready - resolve_budget(request.rules.strategy, max(1, replicas)).unavailable)
    warning = (
        f"only {ready} of {replicas} replicas are ready now: the rollout and a rollback keep at least {floor} ready, "
        f"and end with {max(1, ready)} or more"
    )
    told = (*prepared.warnings, *((warning,) if ready < replicas else ()))
    found = {"ready": ready, "starting": _starting(seen, request, now), "warnings": told}
    return prepared.model_copy(update=found)


def _starting(seen: Observation, request: PrepareInput, now: float) -> int:
    """Return how many replicas are starting; 0 for a target whose own controller, or operator, rolls back by itself."""
    if seen.numbered or seen.autonomous:
        return 0
    deadline_s = request.rules.readiness.deadline.total_seconds()
    return sum(each.is_starting(deadline_s, now) for each in (*seen.pods.old, *seen.pods.new))
