"""The lever of targets whose replicas have numbers: what a StatefulSet and a LeaderWorkerSet have in common.

One patch carries the wanted template and the partition. The target's own controller moves replicas from that number on
to the template, the highest first. With the partition far above R nothing moves, even if Segue dies. Undo restores the
baseline template and sets the partition to 0: the controller then returns to the baseline alone. If broken pods of the
bad version would block it, the lever deletes them.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar

from activities.cluster import Cluster, Object
from activities.ended_pods import Gone
from activities.levers.admission import MOVE_FIX, START_FIX, changed_by_admission, refuse_lost, refuse_resized
from activities.levers.authors import Fields, foreign_fields, foreign_template
from activities.levers.controllers import never_observes
from activities.levers.copies import edited_in_place, make_copies, prune_copies
from activities.levers.numbered.ordinals import (
    HOLD,
    Numbered,
    Taken,
    comes_back_older,
    may_go_back,
    partition_at,
    partition_for,
    read,
    shrinks_under,
    start_of,
)
from activities.levers.ownership import (
    BASELINE,
    CAUSE,
    CHANGE,
    CHANGED,
    OWNER,
    WRITES,
    annotations_of,
    baseline_of,
    budget_as_written,
    check_owner,
    deletion_of,
    labels_of,
    left_of_us,
    mark_of,
    note_of,
    noted,
    outcome_noted,
    overtaken,
    ready_before,
    rebudgeted,
    refuse_being_deleted,
    refuse_others,
    replicas_of,
    revision_of,
    rewound,
    saved_baseline,
    saved_ready,
    unsaved,
    written_of,
)
from activities.levers.template import fingerprint, fingerprinting_once, stopping_of
from activities.levers.writing import Cleaned, Snapshot, annotated, laid, write
from activities.watching import NamespaceWatch, controller_uid
from segue.as_before import allows_too_many_unavailable
from segue.budget import NO_FLOOR, Budget, objection, resolve_budget
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.errors import NotAllowed, Refused, Stale
from segue.history import SUPERSEDED, Revision
from segue.lint.target import LintSubject
from segue.observation import Observation, Version
from segue.spec import Change, Rules, Target
from segue.state import Goal, Mark, State
from segue.stopping import Stopping, losses
from segue.units import resolve

MAX_NAMED = 3
"""The most missing pods whose names are looked up without a watch."""


class PartitionLever(ABC):
    """Holds a target at exactly (old, new) by its partition."""

    plural: ClassVar[str]
    kinds: tuple[str, ...]
    fields: ClassVar[Fields]
    template_path: ClassVar[str]
    forgets: ClassVar[bool] = False
    """Whether its controller deletes the versions that no replica runs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    # --- what differs from kind to kind -----------------------------------------------------------------

    @abstractmethod
    def numbered(
        self, found: Object, revisions: list[Object], pods: Iterable[Object], sets: Iterable[Object] = (),
        gone: Iterable[Gone] = (),
    ) -> Numbered:  # fmt: skip
        """Return the replica of each number, from the pods, StatefulSets and revisions that the target owns.

        ``revisions`` include those of its StatefulSets.
        """

    @abstractmethod
    def selector(self, found: Object) -> str:
        """Return the label selector of the target's pods."""

    @abstractmethod
    def watched(self, watch: NamespaceWatch, found: Object) -> tuple[list[Object], list[Gone]]:
        """Return the target's pods, and the latest removed ones."""

    @abstractmethod
    def missing(self, numbered: Numbered) -> Mapping[str, int]:
        """Return the names of the pods that do not exist, each with its number; they may be too many of a group."""

    @abstractmethod
    def owns(self, numbered: Numbered, pod: Object) -> bool:
        """Whether a pod with the name of one of the target's is the target's."""

    def is_left(self, numbered: Numbered, pod: Object, now: float) -> bool:
        """Whether such a pod is of a former replica, and stays although it was to be deleted."""
        return False

    @abstractmethod
    def template_of(self, found: Object) -> Object:
        """Return the template that is rolled."""

    @abstractmethod
    def pod_templates(self, template: Object) -> list[Object]:
        """Return the pod templates of a replica; the first one is that of the serving pods."""

    @abstractmethod
    def version(self, template: Object) -> Version:
        """Return the version of a template."""

    @abstractmethod
    def changed(self, start: Object, found: Object, change: Change) -> Object:
        """Return the fields of the spec that apply a change to a template."""

    @abstractmethod
    def replaced(self, template: Object, found: Object) -> Object:
        """Return the fields of the spec that replace the present template by another."""

    @abstractmethod
    def template_with(self, found: Object, fields: Object) -> Object:
        """Return the target's template after a patch with these fields, which ``changed`` or ``replaced`` returned."""

    @abstractmethod
    def judged_as(self, found: Object, wanted: Object, untried: str) -> LintSubject:
        """Return what lint checks, given the wanted template."""

    @abstractmethod
    def holding(self, partition: int, rules: Rules, replicas: int) -> Object:
        """Return the fields of the spec that hold the target by a partition."""

    def pinning(self, rules: Rules, replicas: int, back: Object) -> Object:
        """Return the fields that hold it during a rollback; ``back`` are those of the baseline's template."""
        return {**self.holding(HOLD, rules, replicas), **back}

    @abstractmethod
    def own(self, found: Object) -> Object:
        """Return the target's own values of the fields that hold it."""

    @abstractmethod
    def restored(self, saved: Object) -> Object:
        """Return the fields of the spec that restore what ``own`` returned."""

    @abstractmethod
    async def at_once(self, found: Object, tried: Object) -> int | str:
        """Return how many its controller replaces at a time; ``tried`` is the target after the first write."""

    @abstractmethod
    def warnings(self, numbered: Numbered) -> list[str]:
        """Return the warnings that are specific to this kind."""

    def autonomous(self, rules: Rules) -> bool:
        """Whether the target's own controller moves the replicas, within the budget."""
        return False

    def own_unavailable(self, found: Object) -> int | None:
        """Return how many replicas the target's own controller lets be unavailable, if it moves them."""
        return None

    # --- seeing -------------------------------------------------------------------------------------------

    async def history(self, target: Target) -> list[Revision]:
        """Return the target's revisions, the oldest first."""
        return self._revisions(await self._fetch(target))

    def _revisions(self, numbered: Numbered) -> list[Revision]:
        """Return each version once, with its newest number and its note."""
        running = Counter(each.version for each in numbered.running.values())
        newest: dict[str, Object] = {}
        for each in sorted(numbered.revisions, key=lambda r: (int(r["revision"]), CHANGE in annotations_of(r))):
            name = fingerprint(numbered.templates[each["metadata"]["name"]])
            newest.pop(name, None)
            newest[name] = each
        found = []
        for place, (runs, each) in enumerate(newest.items(), start=1):
            current = place == len(newest)
            version = self.version(numbered.templates[each["metadata"]["name"]])
            annotated = numbered.found if current else each
            replicas = running[numbered.version if current else runs]
            found.append(revision_of(each, annotated, int(each["revision"]), version, replicas, current=current))
        return found

    async def judged(self, target: Target, change: Change | None) -> LintSubject:
        """Return the target with its own settings. A change applies to the baseline while a rollout holds it."""
        numbered = await self._fetch(target)
        found, template, untried = numbered.found, numbered.template, ""
        if BASELINE in annotations_of(found):
            found = {**found, "spec": {**found["spec"], **self.restored(saved_baseline(found)["own"])}}
        if change is not None:
            start = saved_baseline(found)["template"] if numbered.engaged else template
            try:
                template = await self._changed(found, change, start_of(numbered, change, start))
            except NotAllowed as error:
                untried = f"template cannot be read: {error.why}"
        return self.judged_as(found, template, untried)

    async def _changed(self, found: Object, change: Change, start: Object) -> Object:
        """Return the template that a change makes; the API server merges a patch, by a dry run."""
        fields, metadata = self.changed(start, found, change), found["metadata"]
        if change.patch is None or "." in self.plural:
            return self.template_with(found, fields)
        tried = await self._cluster.patch(
            self.plural, metadata["namespace"], metadata["name"], {"spec": fields}, dry_run=True
        )
        return self.template_of(tried)

    async def keep(self, numbered: Numbered, notes: Mapping[str, str | None], *, dry_run: bool = False) -> int:
        """Keep the present version with its notes, if its controller would delete it; return the number of writes."""
        return 0

    def _stopping(self, template: Object) -> Stopping:
        return stopping_of(self.pod_templates(template)[0])

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State, now: float) -> Observation | None:
        """Return what the shared watch observes. Returns None while it lags behind the latest write."""
        if not watch.current:
            return None
        found, mark = watch.get(self.plural, target.name), state.mark
        if (ended := deletion_of(found, mark)) or found is None:
            return ended
        if found["metadata"].get("generation", 0) < mark.generation:
            return None
        uid = {found["metadata"]["uid"]}
        sets = watch.owned("statefulsets", uid)
        revisions = watch.owned("controllerrevisions", uid | {each["metadata"]["uid"] for each in sets})
        pods, gone = self.watched(watch, found)
        numbered = self.numbered(found, revisions, pods, sets, gone)
        namesakes = {name: watch.get("pods", name) for name in self.missing(numbered)}
        seen = self._read(self._with_taken(numbered, namesakes, now), rules, state, now)
        return seen.model_copy(update={"seen_since": watch.current_since})

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read the target afresh."""
        numbered = await self._fetch(target)
        fields = [f"metadata.name={name}" for name in [*self.missing(numbered)][:MAX_NAMED]]
        pages = [page for each in fields async for page in self._cluster.pages("pods", target.namespace, each)]
        namesakes = {pod["metadata"]["name"]: pod for page in pages for pod in page["items"]}
        return self._read(self._with_taken(numbered, namesakes, now), rules, state, now)

    def _with_taken(self, numbered: Numbered, namesakes: Mapping[str, Object | None], now: float) -> Numbered:
        """Return what is there with the pods that keep missing ones from being created."""
        missing = self.missing(numbered)
        there = [(name, pod) for name, pod in namesakes.items() if pod]
        kept = {name: Taken(missing[name]) for name, pod in there if not self.owns(numbered, pod)}
        left = {name: Taken(missing[name], is_left=True) for name, pod in there if self.is_left(numbered, pod, now)}
        return numbered._replace(taken={**left, **kept})

    @fingerprinting_once()
    def _read(self, numbered: Numbered, rules: Rules, state: State, now: float) -> Observation:
        found, template = numbered.found, numbered.template
        own = self._own_token(found) if state.goal is Goal.BACK and not numbered.partition else ""
        foreign = (
            unsaved(found, state)
            or rewound(found, written_of(found), numbered.version, state)
            or foreign_template(found, template, list(numbered.templates.values()), self.template_path, state)
            or foreign_fields(found, numbered.version, numbered.token, self.fields, state, own=own)
        )
        return read(
            numbered, rules, state, foreign, now,
            autonomous=self.autonomous(rules), own_unavailable=self.own_unavailable(found),
        )  # fmt: skip

    def _own_token(self, found: Object) -> str:
        """Return the token of the target as it was before the rollout; empty if no rollout saved that."""
        if BASELINE not in annotations_of(found):
            return ""
        restored = self.restored(saved_baseline(found)["own"])
        return self.numbered({**found, "spec": {**found["spec"], **restored}}, [], []).token

    async def _fetch(self, target: Target) -> Numbered:
        """Read the target with its revisions, and then its pods, so that a write is checked on the newest pods.

        The controllers that remove pods are read before the pods, so that earlier removals are observed.
        """
        found, revisions, sets = await asyncio.gather(
            self._cluster.get(self.plural, target.namespace, target.name),
            self._cluster.list("controllerrevisions", target.namespace),
            self._sets(target),
        )
        pods = await self._cluster.list("pods", target.namespace, self.selector(found))
        uids = {each["metadata"]["uid"] for each in (found, *sets)}
        own = [r for r in revisions["items"] if controller_uid(r) in uids]
        return self.numbered(found, own, pods["items"], sets)

    async def _sets(self, target: Target) -> list[Object]:
        """Return the StatefulSet that the target's controller manages, if it is not the target."""
        return []

    def _mark(self, found: Object) -> Mark:
        bare = self.numbered(found, [], [])
        return mark_of(found, bare.version, bare.token)

    # --- before -------------------------------------------------------------------------------------------

    async def prepare(self, request: PrepareInput) -> Prepared:
        """Read the target and try the change by a dry run; write nothing.

        Raises:
            Refused: for a target that cannot be rolled now, or a change that the API server rejects.
        """
        numbered = await self._fetch(request.target)
        found, replicas = numbered.found, replicas_of(numbered.found)
        budget = resolve_budget(request.rules.strategy, replicas)
        # A rollout can go forward again during its own rollback.
        is_back = request.baseline is not None and BASELINE in annotations_of(found)
        engaged, owner = numbered.engaged or is_back, annotations_of(found).get(OWNER, "")
        if not engaged:
            self._refuse_unsettled(numbered, request.target)
        refuse_being_deleted(found, request.target)
        refuse_others(owner, request, engaged=engaged)
        start = saved_baseline(found)["template"] if engaged else numbered.template
        wanted, warnings = request.wanted, tuple[str, ...]()
        if wanted is None:
            tried = await self._tried(request, numbered, start)
            wanted = self.version(self.template_of(tried))
            before, after = self._stopping(start), self._stopping(self.template_of(tried))
            stops = losses(before, after, request.rules, replicas, drainable=False)
            budget_warnings = _warnings(budget, await self.at_once(found, tried), request.rules)
            warnings = (*stops, *self.warnings(numbered), *budget_warnings)
        new = sum(numbered.running[i].version == wanted.template for i in range(replicas) if i in numbered.running)
        return Prepared(
            baseline=request.baseline or self.version(start),
            wanted=wanted,
            replicas=replicas,
            old=replicas - new,
            new=new,
            owner=owner if engaged else request.owner,
            claimed=engaged,
            ready=saved_ready(found) if engaged else None,
            mark=self._mark(found) if engaged else Mark(template=numbered.version),
            attempts=written_of(found) if engaged else 0,
            warnings=warnings,
            labels=labels_of(found),
        )

    async def _tried(self, request: PrepareInput, numbered: Numbered, start: Object) -> Object:
        """Return the target as the API server would store the first write (a dry run)."""
        found, target = numbered.found, request.target
        changed = self.changed(start_of(numbered, request.change, start), found, request.change)
        patch: Object = {"spec": {**self.holding(HOLD, request.rules, replicas_of(found)), **changed}}
        if not numbered.engaged:
            patch["metadata"] = {"annotations": self._claim(numbered, request.rules, request.owner)}
        tried = await self._cluster.patch(self.plural, target.namespace, target.name, patch, dry_run=True)
        self._check_admitted(target, found, patch, tried, START_FIX)
        await make_copies(self._cluster, request.change, found, dry_run=True)
        await self.keep(numbered, {}, dry_run=True)
        return tried

    def _check_admitted(self, target: Target, found: Object, patch: Object, tried: Object, fix: str) -> None:
        """Stop a write if admission changes the partition, or who holds the target: its controller would go on alone.

        Raises:
            Refused: naming what admission changes.
        """
        refuse_lost(target, found, patch, tried, fix)
        refuse_resized(target, found, patch, tried, fix)
        sent = {**found, "spec": laid(found["spec"], patch["spec"])}
        meant, stored = (self.numbered(each, [], []).partition for each in (sent, tried))
        if meant != stored:
            raise changed_by_admission(target, f"partition={meant} to partition={stored}", fix)

    def _refuse_unsettled(self, numbered: Numbered, target: Target) -> None:
        if never_observes(numbered.found):
            raise Refused(
                "has no status.observedGeneration, so nothing shows what its controller has observed",
                field="target",
                value=str(target),
                fix=f"upgrade the controller of {target.kind}s; that of LeaderWorkerSets writes it since v0.9",
            )
        if {each.version for each in numbered.running.values()} - {numbered.version}:
            raise Refused(
                "is in the middle of a rollout of its own, so there is no proven version to return to",
                field="target",
                value=str(target),
                fix="wait until it ends, or restore its former template",
            )

    # --- writing ------------------------------------------------------------------------------------------

    async def scale(self, request: WriteInput, now: float) -> Written:
        """Set the partition that keeps the decided number of old replicas; the first time, with the template.

        Deletes unready replicas among those to be replaced: the target's own controller would wait for them.
        """
        goal, gives_up = request.goal, False
        made = await self._before(request)

        def make(numbered: Numbered, seen: Observation) -> Object | None:
            nonlocal gives_up
            gives_up = goal.old > seen.old.total
            if seen.replicas < 1:
                raise Stale("the target is scaled to 0")
            unwritten = seen.template != request.state.wanted.template
            is_held = not unwritten and seen.engaged and seen.requested == goal
            if is_held and not allows_too_many_unavailable(request.rules, seen):
                return None
            budget = resolve_budget(request.rules.strategy, seen.replicas)
            problem = objection(budget, seen, goal) or _unholdable(seen, sum(goal))
            if problem and not seen.autonomous:
                raise Stale(problem)
            return self._scaled(request, numbered, goal.old)

        def check(found: Object, patch: Object, tried: Object) -> None:
            self._check_admitted(request.target, found, patch, tried, MOVE_FIX)

        written = await self._write(request, now, make, check=check)
        after = await self._after(request) if written.done else 0
        if written.done and gives_up:  # unready replicas of the wanted version come back as old ones
            after += await self._unblock(await self._fetch(request.target), {request.state.baseline.template})
        return written.with_more(made + after)

    async def _after(self, request: WriteInput) -> int:
        """Delete what would block the wanted version, and note the rollout on a revision that existed before."""
        numbered, wanted = await self._fetch(request.target), request.state.wanted.template
        writes = await self._unblock(numbered, {wanted, numbered.version}, numbered.partition)
        revision = None if self.forgets else numbered.revision(wanted)
        if revision is not None and request.note is not None:
            note = note_of(revision)
            if note is None or not note.of_same_rollout(request.note):
                told = await annotated(self._cluster, "controllerrevisions", revision, noted(request.note))
                writes += told.writes
        return writes

    def _scaled(self, request: WriteInput, numbered: Numbered, old: int) -> Object:
        state, found = request.state, numbered.found
        is_early = self._holds_first(numbered, state)
        partition = 0 if self.autonomous(request.rules) else HOLD if is_early else partition_for(numbered, state, old)
        spec = self.holding(partition, request.rules, replicas_of(found))
        annotations: dict[str, str | None] = {OWNER: state.owner}
        if numbered.version != state.wanted.template and not is_early:
            if request.change is None:
                raise Stale(CHANGED)
            saved = saved_baseline(found)["template"] if state.claimed else numbered.template
            spec |= self.changed(start_of(numbered, request.change, saved), found, request.change)
            annotations |= noted(request.note) if request.note else {}
        if not state.claimed:
            annotations |= self._claim(numbered, request.rules, state.owner, ready_before(state))
        else:
            annotations |= rebudgeted(found, budget_as_written(request.rules))
        return {"metadata": {"annotations": annotations}, "spec": spec}

    def _holds_first(self, numbered: Numbered, state: State) -> bool:
        """Whether to hold the target before the wanted template is written, so that lost replicas keep their version.

        Raises:
            Stale: when it is held, and its controller has not observed that yet.
        """
        baseline = state.baseline.template
        if numbered.version != baseline or not comes_back_older(numbered, baseline):
            return False
        if numbered.engaged and not numbered.heeded:
            raise Stale("its controller has not yet taken the version that runs for the current one")
        return not numbered.rolls

    def _claim(
        self, numbered: Numbered, rules: Rules, owner: str, ready: Mapping[str, int] = MappingProxyType({})
    ) -> dict[str, str | None]:
        """Return the annotations of the first write: the owner, and the baseline with how many replicas were ready."""
        own, budget = self._own(numbered.found), budget_as_written(rules)
        saved = {"template": numbered.template, "own": own, "budget": budget, **ready}
        return {OWNER: owner, BASELINE: baseline_of(numbered.found, saved)}

    def _own(self, found: Object) -> Object:
        """Return the target's own settings, also if a former rollback has not restored them."""
        if BASELINE not in annotations_of(found):
            return self.own(found)
        saved: Object = saved_baseline(found)["own"]
        return saved

    async def _before(self, request: WriteInput) -> int:
        """Keep the version that the wanted template replaces, and create the configuration that it refers to."""
        if request.change is None or not (request.change.config_maps or self.forgets):
            return 0
        numbered = await self._fetch(request.target)
        check_owner(numbered.found, request.state, engaged=numbered.engaged)
        made = await make_copies(self._cluster, request.change, numbered.found)
        return made + await self._kept(numbered, request, request.state.wanted.template, SUPERSEDED)

    async def _kept(self, numbered: Numbered, request: WriteInput, wanted: str, outcome: str, why: str = "") -> int:
        """Keep the version that is replaced; ``outcome`` is its outcome if this rollout made it."""
        found = numbered.found
        if numbered.version == wanted:
            return 0
        notes: dict[str, str | None] = {name: annotations_of(found).get(name) for name in (CAUSE, CHANGE)}
        note = note_of(found)
        if note and request.state.claimed and not note.outcome:
            notes = noted(note.model_copy(update={"outcome": outcome, "why": why}))
        return await self.keep(numbered, notes)

    async def _unblock(self, numbered: Numbered, versions: set[str], since: int = 0) -> int:
        """Delete the replicas from a number on that are unready, and not of these versions."""
        return sum([await self._cluster.delete_pod(pod) for pod in numbered.broken(versions, since)])

    async def resize(self, request: WriteInput, now: float) -> Written:
        """Set ``spec.replicas``; replicas added while the target is held come up old, and are rolled as planned.

        In the same write, the partition takes back what the controller has not replaced yet (``partition_at``).
        """
        replicas = request.decision.replicas or 1

        def make(numbered: Numbered, seen: Observation) -> Object | None:
            if seen.replicas == replicas:
                return None
            problem = shrinks_under(numbered, request.rules, replicas)
            if problem:
                raise Stale(problem)
            spec: Object = {"replicas": replicas}
            partition = numbered.partition
            if not seen.autonomous:
                partition = partition_at(numbered, request.state, replicas)
            if numbered.engaged or partition != numbered.partition:  # what may be unavailable at once follows R
                spec |= self.holding(partition, request.rules, replicas)
            return {"spec": spec}

        return await self._write(request, now, make)

    async def settle(self, request: WriteInput, now: float) -> Written:
        """Hold everything, and delete the unready new replicas, which come back old."""

        def make(numbered: Numbered, seen: Observation) -> Object | None:
            if numbered.partition == HOLD:
                return None
            return {"spec": self.holding(HOLD, request.rules, seen.replicas)}

        written = await self._write(request, now, make)
        if not written.done:
            return written
        numbered = await self._fetch(request.target)
        if late := overtaken(numbered.found, written):
            return late
        deleted = await self._unblock(numbered, {request.state.baseline.template})
        return written.with_more(deleted)

    async def undo(self, request: WriteInput, now: float) -> Written:
        """Restore the baseline in one patch, and delete broken replicas of other versions, which could block it.

        At the floor everything is held at first; another patch releases it as soon as one more replica is ready.
        """
        baseline = request.state.baseline.template
        kept = await self._kept_back(request, baseline)

        def make(numbered: Numbered, seen: Observation) -> Object | None:
            saved = saved_baseline(numbered.found)
            back = self.replaced(saved["template"], numbered.found)
            notes = {"annotations": saved["notes"]}
            if may_go_back(numbered, request.rules, baseline):
                is_there = seen.template == baseline and numbered.partition == 0
                spec = {**self.holding(0, request.rules, seen.replicas), **back}
                return None if is_there else {"metadata": notes, "spec": spec}
            if numbered.partition >= HOLD and seen.foreign is None:
                return None
            return {"metadata": notes, "spec": self.pinning(request.rules, seen.replicas, back)}

        written = await self._write(request, now, make)
        deleted = await self._unblock_back(request) if written.done else 0
        return written.with_more(kept + deleted)

    async def _unblock_back(self, request: WriteInput) -> int:
        """Delete broken replicas, except of the baseline and of the baseline as admission stored it."""
        numbered, state = await self._fetch(request.target), request.state
        made = {numbered.version} - {state.wanted.template, state.mark.template}
        return await self._unblock(numbered, {state.baseline.template} | made)

    async def _kept_back(self, request: WriteInput, baseline: str) -> int:
        """Keep the version that is rolled back, so that its revision shows why."""
        if not self.forgets:
            return 0
        numbered = await self._fetch(request.target)
        check_owner(numbered.found, request.state, engaged=numbered.engaged)
        state, of_release = request.state, request.note.why if request.note else ""
        outcome = state.ending if state.goal is Goal.BACK else ""  # at 0 replicas a rollout forward goes back, too
        return await self._kept(numbered, request, baseline, outcome, str(state.failure or of_release))

    async def finish(self, request: WriteInput, now: float) -> Written:
        """Restore the target's own settings, and remove Segue's annotations."""
        forward = request.state.goal is Goal.FORWARD

        def make(numbered: Numbered, seen: Observation) -> Object | None:
            if (seen.old if forward else seen.new).total:
                raise Stale("the replicas have not reached their final counts yet")
            annotations = {
                OWNER: None,
                BASELINE: None,
                WRITES: None,
                **(noted(request.note) if request.note and forward else {}),
            }
            is_saved = BASELINE in annotations_of(numbered.found)  # else a person has restored its settings
            spec = self.restored(saved_baseline(numbered.found)["own"]) if is_saved else {}
            return {"metadata": {"annotations": annotations}, "spec": spec}

        written = await self._write(request, now, make, finishing=True)
        if not written.done:
            return written
        numbered = await self._fetch(request.target)
        cleaned = await self._finish_revisions(request, numbered)
        templates = [each for template in numbered.templates.values() for each in self.pod_templates(template)]
        pruned = await prune_copies(self._cluster, numbered.found, templates)
        runs, since = self.pod_templates(numbered.template), request.state.began_at
        edited = await edited_in_place(self._cluster, request.target.namespace, runs, since)
        return written.with_more(cleaned.writes + pruned, cleaned.left, edited)

    async def _finish_revisions(self, request: WriteInput, numbered: Numbered) -> Cleaned:
        """Remove the annotations that the controller copied; the note of each version's outcome stays.

        The target is free already, so what the API server does not take here is only told.
        """
        cleaned, newest = Cleaned(), numbered.newest
        for revision in numbered.revisions:
            there = annotations_of(revision)
            version = fingerprint(numbered.templates[revision["metadata"]["name"]])
            annotations = left_of_us(revision) | outcome_noted(revision, version, request)
            if request.note and request.state.goal is Goal.FORWARD and revision is newest:
                annotations |= noted(request.note)
            if any(there.get(name) != value for name, value in annotations.items()):
                cleaned = cleaned.with_more(
                    await annotated(self._cluster, "controllerrevisions", revision, annotations)
                )
        return cleaned

    async def _write(
        self, request: WriteInput, now: float, make: Callable[[Numbered, Observation], Object | None], *,
        finishing: bool = False, check: Callable[[Object, Object, Object], None] | None = None,
    ) -> Written:  # fmt: skip
        async def snapshot() -> Snapshot[Numbered]:
            numbered = await self._fetch(request.target)
            seen = self._read(numbered, request.rules, request.state, now)
            return Snapshot(numbered.found, numbered, seen, numbered.engaged)

        return await write(
            self._cluster, self.plural, request, read=snapshot, make=make, mark=self._mark, finishing=finishing,
            check=check,
        )  # fmt: skip


def _unholdable(seen: Observation, total: int) -> str:
    return "" if total == seen.replicas else f"{seen.replicas} numbered replicas cannot be held as {total}"


def _warnings(budget: Budget, at_once: int | str, rules: Rules) -> list[str]:
    number = max(resolve(at_once, budget.replicas, round_up=False), 1)
    cases = (
        (
            budget.unavailable > number,
            f"the controller replaces {number} at a time, not {budget.unavailable}: the cluster's feature gate "
            "MaxUnavailableStatefulSet is off",
        ),
        (
            rules.drain is not None,
            "drain.quiet has no effect: the controller of a numbered target moves only while its replicas are ready; "
            "use a preStop hook instead",
        ),
        (budget.floor == 0, NO_FLOOR),
    )
    return [text for applies, text in cases if applies]
