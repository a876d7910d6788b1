"""A watcher of pods that shares no code with Segue, and judges floor and ceiling independently.

It receives every event of the API server's watch of pods, in order. After each event it counts the pods that are not
terminating, and how many of them are Ready. It also adds up the requested replicas of the ReplicaSets.
"""

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from kubernetes import client

_CATCH_UP_S = 10.0
_PASSING_S = 1.0


class Sample(NamedTuple):
    """The pods after one event."""

    total: int
    ready: int
    by_image: tuple[tuple[str, int, int], ...]
    """(image and mode, total, ready) of each version."""
    event: str
    at: float = 0.0
    """The time of the event, in monotonic seconds."""
    leaving: int = 0
    """Terminating pods that still exist."""
    placed: int = 0
    """Pods that have a node, and so use their requests there, until the last of them has ended."""


class Stream:
    """One list and watch of one kind with one label: all current objects, and a call for each event, in order."""

    def __init__(self, read: Callable[..., Any], selector: str, on_event: Callable[[str], None]) -> None:
        self._read = functools.partial(read, label_selector=selector, _preload_content=False)
        self._on_event = on_event
        self.objects: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._last_outage: BaseException | None = None
        self._stopping = False
        self._response: Any = None

    def start(self) -> None:
        version = self._list_anew("list")
        self._thread = threading.Thread(target=self._follow, args=(version,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # no stream is open
            self._response.shutdown()
        self._thread.join(timeout=15)

    def catch_up(self) -> None:
        """Wait until all current objects of the API server were observed, so that no late event is missed."""
        ends = time.monotonic() + _CATCH_UP_S
        while self.error is None and time.monotonic() < ends:
            there = {p["metadata"]["name"]: p["metadata"]["resourceVersion"] for p in self._list()["items"]}
            seen = {name: p["metadata"]["resourceVersion"] for name, p in list(self.objects.items())}
            if there == seen:
                return
            time.sleep(0.02)
        self.error = self.error or AssertionError("the watcher did not catch up")

    def _list(self) -> Any:
        return json.loads(self._read(_request_timeout=10).data)

    def _list_anew(self, why: str) -> str:
        found = self._list()
        self.objects = {p["metadata"]["name"]: p for p in found["items"]}
        self._on_event(why)
        return str(found["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        while not self._stopping:
            try:
                self._response = self._read(
                    resource_version=version, watch=True, timeout_seconds=5, _request_timeout=30
                )
                for line in _lines(self._response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise client.ApiException(status=event["object"].get("code"), reason=str(event["object"]))
                    version = self._take(event["type"], event["object"])
            except client.ApiException as error:
                if self._stopping:
                    return
                if self._last_outage is None:
                    self.error = error
                    return
                # A restarted API server has lost the past (410), or has not loaded the rights yet (403).
                time.sleep(0.05)
                version = self._list_anew("list after an outage") if error.status == 410 else version
            except Exception as error:  # some tests restart the API server: continue from the same version
                self._last_outage = error
                time.sleep(0.05)

    def _take(self, kind: str, found: Any) -> str:
        name = found["metadata"]["name"]
        if kind == "DELETED":
            self.objects.pop(name, None)
        else:
            self.objects[name] = found
        self._on_event(f"{kind} {name}")
        return str(found["metadata"]["resourceVersion"])


class PodWatcher:
    """Watches the pods with one label, from entry to exit of its context.

    It also watches the requested replicas of their ReplicaSets: the API's own measure of ``maxSurge``.
    """

    def __init__(self, api: client.ApiClient, namespace: str, selector: str) -> None:
        core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self.samples: list[Sample] = []
        self.requested: list[int] = []
        """The requested replicas of all ReplicaSets together, after each event."""
        self.stopped_ready: list[str] = []
        """The pods that were Ready when their deletion began."""
        self.killed_at: set[float] = set()
        """The times at which a container was OOM-killed, in whole seconds since the epoch."""
        self.ended_at: set[float] = set()
        """The times at which any container of a pod that was not terminating ended, in the same unit."""
        self._stopped: set[str] = set()
        self._events = functools.partial(core.list_namespaced_event, namespace)
        self._pods = Stream(functools.partial(core.list_namespaced_pod, namespace), selector, self._sample)
        self._sets = Stream(functools.partial(apps.list_namespaced_replica_set, namespace), selector, self._ask)

    def __enter__(self) -> "PodWatcher":
        self._pods.start()
        self._sets.start()
        return self

    def __exit__(self, *raised: object) -> None:
        for stream in (self._pods, self._sets):
            if not any(raised):
                stream.catch_up()
            stream.stop()

    def _ask(self, event: str) -> None:
        self.requested.append(sum(rs["spec"].get("replicas", 0) for rs in self._sets.objects.values()))

    def _sample(self, event: str) -> None:
        live = [p for p in self._pods.objects.values() if is_live(p)]
        versions: dict[str, list[int]] = {}
        for pod in live:
            counts = versions.setdefault(_version(pod), [0, 0])
            counts[0] += 1
            counts[1] += is_ready(pod)
        leaving = [p for p in self._pods.objects.values() if "deletionTimestamp" in p["metadata"]]
        for pod in leaving:
            name = pod["metadata"]["name"]
            if name not in self._stopped and is_ready(pod):
                self.stopped_ready.append(name)
            self._stopped.add(name)
        by_image = tuple((v, c[0], c[1]) for v, c in sorted(versions.items()))
        ready, placed = sum(map(is_ready, live)), sum(map(_is_placed, self._pods.objects.values()))
        self.killed_at |= {at for pod in self._pods.objects.values() for at in _ends(pod, "OOMKilled")}
        self.ended_at |= {at for pod in live for at in _ends(pod)}
        self.samples.append(Sample(len(live), ready, by_image, event, time.monotonic(), len(leaving), placed))

    def mark(self) -> int:
        """Return the number of the next sample, to judge only samples from here on or up to here."""
        return len(self.samples)

    @property
    def fewest_ready(self) -> int:
        """Return the fewest pods that were Ready at once."""
        return min(s.ready for s in self.samples)

    @property
    def most_placed(self) -> int:
        """Return the most pods that had a node at once."""
        return max(s.placed for s in self.samples)

    @property
    def most(self) -> int:
        """Return the most pods that existed at once."""
        return max(s.total for s in self.samples)

    def assert_within(
        self, floor: int, ceiling: int, since: int = 0, until: int | None = None, *, passing: int = 0
    ) -> None:
        """Assert that no sample is under the floor or over the ceiling.

        If one write makes the target's own controller both add and remove pods (always in a rollback), its workers do
        not wait for each other: then up to ``passing`` extra pods may exist for less than a second. Even then, the
        requested replicas never exceed the ceiling.
        """
        for stream in (self._pods, self._sets):
            assert stream.error is None, stream.error
        if since == 0 and until is None:
            assert max(self.requested) <= ceiling, (
                f"{max(self.requested)} were requested, over the ceiling of {ceiling}"
            )
        over_since: float | None = None
        for number, sample in list(enumerate(self.samples))[since:until]:
            over_since = (over_since or sample.at) if sample.total > ceiling else None
            allowed = ceiling + (passing if over_since is not None and sample.at - over_since < _PASSING_S else 0)
            assert floor <= sample.ready and sample.total <= allowed, (
                f"sample {number} of {len(self.samples)}: {sample} is outside floor {floor}, ceiling {ceiling};\n"
                + "\n".join(map(str, self.samples[max(0, number - 6) : number + 3]))
                + f"\nthe controllers: {self._told_by_controllers()}"
            )

    def _told_by_controllers(self) -> str:
        """Return the controllers' events: a pod that none of them deleted was deleted by another writer."""
        prefixes = tuple({sample.event.split()[-1].rpartition("-")[0] for sample in self.samples} - {""})
        events: list[Any] = self._events().items
        found = sorted(events, key=lambda e: int(e.metadata.resource_version))
        mine = [e for e in found if e.involved_object.name.startswith(prefixes) and "controller" in str(e.source)]
        return "; ".join(f"{e.last_timestamp:%H:%M:%S} {e.message}" for e in mine if e.last_timestamp)


def _lines(response: Any) -> Any:
    rest = b""
    for chunk in response.stream(amt=None, decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())


def is_live(pod: Any) -> bool:
    """Return whether a pod has neither ended nor begun to terminate."""
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in (
        "Failed",
        "Succeeded",
    )


def is_ready(pod: Any) -> bool:
    """Return whether its Ready condition is true."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def _is_placed(pod: Any) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")


def _ends(pod: Any, reason: str = "") -> list[float]:
    """Return when containers of a pod ended, for one reason or any, as far as its status shows it."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    ended = [s["terminated"] for c in statuses for s in (c["state"], c["lastState"]) if "terminated" in s]
    return [datetime.fromisoformat(e["finishedAt"]).timestamp() for e in ended if reason in {"", e.get("reason")}]


def _version(pod: Any) -> str:
    mode = pod["metadata"].get("labels", {}).get("segue.dev/fake", "ready")
    return f"{pod['spec']['containers'][0]['image']} {mode}"
