"""What the status of an HTTPRoute tells about the gateways that should serve it."""

from typing import Any

import pytest

from activities.cluster import Object
from activities.routers.gateways import accepting, answers, gateway_doubts, unserved


def condition(kind: str, status: str = "True", generation: int = 3, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "observedGeneration": generation, **more}


def parent(*conditions: dict[str, Any], name: str = "public", **ref: Any) -> dict[str, Any]:
    return {
        "parentRef": {"name": name, **ref}, "controllerName": "example.com/gateway", "conditions": [*conditions],
    }  # fmt: skip


def route(parents: list[dict[str, Any]] | None) -> Object:
    status = {} if parents is None else {"status": {"parents": parents}}
    return {"metadata": {"name": "chat", "generation": 3}, **status}


ACCEPTED, RESOLVED = condition("Accepted"), condition("ResolvedRefs")
SERVED = parent(ACCEPTED, RESOLVED)
OF_BEFORE = parent(condition("Accepted", generation=2), condition("ResolvedRefs", generation=2))
LOST = condition("ResolvedRefs", "False", reason="BackendNotFound", message="no service chat-v2")
REFUSED = parent(condition("Accepted", "False", reason="NoMatchingParent", message="port 81"), RESOLVED)
UNKNOWN = parent(condition("Accepted", "Unknown", reason="Pending", message="Waiting for controller"), RESOLVED)
CASES: dict[str, tuple[list[dict[str, Any]] | None, list[str]]] = {
    "no status": (None, ["no gateway has accepted it, so nothing may obey its weights, and the rollout counts each"]),
    "no parents": ([], ["no gateway has accepted it"]),
    "accepted": ([SERVED], []),
    "accepted by both": ([SERVED, parent(ACCEPTED, RESOLVED, name="internal")], []),
    "not accepted": (
        [REFUSED],
        ["gateway public (example.com/gateway) says Accepted is False (NoMatchingParent: port 81), so the rollout"],
    ),
    "unresolved": (
        [parent(ACCEPTED, LOST)],
        ["gateway public (example.com/gateway) says ResolvedRefs is False (BackendNotFound: no service chat-v2), so"],
    ),
    "an earlier generation": (
        [parent(ACCEPTED, condition("ResolvedRefs", generation=2))],
        ["gateway public (example.com/gateway) has not decided ResolvedRefs for the route's generation 3, so the roll"],
    ),
    "no conditions": ([parent()], ["has not decided Accepted for the route's generation 3"]),
    "one of two": ([SERVED, parent(ACCEPTED, LOST, name="internal")], ["gateway internal (example.com/gateway) says"]),
}


@pytest.mark.parametrize(("parents", "expected"), CASES.values(), ids=CASES)
def test_doubts_name_the_gateway_and_the_fix(parents: list[dict[str, Any]] | None, expected: list[str]) -> None:
    found = gateway_doubts(route(parents))
    assert len(found) == len(expected)
    for doubt, wanted in zip(found, expected, strict=True):
        assert wanted in doubt
        assert "; " in doubt


NAME, OTHER = "gateway public (example.com/gateway)", "gateway internal (example.com/gateway)"
INTERNAL = parent(ACCEPTED, RESOLVED, name="internal")
ANSWERS: dict[str, tuple[list[dict[str, Any]], tuple[str, ...], str, str]] = {
    "nobody has to": ([REFUSED], (), "", ""),
    "accepted": ([SERVED], (NAME,), "", ""),
    "accepted a later generation": ([parent(condition("Accepted", generation=4), RESOLVED)], (NAME,), "", ""),
    "an earlier generation": ([OF_BEFORE], (NAME,), f"{NAME} has not decided Accepted for the route's gener", ""),
    "not known yet": ([UNKNOWN], (NAME,), "says Accepted is Unknown (Pending: Waiting for controller)", ""),
    "refused": ([REFUSED], (NAME,), "NoMatchingParent", f"{NAME} says Accepted is False (NoMatchingParent: port 81)"),
    "unresolved": ([parent(ACCEPTED, LOST)], (NAME,), "BackendNotFound", "ResolvedRefs is False (BackendNotFound: no"),
    "refused before": (
        [parent(condition("Accepted", "False", generation=2), RESOLVED)], (NAME,), "has not decided Accepted", "",
    ),
    "one of two": ([SERVED, OF_BEFORE | {"parentRef": {"name": "internal"}}], (NAME, OTHER), OTHER, ""),
    "another one refuses": ([SERVED, REFUSED | {"parentRef": {"name": "internal"}}], (NAME,), "", ""),
    "it reports no more": ([], (NAME,), f"{NAME} no longer reports on the route; check that its controller runs", ""),
    "one of two reports no more": ([INTERNAL], (NAME, OTHER), "", ""),
}  # fmt: skip


@pytest.mark.parametrize(("parents", "gateways", "pending", "refusal"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_gateways_answer_to_a_write(
    parents: list[dict[str, Any]], gateways: tuple[str, ...], pending: str, refusal: str
) -> None:
    """Each that accepted the route before has to accept the written generation, or a later one."""
    found = answers(route(parents), gateways, 3)
    assert (bool(found.pending), bool(found.refusal)) == (bool(pending), bool(refusal))
    assert pending in found.pending and refusal in found.refusal


def test_on_the_way_back_nobody_is_waited_for_who_serves_the_route_no_more() -> None:
    """One that still reports is waited for."""
    assert answers(route([]), (NAME,), 3, back=True) == ("", "")
    assert answers(route([OF_BEFORE]), (NAME,), 3, back=True).pending


def test_which_gateways_have_to_accept() -> None:
    """Those that accept the route since a generation; a listener of a gateway is one of its own."""
    https = parent(ACCEPTED, RESOLVED, namespace="edge", sectionName="https", port=443)
    found = accepting(route([OF_BEFORE, REFUSED, UNKNOWN, INTERNAL, https]), 3)
    assert found == (OTHER, "gateway edge/public, listener https, port 443 (example.com/gateway)")
    assert accepting(route([OF_BEFORE]), 2) == (NAME,)


def test_a_route_that_no_gateway_serves() -> None:
    """One that accepts it is enough."""
    assert unserved(route([REFUSED, INTERNAL])) == ""
    assert unserved(route(None)) == unserved(route([])) == "no gateway has accepted it"
    assert unserved(route([REFUSED])) == f"{NAME} says Accepted is False (NoMatchingParent: port 81)"
