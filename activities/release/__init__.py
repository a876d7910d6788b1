"""Releases a target without Temporal, when a rollout's history is lost.

The target itself keeps everything that is needed to return to the baseline, or to finish.
"""

import contextlib
from collections.abc import Callable, Mapping

from activities import autoscaling
from activities.cluster import Cluster, Object, connected
from activities.levers import Levers
from activities.levers.deployment.baselines import FoundBaseline, rebuilt
from activities.levers.deployment.fetching import read_with_pods
from activities.levers.deployment.patches import (
    HOLD_DEADLINE_S,
    finish_patch,
    resume_patch,
    superseded_sets,
    unhold_patch,
)
from activities.levers.deployment.reading import NOTICED_S, Objects, is_engaged, is_paused, unnoticed
from activities.levers.deployment.sparing import count_as_available, keep, make_room, removes_some, spare
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    annotations_of,
    has_baseline,
    refuse_another_kind,
    saved_baseline,
    selector_of,
)
from activities.levers.template import fingerprint
from activities.levers.waiting import until_read
from activities.levers.writing import clean_revisions
from activities.release.others import refuse_unwritten, tell_of_others
from activities.release.pair import release_pair
from activities.release.patience import Waiting, Way, until_written
from activities.release.remains import cleaned_again, note_left, released_note
from activities.release.stepped import release_stepped
from activities.watching import controller_uid
from segue.clusters import HERE, Access
from segue.errors import Conflict, NotFound, Refused, SegueError, Stale
from segue.observation import RELEASED_BY
from segue.spec import Target
from segue.supervision import SUPERVISIONS, Supervision

_ATTEMPTS = 10
_CAREFUL = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
"""The strategy if the former one is not known: it never takes a ready replica first."""


async def release(
    target: Target, to: Way, by: str, timeout_s: float, tell: Callable[[str], None], access: Access = HERE,
    supervisions: Mapping[str, Supervision] = SUPERVISIONS,
) -> str:  # fmt: skip
    """Release a target to the baseline or the wanted version, by its own controller; then restore its settings.

    A rollout that still runs observes that it no longer owns the target, and ends without writing. If the command is
    killed half-way, the same command continues.

    Raises:
        NotFound: when the target has no saved baseline, so there is nothing to release.
        TimedOut: when the controller needs longer; the target is safe, and the controller continues.
    """
    async with connected(access) as cluster:
        if target.kind in {"Deployment", "DeploymentPair"} and await cleaned_again(cluster, target, tell):
            return f"{target} was released before; what was left of the rollout on its ReplicaSets is removed"
        if target.kind == "DeploymentPair":
            return await release_pair(cluster, target, to, by, Waiting(timeout_s, tell))
        if target.kind == "Deployment":
            return await _release_deployment(cluster, target, to, by, timeout_s, tell)
        lever = Levers(cluster, supervisions).of(target)
        return await release_stepped(cluster, lever, target, to, by, timeout_s, tell)


async def _release_deployment(
    cluster: Cluster, target: Target, to: Way, by: str, timeout_s: float, tell: Callable[[str], None]
) -> str:
    """Release a Deployment to its own controller, and wait until that has moved it."""
    await until_written(lambda: _save_again(cluster, target, tell), f"deployment {target}")
    if to == "wanted":
        found = await cluster.get("deployments", target.namespace, target.name)
        if has_baseline(found):
            before = saved_baseline(found)["template"]
            refuse_unwritten(fingerprint(found["spec"]["template"]), fingerprint(before), f"deployment {target}")
        tell_of_others(found, tell)
    taken = await _let_go(cluster, target, to, by)
    await autoscaling.free(cluster, target, tell)
    tell(f"{target} is released from its rollout; its own controller moves it to the {to} version")
    await Waiting(timeout_s, tell).until_complete(cluster, target.namespace, target.name)
    finished = await _patch(cluster, target, _finish)
    await note_left(cluster, taken, finished, by)
    cleaned = await clean_revisions(cluster, finished)
    if cleaned.left:
        tell(f"warning: {cleaned.left}")
    return f"{target} runs the {to} version; its strategy is restored"


def _finish(deployment: Object) -> Object:
    """Restore everything, and note the outcome of a version whose rollout was lost."""
    return finish_patch(deployment, released_note(deployment))


async def _save_again(cluster: Cluster, target: Target, tell: Callable[[str], None]) -> None:
    """Write the saved baseline of an engaged Deployment back if somebody removed or damaged it."""
    deployment = await cluster.get("deployments", target.namespace, target.name)
    refuse_another_kind(deployment, target.kind)
    if has_baseline(deployment) or not (BASELINE in annotations_of(deployment) or is_engaged(deployment)):
        return
    metadata, version = deployment["metadata"], fingerprint(deployment["spec"]["template"])
    found = (await cluster.list("replicasets", target.namespace, selector_of(deployment)))["items"]
    own = [each for each in found if controller_uid(each) == metadata["uid"]]
    copies = [each for each in own if fingerprint(each["spec"]["template"]) == version and has_baseline(each)]
    lost = FoundBaseline(annotations_of(copies[0])[BASELINE]) if copies else rebuilt(deployment, own, _CAREFUL)
    if lost.saved:
        annotations = {BASELINE: lost.saved}
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": annotations}}
        await cluster.patch("deployments", target.namespace, target.name, patch)
    if lost.warning:
        tell(f"warning: {lost.warning}")


async def _let_go(cluster: Cluster, target: Target, to: Way, by: str) -> Object:
    """Let the controller move the target; return it as the release took it over."""

    def take(deployment: Object) -> Object:
        if not is_rolled(deployment):
            raise NotFound(
                "is not held by a rollout: its annotations are of an earlier one (`kubectl rollout undo` copies them)",
                field=f"deployment {target}",
                fix="nothing to release; remove them with "
                f"`kubectl annotate deployment -n {target.namespace} {target.name} {OWNER}- {BASELINE}-`",
            )
        return {"metadata": {"annotations": {OWNER: f"{RELEASED_BY}{by}"}}}

    taken = await _patch(cluster, target, take)
    if to == "baseline":
        await _spare_superseded(cluster, target, taken)
        await _until_noticed(cluster, taken)
        with contextlib.suppress(SegueError):  # its controller is away, and somebody else writes
            await keep(cluster, lambda: _released(cluster, target), fingerprint(saved_baseline(taken)["template"]))
    let_go = await _patch(cluster, target, lambda deployment: unhold_patch(deployment, to_baseline=to == "baseline"))
    if is_paused(let_go):  # a policy pauses it whenever its template changes
        await _patch(cluster, target, _resume)
    if to == "baseline":
        with contextlib.suppress(Refused, Stale):  # otherwise its controller makes room by itself, slowly
            await make_room(cluster, lambda: _released(cluster, target))
        with contextlib.suppress(SegueError):  # the target goes back already; this only guards against other writers
            await count_as_available(cluster, lambda: _released(cluster, target))
    return taken


def _resume(deployment: Object) -> Object:
    return resume_patch(deployment, saved_baseline(deployment)["budget"])


async def _until_noticed(cluster: Cluster, deployment: Object) -> None:
    """Wait a moment until its controllers have counted the pods that they just removed, as a rollback does."""

    async def noticed() -> Objects | None:
        objects = await read_with_pods(cluster, deployment)
        return None if unnoticed(objects, grows=True) else objects

    await until_read(None, deployment["metadata"]["namespace"], (), lambda _: True, noticed, within_s=NOTICED_S)


async def _spare_superseded(cluster: Cluster, target: Target, deployment: Object) -> None:
    """Make ready pods of superseded versions count as available, so that the floor holds after a retarget.

    Their controller writes the ReplicaSets at this moment too: after a conflict it reads again.
    """
    baseline = fingerprint(saved_baseline(deployment)["template"])
    for _ in range(_ATTEMPTS):
        objects = await read_with_pods(cluster, deployment)
        superseded = superseded_sets(objects, baseline)
        if is_paused(deployment) and removes_some(objects, superseded):
            deployment = await _patch(cluster, target, _resume)
        with contextlib.suppress(Conflict):
            return await spare(cluster, objects, superseded)
    raise Conflict(f"the ReplicaSets of deployment {target} change faster than they can be written; try again")


async def _released(cluster: Cluster, target: Target) -> Objects | None:
    """Read the target again. Returns None if another rollout has taken it."""
    deployment = await cluster.get("deployments", target.namespace, target.name)
    is_released = annotations_of(deployment).get(OWNER, "").startswith(RELEASED_BY)
    return await read_with_pods(cluster, deployment) if is_released else None


def is_rolled(deployment: Object) -> bool:
    """Whether a rollout holds the target or is rolling it back, or a release has begun.

    Somebody may have changed some of the fields that hold it.
    """
    owner, saved, spec = annotations_of(deployment).get(OWNER, ""), saved_baseline(deployment), deployment["spec"]
    is_back = fingerprint(spec["template"]) == fingerprint(saved["template"])
    deadline_s, own_deadline_s = spec.get("progressDeadlineSeconds"), saved.get("progressDeadlineSeconds")
    has_ours = deadline_s == HOLD_DEADLINE_S and own_deadline_s != HOLD_DEADLINE_S
    is_held = is_engaged(deployment) or has_ours or (is_paused(deployment) and not saved.get("paused"))
    return is_held or is_back or owner.startswith(RELEASED_BY)


async def _patch(cluster: Cluster, target: Target, make: Callable[[Object], Object]) -> Object:
    async def written() -> Object:
        deployment = await cluster.get("deployments", target.namespace, target.name)
        if BASELINE not in annotations_of(deployment):
            raise NotFound(
                "has no saved baseline: no rollout holds it", field=f"deployment {target}", fix="nothing to release"
            )
        patch = make(deployment)
        patch.setdefault("metadata", {})["resourceVersion"] = deployment["metadata"]["resourceVersion"]
        return await cluster.patch("deployments", target.namespace, target.name, patch)

    return await until_written(written, f"deployment {target}")
