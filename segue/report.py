"""The report: every stage, verdict and write, and who requested what. It is the workflow's result."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from segue.observation import Frozen
from segue.plan import Plan
from segue.state import FIRST_KEPT, Entry
from segue.status import Status
from segue.units import counted

THROUGH = " through "
"""Between a person and the principal of the controller that sent the person's order."""
_MARKS = re.compile(r"[\\<*~|]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown takes for more than text, without what would only make a text in a terminal harder to read: brackets
make a link only before a parenthesis, and an underscore within a word is text."""


class Request(Frozen):
    """Who made one request of a rollout: as Temporal authenticated it, and as the request itself claims."""

    at: float
    what: str
    """``start``, the name of a message, ``cancel`` or ``terminate``."""
    authenticated: str = ""
    """The principal and its kind, such as ``alice@acme (jwt)``; empty if Temporal recorded none for it."""
    claimed: str = ""
    """From ``--by``, SEGUE_BY or user@host, which nobody checks."""


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
    requests: tuple[Request, ...] = Field(
        default=(), description="Who made each request. Empty if Temporal records no authenticated principals."
    )


def to_markdown(report: Report) -> str:
    """Render the report as Markdown: for the terminal, a pull request, or the Temporal UI."""
    status = report.status
    took = (report.ended_at or status.updated_at) - status.started_at
    lines = [
        f"# {_text(status.name)}: {status.outcome or status.phase}",
        "",
        f"- Target: {status.target}",
        f"- Change: {_text(status.change) or '?'}",
        f"- From: {_text(str(status.baseline or '?'))}",
        f"- To: {_text(str(status.wanted or '?'))}",
        f"- Started by {_text(starter(report))} at {_utc(status.started_at)}; {took:.1f} s, "
        f"{counted(status.moves, 'move')}, {counted(report.writes, 'write')}",
    ]
    lines += [f"- {name}: {text}" for name, text in _present(status).items() if text]
    lines += _gates(status)
    lines += _requests(report)
    who = "who (claimed)" if report.requests else "who"
    lines += ["", f"| time | what | detail | {who} |", "|---|---|---|---|"]
    lines += _rows(report)
    return "\n".join(lines) + "\n"


def _present(status: Status) -> dict[str, str]:
    """Return why the rollout is where it is and, before its end, what it waits for and what a person can do."""
    if status.outcome is not None:
        return {"Reason": _text(status.reason)}
    old, new = (f"{side.ready} ready of {side.replicas}" for side in (status.old, status.new))
    return {
        "Replicas": f"old {old}, new {new}; at least {status.floor} ready, at most {status.ceiling} in all",
        "Waits for": _text(status.waiting_for),
        "Reason": _text(status.why),
        "You can": f"`{status.commands}`" if status.can else "",
    }


def starter(report: Report) -> str:
    """Return who started the rollout; if Temporal authenticates, with which part is only claimed."""
    start = next((each for each in report.requests if each.what == "start"), None)
    return requester(start) if start is not None else report.started_by


def requester(request: Request) -> str:
    """Return who made a request, in one line."""
    claimed = f"{request.claimed} (claimed)" if request.claimed else ""
    authenticated = f"{request.authenticated} (authenticated)" if request.authenticated else ""
    return ", ".join(each for each in (authenticated, claimed) if each) or "unknown"


def _requests(report: Report) -> list[str]:
    """Return the table of who requested what, where Temporal authenticates."""
    if not report.requests:
        return []
    began = report.status.started_at
    rows = [_cells((f"+{r.at - began:.1f} s", r.what, r.authenticated or "—", r.claimed)) for r in report.requests]
    return ["", "| time | request | authenticated | claimed |", "|---|---|---|---|", *rows]


def _gates(status: Status) -> list[str]:
    """Return the table of the gates with their latest evidence."""
    if not status.gates:
        return []
    rows = ["", "| gate | result | measurements | reason | evidence |", "|---|---|---|---|---|"]
    for gate in status.gates:
        numbers = gate.evidence.numbers.items() if gate.evidence else ()
        evidence = ", ".join(f"{k} {v:.4g}" for k, v in numbers)
        rows.append(_cells((gate.name, str(gate.result), str(gate.measurements), gate.why, evidence)))
    return rows


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_text, cells)) + " |"


def _text(text: str) -> str:
    """Return a text as one line of Markdown: no markup, link or image of a pod's message or a person's reason."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


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
