"""What a release leaves on a Deployment and its ReplicaSets: notes of its outcome, and nothing else of Segue."""

import contextlib
from collections.abc import Callable

from activities.cluster import Cluster, Object
from activities.levers.deployment.reading import is_engaged
from activities.levers.ownership import BASELINE, OWNER, annotations_of, note_of, noted, selector_of
from activities.levers.template import fingerprint
from activities.levers.writing import clean_revisions
from activities.watching import controller_uid
from segue.errors import Conflict, NotFound
from segue.history import RELEASED, Note
from segue.observation import RELEASED_BY
from segue.spec import Target
from segue.state import Outcome


def released_note(deployment: Object) -> Note | None:
    """Return the note of a version whose rollout was lost, with its outcome; None if nothing is to be noted."""
    note = note_of(deployment)
    return note.model_copy(update={"outcome": RELEASED}) if note and not note.outcome else None


async def note_left(cluster: Cluster, taken: Object, finished: Object, by: str) -> None:
    """Note on the versions that the rollout made and the release left that they were: an undo does not return there.

    ``taken`` and ``finished`` are the Deployment before and after the release.
    """
    note, metadata, stays = note_of(taken), taken["metadata"], fingerprint(finished["spec"]["template"])
    if note is None or note.outcome:
        return
    left = noted(note.model_copy(update={"outcome": Outcome.ABORTED, "why": f"{RELEASED_BY}{by}"}))
    for each in (await cluster.list("replicasets", metadata["namespace"], selector_of(taken)))["items"]:
        theirs = note_of(each)
        is_ours = theirs is not None and not theirs.outcome and theirs.of_same_rollout(note)
        is_left = controller_uid(each) == metadata["uid"] and fingerprint(each["spec"]["template"]) != stays
        if is_ours and is_left:
            # Its controller may write it meanwhile, or delete it. An undo does not return to one without an end either.
            with contextlib.suppress(NotFound, Conflict):
                patch = {"metadata": {"annotations": left}}
                await cluster.patch("replicasets", metadata["namespace"], each["metadata"]["name"], patch)


async def cleaned_again(cluster: Cluster, target: Target, tell: Callable[[str], None]) -> bool:
    """Remove the copies of Segue's annotations that an interrupted release left; return whether there were any.

    `kubectl rollout undo` would copy them back. While a rollout or a release holds the Deployment, they stay.
    """
    try:
        deployment = await cluster.get("deployments", target.namespace, target.name)
    except NotFound:
        return False  # the caller reports it
    if is_engaged(deployment) or {OWNER, BASELINE} & annotations_of(deployment).keys():
        return False
    cleaned = await clean_revisions(cluster, deployment)
    if cleaned.left:
        tell(f"warning: {cleaned.left}")
    return bool(cleaned.writes)
