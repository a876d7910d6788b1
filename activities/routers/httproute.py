"""Splits traffic by the weights of a Gateway API HTTPRoute's backends: Services, or InferencePools.

An HTTPRoute is a custom resource: a merge patch replaces lists whole, so the router writes all rules, with one changed.
"""

import copy
from collections.abc import Iterable

from activities.cluster import Object
from activities.levers.ownership import annotations_of
from activities.routers.base import SAVED, Content, Leading, Router, is_readable, kept_of, pod_labels_of
from activities.routers.gateways import accepting, answers, gateway_doubts, generation_of, unserved
from segue.contract import PrepareInput
from segue.errors import NotAllowed, NotFound, Refused, Stale
from segue.observation import Routed
from segue.spec import ByRoute, Rules, Target
from segue.traffic import ALL, NONE

KIND = "httproutes.gateway.networking.k8s.io/v1"
GRPC = "grpcroutes.gateway.networking.k8s.io/v1"
POOLS = "inferencepools.inference.networking.k8s.io/v1"
_SERVICE, _POOL = ("", "Service"), ("inference.networking.k8s.io", "InferencePool")
"""Group and kind of a backend."""
_DEFAULT_WEIGHT = 1


class _Weighing(Leading):
    def __init__(self, saved: Content, old: str, new: str) -> None:
        refs = {ref["name"]: ref for ref in saved["backendRefs"]}
        self._saved = saved
        self._old = refs[old]
        self._new = {**refs.get(new, self._old), "name": new}

    def content(self, share: int) -> Content:
        if share == NONE:
            return self._saved
        weighed = [{**self._old, "weight": ALL - share}, {**self._new, "weight": share}]
        return {**self._saved, "backendRefs": weighed}

    def share(self, content: Content) -> int | None:
        if content == self._saved:
            return NONE
        refs = content["backendRefs"]
        weight = refs[1].get("weight", _DEFAULT_WEIGHT) if len(refs) == 2 else NONE
        return weight if content == self.content(weight) else None


class HttpRouteRouter(Router):
    """Writes the weights of an HTTPRoute's backends."""

    kind, word, field = KIND, "httproute", "rules"

    def name(self, rules: Rules) -> str:
        """Return the HTTPRoute's name."""
        return _by_route(rules).route

    def read(self, found: Object, rules: Rules) -> Content:
        """Return the rule's index in the spec, and its backends; no backends if there is no such rule."""
        by, there = _by_route(rules), found["spec"].get("rules", [])
        number = _place(found, by.rule, {by.backends.old, by.backends.new})
        return {"rule": by.rule, "backendRefs": there[number].get("backendRefs", []) if number < len(there) else []}

    def routes_nothing(self, content: Content, rules: Rules) -> bool:
        """Whether somebody removed the rule, or both sides' backends."""
        sides = _by_route(rules).backends
        return not {sides.old, sides.new} & _names(content)

    def patch(self, found: Object, content: Content) -> Object:
        """Return the patch of all rules, with the backends of one changed.

        Raises:
            Stale: when somebody removed the rule, or both sides' backends from it.
        """
        there, sides = copy.deepcopy(found["spec"].get("rules", [])), _sides(found, content)
        number = _place(found, content["rule"], sides)
        if number >= len(there) or not sides & _names(there[number]):
            what = f"{self.word} {found['metadata']['name']} has no rule with the backends of this rollout any more"
            raise Stale(f"{what}: give them back to rule {content['rule']}")
        there[number]["backendRefs"] = content["backendRefs"]
        return {"spec": {"rules": there}}

    def leading(self, saved: Content, target: Target, rules: Rules, new: Object | None) -> Leading:
        """Return the backends for each share."""
        by = _by_route(rules)
        refs, sides = saved["backendRefs"], by.backends
        field, kind, other = ("services", _SERVICE, "pools") if by.services else ("pools", _POOL, "services")
        word = kind[1] if by.pools else "service"
        weights = {ref["name"]: ref.get("weight", _DEFAULT_WEIGHT) for ref in refs}
        others = weights.keys() - {sides.old, sides.new}
        alien = next((ref for ref in refs if _kind_of(ref) != kind), None)
        wrong = (
            (not refs, f"has no rule {by.rule} with backends", "name the rule by its index"),
            (alien, f"has {alien['name']}, which is of kind {alien.get('kind')}, but {field} names each side's {word}"
             if alien else "", f"write traffic.{other}, or set traffic.rule to a rule with backends of this kind"),
            (not weights.get(sides.old), f"sends no traffic to the old side's {word} {sides.old}",
             f"set {field}.old to the {kind[1]} that gets the traffic now"),
            (weights.get(sides.new), f"already sends traffic to the new side's {word} {sides.new}",
             "set its weight to 0"),
            (others, f"also sends traffic to {', '.join(sorted(others))}", "give the two sides a rule of their own"),
        )  # fmt: skip
        for applies, why, fix in wrong:
            if applies:
                field = f"httproute {target.namespace}/{by.route}: rules[{by.rule}].backendRefs"
                raise Refused(why, field=field, value=_shown(refs), fix=fix)
        return _Weighing(saved, sides.old, sides.new)

    def doubts(self, found: Object, rules: Rules) -> tuple[str, ...]:
        """Return which gateways have not accepted the route as it is; if none reports on it, that.

        Raises:
            Refused: when the spec requires a gateway that accepts it, and there is none.
        """
        why = unserved(found) if _by_route(rules).require_accepted else ""
        if why:
            metadata = found["metadata"]
            raise Refused(
                f"{why}, and the spec requires a gateway that accepts the route",
                field=f"httproute {metadata['namespace']}/{metadata['name']}: status.parents",
                fix="check the route's parentRefs, and that the gateway's controller runs; or leave "
                "traffic.requireAccepted out",
            )
        return gateway_doubts(found)

    async def bypasses(self, target: Target, rules: Rules) -> tuple[str, ...]:
        """Return the other rules, of all routes, that send traffic to the old side's backend; none if it stays."""
        if rules.strategy.to is not None:
            return ()
        by, namespace = _by_route(rules), target.namespace
        routes = (await self._cluster.list(self.kind, namespace))["items"]
        try:
            others = (await self._cluster.list(GRPC, namespace))["items"]
        except NotFound:
            others = []  # an API server without this kind
        except NotAllowed as error:
            unread = f"GRPCRoutes cannot be read, and may also send traffic to the old side: {error.why}; {error.fix}"
            return (*bypassing(routes, namespace, by), unread)
        return (*bypassing(routes, namespace, by), *bypassing(others, namespace, by, "grpcroute"))

    def gateways(self, found: Object, before: Routed | None) -> tuple[str, ...]:
        """Return the gateways that have to accept a write: those that accepted the route since the one before."""
        known = before.gateways if before is not None else ()
        since = before.generation if before is not None else 0
        return tuple(dict.fromkeys((*known, *accepting(found, since or generation_of(found)))))

    def heard(self, found: Object, routed: Routed, *, back: bool = False) -> Routed:
        """Return where the traffic goes, with what the gateways answer to the write."""
        generation = routed.generation or generation_of(found)
        pending, refusal = answers(found, routed.gateways, generation, back=back)
        return routed.model_copy(update={"generation": generation, "pending": pending, "refusal": refusal})

    async def check(self, request: PrepareInput, saved: Content, old: Object, new: Object) -> None:
        """Check that each side's backend selects that side's pods and not the other's."""
        target, by = request.target, _by_route(request.rules)
        _refuse_unlike(saved["backendRefs"], target.namespace, by)
        kind, word = ("services", "service") if by.services else (POOLS, "inferencepool")
        for side, name in (("old", by.backends.old), ("new", by.backends.new)):
            backend = await self._cluster.get(kind, target.namespace, name)
            selector = backend["spec"].get("selector") or {}
            selector = selector if by.services else selector.get("matchLabels") or {}
            for other, deployment in (("old", old), ("new", new)):
                selects = bool(selector) and selector.items() <= pod_labels_of(deployment).items()
                if selects != (other == side):
                    verb = "selects" if selects else "does not select"
                    raise Refused(
                        f"{verb} the pods of the {other} side, deployment {deployment['metadata']['name']}",
                        field=f"{word} {target.namespace}/{name}", value=_shown_selector(selector),
                        fix=f"make it select exactly the {side} side's pods",
                    )  # fmt: skip


def _refuse_unlike(backends: list[Object], namespace: str, by: ByRoute) -> None:
    """Refuse backends that are not those whose pods the rollout watches, or that its weights cannot say.

    Raises:
        Refused: for one in another namespace, and for one that the rule has twice.
    """
    names = [ref["name"] for ref in backends]
    for ref in backends:
        name, elsewhere = ref["name"], ref.get("namespace", namespace)
        if elsewhere != namespace:
            why = f"sends traffic to {name} in the namespace {elsewhere}, and both sides' pods are in {namespace}"
            fix = "leave the backend's namespace out"
        elif names.count(name) > 1:
            why, fix = f"names {name} more than once", "write one backend for each side"
        else:
            continue
        field = f"httproute {namespace}/{by.route}: rules[{by.rule}].backendRefs"
        raise Refused(why, field=field, value=_shown(backends), fix=fix)


def bypassing(
    routes: Iterable[Object], namespace: str, by: ByRoute, word: str = HttpRouteRouter.word
) -> tuple[str, ...]:
    """Return the other rules that send traffic to the old side's backend: the rollout does not move them. Pure."""
    kind, old = _SERVICE if by.services else _POOL, by.backends.old
    rules = [
        f"{word} {namespace}/{route['metadata']['name']}: rules[{number}]"
        for route in routes
        for number, rule in enumerate(route["spec"].get("rules", []))
        if (word, route["metadata"]["name"], number) != (HttpRouteRouter.word, by.route, by.rule)
        and any(_leads_to(ref, namespace, kind, old) for ref in rule.get("backendRefs", []))
    ]
    why = f"also sends traffic to the old side's {kind[1]} {old}, and the rollout does not move it"
    fix = "it gets no answer once the old replicas are gone; give it another backend before"
    return tuple(f"{rule} {why}: {fix}" for rule in rules)


def _leads_to(ref: Object, namespace: str, kind: tuple[str, str], name: str) -> bool:
    is_there = ref.get("namespace", namespace) == namespace and _kind_of(ref) == kind and ref["name"] == name
    return is_there and bool(ref.get("weight", _DEFAULT_WEIGHT))


def _place(found: Object, number: int, sides: set[str]) -> int:
    """Return the index of the rule that the rollout holds: its own, or where somebody else's new rules moved it."""
    serving = [i for i, rule in enumerate(found["spec"].get("rules", [])) if sides & _names(rule)]
    is_moved = SAVED in annotations_of(found) and number not in serving and len(serving) == 1
    return serving[0] if is_moved else number


def _sides(found: Object, content: Content) -> set[str]:
    """Return the names of the backends of both sides: those to write, and those of the rollout that holds the route."""
    saved = kept_of(found).values() if is_readable(found) else ()
    return _names(content).union(*map(_names, saved))


def _names(rule: Object) -> set[str]:
    return {ref["name"] for ref in rule.get("backendRefs", [])}


def _by_route(rules: Rules) -> ByRoute:
    traffic = rules.strategy.traffic
    if not isinstance(traffic, ByRoute):
        raise TypeError("the strategy uses no HTTPRoute")
    return traffic


def _kind_of(ref: Object) -> tuple[str, str]:
    return ref.get("group", ""), ref.get("kind", "Service")


def _shown(backends: list[Object]) -> str:
    return ", ".join(f"{ref['name']}: {ref.get('weight', _DEFAULT_WEIGHT)}" for ref in backends) or "none"


def _shown_selector(selector: Object) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "none"
