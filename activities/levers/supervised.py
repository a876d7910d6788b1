"""The lever of a custom resource whose own operator rolls: write the change, watch its pods, write the old value back.

Old and new pods are told apart by the label that differs between versions: what was there before the first write runs
the baseline, what was there before a retarget's write is superseded, and what comes after is new.
"""

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from activities.cluster import FIELD_MANAGER, Cluster, Object
from activities.levers.judging import judged_resource
from activities.levers.ownership import (
    BASELINE,
    GONE,
    OWNER,
    annotations_of,
    latest_of,
    packed,
    refuse_overfull,
    unpacked,
    writers_of,
)
from activities.levers.pods import is_active, read_replica
from activities.levers.template import apply_change, differences, digest, stopping_of
from activities.watching import NamespaceWatch
from segue.contract import Prepared, PrepareInput, WriteInput, Written
from segue.errors import Conflict, Fenced, Refused
from segue.failures import diagnose, worst
from segue.history import Revision
from segue.lint.target import Judged
from segue.merging import at, difference, leaves, merged, nested
from segue.observation import Cause, Counts, Foreign, Observation, Problem, Side, Version, belonging
from segue.replica import Pods, Replica
from segue.spec import Change, Rules, Target
from segue.state import Goal, Mark, State
from segue.stopping import losses
from segue.supervision import Supervision

_ATTEMPTS = 5
_ANY_RESTARTS = 1_000_000


class Supervised(NamedTuple):
    """A resource, as the API server has it, and its pods."""

    found: Object
    pods: list[Object]


class SupervisedLever:
    """Writes one kind of custom resource, and watches what its operator makes of it."""

    def __init__(self, cluster: Cluster, kind: Supervision) -> None:
        self._cluster, self._kind = cluster, kind
        self.kinds: tuple[str, ...] = (kind.resource, "pods")

    async def history(self, target: Target) -> list[Revision]:
        """Not there: how its operator keeps versions, if at all, is its own."""
        raise Refused(
            "has no revisions that Segue knows of: its own operator keeps its versions, if anybody does",
            field="target",
            value=str(target),
            fix="look at `segue report` for what former rollouts changed, and start one with the earlier values",
        )

    async def judged(self, target: Target, change: Change | None) -> Judged:
        """Return the resource; a change is one of what it was before a rollout that holds it."""
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
        """Return what the shared watch shows; none while it is older than the latest write, or not current."""
        if not watch.current:
            return None
        found, mark = watch.get(self._kind.resource, target.name), state.mark
        if found is None or (mark.uid and found["metadata"]["uid"] != mark.uid):
            return GONE
        if found["metadata"].get("generation", 0) < mark.generation:
            return None
        pods = [pod for pod in watch.labelled("pods", self._selector(target)) if is_active(pod)]
        seen = self._read(Supervised(found, pods), rules, state, now)
        return seen.model_copy(update={"seen_since": watch.current_since})

    async def observe(self, target: Target, rules: Rules, state: State, now: float) -> Observation:
        """Read the target afresh."""
        return self._read(await self._fetch(target), rules, state, now)

    async def prepare(self, asked: PrepareInput) -> Prepared:
        """Look at the resource and let the API server try the change; nothing is written.

        Raises:
            Refused: for one that another rollout holds, or a change that does not fit it.
        """
        seen = await self._fetch(asked.target)
        saved, owner = _saved(seen.found), annotations_of(seen.found).get(OWNER, "")
        if saved and not asked.baseline and owner.rpartition("@")[0] != asked.owner.rpartition("@")[0]:
            why = f"is being rolled by {owner or 'nobody who says so'}"
            fix = "let that end, or give the target free with `segue release`"
            raise Refused(why, field="target", value=str(asked.target), fix=fix)
        start = saved["version"] if saved else self._version_field(seen.found)
        wanted = self._changed(start, asked.change)
        patch = self._patch(seen.found, wanted)
        if not saved:
            patch["metadata"] = {"annotations": self._claim(seen, self._start(seen), asked.owner)}
        tried = await self._cluster.patch(
            self._kind.resource, asked.target.namespace, asked.target.name, patch, dry_run=True
        )
        before = self._version(start)
        stops = stopping_of({"spec": seen.pods[0]["spec"]}) if seen.pods else None
        lost = losses(stops, stops, asked.rules, len(seen.pods)) if stops else ()
        return Prepared(
            baseline=asked.baseline or before,
            wanted=self._version(self._version_field(tried)),
            replicas=self._replicas(seen),
            old=len(seen.pods),
            owner=owner if saved else asked.owner,
            claimed=bool(saved),
            mark=self._mark(seen.found) if saved else Mark(template=before.template),
            warnings=(
                "the target's own operator moves, by its own budget; Segue writes, watches, and takes it back",
                *lost,
            ),
        )

    async def scale(self, asked: WriteInput, now: float) -> Written:
        """Write the wanted version; the first time, claim the resource and keep its baseline."""

        def make(seen: Supervised) -> Object | None:
            found, saved = seen.found, _saved(seen.found)
            if self._mark(found).template == asked.state.wanted.template:
                return None
            if asked.change is None:
                raise ValueError("the change is needed while the version is not written")
            start = saved or self._start(seen)
            patch = self._patch(found, self._changed(start["version"], asked.change))
            patch["metadata"] = {"annotations": self._claim(seen, start, asked.state.owner)}
            return patch

        return await self._write(asked, make)

    async def resize(self, asked: WriteInput, now: float) -> Written:
        """Not done: the number of replicas is the operator's matter."""
        raise Refused("is for its own operator to change", field="replicas", fix="change it in the resource itself")

    async def settle(self, asked: WriteInput, now: float) -> Written:
        """Not done: the operator cannot be held in between."""
        raise Refused("cannot be held in between", field="settle", fix="let it end, or abort")

    async def undo(self, asked: WriteInput, now: float) -> Written:
        """Write the baseline back; the operator goes there."""

        def make(seen: Supervised) -> Object | None:
            saved = _saved(seen.found)
            if saved is None or self._mark(seen.found).template == asked.state.baseline.template:
                return None
            patch = self._patch(seen.found, saved["version"])
            kept = {**saved, "superseded": self._superseded(seen, saved)}
            patch["metadata"] = {"annotations": {BASELINE: packed(json.dumps(kept))}}
            return patch

        return await self._write(asked, make)

    async def finish(self, asked: WriteInput, now: float) -> Written:
        """Take our annotations away."""

        def make(seen: Supervised) -> Object | None:
            return {"metadata": {"annotations": {OWNER: None, BASELINE: None}}} if _saved(seen.found) else None

        return await self._write(asked, make, finishing=True)

    async def _write(
        self, asked: WriteInput, make: Callable[[Supervised], Object | None], *, finishing: bool = False
    ) -> Written:
        """Read, check, and write with what was read as the precondition; again when it changed in between."""
        target, state = asked.target, asked.state
        for _ in range(_ATTEMPTS):
            seen = await self._fetch(target)
            owner = annotations_of(seen.found).get(OWNER)
            if finishing and owner is None:
                return Written(done=True, mark=self._mark(seen.found))  # done before, and the answer was lost
            if owner != state.owner and (state.claimed or owner is not None):
                raise Fenced(belonging(owner))
            foreign = self._foreign(seen.found, state)
            if foreign is not None and not state.overrules:
                return Written(done=False, why=str(foreign))
            patch = make(seen)
            if patch is None:
                return Written(done=True, mark=self._mark(seen.found))
            if "spec" in patch and seen.found["metadata"]["generation"] != asked.generation:
                return Written(done=False, why="the target was changed since this was decided")
            metadata = {**patch.get("metadata", {}), "resourceVersion": seen.found["metadata"]["resourceVersion"]}
            try:
                after = await self._cluster.patch(
                    self._kind.resource, target.namespace, target.name, {**patch, "metadata": metadata}
                )
            except Conflict:
                continue
            return Written(done=True, writes=1, mark=self._mark(after))
        raise Conflict(f"{target} changes faster than it can be written")

    # --- reading ----------------------------------------------------------------------------------------

    async def _fetch(self, target: Target) -> Supervised:
        pods = await self._cluster.list("pods", target.namespace, self._selector(target))
        found = await self._cluster.get(self._kind.resource, target.namespace, target.name)
        return Supervised(found, [pod for pod in pods["items"] if is_active(pod)])

    def _read(self, seen: Supervised, rules: Rules, state: State, now: float) -> Observation:
        found, back = seen.found, state.goal is Goal.BACK
        saved, mark = _saved(found), self._mark(found)
        old, new = self._sides(seen.pods, saved, undone=mark.template == state.baseline.template)
        coming, restarts = (old, _ANY_RESTARTS) if back else (new, rules.readiness.max_restarts)
        replicas = self._replicas(seen)
        written = bool(saved) and mark.template == state.wanted.template
        min_ready_s = rules.readiness.min_ready.total_seconds()
        ready_times = [r.ready_since for r in coming if r.ready_since is not None]
        unfinished = self._unfinished(found)
        judged = worst(diagnose(r, restarts) for r in coming) or unfinished
        proven = [t for t in ready_times if now >= t + min_ready_s]
        return Observation(
            replicas=replicas,
            old=_side(old, min_ready_s, _ANY_RESTARTS, now),
            new=_side(new, min_ready_s, rules.readiness.max_restarts, now, short=unfinished is not None),
            asked=Counts(0, replicas) if written and not back else Counts(replicas, 0),
            template=mark.template,
            generation=mark.generation,
            owner=annotations_of(found).get(OWNER),
            held=bool(saved) and mark.template != state.baseline.template,
            autonomous=True,
            foreign=self._foreign(found, state),
            problem=judged,
            progress_at=max(proven, default=0.0),
            next_proven_at=min((t + min_ready_s for t in ready_times if t + min_ready_s > now), default=None),
            pods=Pods(tuple(old), tuple(new)),
        )

    def _sides(self, pods: list[Object], saved: Object | None, *, undone: bool) -> tuple[list[Replica], list[Replica]]:
        """Tell old from new: forward what came after the write is new; once undone, what was there before it."""
        sides: tuple[list[Replica], list[Replica]] = [], []
        for pod in pods:
            revision = self._revision(pod)
            superseded = saved is not None and revision in saved["superseded"]
            came_after = saved is not None and revision not in saved["revisions"] and not superseded
            sides[superseded if undone else came_after].append(read_replica(pod, revision))
        return sides

    def _start(self, seen: Supervised) -> Object:
        """Return what the first write keeps for the way back."""
        return {
            "version": self._version_field(seen.found),
            "revisions": sorted({self._revision(pod) for pod in seen.pods}),
            "replicas": len(seen.pods),
        }

    def _claim(self, seen: Supervised, start: Object, owner: str) -> Object:
        """Return the annotations of a write forward: whose the resource is, and its baseline."""
        saved = packed(json.dumps({**start, "superseded": self._superseded(seen, start)}))
        refuse_overfull(seen.found, saved)
        return {OWNER: owner, BASELINE: saved}

    def _superseded(self, seen: Supervised, saved: Object) -> list[str]:
        """Return the revisions that are there and are not the baseline's, with those that were before."""
        there = {self._revision(pod) for pod in seen.pods} | set(saved.get("superseded", []))
        return sorted(there - set(saved["revisions"]))

    def _unfinished(self, found: Object) -> Problem | None:
        """Say which condition of the resource is not met yet; none when its operator says that it is done."""
        status = found.get("status", {})
        if status.get("observedGeneration", found["metadata"]["generation"]) < found["metadata"]["generation"]:
            return Problem(cause=Cause.UNREADY, message="its operator has not seen the change yet")
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        for name in self._kind.done:
            condition = conditions.get(name, {})
            if condition.get("status") != "True":
                said = condition.get("message") or condition.get("reason") or "is not met"
                return Problem(cause=Cause.UNREADY, message=f"condition {name}: {said}")
        return None

    def _foreign(self, found: Object, state: State) -> Foreign | None:
        template = self._mark(found).template
        if template in {state.mark.template, state.wanted.template, state.baseline.template} or not state.mark.template:
            return None
        saved, now = _saved(found), self._version_field(found)
        ours, writers = self._authors(found, saved["version"] if saved else {}, now)
        what = ", ".join(differences({"spec": ours}, {"spec": now})) or self._kind.version
        return Foreign(who=latest_of(writers), what=what, template=template)

    def _authors(self, found: Object, baseline: Object, now: Object) -> tuple[Object, list[Object]]:
        """Return the baseline with what we ourselves changed in the field, and who wrote what else differs from it."""
        ours, writers = baseline, []
        above = tuple(f"f:{name}" for name in self._kind.version.split(".")[1:])
        for path, value in leaves(difference(baseline, now)):
            authors = writers_of(found, (*above, *(f"f:{name}" for name in path)))
            if {author["manager"] for author in authors} == {FIELD_MANAGER}:
                ours = merged(ours, nested(path, value))
            writers += authors
        return ours, writers

    def _selector(self, target: Target) -> str:
        return self._kind.pods.format(name=target.name)

    def _revision(self, pod: Object) -> str:
        return str(pod["metadata"].get("labels", {}).get(self._kind.revision, ""))

    def _replicas(self, seen: Supervised) -> int:
        said = _at(seen.found, self._kind.replicas) if self._kind.replicas else None
        saved = _saved(seen.found)
        return int(said) if said is not None else int(saved["replicas"]) if saved else len(seen.pods)

    # --- the field that says the version -----------------------------------------------------------------

    def _version_field(self, found: Object) -> Object:
        """Return the field's value, without the replicas: their change is no other version."""
        value: Object = copy.deepcopy(_at(found, self._kind.version) or {})
        inside = f"{self._kind.version}."
        if self._kind.replicas and self._kind.replicas.startswith(inside):
            *above, last = self._kind.replicas.removeprefix(inside).split(".")
            parent = _at(value, ".".join(above)) if above else value
            (parent or {}).pop(last, None)
        return value

    def _version(self, field: Object) -> Version:
        images = {name: c["image"] for name, c in self._containers(field).items() if "image" in c}
        return Version(template=digest(field), images=images)

    def _containers(self, field: Object) -> dict[str, Object]:
        found: dict[str, Object] = {}
        for path in self._kind.containers:
            value = _at(field, path)
            if isinstance(value, list):
                found |= {c["name"]: c for c in value}
            elif value is not None:
                found[path.rpartition(".")[2]] = value
        return found

    def _changed(self, field: Object, change: Change) -> Object:
        """Return the field with a change made: named changes by container, or a JSON merge patch."""
        if change.patch is not None:
            patched: Object = merged(field, change.patch)
            return patched
        changed = copy.deepcopy(field)
        containers = self._containers(changed)
        named = [{**container, "name": name} for name, container in containers.items()]
        for made in apply_change({"spec": {"containers": named}}, change)["spec"]["containers"]:
            container = containers[made["name"]]
            container.update({k: v for k, v in made.items() if k != "name" or "name" in container})
        return changed

    def _patch(self, found: Object, wanted: Object) -> Object:
        """Return the merge patch that makes the field what is wanted."""
        patch: Object = nested(self._kind.version.split("."), difference(self._version_field(found), wanted))
        return patch

    def _mark(self, found: Object) -> Mark:
        metadata = found["metadata"]
        return Mark(
            template=digest(self._version_field(found)), generation=metadata.get("generation", 0), uid=metadata["uid"]
        )


def _side(replicas: list[Replica], min_ready_s: float, restarts: int, now: float, *, short: bool = False) -> Side:
    """Count a side. ``short``: its operator is not done, so that not all of it can be proven."""
    total, proven = len(replicas), sum(r.proven(min_ready_s, restarts, now) for r in replicas)
    ready = sum(r.ready_since is not None for r in replicas)
    return Side(total=total, ready=ready, proven=min(proven, max(total - 1, 0)) if short else proven)


def _saved(found: Object) -> Object | None:
    saved = annotations_of(found).get(BASELINE)
    return json.loads(unpacked(saved)) if saved else None


def _label_selector(listed: str) -> Object:
    """Return a selector of ``name`` and ``name=value`` terms as objects have it."""
    terms = [term.partition("=") for term in listed.split(",")]
    exist = [{"key": name, "operator": "Exists"} for name, equal, _ in terms if not equal]
    equal = {name: value for name, equals, value in terms if equals}
    return {"matchLabels": equal, **({"matchExpressions": exist} if exist else {})}


def _at(found: Any, path: str) -> Any:
    return at(found, path.split("."))
