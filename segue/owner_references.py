"""Who controls an object, by its owner references. Pure."""

from collections.abc import Mapping
from typing import Any


def controller_of(found: Mapping[str, Any]) -> str:
    """Return the kind and name of the object that controls another one; empty without one.

    A controller restores what somebody else changes: the ScaledObject of KEDA does so with its autoscaler's bounds.
    """
    owners = found["metadata"].get("ownerReferences", [])
    return next((f"{each['kind']} {each['name']}" for each in owners if each.get("controller")), "")
