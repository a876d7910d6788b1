"""Asks plugins: Python functions of other distributions, by entry points of the group ``segue.gates``.

Each runs in a thread with its own event loop, so that a plugin that blocks or hangs does not stop the worker's watches.
"""

import asyncio
import importlib.metadata
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from activities.gates.base import GateContext
from segue.errors import Refused
from segue.gates.question import Answer, Question, question_of, unanswered
from segue.gates.verdict import Verdict
from segue.spec.own_gates import OwnGate, PluginGate

GROUP = "segue.gates"
THREADS = 16
GRACE_S = 1.0
"""How long a plugin may take to end after its timeout; then the worker abandons its thread."""

Judge = Callable[[Question], Awaitable[Answer]]

log = logging.getLogger(__name__)


class PluginAsker:
    """Asks the plugins that are installed where the worker runs."""

    def __init__(self) -> None:
        self._known = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gate")

    def close(self) -> None:
        """Start no more plugins. One that hangs ends with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def refuse(self, gate: PluginGate, field: str) -> None:
        """Refuse a plugin that is not installed, or that cannot be loaded.

        Raises:
            Refused: names the installed plugins.
        """
        where = f"{field}.plugin.name"
        if gate.name not in self._known:
            known = ", ".join(sorted(self._known)) or "none so far"
            fix = f"use one that the worker has ({known}), or install it there as an entry point of {GROUP}"
            raise Refused("is not installed on the worker", field=where, value=gate.name, fix=fix)
        try:
            judge = self._known[gate.name].load()
        except Exception as error:
            why = f"cannot be loaded: {type(error).__name__}: {error}"
            raise Refused(why, field=where, value=gate.name, fix="correct it on the worker") from error
        if not inspect.iscoroutinefunction(judge):
            fix = "write `async def judge(question: Question) -> Answer`"
            raise Refused("is not an async function", field=where, value=gate.name, fix=fix)

    async def ask(self, gate: OwnGate, context: GateContext) -> Verdict:
        """Call the plugin, and judge its answer. An exception is not evidence."""
        plugin = gate.plugin
        if plugin is None or plugin.name not in self._known:
            return unanswered(gate.name, "the plugin is no longer installed on this worker")
        target, rules, state, seen, tally, now = context
        question = question_of(gate, target, rules, state, seen, tally, now)
        timeout_s = plugin.timeout.total_seconds()
        running = asyncio.get_running_loop().run_in_executor(
            self._threads, _judged, self._known[plugin.name], question, timeout_s
        )
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                answer = await running
        except TimeoutError:
            return unanswered(gate.name, f"the plugin {plugin.name} did not answer within {timeout_s:g} s")
        return answer if isinstance(answer, Verdict) else answer.judged(gate.name)


def _judged(point: importlib.metadata.EntryPoint, question: Question, timeout_s: float) -> Answer | Verdict:
    """Run one plugin in this thread, and return its answer, or a verdict that describes what went wrong."""
    try:
        judge: Judge = point.load()
        answer = asyncio.run(_in_time(judge, question, timeout_s))
    except TimeoutError:
        return unanswered(question.gate, f"the plugin {point.name} did not answer within {timeout_s:g} s")
    except BaseException as error:
        log.exception("plugin %s", point.name)
        return unanswered(question.gate, f"the plugin {point.name} raised {type(error).__name__}: {error}")
    if not isinstance(answer, Answer):
        what = type(answer).__name__
        return unanswered(question.gate, f"the plugin {point.name} returned {what} instead of an Answer")
    return answer


async def _in_time(judge: Judge, question: Question, timeout_s: float) -> Answer:
    async with asyncio.timeout(timeout_s):
        return await judge(question)
