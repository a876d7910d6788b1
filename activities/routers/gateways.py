"""Reads from an HTTPRoute's status which gateways serve it. Pure.

Each gateway's controller writes an entry of ``status.parents`` with the conditions ``Accepted`` and ``ResolvedRefs``.
Each condition names the generation of the route on which the controller decided.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from activities.cluster import Object

CONDITIONS = ("Accepted", "ResolvedRefs")
_UNREPORTED = "no gateway has accepted it"


class Answers(NamedTuple):
    """The answers of a route's gateways to a write."""

    pending: str = ""
    """Which gateway has not accepted the write yet; empty once all have."""
    refusal: str = ""
    """Which gateway refuses the route, in its own words; empty if none does."""


class _Doubt(NamedTuple):
    """Why a gateway may not serve the route."""

    text: str
    fix: str
    refuses: bool = False


def gateway_doubts(route: Object) -> tuple[str, ...]:
    """Return why gateways may not serve a route as it is, with what to do; empty if all accepted it."""
    doubts = _doubts(route)
    if doubts is None:
        return (
            f"{_UNREPORTED}, so nothing may obey its weights, and the rollout counts each weight as soon as it is "
            "written; check its parentRefs, and that the gateway's controller runs",
        )
    return tuple(f"{each.text}, so the rollout does not wait for it; {each.fix}" for each in doubts)


def unserved(route: Object) -> str:
    """Return why no gateway serves a route as it is; empty if at least one accepted it."""
    if accepting(route, generation_of(route)):
        return ""
    return "; ".join(each.text for each in _doubts(route) or ()) or _UNREPORTED


def accepting(route: Object, since: int) -> tuple[str, ...]:
    """Return the names of the gateways that accepted the route at the generation ``since`` or a later one."""
    return tuple(_named(parent) for parent in _parents(route) if _doubt(parent, since) is None)


def answers(route: Object, gateways: Sequence[str], since: int, *, back: bool = False) -> Answers:
    """Return what these gateways answer to the route's generation ``since`` or a later one.

    A gateway that no longer reports on the route serves it no more, and is not waited for while another one reports.
    If none does, a rollout on its way ``back`` waits for none either.
    """
    reporting = [parent for parent in _parents(route) if _named(parent) in gateways]
    if gateways and not reporting and not back:
        return Answers(pending=f"{', '.join(gateways)} no longer reports on the route; check that its controller runs")
    doubts = [doubt for parent in reporting for doubt in [_doubt(parent, since)] if doubt]
    return Answers(
        pending="; ".join(f"{each.text}: {each.fix}" for each in doubts),
        refusal="; ".join(each.text for each in doubts if each.refuses),
    )


def generation_of(route: Object) -> int:
    """Return the route's generation, which each change of its spec raises."""
    return int(route["metadata"].get("generation", 0))


def _doubts(route: Object) -> list[_Doubt] | None:
    """Return why gateways may not serve a route as it is. Returns None if no gateway reports on it."""
    parents = list(_parents(route))
    found = [_doubt(parent, generation_of(route)) for parent in parents]
    return [each for each in found if each is not None] if parents else None


def _parents(route: Object) -> Iterator[Object]:
    yield from route.get("status", {}).get("parents") or []


def _doubt(parent: Object, generation: int) -> _Doubt | None:
    """Return the first condition by which one gateway does not serve this generation. Returns None if it does."""
    conditions = {each["type"]: each for each in parent.get("conditions") or []}
    gateway = _named(parent)
    for kind in CONDITIONS:
        found = conditions.get(kind)
        if found is None or found.get("observedGeneration", 0) < generation:
            return _Doubt(
                f"{gateway} has not decided {kind} for the route's generation {generation}",
                "check that its controller runs",
            )
        if found["status"] != "True":
            why = f"{found.get('reason', '')}: {found.get('message', '')}"
            return _Doubt(
                f"{gateway} says {kind} is {found['status']} ({why})", "correct the route, or what it refers to",
                refuses=found["status"] == "False",
            )  # fmt: skip
    return None


def _named(parent: Object) -> str:
    """Return the name of one gateway, of one listener if the route names one, and of its controller."""
    ref = parent["parentRef"]
    place = f"{ref['namespace']}/{ref['name']}" if ref.get("namespace") else ref["name"]
    parts = [f", {word} {ref[key]}" for key, word in (("sectionName", "listener"), ("port", "port")) if ref.get(key)]
    kind = ref.get("kind", "Gateway").lower()
    return f"{kind} {place}{''.join(parts)} ({parent.get('controllerName', 'unknown controller')})"
