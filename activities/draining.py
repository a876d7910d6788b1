"""Takes the next old replicas to remove out of their Services, and polls their servers until they are empty.

It runs beside the watch because it may take minutes, and commands of a person must take effect at once. If the worker
dies, only readiness conditions remain, which the kubelets restore within ten seconds.
"""

import asyncio
import math
import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from activities.cluster import Cluster
from activities.levers.draining import are_out
from activities.pod_http import AT_ONCE, PodEndpoint, Reach
from activities.probes.base import ProbeRequest
from segue.contract import WatchInput
from segue.draining import Emptying, added_up, next_to_empty
from segue.errors import SegueError
from segue.observation import Emptiness, Observation
from segue.replica import Replica
from segue.spec import Drain
from segue.spec.drain_until import Until

ASK_S = 0.5
ANSWER_S = 3.0
STALE_S = 5.0
"""What was known so long ago no longer counts: this worker did not run, and kubelets restore readiness meanwhile."""
LINGER_S = 5.0
"""A rollout not observed for this long is watched by another worker, or has ended."""


class Emptyings:
    """All rollouts of a worker that wait for old replicas to become empty."""

    def __init__(self, cluster: Cluster, reach: Reach) -> None:
        self._cluster, self._reach = cluster, reach
        self._open: dict[str, _Emptied] = {}

    def look(self, request: WatchInput, seen: Observation, wake: Callable[[], None]) -> Observation:
        """Return the observation with the progress of emptying. Each change calls ``wake``."""
        owner, drain, began = request.state.owner, request.rules.drain, request.state.emptying
        found = self._open.get(owner)
        if found is not None and (began is None or found.began != began or found.is_over):
            self._open.pop(owner).stop()
            found = None
        if drain is None or drain.until is None or began is None:
            return seen
        if found is None:
            found = self._open[owner] = _Emptied(self._cluster, self._reach, request, drain, drain.until, began)
        return seen.model_copy(update={"emptiness": found.latest(seen, wake)})

    async def close(self) -> None:
        """Stop polling, and close all connections."""
        for found in self._open.values():
            found.stop()
        self._open.clear()
        await self._reach.close()


class _Emptied:
    """The old replicas of one rollout that are removed next."""

    def __init__(
        self, cluster: Cluster, reach: Reach, request: WatchInput, drain: Drain, until: Until, began: Emptying
    ) -> None:
        self.began = began
        self._cluster, self._reach, self._drain, self._until = cluster, reach, drain, until
        self._namespace, self._baseline = request.target.namespace, request.state.baseline.template
        self._found: Emptiness | None = None
        self._since: float | None = None
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._seen: Observation | None = None
        self._looked_at = self._noted_at = time.monotonic()
        self._wake: Callable[[], None] = lambda: None
        self._task = asyncio.create_task(self._ask_on(), name=f"emptying-{request.target}")

    @property
    def is_over(self) -> bool:
        return self._task.done()

    def latest(self, seen: Observation, wake: Callable[[], None]) -> Emptiness | None:
        self._seen, self._wake, self._looked_at = seen, wake, time.monotonic()
        return self._found.model_copy(update={"since": None}) if self._found and self._is_stale() else self._found

    def _is_stale(self) -> bool:
        return time.monotonic() > self._noted_at + STALE_S

    def stop(self) -> None:
        self._task.cancel()

    async def _ask_on(self) -> None:
        while time.monotonic() < self._looked_at + LINGER_S:
            if self._seen is not None:
                self._note(await self._ask_all(self._seen))
            await asyncio.sleep(ASK_S)

    def _note(self, found: Emptiness) -> None:
        is_empty = found.out and not found.unknown and not found.running
        before = None if self._is_stale() else self._since
        self._since = (before or self._cluster.clock.now()) if is_empty else None
        self._noted_at = time.monotonic()
        self._found = found.model_copy(update={"since": self._since})
        self._wake()

    async def _ask_all(self, seen: Observation) -> Emptiness:
        going = next_to_empty(seen.pods.old, self._baseline, self.began.old)
        try:
            out = not going or await are_out(self._cluster, self._namespace, {replica.name for replica in going})
        except SegueError as error:
            return Emptiness(number=len(going), unknown=str(error))
        answers = await asyncio.gather(*(self._ask(replica) for replica in going))
        unknown = [f"{replica.name}: {why}" for replica, (_, why) in zip(going, answers, strict=True) if why]
        running = sum(number for number, _ in answers)
        return Emptiness(number=len(going), out=out, running=running, unknown=unknown[0] if unknown else "")

    async def _ask(self, replica: Replica) -> tuple[float, str]:
        """Return how many requests one server has, and why the number is unknown."""
        place = PodEndpoint(self._namespace, replica, self._until.where)
        async with self._at_once:
            reply = await self._reach.ask(place, ProbeRequest("GET", self._until.path), {}, ANSWER_S)
        if reply.trouble or reply.unsent or reply.status != 200:
            return 0.0, reply.trouble or reply.unsent or f"answers {reply.status} at {self._until.path}"
        try:
            return added_up(self._until, read_numbers(reply.text, self._until))
        except ValueError as error:
            return 0.0, f"its metrics cannot be read: {error}"


def read_numbers(text: str, until: Until) -> dict[str, float]:
    """Add up the samples of each wanted metric over all of its labels.

    Only lines that begin with a wanted name are parsed: parsing a whole page of 1 MiB blocks the worker for a second.

    Raises:
        ValueError: if such a line is no sample, or its number is NaN or negative.
    """
    found: dict[str, float] = {}
    lines = [line for line in text.splitlines() if line.startswith(until.names)]
    for family in text_string_to_metric_families("\n".join(lines)):
        for sample in family.samples:
            if sample.name in until.names:
                if math.isnan(sample.value) or sample.value < 0:
                    raise ValueError(f"{sample.name} is {sample.value:g}")
                found[sample.name] = found.get(sample.name, 0.0) + float(sample.value)
    return found
