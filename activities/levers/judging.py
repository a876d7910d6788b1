"""Turns targets of each kind into what lint checks. Pure; each lever reads its own."""

from collections.abc import Iterable, Mapping

from activities.cluster import Object
from activities.levers.ownership import replicas_of
from activities.levers.template import stopping_of
from activities.room import demand_of
from segue.lint.target import LintSubject, PodTemplate
from segue.merging import at


def judged_deployment(found: Object, wanted: Object, old: Object, *, replicas: int, untried: str = "") -> LintSubject:
    """Return a Deployment for lint. ``old`` is the template that runs now; in a pair, that of the other Deployment."""
    pods = pod_template(("template",), (), old, wanted, namespace=_namespace(found))
    return LintSubject(
        kind="Deployment", found=found, replicas=replicas, pods=(pods,), selector=found["spec"]["selector"],
        untried=untried,
    )  # fmt: skip


def judged_set(found: Object, wanted: Object, *, untried: str = "") -> LintSubject:
    """Return a StatefulSet."""
    pods = pod_template(("template",), (), found["spec"]["template"], wanted, namespace=_namespace(found))
    selector = found["spec"]["selector"]
    return LintSubject(
        kind="StatefulSet", found=found, replicas=replicas_of(found), pods=(pods,), selector=selector, untried=untried
    )


def judged_groups(found: Object, wanted: Object, label: str) -> LintSubject:
    """Return a LeaderWorkerSet; ``label`` is the label with the set's name that its controller gives all pods."""
    name, size = found["metadata"]["name"], int(wanted["spec"].get("size", 1))
    before, labels = found["spec"]["leaderWorkerTemplate"], {label: name}

    def part(field: str, number: int, *, leads: bool) -> PodTemplate:
        path, after = ("leaderWorkerTemplate", field), wanted["spec"][field]
        return pod_template(
            path, (field,), before.get(field, after), after,
            labels=labels, namespace=_namespace(found), number=number, leads=leads,
        )  # fmt: skip

    if "leaderTemplate" not in wanted["spec"]:
        parts = [part("workerTemplate", size, leads=True)]
    else:
        parts = [part("leaderTemplate", 1, leads=True)]
        parts += [part("workerTemplate", size - 1, leads=False)] if size > 1 else []
    selector = {"matchLabels": labels}
    return LintSubject(
        kind="LeaderWorkerSet", found=found, replicas=replicas_of(found), pods=tuple(parts), selector=selector
    )


def judged_resource(
    found: Object, wanted: Object, version: tuple[str, ...], lists: Iterable[tuple[str, ...]], *,
    replicas: int, labels: Mapping[str, str], selector: Object,
) -> LintSubject:  # fmt: skip
    """Return a custom resource that an operator rolls, with the containers in its version field.

    What the operator adds to its pods, such as probes, is not in that field: no container is known to serve.
    """
    pods = []
    for path in lists:
        spec = at(wanted, path[:-1])
        if version[:1] == ("spec",) and path[-1:] == ("containers",) and isinstance(at(spec, path[-1:]), list):
            stops, where = stopping_of({"spec": {}}), (*version[1:], *path[:-1])
            part = PodTemplate(where, path[:-1], spec, labels, frozenset(), stops, stops, demand_of({}))
            pods.append(part)
    return LintSubject(kind=found["kind"], found=found, replicas=replicas, pods=tuple(pods), selector=selector)


def pod_template(
    path: tuple[str, ...], patch: tuple[str, ...], before: Object, wanted: Object, *,
    labels: Mapping[str, str] | None = None, namespace: str = "", number: int = 1, leads: bool = True,
) -> PodTemplate:  # fmt: skip
    """Return one pod template; in pods that do not lead, only containers with ports serve."""
    spec, new = wanted["spec"], stopping_of(wanted)
    all_labels = {**wanted.get("metadata", {}).get("labels", {}), **(labels or {})}
    ported = {c["name"] for c in spec.get("containers", []) if c.get("ports")}
    return PodTemplate(
        path=(*path, "spec"),
        patch=(*patch, "spec"),
        spec=spec,
        labels=all_labels,
        serving=frozenset(hook.container for hook in new.hooks if leads or hook.container in ported),
        old=stopping_of(before),
        new=new,
        demand=demand_of(spec, all_labels, namespace),
        number=number,
        old_class=before["spec"].get("priorityClassName", ""),
        old_tolerations=tuple(before["spec"].get("tolerations", ())),
    )


def _namespace(found: Object) -> str:
    return str(found["metadata"].get("namespace", ""))
