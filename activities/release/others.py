"""Judges the version that a release to the wanted version would go on to: who wrote it, and whether it is there."""

from collections.abc import Callable

from activities.cluster import Object
from activities.levers.authors import later_writer_of
from segue.errors import NotFound

_TEMPLATES = (("f:template",), ("f:leaderWorkerTemplate",))
"""The pod templates, as `managedFields` names them. Only its operator knows that of a supervised target."""


def tell_of_others(found: Object, tell: Callable[[str], None]) -> None:
    """Warn if somebody else wrote the pod template after the rollout did."""
    for who in filter(None, (later_writer_of(found, path) for path in _TEMPLATES)):
        name = "{namespace}/{name}".format(**found["metadata"])
        tell(f"warning: {who} wrote the pod template of {name} after the rollout did; the release goes on to it")


def refuse_unwritten(present: str, before: str, field: str) -> None:
    """Refuse to go on to a wanted version that is not there; both are fingerprints, of now and of before the rollout.

    Raises:
        NotFound: in that case: the rollout has not written it yet, or went back already.
    """
    if present == before:
        why = "has the version from before the rollout, so there is no wanted version to go on to"
        raise NotFound(why, field=field, fix="go back with `--to baseline`")
