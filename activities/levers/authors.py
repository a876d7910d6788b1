"""Finds who else changed a target, by its ``managedFields`` and by what the rollout's latest write left. Pure."""

from activities.cluster import FIELD_MANAGER, Object
from activities.levers.admission import ADMISSION
from activities.levers.template import differences, fingerprint
from segue.observation import Foreign
from segue.state import Goal, State

_UNNAMED = "unknown"
"""The field manager that the API server records for a change that names none, such as a policy's."""

Fields = dict[str, tuple[str, ...]]
"""The parts of a token, each with the path of its field in ``managedFields``."""


def foreign_template(found: Object, template: Object, known: list[Object], path: str, state: State) -> Foreign | None:
    """Return somebody else's change of the pod template. Returns None if nobody changed it.

    ``path`` is the template's field of the spec. ``known`` are the known templates, to name what differs.
    """
    now, mark = fingerprint(template), state.mark
    if now in {mark.template, state.baseline.template if state.goal is Goal.BACK else state.wanted.template}:
        return None
    writers = writers_of(found, (path,))
    is_next = found["metadata"].get("generation", 0) == mark.generation + 1
    if state.claimed and is_next and _wrote_last(writers):
        return None  # our own write: its answer was lost, and admission changed it
    before = next((each for each in known if fingerprint(each) == mark.template), None)
    what = ", ".join(differences(before, template)) if before else "the pod template"
    return Foreign(who=latest_of(writers), what=what or "the pod template", template=now)


def _wrote_last(writers: list[Object]) -> bool:
    """Whether the latest of these writes is ours. Of two in the same second, the other one is later."""
    ours = [w.get("time", "") for w in writers if w["manager"] == FIELD_MANAGER]
    return bool(ours) and max(ours) > max(
        (w.get("time", "") for w in writers if w["manager"] != FIELD_MANAGER), default=""
    )


def foreign_fields(
    found: Object, template: str, token: str, fields: Fields, state: State, *, own: str = ""
) -> Foreign | None:
    """Return somebody else's change of the fields that hold the target: ``name=value`` words, as in the mark.

    On the way back, values from before the rollout (``own``) are no foreign change: its end restores them anyway.
    """
    mark = state.mark
    if not mark.token or mark.template != template or (state.goal is Goal.BACK and token == own):
        return None
    changed = [after for was, after in zip(mark.token.split(), token.split(), strict=True) if was != after]
    if not changed:
        return None
    paths = [fields[each.partition("=")[0]] for each in changed]
    writers, ours = writers_of(found, *paths), is_written_by_us(found, *paths)
    is_written = found["metadata"].get("generation", 0) == mark.generation
    if is_written:
        who = ADMISSION if ours or not writers else latest_of(writers)
    elif ours:
        return None  # our own write whose answer was lost
    else:
        who = latest_of(writers)
        changed = [each for each, path in zip(changed, paths, strict=True) if not is_written_by_us(found, path)]
    return Foreign(who=who, what=", ".join(changed), template=template)


def writer_of(found: Object, *paths: tuple[str, ...]) -> str | None:
    """Return who else wrote the values of these fields of the spec. Returns None if Segue did."""
    return None if is_written_by_us(found, *paths) else latest_of(writers_of(found, *paths))


def is_written_by_us(found: Object, *paths: tuple[str, ...]) -> bool:
    """Return whether Segue wrote the values of these fields of the spec.

    A manager that changes a field takes it from its other owners. One that applies the value that is there becomes one
    more owner: a GitOps tool that keeps Segue's values does so at each sync.
    """
    owners = [{writer["manager"] for writer in writers_of(found, path)} for path in paths]
    return any(owners) and all(FIELD_MANAGER in each for each in owners if each)


def later_writer_of(found: Object, path: tuple[str, ...]) -> str:
    """Return who else wrote this field of the spec, if that was after Segue's latest write; empty if nobody did."""
    writers = writers_of(found, path)
    return "" if not writers or _wrote_last(writers) else latest_of(writers)


def writers_of(found: Object, *paths: tuple[str, ...], scale: bool = False) -> list[Object]:
    """Return who wrote one of these fields of the spec, from the object's ``managedFields``.

    ``scale`` includes writes through that subresource.
    """
    through = {None, "", "scale"} if scale else {None, ""}
    entries: list[Object] = [m for m in found["metadata"].get("managedFields", []) if m.get("subresource") in through]
    return [m for m in entries if any(_owns(m, path) for path in paths)]


def _owns(entry: Object, path: tuple[str, ...]) -> bool:
    fields: Object | None = entry.get("fieldsV1", {}).get("f:spec", {})
    for step in path:
        fields = (fields or {}).get(step)
    return fields is not None


def latest_of(writers: list[Object]) -> str:
    """Return which of them, other than Segue, wrote last, and when."""
    others = [w for w in writers if w["manager"] != FIELD_MANAGER]
    if not others:
        return "somebody"
    latest = max(others, key=lambda w: w.get("time", ""))
    manager = latest["manager"] if latest["manager"] != _UNNAMED else "an admission policy, or a client without a name"
    when = f" at {latest['time']}" if latest.get("time") else ""  # none for a write through a subresource
    return f"{manager} ({latest.get('operation', 'Update')}{when})"
