"""Requests the states of models from replicas, as long as loads may count against a new replica.

A replica that refuses, or whose answer cannot be read, is not believed; its own words are the reason.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from activities.clock import Clock
from activities.pod_http import PodEndpoint, Reach, RequestTurns
from activities.probes import modelmesh, openinference, tfserving, torchserve
from activities.probes.base import ProbeRequest, says_loading
from segue.errors import StatesUnknown
from segue.gates.loading import Ledger, ModelSeen
from segue.gates.serving_answers import Reply, bounded
from segue.observation import Cause, Problem
from segue.replica import Pods, Replica
from segue.spec.load_failures import LoadFailures

ANSWER_S = 5.0
MAX_OTHERS = 32
"""The most old replicas to ask: some are enough to know what is loaded elsewhere."""
MAX_PAGES = 20
"""The most pages of one replica's list of models, of 100 models each: a broken server may list them for ever."""
FORGOTTEN_S = 10.0
"""Segue stops asking about a target that no watch observes for this long."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Loads:
    """Tracks one target's models. Asks while loads of a new replica still count, or are still pending."""

    def __init__(
        self, reach: Reach, namespace: str, at_once: asyncio.Semaphore, turns: RequestTurns,
        credentials: Mapping[str, tuple[str, str]], clock: Clock,
    ) -> None:  # fmt: skip
        self._reach, self._namespace, self._credentials, self._clock = reach, namespace, credentials, clock
        self._at_once, self._turns = at_once, turns
        self._ledger = Ledger()
        self._pods = Pods()
        self._queried: set[str] = set()
        """The incarnations that this worker queried, whatever they answered."""
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] = lambda: None

    def look(self, rules: LoadFailures, pods: Pods, now: float, wake: Callable[[], None]) -> None:
        """Record the present replicas, and ask as long as their loads count."""
        self._pods, self._looked_at, self._wake = pods, now, wake
        self._ledger.keep(pods.old, pods.new)
        self._queried &= {r.incarnation for r in (*pods.old, *pods.new)}
        if self._counting(rules, now) and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask_on(rules), name=f"loads-{self._namespace}")

    def was_queried(self, replica: Replica) -> bool:
        """Return whether this worker queried a replica, or cannot query it."""
        return replica.incarnation in self._queried or not replica.address

    def problem(self, rules: LoadFailures, replica: Replica, now: float) -> Problem | None:
        """Return why a replica's models keep it from being believed; None if they do not."""
        return self._ledger.problem(rules, replica, now)

    @property
    def is_asking(self) -> bool:
        """Whether loads of a new replica still count."""
        return self._task is not None and not self._task.done()

    @property
    def grew_at(self) -> float:
        """When a further model was loaded: seconds since the epoch."""
        return self._ledger.grew_at

    def _counting(self, rules: LoadFailures, now: float) -> list[Replica]:
        return [r for r in self._pods.new if r.address and self._ledger.is_open(rules, r, now)]

    async def _ask_on(self, rules: LoadFailures) -> None:
        while True:
            now = self._clock.now()
            counting = self._counting(rules, now)
            if not counting or now > self._looked_at + FORGOTTEN_S:
                return
            # Ask the others first: a failure is judged when it is observed, by what is loaded elsewhere.
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
        except Exception:  # as for serving checks: a replica that reports nothing is not believed, within its period
            log.exception("model states of %s/%s", self._namespace, replica.name)
        self._queried.add(replica.incarnation)

    async def _note_one(self, rules: LoadFailures, replica: Replica) -> None:
        async with self._at_once:
            try:
                if rules.protocol == "modelMesh":
                    reply = await self._ask(rules, replica, modelmesh.METRICS)
                    loaded, failed = _read(modelmesh.METRICS, reply, modelmesh.counts(reply))
                    self._ledger.note_counts(rules, replica, loaded, failed, self._clock.now())
                else:
                    states = await self._states(rules, replica)
                    self._ledger.note(rules, replica, states, self._clock.now())
            except StatesUnknown as error:
                cause = Cause.LOADING if error.loads else Cause.SERVING
                self._ledger.note_untold(replica, Problem(cause=cause, message=str(error)), self._clock.now())

    async def _states(self, rules: LoadFailures, replica: Replica) -> list[ModelSeen]:
        match rules.protocol:
            case "openInference":
                reply = await self._ask(rules, replica, openinference.INDEX)
                return _read(openinference.INDEX, reply, openinference.states(reply))
            case "torchServe":
                return await self._torchserve(rules, replica)
            case _:
                return [await self._tfserving(rules, replica, name) for name in rules.models]

    async def _torchserve(self, rules: LoadFailures, replica: Replica) -> list[ModelSeen]:
        found: list[ModelSeen] = []
        page = torchserve.LIST
        for _ in range(MAX_PAGES):
            reply = await self._ask(rules, replica, page)
            names, following = _read(page, reply, torchserve.names(reply))
            for name in names:
                request = torchserve.described(name)
                answer = await self._ask(rules, replica, request)
                found += _read(request, answer, torchserve.states(name, answer))
            if following is None:
                return found
            page = following
        raise StatesUnknown(f"has not reported all its models: their list has over {MAX_PAGES} pages", loads=False)

    async def _tfserving(self, rules: LoadFailures, replica: Replica, name: str) -> ModelSeen:
        request = tfserving.status_of(name)
        reply = await self._ask(rules, replica, request)
        return _read(request, reply, tfserving.state(name, reply))

    async def _ask(self, rules: LoadFailures, replica: Replica, request: ProbeRequest) -> Reply:
        headers = {}
        if rules.credential is not None:
            known = self._credentials.get(rules.credential)
            if known is None:
                return Reply(unsent=f"the worker has no credential {rules.credential!r}")
            headers = dict([known])
        place = PodEndpoint(self._namespace, replica, *rules.place)
        return await self._turns.take(lambda: self._reach.ask(place, request, headers, ANSWER_S))

    def stop(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()


def _read(request: ProbeRequest, reply: Reply, found: T | None) -> T:
    if found is None:
        raise _states_unknown(request, reply)
    return found


def _states_unknown(request: ProbeRequest, reply: Reply) -> StatesUnknown:
    """Return the error of a reply without states: a server that is not up yet is loading; one that refuses is not."""
    if reply.unsent:
        why = f"could not be sent: {reply.unsent}"
    else:
        why = reply.trouble or f"answered {reply.status}: {reply.text}"
    loads = bool(reply.trouble) or bool(says_loading(reply))
    return StatesUnknown(bounded(f"has not reported the states of its models: {request} {why}"), loads=loads)
