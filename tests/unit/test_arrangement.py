"""How a run of the tests is arranged, and how it tells where its time went."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import side_by_side
from side_by_side import BY_TEST, FIRST, TOGETHER, in_order, part_of
from times import BEGIN, END, PAGE, Took, is_whole, tables

pytest_plugins = ["pytester"]
FOLDER = Path(__file__).parents[1]


def test_every_file_that_is_named_is_there() -> None:
    """A file that is renamed takes its place with it."""
    files = {path.stem for path in FOLDER.rglob("test_*.py")}
    assert {*BY_TEST, *TOGETHER, *FIRST} <= files
    assert all((FOLDER / folder).is_dir() for folder in side_by_side.LAST)


def test_parts() -> None:
    """A file is a part, or each of its tests, or several files together; no part depends on a parameter's value."""
    assert part_of("tests/cluster/test_new.py::test_a[x/y::z]") == "tests/cluster/test_new.py"
    assert part_of("tests/cluster/test_every_lever.py::test_a[x]") == "tests/cluster/test_every_lever.py::test_a[x]"
    assert part_of("tests/cluster/test_metrics_outage.py::a") == part_of("tests/cluster/test_metrics_provider.py::b")


def test_the_longest_begin_and_the_shortest_end() -> None:
    """What is not named comes between them, in the order of the collection."""
    names = [
        "tests/unit/test_serving.py::a", "tests/cluster/test_new.py::b", "tests/cluster/test_new.py::a",
        "tests/node/test_serving.py::a", "tests/node/test_nothing_is_lost.py::a",
    ]  # fmt: skip
    items = [SimpleNamespace(nodeid=name) for name in names]
    in_order(items)
    assert [names.index(item.nodeid) for item in items] == [4, 3, 1, 2, 0]


def test_where_the_time_went() -> None:
    """Seconds by process, by file and by test, the longest first; what is short is added up."""
    took = [
        Took("tests/node/test_a.py::test_x", 61.2, "gw0"),
        Took("tests/node/test_a.py::test_y", 2, "gw1"),
        Took("tests/unit/test_b.py::test_z", 0.5, "gw1"),
    ]
    shown = tables(65, took)
    assert shown.startswith("3 tests took 1 min 5 s: 64 s in all processes together.")
    rows = [line for line in shown.splitlines() if line.startswith("| ") and "| s |" not in line]
    assert rows[:4] == ["| 61 | `gw0` |", "| 2 | `gw1` |", "| 63 | `node/test_a.py` |", "| 0 | `1 others` |"]
    assert rows[4] == "| 61 | `node/test_a.py::test_x` |"


@pytest.mark.parametrize(
    ("arguments", "whole"),
    [([], True), (["tests/unit"], False), (["-k", "x"], False), (["-m", "soak"], False), (["-n", "3"], True)],
    ids=lambda given: " ".join(given) if isinstance(given, list) else None,
)
def test_only_a_run_of_all_tests_leaves_its_times(pytester: pytest.Pytester, arguments: list[str], whole: bool) -> None:
    """A small run beside it would replace the table's numbers."""
    pytester.makeini("[pytest]\ntestpaths = .\naddopts = -m 'not soak'\n")
    assert is_whole(pytester.parseconfig(*arguments)) is whole


def test_the_page_has_a_place_for_it() -> None:
    text = PAGE.read_text()
    assert 0 < text.index(BEGIN) < text.index(END)
