"""The lever of a pair of Deployments. Replicas move from the old one to the new one by ``spec.replicas`` of each.

Neither controller knows of the other, so nothing moves or rolls back by itself: the rollback is stepped too. The old
Deployment keeps what the rollback needs. The new one never runs two versions: if another one is wanted, it is emptied
first.
"""

import asyncio
import copy
import functools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from activities.cluster import Cluster, Object
from activities.levers.admission import BACK_FIX, MOVE_FIX, START_FIX, changed_by_admission, refuse_lost, refuse_resized
from activities.levers.authors import latest_of, writers_of
from activities.levers.copies import edited_in_place
from activities.levers.deployment.checking import refuse_paused, refuse_unsettled
from activities.levers.deployment.fetching import read_with_pods
from activities.levers.deployment.reading import Objects, is_engaged, revisions, unnoticed, with_pods, yet_to_remove
from activities.levers.draining import leave_services, next_to_stop
from activities.levers.judging import judged_deployment
from activities.levers.ownership import (
    BASELINE,
    CAUSE,
    CHANGE,
    OWNER,
    REPLICAS,
    WRITES,
    annotations_of,
    check_same,
    deletion_of,
    labels_of,
    noted,
    packed,
    refuse_being_deleted,
    refuse_others,
    refuse_outdated,
    refuse_overfull,
    replicas_of,
    with_number,
)
from activities.levers.pair.reading import Baseline, Pair, is_behind, is_made, left_to_others, mark_of, read
from activities.levers.pods import is_active
from activities.levers.template import apply_change, fingerprint, refuse_patch_elsewhere, stopping_of, version_of
from activities.levers.waiting import until_read
from activities.levers.writing import SLOW_S, Cleaned, clean_revisions, note_outcomes
from activities.watching import NamespaceWatch, Watches
from segue.budget import NO_FLOOR, objection, resolve_budget
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.errors import Conflict, Fenced, NotAllowed, NotFound, Refused, Stale
from segue.history import Revision
from segue.lint.target import LintSubject
from segue.observation import Counts, Observation, belonging
from segue.spec import MADE_LABEL, Change, PairTarget, Rules, Target
from segue.state import Goal, Mark, State
from segue.stopping import losses

_ATTEMPTS = 5
_GONE_S = 5.0
_SEEN_S = 10.0
"""A just created Deployment may be missing in the watch for this time; after it, a missing one was deleted."""
_COPIED = ("strategy", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit")


class PairLever:
    """Holds two Deployments at exactly (old, new) by the replicas that each requests."""

    kinds: tuple[str, ...] = ("deployments", "replicasets", "pods")

    def __init__(self, cluster: Cluster, watches: Watches | None = None) -> None:
        self._cluster, self._watches = cluster, watches

    async def history(self, target: Target) -> list[Revision]:
        """Return the revisions of the old Deployment, and then of the new one, the oldest first."""
        pair = await self._fetch(_pair(target))
        sides = [pair.old, *([pair.new] if pair.new else [])]
        named = [(side.deployment["metadata"]["name"], each) for side in sides for each in revisions(side)]
        return [each.model_copy(update={"of": name}) for name, each in named]

    async def judged(self, target: Target, change: Change | None) -> LintSubject:
        """Return the new Deployment, or the old one if there is no new one, with the wanted version.

        Returns the old Deployment for a pair that is named by it alone.
        """
        if not isinstance(target, PairTarget):
            found = await self._cluster.get("deployments", target.namespace, target.name)
            template = found["spec"]["template"]
            return judged_deployment(found, template, template, replicas=replicas_of(found))
        pair = await self._fetch(target)
        found, old, untried = (pair.new or pair.old).deployment, pair.old.deployment["spec"]["template"], ""
        template = found["spec"]["template"]
        if change is not None:
            try:
                template = await self._wanted(change, pair, target)
            except NotAllowed as error:
                untried = f"template cannot be read: {error.why}"
        return judged_deployment(found, template, old, replicas=pair.replicas, untried=untried)

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State, now: float) -> Observation | None:
        """Return what the shared watch observes. Returns None while it lags behind the latest write."""
        target = _pair(target)
        old, new = watch.get("deployments", target.old), watch.get("deployments", target.new)
        if not watch.current:
            return None
        if (ended := deletion_of(old, state.mark)) or old is None:
            return ended
        pair = Pair(_watched(watch, old), _watched(watch, new) if new else None)
        unseen = pair.new is None and state.mark.template and now < state.progress_at + _SEEN_S
        if unseen or is_behind(pair, state.mark):
            return None
        return read(pair, rules, state, now).model_copy(update={"seen_since": watch.current_since})

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read both Deployments afresh."""
        return read(await self._fetch(_pair(target)), rules, state, now)

    async def _fetch(self, target: PairTarget) -> Pair:
        old = await self._cluster.get("deployments", target.namespace, target.old)
        try:
            new = await self._cluster.get("deployments", target.namespace, target.new)
        except NotFound:
            return Pair(await read_with_pods(self._cluster, old), None)
        return Pair(*await asyncio.gather(read_with_pods(self._cluster, old), read_with_pods(self._cluster, new)))

    # --- before the start ---------------------------------------------------------------------------------

    async def prepare(self, request: PrepareInput) -> Prepared:
        """Read both Deployments and try the change by a dry run; write nothing.

        Raises:
            Refused: for a pair that cannot be rolled now, or a change that the API server rejects.
        """
        target = _pair(request.target)
        pair = await self._fetch(target)
        baseline = pair.baseline
        _refuse(pair, request, target)
        budget = resolve_budget(request.rules.strategy, pair.replicas)
        start = pair.old.deployment["spec"]["template"]
        wanted = request.wanted or version_of(await self._tried(request.change, pair, target))
        superseded = pair.counts.new > 0 and wanted.template != pair.template
        if baseline is None:
            await self._try_claim(pair, target, request.owner, wanted.template)
        if baseline is None and pair.counts == budget.end and not superseded:
            raise Refused(
                f"is already at {pair.counts}, where this rollout would end",
                field="target",
                value=str(target),
                fix="set other counts in spec.strategy.to, or swap old and new",
            )
        return Prepared(
            baseline=request.baseline or version_of(start),
            wanted=wanted,
            replicas=pair.replicas,
            old=pair.counts.old,
            new=pair.counts.new,
            superseded=superseded,
            owner=annotations_of(pair.old.deployment).get(OWNER, "") if baseline else request.owner,
            claimed=baseline is not None,
            ready=baseline.ready if baseline else None,
            mark=mark_of(pair) if baseline else Mark(template=pair.template),
            attempts=pair.written if baseline else 0,
            warnings=_warnings(pair, request.rules),
            labels=labels_of(pair.old.deployment),
        )

    async def _try_claim(self, pair: Pair, target: PairTarget, owner: str, wanted: str) -> None:
        """Try the first write by a dry run.

        Raises:
            Refused: when the baseline does not fit, or admission removes it.
        """
        patch = {"metadata": {"annotations": _claim(pair, target, owner, wanted)}}
        tried = await self._cluster.patch("deployments", target.namespace, target.old, patch, dry_run=True)
        check_admitted(target, pair.old.deployment, patch, tried, START_FIX)

    async def _tried(self, change: Change, pair: Pair, target: PairTarget) -> Object:
        """Return the wanted template as the API server would store it (a dry run)."""
        template = await self._wanted(change, pair, target)
        if fingerprint(template) == fingerprint(pair.old.deployment["spec"]["template"]):
            return template
        if pair.new is None:
            tried = await self._cluster.create(
                "deployments", target.namespace, _made(pair, target, template), dry_run=True
            )
        else:
            patch = {"spec": {"template": {**template, "$patch": "replace"}}}
            tried = await self._cluster.patch("deployments", target.namespace, target.new, patch, dry_run=True)
        found: Object = tried["spec"]["template"]
        return found

    async def _wanted(self, change: Change, pair: Pair, target: PairTarget) -> Object:
        """Return the template that the new Deployment should have: the old one's with the change, or its own."""
        own = _own_template(pair)
        if own is not None:
            return await self._changed(change, pair.new, own) if pair.new and not change.is_empty else own
        start = pair.old.deployment["spec"]["template"]
        template = await self._changed(change, pair.old, start)
        return template if fingerprint(template) == fingerprint(start) else _labelled(template, target)

    async def _changed(self, change: Change, side: Objects, start: Object) -> Object:
        """Return a template with the change made; the API server merges a patch onto the present template."""
        metadata = side.deployment["metadata"]
        if change.patch is None:
            return apply_change(start, change, metadata["uid"])
        refuse_patch_elsewhere(start, side.deployment["spec"]["template"])
        patch = {"spec": {"template": change.patch}}
        merged = await self._cluster.patch("deployments", metadata["namespace"], metadata["name"], patch, dry_run=True)
        found: Object = merged["spec"]["template"]
        return found

    # --- writing ------------------------------------------------------------------------------------------

    async def scale(self, request: WriteInput, now: float) -> Written:
        """Set the counts of both Deployments. The first time, claim them, and create or change the new one."""
        return await self._move(request, now)

    async def settle(self, request: WriteInput, now: float) -> Written:
        """Set both Deployments to the counts that are ready; unready replicas go first."""
        return await self._move(request, now)

    async def undo(self, request: WriteInput, now: float) -> Written:
        """Take one step of the rollback."""
        return await self._move(request, now)

    async def _move(self, request: WriteInput, now: float) -> Written:
        """Wait until removed replicas are gone before requesting new ones: the ceiling holds at every moment."""
        goal, target = request.goal, _pair(request.target)
        writing = _Writing(self._cluster, self._fetch, request, now)
        try:
            first = await writing.checked(goal)
            writing.warning = await self._drain(request, first, goal)
            await writing.claim()
            adds = goal.old > first.counts.old or goal.new > first.counts.new
            if goal.old < first.counts.old:
                await writing.scale_old(goal.old)
                if adds and not await self._gone(first.old, goal.old):
                    return writing.written  # the next decision requests the rest
            if goal.new < first.counts.new:
                await writing.scale_new(goal.new)
                if adds and first.new and not await self._gone(first.new, goal.new):
                    return writing.written
            if goal.old > first.counts.old:
                await writing.scale_old(goal.old)
            if goal.new > first.counts.new:
                await self._grow_new(writing, goal.new, target)
        except Stale as stale:
            return Written(done=False, why=str(stale), writes=writing.writes)
        return writing.written

    async def _grow_new(self, writing: "_Writing", replicas: int, target: PairTarget) -> None:
        """Scale the new Deployment up; if it runs another version, change its template while it is empty."""
        request, pair = writing.request, writing.pair
        template = await self._due(request, pair, target)
        if template is None:
            await writing.scale_new(replicas)
        elif pair.new is None:
            await writing.make(_made(pair, target, template, replicas, {OWNER: request.state.owner, **writing.notes}))
        elif pair.counts.new or not await self._gone(pair.new, 0):
            raise Stale("the new Deployment still runs another version")
        else:
            await writing.scale_new(replicas, template)

    async def _due(self, request: WriteInput, pair: Pair, target: PairTarget) -> Object | None:
        """Return the template that the new Deployment needs. Returns None if it has it already."""
        if request.state.goal is Goal.FORWARD:
            if pair.template == request.state.wanted.template:
                return None
            return await self._wanted(request.change or Change(), pair, target)
        own = _own_template(pair)
        return own if own is not None and fingerprint(own) != pair.template else None

    async def resize(self, request: WriteInput, now: float) -> Written:
        """Record the new R, and set both Deployments to their share of it."""
        replicas, writing = request.decision.replicas or 1, _Writing(self._cluster, self._fetch, request, now)
        try:
            pair = await writing.checked()
            is_recorded = pair.replicas == replicas and pair.baseline is not None
            if is_recorded:
                # A lost worker may have written the old Deployment only. What is missing then, the next moves add.
                counts = _under_ceiling(pair.counts, replicas, request.rules)
            else:
                counts = _shares(pair.counts, pair.replicas, replicas, request.rules)
                record = {"metadata": {"annotations": {REPLICAS: str(replicas)}}} if request.state.claimed else {}
                await writing.patch({**record, "spec": {"replicas": counts.old}}, is_old=True)
            if pair.new is not None and counts.new != pair.counts.new:
                await writing.scale_new(counts.new, claims=is_recorded or request.state.claimed)
        except Stale as stale:
            return Written(done=False, why=str(stale), writes=writing.writes)
        return writing.written

    async def finish(self, request: WriteInput, now: float) -> Written:
        """Remove Segue's annotations, and after a rollback a new Deployment that the rollout made."""
        writing = _Writing(self._cluster, self._fetch, request, now)
        try:
            await self._freed(writing, request, now)
        except Stale as stale:
            if not await writing.is_free():  # otherwise another attempt was faster
                return Written(done=False, why=str(stale), writes=writing.writes)
        cleaned = await writing.clean()
        sides = [each for each in (writing.pair.old, writing.pair.new) if each is not None]
        runs = [each.deployment["spec"]["template"] for each in sides if replicas_of(each.deployment)]
        edited = await edited_in_place(self._cluster, request.target.namespace, runs, request.state.began_at)
        return writing.written.with_more(0, changed_by_others(writing.pair, request.state), cleaned.left, edited)

    async def _freed(self, writing: "_Writing", request: WriteInput, now: float) -> None:
        """Release both Deployments, unless an earlier attempt did."""
        pair = await writing.checked(finishing=True)
        baseline = pair.baseline
        if baseline is None:  # done before, and the answer was lost
            return
        seen = read(pair, request.rules, request.state, now)
        back = request.state.goal is Goal.BACK
        end = seen.home if back else resolve_budget(request.rules.strategy, seen.replicas).end
        if pair.counts != end:
            raise Stale("the replicas have not reached their final counts yet")
        await writing.free(baseline, back=back)

    async def _drain(self, request: WriteInput, pair: Pair, goal: Counts) -> str:
        """Take the old replicas that stop next out of their Services, if the spec sets ``drain``; return a warning."""
        if request.rules.drain is None or goal.old >= pair.counts.old or request.state.goal is Goal.BACK:
            return ""
        names = next_to_stop(pair.old, request.state, goal.old, hooked=request.rules.drain.until is not None)
        if not names:
            return ""
        return await leave_services(self._cluster, request.target.namespace, names, request.rules.drain)

    async def _gone(self, side: Objects, number: int) -> bool:
        """Wait until at most ``number`` pods of a Deployment remain; return False on a timeout."""
        owners = {rs["metadata"]["uid"] for rs in side.replicasets}

        def are_gone(pods: list[Object]) -> bool:
            return sum(map(is_active, pods)) <= number

        def shows(watch: NamespaceWatch) -> bool:
            return are_gone(watch.owned("pods", owners))

        async def read_again() -> bool | None:
            return are_gone((await read_with_pods(self._cluster, side.deployment)).pods) or None

        namespace = side.deployment["metadata"]["namespace"]
        gone = await until_read(self._watches, namespace, self.kinds, shows, read_again, within_s=_GONE_S)
        return gone is not None


def changed_by_others(pair: Pair, state: State) -> str:
    """Return that a rollback leaves another pod template than the baseline's; empty if it does not."""
    old = pair.old.deployment
    if state.goal is Goal.FORWARD or fingerprint(old["spec"]["template"]) == state.baseline.template:
        return ""
    who, name = latest_of(writers_of(old, ("f:template",))), old["metadata"]["name"]
    return (
        f"the pod template of Deployment {name} is not that from before the rollout, and stays: {who} wrote it, and a "
        f"pair's rollout writes only that of the new Deployment; see `kubectl rollout undo deployment/{name}`"
    )


@dataclass
class _Writing:
    """The writes of one activity. Each follows a fresh read, and none overwrites somebody else's change."""

    cluster: Cluster
    fetch: Callable[[PairTarget], Awaitable[Pair]]
    request: WriteInput
    now: float
    writes: int = 0
    warning: str = ""

    def __post_init__(self) -> None:
        self.target = _pair(self.request.target)
        self.generation = self.request.generation
        self.pair: Pair
        self.goal: Counts | None = None

    @property
    def written(self) -> Written:
        """The result of the writes so far."""
        return Written(done=True, writes=self.writes, mark=mark_of(self.pair), warning=self.warning)

    async def checked(self, goal: Counts | None = None, *, finishing: bool = False) -> Pair:
        """Read both, and check that this rollout owns them and may write.

        Raises:
            Fenced: when another rollout owns them.
            Stale: when the decision no longer fits.
        """
        pair = self.pair = await self.fetch(self.target)
        state, self.goal = self.request.state, goal
        check_same(pair.old.deployment, state.mark)
        if finishing:
            self.generation = pair.generation  # an earlier attempt may have released one
            if _is_free(pair):
                return pair
        _check_owner(pair, state)
        seen = read(pair, self.request.rules, state, self.now)
        if seen.foreign is not None and not state.overrules:
            raise Stale(str(seen.foreign))
        if goal == pair.counts and pair.baseline and pair.template in {state.wanted.template, ""}:
            return pair
        if pair.generation != self.generation:
            raise Stale(f"the target changed since the decision: generation {pair.generation}, not {self.generation}")
        if goal is not None:
            refuse_outdated(self.request, seen)
            budget = resolve_budget(self.request.rules.strategy, seen.replicas)
            if problem := objection(budget, seen, goal) or _unnoticed(pair, goal):
                raise Stale(problem)
        return pair

    async def is_free(self) -> bool:
        """Read both again, and return whether they are released."""
        self.pair = await self.fetch(self.target)
        return _is_free(self.pair)

    async def claim(self) -> None:
        """Write the owner and the baseline of both on the old Deployment; the first time only."""
        if self.pair.baseline is not None:
            return
        state = self.request.state
        ready = state.before.ready if state.before else None
        annotations = _claim(self.pair, self.target, state.owner, state.wanted.template, ready)
        await self.patch({"metadata": {"annotations": annotations}}, is_old=True)

    async def scale_old(self, replicas: int) -> None:
        """Set the old Deployment's replicas."""
        await self.patch({"spec": {"replicas": replicas}}, is_old=True)

    async def scale_new(self, replicas: int, template: Object | None = None, *, claims: bool = True) -> None:
        """Set the new Deployment's replicas, its owner if this ``claims`` it, and its template if one is given."""
        annotations: dict[str, str | None] = {OWNER: self.request.state.owner} if claims else {}
        spec: Object = {"replicas": replicas}
        if template is not None:
            spec["template"] = {**template, "$patch": "replace"}
            annotations |= self.notes
        await self.patch({"metadata": {"annotations": annotations}, "spec": spec}, is_old=False)

    @property
    def notes(self) -> dict[str, str | None]:
        """The notes on the new Deployment for the version that it gets. Its own version gets its former notes."""
        if self.request.state.goal is Goal.BACK:
            return dict(self.pair.baseline.notes) if self.pair.baseline else {}
        return noted(self.request.note) if self.request.note else {}

    async def make(self, deployment: Object) -> None:
        """Create the new Deployment."""
        try:
            made = await self.cluster.create("deployments", self.target.namespace, deployment)
        except Conflict as error:
            raise Stale("a Deployment with the new one's name exists now") from error
        self.writes += 1
        self.generation += made["metadata"]["generation"]
        self.pair = self.pair._replace(new=Objects(made, [], []))

    async def patch(self, patch: Object, *, is_old: bool) -> None:
        """Patch one Deployment as it was read; read it again if only its status changed.

        Raises:
            Stale: when more than that changed, or the new one is gone.
        """
        name = self._side(is_old=is_old).deployment["metadata"]["name"]
        for _ in range(_ATTEMPTS):
            try:
                if await self._admitted(patch, is_old=is_old):
                    return await self._write(patch, is_old=is_old)
            except Conflict:
                await self._read_again()
        raise Conflict(f"deployment {name} changes faster than it can be written")

    async def _admitted(self, patch: Object, *, is_old: bool) -> bool:
        """Try a patch by a dry run; return whether its Deployment is still the one that it was tried on.

        After a slow dry run, both are read again: a replica may have been lost meanwhile.
        """
        tried, began = self._side(is_old=is_old).deployment, time.monotonic()
        await self._try(tried, self._conditional(patch, tried))
        if self.goal is None or time.monotonic() - began <= SLOW_S:
            return True
        await self.checked(self.goal)
        return _version(self._side(is_old=is_old).deployment) == _version(tried)

    async def _write(self, patch: Object, *, is_old: bool) -> None:
        """Write a patch, and keep the answer as what was read."""
        found = self._side(is_old=is_old)
        before = found.deployment["metadata"]
        after = await self._patched(before["name"], self._conditional(patch, found.deployment))
        self.writes += 1
        self.generation += after["metadata"]["generation"] - before["generation"]
        self.pair = self.pair._replace(**{"old" if is_old else "new": found._replace(deployment=after)})

    async def _read_again(self) -> None:
        """Read both again after a conflict.

        Raises:
            Stale: when more than a status changed.
        """
        self.pair = await self.fetch(self.target)
        if self.pair.generation != self.generation:
            now = self.pair.generation
            raise Stale(f"the target changed since the decision: generation {now}, not {self.generation}")

    def _side(self, *, is_old: bool) -> Objects:
        side = self.pair.old if is_old else self.pair.new
        if side is None:
            raise Stale("the new Deployment is gone")
        return side

    def _conditional(self, patch: Object, found: Object) -> Object:
        """Return a patch with the number of the write, and what was read as its precondition."""
        numbered = with_number(patch, found, self.request.state)
        return {**numbered, "metadata": {**numbered.get("metadata", {}), "resourceVersion": _version(found)}}

    async def _try(self, found: Object, patch: Object) -> None:
        """Check what admission makes of a patch, by a dry run."""
        tried = await self._patched(found["metadata"]["name"], patch, dry_run=True)
        back = self.request.state.goal is Goal.BACK
        check_admitted(self.target, found, patch, tried, BACK_FIX if back else MOVE_FIX, rolls=back)

    async def _patched(self, name: str, patch: Object, *, dry_run: bool = False) -> Object:
        return await self.cluster.patch("deployments", self.target.namespace, name, patch, dry_run=dry_run)

    async def free(self, baseline: Baseline, *, back: bool) -> None:
        """Release both. The old one's annotations go last, so that the successor of a lost worker can continue."""
        new = self.pair.new
        if new is not None and back:
            self.warning = left_to_others(new.deployment, baseline)
        if new is not None and back and baseline.made and is_made(new.deployment):
            await self._delete(new)
        elif new is not None and OWNER in annotations_of(new.deployment):
            await self._free_new(new, back=back)
        annotations = dict.fromkeys((OWNER, BASELINE, REPLICAS, WRITES))
        await self.patch({"metadata": {"annotations": annotations}}, is_old=True)

    async def _delete(self, new: Objects) -> None:
        """Delete the new Deployment, if it is this rollout's."""
        metadata = new.deployment["metadata"]
        if annotations_of(new.deployment).get(OWNER) == self.request.state.owner:
            await self.cluster.delete("deployments", self.target.namespace, metadata["name"], metadata["uid"])
            self.writes += 1
            self.generation -= metadata["generation"]
            self.pair = self.pair._replace(new=None)

    async def _free_new(self, new: Objects, *, back: bool) -> None:
        """Release the new Deployment; after a rollback, with its own version."""
        own = _own_template(self.pair) if back else None
        restores = own is not None and fingerprint(own) != self.pair.template
        patch: Object = {"metadata": {"annotations": {OWNER: None, **(self.notes if restores or not back else {})}}}
        if restores:
            patch["spec"] = {"template": {**(own or {}), "$patch": "replace"}}
        outcomes = await note_outcomes(self.cluster, new.replicasets, self.request, cleans=False)
        self.writes += outcomes.writes
        self.warning = "; ".join(filter(None, (self.warning, outcomes.left)))
        await self.patch(patch, is_old=False)

    async def clean(self) -> Cleaned:
        """Remove what the controllers copied from the two Deployments to their ReplicaSets."""
        sides = [side.deployment for side in (self.pair.old, self.pair.new) if side is not None]
        cleaned = functools.reduce(Cleaned.with_more, [await clean_revisions(self.cluster, side) for side in sides])
        self.writes += cleaned.writes
        return cleaned


# --- pure ---------------------------------------------------------------------------------------------------


def _version(deployment: Object) -> str:
    return str(deployment["metadata"]["resourceVersion"])


def _pair(target: Target) -> PairTarget:
    if not isinstance(target, PairTarget):
        raise Refused(
            "names only the old Deployment", field="target", value=str(target), fix="give the spec file of the pair"
        )
    return target


def check_admitted(
    target: Target, found: Object, patch: Object, tried: Object, fix: str, *, rolls: bool = False
) -> None:
    """Stop a write if admission changes who holds the pair, its replicas, or a template that the write leaves alone.

    A Deployment's controller would roll another template at once, by its own strategy. With ``rolls``, it may.

    Raises:
        Refused: naming what admission changes.
    """
    sent = {"spec": {}, **patch}
    refuse_lost(target, found, patch, tried, fix)
    refuse_resized(target, found, sent, tried, fix)
    is_kept = fingerprint(tried["spec"]["template"]) == fingerprint(found["spec"]["template"])
    if not (rolls or is_kept or "template" in sent["spec"]):
        changed = f"the pod template of Deployment {found['metadata']['name']}, whose controller would roll it at once"
        raise changed_by_admission(target, changed, fix)


def _watched(watch: NamespaceWatch, deployment: Object) -> Objects:
    replicasets = watch.owned("replicasets", {deployment["metadata"]["uid"]})
    return with_pods(watch, deployment, replicasets)


def _own_template(pair: Pair) -> Object | None:
    """Return the new Deployment's template before the rollout. Returns None if it did not exist."""
    baseline = pair.baseline
    if baseline and baseline.made:
        return None
    present: Object | None = pair.new.deployment["spec"]["template"] if pair.new else None
    own: Object | None = json.loads(baseline.template) if baseline and baseline.template else present
    return own


def _labelled(template: Object, target: PairTarget) -> Object:
    """Return the template with the label that distinguishes new pods from old ones."""
    made = copy.deepcopy(template)
    metadata = made.setdefault("metadata", {})
    metadata["labels"] = {**metadata.get("labels", {}), MADE_LABEL: target.new}
    return made


def _made(
    pair: Pair, target: PairTarget, template: Object, replicas: int = 0, annotations: Object | None = None
) -> Object:
    """Return the new Deployment, made from the old one; its selector has one more label."""
    old = pair.old.deployment
    selector = copy.deepcopy(old["spec"]["selector"])
    selector["matchLabels"] = {**selector.get("matchLabels", {}), MADE_LABEL: target.new}
    metadata: dict[str, Any] = {
        "name": target.new,
        "labels": {**old["metadata"].get("labels", {}), MADE_LABEL: target.new},
    }
    if annotations:
        metadata["annotations"] = annotations
    spec = {name: old["spec"][name] for name in _COPIED if name in old["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {**spec, "replicas": replicas, "selector": selector, "template": template},
    }


def _claim(pair: Pair, target: PairTarget, owner: str, wanted: str, ready: int | None = None) -> dict[str, str | None]:
    """Return the annotations of the first write; ``wanted`` is the new Deployment's template, by fingerprint.

    Raises:
        Refused: when the baseline does not fit in the annotations.
    """
    changes = pair.new is not None and pair.template != wanted
    notes = {name: annotations_of(pair.new.deployment).get(name) for name in (CAUSE, CHANGE)} if pair.new else {}
    template = json.dumps(pair.new.deployment["spec"]["template"]) if pair.new and changes else ""
    baseline = Baseline(
        old=pair.counts.old, new=pair.counts.new, name=target.new, made=pair.new is None, template=template,
        notes=notes, ready=ready,
    )  # fmt: skip
    saved = packed(baseline.model_dump_json())
    refuse_overfull(pair.old.deployment, saved)
    return {OWNER: owner, BASELINE: saved, REPLICAS: str(pair.replicas)}


def _shares(counts: Counts, before: int, replicas: int, rules: Rules) -> Counts:
    """Return the counts that keep both sides' shares at another R: both rounded up, within the ceiling."""
    if before < 1:  # somebody scaled it to 0, so all of them are old
        return Counts(replicas, 0)
    old = min(-(-counts.old * replicas // before), replicas)
    ceiling = resolve_budget(rules.strategy, replicas).ceiling
    total = max(min(-(-sum(counts) * replicas // before), ceiling), replicas)
    return Counts(old, total - old)


def _under_ceiling(counts: Counts, replicas: int, rules: Rules) -> Counts:
    """Return the counts without the new replicas that exceed the ceiling."""
    ceiling = resolve_budget(rules.strategy, replicas).ceiling
    return Counts(counts.old, min(counts.new, max(0, ceiling - counts.old)))


def _is_free(pair: Pair) -> bool:
    return pair.baseline is None and OWNER not in annotations_of(pair.old.deployment)


def _check_owner(pair: Pair, state: State) -> None:
    owner = annotations_of(pair.old.deployment).get(OWNER)
    if owner != state.owner and (state.claimed or owner is not None):
        raise Fenced(belonging(owner))
    other = annotations_of(pair.new.deployment).get(OWNER) if pair.new else None
    if other not in {None, state.owner}:
        raise Fenced(f"the new Deployment belongs to {other} now")


def _refuse(pair: Pair, request: PrepareInput, target: PairTarget) -> None:
    """Refuse a target or change that cannot be rolled as a pair."""
    for side, counted in ((pair.old, pair.counts.old), (pair.new, pair.counts.new)):
        if side is None:
            continue
        engaged = is_engaged(side.deployment) or (pair.baseline is not None and side is pair.old)
        refuse_being_deleted(side.deployment, target)
        refuse_others(annotations_of(side.deployment).get(OWNER, ""), request, engaged=engaged)
        if pair.baseline is None:
            refuse_paused(side.deployment, target)  # with 0 replicas too: it would scale its former template
            if counted:
                refuse_unsettled(side, target)
    _refuse_change(pair, request.change, target)
    # A rollout may have made the old one from the new one, which this rollout reverses. The first one's selector is
    # immutable; that of the made one has a label that distinguishes them.
    overlaps = pair.new is not None and _selects(pair.new.deployment, pair.old.deployment)
    if overlaps and not is_made(pair.old.deployment):
        raise Refused(
            f"has a selector that also selects the pods of {target.old}",
            field="target.new",
            value=target.new,
            fix="give its pods and its selector a label that the old ones do not have",
        )


def _refuse_change(pair: Pair, change: Change, target: PairTarget) -> None:
    """Refuse a change that does not fit a pair."""
    if pair.new is None and change.is_empty:
        raise Refused(
            "is empty, and the new Deployment does not exist",
            field="spec.change",
            fix=f"create the Deployment {target.new} (with 0 replicas), or set what differs from {target.old}",
        )
    for field, given in (("revision", change.revision), ("configMaps", change.config_maps)):
        if given:
            fix = "change images, env or a patch; create configuration as an object of its own"
            raise Refused("is not for a DeploymentPair", field=f"spec.change.{field}", fix=fix)


def _selects(deployment: Object, other: Object) -> bool:
    """Whether a Deployment's selector selects the pods of another's template."""
    labels, selector = other["spec"]["template"]["metadata"].get("labels", {}), deployment["spec"]["selector"]
    kept = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, values: key in labels,
        "DoesNotExist": lambda key, values: key not in labels,
    }
    expressions = selector.get("matchExpressions", [])
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        kept[e["operator"]](e["key"], e.get("values", [])) for e in expressions
    )


def _warnings(pair: Pair, rules: Rules) -> tuple[str, ...]:
    budget = resolve_budget(rules.strategy, pair.replicas)
    old = stopping_of(pair.old.deployment["spec"]["template"])
    found = list(losses(old, old, rules, budget.replicas, drainable=True))
    if budget.floor == 0:
        found.append(NO_FLOOR)
    return tuple(found)


def _unnoticed(pair: Pair, goal: Counts) -> str:
    """Return why no side may shrink yet; empty if one may.

    Its own controller has not noticed a lost pod, or the controller of the other side has yet to remove some.
    """
    sides = [(pair.old, goal.old < pair.counts.old)]
    sides += [(pair.new, goal.new < pair.counts.new)] if pair.new is not None else []
    if not any(shrinks for _, shrinks in sides):
        return ""
    return next(filter(None, (unnoticed(side) if shrinks else yet_to_remove(side) for side, shrinks in sides)), "")
