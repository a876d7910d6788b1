"""The lever of a StatefulSet: its partition. See ``partition`` for what all numbered targets share.

The controller replaces one replica at a time, unless the cluster's feature gate ``MaxUnavailableStatefulSet`` is on:
then ``maxUnavailable`` at a time. Without the gate the API server drops that field, so it can always be written.
Tried on Kubernetes 1.36; the controller's order is that of ``pkg/controller/statefulset/stateful_set_control.go``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from activities.cluster import Object
from activities.ended_pods import Gone
from activities.levers.authors import Fields
from activities.levers.controllers import is_observed
from activities.levers.judging import judged_set
from activities.levers.numbered.ordinals import (
    Numbered,
    comes_back_as,
    ended_by_version,
    removed_by_version,
)
from activities.levers.numbered.partition import PartitionLever
from activities.levers.ownership import remembered, replicas_of, selector_of
from activities.levers.pods import is_active, read_replica
from activities.levers.template import apply_change, containers_of, fingerprint, refuse_patch_elsewhere, version_of
from activities.watching import NamespaceWatch, controller_uid
from segue.budget import resolve_budget
from segue.lint.target import LintSubject
from segue.observation import Version
from segue.replica import Replica
from segue.spec import Change, Rules
from segue.units import resolve

REVISION_LABEL = "controller-revision-hash"
_UNBOUND = re.compile(
    r"0/(\d+) nodes are available: (?:pod has unbound immediate PersistentVolumeClaims|persistentvolumeclaim \""
    r"|\1 node\(s\) didn't find available persistent volumes to bind)"
)
"""What the scheduler says if it waits for volume claims, and for nothing else (``plugins/volumebinding``)."""
_ROLLING = ("f:updateStrategy", "f:rollingUpdate")
_REPLACE = {"$patch": "replace"}


class StatefulSetLever(PartitionLever):
    """Holds a StatefulSet at exactly (old, new) by its partition."""

    plural = "statefulsets"
    kinds: tuple[str, ...] = ("statefulsets", "controllerrevisions", "pods")
    fields: ClassVar[Fields] = {
        "type": ("f:updateStrategy", "f:type"),
        "partition": (*_ROLLING, "f:partition"),
        "maxUnavailable": (*_ROLLING, "f:maxUnavailable"),
    }
    template_path = "f:template"

    def numbered(
        self, found: Object, revisions: list[Object], pods: Iterable[Object], sets: Iterable[Object] = (),
        gone: Iterable[Gone] = (),
    ) -> Numbered:  # fmt: skip
        """Return the replica of each number."""
        found = remembered(found, revisions)
        templates = {each["metadata"]["name"]: _template_of(each) for each in revisions}
        versions = {name: fingerprint(template) for name, template in templates.items()}
        if is_observed(found):
            # A newer API server may have set defaults in the template that the kept revision does not have.
            versions[found["status"].get("updateRevision", "")] = fingerprint(found["spec"]["template"])
        first = found["spec"].get("ordinals", {}).get("start", 0)
        own = [pod for pod in pods if controller_uid(pod) == found["metadata"]["uid"]]
        removed = [each for each in gone if controller_uid(each.pod) == found["metadata"]["uid"]]
        awaited = {int(pod["metadata"]["name"].rpartition("-")[2]) - first: pod for pod in own if is_active(pod)}
        return Numbered(
            found=found,
            template=self.template_of(found),
            partition=_rolling(found).get("partition", 0),
            running={i: _replica(pod, found, versions, templates) for i, pod in awaited.items()},
            awaited=awaited,
            pods=own,
            trusted=0,
            heeded=is_observed(found),
            revisions=revisions,
            templates=templates,
            token=_token(found),
            in_order=found["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady",
            at_most=_at_most(found),
            below=versions.get(found.get("status", {}).get("currentRevision", ""), ""),
            rolls=self.own(found).get("type") != "OnDelete",
            ended=ended_by_version(own, removed, lambda pod: _version(pod, versions)),
            removed=removed_by_version(removed, lambda pod: _version(pod, versions)),
        )

    def selector(self, found: Object) -> str:
        """Return the StatefulSet's label selector."""
        return selector_of(found)

    def watched(self, watch: NamespaceWatch, found: Object) -> tuple[list[Object], list[Gone]]:
        """Return the pods that the StatefulSet owns."""
        uid = {found["metadata"]["uid"]}
        return watch.owned("pods", uid), watch.gone_owned(uid)

    def missing(self, numbered: Numbered) -> Mapping[str, int]:
        """Return the names of the missing numbers."""
        spec, name = numbered.found["spec"], numbered.found["metadata"]["name"]
        first, there = spec.get("ordinals", {}).get("start", 0), {pod["metadata"]["name"] for pod in numbered.pods}
        names = {f"{name}-{first + number}": number for number in range(replicas_of(numbered.found))}
        return {name: number for name, number in names.items() if name not in there}

    def owns(self, numbered: Numbered, pod: Object) -> bool:
        """Whether the StatefulSet is the pod's controller."""
        return controller_uid(pod) == str(numbered.found["metadata"]["uid"])

    def template_of(self, found: Object) -> Object:
        """Return the pod template."""
        template: Object = found["spec"]["template"]
        return template

    def pod_templates(self, template: Object) -> list[Object]:
        """Return the only pod template."""
        return [template]

    def version(self, template: Object) -> Version:
        """Return the version of a template."""
        return version_of(template)

    def changed(self, start: Object, found: Object, change: Change) -> Object:
        """Return the wanted template as a patch: the whole of it, or the spec's own strategic-merge patch."""
        if change.patch is None:
            return self.replaced(apply_change(start, change, found["metadata"]["uid"]), found)
        refuse_patch_elsewhere(start, found["spec"]["template"])
        return {"template": change.patch}

    def replaced(self, template: Object, found: Object) -> Object:
        """Return the patch that replaces the whole template."""
        return {"template": {**template, **_REPLACE}}

    def template_with(self, found: Object, fields: Object) -> Object:
        """Return the whole template of these fields."""
        return {name: value for name, value in fields["template"].items() if name not in _REPLACE}

    def judged_as(self, found: Object, wanted: Object, untried: str) -> LintSubject:
        """Return the StatefulSet with its pod template."""
        return judged_set(found, wanted, untried=untried)

    def holding(self, partition: int, rules: Rules, replicas: int) -> Object:
        """Return a rolling update from this number on, as many at a time as the budget allows.

        A percentage is written as such: its controller resolves it as the budget does, also after a change of R.
        """
        written, number = rules.strategy.max_unavailable, resolve_budget(rules.strategy, max(replicas, 1)).unavailable
        follows = isinstance(written, str) and 0 < resolve(written, 100, round_up=False) <= 100
        unavailable = written if follows else number
        rolling = {"partition": partition, "maxUnavailable": unavailable}
        return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}

    def own(self, found: Object) -> Object:
        """Return the update strategy."""
        strategy: Object = found["spec"].get("updateStrategy", {})
        return strategy

    def restored(self, saved: Object) -> Object:
        """Return the patch that replaces the whole update strategy."""
        return {"updateStrategy": {**saved, **_REPLACE}}

    async def at_once(self, found: Object, tried: Object) -> int | str:
        """Return the field in the API server's answer: without the feature gate the API server drops it."""
        amount: int | str = _rolling(tried).get("maxUnavailable", 1)
        return amount

    def warnings(self, numbered: Numbered) -> list[str]:
        """Return what changes during the rollout, and which version lost replicas get."""
        on_delete = "updateStrategy OnDelete becomes RollingUpdate during the rollout, and is restored at its end"
        lost = comes_back_as(numbered, self.version)
        return [*([] if numbered.rolls else [on_delete]), *([lost] if lost else [])]


def _replica(pod: Object, found: Object, versions: dict[str, str], templates: dict[str, Object]) -> Replica:
    """Return a pod as a replica: with the volume claims of its number, if only these keep it from a node.

    They are no part of a version: a replica of any version under this number waits for them.
    """
    replica = read_replica(pod, _version(pod, versions), containers_of(templates.get(_revision(pod), {})))
    names = [each["metadata"]["name"] for each in found["spec"].get("volumeClaimTemplates", ())]
    volumes = templates.get(_revision(pod), {}).get("spec", {}).get("volumes", ())
    others = [each for each in volumes if "persistentVolumeClaim" in each and each["name"] not in names]
    if not names or others or not _UNBOUND.match(replica.unschedulable):
        return replica
    claims = tuple(f"{name}-{replica.name}" for name in names)
    return replica._replace(claims=claims, unschedulable="", unplaced_since=None)


def _rolling(found: Object) -> Object:
    rolling: Object = found["spec"].get("updateStrategy", {}).get("rollingUpdate", {})
    return rolling


def _at_most(found: Object) -> int | None:
    """Return how many replicas may be unready while others are replaced. Returns None without the feature gate."""
    amount = _rolling(found).get("maxUnavailable")
    return None if amount is None else max(resolve(amount, replicas_of(found), round_up=False), 1)


def _token(found: Object) -> str:
    rolling, kind = _rolling(found), found["spec"].get("updateStrategy", {}).get("type")
    return f"type={kind} partition={rolling.get('partition', 0)} maxUnavailable={rolling.get('maxUnavailable')}"


def _template_of(revision: Object) -> Object:
    template: dict[str, Any] = dict(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def _version(pod: Object, versions: dict[str, str]) -> str:
    return versions.get(_revision(pod), _revision(pod))


def _revision(pod: Object) -> str:
    revision: str = pod["metadata"].get("labels", {}).get(REVISION_LABEL, "")
    return revision
