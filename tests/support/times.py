"""The time tables of ``make test``: a run writes ``out/times.json``, and ``make times`` writes it into the docs."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/testing.md"
BEGIN, END = "<!-- times: made by `make times` -->\n", "<!-- end of times -->"
SHORTEST_S = 10
"""Files and tests that take less time are not listed."""
LONGEST = 25


class Took(NamedTuple):
    """One test with its fixtures."""

    test: str
    seconds: float
    process: str


def is_whole(config: pytest.Config) -> bool:
    """Whether a run has all tests, as ``make test`` begins it. Other runs leave the times of the last one alone."""
    given = config.option
    has_paths = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return not has_paths and not given.keyword and given.markexpr == "not soak"


class Times:
    """A plugin of the process that distributes the tests: it adds up what the others report."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid, getattr(report, "worker_id", "main")] += report.duration

    def pytest_sessionfinish(self) -> None:
        took = [Took(test, round(seconds, 2), process) for (test, process), seconds in self._seconds.items()]
        self._folder.mkdir(exist_ok=True)
        body = {"wall_s": round(time.monotonic() - self._began), "tests": [each._asdict() for each in took]}
        (self._folder / "times.json").write_text(json.dumps(body, indent=1))


def tables(wall_s: float, took: Iterable[Took]) -> str:
    """Return the times by process and by file, and the longest tests, as Markdown."""
    took = list(took)
    all_s = sum(each.seconds for each in took)
    files, processes = (
        _added((_file(each.test), each.seconds) for each in took),
        _added((e.process, e.seconds) for e in took),
    )
    long = [file for file in files if files[file] >= SHORTEST_S]
    rest = all_s - sum(files[file] for file in long)
    longest = sorted(took, key=lambda each: -each.seconds)[:LONGEST]
    wall = f"{wall_s // 60:.0f} min {wall_s % 60:.0f} s"
    lines = [
        f"{len(took):,} tests took {wall}: {all_s:,.0f} s in all processes together.",
        *_table("process", processes.items()),
        *_table("file", [*((file, files[file]) for file in long), (f"{len(files) - len(long)} others", rest)]),
        *_table("test", [(each.test.removeprefix("tests/"), each.seconds) for each in longest]),
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Iterable[tuple[str, float]]) -> list[str]:
    return ["", f"| s | {title} |", "|---:|---|", *(f"| {seconds:,.0f} | `{name}` |" for name, seconds in rows)]


def _added(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the sums by name, the largest first."""
    sums: dict[str, float] = defaultdict(float)
    for name, seconds in pairs:
        sums[name] += seconds
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def _file(test: str) -> str:
    return test.partition("::")[0].removeprefix("tests/")


def main() -> None:
    """Write the last run's tables into the page."""
    made = ROOT / "out/times.json"
    if not made.exists():
        sys.exit("out/times.json is not there: run `make test` first, which leaves it")
    run = json.loads(made.read_text())
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + tables(run["wall_s"], [Took(**each) for each in run["tests"]]) + end + after)


if __name__ == "__main__":
    main()
