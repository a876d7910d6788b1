"""The lever of a LeaderWorkerSet: groups of pods, each a replica that is ready as a whole.

With waypoints its partition holds it, like a StatefulSet. Surge groups would come up new whatever the partition, so
there are none. Without waypoints its own controller rolls by itself, with the budget of the spec; ``segue.groups``
gives the stages. Its status is wrong while it is held, so only pods count. Tried with v0.9.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

from activities.cluster import Object
from activities.ended_pods import Gone
from activities.levers.authors import Fields
from activities.levers.configs import owned_by
from activities.levers.controllers import is_observed
from activities.levers.judging import judged_groups
from activities.levers.numbered.ordinals import (
    HOLD,
    Numbered,
    comes_back_as,
    ended_by_version,
    removed_by_version,
)
from activities.levers.numbered.partition import PartitionLever
from activities.levers.ownership import replicas_of
from activities.levers.pods import is_active, made_at, read_replica
from activities.levers.template import (
    BY_CONTAINER,
    apply_change,
    containers_of,
    fingerprint,
    refuse_unknown_containers,
    version_of,
)
from activities.watching import NamespaceWatch, controller_uid
from segue.budget import resolve_budget
from segue.errors import NotFound, Refused
from segue.lint.target import LintSubject
from segue.merging import difference, merged
from segue.observation import Version
from segue.replica import Replica, lost_since
from segue.spec import Change, Rules, Target
from segue.units import resolve

NAME, GROUP, WORKER, REVISION, SIZE = (
    f"leaderworkerset.sigs.k8s.io/{each}"
    for each in ("name", "group-index", "worker-index", "template-revision-hash", "size")
)
KEPT = "segue.dev/revision-of"
"""The label of a kept revision: the LeaderWorkerSet's name. It lacks the controller's label, so that the controller
does not delete it."""
HISTORY = 10
"""How many revisions are kept: as many as a StatefulSet keeps."""
COLLECTED_S = 15.0
"""The garbage collector deletes the workers of a lost leader sooner, unless it does not work."""
_ROLLING = ("f:rolloutStrategy", "f:rollingUpdateConfiguration")


class LeaderWorkerSetLever(PartitionLever):
    """Holds a LeaderWorkerSet at exactly (old, new) groups, or lets its controller roll it within the budget."""

    plural = "leaderworkersets.leaderworkerset.x-k8s.io/v1"
    kinds: tuple[str, ...] = (plural, "controllerrevisions", "pods", "statefulsets")
    fields: ClassVar[Fields] = {
        "partition": (*_ROLLING, "f:partition"),
        "maxSurge": (*_ROLLING, "f:maxSurge"),
        "maxUnavailable": (*_ROLLING, "f:maxUnavailable"),
    }
    template_path = "f:leaderWorkerTemplate"
    forgets = True

    def autonomous(self, rules: Rules) -> bool:
        """Whether its own controller moves: without waypoints nothing has to hold it."""
        return not rules.strategy.waypoints

    def own_unavailable(self, found: Object) -> int | None:
        """Return how many groups its controller lets be unavailable."""
        rolling = found["spec"].get("rolloutStrategy", {}).get("rollingUpdateConfiguration", {})
        return resolve(rolling.get("maxUnavailable", 1), found["spec"].get("replicas", 1), round_up=False)

    def numbered(
        self, found: Object, revisions: list[Object], pods: Iterable[Object], sets: Iterable[Object] = (),
        gone: Iterable[Gone] = (),
    ) -> Numbered:  # fmt: skip
        """Return the replica of each group; of the StatefulSets it reads only the leaders'."""
        of_leaders = [each for each in revisions if controller_uid(each) != found["metadata"]["uid"]]
        # Its controller can give a new revision the number of one that it deleted, and Segue kept: its own come first.
        own_revisions = [each for each in revisions if controller_uid(each) == found["metadata"]["uid"]]
        revisions = sorted(own_revisions, key=_is_kept)
        templates = {each["metadata"]["name"]: _template_of(each) for each in revisions}
        versions = {each["metadata"]["labels"].get(REVISION, ""): each["metadata"]["name"] for each in revisions}
        # A copy for debugging can have the labels of the pod that it was made from, but no controller.
        own = [pod for pod in pods if _label(pod, NAME) == found["metadata"]["name"] and controller_uid(pod)]
        groups: dict[int, list[Object]] = defaultdict(list)
        for pod in filter(is_active, own):
            groups[_number(pod)].append(pod)
        leaders = {i: pod for i, each in groups.items() for pod in each if pod["metadata"]["labels"].get(WORKER) == "0"}
        fingerprints = {key: fingerprint(templates[name]) for key, name in versions.items()}
        if is_observed(found) and revisions:
            # Its controller writes some values in its own form.
            newest = max(revisions, key=lambda each: int(each["revision"]))
            fingerprints[newest["metadata"]["labels"].get(REVISION, "")] = fingerprint(self.template_of(found))
        containers = {key: containers_of(templates[name]) for key, name in versions.items()}
        rolling = found["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
        removed = [each for each in gone if _label(each.pod, NAME) == found["metadata"]["name"]]
        all_leaders = [pod for pod in own if pod["metadata"]["labels"].get(WORKER) == "0"]
        return Numbered(
            found=found,
            template=self.template_of(found),
            partition=rolling.get("partition", 0),
            running={i: _group(leaders[i], groups[i], fingerprints, containers) for i in leaders},
            awaited=leaders,
            pods=all_leaders,
            trusted=sum(not is_active(pod) for pod in all_leaders),
            heeded=is_observed(found) and _has_partition(_leaders_of(found, sets), rolling.get("partition", 0)),
            revisions=revisions,
            templates=templates,
            below=_below(_leaders_of(found, sets), of_leaders, fingerprints),
            token=" ".join(f"{name}={rolling.get(name)}" for name in self.fields),
            ended=ended_by_version(
                own, removed, lambda pod: fingerprints.get(_label(pod, REVISION), ""), recreates=True
            ),
            removed=removed_by_version(removed, lambda pod: fingerprints.get(_label(pod, REVISION), "")),
            controlled=tuple(each for each in sets if controller_uid(each) == found["metadata"]["uid"]),
        )

    async def _sets(self, target: Target) -> list[Object]:
        """Return the leaders' StatefulSet, which has the target's name."""
        try:
            return [await self._cluster.get("statefulsets", target.namespace, target.name)]
        except NotFound:
            return []

    async def keep(self, numbered: Numbered, notes: Mapping[str, str | None], *, dry_run: bool = False) -> int:
        """Keep a copy of the newest revision. Once every group runs a version, the controller deletes all others."""
        found, newest, namespace = numbered.found, numbered.newest, numbered.found["metadata"]["namespace"]
        if newest is None or not is_observed(found):
            return 0
        copy = _copied(newest, notes, found)
        made = await self._cluster.create_absent("controllerrevisions", namespace, copy, dry_run=dry_run)
        if dry_run or made is None:
            return 0
        kept = sorted((r for r in numbered.revisions if _is_kept(r)), key=lambda each: int(each["revision"]))
        for each in kept[: max(0, len(kept) + 1 - HISTORY)]:
            await self._cluster.delete("controllerrevisions", namespace, each["metadata"]["name"])
        return 1

    def selector(self, found: Object) -> str:
        """Return the label that its controller gives all pods of its groups."""
        return f"{NAME}={found['metadata']['name']}"

    def watched(self, watch: NamespaceWatch, found: Object) -> tuple[list[Object], list[Gone]]:
        """Return the pods of all groups: leaders and workers have different owners, and the same label."""
        selector = self.selector(found)
        return watch.labelled("pods", selector), watch.gone_labelled(selector)

    def missing(self, numbered: Numbered) -> Mapping[str, int]:
        """Return the names of missing leaders, and of the workers of groups that lack some."""
        name, there = numbered.found["metadata"]["name"], {pod["metadata"]["name"] for pod in numbered.pods}
        leaders = {f"{name}-{group}": group for group in range(replicas_of(numbered.found))}
        lacking = {group: each.name for group, each in numbered.running.items() if each.lacks}
        workers = range(1, int(numbered.found["spec"]["leaderWorkerTemplate"].get("size", 1)))
        return {leader: group for leader, group in leaders.items() if leader not in there} | {
            f"{leader}-{worker}": group for group, leader in lacking.items() for worker in workers
        }

    def owns(self, numbered: Numbered, pod: Object) -> bool:
        """Whether the pod has a controller and the label of its groups."""
        return controller_uid(pod) is not None and _label(pod, NAME) == numbered.found["metadata"]["name"]

    def is_left(self, numbered: Numbered, pod: Object, now: float) -> bool:
        """Whether it is a worker of a leader that was lost some time ago: the garbage collector is late."""
        leader = numbered.awaited.get(_number(pod))
        if leader is None or "deletionTimestamp" in pod["metadata"]:
            return False
        return made_at(pod) < made_at(leader) and now > made_at(leader) + COLLECTED_S

    def template_of(self, found: Object) -> Object:
        """Return a group's template, as the spec of a template."""
        return {"spec": _written_out(found["spec"]["leaderWorkerTemplate"])}

    def pod_templates(self, template: Object) -> list[Object]:
        """Return the pod templates of the leader and of the workers; they can be the same."""
        spec = template["spec"]
        return [spec[name] for name in ("leaderTemplate", "workerTemplate") if name in spec]

    def version(self, template: Object) -> Version:
        """Return the version with the images of leader and workers; of equal container names, the leader's counts."""
        images: dict[str, str] = {}
        more: dict[str, str] = {}
        for each in map(version_of, self.pod_templates(template)):
            named = each.images.items()
            images |= {name: image for name, image in named if name not in images}
            more |= {f"workers' {name}": image for name, image in named if images[name] != image} | each.more_images
        return Version(template=fingerprint(template), images=images, more_images=more)

    def changed(self, start: Object, found: Object, change: Change) -> Object:
        """Return the wanted template: named changes in every container of that name, or a JSON merge patch."""
        for field in ("config_maps", "secrets"):
            if getattr(change, field):
                name = Change.model_fields[field].alias or field
                raise Refused("is not for a LeaderWorkerSet", field=f"spec.change.{name}", fix="use a patch")
        if change.patch is not None:
            return self.replaced({"spec": merged(start["spec"], change.patch)}, found)
        templates = {name: each for name, each in start["spec"].items() if name in {"leaderTemplate", "workerTemplate"}}
        known = {name: _containers(each) for name, each in templates.items()}
        refuse_unknown_containers(change, set().union(*known.values()))
        uid = found["metadata"]["uid"]
        wanted = {name: apply_change(each, _only(change, known[name]), uid) for name, each in templates.items()}
        return self.replaced({"spec": {**start["spec"], **wanted}}, found)

    def replaced(self, template: Object, found: Object) -> Object:
        """Return the merge patch that produces the wanted template."""
        return {"leaderWorkerTemplate": difference(found["spec"]["leaderWorkerTemplate"], template["spec"])}

    def template_with(self, found: Object, fields: Object) -> Object:
        """Return the template with these fields merged."""
        return self.template_of({**found, "spec": merged(found["spec"], fields)})

    def judged_as(self, found: Object, wanted: Object, untried: str) -> LintSubject:
        """Return the LeaderWorkerSet with the templates of leader and workers."""
        return judged_groups(found, wanted, NAME)

    def holding(self, partition: int, rules: Rules, replicas: int) -> Object:
        """Return a rolling update from this group on, with surge groups only if the controller moves by itself.

        A percentage is written as such: its controller resolves it as the budget does, also after a change of R. Its
        webhook refuses 0 for both fields.
        """
        strategy, budget = rules.strategy, resolve_budget(rules.strategy, max(replicas, 1))
        surge = _followed(strategy.max_surge, budget.surge, replicas, round_up=True) if self.autonomous(rules) else 0
        unavailable = _followed(strategy.max_unavailable, budget.unavailable, replicas, round_up=False)
        rolling = {"partition": partition, "maxSurge": surge, "maxUnavailable": unavailable}
        return {"rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": rolling}}

    def pinning(self, rules: Rules, replicas: int, back: Object) -> Object:
        """Return the partition only, without the baseline's template.

        With the template its controller would also count groups with stopping leaders as serving it, and would remove
        the surge groups too early.
        """
        return {"rolloutStrategy": {"rollingUpdateConfiguration": {"partition": HOLD}}}

    def own(self, found: Object) -> Object:
        """Return the rollout strategy."""
        strategy: Object = found["spec"]["rolloutStrategy"]
        return strategy

    def restored(self, saved: Object) -> Object:
        """Return the rollout strategy, of which its controller has set every field."""
        return {"rolloutStrategy": saved}

    async def at_once(self, found: Object, tried: Object) -> int | str:
        """Return how many leaders are replaced at a time. Without the feature gate the API server drops the field."""
        metadata = found["metadata"]
        leaders = await self._cluster.get("statefulsets", metadata["namespace"], metadata["name"])
        if "maxUnavailable" not in leaders["spec"].get("updateStrategy", {}).get("rollingUpdate", {}):
            return 1
        rolling = tried["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
        amount: int | str = rolling["maxUnavailable"]
        return max(resolve(amount, found["spec"].get("replicas", 1), round_up=False), 1)

    def warnings(self, numbered: Numbered) -> list[str]:
        """Return in which version lost groups come back, if that is an older one."""
        return [lost] if (lost := comes_back_as(numbered, self.version)) else []


def _followed(written: int | str, number: int, replicas: int, *, round_up: bool) -> int | str:
    """Return an amount as the spec gives it if its controller resolves it to this number now; else the number."""
    return written if resolve(written, replicas, round_up=round_up) == number else number


def _leaders_of(found: Object, sets: Iterable[Object]) -> Object | None:
    """Return the leaders' StatefulSet. Returns None if its controller has not created it yet."""
    return next((each for each in sets if controller_uid(each) == found["metadata"]["uid"]), None)


def _below(leaders: Object | None, revisions: Iterable[Object], versions: Mapping[str, str]) -> str:
    """Return the version in which a lost leader below the partition comes back; empty if that is not known.

    ``revisions`` are those of the leaders' StatefulSet: the template of each names the group's version.
    """
    current = (leaders or {}).get("status", {}).get("currentRevision")
    templates = (each["data"]["spec"]["template"] for each in revisions if each["metadata"]["name"] == current)
    template: Object = next(templates, {})
    key = template.get("metadata", {}).get("labels", {}).get(REVISION, "")
    return versions.get(key, key)


def _has_partition(leaders: Object | None, partition: int) -> bool:
    """Whether the leaders' StatefulSet has the partition, and its controller has observed it."""
    if leaders is None:
        return False
    current: int = leaders["spec"]["updateStrategy"]["rollingUpdate"].get("partition", 0)
    return current >= partition and is_observed(leaders)


def _size(leader: Object, workers: Iterable[Object]) -> int:
    """Return how many pods a group has; a change of ``size`` does not change a group that exists.

    Its workers have the number as an annotation. If there are none, the leader's counts: after the loss of a group, the
    controller creates the workers by the present ``size``, even if the leader came back in an earlier version.
    """
    sizes = (each["metadata"].get("annotations", {}).get(SIZE) for each in (*workers, leader))
    return int(next((each for each in sizes if each), 1))


def _group(
    leader: Object, pods: list[Object], versions: dict[str, str], containers: Mapping[str, Collection[str]]
) -> Replica:
    """Return a group as one replica, which is ready when all its pods exist and are ready.

    Workers that are older than their leader are those of a lost one: the garbage collector deletes them.
    """
    pods = [pod for pod in pods if made_at(pod) >= made_at(leader)]
    size = _size(leader, (pod for pod in pods if pod is not leader))
    key = leader["metadata"]["labels"].get(REVISION, "")
    version = versions.get(key, key)
    own = containers.get(key, ())
    parts = [read_replica(pod, version, own) for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))]
    head = next(part for part in parts if part.name == leader["metadata"]["name"])
    times = [part.ready_since for part in parts]
    is_mixed = any(pod["metadata"]["labels"].get(REVISION, "") != key for pod in pods)
    whole = len(parts) >= size and not is_mixed
    return Replica(
        name=leader["metadata"]["name"],
        version=version,
        ready_since=max(t for t in times if t is not None) if whole and None not in times else None,
        unschedulable=next((part.unschedulable for part in parts if part.unschedulable), ""),
        unready=next(
            (part.unready for part in parts if part.unready), _lacking(leader, parts, size, is_mixed=is_mixed)
        ),
        unready_since=lost_since(parts) or None,
        containers=tuple(
            each if part is head else each._replace(pod=part.name) for part in parts for each in part.containers
        ),
        uid=head.uid,
        address=head.address,
        ports=head.ports,
        started_at=head.started_at,
        gates=next((part.gates for part in parts if part.gates), ()),
        node=next((part.node for part in parts if part.is_lost or part.unstarted_since is not None), head.node),
        more_nodes=tuple(part.node for part in parts if part.ready_since is None and part.node),
        unstarted_since=next((part.unstarted_since for part in parts if part.unstarted_since is not None), None),
        is_lost=any(part.is_lost for part in parts),
        lacks=max(0, size - len(parts)),
        placed_late_at=max(part.placed_late_at for part in parts),
    )


def _lacking(leader: Object, parts: list[Replica], size: int, *, is_mixed: bool) -> str:
    """Return why a group is not whole although its pods are ready; empty if it is."""
    if len(parts) < size:
        return f"only {len(parts)} of the {size} pods of its group exist"
    if not is_mixed:
        return ""
    name = leader["metadata"]["name"]
    return f"its workers are of another version: if that stays so, delete StatefulSet {name} and then pod {name}"


def _label(pod: Object, name: str) -> str:
    return str(pod["metadata"].get("labels", {}).get(name, ""))


def _number(pod: Object) -> int:
    """Return the number of a pod's group; -1 if somebody changed that label to something else."""
    number = _label(pod, GROUP)
    return int(number) if number.isdecimal() else -1


def _is_kept(revision: Object) -> bool:
    return KEPT in revision["metadata"].get("labels", {})


def _copied(revision: Object, notes: Mapping[str, str | None], found: Object) -> Object:
    """Return a copy of a revision, with its notes."""
    metadata = revision["metadata"]
    copy = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": metadata["name"].removesuffix("-kept") + "-kept",
            "labels": {KEPT: found["metadata"]["name"], REVISION: metadata["labels"].get(REVISION, "")},
            "annotations": {name: value for name, value in notes.items() if value is not None},
        },
        "revision": revision["revision"],
        "data": revision["data"],
    }
    return owned_by(copy, found, controlled=True)


def _template_of(revision: Object) -> Object:
    spec = revision["data"]["spec"]["leaderWorkerTemplate"]
    return {"spec": _written_out({name: value for name, value in spec.items() if name != "$patch"})}


def _written_out(spec: Object) -> Object:
    """Return a group's template with the defaults that its controller writes."""
    pods = ("leaderTemplate", "workerTemplate")
    return {name: _pod_written_out(value) if name in pods else value for name, value in spec.items()}


def _pod_written_out(template: Object) -> Object:
    metadata = {name: value for name, value in template.get("metadata", {}).items() if name != "creationTimestamp"}
    spec = template["spec"]
    containers = {
        kind: [{**container, "resources": container.get("resources", {})} for container in spec[kind]]
        for kind in ("initContainers", "containers")
        if kind in spec
    }
    return {**template, "metadata": metadata, "spec": {**spec, **containers}}


def _containers(template: Object) -> set[str]:
    return {c["name"] for kind in ("initContainers", "containers") for c in template["spec"].get(kind, [])}


def _only(change: Change, containers: set[str]) -> Change:
    """Return a change without what it names of other containers."""
    kept = {field: {k: v for k, v in getattr(change, field).items() if k in containers} for field in BY_CONTAINER}
    return change.model_copy(update=kept)
