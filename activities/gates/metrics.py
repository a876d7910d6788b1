"""Queries Prometheus about both sides, and lets the core judge the answers.

The worker stores no evidence: each measurement queries all intervals since the gate's evidence began. Prometheus keeps
them, so no evidence is lost when a worker dies, and any other worker gets the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from activities.gates.base import GateContext
from activities.gates.prometheus import Matrix, Prometheus
from segue.errors import Unanswerable, Unanswered
from segue.gates import Result, Verdict, VerdictEvidence
from segue.gates.asking import Grid, SideName, Window, grid, windows
from segue.gates.measured import MeasuredAnswer, joined
from segue.judging import Evidence as Measured
from segue.judging import Series, ValueSeries, judge
from segue.judging.evidence import MAX_EDGES
from segue.spec.metrics import Metric

STALE_INTERVALS = 3
"""A side with replicas and no sample for this many intervals is no longer measured (as in ``judging``)."""
_QUERY_SHOWN = 400
_IDLE = "without requests, a mean or a quantile has no samples"


class _Side(NamedTuple):
    """The series of one side, with the queries and notes."""

    series: Series | None
    queries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class MetricAsker:
    """Measures the gates under ``metrics`` in a spec."""

    def __init__(self, providers: Mapping[str, Prometheus]) -> None:
        self._providers = providers

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(provider.close() for provider in self._providers.values()))

    async def ask(self, gate: Metric, context: GateContext) -> Verdict:
        """Measure both sides at the same time, and judge everything since the gate's evidence began.

        Raises:
            Unanswered: if Prometheus gives no usable answer, or no longer has samples.
        """
        provider = self._provider(gate.provider)
        over = grid(gate, context.tally.opened, context.now)
        if not over.size:
            return _verdict(gate, Result.INCONCLUSIVE, "no interval has ended yet")
        names: tuple[SideName, ...] = ("new", "old") if gate.judgement.needs_old else ("new",)
        found = await asyncio.gather(*(self._measure(provider, gate, context, name, over) for name in names))
        sides = dict(zip(names, found, strict=True))
        _refuse_stale(sides, context)
        judged = judge(gate.judgement, _measured(gate, sides, over))
        return _verdict(gate, judged.result, judged.why, judged.numbers, _texts(gate, sides))

    def _provider(self, name: str) -> Prometheus:
        if name not in self._providers:
            known = ", ".join(sorted(self._providers)) or "none"
            raise Unanswered(f"provider {name} is unknown to this worker (known: {known}); add it to SEGUE_PROMETHEUS")
        return self._providers[name]

    async def _measure(
        self, provider: Prometheus, gate: Metric, context: GateContext, side: SideName, over: Grid
    ) -> _Side:
        try:
            to_query = windows(gate, side, context.target, context.rules, context.seen.pods, over)
        except Unanswerable as error:
            raise Unanswered(str(error)) from None
        if not to_query:
            return _Side(None)
        answers = await asyncio.gather(*(self._answer(provider, gate, window, over) for window in to_query))
        joined_up = joined(gate.kind, over, answers)
        return _Side(joined_up.series, to_query[-1].queries, joined_up.notes)

    async def _answer(self, provider: Prometheus, gate: Metric, window: Window, over: Grid) -> MeasuredAnswer:
        part = Grid(over.at(window.start), over.interval_s, window.end - window.start)
        most = MAX_EDGES + 1 if gate.kind == "histogram" else 1
        found: list[Matrix] = await asyncio.gather(
            *(provider.query_range(query, part, most) for query in window.queries)
        )
        notes = tuple(text for matrix in found for text in matrix.warnings)
        return MeasuredAnswer(window.start, window.end, tuple(matrix.series for matrix in found), notes)


def _measured(gate: Metric, sides: Mapping[SideName, _Side], over: Grid) -> Measured:
    none = _Side(None)
    old, new = sides.get("old", none).series, sides.get("new", none).series
    return Measured(old=old, new=new, unit=gate.shown_unit, interval_s=over.interval_s)


def _refuse_stale(sides: Mapping[SideName, _Side], context: GateContext) -> None:
    """Raise an error if a side with replicas is no longer measured: its scraping broke, so there is no answer."""
    there = {"old": context.seen.pods.old, "new": context.seen.pods.new}
    for name, side in sides.items():
        intervals: Sequence[object] = side.series.intervals if side.series is not None else ()
        newest = max((i for i, each in enumerate(intervals) if each is not None), default=None)
        if newest is not None and there[name] and len(intervals) - 1 - newest >= STALE_INTERVALS:
            late = len(intervals) - 1 - newest
            idle = f"; {_IDLE}" if isinstance(side.series, ValueSeries) else ""
            raise Unanswered(
                f"the newest sample of the {name} side is {late} intervals old: is it still scraped?{idle}"
            )


def _texts(gate: Metric, sides: Mapping[SideName, _Side]) -> dict[str, str]:
    texts = {"provider": gate.provider}
    for name, side in sides.items():
        labels = ("bad", "total") if len(side.queries) == 2 else ("query",)
        texts |= {
            f"{name} {label}": query if len(query) <= _QUERY_SHOWN else f"{query[:_QUERY_SHOWN]}…"
            for label, query in zip(labels, side.queries, strict=False)
        }
        if side.notes:
            texts[f"{name} notes"] = "; ".join(dict.fromkeys(side.notes))[:_QUERY_SHOWN]
    return texts


def _verdict(
    gate: Metric, result: Result, why: str, numbers: dict[str, float] | None = None,
    texts: dict[str, str] | None = None,
) -> Verdict:  # fmt: skip
    evidence = VerdictEvidence(numbers=numbers or {}, texts=texts or {}) if numbers or texts else None
    return Verdict(gate=gate.name, result=result, why=why, evidence=evidence)
