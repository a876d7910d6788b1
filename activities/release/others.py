"""Warns before a release to the wanted version if somebody else wrote that version."""

from collections.abc import Callable

from activities.cluster import Object
from activities.levers.ownership import later_writer_of

_TEMPLATES = (("f:template",), ("f:leaderWorkerTemplate",))
"""The pod templates, as `managedFields` names them. Only its operator knows that of a supervised target."""


def tell_of_others(found: Object, tell: Callable[[str], None]) -> None:
    """Warn if somebody else wrote the pod template after the rollout did."""
    for who in filter(None, (later_writer_of(found, path) for path in _TEMPLATES)):
        name = "{namespace}/{name}".format(**found["metadata"])
        tell(f"warning: {who} wrote the pod template of {name} after the rollout did; the release goes on to it")
