"""Follows the Rollout objects of one namespace, or of the cluster."""

from collections.abc import Callable

from activities.cluster import Cluster, Object
from activities.following import Followed
from segue.rollout_object import RESOURCE

Key = tuple[str, str]
"""Namespace and name of an object."""


class RolloutObjects(Followed[Object]):
    """The objects, each as it was read last; ``wake`` is called for each that somebody else changed."""

    def __init__(self, cluster: Cluster, namespace: str, wake: Callable[[Key], None]) -> None:
        super().__init__(cluster, RESOURCE, namespace)
        self._wake = wake
        self._known: dict[Key, Object] = {}

    def get(self, key: Key) -> Object | None:
        """Return an object as it was read last; None if it does not exist."""
        return self._known.get(key)

    def put(self, found: Object) -> None:
        """Take what the API server answered to a read or a write."""
        self._known[key_of(found)] = self.keep(found)

    def others_of(self, workflow_id: str, but: Key) -> list[Key]:
        """Return the other objects whose rollouts have this workflow: they have the same target."""
        found = self._known.items()
        return [key for key, each in found if key != but and each.get("status", {}).get("workflowId") == workflow_id]

    def drop(self, key: Key) -> None:
        """Take that an object does not exist."""
        self._known.pop(key, None)

    def keep(self, found: Object) -> Object:
        """Leave out what nothing reads."""
        metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
        return {**found, "metadata": metadata}

    def replace(self, kept: list[Object]) -> None:
        """Take the complete list, and wake all of it: what happened since the last list is not known."""
        # Items of a list have no kind of their own.
        self._known = {key_of(each): {**_TYPE, **each} for each in kept}
        for key in self._known:
            self._wake(key)

    def apply(self, event: str, found: Object) -> None:
        """Take one event. The controller's own write of a status wakes nobody."""
        key, before = key_of(found), self._known.get(key_of(found))
        if event == "DELETED":
            self.drop(key)
            self._wake(key)
            return
        self.put(found)
        if before is None or _requested(before) != _requested(found):
            self._wake(key)


_TYPE = {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout"}


def key_of(found: Object) -> Key:
    """Return the key of an object."""
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _requested(found: Object) -> Object:
    """Return what others change: everything but the status."""
    metadata = found["metadata"]
    names = ("uid", "generation", "deletionTimestamp", "finalizers", "annotations")
    return {name: metadata.get(name) for name in names}
