"""Follows a rollout: writes lines for a pipe or a log, and the outcome."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from segue.cli.console import say, write, write_json
from segue.naming import page_of
from segue.plan import Plan
from segue.report import Report
from segue.state import Phase
from segue.status import Status
from segue.units import counted

INTERRUPTED = 130
"""The exit code of shells for Ctrl-C."""
_ANSWERS = {Phase.AWAITING_APPROVAL: ("approve", "reject"), Phase.PAUSED: ("resume", "abort")}
"""The messages that answer what a rollout waits for, by its phase."""


class Progress:
    """Writes one line per change; a heartbeat without a change writes nothing."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.report: Report | None = None
        self._tell = tell
        self._shown = ""

    def __call__(self, report: Report) -> None:
        """Keep the newest report, and write its line if it changed."""
        self.report = report
        text = line(report)
        if text != self._shown:
            self._shown = text
            self._tell(f"{time.strftime('%H:%M:%S')}  {text}")


def line(report: Report) -> str:
    """Return one line: where a rollout is, what it waits for, and why."""
    status = report.status
    parts = [
        f"{status.outcome or status.phase:<17}",
        f"old {status.old.ready}/{status.old.replicas}",
        f"new {status.new.ready}/{status.new.replicas}",
        stage(report),
    ]
    if status.outcome is None and status.waiting_for:
        parts.append(f"waits for {status.waiting_for}")
    if status.why:
        parts.append(f"because {status.why}")
    answers = [each for each in _ANSWERS.get(status.phase, ()) if each in status.can]
    if answers:
        parts.append(f"(segue {'|'.join(answers)} {status.target})")
    return one_line("  ".join(p for p in parts if p))


def one_line(text: str) -> str:
    """Return text without line ends: a line of its own in a pipeline's log could be a command to its runner."""
    return " ".join(text.splitlines())


def stage(report: Report) -> str:
    """Return which stage of its plan a rollout has reached; empty on the way back, which has no stages."""
    if not report.plans or report.status.phase in {Phase.ROLLING_BACK, Phase.NEEDS_HUMAN, Phase.PREPARING}:
        return ""
    if report.status.outcome not in {None, "Completed"}:
        return ""
    reached, last = stages(report.plans[-1], report.status)
    return f"stage {reached}/{last}"


def stages(plan: Plan, status: Status) -> tuple[int, int]:
    """Return the numbers of the furthest stage reached and of the last stage."""
    reached = [
        number
        for number, s in enumerate(plan.stages)
        if status.new.ready >= s.new and (s.new, s.old) != (0, 0) and status.old.replicas <= s.old
    ]
    return max(reached, default=0), len(plan.stages) - 1


def finish(report: Report | None, *, as_json: bool) -> None:
    """Write the outcome: one line, or the whole status as JSON."""
    if report is None:
        return
    if as_json:
        write_json(report.status)
    else:
        write(ending(report))


def ending(report: Report) -> str:
    """Return how the rollout ended, or why it needs a person."""
    status = report.status
    took = (report.ended_at or status.updated_at) - status.started_at
    numbers = f"{took:.1f} s, {counted(status.moves, 'move')}, {counted(report.writes, 'write')}"
    if status.outcome is None:
        can = f"; you can: {status.commands}" if status.can else ""
        return one_line(f"{status.phase}: {status.target} needs a person: {status.reason or status.waiting_for}{can}")
    why = f"; {status.reason}" if status.reason else ""
    left = f"runs {status.runs}" if status.runs else "is no longer held by this rollout"
    return one_line(f"{status.outcome}: {status.target} {left} ({numbers}){why}")


def link(workflow_id: str) -> str:
    """Return the address of a rollout's page in the Temporal UI; empty without SEGUE_TEMPORAL_UI."""
    ui = os.environ.get("SEGUE_TEMPORAL_UI", "")
    if not ui:
        return ""
    from segue.connection import namespace  # noqa: PLC0415 - Temporal's library takes a second to load

    return page_of(ui, namespace(), workflow_id)


@contextmanager
def left_running(target: str) -> Iterator[None]:
    """On Ctrl-C, print that the rollout continues, and exit."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\nstopped watching; the rollout of {target} continues: segue watch {target}, segue abort {target}")
        raise typer.Exit(INTERRUPTED) from None
