"""What the status of an HTTPRoute tells about the gateways that should serve it."""

from typing import Any

import pytest

from activities.routers.httproute import gateway_doubts


def condition(kind: str, status: str = "True", generation: int = 3, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "observedGeneration": generation, **more}


def parent(*conditions: dict[str, Any], name: str = "public") -> dict[str, Any]:
    return {"parentRef": {"name": name}, "controllerName": "example.com/gateway", "conditions": [*conditions]}


ACCEPTED, RESOLVED = condition("Accepted"), condition("ResolvedRefs")
SERVED = parent(ACCEPTED, RESOLVED)
LOST = condition("ResolvedRefs", "False", reason="BackendNotFound", message="no service chat-v2")
CASES: dict[str, tuple[list[dict[str, Any]] | None, list[str]]] = {
    "no status": (None, ["no gateway has accepted it, so nothing may obey its weights; check its parentRefs, and"]),
    "no parents": ([], ["no gateway has accepted it"]),
    "accepted": ([SERVED], []),
    "accepted by both": ([SERVED, parent(ACCEPTED, RESOLVED, name="internal")], []),
    "not accepted": (
        [parent(condition("Accepted", "False", reason="NoMatchingParent", message="port 81"), RESOLVED)],
        ["gateway public (example.com/gateway) says Accepted is False (NoMatchingParent: port 81); correct the route"],
    ),
    "unresolved": (
        [parent(ACCEPTED, LOST)],
        ["gateway public (example.com/gateway) says ResolvedRefs is False (BackendNotFound: no service chat-v2); corr"],
    ),
    "an earlier generation": (
        [parent(ACCEPTED, condition("ResolvedRefs", generation=2))],
        ["gateway public (example.com/gateway) has not decided ResolvedRefs for its generation 3; check that its con"],
    ),
    "no conditions": ([parent()], ["has not decided Accepted for its generation 3"]),
    "one of two": ([SERVED, parent(ACCEPTED, LOST, name="internal")], ["gateway internal (example.com/gateway) says"]),
}


@pytest.mark.parametrize(("parents", "said"), CASES.values(), ids=CASES)
def test_doubts_name_the_gateway_and_the_fix(parents: list[dict[str, Any]] | None, said: list[str]) -> None:
    status = {} if parents is None else {"status": {"parents": parents}}
    found = gateway_doubts({"metadata": {"name": "chat", "generation": 3}, **status})
    assert len(found) == len(said)
    for doubt, wanted in zip(found, said, strict=True):
        assert wanted in doubt
        assert "; " in doubt
