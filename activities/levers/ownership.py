"""Reads and makes what a rollout writes on its target: the owner, the baseline and the notes. Pure."""

import base64
import json
import zlib

from activities.cluster import Object
from segue.as_before import is_outdated
from segue.contract import PrepareInput, WriteInput, Written
from segue.errors import Fenced, NotFound, Refused, Stale
from segue.history import SUPERSEDED, Note, Revision
from segue.observation import Counts, Foreign, Observation, Side, Version, belonging
from segue.spec import Rules, Target
from segue.state import Goal, Mark, State

OWNER = "segue.dev/rollout"
BASELINE = "segue.dev/baseline"
REPLICAS = "segue.dev/replicas"
"""R of a pair, saved on the old Deployment: neither of the two requests R replicas itself."""
WRITES = "segue.dev/writes"
"""The number of the rollout's latest write: a workflow that has begun fewer was reset, or restored from a backup."""
CHANGE = "segue.dev/change"
"""The rollout's note on a revision; the controller copies it to the version's own object."""
CAUSE = "kubernetes.io/change-cause"
"""The same in one line, which ``kubectl rollout history`` shows."""
MAX_ANNOTATION_BYTES = 262_144
"""The API server's limit for all annotations of an object, names and values."""
_NOTES_BYTES = 8_192
"""Kept free for the notes on the target and on its revisions."""
_PLAIN_BYTES = 8_192
"""A baseline up to this length is saved uncompressed, so that a person can read it."""
_PACKED = "zlib:"

CHANGED = "the template was changed since this was decided"
"""Why a write without a change cannot write the template: it was there when the write was decided."""

_GONE = Observation(replicas=0, old=Side(), new=Side(), requested=Counts(0, 0), template="", gone=True)

_ORPHANS = "orphan"
"""The finalizer of a deletion that leaves what the object owns (``kubectl delete --cascade=orphan``)."""
_COPIED = "it is held as the rollout left it: run `segue release`, or start a rollout of it"


def labels_of(found: Object) -> dict[str, str]:
    """Return an object's labels."""
    labels: dict[str, str] = found["metadata"].get("labels", {})
    return labels


def annotations_of(found: Object) -> dict[str, str]:
    """Return an object's annotations."""
    annotations: dict[str, str] = found["metadata"].get("annotations", {})
    return annotations


def left_of_us(found: Object) -> dict[str, str | None]:
    """Return the patch that removes copied annotations of Segue from an object; empty if it has none."""
    return dict.fromkeys({OWNER, BASELINE, REPLICAS, WRITES} & annotations_of(found).keys())


def replicas_of(found: Object) -> int:
    """Return how many replicas a target requests."""
    return int(found["spec"].get("replicas", 1))


def selector_of(found: Object) -> str:
    """Return a target's label selector, as a list call takes it."""
    selector = found["spec"]["selector"]
    equal = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    return ",".join([*equal, *(_requirement(e) for e in selector.get("matchExpressions", []))])


def _requirement(expression: Object) -> str:
    key, values = expression["key"], ",".join(expression.get("values", []))
    forms = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}
    return str(forms[expression["operator"]])


# --- the baseline, and what a revision keeps --------------------------------------------------------------


def baseline_of(found: Object, own: Object) -> str:
    """Return the baseline as the target keeps it; ``own`` is what its kind needs to return to it.

    Raises:
        Refused: when it does not fit beside the target's other annotations.
    """
    saved = as_saved(found, own, {name: annotations_of(found).get(name) for name in (CAUSE, CHANGE)})
    refuse_overfull(found, saved)
    return saved


def as_saved(found: Object, own: Object, notes: dict[str, str | None]) -> str:
    """Return the value of a baseline's annotation, with the notes of its version."""
    return packed(json.dumps({**own, "replicas": replicas_of(found), "notes": notes}, separators=(",", ":")))


def has_baseline(found: Object) -> bool:
    """Whether an object has a saved baseline that can be read."""
    try:
        return bool(read_baseline(found, annotations_of(found).get(BASELINE, "")))
    except Refused:
        return False


def packed(baseline: str) -> str:
    """Return a baseline as an annotation keeps it; a long one is compressed."""
    if len(baseline) <= _PLAIN_BYTES:
        return baseline
    return _PACKED + base64.b64encode(zlib.compress(baseline.encode(), 9)).decode()


def unpacked(saved: str) -> str:
    """Return the baseline that an annotation keeps, compressed or not.

    Raises:
        ValueError: when it is damaged.
    """
    if not saved.startswith(_PACKED):
        return saved
    try:
        return zlib.decompress(base64.b64decode(saved.removeprefix(_PACKED))).decode()
    except zlib.error as error:
        raise ValueError("it cannot be decompressed") from error


def refuse_overfull(found: Object, saved: str) -> None:
    """Refuse a target whose annotations leave too little space for the baseline.

    Raises:
        Refused: naming how many bytes to remove.
    """
    others = sum(len((k + v).encode()) for k, v in annotations_of(found).items() if k != BASELINE)
    excess = others + len(BASELINE) + len(saved) + _NOTES_BYTES - MAX_ANNOTATION_BYTES
    if excess > 0:
        raise Refused(
            f"have {others:,} bytes, and Segue adds {len(saved):,} for the rollback; Kubernetes accepts "
            f"at most {MAX_ANNOTATION_BYTES:,}",
            field=f"annotations of {found['metadata']['name']}",
            fix=f"remove {excess:,} bytes of annotations from it, or from its pod template",
        )


def budget_as_written(rules: Rules) -> dict[str, int | str]:
    """Return the spec's budget as it is saved for a release: a percentage follows the replicas."""
    return {"maxSurge": rules.strategy.max_surge, "maxUnavailable": rules.strategy.max_unavailable}


def rebudgeted(found: Object, budget: Object) -> dict[str, str | None]:
    """Return the annotation that saves the budget of a retarget; empty if it is saved already."""
    if BASELINE not in annotations_of(found) or saved_baseline(found)["budget"] == budget:
        return {}
    return {BASELINE: packed(json.dumps({**saved_baseline(found), "budget": budget}, separators=(",", ":")))}


def saved_baseline(found: Object) -> Object:
    """Return the baseline that was saved on the target.

    Raises:
        NotFound: when the target has none.
        Refused: when it is damaged.
    """
    saved = annotations_of(found).get(BASELINE)
    if not saved:
        kind = str(found.get("kind", "target")).lower()
        raise NotFound(
            "has no saved baseline", field=f"{kind} {found['metadata']['name']}", fix="use `kubectl rollout undo`"
        )
    return read_baseline(found, saved)


def read_baseline(found: Object, saved: str) -> Object:
    """Return the baseline that an annotation of the target keeps.

    Raises:
        Refused: when it is damaged.
    """
    try:
        baseline = json.loads(unpacked(saved))
    except ValueError as error:
        raise damaged(found) from error
    if not isinstance(baseline, dict) or not baseline:
        raise damaged(found)
    return baseline


def unsaved(found: Object, state: State) -> Foreign | None:
    """Return that somebody removed the saved baseline of a target that the rollout owns. Returns None otherwise."""
    annotations = annotations_of(found)
    if not state.claimed or annotations.get(OWNER) != state.owner or BASELINE in annotations:
        return None
    return Foreign(
        who="somebody",
        what=f"the annotation {BASELINE}: it is gone, and Segue cannot roll back without it; put it back, or write the "
        "former version yourself and run `segue abort`",
    )


def with_number(patch: Object, found: Object, state: State) -> Object:
    """Return the patch with the number of the write, if the rollout owns the object after it; without it if not."""
    annotations = {**patch.get("metadata", {}).get("annotations", {})}
    owner = annotations.get(OWNER, annotations_of(found).get(OWNER))
    if owner == state.owner and state.attempts:
        annotations[WRITES] = str(state.attempts)
    elif owner is None and WRITES in annotations_of(found):
        annotations[WRITES] = None
    return {**patch, "metadata": {**patch.get("metadata", {}), "annotations": annotations}} if annotations else patch


def written_of(found: Object) -> int:
    """Return the number of a rollout's latest write on its target; 0 if it has none."""
    text = annotations_of(found).get(WRITES, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def rewound(found: Object, written: int, template: str, state: State) -> Foreign | None:
    """Return that the rollout itself wrote the target later than its state knows. Returns None if it did not.

    ``written`` is the number of the latest write, and ``template`` the fingerprint of the present pod template.
    """
    if annotations_of(found).get(OWNER) != state.owner or written <= state.attempts:
        return None
    return Foreign(
        who="this rollout itself",
        what="the target later than its workflow knows: it was reset, or Temporal was restored from a backup. What "
        "people requested since then is lost; go back with `segue abort`, or continue with `segue retarget`",
        template=template,
        attempts=written,
    )


def remembered(found: Object, revisions: list[Object]) -> Object:
    """Return the target with its saved baseline, if somebody removed only that: its newest revision has a copy."""
    annotations = annotations_of(found)
    if OWNER not in annotations or BASELINE in annotations or not (saved := copy_of_baseline(revisions)):
        return found
    return {**found, "metadata": {**found["metadata"], "annotations": {**annotations, BASELINE: saved}}}


def copy_of_baseline(revisions: list[Object]) -> str:
    """Return the baseline that a controller copied to the newest revision that has one; empty if none has."""
    copies = [each for each in revisions if BASELINE in annotations_of(each)]
    newest = max(copies, key=lambda each: int(each["revision"]), default=None)
    return annotations_of(newest)[BASELINE] if newest is not None else ""


REBUILT_FIX = "run `segue abort`, or without a rollout `segue release`: they find the former version by its ReplicaSet"
"""What to do about a damaged baseline of a Deployment."""


def damaged(found: Object) -> Refused:
    """Return the refusal of a target whose saved baseline somebody changed."""
    return Refused(
        f"has an annotation {BASELINE} that cannot be read: somebody changed it",
        field=f"{str(found.get('kind', 'target')).lower()} {found['metadata']['name']}",
        fix=REBUILT_FIX
        if found.get("kind") == "Deployment" and REPLICAS not in annotations_of(found)
        else f"restore its former value; or write the former template yourself, and remove {BASELINE} and {OWNER}",
    )


def ready_before(state: State) -> dict[str, int]:
    """Return how many replicas were ready before, to save beside the baseline."""
    return {"ready": state.before.ready} if state.before else {}


def saved_ready(found: Object) -> int | None:
    """Return how many replicas were Ready before the rollout. Returns None if that was not saved."""
    ready: int | None = saved_baseline(found).get("ready")
    return ready


def noted(note: Note) -> dict[str, str | None]:
    """Return the annotations that keep a note."""
    return {CAUSE: note.cause, CHANGE: note.model_dump_json(exclude_defaults=True)}


def note_of(found: Object) -> Note | None:
    """Return the note that an object keeps. Returns None if it has no readable note."""
    try:
        return Note.model_validate_json(annotations_of(found).get(CHANGE, ""))
    except ValueError:
        return None


def revision_of(
    found: Object, annotated: Object, number: int, version: Version, replicas: int, *, current: bool
) -> Revision:
    """Return a revision by its own object; ``annotated`` is the object that keeps the note of its outcome."""
    return Revision(
        revision=number,
        created=found["metadata"]["creationTimestamp"],
        images=version.all_images,
        replicas=replicas,
        current=current,
        cause=annotations_of(annotated).get(CAUSE, ""),
        note=note_of(annotated),
    )


def outcome_noted(revision: Object, version: str, request: WriteInput) -> dict[str, str | None]:
    """Return the note of the outcome for a revision that this rollout did not keep running."""
    found, note, state = note_of(revision), request.note, request.state
    stays = state.wanted if state.goal is Goal.FORWARD else state.baseline
    if found is None or note is None or found.outcome or version == stays.template or not found.of_same_rollout(note):
        return {}
    if version != state.wanted.template:
        return noted(found.model_copy(update={"outcome": SUPERSEDED}))
    return noted(found.model_copy(update={"outcome": note.outcome, "why": note.why}))


# --- the owner ----------------------------------------------------------------------------------------------


def refuse_others(owner: str, request: PrepareInput, *, engaged: bool) -> None:
    """Refuse a target that another rollout holds, alone or as a side of a pair.

    A target of a former run of the same workflow may be taken over: Temporal runs one at a time, so that run ended.

    Raises:
        Refused: naming the other rollout.
    """
    if (
        not request.baseline
        and not is_same_workflow(owner, request.owner)
        and (engaged or owner.startswith("rollout/"))
    ):
        raise Refused(
            f"is held by {owner or 'a rollout that left no owner'}",
            field="target",
            value=str(request.target),
            fix=_how_it_ends(holder_of(owner)),
        )


def refuse_another_kind(found: Object, wanted: str) -> None:
    """Refuse a target that a rollout of another kind than ``wanted`` holds: a Deployment alone, or as a side of a pair.

    What it saved has another meaning there, so that it would look like nothing, or like damage.

    Raises:
        Refused: naming that rollout, and how it ends.
    """
    owner = annotations_of(found).get(OWNER, "")
    holder = holder_of(owner)
    kind = holder.split("/")[3] if holder else ("DeploymentPair" if REPLICAS in annotations_of(found) else wanted)
    if kind != wanted:
        # Of an interrupted release, only the old side of a pair has R, and no id is known.
        named = holder or f"{kind}/{found['metadata']['namespace']}/{found['metadata']['name']}"
        raise Refused(
            f"is held by {owner}, whose target is a {kind}",
            field=f"{str(found.get('kind', 'target')).lower()} {found['metadata']['name']}",
            fix=_how_it_ends(holder) if holder else f"continue that release: `segue release {named}`",
        )


def holder_of(owner: str) -> str:
    """Return the id of the rollout that an owner names; empty if it names none."""
    workflow_id, _, _ = owner.partition("@")
    return workflow_id if owner.startswith("rollout/") and workflow_id.count("/") == 4 else ""


def _how_it_ends(holder: str) -> str:
    if not holder:
        return "wait until that rollout ends, or release the target with `segue release`"
    return f"wait for its end, or run `segue abort {holder}`; if Temporal has lost it, `segue release {holder}`"


def is_same_workflow(holder: str, owner: str) -> bool:
    """Whether a holder is the owner, or a former run of the same workflow, which has ended."""
    return holder.rpartition("@")[0] == owner.rpartition("@")[0]


def deletion_of(found: Object | None, mark: Mark) -> Observation | None:
    """Return the observation of a target that was deleted or is being deleted; None of any other."""
    if found is None:
        return _GONE
    if mark.uid and found["metadata"]["uid"] != mark.uid:
        said = "the target was deleted and created again, and this rollout does not touch the new one"
        copied = f"; it is a copy: {_COPIED}" if BASELINE in annotations_of(found) else ""
        return _GONE.model_copy(update={"gone_why": f"{said}{copied}"})
    why = being_deleted(found)
    if why and _ORPHANS in found["metadata"].get("finalizers", []):
        at = found["metadata"]["deletionTimestamp"]
        why = f"the target was deleted at {at}, and its pods stay; if it is created again from a copy, {_COPIED}"
    return _GONE.model_copy(update={"gone_why": why}) if why else None


def being_deleted(found: Object) -> str:
    """Return that the target is being deleted, for a person; empty if it is not.

    It may exist for long: until its pods are gone, or as long as somebody's finalizer keeps it.
    """
    metadata = found["metadata"]
    if "deletionTimestamp" not in metadata:
        return ""
    keepers = ", ".join(metadata.get("finalizers", []))
    kept = f" (finalizers: {keepers})" if keepers else ""
    return (
        f"the target is being deleted since {metadata['deletionTimestamp']}{kept}: its pods go, and nobody makes others"
    )


def refuse_being_deleted(found: Object, target: Target) -> None:
    """Refuse a target that is being deleted.

    Raises:
        Refused: with what keeps it.
    """
    if why := being_deleted(found):
        fix = "wait until it is gone, and create it again"
        raise Refused(why.removeprefix("the target "), field="target", value=str(target), fix=fix)


def check_same(found: Object, mark: Mark) -> None:
    """Check that the target is still what the rollout wrote: another object of its name is in nobody's hands, too.

    Raises:
        Fenced: when another object has its name, or it is being deleted.
    """
    if ended := deletion_of(found, mark):
        raise Fenced(ended.gone_why)


def check_owner(found: Object, state: State, *, engaged: bool) -> None:
    """Let only the target's owner write.

    Raises:
        Fenced: when another rollout owns it now, another object has its name, or it is being deleted.
    """
    check_same(found, state.mark)
    owner = annotations_of(found).get(OWNER)
    if owner == state.owner or (not state.claimed and not engaged):
        return
    raise Fenced(belonging(owner))


def checked(request: WriteInput, seen: Observation, patch: Object | None) -> Object | None:
    """Return the patch if nobody else changed the target since the decision.

    Raises:
        Stale: when somebody did.
    """
    if seen.foreign is not None and not request.state.overrules:
        raise Stale(str(seen.foreign))
    if patch is not None and seen.generation != request.generation:
        # The decision is stale: somebody wrote since, or this attempt was lost long ago.
        raise Stale(f"the target changed since the decision: generation {seen.generation}, not {request.generation}")
    if patch is not None:
        refuse_outdated(request, seen)
    return patch


def refuse_outdated(request: WriteInput, seen: Observation) -> None:
    """Refuse a move that was decided with a floor that is too low: replicas became ready since.

    Raises:
        Stale: in that case.
    """
    if request.decision.counts is not None and is_outdated(request.state, seen):
        raise Stale("more replicas are ready than when the move was decided")


def overtaken(found: Object, first: Written) -> Written | None:
    """Return the result of an activity that must not write again: somebody wrote the target after its first write.

    Returns None if nobody did. A lost attempt may continue after another one has finished the work.
    """
    generation, mark = found["metadata"].get("generation", 0), first.mark
    if mark is None or generation == mark.generation:
        return None
    why = f"the target changed since the first write: generation {generation}, not {mark.generation}"
    return Written(done=False, why=why, writes=first.writes)


def mark_of(found: Object, template: str, token: str) -> Mark:
    """Return the mark of this write."""
    metadata = found["metadata"]
    return Mark(template=template, token=token, generation=metadata.get("generation", 0), uid=metadata["uid"])
