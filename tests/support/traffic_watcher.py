"""A watcher of traffic routing, which shares no code with Segue.

It receives every event of pods, Services and HTTPRoutes of a namespace. Streams of different kinds can overtake each
other, so it sorts the events by resource version, which counts all writes of the common store.
"""

import functools
import itertools
from typing import Any, NamedTuple

from kubernetes import client
from watcher import Stream, is_live, is_ready

GROUP, VERSION, PLURAL = "gateway.networking.k8s.io", "v1", "httproutes"


class Moment(NamedTuple):
    """The state after one event."""

    led: tuple[tuple[str, int], ...]
    """(destination, percent): from a Service's selector, or the backends of a route."""
    ready: tuple[int, ...]
    """The number of ready pods of each destination."""
    pods: tuple[tuple[str, int], ...]
    """(side, live pods), by their label ``side``."""
    event: str


class _Record(Stream):
    """A stream that keeps every event."""

    def __init__(self, kind: str, read: Any, selector: str = "") -> None:
        super().__init__(read, selector, lambda _: None)
        self.kind = kind
        self.events: list[tuple[int, str, str, Any]] = []

    def _list_anew(self, why: str) -> str:
        version = super()._list_anew(why)
        self.events += [(int(o["metadata"]["resourceVersion"]), self.kind, why, o) for o in self.objects.values()]
        return version

    def _take(self, kind: str, found: Any) -> str:
        version = super()._take(kind, found)
        self.events.append((int(version), self.kind, kind, found))
        return version


class TrafficWatcher:
    """Watches one Service or HTTPRoute and a target's pods, from entry to exit of its context."""

    def __init__(self, api: client.ApiClient, namespace: str, pods: str, *, service: str = "", route: str = "") -> None:
        core = client.CoreV1Api(api)
        self._service, self._route = service, route
        self._streams = [
            _Record("pods", functools.partial(core.list_namespaced_pod, namespace), pods),
            _Record("services", functools.partial(core.list_namespaced_service, namespace)),
        ]
        if route:
            custom = client.CustomObjectsApi(api).list_namespaced_custom_object
            self._streams.append(_Record("routes", functools.partial(custom, GROUP, VERSION, namespace, PLURAL)))

    def __enter__(self) -> "TrafficWatcher":
        for stream in self._streams:
            stream.start()
        return self

    def __exit__(self, *raised: object) -> None:
        for stream in self._streams:
            if not any(raised):
                stream.catch_up()
            stream.stop()

    def moments(self) -> list[Moment]:
        """Return the state after each event, in the store's order, without those before everything was listed."""
        for stream in self._streams:
            assert stream.error is None, stream.error
        events = sorted((e for s in self._streams for e in s.events), key=lambda event: event[0])
        there: dict[str, dict[str, Any]] = {stream.kind: {} for stream in self._streams}
        listed = sum(event[2] == "list" for event in events)
        found = []
        for number, (_, kind, event, thing) in enumerate(events, 1):
            name = thing["metadata"]["name"]
            if event == "DELETED":
                there[kind].pop(name, None)
            else:
                there[kind][name] = thing
            if number >= listed:
                found.append(self._moment(there, f"{event} {kind} {name}"))
        return found

    def _moment(self, there: dict[str, dict[str, Any]], event: str) -> Moment:
        pods = [p for p in there["pods"].values() if is_live(p)]
        sides: dict[str, int] = {}
        for pod in pods:
            side = pod["metadata"]["labels"].get("side", "")
            sides[side] = sides.get(side, 0) + 1
        if self._route:
            refs = there["routes"][self._route]["spec"]["rules"][0]["backendRefs"]
            led = tuple((ref["name"], ref.get("weight", 1)) for ref in refs if ref.get("weight", 1))
            selectors = [there["services"][name]["spec"]["selector"] for name, _ in led]
        else:
            selectors = [there["services"][self._service]["spec"]["selector"]]
            led = ((selectors[0].get("side", "both"), 100),)
        ready = tuple(
            sum(is_ready(p) and s.items() <= p["metadata"]["labels"].items() for p in pods) for s in selectors
        )
        return Moment(led, ready, tuple(sorted(sides.items())), event)

    def assert_served(self, floor: int = 1) -> None:
        """Assert that traffic never goes to a destination with fewer than ``floor`` ready pods."""
        moments = self.moments()
        for number, moment in enumerate(moments):
            context = "\n".join(map(str, moments[max(0, number - 6) : number + 2]))
            assert all(ready >= floor for ready in moment.ready), f"under {floor} at {number}:\n{context}"

    def sequence(self) -> list[tuple[tuple[str, int], ...]]:
        """Return the successive destinations."""
        found: list[tuple[tuple[str, int], ...]] = []
        for moment in self.moments():
            if not found or found[-1] != moment.led:
                found.append(moment.led)
        return found

    def at_switches(self) -> list[Moment]:
        """Return the moments at which the destination changed."""
        moments = self.moments()
        return [after for before, after in itertools.pairwise(moments) if before.led != after.led]
