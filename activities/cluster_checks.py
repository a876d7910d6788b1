"""Checks whether a cluster is ready for Segue: version, API groups, clock, and the worker's rights."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime

from activities.cluster import Cluster
from activities.gates.prometheus import Prometheus, PrometheusSettings
from activities.namespaces import ending_namespace
from segue.checks import CONNECTION, OLDEST_KUBERNETES, CheckVerdict, SetupCheck, clock_check, version_check
from segue.errors import NotAllowed, NotFound, Refused, SegueError, Unanswered, Unreachable
from segue.rights import (
    CONTROLLER,
    CONTROLLER_NEEDS,
    PROFILES,
    ROLES,
    ROOM,
    Right,
    Role,
    Use,
    commands,
    described,
    needed,
)
from segue.rollout_object import GROUP, VERSION, guarding
from segue.rollout_object.guarding import Policies, guarding_check
from segue.rollout_object.served import outdated

AREA = "Kubernetes"
GROUPS = {
    "leaderworkerset.x-k8s.io": (Use.LEADER_WORKER_SET, "targets of kind LeaderWorkerSet"),
    "serving.kserve.io": (Use.SUPERVISED, "InferenceServices and ServingRuntimes"),
    "gateway.networking.k8s.io": (Use.ROUTE, "traffic by an HTTPRoute"),
    "inference.networking.k8s.io": (Use.POOLS, "traffic to InferencePools"),
}
"""Optional API groups: what needs each."""

UPGRADE_KINDS = "kubectl apply --server-side --force-conflicts -f deploy/crd"
ADMISSION = "admissionregistration.k8s.io/v1"

May = Callable[[Right, str], Awaitable[bool]]
"""Whether the worker has a right in a namespace; an empty namespace is the whole cluster."""


async def check_cluster(
    connect: Callable[[], Awaitable[Cluster]],
    namespaces: Sequence[str],
    service_account: str = "",
    *,
    controller: bool = False,
) -> list[SetupCheck]:
    """Return the checks of a cluster, and of the rights in each of the namespaces.

    ``service_account`` (``system:serviceaccount:NAMESPACE:NAME``) is whose rights are checked; empty for our own.
    ``controller`` checks the rights of `segue controller` instead of a worker's.
    """
    try:
        cluster = await connect()
    except Refused as error:
        return [_check(CONNECTION, CheckVerdict.FAILED, error.found, error.fix)]
    try:
        return await _checks(cluster, namespaces, service_account, controller=controller)
    finally:
        await cluster.close()


async def _checks(
    cluster: Cluster, namespaces: Sequence[str], service_account: str, *, controller: bool
) -> list[SetupCheck]:
    before = time.time()
    try:
        version, date = await cluster.version()
        after = time.time()
        served = await cluster.api_groups()
    except Unreachable as error:
        return [_check(CONNECTION, CheckVerdict.FAILED, error.why, "check KUBECONFIG, and that the API server is up")]
    except NotAllowed as error:
        return [_check(CONNECTION, CheckVerdict.FAILED, error.why, error.fix)]
    found = [
        _check(CONNECTION, CheckVerdict.OK, f"{cluster.address} answers"),
        version_check(AREA, version, OLDEST_KUBERNETES, "upgrade the cluster"),
        clock_check(AREA, parsedate_to_datetime(date).timestamp(), before, after, resolution_s=1.0),
        *(_group_check(group, group in served) for group in GROUPS),
        await _kinds_check(cluster, is_served=GROUP in served, is_needed=controller),
    ]
    absent = {use for group, (use, _) in GROUPS.items() if group not in served}

    async def may(right: Right, namespace: str) -> bool:
        return await cluster.may(*right, namespace, service_account=service_account)

    for namespace in namespaces:
        if (absent_check := await _absent_check(cluster, namespace)) is not None:
            found.append(absent_check)
            continue
        found += await (controller_checks(may, namespace) if controller else rights_checks(may, namespace, absent))
    if not namespaces:
        unnamed = "no namespace is named"
        return [
            *found,
            _check("rights", CheckVerdict.NOT_CHECKED, unnamed, "name those of your targets with -n NAMESPACE"),
        ]
    if GROUP in served:
        found.append(await _guarding_check(cluster))
    return [*found, await _wide_check(may, PROFILES if controller else ROOM)]


async def _absent_check(cluster: Cluster, namespace: str) -> SetupCheck | None:
    """Return the failure of a namespace that is gone, or goes: an administrator has all rights in it, too.

    Returns None if it exists, or if the caller may not read it.
    """
    try:
        await cluster.get("namespaces", namespace, namespace)
    except NotFound:
        fix = f"correct -n, or `kubectl create namespace {namespace}`"
        return _check(f"namespace {namespace}", CheckVerdict.FAILED, "does not exist", fix)
    except SegueError:
        return None
    if why := await ending_namespace(cluster, namespace):
        fix = "wait until it is gone, and create it again"
        what = why.removeprefix(f"the namespace {namespace} ")
        return _check(f"namespace {namespace}", CheckVerdict.FAILED, what, fix)
    return None


def _group_check(group: str, served: bool) -> SetupCheck:
    found = "served" if served else f"not served; needed only for {GROUPS[group][1]}"
    return _check(f"API group {group}", CheckVerdict.OK, found)


async def _kinds_check(cluster: Cluster, *, is_served: bool, is_needed: bool) -> SetupCheck:
    name = f"kinds of {GROUP}"
    if not is_served and is_needed:
        return _check(name, CheckVerdict.FAILED, "not served; the controller follows Rollouts", UPGRADE_KINDS)
    if not is_served:
        return _check(name, CheckVerdict.OK, "not served; needed only for Rollout objects, and for profiles as objects")
    try:
        older = outdated(await cluster.schemas(GROUP, VERSION))
    except SegueError as error:
        return _check(name, CheckVerdict.NOT_CHECKED, str(error))
    if not older:
        return _check(name, CheckVerdict.OK, "served, as this release defines them")
    return _check(name, CheckVerdict.WARNING, f"older than this release: {'; '.join(older)}", UPGRADE_KINDS)


async def _guarding_check(cluster: Cluster) -> SetupCheck:
    """Check the policies by which people steer Rollout objects; say so if the caller may not read them."""
    try:
        return guarding_check(AREA, await _policies(cluster, "validating"), await _mutating(cluster))
    except SegueError as error:
        return _check(guarding.NAME, CheckVerdict.NOT_CHECKED, str(error))


async def _mutating(cluster: Cluster) -> Policies | None:
    try:
        return await _policies(cluster, "mutating")
    except NotFound:
        return None


async def _policies(cluster: Cluster, kind: str) -> Policies:
    plurals = (f"{kind}admissionpolicies", f"{kind}admissionpolicybindings")
    policies, bindings = [await cluster.list(f"{plural}.{ADMISSION}", "") for plural in plurals]
    return Policies(policies["items"], bindings["items"])


async def controller_checks(may: May, namespace: str) -> list[SetupCheck]:
    """Return the checks of a controller's rights in a namespace: those that it needs, and the optional ones."""
    name = f"rights in {namespace} for Rollout objects"
    rights = [right for rule in CONTROLLER.rules for right in rule.rights]
    try:
        answers = await asyncio.gather(*(may(right, namespace) for right in rights))
    except SegueError as error:
        return [_check(name, CheckVerdict.NOT_CHECKED, str(error))]
    missing = [right for right, allowed in zip(rights, answers, strict=True) if not allowed]
    lacking = [right for right in missing if right in CONTROLLER_NEEDS]
    optional = [right for right in missing if right not in CONTROLLER_NEEDS]
    command = CONTROLLER.command(namespace)
    found = [
        _check(name, CheckVerdict.FAILED, f"missing: {described(lacking)}", command)
        if lacking else _check(name, CheckVerdict.OK, "granted")
    ]  # fmt: skip
    return [*found, _optional_check(CONTROLLER, namespace, optional)] if optional else found


async def rights_checks(may: May, namespace: str, absent: set[Use]) -> list[SetupCheck]:
    """Return a check for each use of the rights in a namespace; without one for what the cluster does not serve."""
    checked = [use for use in Use if use not in absent]
    rights = {use: needed([use]) for use in checked}
    unserved = {group for group, (use, _) in GROUPS.items() if use in absent}
    optional = {
        role.key: [
            right for rule in role.rules if not rule.uses for right in rule.rights if right.group not in unserved
        ]
        for role in ROLES.values()
        if not role.cluster_wide
    }
    needed_rights = list(dict.fromkeys(right for each in (*rights.values(), *optional.values()) for right in each))
    try:
        answers = await asyncio.gather(*(may(right, namespace) for right in needed_rights))
    except SegueError as error:
        return [_check(f"rights in {namespace}", CheckVerdict.NOT_CHECKED, str(error))]
    missing = {right for right, allowed in zip(needed_rights, answers, strict=True) if not allowed}
    found = [_use_check(use, namespace, [right for right in rights[use] if right in missing]) for use in checked]
    for key, each in optional.items():
        lacking = [right for right in each if right in missing]
        if each and lacking:
            found.append(_optional_check(ROLES[key], namespace, lacking))
    return found


def _use_check(use: Use, namespace: str, missing: Sequence[Right]) -> SetupCheck:
    name = f"rights in {namespace} for {use}"
    if not missing:
        return _check(name, CheckVerdict.OK, "granted")
    # The role for Jobs is optional, because it lets whoever starts rollouts run any program.
    verdict = CheckVerdict.OK if use is Use.JOB else CheckVerdict.FAILED
    found = f"{'not granted, which is optional' if use is Use.JOB else 'missing'}: {described(missing)}"
    return _check(name, verdict, found, commands(missing, namespace))


def _optional_check(role: Role, namespace: str, missing: Sequence[Right]) -> SetupCheck:
    verdict = CheckVerdict.WARNING if role.key == "base" else CheckVerdict.OK
    found = f"not granted, which is optional: {described(missing)}"
    return _check(f"optional rights in {namespace} by {role.name}", verdict, found, role.command(namespace))


async def _wide_check(may: May, role: Role) -> SetupCheck:
    name = "optional rights in the cluster"
    rights = [right for rule in role.rules for right in rule.rights]
    try:
        answers = await asyncio.gather(*(may(right, "") for right in rights))
    except SegueError as error:
        return _check(name, CheckVerdict.NOT_CHECKED, str(error))
    missing = [right for right, allowed in zip(rights, answers, strict=True) if not allowed]
    if not missing:
        return _check(name, CheckVerdict.OK, "granted")
    return _check(name, CheckVerdict.OK, f"not granted, which is optional: {described(missing)}", role.command(""))


async def check_prometheus(name: str, settings: PrometheusSettings) -> list[SetupCheck]:
    """Return the checks of one provider of the settings."""
    area, prometheus = f"Prometheus {name}", Prometheus(name, settings)
    try:
        before = time.time()
        theirs = await prometheus.clock()
        return [
            SetupCheck(area=area, name=CONNECTION, verdict=CheckVerdict.OK, found=f"{settings.url} answers"),
            clock_check(area, theirs, before, time.time()),
        ]
    except Unanswered as error:
        fix = f"correct provider {name} in SEGUE_PROMETHEUS, or start the server"
        return [
            SetupCheck(
                area=area, name=CONNECTION, verdict=CheckVerdict.FAILED, found=f"{settings.url}: {error}", fix=fix
            )
        ]
    finally:
        await prometheus.close()


def _check(name: str, verdict: CheckVerdict, found: str, fix: str = "") -> SetupCheck:
    return SetupCheck(area=AREA, name=name, verdict=verdict, found=found, fix=fix)
