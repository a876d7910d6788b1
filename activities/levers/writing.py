"""How every lever writes: read, check, and write with what was read as the precondition."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

from activities.cluster import Cluster, Object
from activities.levers.ownership import check_owner, checked
from activities.levers.template import differing
from segue.contract import WriteInput, Written
from segue.errors import Conflict, Stale
from segue.observation import Observation
from segue.state import Mark

_ATTEMPTS = 5
_NAMED = 5
"""So many fields are named."""

T = TypeVar("T")


def altered(before: Object, patch: Object, after: Object) -> str:
    """Name the fields of a spec that the API server made something else of than was sent; empty where none.

    A list that is merged by keys is compared only where it was sent as a whole, inside a template that is replaced.
    """
    found = differing(laid(before, patch.get("spec", {})), after, "spec")
    return ", ".join(itertools.islice(found, _NAMED))


def laid(before: Any, patch: Any) -> Any:
    """Return a value with a patch laid over it, as far as that needs no keys of lists."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    kept = before if isinstance(before, dict) else {}
    made = {name: laid(kept.get(name), value) for name, value in patch.items() if not name.startswith("$")}
    return {name: value for name, value in {**kept, **made}.items() if value is not None}


class Snapshot(NamedTuple, Generic[T]):
    """A target as it was just read: the object that is written, all that was read, and what it means."""

    found: Object
    objects: T
    seen: Observation
    held: bool


async def write(
    cluster: Cluster, kind: str, asked: WriteInput, *, read: Callable[[], Awaitable[Snapshot[T]]],
    make: Callable[[T, Observation], Object | None], mark: Callable[[Object], Mark], finishing: bool = False,
    check: Callable[[Object, Object, Object], None] | None = None,
) -> Written:  # fmt: skip
    """Write the patch that ``make`` returns for what is read; again when the target changed in between.

    ``check`` judges beforehand what the API server would store: what was read, the patch, and the dry run's answer.

    Raises:
        Refused: by ``check``.
        Fenced: when the target belongs to another now.
        Conflict: when it changes faster than it can be written.
    """
    target = asked.target
    for _ in range(_ATTEMPTS):
        found, objects, seen, held = await read()
        if finishing and seen.owner is None and not seen.held:
            return Written(done=True, mark=mark(found))  # done before, and the answer was lost
        try:
            check_owner(found, asked.state, held=held)
            patch = checked(asked, seen, make(objects, seen))
            if patch is None:
                return Written(done=True, mark=mark(found))
            patch.setdefault("metadata", {})["resourceVersion"] = found["metadata"]["resourceVersion"]
            if check is not None:
                check(found, patch, await cluster.patch(kind, target.namespace, target.name, patch, dry_run=True))
            after = await cluster.patch(kind, target.namespace, target.name, patch)
        except Conflict:
            continue
        except Stale as stale:
            return Written(done=False, why=str(stale))
        return Written(done=True, writes=1, mark=mark(after), altered=altered(found["spec"], patch, after["spec"]))
    raise Conflict(f"{target.kind} {target} changes faster than it can be written")
