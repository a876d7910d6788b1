"""Asks replicas for the states of their models, as long as what these do may count against a new one."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from activities.probes import modelmesh, openinference, tfserving, torchserve
from activities.probes.base import Request
from activities.reaching import Place, Reach
from segue.gates.loading import Ledger, LoadFailures, ModelSeen, in_bootstrap
from segue.gates.serving import Reply
from segue.observation import Problem
from segue.replica import Pods, Replica

ANSWER_S = 5.0
MAX_OTHERS = 32
"""Old replicas that are asked: some tell enough of what is loaded elsewhere."""
FORGOTTEN_S = 10.0
"""A target that nobody looks at for so long is not asked any more."""


log = logging.getLogger(__name__)


class Loads:
    """What is known of one target's models; asks while a new replica is within its bootstrap period."""

    def __init__(self, reach: Reach, namespace: str, room: asyncio.Semaphore) -> None:
        self._reach, self._namespace, self._room = reach, namespace, room
        self._ledger = Ledger()
        self._pods = Pods()
        self._asked: set[str] = set()
        """The incarnations that were asked by this worker, whatever they answered."""
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] = lambda: None

    def look(self, rules: LoadFailures, pods: Pods, now: float, wake: Callable[[], None]) -> None:
        """Take note of who is there, and ask as long as it counts."""
        self._pods, self._looked_at, self._wake = pods, now, wake
        self._ledger.keep((*pods.old, *pods.new))
        self._asked &= {r.incarnation for r in (*pods.old, *pods.new)}
        if self._counting(rules, now) and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask_on(rules), name=f"loads-{self._namespace}")

    def was_asked(self, rules: LoadFailures, replica: Replica, now: float) -> bool:
        """Whether this worker knows what there is to know of a replica."""
        return replica.incarnation in self._asked or not in_bootstrap(rules, replica, now)

    def problem(self, rules: LoadFailures, replica: Replica, now: float) -> Problem | None:
        """Say what its models have against a replica."""
        return self._ledger.problem(rules, replica, now)

    @property
    def grew_at(self) -> float:
        """When another model was loaded: seconds since the epoch."""
        return self._ledger.grew_at

    def _counting(self, rules: LoadFailures, now: float) -> list[Replica]:
        return [r for r in self._pods.new if r.address and in_bootstrap(rules, r, now)]

    async def _ask_on(self, rules: LoadFailures) -> None:
        while True:
            now = time.time()
            counting = self._counting(rules, now)
            if not counting or now > self._looked_at + FORGOTTEN_S:
                return
            # What is loaded elsewhere is known first: a failure is judged when it is seen.
            others = [r for r in self._pods.old if r.ready_since is not None][:MAX_OTHERS]
            await self._ask_all(rules, others)
            await self._ask_all(rules, counting)
            self._wake()
            await asyncio.sleep(rules.interval.total_seconds())

    async def _ask_all(self, rules: LoadFailures, replicas: Sequence[Replica]) -> None:
        await asyncio.gather(*(self._ask_one(rules, replica) for replica in replicas))

    async def _ask_one(self, rules: LoadFailures, replica: Replica) -> None:
        try:
            await self._note_one(rules, replica)
        except Exception:  # as in believing: what is not told is not believed, within its period
            log.exception("model states of %s/%s", self._namespace, replica.name)
        self._asked.add(replica.incarnation)

    async def _note_one(self, rules: LoadFailures, replica: Replica) -> None:
        async with self._room:
            if rules.protocol == "modelMesh":
                counts = modelmesh.counts(await self._ask(rules, replica, modelmesh.METRICS))
                if counts is not None:
                    self._ledger.note_counts(rules, replica, *counts, time.time())
            else:
                seen = await self._states(rules, replica)
                if seen is not None:
                    self._ledger.note(rules, replica, seen, time.time())

    async def _states(self, rules: LoadFailures, replica: Replica) -> list[ModelSeen] | None:
        match rules.protocol:
            case "openInference":
                return openinference.states(await self._ask(rules, replica, openinference.INDEX))
            case "torchServe":
                names = torchserve.names(await self._ask(rules, replica, torchserve.LIST))
                if names is None:
                    return None
                asked = [(n, await self._ask(rules, replica, torchserve.described(n))) for n in names]
                return [seen for n, reply in asked if (seen := torchserve.state(n, reply)) is not None]
            case _:
                asked = [(n, await self._ask(rules, replica, tfserving.status_of(n))) for n in rules.models]
                found = [seen for n, reply in asked if (seen := tfserving.state(n, reply)) is not None]
                return found or None

    async def _ask(self, rules: LoadFailures, replica: Replica, request: Request) -> Reply:
        place = Place(self._namespace, replica, rules.port, rules.scheme)
        return await self._reach.ask(place, request, {}, ANSWER_S)

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
