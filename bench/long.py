"""One worker that rolls the same targets in turn for an hour: what it takes, and what Temporal keeps, stays flat.

Some rollouts at one time; every fifth has a bad version and comes back. Prints medians of each part of the time, and
ends with exit code 1 if the median of the last part is above the most of the first one after the warm-up.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from figures import print_rows
from procs import taken
from segue_local import Stack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from harness import Lab, open_lab
from scraping import free_address, sample
from stacks import plain_stack

from segue import contract

REPLICAS, SAMPLE_S, PARTS = 2, 15.0, 6
"""The first of the parts is the warm-up."""
MAY_GROW = 1.1
READINESS = {"minReady": "0s", "deadline": "10m"}


class Sample(NamedTuple):
    """What the worker takes at one time, and Temporal's memory."""

    rss_mib: float
    files: float
    threads: float
    tasks: float
    temporal_mib: float


class Ended(NamedTuple):
    """One rollout that has ended, and its history."""

    outcome: str
    took_s: float
    events: float
    kib: float


@dataclass
class Part:
    """One part of the time."""

    samples: list[Sample] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)

    def figures(self, of: Callable[[Iterable[float]], float] = statistics.median) -> dict[str, float]:
        """Return one value of each figure; the histories' only of completed rollouts, because the others vary."""
        good = [each for each in self.ended if each.outcome == "Completed"]
        columns: dict[str, Iterable[float]] = {
            **dict(zip(Sample._fields, zip(*self.samples, strict=True), strict=False)),
            "events": [each.events for each in good],
            "kib": [each.kib for each in good],
        }
        return {name: of(values) for name, values in columns.items()}


class Long:
    """The targets of one lab, rolled in turn by one worker until the time is over."""

    def __init__(self, lab: Lab, stack: Stack, targets: int, minutes: float) -> None:
        self._lab, self._names = lab, [f"chat-{number}" for number in range(targets)]
        self._metrics = free_address()
        self._worker = lab.worker(SEGUE_HEALTH_ADDRESS=self._metrics)
        self._temporal = next(part.pid for part in stack.status() if part.name == "temporal")
        self._began, self._seconds = time.monotonic(), minutes * 60
        self.parts = [Part() for _ in range(PARTS)]

    async def play(self, at_once: int) -> None:
        """Roll, so many at one time, and take samples meanwhile."""
        await self._worker.serves()
        for name in self._names:
            await self._lab.deploy(name, REPLICAS)
        self._began = time.monotonic()
        turns = itertools.cycle(self._names)
        numbers = itertools.count(2)
        busy: set[str] = set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample())
            for _ in range(at_once):
                group.create_task(self._roll(turns, numbers, busy))

    @property
    def _part(self) -> Part:
        return self.parts[min(PARTS - 1, int((time.monotonic() - self._began) / self._seconds * PARTS))]

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self._began + self._seconds

    async def _roll(self, turns: Iterator[str], numbers: Iterator[int], busy: set[str]) -> None:
        while not self._is_over:
            name = next(each for each in turns if each not in busy)
            busy.add(name)
            self._part.ended.append(await self._rolled(name, next(numbers)))
            busy.discard(name)

    async def _rolled(self, name: str, number: int) -> Ended:
        image, mode = f"example/chat:{number}", "ready" if number % 5 else "crash-loop"
        patch = {
            "metadata": {"labels": {"segue.dev/fake": mode}},
            "spec": {"containers": [{"name": "server", "image": image}]},
        }
        began = time.monotonic()
        run = await self._lab.start(name, {"patch": patch}, tuning=contract.Tuning(), readiness=READINESS)
        outcome = str((await run.end()).status.outcome)
        expected = "Completed" if mode == "ready" else "RolledBack"
        assert outcome == expected, f"{name} to {image}: {outcome}"
        info = (await run.handle.describe()).raw_description.workflow_execution_info
        return Ended(outcome, time.monotonic() - began, info.history_length, info.history_size_bytes / 1024)

    async def _sample(self) -> None:
        while not self._is_over:
            self._part.samples.append(await asyncio.to_thread(self._sampled))
            await asyncio.sleep(SAMPLE_S)

    def _sampled(self) -> Sample:
        pid = self._worker.process.pid
        place = Path(f"/proc/{pid}")
        assert self._temporal is not None
        return Sample(
            taken(pid).rss_mib,
            len(list((place / "fd").iterdir())),
            len(list((place / "task").iterdir())),
            sample(self._metrics, "segue_tasks"),
            taken(self._temporal).rss_mib,
        )


def judged(parts: Sequence[Part]) -> list[str]:
    """Print the parts, and return the names of the worker's and histories' figures that have grown."""
    found = [part.figures() for part in parts]
    names = list(found[0])
    print_rows([("", *(f"part {number}" for number in range(len(parts)))),
                ("rollouts ended", *(str(len(part.ended)) for part in parts)),
                *((name, *(f"{each.get(name, 0):.1f}" for each in found)) for name in names)])  # fmt: skip
    most = parts[1].figures(max)
    # Temporal's own memory follows what it keeps: each ended rollout, until the retention is over.
    return [name for name in names if name != "temporal_mib" and found[-1][name] > most[name] * MAY_GROW]


async def measure(stack: Stack, given: argparse.Namespace) -> int:
    async with open_lab(stack) as lab:
        long = Long(lab, stack, given.targets, given.minutes)
        await long.play(given.at_once)
    grown = judged(long.parts)
    print("flat" if not grown else f"has grown by more than {MAY_GROW - 1:.0%}: {', '.join(grown)}")
    return 1 if grown else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=4, help="rollouts at one time")
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args()
    if given.targets < given.at_once:
        parser.error(f"--targets: {given.targets} cannot be rolled {given.at_once} at one time")
    if given.minutes * 60 < PARTS * SAMPLE_S:
        parser.error(
            f"--minutes: {given.minutes:g} leaves a part without a sample; give {PARTS * SAMPLE_S / 60:g} or more"
        )
    with plain_stack("long") as stack:
        return asyncio.run(measure(stack, given))


if __name__ == "__main__":
    sys.exit(main())
