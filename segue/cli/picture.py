"""The live picture: old and new replicas against floor and ceiling, and what the rollout waits for and why."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from segue.cli.follow import stage
from segue.report import Report, requester, starter
from segue.state import Phase
from segue.status import SideStatus, Status

_CELLS = 40
_LATEST = 5
_STYLES = {
    Phase.COMPLETED: "bold green",
    Phase.ROLLED_BACK: "bold yellow",
    Phase.ABORTED: "bold yellow",
    Phase.ROLLING_BACK: "bold yellow",
    Phase.NEEDS_HUMAN: "bold red",
    Phase.HELD: "bold red",
    Phase.AWAITING_APPROVAL: "bold magenta",
    Phase.PAUSED: "bold magenta",
}


def live_picture(report: Report, now: float, console: Console) -> RenderableType:
    """Draw a rollout with as many of its latest entries as the terminal has lines for: a picture is cut at its end."""
    drawn = picture(report, now)
    for latest in reversed(range(_LATEST)):
        if len(console.render_lines(drawn)) <= console.height:
            break
        drawn = picture(report, now, latest)
    return drawn


def picture(report: Report, now: float, latest: int = _LATEST) -> RenderableType:
    """Draw a rollout, with so many of its latest entries. ``now`` is in seconds since the epoch."""
    status = report.status
    rows: list[RenderableType] = [_head(report, now)]
    for table in (_bars(status), _facts(report), _entries(report, latest)):
        if table.row_count:
            rows += [Text(), table]
    return Group(*rows)


def _head(report: Report, now: float) -> Text:
    status = report.status
    took = (report.ended_at or now) - status.started_at if status.started_at else 0.0
    return Text.assemble(
        (f"{status.name}  ", "bold"),
        (status.target, "cyan"),
        "  ",
        (str(status.phase), _STYLES.get(status.phase, "bold blue")),
        f"  {stage(report)}  ",
        (f"{clock(took)}", "dim"),
    )


def _bars(status: Status) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    most = max(status.ceiling, status.old.replicas + status.new.replicas, 1)
    both = SideStatus(replicas=status.old.replicas + status.new.replicas, ready=status.old.ready + status.new.ready)
    grid.add_row("old", _bar(status.old, most, "blue"), _ready(status.old), str(status.baseline or ""))
    grid.add_row("new", _bar(status.new, most, "green"), _ready(status.new), str(status.wanted or ""))
    grid.add_row("both", _bar(both, most, "white"), _ready(both), _health(status, both))
    if status.ceiling:
        grid.add_row("", _marks(status, most), "", f"floor {status.floor} ready ▲   ceiling {status.ceiling} △")
    return grid


def _bar(side: SideStatus, most: int, style: str) -> Text:
    ready, total = _cells(side.ready, most), _cells(side.replicas, most)
    rest = _cells(most, most) - max(total, ready)
    return Text.assemble(("█" * ready, style), ("░" * (total - ready), style), ("·" * rest, "dim"))


def _marks(status: Status, most: int) -> Text:
    marks = [" "] * (_cells(most, most) + 1)
    marks[max(0, _cells(status.floor, most) - 1)] = "▲"
    at = max(0, _cells(status.ceiling, most) - 1)
    marks[at] = "◭" if marks[at] == "▲" else "△"
    return Text("".join(marks), style="dim")


def _cells(count: int, most: int) -> int:
    wide = 2 if most <= _CELLS // 2 else 1
    return count * wide if most * wide <= _CELLS else -(-count * _CELLS // most)


def _ready(side: SideStatus) -> str:
    return f"{side.ready} ready of {side.replicas}"


def _health(status: Status, both: SideStatus) -> str:
    if status.ceiling and both.replicas > status.ceiling:
        return "over the ceiling"
    return "under the floor" if both.ready < status.floor else ""


def _facts(report: Report) -> Table:
    status, latest = report.status, report.requests[-1:]
    facts = {
        "change": status.change,
        "waits for": status.waiting_for,
        "why": status.why,
        "traffic": "" if status.traffic is None else f"{status.traffic} % to new",
        **{f"gate {gate.name}": f"{gate.result}{' (dry run)' * gate.dry_run}: {gate.why}" for gate in status.gates},
        "next waypoint": status.next_waypoint,
        "started by": starter(report) if report.requests else "",
        "latest request": "".join(f"{each.what} by {requester(each)}" for each in latest if each.what != "start"),
        "runs": str(status.runs or ""),
        "you can": status.commands,
    }
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")  # no command and no reason is cut
    for name, value in facts.items():
        if value:
            grid.add_row(Text(name, style="dim"), Text(value))
    return grid


def _entries(report: Report, latest: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for entry in report.entries[-latest:] if latest else ():
        after = f"+{clock(entry.at - report.status.started_at)}"
        grid.add_row(Text(after, style="dim"), entry.what, Text(f"{entry.detail} {entry.who}".strip(), style="dim"))
    return grid


def clock(seconds: float) -> str:
    """Return a time as a person reads it: 42s, 3m05s, 1h00m00s."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
