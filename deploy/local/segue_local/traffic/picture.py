"""The picture of a rollout under traffic: replicas, requests, streams and latency over one axis of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator

from segue_local.traffic.outcomes import Outcomes, Request, Stream, StreamOutcomes, percentile
from segue_local.traffic.page import page

Ready = tuple[float, Mapping[str, int]]
Mark = tuple[float, str]

# Safe for colour-blind readers and in print. Red is reserved for failures, which also have their own marker shape.
_COLOURS = ("#a3adb8", "#0072b2", "#e69f00", "#56b4e9", "#5d3a9b", "#009e73")
_RED = "#c1121f"
_INK = "#1f2933"
_FAINT = "#7b8794"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,  # a dollar in a title is a dollar
    "axes.edgecolor": "#cbd2d9",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "segue",  # the same picture makes the same file
}
_WIDTH_IN = 12.0
_LEFT, _RIGHT = 0.062, 0.895
_LANE_IN = 0.24
_GAP_IN = 0.28
_MARK_SIZE = 9
_MARK_LINE: dict[str, Any] = {"color": _INK, "linewidth": 0.8, "alpha": 0.55, "zorder": 2.5}
_MOST_BINS = 600


@dataclass(frozen=True)
class Picture:
    """The data of the picture. All times are in seconds since the epoch.

    ``ready`` are samples of the ready replicas by version; ``marks`` are labelled moments. A version has the
    same name here as in the answers of its servers.
    """

    title: str
    outcomes: Outcomes
    ready: Sequence[Ready]
    floor: int
    ceiling: int
    marks: Sequence[Mark] = ()
    streams: StreamOutcomes | None = None

    def write(self, folder: Path, stem: str) -> tuple[Path, Path]:
        """Write ``stem.html`` (self-contained) and ``stem.png``, and return both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        html, png = folder / f"{stem}.html", folder / f"{stem}.png"
        with mpl.rc_context(_STYLE):
            figure = _Drawing(self).figure()
            figure.savefig(png, dpi=150)
            svg = StringIO()
            figure.savefig(svg, format="svg", metadata={"Date": None})
        html.write_text(page(self.title, self.summary, svg.getvalue(), self.outcomes, self.streams))
        return html, png

    @property
    def summary(self) -> str:
        """The total counts in one line."""
        outcomes, total = self.outcomes, len(self.outcomes.requests)
        parts = [f"{len(outcomes.failed):,} failed of {total:,} requests"]
        if outcomes.dropped:
            parts.append(f"{outcomes.dropped:,} never sent (the load was not constant)")
        if self.streams is not None:
            parts.append(f"{len(self.streams.cut)} cut of {len(self.streams.streams)} streams")
        if self.ready:
            parts.append(f"at least {self._fewest} ready (floor {self.floor})")
        parts.append(f"p50 {_milliseconds(outcomes.percentile(50))}, p99 {_milliseconds(outcomes.percentile(99))}")
        return "  ·  ".join(parts)

    @property
    def bad(self) -> bool:
        """Whether anything failed, was cut or was not sent, or fewer replicas than the floor were ready."""
        cut = self.streams.cut if self.streams is not None else ()
        return bool(self.outcomes.failed or self.outcomes.dropped or cut) or self._fewest < self.floor

    @property
    def _fewest(self) -> int:
        return min((sum(by.values()) for _, by in self.ready), default=self.floor)


class _Drawing:
    """The drawing of one figure."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._requests = picture.outcomes.requests
        self._streams = picture.streams.streams if picture.streams else ()

    def figure(self) -> Figure:
        lanes = self._lanes
        marks_in = _LANE_IN * (max(lanes, default=-1) + 1) + 0.05
        heights = [marks_in, 2.1, 2.1, 1.5] + [1.5] * bool(self._streams)
        tall = sum(heights) + _GAP_IN * (len(heights) - 1) + 1.5
        figure = Figure(figsize=(_WIDTH_IN, tall), facecolor="white")
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        figure.subplots_adjust(
            left=_LEFT,
            right=_RIGHT,
            top=1 - 0.85 / tall,
            bottom=0.62 / tall,
            hspace=_GAP_IN * len(heights) / sum(heights),
        )
        self._head(figure, tall)
        self._draw_ready(panels[1])
        self._draw_requests(panels[2])
        self._draw_latency(panels[3])
        if self._streams:
            self._draw_streams(panels[4])
        self._draw_marks(panels[0], panels[1:], lanes)
        self._time_axis(panels[-1])
        figure.align_ylabels(panels[1:])
        return figure

    @cached_property
    def _start(self) -> float:
        return min(self._moments)

    @cached_property
    def _length(self) -> float:
        return max(max(self._moments) - self._start, 1.0)

    @cached_property
    def _moments(self) -> list[float]:
        picture = self._picture
        moments = [at for at, _ in (*picture.ready, *picture.marks)]
        moments += [end for request in self._requests for end in (request.at, request.at + request.latency_s)]
        moments += [end for stream in self._streams for end in (stream.at, stream.ended_at)]
        return moments or [0.0]

    @cached_property
    def _colours(self) -> dict[str, str]:
        """Return a colour for each version, in order of appearance."""
        samples = [version for _, by in self._picture.ready for version in by]
        answers = [request.version for request in self._requests]
        streamed = [version for stream in self._streams for version in stream.versions]
        versions = [version for version in dict.fromkeys([*samples, *answers, *streamed]) if version]
        return {version: _COLOURS[number % len(_COLOURS)] for number, version in enumerate(versions)}

    @cached_property
    def _bins(self) -> list[list[Request]]:
        """Return requests by their start: equal bins of about a second, all of them full."""
        if not self._requests:
            return [[]]
        first, last = self._requests[0].at, self._requests[-1].at
        bins: list[list[Request]] = [[] for _ in range(max(1, min(_MOST_BINS, round(last - first))))]
        for request in self._requests:
            share = (request.at - first) / (last - first) if last > first else 0.0
            bins[min(int(share * len(bins)), len(bins) - 1)].append(request)
        return bins

    @cached_property
    def _edges(self) -> list[float]:
        if not self._requests:
            return [0.0, self._length]
        first, last = self._requests[0].at - self._start, self._requests[-1].at - self._start
        width = max(last - first, 1.0) / len(self._bins)
        return [first + width * number for number in range(len(self._bins) + 1)]

    def _head(self, figure: Figure, tall: float) -> None:
        figure.text(_LEFT, 1 - 0.3 / tall, self._picture.title, size=16, weight="bold", va="center")
        handles = [Line2D([], [], color=colour, linewidth=7, label=name) for name, colour in self._colours.items()]
        figure.legend(
            handles=handles, ncols=len(handles) or 1, loc="center right", bbox_to_anchor=(_RIGHT, 1 - 0.3 / tall),
            frameon=False, handlelength=0.9, columnspacing=1.4, borderpad=0, fontsize=11,
        )  # fmt: skip
        summary, room_in = self._picture.summary, _WIDTH_IN * (_RIGHT - _LEFT)
        size = min(10.5, _MARK_SIZE * room_in / _width_in(summary))
        figure.text(_LEFT, 1 - 0.6 / tall, summary, size=size, va="center", color=_RED if self._picture.bad else _INK)

    def _draw_ready(self, axes: Axes) -> None:
        picture = self._picture
        times = [at - self._start for at, _ in picture.ready]
        if times:
            rows = [[by.get(version, 0) for _, by in picture.ready] for version in self._colours]
            self._stack(axes, [*times, self._length], rows, list(self._colours.values()))
        for count, dashes in ((picture.floor, (4, 2)), (picture.ceiling, (1, 1.5))):
            axes.axhline(count, color=_INK, linewidth=1.3, dashes=dashes)
        most = max([picture.ceiling, *(sum(by.values()) for _, by in picture.ready)])
        axes.set_ylim(0, most * 1.12)
        floor, ceiling = (picture.floor, f"floor {picture.floor}"), (picture.ceiling, f"ceiling {picture.ceiling}")
        _beside(axes, [floor, ceiling])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylabel("ready replicas")

    def _draw_requests(self, axes: Axes) -> None:
        width = self._edges[1] - self._edges[0]
        good = [
            [sum(not request.failed and request.version == version for request in part) / width for part in self._bins]
            for version in self._colours
        ]
        bad = [sum(request.failed for request in part) / width for part in self._bins]
        self._stack(axes, self._edges, [*good, bad], [*self._colours.values(), _RED])
        top = max(sum(column) for column in zip(*good, bad, strict=True)) or 1.0
        axes.set_ylim(0, top * 1.3)
        failed = self._picture.outcomes.failed
        # In the bars alone, one failure among thousands would be invisible.
        axes.plot([request.at - self._start for request in failed], [top * 1.12] * len(failed), "x", color=_RED, ms=6)
        axes.set_ylabel("requests/s")
        _note(axes, f"{len(failed):,} failed of {len(self._requests):,}", _RED if failed else _INK)

    def _draw_latency(self, axes: Axes) -> None:
        middles = [(left + right) / 2 for left, right in zip(self._edges, self._edges[1:], strict=False)]
        served = [[request.latency_s * 1000 for request in part if not request.failed] for part in self._bins]
        highest, words = 0.0, []
        for percent, colour, line in ((99, _FAINT, 1.1), (50, _INK, 1.8)):
            values = [percentile(part, percent) for part in served]
            axes.plot(middles, values, color=colour, linewidth=line, solid_joinstyle="round")
            known = [value for value in values if not math.isnan(value)] or [0.0]
            highest = max(highest, *known)
            words.append((known[-1], f"p{percent}"))
        axes.set_ylim(0, (highest or 1.0) * 1.15)
        _beside(axes, words)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylabel("latency, ms")

    def _draw_streams(self, axes: Axes) -> None:
        for row, stream in _rows(self._streams):
            colour = self._colours.get(stream.versions[0], _RED) if stream.versions else _RED
            left, right = stream.at - self._start, stream.ended_at - self._start
            axes.plot([left, right], [row, row], color=colour, linewidth=5, solid_capstyle="butt")
            axes.plot([left], [row], "|", color="white", ms=9, mew=2)
            if stream.cut:
                axes.plot([right], [row], "x", color=_RED, ms=8, mew=2.2)
        cut = sum(stream.cut for stream in self._streams)
        axes.set_ylim(-0.8, axes.dataLim.ymax + 1.6)
        axes.set_yticks([])
        axes.set_ylabel("streams")
        _note(axes, f"{cut} cut of {len(self._streams)}", _RED if cut else _INK)

    @cached_property
    def _lanes(self) -> list[int]:
        """Return a lane for each mark, so that no two labels overlap; lane 0 is the lowest."""
        lanes: list[int] = []
        reaches = [self._reach(at, text) for at, text in sorted(self._picture.marks)]
        # From the last to the first, each above all later ones that it touches: their lines end below its label.
        for number in range(len(reaches) - 1, -1, -1):
            later = zip(reaches[number + 1 :], lanes, strict=True)
            touched = [lane for reach, lane in later if _overlap(reach, reaches[number])]
            lanes.insert(0, max(touched, default=-1) + 1)
        return lanes

    def _reach(self, at: float, text: str) -> tuple[float, float]:
        """Return a label's extent in seconds: right of its line, or left of it near the end."""
        wide = (_width_in(text) + 0.2) / (_WIDTH_IN * (_RIGHT - _LEFT)) * self._length
        offset = at - self._start
        return (offset - wide, offset) if self._leans_left(at, wide) else (offset, offset + wide)

    def _leans_left(self, at: float, wide: float) -> bool:
        # To the right there is a margin for the words beside the lines: a label may reach into it.
        return at - self._start + wide > self._length * 1.1

    def _draw_marks(self, axes: Axes, panels: Iterable[Axes], lanes: Sequence[int]) -> None:
        axes.set_axis_off()
        axes.set_ylim(0, max(lanes, default=0) + 1)
        for (at, text), lane in zip(sorted(self._picture.marks), lanes, strict=True):
            offset = at - self._start
            left = self._reach(at, text)[0] < offset
            # From the panel below, across the gap.
            axes.plot([offset, offset], [-_GAP_IN / _LANE_IN - 0.1, lane + 0.9], clip_on=False, **_MARK_LINE)
            axes.annotate(
                text, (offset, lane + 0.5), xytext=(-5 if left else 5, 0), textcoords="offset points", size=_MARK_SIZE,
                ha="right" if left else "left", va="center", annotation_clip=False,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
            for panel in panels:
                panel.axvline(offset, **_MARK_LINE)

    def _time_axis(self, axes: Axes) -> None:
        axes.set_xlim(0, self._length)
        long = self._length > 180
        axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.5, 3, 6, 10] if long else [1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value) if long else f"{value:g}"))
        axes.set_xlabel("minutes and seconds" if long else "seconds", color=_FAINT)

    @staticmethod
    def _stack(axes: Axes, edges: Sequence[float], rows: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
        base = [0.0] * (len(edges) - 1)
        for row, colour in zip(rows, colours, strict=True):
            top = [below + value for below, value in zip(base, row, strict=True)]
            axes.fill_between(
                edges, [*base, base[-1]], [*top, top[-1]], step="post", color=colour, linewidth=0, alpha=0.92
            )
            base = top


def _beside(axes: Axes, words: Iterable[tuple[float, str]]) -> None:
    """Write each label right of the panel at its height, or higher if the label below needs the space."""
    line = _LANE_IN * 0.7 / _tall_in(axes) * axes.get_ylim()[1]
    free_from = -math.inf
    for height, text in sorted(words):
        place = max(height, free_from)
        free_from = place + line
        axes.annotate(
            text, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", size=9, annotation_clip=False,
        )  # fmt: skip


def _tall_in(axes: Axes) -> float:
    return float(axes.get_window_extent().height / axes.figure.dpi)


def _note(axes: Axes, text: str, colour: str) -> None:
    axes.annotate(
        text, (1, 1), xycoords="axes fraction", xytext=(-4, -2), textcoords="offset points", ha="right", va="top",
        size=10, weight="bold", color=colour, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
    )  # fmt: skip


def _rows(streams: Iterable[Stream]) -> Iterable[tuple[int, Stream]]:
    """Return each stream with the lowest row that is free at its start."""
    free_from: list[float] = []
    for stream in streams:
        row = next((number for number, free in enumerate(free_from) if free <= stream.at), len(free_from))
        free_from[row : row + 1] = [stream.ended_at]
        yield row, stream


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _width_in(text: str) -> float:
    """Return the width of a label in inches."""
    return float(TextPath((0, 0), text, size=_MARK_SIZE).get_extents().width) / 72


def _milliseconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1000:,.0f} ms"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
