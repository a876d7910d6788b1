"""Recorded series: those of Segue, and what Prometheus' query_range answers."""

from typing import Any

import pytest

from segue.errors import Refused
from segue.judging import Count
from segue.judging.recorded import aligned, read_recorded


def prometheus(*series: tuple[dict[str, str] | None, list[list[Any]]]) -> dict[str, Any]:
    result = [{"metric": labels, "values": points} for labels, points in series]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


def points(*values: str, start: int = 60) -> list[list[Any]]:
    return [[start + 30 * i, value] for i, value in enumerate(values) if value]


def test_a_gap_in_prometheus_answer_is_no_data() -> None:
    """A point that is not there, and NaN, are intervals without data."""
    found = read_recorded(prometheus(({}, points("1", "", "NaN", "4"))), "values", "a.json")
    assert found.series.intervals == (1.0, None, None, 4.0)


def test_a_histogram_is_put_together_by_le() -> None:
    """Edges are sorted as numbers, +Inf comes last, and an interval that lacks a bucket is none."""
    answer = prometheus(
        ({"le": "+Inf"}, points("9", "9")), ({"le": "10"}, points("8", "8")), ({"le": "2.5"}, points("1", "")),
    )  # fmt: skip
    found = read_recorded(answer, "histogram", "a.json").series
    assert found.kind == "histogram"
    assert (found.edges, found.intervals) == ((2.5, 10.0), ((1.0, 8.0, 9.0), None))


def test_counts_are_two_answers() -> None:
    """No series of bad events beside some of all events is none bad; no data of all events is no data."""
    total = prometheus(({}, points("10", "", "30", "40")))
    found = read_recorded({"bad": prometheus(({}, points("1"))), "total": total}, "counts", "a.json").series
    assert found.intervals == (Count(bad=1, total=10), None, Count(bad=0, total=30), Count(bad=0, total=40))
    none = read_recorded({"bad": prometheus(), "total": total}, "counts", "a.json").series
    assert none.intervals == (Count(bad=0, total=10), None, Count(bad=0, total=30), Count(bad=0, total=40))


def test_segues_own_series_is_read_as_it_is() -> None:
    """What was kept of a series can be judged again."""
    series = read_recorded({"kind": "values", "intervals": [1, None, 3]}, "values", "a.json").series
    assert series.intervals == (1.0, None, 3.0)


@pytest.mark.parametrize(
    ("old_start", "new_start", "old", "new"),
    [
        (60, 60, (1, 2), (1, 2)),
        (60, 90, (1, 2, None), (1, 2)),
        (90, 60, (1, 2), (1, 2, None)),
    ],
    ids=["together", "new is later", "old is later"],
)
def test_both_sides_are_laid_together_by_their_times(old_start: int, new_start: int, old: Any, new: Any) -> None:
    """The newest intervals belong together; a side that ends earlier has none there."""
    sides = (read_recorded(prometheus(({}, points("1", "2", start=s))), "values", "x") for s in (old_start, new_start))
    assert tuple(side.intervals for side in aligned(*sides)) == (old, new)


# id: (document, kind, what the message says)
REFUSED: dict[str, tuple[Any, str, str]] = {
    "a list": ([], "values", "a.json: is not a mapping; give a series that Segue recorded, or the JSON answer of"),
    "no result": ({"status": "error"}, "values", "a.json: has no data.result"),
    "a vector": (
        {"data": {"resultType": "vector", "result": []}},
        "values",
        "'vector': is not a matrix; use query_range",
    ),
    "two series": (prometheus(({"a": "1"}, []), ({"a": "2"}, [])), "values", "a.json: has 2 series; aggregate them"),
    "no le": (prometheus(({}, [])), "histogram", "a.json: le: '': is not a bucket edge; query the buckets"),
    "no +Inf": (prometheus(({"le": "1"}, [])), "histogram", "has no series with le=+Inf; query all buckets"),
    "an le twice": (prometheus(({"le": "1"}, []), ({"le": "1.0"}, [])), "histogram", "several series of one le"),
    "no points": (prometheus(({}, [[1]])), "values", "has a series without [time, value] pairs"),
    "a number beyond all": (prometheus(({}, [[0, 10**400]])), "values", "has a series without [time, value] pairs"),
    "no time": (prometheus(({}, [["NaN", "1"], [1, "1"]])), "values", "a.json: nan: is not a time in seconds"),
    "endless time": (prometheus(({}, [[1e308, "1"], [-1e308, "1"]])), "values", "1e+308: is not a time in seconds"),
    "no labels": (prometheus((None, [])), "histogram", "a.json: le: '': is not a bucket edge"),
    "a NaN le": (prometheus(({"le": "NaN"}, [])), "histogram", "a.json: le: 'NaN': is not a bucket edge"),
    "only bad": ({"bad": prometheus()}, "counts", "a.json: total: has no data.result"),
    "too long": (prometheus(({}, [[0, "1"], [1, "1"], [99999, "1"]])), "values", "has over 10000 intervals"),
    "other kind": ({"kind": "values", "intervals": []}, "counts", "a.json: kind: 'values': is not counts"),
    "no such kind": ({"kind": "x", "intervals": []}, "counts", "a.json"),
    "text": ({"intervals": ["many"]}, "values", "a.json: intervals[0]: 'many'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused(case: str) -> None:
    """The message names the file, what is wrong with it, and the fix."""
    document, kind, expected = REFUSED[case]
    with pytest.raises(Refused) as refused:
        read_recorded(document, kind, "a.json")  # type: ignore[arg-type]
    assert expected in str(refused.value)


def test_different_steps_are_refused() -> None:
    """Intervals of different lengths cannot be compared."""
    slow = prometheus(({}, [[60, "1"], [120, "2"]]))
    sides = (read_recorded(each, "values", "x") for each in (prometheus(({}, points("1", "2"))), slow))
    with pytest.raises(Refused, match="30 s and 60 s"):
        aligned(*sides)
