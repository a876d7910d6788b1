"""Asks the gates that are due, beside the watch. Answers not yet fetched survive the end of a watch."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from opentelemetry import metrics, trace

from activities.clock import Clock
from activities.gates.base import Asker, GateContext
from activities.standstill import STOOD_S, standstill_during
from segue.contract import WatchInput
from segue.errors import SegueError
from segue.gates import Result, Verdict
from segue.gates.standing import due
from segue.observation import Observation
from segue.spec.gate_policy import GatePolicy

LIMIT_S = 120.0
"""The time limit of one question. A gate that takes longer, such as a Job, is evaluated again."""
_TRIES = 3
FORGET_S = 600.0
"""An answer not fetched for this long belongs to a rollout that ended, or that another worker watches."""

log = logging.getLogger(__name__)
_tracer = trace.get_tracer("segue")
_verdicts = metrics.get_meter("segue").create_counter("segue.gate.verdicts", description="Answers of gates, by result")


class _Question(NamedTuple):
    """One measurement of one rollout's gate."""

    owner: str
    gate: str
    since: float
    """When the gate's sitting began: after a retarget, or a resume, the numbers begin at 0 again."""
    number: int


class _OpenQuestion(NamedTuple):
    """A question that is under way or answered."""

    task: asyncio.Task[Verdict]
    since: float


class Panel:
    """All questions of a worker that are under way, or whose answers are not recorded yet."""

    def __init__(self, askers: Mapping[type[GatePolicy], Asker[Any]], clock: Clock) -> None:
        self._askers, self._clock = askers, clock
        self._open: dict[_Question, _OpenQuestion] = {}

    async def close(self) -> None:
        """Stop asking."""
        tasks = [each.task for each in self._open.values()]
        self._open.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self, request: WatchInput, seen: Observation, now: float, wake: Callable[[], None]) -> tuple[Verdict, ...]:
        """Start asking the gates that are due, and return the answers so far. Each new answer calls ``wake``."""
        rules, state = request.rules, request.state
        wanted = {
            _Question(state.owner, gate.name, tally.since, tally.measurements): (gate, tally)
            for gate, tally in due(rules, state, now)
        }
        self._forget(state.owner, wanted, now)
        for question, (gate, tally) in wanted.items():
            if question not in self._open:
                context = GateContext(request.target, rules, state, seen, tally, now)
                task = asyncio.create_task(self._ask(gate, context), name=f"gate-{gate.name}")
                task.add_done_callback(lambda _: wake())
                self._open[question] = _OpenQuestion(task, now)
        tasks = [self._open[question].task for question in wanted]
        return tuple(task.result() for task in tasks if task.done() and not task.cancelled())

    def _forget(self, owner: str, wanted: Collection[_Question], now: float) -> None:
        """Drop questions that are recorded or no longer due, and those of rollouts that another worker watches."""
        for question, opened in list(self._open.items()):
            is_old = now > opened.since + FORGET_S
            if (question.owner == owner and question not in wanted) or is_old:
                del self._open[question]
                opened.task.cancel()

    async def _ask(self, gate: GatePolicy, context: GateContext) -> Verdict:
        with _tracer.start_as_current_span(f"gate {gate.name}") as span:
            answer = await self._answer(gate, context)
            verdict = answer.model_copy(update={"gate": gate.name, "at": self._clock.now()})
            numbers = verdict.evidence.numbers if verdict.evidence else {}
            span.set_attributes({"segue.gate.result": str(verdict.result), "segue.gate.why": verdict.why, **numbers})
        _verdicts.add(1, {"gate": gate.name, "result": str(verdict.result)})
        return verdict

    async def _answer(self, gate: GatePolicy, context: GateContext) -> Verdict:
        """Return the answer; ask again if none came because this process stood still meanwhile."""
        for _ in range(_TRIES):
            verdict, stood_s = await standstill_during(self._asked(gate, context))
            if verdict.counts or stood_s <= STOOD_S:
                break
            log.warning("gate %s: this worker did not run for %.0f s meanwhile: %s", gate.name, stood_s, verdict.why)
        return verdict

    async def _asked(self, gate: GatePolicy, context: GateContext) -> Verdict:
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._askers[type(gate)].ask(gate, context)
        except TimeoutError:
            return _inconclusive(gate, f"no answer within {LIMIT_S:g} s")
        except SegueError as error:
            log.warning("gate %s: %s", gate.name, error, exc_info=error.__cause__)
            return _inconclusive(gate, str(error))
        except Exception as error:  # a failing gate must not stop the watch of the target
            log.exception("gate %s", gate.name)
            return _inconclusive(gate, f"the gate raised {type(error).__name__}; see the worker's log")


def _inconclusive(gate: GatePolicy, why: str) -> Verdict:
    return Verdict(gate=gate.name, result=Result.INCONCLUSIVE, why=why, counts=False)
