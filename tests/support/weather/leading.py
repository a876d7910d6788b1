"""What leads users to the two sides of a pair: an HTTPRoute with its gateway, or a Service that is switched."""

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from gateway import Gateway
from kube_api import create
from subjects import IMAGE, PairSubject
from traffic_watcher import GROUP, PLURAL, VERSION

from weather.eyes import Follower
from weather.judge import Lead

SIDE = "side"
"""The label in which the two sides differ."""
OLD, NEW = "old", "new"
OURS = ("segue.dev/rollout", "segue.dev/traffic")


class LedPair(PairSubject):
    """A pair whose sides differ in a label, so that a Service can select one of them."""

    @staticmethod
    def changed(version: int, mode: str = "") -> dict[str, Any]:
        """Return a change to another version on the new side."""
        labels = {SIDE: NEW, **({"segue.dev/fake": mode} if mode else {})}
        containers = [{"name": "server", "image": f"{IMAGE}:{version}"}]
        return {"patch": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}

    async def create(self, replicas: int, **more: Any) -> None:
        """Create the old side, and wait until it serves."""
        await self.lab.deploy(self.name, replicas, labels={SIDE: OLD}, **more)


class Leading:
    """What leads users to the sides of one pair, and each place to which it led them."""

    def __init__(self, subject: LedPair, traffic: dict[str, Any]) -> None:
        self._lab, self._name, self._by_route = subject.lab, subject.name, "route" in traffic
        for side in (OLD, NEW):
            self._service(f"{self._name}-{side}", side)
        if self._by_route:
            self._route()
        else:
            self._service(self._name, OLD)
        self._before = self._leads_to(self._read())
        self.leads: list[Lead] = []
        self._follower = Follower(self._listing(), "", self._see)
        self.gateway: Gateway | None = None

    @contextlib.asynccontextmanager
    async def answered(self) -> AsyncIterator["Leading"]:
        """Let a gateway answer for the route, as long as the context lasts."""
        if not self._by_route:
            yield self
            return
        async with Gateway(self._lab.core.api_client, self._lab.namespace, self._name) as self.gateway:
            yield self

    def close(self) -> None:
        """Observe the last events, and stop."""
        self._follower.stop()

    def weigh(self, weight: int) -> None:
        """Give the new side this many percent, as somebody else; a Service leads to the old side."""
        if not self._by_route:
            patch = {"spec": {"selector": {SIDE: OLD}}}
            self._lab.core.patch_namespaced_service(self._name, self._lab.namespace, patch, field_manager="a-person")
            return
        rules = self._read()["spec"]["rules"]
        rules[0]["backendRefs"] = [self._backend(OLD, 100 - weight), self._backend(NEW, weight)]
        self._write(rules)

    def put_back(self) -> None:
        """Write the route as it was before, as a person does who is told to; nothing for a Service."""
        if self._by_route:
            self._write(self._before)

    def _write(self, rules: list[dict[str, Any]]) -> None:
        place = (GROUP, VERSION, self._lab.namespace, PLURAL, self._name)
        patch = {"spec": {"rules": rules}}
        self._lab.custom.patch_namespaced_custom_object(*place, patch, field_manager="a-person")

    def differences(self, outcome: str) -> Iterator[str]:
        """Yield what is not as it has to be after a rollout with this outcome."""
        found = self._read()
        now = self._leads_to(found)
        if outcome != "Completed" and now != self._before:
            yield f"what leads users, from {self._before} to {now}"
        if outcome == "Completed" and self._shares(found) != {NEW}:
            yield f"what leads users: to {now} and not to the new side alone"
        left = _ours(found)
        if left:
            yield f"the annotations of what leads users: it keeps {left}"

    def is_held(self) -> bool:
        """Whether the rollout holds it: it claims it after the target, and releases it before."""
        return bool(_ours(self._read()))

    def _see(self, _: str, found: dict[str, Any], revision: int) -> None:
        if self._name in found:
            shares = frozenset(self._shares(found[self._name]))
            if not self.leads or self.leads[-1].sides != shares:
                self.leads.append(Lead(time.monotonic(), revision, shares))

    def _shares(self, found: dict[str, Any]) -> set[str]:
        """Return the sides that get users."""
        if not self._by_route:
            return {found["spec"]["selector"].get(SIDE, "")}
        backends = found["spec"]["rules"][0]["backendRefs"]
        return {str(each["name"]).rpartition("-")[2] for each in backends if each.get("weight", 1)}

    def _leads_to(self, found: dict[str, Any]) -> Any:
        return found["spec"]["rules"] if self._by_route else found["spec"]["selector"]

    def _listing(self) -> Any:
        if not self._by_route:
            return functools.partial(self._lab.core.list_namespaced_service, self._lab.namespace)
        place = (GROUP, VERSION, self._lab.namespace, PLURAL)
        return functools.partial(self._lab.custom.list_namespaced_custom_object, *place)

    def _read(self) -> dict[str, Any]:
        if self._by_route:
            place = (GROUP, VERSION, self._lab.namespace, PLURAL, self._name)
            route: Any = self._lab.custom.get_namespaced_custom_object(*place)
            return {**route}
        found: Any = self._lab.core.read_namespaced_service(self._name, self._lab.namespace)
        return dict(self._lab.core.api_client.sanitize_for_serialization(found))

    def _service(self, name: str, side: str) -> None:
        selector = {"app": self._name, SIDE: side}
        body = {"metadata": {"name": name}, "spec": {"selector": selector, "ports": [{"port": 80}]}}
        create(self._lab.core.create_namespaced_service, self._lab.namespace, body)

    def _route(self) -> None:
        rules = [{"backendRefs": [self._backend(OLD, 1)]}]
        body = {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": "HTTPRoute", "metadata": {"name": self._name},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": rules},
        }  # fmt: skip
        self._lab.custom.create_namespaced_custom_object(GROUP, VERSION, self._lab.namespace, PLURAL, body)

    def _backend(self, side: str, weight: int) -> dict[str, Any]:
        return {"name": f"{self._name}-{side}", "port": 80, "weight": weight}


def _ours(found: dict[str, Any]) -> list[str]:
    return sorted(set(OURS) & set(found["metadata"].get("annotations") or {}))
