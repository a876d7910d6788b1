"""The lever of a Deployment: its own controller holds it in place, by fields that it obeys exactly.

New pods never count as *available* (``minReadySeconds`` at its maximum), so with R replicas

    maxUnavailable = R - old        maxSurge = new + old - R

hold the Deployment at exactly (old, new). Nothing moves on its own, even if Segue dies. At rest the Deployment is also
paused: if somebody else changed the template, an unpaused controller would treat ready new pods as broken pods of an
old version, and remove them at once. Undo restores the baseline template and the ordinary ``minReadySeconds`` in one
patch; the controller then returns to the baseline alone.
Tried on Kubernetes 1.36; the arithmetic is that of ``pkg/controller/deployment/rolling.go``.
"""

import contextlib
from collections.abc import Callable, Collection

from activities.cluster import Cluster, Object
from activities.levers.admission import BACK_FIX, MOVE_FIX, START_FIX, refuse_resized
from activities.levers.copies import edited_in_place, make_copies, prune_copies
from activities.levers.deployment.baselines import lost_baseline
from activities.levers.deployment.checking import check_admitted, check_unchanged, refuse_unsettled, warnings_of
from activities.levers.deployment.fetching import Fetcher, Matched
from activities.levers.deployment.patches import (
    claim,
    finish_patch,
    hold_patch,
    own_budget,
    pause_patch,
    refuse_asleep,
    refuse_resizing,
    refuse_stuck,
    resize_patch,
    rest_patch,
    resume_patch,
    scale_patch,
    start_of,
    superseded_sets,
    template_patch,
    unhold_patch,
    unholdable,
)
from activities.levers.deployment.reading import (
    HOLD_MIN_READY_S,
    NOTICED_S,
    Objects,
    can_be_paused,
    is_engaged,
    is_paused,
    lever_token,
    mark_after_pause,
    mark_of,
    ordinary,
    read,
    revisions,
    unnoticed,
    with_paused,
    with_pods,
)
from activities.levers.deployment.sparing import (
    await_noticed,
    count_as_available,
    keep,
    left_undone,
    make_room,
    patch_set,
    removes_some,
    spare,
)
from activities.levers.draining import leave_services, next_to_stop
from activities.levers.judging import judged_deployment
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    annotations_of,
    check_owner,
    deletion_of,
    labels_of,
    overtaken,
    refuse_being_deleted,
    refuse_others,
    replicas_of,
    saved_baseline,
    saved_ready,
    selector_of,
    written_of,
)
from activities.levers.pods import is_active
from activities.levers.template import apply_change, fingerprint, version_of
from activities.levers.waiting import until_read
from activities.levers.writing import Snapshot, clean_revisions, note_outcomes, write
from activities.watching import NamespaceWatch, Watches, controller_uid
from segue.as_before import is_undone
from segue.budget import Budget, objection, resolve_budget
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.decision import Act
from segue.errors import Conflict, NotAllowed, Refused, Rewritten, SegueError, Stale
from segue.history import Revision
from segue.lint.target import LintSubject
from segue.observation import Counts, Observation
from segue.spec import Change, Rules, Target
from segue.state import Goal, Mark, State

_GONE_S = 5.0
_TAKEN_UP_S = 2.0
"""Time for the controller to start a move. If it takes longer, a later decision pauses the Deployment."""


class DeploymentLever:
    """Holds a Deployment at exactly (old, new) by its own controller."""

    kinds: tuple[str, ...] = ("deployments", "replicasets", "pods")

    def __init__(self, cluster: Cluster, watches: Watches | None = None) -> None:
        self._cluster, self._watches = cluster, watches
        self._fetcher = Fetcher(cluster)

    async def history(self, target: Target) -> list[Revision]:
        """Return the revisions that the controller keeps, the oldest first."""
        return revisions(await self._fetcher.fetch(target))

    async def judged(self, target: Target, change: Change | None) -> LintSubject:
        """Return the Deployment with its own settings. A change applies to the baseline while a rollout holds it."""
        deployment, untried = await self._cluster.get("deployments", target.namespace, target.name), ""
        template = old = deployment["spec"]["template"]
        if change is not None:
            start = saved_baseline(deployment)["template"] if is_engaged(deployment) else template
            try:
                template = await self._changed(deployment, change, start)
            except NotAllowed as error:
                untried = f"template cannot be read: {error.why}"
        own = ordinary(deployment)
        return judged_deployment(own, template, old, replicas=replicas_of(deployment), untried=untried)

    async def _changed(self, deployment: Object, change: Change, start: Object) -> Object:
        """Return the template that a change makes; the API server merges a patch, by a dry run."""
        namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
        if change.patch is None:
            if change.revision:
                sets = await self._cluster.list("replicasets", namespace, selector_of(deployment))
                start = start_of(sets["items"], change, start)
            return apply_change(start, change, deployment["metadata"]["uid"])
        patch = {"spec": {"template": change.patch}}
        tried = await self._cluster.patch("deployments", namespace, name, patch, dry_run=True)
        template: Object = tried["spec"]["template"]
        return template

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State, now: float) -> Observation | None:
        """Return what the shared watch observes. Returns None while it lags behind the latest write."""
        deployment = watch.get("deployments", target.name)
        if not watch.current:
            return None
        mark = state.mark
        if (ended := deletion_of(deployment, mark)) or deployment is None:
            return ended
        if deployment["metadata"].get("generation", 0) < mark.generation:
            return None
        replicasets = watch.owned("replicasets", {deployment["metadata"]["uid"]})
        seen = read(with_pods(watch, deployment, replicasets), rules, state, now)
        return seen.model_copy(update={"seen_since": watch.current_since})

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read the target afresh."""
        return read(await self._fetcher.fetch(target), rules, state, now)

    async def prepare(self, request: PrepareInput) -> Prepared:
        """Read the Deployment and try the change by a dry run; write nothing.

        Raises:
            Refused: for a target that cannot be rolled now, or a change that the API server rejects.
        """
        objects = await self._fetcher.fetch(request.target)
        deployment = objects.deployment
        resolve_budget(request.rules.strategy, replicas_of(deployment))
        # A rollout can go forward again during its own rollback.
        is_back = request.baseline is not None and BASELINE in annotations_of(deployment)
        engaged, owner = is_engaged(deployment) or is_back, annotations_of(deployment).get(OWNER, "")
        refuse_being_deleted(deployment, request.target)
        if not engaged:
            refuse_unsettled(objects, request.target)
            refuse_stuck(objects, request.target)
        refuse_others(owner, request, engaged=engaged)
        start = saved_baseline(deployment)["template"] if engaged else deployment["spec"]["template"]
        wanted, warnings = request.wanted, tuple[str, ...]()
        if wanted is None:
            tried = await self._tried(request, deployment, start_of(objects.replicasets, request.change, start))
            await make_copies(self._cluster, request.change, deployment, dry_run=True)
            template = tried["spec"]["template"]
            wanted, warnings = version_of(template), warnings_of(deployment, start, tried, request.rules)
        new = sum(_requested_replicas(rs) for rs in objects.replicasets if _is_of(rs, wanted.template))
        return Prepared(
            baseline=request.baseline or version_of(start),
            wanted=wanted,
            replicas=replicas_of(deployment),
            old=sum(map(_requested_replicas, objects.replicasets)) - new,
            new=new,
            owner=owner if engaged else request.owner,
            claimed=engaged,
            ready=saved_ready(deployment) if engaged else None,
            mark=mark_of(deployment) if engaged else Mark(template=fingerprint(deployment["spec"]["template"])),
            attempts=written_of(deployment) if engaged else 0,
            warnings=warnings,
            labels=labels_of(deployment),
        )

    async def _tried(self, request: PrepareInput, deployment: Object, start: Object) -> Object:
        """Return the Deployment with the wanted template as the API server would store it (a dry run)."""
        template = template_patch(request, deployment, start)
        patch = hold_patch(deployment, request.rules, 1, 0)
        patch["spec"]["template"] = template
        if not is_engaged(deployment):
            annotations = claim(deployment, request.rules, replicas_of(deployment), request.owner)
            patch["metadata"] = {"annotations": annotations}
        target = request.target
        tried = await self._cluster.patch("deployments", target.namespace, target.name, patch, dry_run=True)
        check_admitted(target, deployment, patch, tried, START_FIX)
        return tried

    async def scale(self, request: WriteInput, now: float) -> Written:
        """Hold the Deployment at the decided counts; the first time, claim it and write the wanted template.

        Unpauses the controller until it has started the move, and pauses it again whatever the move's result.
        """
        if request.decision.act is Act.PAUSE_CONTROLLER:
            return await self._paused(request, Written(done=True, mark=request.state.mark))
        try:
            moved = await self._moved(request, now)
        except Refused:
            await self._then_paused(request, Written(done=False))
            raise
        return await self._then_paused(request, moved)

    async def _then_paused(self, request: WriteInput, moved: Written) -> Written:
        """Pause the controller after a move. If that is refused, the next decision pauses it, or says why it cannot."""
        try:
            return await self._paused(request, moved)
        except (Refused, Stale):
            return moved

    async def _moved(self, request: WriteInput, now: float) -> Written:
        """Write the decided counts, and let the controller move.

        The controller creates and removes pods in parallel. If both together could exceed the ceiling for a moment,
        this waits until the old ones are gone before it requests the new ones.
        """
        told = await self._drain(request, now)
        return (await self._moved_to(request.goal, request, now)).with_more(0, told)

    async def _moved_to(self, goal: Counts, request: WriteInput, now: float) -> Written:
        step, old = goal, set[str]()

        def make(objects: Objects, seen: Observation) -> Object | None:
            nonlocal step, old
            old = _old_sets(objects, request.state)
            refuse_asleep(seen)
            step = _first(resolve_budget(request.rules.strategy, seen.replicas), request.state, seen, goal)
            return scale_patch(objects, seen, request, step)

        def check(found: Object, patch: Object, tried: Object) -> None:
            check_unchanged(request, found, patch, tried)
            check_admitted(request.target, found, patch, tried, MOVE_FIX)

        objects = await self._fetcher.fetch(request.target)
        regained = await self._regained(request, goal, now, objects)
        if regained is not None:
            return regained
        made = await self._copies_made(request)
        written = _stored(await self._write(request, now, make, check=check, fresh=objects)).with_more(made)
        if not written.done or step == goal or written.mark is None:
            return written
        gone = await self._gone(request.target, old, step.old)
        if gone is None:
            return written  # if they are not gone yet, the next decision requests the new ones
        again = request.model_copy(update={"generation": written.mark.generation})
        takes_more = goal.old < step.old
        last = await self._write(again, now, make, listed=None if takes_more else gone, check=check)
        return _stored(_after(written, last))

    async def _regained(self, request: WriteInput, goal: Counts, now: float, objects: Objects) -> Written | None:
        """Bring old replicas back, which the controller never does by itself. Returns None if there are enough.

        First writes fields that protect the old replicas, then scales their ReplicaSet up, so that the controller
        removes none of them. Allows more replicas in all only at the end, or the controller would add new ones.
        """
        state = request.state
        seen = read(objects, request.rules, state, now)
        baseline = next((rs for rs in objects.replicasets if _is_of(rs, state.baseline.template)), None)
        missing = goal.old - seen.old.total
        if missing <= 0 or seen.template != state.wanted.template or not state.claimed:
            return None
        if baseline is None:
            return Written(done=False, why="the old version no longer has a ReplicaSet, so no old replica can be added")
        is_whole = seen.new.total >= seen.replicas  # then the controller adds no new replica
        floor = goal if is_whole else Counts(goal.old, goal.new - missing)
        first = await self._write(request, now, lambda objects, seen: scale_patch(objects, seen, request, floor))
        if not first.done or first.mark is None:
            return first
        replicas = _requested_replicas(baseline) + missing
        await patch_set(self._cluster, baseline, {"spec": {"replicas": replicas}})
        again = request.model_copy(update={"generation": first.mark.generation})
        last = await self._write(again, now, lambda objects, seen: scale_patch(objects, seen, again, goal))
        return _stored(_after(first, last).with_more(1))

    async def _paused(self, request: WriteInput, moved: Written) -> Written:
        """Pause the controller once it has started the move; at once if the template is not the wanted one.

        New pods may still be loading then; their ReplicaSet creates them all the same.
        """
        moved = moved.model_copy(update={"moved_at": self._cluster.clock.now()})
        target, ours = request.target, {request.state.wanted.template}
        mark = moved.mark or request.state.mark

        def is_taken_up(watch: NamespaceWatch) -> bool:
            return _is_taken_up(watch, target, mark.generation, ours)

        async def pause() -> Written | None:
            deployment, replicasets = await self._fetcher.with_sets(target)
            owner = annotations_of(deployment).get(OWNER)
            if owner != request.state.owner or not is_engaged(deployment) or is_paused(deployment):
                return moved
            if not can_be_paused(deployment, replicasets, ours):
                return None
            patch = _pausing(deployment, request.rules, mark)
            try:
                after = await self._cluster.patch("deployments", target.namespace, target.name, patch)
            except Conflict:
                return None
            return _paused_after(request, moved, patch, after)

        paused = await until_read(self._watches, target.namespace, self.kinds, is_taken_up, pause, within_s=_TAKEN_UP_S)
        return paused or moved  # not started in time: the next decision pauses it

    async def _copies_made(self, request: WriteInput) -> int:
        """Create the configuration that the wanted template refers to, before the template is written."""
        if request.change is None or not request.change.config_maps:
            return 0
        deployment = await self._cluster.get("deployments", request.target.namespace, request.target.name)
        check_owner(deployment, request.state, engaged=is_engaged(deployment))
        return await make_copies(self._cluster, request.change, deployment)

    async def _drain(self, request: WriteInput, now: float) -> str:
        """Take the old replicas that stop next out of their Services, if the spec sets ``drain``; return a warning."""
        drain, goal = request.rules.drain, request.goal
        if drain is None:
            return ""
        objects = await self._fetcher.fetch(request.target)
        seen = read(objects, request.rules, request.state, now)
        decided_on_this = seen.owner == request.state.owner and seen.generation == request.generation
        if (
            goal.old >= seen.old.total
            or not decided_on_this
            or objection(resolve_budget(request.rules.strategy, seen.replicas), seen, goal)
        ):
            return ""  # the write itself reports why
        names = next_to_stop(objects, request.state, goal.old, hooked=drain.until is not None)
        return await leave_services(self._cluster, request.target.namespace, names, drain) if names else ""

    async def _gone(self, target: Target, old: set[str], number: int) -> Matched | None:
        """Wait until at most ``number`` pods of the old ReplicaSets remain. Returns None on a timeout."""

        def are_gone(pods: list[Object]) -> bool:
            return sum(controller_uid(p) in old and is_active(p) for p in pods) <= number

        def shows(watch: NamespaceWatch) -> bool:
            return are_gone(watch.owned("pods", old))

        async def read_again() -> Matched | None:
            listed = await self._fetcher.listed(target)
            return listed if are_gone(listed.pods) else None

        return await until_read(self._watches, target.namespace, self.kinds, shows, read_again, within_s=_GONE_S)

    async def resize(self, request: WriteInput, now: float) -> Written:
        """Set ``spec.replicas``, and the fields that keep both sides' shares; the controller scales in proportion."""
        replicas = request.decision.replicas or 1

        def make(objects: Objects, seen: Observation) -> Object | None:
            if seen.replicas == replicas:
                return None
            return resize_patch(objects, seen, request, replicas)

        return await self._write(request, now, make)

    async def settle(self, request: WriteInput, now: float) -> Written:
        """Hold the counts that are ready, then remove the new replicas that are not.

        Lower fields alone do not remove new pods, so this scales their ReplicaSet down: unready pods go first.
        """
        return await self._then_paused(request, await self._settled(request, now))

    async def _settled(self, request: WriteInput, now: float) -> Written:
        written = await self._moved(request, now)
        if not written.done:
            return written
        objects = await self._fetcher.fetch(request.target)
        if late := overtaken(objects.deployment, written):
            return late
        ours = [each for each in objects.replicasets if _is_of(each, request.state.wanted.template)]
        larger = [each for each in ours if _requested_replicas(each) > request.goal.new]
        for replicaset in larger:
            await patch_set(self._cluster, replicaset, {"spec": {"replicas": request.goal.new}})
        await await_noticed(self._cluster, objects.deployment, {each["metadata"]["uid"] for each in ours})
        return written.with_more(len(larger))

    async def undo(self, request: WriteInput, now: float) -> Written:
        """Restore the baseline in one patch, with the controller unpaused.

        After a retarget, ready pods of superseded versions are first made to count as available. Otherwise the
        controller would remove them before the newest version's unready pods, and go under the floor.
        """
        objects = await self._noticed(request.target)
        kept = await self._kept(request) if left_undone(objects, request.state.baseline.template) else 0
        if kept:
            objects = await self._fetcher.fetch(request.target)
        try:
            request, spared = await self._spare_superseded(request, objects)
        except Stale as stale:
            return Written(done=False, why=str(stale))
        if spared:
            objects = await self._noticed(request.target)

        serving, is_short, written_on = 0, False, objects

        def make(objects: Objects, seen: Observation) -> Object | None:
            nonlocal serving, is_short, written_on
            deployment, serving, written_on = objects.deployment, seen.old.ready + seen.new.ready, objects
            budget = resolve_budget(request.rules.strategy, max(seen.replicas, 1))
            is_short = bool(seen.replicas) and serving < budget.floor
            if is_undone(seen, request.state.baseline.template, budget.unavailable):
                return None
            return unhold_patch(deployment, to_baseline=True, strategy=own_budget(request.rules, seen.replicas))

        def check(found: Object, patch: Object, tried: Object) -> None:
            if replicas_of(tried) < serving:  # otherwise the way back, which may be urgent, takes nothing away
                refuse_resized(request.target, found, patch, tried, BACK_FIX)
            stored = fingerprint(tried["spec"]["template"])
            if stored not in {request.state.baseline.template, fingerprint(found["spec"]["template"])}:
                refuse_resizing(written_on)  # the present version becomes a superseded one: see superseded_sets

        written = await self._write(request, now, make, fresh=objects, check=check)
        written = await self._unpaused(request, written, now)
        more = await self._protected(request, written, now, is_short=is_short) if written.done else 0
        return _stored(written.with_more(kept + spared + more))

    async def _unpaused(self, request: WriteInput, written: Written, now: float) -> Written:
        """Resume the controller that a policy pauses whenever its template changes: a rollback waits for no person."""
        if written.mark is None or written.mark == with_paused(written.mark, paused=False):
            return written

        def resume(objects: Objects, seen: Observation) -> Object | None:
            return {"spec": {"paused": None}} if is_paused(objects.deployment) else None

        again = request.model_copy(update={"generation": written.mark.generation})
        resumed = await self._write(again, now, resume)
        return written.with_more(resumed.writes).model_copy(update={"mark": resumed.mark or written.mark})

    async def _noticed(self, target: Target) -> Objects:
        """Read the target when its controllers have removed what they were to remove, and counted that.

        While the Deployment's controller counts a removed pod as ready, it removes another one on the way back. A
        controller that stays behind does not stop the way back.
        """

        def shows(watch: NamespaceWatch) -> bool:
            deployment = watch.get("deployments", target.name)
            uid = {deployment["metadata"]["uid"]} if deployment else set[str]()
            sets = watch.owned("replicasets", uid)
            return deployment is None or not unnoticed(with_pods(watch, deployment, sets), grows=True)

        async def read_again() -> Objects | None:
            found = await self._fetcher.fetch(target)
            return None if unnoticed(found, grows=True) else found

        found = await read_again()
        if found is None:
            found = await until_read(self._watches, target.namespace, self.kinds, shows, read_again, within_s=NOTICED_S)
        return found or await self._fetcher.fetch(target)

    async def _protected(self, request: WriteInput, written: Written, now: float, *, is_short: bool) -> int:
        """Make room for all old replicas at once if fewer than the floor are ready, and let ready new ones count.

        Return the number of writes. If it cannot be written, the controller makes room by itself, one replica after the
        other, and somebody else's change of the template could take ready new ones.
        """
        state = request.state

        async def ours() -> Objects | None:
            objects = await self._fetcher.fetch(request.target)
            seen = read(objects, request.rules, state, now)
            is_ours = seen.owner == state.owner and seen.template == state.baseline.template and not seen.engaged
            return objects if is_ours and not overtaken(objects.deployment, written) else None

        writes = 0
        with contextlib.suppress(Refused, Stale):
            writes += await make_room(self._cluster, ours) if is_short else 0
        with contextlib.suppress(SegueError):  # the rollback is written: nothing may make it fail now
            writes += await count_as_available(self._cluster, ours)
        return writes

    async def _kept(self, request: WriteInput) -> int:
        """Let the baseline keep the pods that a lost controller has yet to remove; return the number of writes.

        The rollback goes on if that cannot be written.
        """

        async def ours() -> Objects | None:
            objects = await self._fetcher.fetch(request.target)
            return objects if _is_as_decided(request, objects.deployment) else None

        with contextlib.suppress(SegueError):
            return await keep(self._cluster, ours, request.state.baseline.template)
        return 0

    async def _spare_superseded(self, request: WriteInput, objects: Objects) -> tuple[WriteInput, int]:
        """Make ready pods of superseded versions count as available; return the updated input, and the writes."""
        if not _is_as_decided(request, objects.deployment):
            return request, 0  # the write itself reports it
        superseded = superseded_sets(objects, request.state.baseline.template)
        resumes = is_paused(objects.deployment) and removes_some(objects, superseded)
        if resumes:
            request = await self._resumed(request, objects.deployment)
        await spare(self._cluster, objects, superseded)
        return request, len(superseded) + resumes

    async def _resumed(self, request: WriteInput, deployment: Object) -> WriteInput:
        """Unpause the controller; return the input with the generation after it."""
        target = request.target
        patch = resume_patch(deployment, own_budget(request.rules, replicas_of(deployment)))
        after = await self._cluster.patch("deployments", target.namespace, target.name, patch)
        return request.model_copy(update={"generation": after["metadata"]["generation"]})

    async def finish(self, request: WriteInput, now: float) -> Written:
        """Restore strategy, minReadySeconds and deadline, and remove Segue's annotations."""

        def make(objects: Objects, seen: Observation) -> Object | None:
            there = seen.old.total == 0 if request.state.goal is Goal.FORWARD else seen.new.total == 0
            if not there:
                raise Stale("the replicas have not reached their final counts yet")
            return finish_patch(objects.deployment, request.note if request.state.goal is Goal.FORWARD else None)

        def check(found: Object, patch: Object, tried: Object) -> None:
            refuse_resized(request.target, found, patch, tried, BACK_FIX)
            if request.state.goal is Goal.FORWARD:
                check_unchanged(request, found, patch, tried)

        written = await self._write(request, now, make, finishing=True, check=check)
        if not written.done:
            return written
        deployment, replicasets = await self._fetcher.with_sets(request.target)
        cleaned = await note_outcomes(self._cluster, replicasets, request, cleans=True)
        if not cleaned.left:
            cleaned = cleaned.with_more(await clean_revisions(self._cluster, deployment))
        templates = [rs["spec"]["template"] for rs in replicasets]
        pruned = await prune_copies(self._cluster, deployment, templates)
        runs = [deployment["spec"]["template"]]
        edited = await edited_in_place(self._cluster, request.target.namespace, runs, request.state.began_at)
        return written.with_more(cleaned.writes + pruned, cleaned.left, edited)

    async def _write(
        self, request: WriteInput, now: float, make: Callable[[Objects, Observation], Object | None], *,
        finishing: bool = False, fresh: Objects | None = None, listed: Matched | None = None,
        check: Callable[[Object, Object, Object], None] | None = None,
    ) -> Written:  # fmt: skip
        """Write on a fresh read, which may be that of the caller (``fresh``), or on what was ``listed`` a moment ago.

        Only a write that removes no replica uses ``listed``. It meets conflicts, because the controller is writing the
        status, and lists are slow at that moment. A write that removes a replica lists again after each conflict:
        another replica may no longer be ready.
        """
        read_before, warning = iter(() if fresh is None else (fresh,)), ""

        async def snapshot() -> Snapshot[Objects]:
            nonlocal warning
            objects = next(read_before, None)
            if objects is None:
                fetcher = self._fetcher
                objects = await (fetcher.completed(request.target, listed) if listed else fetcher.fetch(request.target))
            budget = own_budget(request.rules, replicas_of(objects.deployment))
            lost = lost_baseline(objects, request.state, budget)
            if lost.saved:
                version = objects.deployment["metadata"]["resourceVersion"]  # somebody may put the value back meanwhile
                patch = {"metadata": {"resourceVersion": version, "annotations": {BASELINE: lost.saved}}}
                await self._cluster.patch("deployments", request.target.namespace, request.target.name, patch)
                objects, warning = await self._fetcher.fetch(request.target), lost.warning
            seen = read(objects, request.rules, request.state, now)
            return Snapshot(objects.deployment, objects, seen, is_engaged(objects.deployment))

        try:
            written = await write(
                self._cluster, "deployments", request, read=snapshot, make=make, mark=mark_of, finishing=finishing,
                check=check,
            )  # fmt: skip
        except Rewritten as rewritten:
            return Written(done=False, why=str(rewritten), made=rewritten.made, warning=warning)
        return written.model_copy(update={"warning": warning})


def _is_taken_up(watch: NamespaceWatch, target: Target, generation: int, ours: Collection[str]) -> bool:
    """Whether a watch shows that the controller has started a move, or that there is nothing to pause."""
    deployment = watch.get("deployments", target.name)
    if deployment is None:
        return True
    if deployment["metadata"].get("generation", 0) < generation:
        return False
    if is_paused(deployment) or not is_engaged(deployment):
        return True
    return can_be_paused(deployment, watch.owned("replicasets", {deployment["metadata"]["uid"]}), ours)


def _is_as_decided(request: WriteInput, deployment: Object) -> bool:
    """Whether the rollout still owns the Deployment, and nobody has changed its spec since the decision."""
    is_ours = annotations_of(deployment).get(OWNER) == request.state.owner
    return is_ours and deployment["metadata"]["generation"] == request.generation


def _is_of(replicaset: Object, version: str) -> bool:
    return fingerprint(replicaset["spec"]["template"]) == version


def _requested_replicas(replicaset: Object) -> int:
    return int(replicaset["spec"].get("replicas", 0))


def _after(first: Written, last: Written) -> Written:
    """Return the result of the last of two writes, with the number of both."""
    return last.with_more(first.writes).model_copy(update={"mark": last.mark or first.mark})


def _stored(written: Written) -> Written:
    """Return a move with the intended mark, unpaused. If the Deployment is paused then, somebody else paused it."""
    mark = with_paused(written.mark, paused=False) if written.writes and written.mark else written.mark
    return written.model_copy(update={"mark": mark})


def _pausing(deployment: Object, rules: Rules, mark: Mark) -> Object:
    """Return the patch that pauses the Deployment. It overwrites no fields that somebody else changed."""
    ours = lever_token(deployment) == with_paused(mark, paused=False).token
    return rest_patch(deployment, rules) if ours and replicas_of(deployment) else pause_patch(deployment, paused=True)


def _paused_after(request: WriteInput, moved: Written, patch: Object, after: Object) -> Written:
    """Return a move with the mark after the pause, without what somebody else changed meanwhile."""
    mark = moved.mark or request.state.mark
    if "strategy" in patch["spec"]:
        meant = {"spec": {"minReadySeconds": HOLD_MIN_READY_S, **patch["spec"]}}
        mark = mark.model_copy(update={"token": lever_token(meant)})
    mark = mark_after_pause(mark, after["metadata"]["generation"])
    return moved.with_more(1).model_copy(update={"mark": mark})


def _old_sets(objects: Objects, state: State) -> set[str]:
    """Return the uids of the ReplicaSets that do not run the wanted version."""
    return {rs["metadata"]["uid"] for rs in objects.replicasets if not _is_of(rs, state.wanted.template)}


def _first(budget: Budget, state: State, seen: Observation, goal: Counts) -> Counts:
    """Return the counts to request first. If the goal at once could exceed the ceiling, only old ones go first."""
    between = Counts(max(goal.old, seen.replicas - seen.new.total), seen.new.total)
    goes_first = seen.template == state.wanted.template and between.old < seen.old.total and goal.new > between.new
    is_over_ceiling = seen.old.total + goal.new > budget.ceiling
    return between if goes_first and is_over_ceiling and not unholdable(seen.replicas, between) else goal
