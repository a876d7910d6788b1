"""How every lever writes: read, check, and write with the read version as the precondition."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

from activities.cluster import Cluster, Object
from activities.levers.ownership import (
    check_owner,
    check_same,
    checked,
    left_of_us,
    outcome_noted,
    selector_of,
    with_number,
)
from activities.levers.template import differing, fingerprint
from activities.watching import controller_uid
from segue.contract import WriteInput, Written
from segue.errors import Conflict, NotAllowed, NotFound, Refused, Stale
from segue.observation import Observation
from segue.state import Mark

_ATTEMPTS = 5
SLOW_S = 1.0
"""After a dry run that took longer, the target is read again before the write: its replicas may have changed since."""
_COPIED_S = 0.2
"""A controller that copies annotations of an older Deployment does it within so many seconds."""
_NAMED = 5
"""The most fields that a message names."""

T = TypeVar("T")


def altered(before: Object, patch: Object, after: Object) -> str:
    """Return the names of the spec's fields that admission changed; empty if none.

    A list that is merged by keys is compared only if it was sent whole, inside a template that is replaced.
    """
    found = differing(laid(before, patch.get("spec", {})), after, "spec")
    return ", ".join(itertools.islice(found, _NAMED))


def laid(before: Any, patch: Any) -> Any:
    """Return a value with a patch applied, without merging lists by keys."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    kept = before if isinstance(before, dict) else {}
    made = {name: laid(kept.get(name), value) for name, value in patch.items() if not name.startswith("$")}
    return {name: value for name, value in {**kept, **made}.items() if value is not None}


class Snapshot(NamedTuple, Generic[T]):
    """A target as just read: the object to write, all objects read, and their observation."""

    found: Object
    objects: T
    seen: Observation
    engaged: bool


async def write(
    cluster: Cluster, kind: str, request: WriteInput, *, read: Callable[[], Awaitable[Snapshot[T]]],
    make: Callable[[T, Observation], Object | None], mark: Callable[[Object], Mark], finishing: bool = False,
    check: Callable[[Object, Object, Object], None] | None = None, numbers: bool = True,
) -> Written:  # fmt: skip
    """Write the patch that ``make`` returns for the read state; retry if the target changed in between.

    With ``numbers``, it keeps the number of the write in an annotation.
    ``check`` gets the read object, the patch and the dry run's answer, before the write.

    Raises:
        Refused: by ``check``.
        Fenced: when another rollout owns the target now.
        Conflict: when the target changed during every attempt.
    """
    target, tried = request.target, None
    for _ in range(_ATTEMPTS):
        try:
            found, objects, seen, engaged = await read()
            check_same(found, request.state.mark)
            if finishing and seen.owner is None and not seen.engaged:
                return Written(done=True, mark=mark(found))  # done before, and the answer was lost
            check_owner(found, request.state, engaged=engaged)
            patch = checked(request, seen, make(objects, seen))
            if patch is None:
                return Written(done=True, mark=mark(found))
            patch = with_number(patch, found, request.state) if numbers else patch
            patch.setdefault("metadata", {})["resourceVersion"] = found["metadata"]["resourceVersion"]
            if check is not None and patch != tried:
                began, tried = time.monotonic(), patch
                check(found, patch, await cluster.patch(kind, target.namespace, target.name, patch, dry_run=True))
                if time.monotonic() - began > SLOW_S:
                    continue
            after = await cluster.patch(kind, target.namespace, target.name, patch)
        except Conflict:
            continue
        except Stale as stale:
            return Written(done=False, why=str(stale))
        return Written(done=True, writes=1, mark=mark(after), altered=altered(found["spec"], patch, after["spec"]))
    raise Conflict(f"{target.kind} {target} changes faster than it can be written")


class Cleaned(NamedTuple):
    """How often ReplicaSets were written to remove Segue's annotations, and what is left, for a person."""

    writes: int = 0
    left: str = ""

    def with_more(self, more: "Cleaned") -> "Cleaned":
        """Return both results together."""
        return Cleaned(self.writes + more.writes, "; ".join(filter(None, (self.left, more.left))))


async def note_outcomes(cluster: Cluster, replicasets: list[Object], request: WriteInput, *, cleans: bool) -> Cleaned:
    """Note the outcome on the ReplicaSets that this rollout does not keep running.

    If it ``cleans`` them too, it removes Segue's annotations: `kubectl rollout undo` would copy them back.
    """
    cleaned = Cleaned()
    for each in replicasets:
        annotations = left_of_us(each) if cleans else {}
        annotations |= outcome_noted(each, fingerprint(each["spec"]["template"]), request)
        if annotations:
            cleaned = cleaned.with_more(await annotated(cluster, "replicasets", each, annotations))
    return cleaned


async def annotated(cluster: Cluster, kind: str, revision: Object, annotations: Object) -> Cleaned:
    """Annotate a revision at the end of a rollout, which nothing that is denied holds up: it is only told.

    Its controller may write it meanwhile, or delete it (revisionHistoryLimit).
    """
    metadata = revision["metadata"]
    try:
        await cluster.patch(kind, metadata["namespace"], metadata["name"], {"metadata": {"annotations": annotations}})
    except (NotFound, Conflict):
        return Cleaned()
    except NotAllowed:
        raise
    except Refused as refused:
        return Cleaned(left=f"the history of this version stays as it is: {refused}")
    return Cleaned(1)


async def clean_revisions(cluster: Cluster, deployment: Object) -> Cleaned:
    """Remove Segue's annotations from a Deployment's ReplicaSets.

    The controller copied them there, and `kubectl rollout undo` would copy them back. A controller that observes a
    ReplicaSet without them before it observes the Deployment without them copies them again: so they are read back.
    """
    cleaned, namespace = Cleaned(), deployment["metadata"]["namespace"]
    for _ in range(_ATTEMPTS):
        await asyncio.sleep(_COPIED_S)
        left = await _copies(cluster, deployment)
        if not left or cleaned.left:
            return cleaned
        for name, annotations in left.items():
            revision = {"metadata": {"namespace": namespace, "name": name}}
            cleaned = cleaned.with_more(await annotated(cluster, "replicasets", revision, annotations))
    await asyncio.sleep(_COPIED_S)
    return Cleaned(cleaned.writes, _left(deployment, await _copies(cluster, deployment)))


def _left(deployment: Object, copies: dict[str, Object]) -> str:
    """Return which copies came back each time, and how to remove them; empty if none did."""
    if not copies:
        return ""
    names, annotations = " ".join(sorted(copies)), sorted({each for found in copies.values() for each in found})
    remove = f"kubectl annotate replicasets -n {deployment['metadata']['namespace']} {names}"
    return (
        f"somebody wrote Segue's annotations back on ReplicaSets of {deployment['metadata']['name']} each time; "
        f"`kubectl rollout undo` would copy them to it: `{' '.join((remove, *(f'{each}-' for each in annotations)))}`"
    )


async def _copies(cluster: Cluster, deployment: Object) -> dict[str, Object]:
    """Return the patches that remove the copies, by the names of the ReplicaSets that have some."""
    namespace, uid = deployment["metadata"]["namespace"], deployment["metadata"]["uid"]
    found = (await cluster.list("replicasets", namespace, selector_of(deployment)))["items"]
    left = {each["metadata"]["name"]: left_of_us(each) for each in found if controller_uid(each) == uid}
    return {name: annotations for name, annotations in left.items() if annotations}
