"""The picture as a self-contained HTML page."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from segue_local.traffic.outcomes import Outcomes, StreamOutcomes, percentile

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1200px; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; height: auto }
table { border-collapse: collapse; margin: 1.5rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem 1.2rem .3rem 0; text-align: right; border-bottom: 1px solid #e4e7eb }
th:first-child, td:first-child { text-align: left }
th { color: #7b8794; font-weight: 600 }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem }
"""


def page(title: str, summary: str, svg: str, outcomes: Outcomes, streams: StreamOutcomes | None) -> str:
    """Return HTML with the figure and its numbers."""
    figure = svg[svg.index("<svg") :]  # without the XML head, which is not valid inside a page
    tables = [_requests(outcomes), _reasons("Failed requests", (request.why for request in outcomes.failed))]
    if streams is not None:
        tables += [_streams(streams), _reasons("Cut streams", (stream.why for stream in streams.cut))]
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>
<body>
<div role="img" aria-label="{html.escape(f"{title}: {summary}")}">{figure}</div>
{"".join(tables)}
</body>
</html>
"""


def _requests(outcomes: Outcomes) -> str:
    rows = []
    for version, count in outcomes.by_version.items():
        latencies = [r.latency_s for r in outcomes.requests if r.version == version and not r.failed]
        percentiles = [_milliseconds(percentile(latencies, percent)) for percent in (50, 99, 100)]
        rows.append([version, f"{count:,}", *percentiles])
    everything = [_milliseconds(outcomes.percentile(percent)) for percent in (50, 99, 100)]
    rows.append(["all served", f"{outcomes.by_version.total():,}", *everything])
    rows.append(["failed", f"{len(outcomes.failed):,}", "", "", ""])
    rows.append(
        ["never sent (the load was not constant)" if outcomes.dropped else "never sent", f"{outcomes.dropped:,}"]
    )
    return _table("Requests", ["version", "requests", "p50, ms", "p99, ms", "longest, ms"], rows)


def _streams(streams: StreamOutcomes) -> str:
    rows = [[version, f"{count:,}"] for version, count in streams.by_version.items()]
    rows.append(["cut", f"{len(streams.cut):,}"])
    return _table("Streams", ["version", "streams"], rows)


def _reasons(caption: str, reasons: Iterable[str]) -> str:
    counts = Counter(reasons)
    return (
        _table(caption, ["why", "times"], [[why, f"{count:,}"] for why, count in counts.most_common()])
        if counts
        else ""
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_row("th", head), *(_row("td", row) for row in rows)]
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(lines)}</table>\n"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _milliseconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1000:,.1f}"
