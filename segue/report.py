"""The report: every stage, verdict and write, and who requested what. It is the workflow's result."""

from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from segue.observation import Frozen
from segue.plan import Plan
from segue.state import FIRST_KEPT, Entry
from segue.status import Status


class Report(Frozen):
    """Everything that a rollout did."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    status: Status
    plans: tuple[Plan, ...] = ()
    entries: tuple[Entry, ...] = ()
    dropped: int = Field(default=0, description="How many entries were left out after the first ones.")
    writes: int = 0
    started_by: str = ""
    ended_at: float | None = None


def to_markdown(report: Report) -> str:
    """Render the report as Markdown: for the terminal, a pull request, or the Temporal UI."""
    status = report.status
    took = (report.ended_at or status.updated_at) - status.started_at
    lines = [
        f"# {status.name}: {status.outcome or status.phase}",
        "",
        f"- Target: {status.target}",
        f"- Change: {status.change or '?'}",
        f"- From: {status.baseline or '?'}",
        f"- To: {status.wanted or '?'}",
        f"- Started by {report.started_by} at {_utc(status.started_at)}; {took:.1f} s, {status.moves} moves, "
        f"{report.writes} writes",
    ]
    if status.reason:
        lines.append(f"- Reason: {status.reason}")
    lines += _gates(status)
    lines += ["", "| time | what | detail | who |", "|---|---|---|---|"]
    lines += _rows(report)
    return "\n".join(lines) + "\n"


def _gates(status: Status) -> list[str]:
    """Return the table of the gates with their latest evidence."""
    if not status.gates:
        return []
    rows = ["", "| gate | result | evaluations | reason | evidence |", "|---|---|---|---|---|"]
    for gate in status.gates:
        numbers = gate.evidence.numbers.items() if gate.evidence else ()
        cells = (gate.name, str(gate.result), str(gate.asked), gate.why, ", ".join(f"{k} {v:.4g}" for k, v in numbers))
        rows.append(_cells(cells))
    return rows


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def _rows(report: Report) -> list[str]:
    rows = [_row(entry, report.status.started_at) for entry in report.entries]
    if report.dropped:
        left_out = _cells(("...", "left out", f"{report.dropped} lines: the report keeps the first and the latest", ""))
        rows.insert(FIRST_KEPT, left_out)
    return rows


def _row(entry: Entry, started_at: float) -> str:
    return _cells((f"+{entry.at - started_at:.1f} s", entry.what, entry.detail, entry.who))


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
