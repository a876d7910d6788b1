"""``make bench``, second part: real model servers under constant traffic, rolled by Segue and by the plain Deployment.

Both move by the same budget on the same node in one run. The plain one gets the PATCH that ``kubectl set image`` would
send (there is no kubectl here), and for the bad version the image of before, in the moment of its first symptom.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from figures import numbers, print_rows, seconds
from segue_local import Stack, node_is_possible

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from harness import open_lab, until
from serving import MLSERVER, RATE, Serving
from stacks import node_stack
from watcher import PodWatcher

REPLICAS, SURGE, BAD = 4, 1, "cannot-load"
BUDGET = {"maxSurge": SURGE, "maxUnavailable": 0}
LIMIT_S = 180.0
MIN_READY_S = (0, 1)
"""Without it the ratio shows what each move costs; with it, what the documentation recommends."""


@dataclass(frozen=True)
class Measured:
    """One rollout under traffic."""

    took_s: float
    all_ready_s: float
    """Of it, the time in which every replica that was there was Ready: what is added to the servers' own start."""
    recovered_s: float
    """From the beginning until all replicas of before served again, for the last time; 0 where they always did."""
    requests: int
    failed: int
    fewest_ready: int


Way = Callable[[Serving, str, str], Awaitable[None]]


async def by_segue(serving: Serving, name: str, tag: str) -> None:
    """Start a rollout; it comes back by itself."""
    min_ready_s = serving.lab.raw(name)["spec"].get("minReadySeconds", 0)
    readiness = {"minReady": f"{min_ready_s}s", "deadline": "3m"}
    await serving.lab.start(name, MLSERVER.change(tag), strategy=BUDGET, readiness=readiness)


async def by_kubectl(serving: Serving, name: str, tag: str) -> None:
    """Set the image; the Deployment's own controller rolls."""
    containers = [{"name": "server", "image": f"{MLSERVER.image}:{tag}"}]
    serving.lab.patch(name, {"spec": {"template": {"spec": {"containers": containers}}}})


def runs_only(watcher: PodWatcher, tag: str) -> bool:
    """Whether all replicas are of one version, ready, and alone."""
    ready = [(image, total, ready) for image, total, ready in watcher.samples[-1].by_image if total]
    return [(total, ready) for _, total, ready in ready] == [(REPLICAS, REPLICAS)] and f":{tag} " in ready[0][0]


async def under_traffic(serving: Serving, name: str, tag: str, roll: Callable[[], Awaitable[float]]) -> Measured:
    """Roll while requests come, until every pod whose stop was requested is gone."""
    with serving.traffic(name) as load, serving.lab.watch(name) as watcher:
        began_s = await roll()
        await until(f"only {tag}", lambda: runs_only(watcher, tag), LIMIT_S)
        took_s = time.monotonic() - began_s
        await until("the old ones to end", lambda: not watcher.samples[-1].leaving, LIMIT_S)
        outcomes = await asyncio.to_thread(load.stop)
    assert not outcomes.dropped, "the load was not constant"
    short = [sample.at - began_s for sample in watcher.samples if sample.ready < REPLICAS]
    return Measured(
        took_s,
        all_ready_s(watcher, began_s, began_s + took_s),
        max([0.0, *short]),
        len(outcomes.requests),
        len(outcomes.failed),
        watcher.fewest_ready,
    )


def all_ready_s(watcher: PodWatcher, began_s: float, ended_s: float) -> float:
    """Add up the time between two moments, in seconds, in which every replica that was there was Ready."""
    begins = [(max(sample.at, began_s), sample.ready == sample.total) for sample in watcher.samples]
    ends = [*(at for at, _ in begins[1:]), ended_s]
    return sum(max(0.0, min(end, ended_s) - at) for (at, ready), end in zip(begins, ends, strict=True) if ready)


async def rollout(serving: Serving, name: str, tag: str, way: Way) -> Measured:
    """Measure from the start of a good version until it runs alone."""

    async def roll() -> float:
        # What came before ended with a tick of the kubelet, which looks once a second: neither side may keep its step.
        await asyncio.sleep(random.random())
        began_s = time.monotonic()
        await way(serving, name, tag)
        return began_s

    return await under_traffic(serving, name, tag, roll)


async def rollback(serving: Serving, name: str, tag: str, way: Way) -> Measured:
    """Measure from a bad version's first symptom until the one of before runs alone again."""

    async def roll() -> float:
        await way(serving, name, BAD)
        await until("the first symptom", lambda: any(map(has_ended, serving.lab.pods(name, BAD))), LIMIT_S)
        began_s = time.monotonic()
        if way is by_kubectl:
            await by_kubectl(serving, name, tag)
        return began_s

    return await under_traffic(serving, name, tag, roll)


def has_ended(pod: Any) -> bool:
    """Whether a container of it has ended since it began."""
    states = [(c.state, c.last_state) for c in pod.status.container_statuses or []]
    return any(each and each.terminated for pair in states for each in pair)


async def measure(stack: Stack, rounds: int, folder: Path, min_ready_s: int) -> None:
    """Roll each way in turn, with the same time that a new replica must be ready before it counts."""
    assert stack.node is not None
    found: dict[tuple[str, str], list[Measured]] = {}
    ways: dict[str, Way] = {"plain": by_kubectl, "Segue": by_segue}
    async with open_lab(stack) as lab:
        serving = Serving(lab, stack.node, folder)
        lab.worker()
        for name in ways:
            await serving.deploy(
                name.lower(),
                MLSERVER,
                REPLICAS,
                minReadySeconds=min_ready_s,
                strategy={"type": "RollingUpdate", "rollingUpdate": BUDGET},
            )
        for number in range(rounds):
            tag = "v1" if number % 2 else "v2"
            for name, way in ways.items():
                found.setdefault((name, "rollout"), []).append(await rollout(serving, name.lower(), tag, way))
                found.setdefault((name, "rollback"), []).append(await rollback(serving, name.lower(), tag, way))
                await until("a free target", partial(is_free, serving, name.lower()), LIMIT_S)
    _print(found, rounds, min_ready_s)


def is_free(serving: Serving, name: str) -> bool:
    """Whether no rollout holds it: the next one may begin."""
    return "segue.dev/rollout" not in serving.lab.raw(name)["metadata"].get("annotations", {})


def _print(found: dict[tuple[str, str], list[Measured]], rounds: int, min_ready_s: int) -> None:
    head = f"{REPLICAS} MLServers, surge {SURGE}, minReady {min_ready_s} s, {RATE} requests/s, {rounds} rounds"
    rows: list[tuple[str, ...]] = [(head, "median", "min", "max")]
    titles = {"rollout": "a good version", "rollback": "a bad one, from its first symptom"}
    for what, title in titles.items():
        for way in ("plain", "Segue"):
            measured = found[way, what]
            rows += [
                (f"{title}: {way}, until one version runs alone", *seconds([m.took_s for m in measured], 1)),
                ("    of it, every replica that was there was ready", *seconds([m.all_ready_s for m in measured], 2)),
                ("    full capacity again after", *seconds([m.recovered_s for m in measured], 1)),
                (
                    f"    failed requests of {sum(m.requests for m in measured)}",
                    *numbers([m.failed for m in measured], 0),
                ),
                ("    fewest ready", *numbers([m.fewest_ready for m in measured], 0)),
            ]
    ours, theirs = ([m.took_s for m in found[way, "rollout"]] for way in ("Segue", "plain"))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    rows.append(("ratio of the good ones, pair by pair", *numbers(ratios, 2)))
    rows.append(("    all of them together", f"{sum(ours) / sum(theirs):.2f}", "", ""))
    print_rows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rollouts and rollbacks of each")
    arguments = parser.parse_args()
    hindrance = node_is_possible()
    if hindrance:
        sys.exit(f"not measured: {hindrance}")
    with node_stack("bench") as stack, tempfile.TemporaryDirectory() as folder:
        for min_ready_s in MIN_READY_S:
            own = Path(folder) / str(min_ready_s)
            own.mkdir()
            asyncio.run(measure(stack, arguments.rounds, own, min_ready_s))


if __name__ == "__main__":
    main()
