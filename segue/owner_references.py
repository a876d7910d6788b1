"""Who controls an object, by its owner references. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Controller(NamedTuple):
    """The object that controls another one."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def controller_of(found: Mapping[str, Any]) -> Controller | None:
    """Return the object that controls another one; None without one.

    A controller restores what somebody else changes: the ScaledObject of KEDA does so with its autoscaler's bounds.
    """
    owners = found["metadata"].get("ownerReferences", [])
    return next((Controller(each["kind"], each["name"]) for each in owners if each.get("controller")), None)
