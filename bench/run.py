"""``make bench``: Segue beside the plain Deployment controller, on the same servers in one run.

These machines are shared and noisy: compare ratios and medians of one run, never single times of two.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from figures import numbers, percentile, print_rows, seconds
from segue_local import Stack
from watches import watched

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from harness import Lab, open_lab, until
from stacks import plain_stack

REPLICAS, SURGE, READY_AFTER = 10, 2, "2s"
LIMIT_S = 180.0
STRATEGY = {"maxSurge": SURGE, "maxUnavailable": 0}


class Timeline:
    """When new pods became Ready and when the Deployment was written, as watches reported it: seconds, monotonic."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.ready: list[float] = []
        self.writes: list[float] = []
        self._lab = lab
        self._known = {p.metadata.name for p in lab.pods(name)}
        self._generation = lab.raw(name)["metadata"]["generation"]

    @contextmanager
    def recording(self) -> Iterator["Timeline"]:
        namespace = self._lab.namespace
        pods = partial(self._lab.core.list_namespaced_pod, namespace), self._pod
        deployments = partial(self._lab.apps.list_namespaced_deployment, namespace), self._write
        with watched(pods, deployments, limit_s=LIMIT_S):
            yield self

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
