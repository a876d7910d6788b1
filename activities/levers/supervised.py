"""The lever of a custom resource whose own operator rolls. It writes the change, watches the pods, and undoes it.

A label that differs between versions distinguishes old and new pods: pods from before the first write run the
baseline, pods from before a retarget's write are superseded, and later pods are new.

The pods decide, and the operator's status is a hint: KServe's ``observedGeneration`` is that of its Deployment.
"""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from activities.cluster import FIELD_MANAGER, Cluster, Object
from activities.ended_pods import Gone, read_ended
from activities.levers.admission import START_FIX, refuse_lost
from activities.levers.authors import is_written_by_us, latest_of, writers_of
from activities.levers.judging import judged_resource
from activities.levers.ownership import (
    BASELINE,
    CHANGED,
    OWNER,
    annotations_of,
    deletion_of,
    labels_of,
    left_of_us,
    packed,
    read_baseline,
    ready_before,
    refuse_being_deleted,
    refuse_others,
    refuse_overfull,
    rewound,
    unsaved,
)
from activities.levers.pods import ANY_RESTARTS, freed_by, is_active, made_at, read_replica, stop_requested_at, stuck
from activities.levers.template import apply_change, differences, digest, stopping_of
from activities.levers.writing import Snapshot, write
from activities.watching import NamespaceWatch, controller_name
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.ended_pods import judged, taken_at
from segue.errors import NotFound, NotRunning, Refused, Stale
from segue.failures import of_stuck
from segue.hindrance import hindrance_of, with_stuck
from segue.history import Revision
from segue.lint.target import LintSubject
from segue.merging import at, difference, leaves, merged, nested
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version
from segue.replica import Ended, Pods, Replica
from segue.spec import Change, Rules, Target
from segue.state import Goal, Mark, State
from segue.stopping import losses
from segue.supervision import Supervision
from segue.units import counted

STEADY_S = 5.0
"""How long nothing may change, if pods or the operator's status leave open whether the change is complete."""


class Supervised(NamedTuple):
    """A resource as the API server stores it, and its pods."""

    found: Object
    pods: list[Object]
    ended: Sequence[Object] = ()
    """Pods that exist, and no longer count as replicas."""
    gone: Sequence[Gone] = ()
    """The latest removed pods, if a watch observed the removal."""


class SupervisedLever:
    """Writes one kind of custom resource, and watches the pods that its operator creates."""

    def __init__(self, cluster: Cluster, kind: Supervision) -> None:
        self._cluster, self._kind = cluster, kind
        self.kinds: tuple[str, ...] = (kind.resource, "pods")

    async def history(self, target: Target) -> list[Revision]:
        """Refuse: whether and how the operator keeps versions is unknown.

        Raises:
            Refused: always.
        """
        raise Refused(
            "has no revisions that Segue knows of: only its own operator may keep its versions",
            field="target",
            value=str(target),
            fix="see in `segue report` what former rollouts changed, and start one with the earlier values",
        )

    async def judged(self, target: Target, change: Change | None) -> LintSubject:
        """Return the resource; a change applies to the baseline while a rollout holds it."""
        seen = await self._fetch(target)
        saved = _saved(seen.found)
        start = saved["version"] if saved and change else self._version_field(seen.found)
        wanted = self._changed(start, change) if change else start
        version, *lists = (tuple(path.split(".")) for path in (self._kind.version, *self._kind.containers))
        return judged_resource(
            seen.found, wanted, version, lists,
            replicas=self._replicas(seen),
            labels=seen.pods[0]["metadata"].get("labels", {}) if seen.pods else {},
            selector=_label_selector(self._selector(target)),
        )  # fmt: skip

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State, now: float) -> Observation | None:
        """Return what the shared watch observes. Returns None while it lags behind the latest write."""
        if not watch.current:
            return None
        found, mark = watch.get(self._kind.resource, target.name), state.mark
        if (ended := deletion_of(found, mark)) or found is None:
            return ended
        if found["metadata"].get("generation", 0) < mark.generation:
            return None
        selector = self._selector(target)
        supervised = self._supervised(found, watch.labelled("pods", selector), watch.gone_labelled(selector))
        seen = self._read(supervised, rules, state, now)
        return seen.model_copy(update={"seen_since": watch.current_since})

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read the target afresh."""
        return self._read(await self._fetch(target), rules, state, now)

    async def prepare(self, request: PrepareInput) -> Prepared:
        """Read the resource and try the change by a dry run; write nothing.

        Raises:
            Refused: for one that another rollout holds, or a change that does not fit it.
            NotRunning: for one that runs none of its replicas now.
        """
        seen = await self._fetch(request.target)
        saved, owner = _saved(seen.found), annotations_of(seen.found).get(OWNER, "")
        refuse_being_deleted(seen.found, request.target)
        refuse_others(owner, request, engaged=bool(saved))
        if not seen.pods and not saved:
            raise self._not_running(seen, request.target)
        start = saved["version"] if saved else self._version_field(seen.found)
        wanted = self._changed(start, request.change)
        patch = self._patch(seen.found, wanted)
        if not saved:
            patch["metadata"] = {"annotations": self._claim(seen, self._start(seen), request.owner)}
        tried = await self._cluster.patch(
            self._kind.resource, request.target.namespace, request.target.name, patch, dry_run=True
        )
        refuse_lost(request.target, seen.found, patch, tried, START_FIX)
        before = self._version(start)
        stops = stopping_of({"spec": seen.pods[0]["spec"]}) if seen.pods else None
        lost = losses(stops, stops, request.rules, len(seen.pods), drainable=False) if stops else ()
        return Prepared(
            baseline=request.baseline or before,
            wanted=self._version(self._version_field(tried)),
            replicas=self._replicas(seen),
            old=len(seen.pods),
            owner=owner if saved else request.owner,
            claimed=bool(saved),
            ready=saved.get("ready") if saved else None,
            mark=self._mark(seen.found) if saved else Mark(template=before.template),
            attempts=saved.get("writes", 0) if saved else 0,
            labels=labels_of(seen.found),
            warnings=(
                "the target's own operator moves, by its own budget; Segue writes, watches and takes back the change",
                *lost,
            ),
        )

    def _not_running(self, seen: Supervised, target: Target) -> Refused:
        why = "runs no replica: nothing would show whether the new version works"
        fix = "let its operator start one (send a request, set minReplicas: 1, end its stop), or change it directly"
        is_late = self._least(seen) > 0 and not self._is_stopped(seen)
        return (NotRunning if is_late else Refused)(why, field="target", value=str(target), fix=fix)

    async def scale(self, request: WriteInput, now: float) -> Written:
        """Write the wanted version; the first time, claim the resource and keep its baseline."""

        def make(seen: Supervised) -> Object | None:
            found, saved = seen.found, _saved(seen.found)
            if self._stands(found, request.state.wanted.template, request.state):
                return None
            if request.change is None:
                raise Stale(CHANGED)
            if saved is None and request.state.claimed:  # what is there now is not the baseline
                raise _lost(found)
            start = saved or {**self._start(seen), **ready_before(request.state)}
            wanted = self._changed(start["version"], request.change)
            kept = {
                **start,
                "wrote": request.state.wanted.template,
                "undo": difference(wanted, start["version"]),
                "left": self._left(found, start, wanted),
                "generation": _next_generation(found),
                "writes": request.state.attempts,
            }
            patch = self._patch(found, wanted)
            patch["metadata"] = {"annotations": self._claim(seen, kept, request.state.owner)}
            return patch

        return await self._write(request, now, make)

    async def resize(self, request: WriteInput, now: float) -> Written:
        """Refuse: the operator sets the number of replicas.

        Raises:
            Refused: always.
        """
        raise Refused("can only be set by its own operator", field="replicas", fix="change it in the resource itself")

    async def settle(self, request: WriteInput, now: float) -> Written:
        """Refuse: the operator cannot be held in between.

        Raises:
            Refused: always.
        """
        raise Refused("cannot be held in between", field="settle", fix="let it end, or abort")

    async def undo(self, request: WriteInput, now: float) -> Written:
        """Write back the fields that the change touched; the operator rolls back.

        Writes the whole version back only if a person has decided to overrule somebody else's change.
        """

        def make(seen: Supervised) -> Object | None:
            saved, baseline = _saved(seen.found), request.state.baseline.template
            if self._mark(seen.found).template == baseline or self._stands(seen.found, baseline, request.state):
                return None
            if saved is None:
                raise _lost(seen.found)
            whole = request.state.overrules or "undo" not in saved
            current = self._version_field(seen.found)
            patch = self._patch(seen.found, saved["version"] if whole else merged(current, saved["undo"]))
            kept = {
                **saved,
                "superseded": self._superseded(seen, saved),
                "left": self._left(seen.found, saved, saved["version"]),
                "wrote": baseline,
                "generation": _next_generation(seen.found),
                "writes": request.state.attempts,
            }
            patch["metadata"] = {"annotations": {BASELINE: packed(json.dumps(kept))}}
            return patch

        return await self._write(request, now, make)

    async def finish(self, request: WriteInput, now: float) -> Written:
        """Remove Segue's annotations."""

        left: list[Replica] = []

        def make(seen: Supervised) -> Object | None:
            nonlocal left
            _, left, _ = self._sides(seen.pods, _saved(seen.found), undone=True)
            annotations = left_of_us(seen.found)
            return {"metadata": {"annotations": annotations}} if annotations else None

        written = await self._write(request, now, make, finishing=True)
        if request.state.goal is Goal.FORWARD or not written.writes or not left:
            return written
        why = "its operator does not remove them while others are not ready; mend or delete those"
        warning = f"of the new version, {counted(len(left), 'unready replica')} remain, such as {left[0].name}: {why}"
        return written.with_more(0, warning)

    async def _write(
        self, request: WriteInput, now: float, make: Callable[[Supervised], Object | None], *, finishing: bool = False
    ) -> Written:
        async def snapshot() -> Snapshot[Supervised]:
            seen = await self._fetch(request.target)
            observed = self._read(seen, request.rules, request.state, now)
            return Snapshot(seen.found, seen, observed, engaged=observed.owner is not None)

        return await write(
            self._cluster, self._kind.resource, request, read=snapshot, make=lambda seen, _: make(seen),
            mark=self._mark, finishing=finishing, numbers=False,
        )  # fmt: skip

    # --- reading ----------------------------------------------------------------------------------------

    async def _fetch(self, target: Target) -> Supervised:
        pods = await self._cluster.list("pods", target.namespace, self._selector(target))
        found = await self._cluster.get(self._kind.resource, target.namespace, target.name)
        return self._supervised(found, pods["items"])

    def _supervised(self, found: Object, labelled: Iterable[Object], gone: Iterable[Gone] = ()) -> Supervised:
        """Return the resource with the pods that it owns."""
        own = [pod for pod in labelled if self._owns(found, pod)]
        removed = [each for each in gone if self._owns(found, each.pod)]
        return Supervised(found, [p for p in own if is_active(p)], [p for p in own if not is_active(p)], removed)

    def _owns(self, found: Object, pod: Object) -> bool:
        """Whether a pod with the resource's labels is its own, and not, for example, a canary's."""
        if self._kind.own is None:
            return True
        label, _, form = self._kind.own.partition("=")
        subname = _at(found, self._kind.subname) if self._kind.subname else None
        name = "-".join([found["metadata"]["name"], *([subname] if subname else [])])
        value, own = str(pod["metadata"].get("labels", {}).get(label, "")), form.format(name=name)
        scheme = form.partition("{name}")[0]
        return value == own or value.startswith(f"{own}-") or not (scheme and value.startswith(scheme))

    def _read(self, seen: Supervised, rules: Rules, state: State, now: float) -> Observation:
        found, back = seen.found, state.goal is Goal.BACK
        saved, template = _saved(found), self._template(found, state)
        undone = template == state.baseline.template
        old, new, stay = self._sides(seen.pods, saved, undone=undone)
        coming, restarts = (old, ANY_RESTARTS) if back else (new, rules.readiness.max_restarts)
        written = bool(saved) and template == state.wanted.template and not back
        # An autoscaler may run more than the resource requests: all of them must be proven.
        # A resource that may scale to 0 ran replicas at the start: one is waited for, until the deadline.
        some = bool(seen.pods) or (saved is not None and not saved.get("least", 1))
        asked = max(self._least(seen, len(stay)), len(new if written else old), int(some))
        replicas = 0 if self._is_stopped(seen) else asked
        min_ready_s = rules.readiness.min_ready.total_seconds()
        ready_times = [r.ready_since for r in coming if r.ready_since is not None]
        fewer = max(0, int(saved["replicas"]) - len(seen.pods)) if saved else 0
        stopped = _stopped(seen) if fewer else []
        vanishes = saved is not None and fewer > 0 and self._only_stops(seen, saved)
        changes = [*ready_times, *map(made_at, seen.pods), *(at for _, at in stopped), *([now] if vanishes else [])]
        steady_at = max(changes, default=0.0) + STEADY_S
        unfinished = self._unfinished(found, saved) or self._unsteady(found, stay, fewer, now < steady_at)
        late_until = self._late_until(found, saved, rules, state) if undone and back else 0.0
        if now < late_until and unfinished is None:
            message = "its operator may not have observed the rollback, and may still create new pods"
            unfinished = Problem(cause=Cause.UNREADY, message=message)
        ended = self._ended(seen, saved, undone=undone, back=back)
        # Its operator may wait until a pod is gone (Recreate), or the new pods may find no room beside it.
        placeless = max(0, replicas - len(coming)) + sum(each.unplaced_since is not None for each in coming)
        kept = stuck(seen.ended, rules.readiness.deadline.total_seconds(), now, waits=placeless > 0)
        going = [pod for pod in seen.ended if self._is_new(pod, saved, undone=undone) is back]
        removed = [each for each in seen.gone if self._is_new(each.pod, saved, undone=undone) is back]
        proven_at = [t + min_ready_s for t in ready_times]
        short_of = replicas - state.lacking(replicas)
        old_side = _side(old, min_ready_s, ANY_RESTARTS, now, short_of=short_of if now < late_until else None)
        new_side = _side(new, min_ready_s, rules.readiness.max_restarts, now, short_of=short_of if unfinished else None)
        if undone:  # its operator may not be able to create all that it requests, now as before the rollout
            old_side = old_side.model_copy(update={"total": max(old_side.total, replicas - new_side.total)})
        return Observation(
            replicas=replicas,
            old=old_side,
            new=new_side,
            requested=Counts(0, replicas) if written else Counts(replicas, 0),
            template=template,
            generation=found["metadata"].get("generation", 0),
            owner=annotations_of(found).get(OWNER),
            engaged=bool(saved) and not undone,
            autonomous=True,
            **with_stuck(hindrance_of(new if back else old, coming), kept, placeless)._asdict(),
            foreign=self._foreign(found, state),
            problem=of_stuck(judged(coming, ended, restarts, state.judged_from, others=new if back else old), kept)
            or kept
            or unfinished
            or self._missing(found, fewer if replicas > len(coming) else 0),
            progress_at=max(
                *(at - min_ready_s for at in proven_at if at <= now),
                *(at for pod, at in stopped if self._is_new(pod, saved, undone=undone) is back),
                taken_at(ended),
                0.0,
            ),
            freed_by=freed_by(going, removed, waits=placeless > 0),
            next_proven_at=min((at for at in (*proven_at, steady_at, late_until) if at > now), default=None),
            pods=Pods(tuple(old), tuple(new)),
            makers=tuple(saved.get("parts", ())) if saved else (),
        )

    def _sides(
        self, pods: list[Object], saved: Object | None, *, undone: bool
    ) -> tuple[list[Replica], list[Replica], list[Replica]]:
        """Return (old, new, those that stay). Pods from after the write are new; after an undo, superseded ones are.

        A resource may have parts, such as a head and its workers. If new pods come in only some parts, the change does
        not touch the others.
        """
        old: list[Replica] = []
        new: list[Replica] = []
        stay: list[Replica] = []
        kept = saved or {"parts": [], "revisions": []}
        came = {self._part(pod) for pod in pods if self._is_new(pod, saved, undone=False)}
        changed = came & set(kept.get("parts", []))
        for pod in pods:
            revision = self._revision(pod)
            stays = bool(changed) and revision in kept["revisions"] and self._part(pod) not in changed
            side = new if self._is_new(pod, saved, undone=undone) else stay if stays and not undone else old
            side.append(read_replica(pod, revision))
        return old, new, stay

    def _is_new(self, pod: Object, saved: Object | None, *, undone: bool) -> bool:
        if saved is None or self._revision(pod) in saved["revisions"] or _is_of_another_write(pod, saved):
            return False
        # An operator that acts late may create pods of a version only after the write that left it.
        late = bool(_images(pod) & set(saved.get("left", ())))
        superseded = late or self._revision(pod) in saved["superseded"]
        return superseded if undone else not superseded

    def _part(self, pod: Object) -> str:
        """Return the name of what creates a pod, without its version.

        For pods without a controller, returns their labels.
        """
        labels: dict[str, str] = pod["metadata"].get("labels", {})
        like = ",".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != self._kind.revision)
        return controller_name(pod).removesuffix(f"-{self._revision(pod)}") or like

    def _start(self, seen: Supervised) -> Object:
        """Return what the first write saves for the rollback, and to distinguish old from new."""
        return {
            "version": self._version_field(seen.found),
            "revisions": sorted({self._revision(pod) for pod in seen.pods}),
            "parts": sorted({self._part(pod) for pod in seen.pods}),
            "replicas": len(seen.pods),
            "least": self._least(seen),
            "observes": self._observes(seen.found),
            "copies": any(OWNER in annotations_of(pod) for pod in seen.pods),
            "done": [name for name in self._kind.done if _condition(seen.found, name).get("status") == "True"],
        }

    def _observes(self, found: Object) -> bool:
        """Whether the operator writes the generation that it has observed."""
        observed = _observed_by(found)
        return self._kind.observes and observed is not None and bool(observed == found["metadata"].get("generation"))

    def _ended(self, seen: Supervised, saved: Object | None, *, undone: bool, back: bool) -> tuple[Ended, ...]:
        """Return the ended pods of the growing side."""
        return read_ended(
            [pod for pod in seen.ended if self._is_new(pod, saved, undone=undone) is not back],
            [each for each in seen.gone if self._is_new(each.pod, saved, undone=undone) is not back],
        )

    def _claim(self, seen: Supervised, start: Object, owner: str) -> Object:
        """Return the annotations of a write forward: the owner and the baseline."""
        saved = packed(json.dumps({**start, "owner": owner, "superseded": self._superseded(seen, start)}))
        refuse_overfull(seen.found, saved)
        return {OWNER: owner, BASELINE: saved}

    def _superseded(self, seen: Supervised, saved: Object) -> list[str]:
        """Return the present and earlier superseded revisions, without the baseline's."""
        there = {self._revision(pod) for pod in seen.pods} | set(saved.get("superseded", []))
        return sorted(there - set(saved["revisions"]))

    def _left(self, found: Object, saved: Object, wanted: Object) -> list[str]:
        """Return the images of superseded versions that neither the baseline nor ``wanted`` uses."""
        used = {*saved.get("left", ()), *self._version(self._version_field(found)).images.values()}
        kept = (self._version(each).images.values() for each in (saved["version"], wanted))
        return sorted(used.difference(*kept))

    def _unfinished(self, found: Object, saved: Object | None) -> Problem | None:
        """Return the condition that was True before the rollout and is not now. Returns None if all are True."""
        for name in saved.get("done", self._kind.done) if saved else ():
            condition = _condition(found, name)
            if condition.get("status") != "True":
                reason = condition.get("message") or condition.get("reason") or "is not met"
                return Problem(cause=Cause.UNREADY, message=f"condition {name}: {reason}")
        return None

    def _is_stopped(self, seen: Supervised) -> bool:
        """Whether somebody stopped the resource: like a target that is scaled to 0, it runs nothing meanwhile."""
        name = self._kind.stopped
        return name is not None and not seen.pods and _condition(seen.found, name).get("status") == "True"

    def _only_stops(self, seen: Supervised, saved: Object) -> bool:
        """Whether a part of the resource only has stopping pods: its new pods may come after these.

        That is so with the strategy Recreate, or if the operator deletes a part and creates it again.
        """
        there, parts = {self._part(pod) for pod in seen.pods}, set(saved.get("parts", []))
        stopping = {self._part(pod) for pod in seen.ended if stop_requested_at(pod) is not None}
        return bool(parts & there and stopping & (parts - there))

    def _unsteady(self, found: Object, stay: list[Replica], fewer: int, fresh: bool) -> Problem | None:
        """Return what may still change, while the last pod is ``fresh``. Returns None without such a hint."""
        observed, generation = _observed_by(found), found["metadata"].get("generation", 0)
        if not fresh:
            return None
        if fewer:
            message = f"{fewer} fewer pods run than before the rollout, and its operator may still create them"
            return Problem(cause=Cause.UNREADY, message=message)
        if stay:
            return Problem(cause=Cause.UNREADY, message=f"{len(stay)} pods of other parts may be replaced too")
        if observed is not None and observed < generation:
            return Problem(cause=Cause.UNREADY, message="its operator may not have observed the whole change")
        return None

    def _missing(self, found: Object, number: int) -> Problem | None:
        """Return the problem of missing pods if the resource does not request a number. Returns None if it does."""
        path = self._kind.replicas
        if not number or (path and _at(found, path) is not None):
            return None
        way = f"write how many into {path}" if path else "end with `segue release`"
        message = f"{number} fewer pods run than before the rollout; if its operator has scaled it down, {way}"
        return Problem(cause=Cause.DEADLINE, message=message)

    def _late_until(self, found: Object, saved: Object | None, rules: Rules, state: State) -> float:
        """Return until when a rollback does not end, because the operator may act on the change only now.

        In seconds since the epoch. An operator whose ``observedGeneration`` was right at the start is behind until it
        is right again, at most until the deadline; any other has ``STEADY_S``.
        """
        generation = found["metadata"].get("generation", 0)
        observes = saved is not None and saved.get("observes", False)
        if observes and (_observed_by(found) or 0) >= generation:
            return 0.0
        patience_s = max(STEADY_S, rules.readiness.deadline.total_seconds()) if observes else STEADY_S
        return state.progress_at + patience_s

    def _template(self, found: Object, state: State) -> str:
        """Return the fingerprint of the present version.

        Our latest write as admission or the operator changed it counts as written: written again, it would come out
        the same.
        """
        saved, actual = _saved(found), self._mark(found).template
        if saved is None or actual in {state.wanted.template, state.baseline.template}:
            return actual
        is_written = actual == state.mark.template or self._is_extended(found, saved)
        return str(saved.get("wrote", actual)) if is_written else actual

    def _stands(self, found: Object, template: str, state: State) -> bool:
        """Whether a version is written: it is present, or admission or the operator changed what we wrote."""
        saved, actual = _saved(found), self._mark(found).template
        if saved is None or state.overrules or actual == template:
            return saved is not None and actual == template
        ours = actual == state.mark.template or _is_ours(found, saved) or self._is_extended(found, saved)
        return ours and bool(saved.get("wrote") == template)

    def _foreign(self, found: Object, state: State) -> Foreign | None:
        template = self._mark(found).template
        saved = _saved(found)
        if lost := unsaved(found, state) or rewound(found, saved.get("writes", 0) if saved else 0, template, state):
            return lost
        pivot = state.baseline if state.goal is Goal.BACK else state.wanted
        if template in {state.mark.template, pivot.template} or not state.mark.template:
            return None
        now = self._version_field(found)
        if saved and (_is_ours(found, saved) or self._is_extended(found, saved)):
            return None
        if saved and template in {state.baseline.template, state.wanted.template}:
            return self._reverted(found, saved, template)
        ours, writers = self._authors(found, saved["version"] if saved else {}, now)
        what = ", ".join(differences({"spec": ours}, {"spec": now})) or self._kind.version
        return Foreign(who=latest_of(writers), what=what, template=template)

    def _is_extended(self, found: Object, saved: Object) -> bool:
        """Whether only the resource's operator changed it since our latest write, and none of the fields that we wrote.

        The operator is who writes the resource's status.
        """
        operators = {
            m["manager"] for m in found["metadata"].get("managedFields", []) if m.get("subresource") == "status"
        }
        is_undone = saved.get("wrote") == digest(saved["version"])
        ours = {path for path, _ in leaves(saved.get("undo", {}))}
        changed = {path for path, _ in leaves(difference(saved["version"], self._version_field(found)))}
        if is_undone and changed & ours:
            return False
        above = tuple(f"f:{name}" for name in self._kind.version.split(".")[1:])
        for path in changed if is_undone else changed | ours:
            managers = {each["manager"] for each in writers_of(found, (*above, *(f"f:{name}" for name in path)))}
            if not (FIELD_MANAGER in managers if path in ours else managers and managers <= operators):
                return False
        return bool(operators)

    def _reverted(self, found: Object, saved: Object, template: str) -> Foreign:
        """Return that somebody took our latest write back: the other version is there again."""
        above = self._kind.version.split(".")
        paths = [(*above, *path) for path, _ in leaves(saved.get("undo", {}))]
        writers = [each for path in paths for each in writers_of(found, tuple(f"f:{name}" for name in path[1:]))]
        what = ", ".join(".".join(path) for path in paths) or self._kind.version
        return Foreign(who=latest_of(writers), what=f"{what}, which this rollout had written", template=template)

    def _authors(self, found: Object, baseline: Object, now: Object) -> tuple[Object, list[Object]]:
        """Return the baseline with our own changes of the field, and the writers of all other differences."""
        ours, writers = baseline, []
        above = tuple(f"f:{name}" for name in self._kind.version.split(".")[1:])
        for path, value in leaves(difference(baseline, now)):
            field = (*above, *(f"f:{name}" for name in path))
            if is_written_by_us(found, field):
                ours = merged(ours, nested(path, value))
            else:
                writers += writers_of(found, field)
        return ours, writers

    def _selector(self, target: Target) -> str:
        return self._kind.pods.format(name=target.name)

    def _revision(self, pod: Object) -> str:
        return str(pod["metadata"].get("labels", {}).get(self._kind.revision, ""))

    def _replicas(self, seen: Supervised) -> int:
        return max(self._least(seen), len(seen.pods))

    def _least(self, seen: Supervised, staying: int = 0) -> int:
        """Return how many replicas the resource requests, or had before the rollout, less those that stay."""
        written = _at(seen.found, self._kind.replicas) if self._kind.replicas else None
        written = self._kind.unset if written is None else written
        saved = _saved(seen.found)
        return int(written) if written is not None else int(saved["replicas"]) - staying if saved else len(seen.pods)

    # --- the version field -------------------------------------------------------------------------------

    def _version_field(self, found: Object) -> Object:
        """Return the field's value without its scaling fields, which others may change at any time."""
        value: Object = copy.deepcopy(_at(found, self._kind.version) or {})
        for *above, last in self._scaling:
            parent = at(value, above)
            if isinstance(parent, dict):
                parent.pop(last, None)
        return value

    @property
    def _scaling(self) -> list[tuple[str, ...]]:
        """The scaling fields, as paths below the version field."""
        inside, replicas = f"{self._kind.version}.", self._kind.replicas or ""
        paths = [*self._kind.scaling, *([replicas.removeprefix(inside)] if replicas.startswith(inside) else [])]
        return [tuple(path.split(".")) for path in paths]

    def _version(self, field: Object) -> Version:
        images = {name: c["image"] for name, c in self._containers(field).items() if "image" in c}
        return Version(template=digest(field), images=images)

    def _containers(self, field: Object) -> dict[str, Object]:
        found: dict[str, Object] = {}
        for path in self._kind.containers:
            value = _at(field, path)
            if isinstance(value, list):
                found |= {c["name"]: c for c in value if c.get("name")}
            elif value is not None:
                found[path.rpartition(".")[2]] = value
        return found

    def _changed(self, field: Object, change: Change) -> Object:
        """Return the version field with a change made: named changes by container, or a JSON merge patch."""
        if change.patch is not None:
            self._refuse_scaling(change.patch)
            patched: Object = merged(field, change.patch)
            return patched
        changed = copy.deepcopy(field)
        containers = self._containers(changed)
        named = [{**container, "name": name} for name, container in containers.items()]
        for made in apply_change({"spec": {"containers": named}}, change, "")["spec"]["containers"]:
            container = containers[made["name"]]
            container.update({k: v for k, v in made.items() if k != "name"})  # its own name may be empty, by defaulting
        return changed

    def _refuse_scaling(self, patch: Object) -> None:
        for path, _ in leaves(patch):
            for scales in self._scaling:
                if path[: len(scales)] == scales:
                    why = "scales, and is not part of a version: a rollback would not restore it"
                    fix = "change it in the resource itself, at any time"
                    raise Refused(why, field="spec.change.patch", value=".".join(scales), fix=fix)

    def _patch(self, found: Object, wanted: Object) -> Object:
        """Return the merge patch that produces the wanted field."""
        patch: Object = nested(self._kind.version.split("."), difference(self._version_field(found), wanted))
        return patch

    def _mark(self, found: Object) -> Mark:
        metadata = found["metadata"]
        return Mark(
            template=digest(self._version_field(found)), generation=metadata.get("generation", 0), uid=metadata["uid"]
        )


def _side(
    replicas: list[Replica], min_ready_s: float, restarts: int, now: float, *, short_of: int | None = None
) -> Side:
    """Count a side; with ``short_of``, fewer than so many count as proven, because the operator is not done."""
    total, proven = len(replicas), sum(r.proven(min_ready_s, restarts, now) for r in replicas)
    ready = sum(r.ready_since is not None for r in replicas)
    most = total if short_of is None else max(0, min(total, short_of) - 1)
    return Side(total=total, ready=ready, proven=min(proven, most))


def _stopped(seen: Supervised) -> list[tuple[Object, float]]:
    """Return the pods that stop or are gone, each with the time: seconds since the epoch."""
    stopping = [(pod, at) for pod in seen.ended if (at := stop_requested_at(pod)) is not None]
    return [*stopping, *((each.pod, each.at) for each in seen.gone)]


def _is_of_another_write(pod: Object, saved: Object) -> bool:
    """Whether a pod was made before this rollout's write, whatever its revision.

    KServe copies the resource's annotations to its pods. The end of a rollout removes Segue's own, so it rolls all pods
    once more: to a revision that is not known, and to no other version.
    """
    owner, ours = annotations_of(pod).get(OWNER), saved.get("owner")
    return ours is not None and (owner != ours if owner is not None else bool(saved.get("copies")))


def _images(pod: Object) -> set[str]:
    """Return the images of a pod's containers."""
    spec = pod.get("spec", {})
    return {c["image"] for kind in ("initContainers", "containers") for c in spec.get(kind, []) if c.get("image")}


def _next_generation(found: Object) -> int:
    return int(found["metadata"].get("generation", 0)) + 1


def _is_ours(found: Object, saved: Object) -> bool:
    """Whether nobody changed the resource since our latest write, which saved its generation."""
    return bool(saved.get("generation") == found["metadata"].get("generation"))


def _saved(found: Object) -> Object | None:
    """Return what the rollout saved on the resource. Returns None without it.

    Raises:
        Refused: when it is damaged.
    """
    saved = annotations_of(found).get(BASELINE)
    return read_baseline(found, saved) if saved else None


def _lost(found: Object) -> NotFound:
    """Return the error for a resource whose saved baseline somebody removed."""
    return NotFound(
        f"has no annotation {BASELINE}: somebody removed it, and only it keeps the version before the rollout",
        field=f"{str(found.get('kind', 'resource')).lower()} {found['metadata']['name']}",
        fix="put it back; or write the former version yourself, and run `segue abort`",
    )


def _status(found: Object) -> Object:
    """Return a resource's status as its operator wrote it: no schema says what is in it; empty if it is no object."""
    status = found.get("status")
    return status if isinstance(status, dict) else {}


def _observed_by(found: Object) -> int | None:
    """Return the generation that the operator has observed. Returns None if it does not write a number."""
    observed = _status(found).get("observedGeneration")
    return observed if isinstance(observed, int) else None


def _condition(found: Object, name: str) -> Object:
    """Return one condition of a resource's status; an empty one if it has none of this type."""
    conditions = _status(found).get("conditions")
    listed = conditions if isinstance(conditions, list) else []
    return next((each for each in listed if isinstance(each, dict) and each.get("type") == name), {})


def _label_selector(listed: str) -> Object:
    """Return a selector of ``name`` and ``name=value`` terms in the form that objects use."""
    terms = [term.partition("=") for term in listed.split(",")]
    exist = [{"key": name, "operator": "Exists"} for name, equal, _ in terms if not equal]
    equal = {name: value for name, equals, value in terms if equals}
    return {"matchLabels": equal, **({"matchExpressions": exist} if exist else {})}


def _at(found: Any, path: str) -> Any:
    return at(found, path.split("."))
