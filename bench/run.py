"""``make bench``: Segue beside the plain Deployment controller, on the same servers in one run.

These machines are shared and noisy: compare ratios and medians of one run, never single times of two.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from figures import numbers, percentile, print_rows, seconds
from segue_local import Stack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from harness import Lab, open_lab, until
from stacks import plain_stack

REPLICAS, SURGE, READY_AFTER = 10, 2, "2s"
LIMIT_S = 180.0
STRATEGY = {"maxSurge": SURGE, "maxUnavailable": 0}


class Timeline:
    """When new pods became Ready and when the Deployment was written, as watches told it: seconds, monotonic."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.ready: list[float] = []
        self.writes: list[float] = []
        self._lab = lab
        self._known = {p.metadata.name for p in lab.pods(name)}
        self._generation = lab.raw(name)["metadata"]["generation"]
        self._responses: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator["Timeline"]:
        watches = (
            (self._lab.core.list_namespaced_pod, self._pod),
            (self._lab.apps.list_namespaced_deployment, self._write),
        )
        threads = [threading.Thread(target=self._follow, args=each, daemon=True) for each in watches]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for response in self._responses:
                response.shutdown()
            for thread in threads:
                thread.join(timeout=10)

    def _follow(self, listing: Any, take: Any) -> None:
        """Read one watch, without turning its objects into models: that would take longer than what is measured."""
        version = json.loads(listing(self._lab.namespace, _preload_content=False).data)["metadata"]["resourceVersion"]
        response = listing(
            self._lab.namespace,
            resource_version=version,
            watch=True,
            timeout_seconds=int(LIMIT_S),
            _preload_content=False,
        )
        self._responses.append(response)
        rest = b""
        with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):  # it was shut down
            for chunk in response.stream(amt=None, decode_content=False):
                now = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    take(json.loads(line)["object"], now)

    def _pod(self, found: Any, now: float) -> None:
        name, conditions = found["metadata"]["name"], found.get("status", {}).get("conditions", [])
        if name not in self._known and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            self._known.add(name)
            self.ready.append(now)

    def _write(self, found: Any, now: float) -> None:
        generation = found["metadata"]["generation"]
        if generation > self._generation:
            self._generation = generation
            if not found["spec"].get("paused"):  # a pause ends a move, and begins none
                self.writes.append(now)

    @property
    def ready_to_write_s(self) -> list[float]:
        """For each pod, the time from its Ready to the next write."""
        nexts = ((ready, min((w for w in self.writes if w >= ready), default=None)) for ready in self.ready)
        return [write - ready for ready, write in nexts if write is not None]


@dataclass(frozen=True)
class Measured:
    """One rollout by Segue."""

    took_s: float
    ready_to_write_s: list[float]
    moves: int
    events: int
    writes: int


async def segue_once(lab: Lab, name: str) -> Measured:
    """Measure one rollout, from its start to its report."""
    await lab.deploy(name, REPLICAS, ready_after=READY_AFTER)
    with Timeline(lab, name).recording() as timeline:
        began = time.monotonic()
        run = await lab.start(name, strategy=STRATEGY)
        report = await run.end(LIMIT_S)
        took = time.monotonic() - began
    assert report.status.outcome == "Completed", report
    events = len((await run.handle.fetch_history()).events)
    lab.apps.delete_namespaced_deployment(name, lab.namespace)
    return Measured(took, timeline.ready_to_write_s, report.status.moves, events, report.writes)


async def plain_once(lab: Lab, name: str) -> float:
    """Return the seconds of the Deployment controller's own rolling update, by the same budget."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": STRATEGY}
    await lab.deploy(name, REPLICAS, ready_after=READY_AFTER, strategy=rolling)
    began = time.monotonic()
    lab.patch(name, {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "example/chat:2"}]}}}})
    generation = lab.raw(name)["metadata"]["generation"]

    def is_done() -> bool:
        status = lab.raw(name)["status"]
        counts = {status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas")}
        return bool(status["observedGeneration"] >= generation and counts == {REPLICAS})

    await until(f"{name} to be rolled", is_done, LIMIT_S)
    took = time.monotonic() - began
    lab.apps.delete_namespaced_deployment(name, lab.namespace)
    return took


async def measure(stack: Stack, rounds: int) -> None:
    ours: list[Measured] = []
    plain: list[float] = []
    async with open_lab(stack) as lab:
        lab.worker()
        await segue_once(lab, "warm-up")
        for number in range(rounds):
            plain.append(await plain_once(lab, f"plain-{number}"))
            ours.append(await segue_once(lab, f"segue-{number}"))
    _print(ours, plain)


def _print(ours: list[Measured], plain: list[float]) -> None:
    """Print the table. A step is one move that was written: some replicas of either side, as soon as some are ready."""
    gaps = [gap for each in ours for gap in each.ready_to_write_s]
    ratios = [a.took_s / b for a, b in zip(ours, plain, strict=True)]
    rows = [
        (f"{REPLICAS} replicas, Ready after {READY_AFTER}, surge {SURGE}", "median", "min", "max"),
        ("Segue, total", *seconds([each.took_s for each in ours])),
        ("plain Deployment controller, total", *seconds(plain)),
        ("ratio, pair by pair", *numbers(ratios, 2)),
        ("Ready to next write", *seconds(gaps)),
        ("Ready to next write, 99th percentile", f"{percentile(gaps, 0.99):.3f} s", "", ""),
        ("steps", *numbers([each.moves for each in ours], 0)),
        ("history events a step (at most 30)", *numbers([each.events / each.moves for each in ours], 1)),
        ("API writes a step (at most 3)", *numbers([each.writes / each.moves for each in ours], 1)),
    ]
    print_rows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rollouts")
    arguments = parser.parse_args()
    with plain_stack("bench") as stack:
        asyncio.run(measure(stack, arguments.rounds))


if __name__ == "__main__":
    main()
