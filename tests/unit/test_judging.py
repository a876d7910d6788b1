"""Judgements of what was measured: tables, guards, and properties that hold for any data."""

import math
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segue.gates import Result
from segue.judging import (
    Compare,
    Count,
    CountSeries,
    Evidence,
    HistogramSeries,
    Judged,
    Judgement,
    Ratio,
    Threshold,
    ValueSeries,
    judge,
)
from segue.judging.evidence import Series

PASS, FAIL, OPEN = Result.PASS, Result.FAIL, Result.INCONCLUSIVE
COMPARE = Judgement(compare=Compare())
AT_MOST_1_PERCENT = Judgement(threshold=Threshold(max=0.01))
WAYS = {
    "threshold": AT_MOST_1_PERCENT,
    "ratio": Judgement(ratio=Ratio(max=1.2, floor=0.001)),
    "compare": COMPARE,
    "compare, no tails": Judgement(compare=Compare(tails=False)),
}
EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)


def counts(*intervals: tuple[float, float] | None) -> CountSeries:
    return CountSeries(
        intervals=tuple(None if each is None else Count(bad=each[0], total=each[1]) for each in intervals)
    )


def values(*intervals: float | None) -> ValueSeries:
    return ValueSeries(intervals=intervals)


def histogram(*intervals: tuple[float, ...] | None, edges: tuple[float, ...] = EDGES) -> HistogramSeries:
    return HistogramSeries(edges=edges, intervals=intervals)


def latencies(median_s: float, requests: int = 1000, edges: tuple[float, ...] = EDGES) -> tuple[float, ...]:
    """Return an interval of log-normal latencies, without noise."""
    under = [0.5 * (1 + math.erf(math.log(edge / median_s) / 0.5 / math.sqrt(2))) for edge in edges]
    return (*(requests * part for part in under), float(requests))


def judged(way: Judgement, old: Series | None, new: Series | None, unit: str = "") -> Judged:
    return judge(way, Evidence(old=old, new=new, unit=unit))


# --- tables -----------------------------------------------------------------------------------------------

# id: (judgement, old, new, result, what the sentence says)
CASES: dict[str, tuple[Judgement, Series | None, Series | None, Result, str]] = {
    "rate within": (AT_MOST_1_PERCENT, None, counts((9, 10), (1, 100)), PASS, "1 % (1 of 100): at most 1 %"),
    "rate over": (
        AT_MOST_1_PERCENT, None, counts((2, 100)), FAIL, "the share of the new side is 2 % (2 of 100): over 1 %",
    ),
    "rate of too few": (
        AT_MOST_1_PERCENT, None, counts((2, 19)), OPEN, "19 requests in the latest interval; 20 are",
    ),
    "rate of none": (AT_MOST_1_PERCENT, None, counts((0, 0)), OPEN, "0 requests"),
    "latest is missing": (AT_MOST_1_PERCENT, None, counts((2, 100), None, None), FAIL, "2 %"),
    "latest is too old": (AT_MOST_1_PERCENT, None, counts((2, 100), None, None, None), OPEN, "in the last 3 intervals"),
    "quantile within": (
        Judgement(threshold=Threshold(max=1, quantile=0.9)), None, histogram(latencies(0.3)), PASS, "90th percentile",
    ),
    "quantile over": (
        Judgement(threshold=Threshold(max=0.5)), None, histogram(latencies(0.3)), FAIL, "99th percentile",
    ),
    "quantile over all edges": (
        Judgement(threshold=Threshold(max=9)), None, histogram(latencies(5)), OPEN, "add edges",
    ),
    "value under min": (Judgement(threshold=Threshold(min=10)), None, values(9.5), FAIL, "9.5: under 10"),
    "value between": (
        Judgement(threshold=Threshold(min=-1, max=1)), None, values(-0.5), PASS, "at most 1 and at least -1",
    ),
    "ratio within": (Judgement(ratio=Ratio(max=1.2)), values(10), values(11), PASS, "at most 12"),
    "ratio over": (Judgement(ratio=Ratio(max=1.2)), values(10), values(12.1), FAIL, "of the old side 10: over 12"),
    "ratio under": (Judgement(ratio=Ratio(min=0.9)), values(100), values(80), FAIL, "under 90"),
    "ratio of almost nothing": (
        Judgement(ratio=Ratio(max=2, floor=0.01)), counts((0, 100)), counts((1, 100)), PASS, "floor",
    ),
    "ratio of nothing": (Judgement(ratio=Ratio(max=2)), counts((0, 100)), counts((1, 100)), OPEN, "give `floor`"),
    "5 % errors against none": (
        COMPARE, counts(*[(0, 100)] * 4), counts(*[(5, 100)] * 4), FAIL, "worse by more than 10 %",
    ),
    "1 error against none": (COMPARE, counts(*[(0, 100)] * 3), counts((1, 100), (0, 100), (0, 100)), OPEN, "evidence"),
    "all fail, but in one interval": (COMPARE, counts(*[(0, 100)] * 9), counts((100, 100), *[(0, 100)] * 8), OPEN, ""),
    "all fail, but in two intervals": (
        COMPARE, counts(*[(0, 100)] * 9), counts(*[(100, 100)] * 2, *[(0, 100)] * 7), OPEN, "",
    ),
    "all fail, in three intervals": (COMPARE, counts(*[(0, 100)] * 3), counts(*[(100, 100)] * 3), FAIL, ""),
    "no errors for long": (
        COMPARE, counts(*[(0, 900)] * 20), counts(*[(0, 900)] * 20), PASS, "not worse by 30 % plus 0.7 % of requests",
    ),
    "too few intervals": (
        COMPARE, counts(*[(0, 900)] * 2), counts(*[(90, 900)] * 2), OPEN, "2 intervals with data of both",
    ),
    "too few requests": (COMPARE, counts(*[(0, 900)] * 9), counts(*[(9, 10)] * 9), OPEN, "90 requests of the new side"),
    "equal latencies": (COMPARE, histogram(*[latencies(0.3)] * 20), histogram(*[latencies(0.3)] * 20), PASS, "p99 new"),
    "slower by 2 %": (COMPARE, histogram(*[latencies(0.3)] * 20), histogram(*[latencies(0.306)] * 20), PASS, "p50"),
    "slower by 30 %": (
        COMPARE, histogram(*[latencies(0.3)] * 9), histogram(*[latencies(0.39)] * 9), FAIL, "worse by more",
    ),
    "one bucket holds all": (
        COMPARE, histogram(*[(0.0, 9000, 9000)] * 9, edges=(1, 2)), histogram(*[(0.0, 9000, 9000)] * 9, edges=(1, 2)),
        OPEN, "100 % of the old side's requests are between the edges 1 and 2",
    ),
    "narrow, and 2 % slower over an edge": (
        COMPARE, histogram(*[(0.0, 800, 1000, 1000)] * 40, edges=(10, 25, 50)),
        histogram(*[(0.0, 650, 1000, 1000)] * 40, edges=(10, 25, 50)), OPEN, "too coarse to tell; add edges there",
    ),
    "narrow, and twice as slow": (
        COMPARE, histogram(*[(0.0, 800, 1000, 1000)] * 9, edges=(10, 25, 50)),
        histogram(*[(0.0, 100, 600, 1000)] * 9, edges=(10, 25, 50)), FAIL, "worse",
    ),
    "beyond the last edge": (
        COMPARE, histogram(*[latencies(5)] * 9), histogram(*[latencies(5)] * 9), OPEN, "add edges to judge its tail",
    ),
    "no edge in common": (
        COMPARE, histogram(*[(1.0, 2.0)] * 9, edges=(1,)), histogram(*[(1.0, 2.0)] * 9, edges=(2,)), OPEN, "in common",
    ),
    "some edges in common": (
        COMPARE, histogram(*[latencies(0.3)] * 9), histogram(*[latencies(0.6, edges=EDGES[2:])] * 9, edges=EDGES[2:]),
        FAIL, "",
    ),
    "values that are higher": (
        COMPARE, values(*[10.0, 11, 9, 10] * 5), values(*[20.0, 19, 22, 21] * 5), FAIL, "median of new",
    ),
    "values that are equal": (
        COMPARE, values(*[10.0, 11, 9, 10] * 5), values(*[10.0, 9, 11, 10] * 5), PASS, "not worse",
    ),
    "throughput that is lower": (
        Judgement(compare=Compare(worse="lower")), values(*[20.0] * 20), values(*[10.0] * 20), FAIL, "worse",
    ),
    "throughput that is higher": (
        Judgement(compare=Compare(worse="lower")), values(*[10.0] * 20), values(*[20.0] * 20), PASS, "not worse",
    ),
    "idle on both sides": (COMPARE, values(*[0.0] * 20), values(*[0.0] * 20), OPEN, "give `slack`"),
    "idle on both sides, with slack": (
        Judgement(compare=Compare(slack=1)), values(*[0.0] * 20), values(*[0.0] * 20), PASS, "not worse",
    ),
    "worse only while it warms up": (
        Judgement(compare=Compare(warmup=3)), counts(*[(0, 900)] * 20), counts(*[(900, 900)] * 3, *[(0, 900)] * 17),
        PASS, "",
    ),
    "nothing": (COMPARE, None, None, OPEN, "no data of the new side"),
    "only the new side": (COMPARE, None, counts((0, 900)), OPEN, "no data of the old side"),
    "the old side is empty": (COMPARE, counts(None, None), counts((0, 900)), OPEN, "no data of the old side"),
    "different kinds": (COMPARE, values(1), counts((0, 900)), OPEN, "different kinds"),
    "a reset": (AT_MOST_1_PERCENT, None, counts((0, 100), (-5, 100)), PASS, ""),
    "only resets": (AT_MOST_1_PERCENT, None, counts((-5, 100), (0, -1)), OPEN, "2 intervals with a negative increase"),
    "more bad than all": (AT_MOST_1_PERCENT, None, counts((50, 10)), OPEN, "more bad events than events"),
    "buckets that fall": (
        COMPARE, histogram((9.0, 1, 9), edges=(1, 2)), histogram((9.0, 1, 9), edges=(1, 2)), OPEN, "fall",
    ),
    "buckets that lack": (
        COMPARE, histogram((9.0, 9), edges=(1, 2)), histogram((9.0, 9), edges=(1, 2)), OPEN, "for 2 edges",
    ),
    "edges that do not ascend": (
        COMPARE, histogram((1.0, 2, 3), edges=(2, 1)), histogram((1.0, 2, 3)), OPEN, "data is invalid",
    ),
    "no edges": (COMPARE, histogram((1.0,), edges=()), histogram((1.0,), edges=()), OPEN, "no finite bucket edge"),
    "negative values": (COMPARE, values(*[-1.0] * 9), values(*[1.0] * 9), OPEN, "a negative value"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_said_of(case: str) -> None:
    """Each case has its result, and a sentence that tells a person why."""
    way, old, new, result, expected = CASES[case]
    found = judged(way, old, new)
    assert found.result is result, found
    assert expected in found.why
    assert all(math.isfinite(number) for number in found.numbers.values())


def test_the_numbers_are_told() -> None:
    """A verdict carries the estimates of both sides, how much they rest on, and the bounds."""
    found = judged(COMPARE, counts(*[(0, 100)] * 4), counts(*[(5, 100)] * 4))
    assert (
        found.numbers.items() >= {"old": 0.0, "new": 0.05, "traffic_new": 400.0, "samples": 4.0, "alpha": 0.01}.items()
    )
    assert found.numbers["evidence_worse"] > 100
    assert found.why.startswith("new 5 % (20 of 400), old 0 % (0 of 400): worse by more than 10 % (evidence ")


def test_evidence_survives_json() -> None:
    """What is kept in a file is judged as it was."""
    evidence = Evidence(old=histogram(latencies(0.3), None), new=histogram(None, latencies(0.4)), unit="s")
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_data(wrong: float) -> None:
    """NaN and infinity, as Prometheus answers for 0/0, are intervals without data."""
    assert counts((wrong, 10), (1, wrong), (1, 10)).intervals == (None, None, Count(bad=1, total=10))
    assert values(wrong, 1.0).intervals == (None, 1.0)
    assert histogram((wrong, 1.0), edges=(1,)).intervals == (None,)


def test_what_was_left_out_is_said() -> None:
    """An interval that cannot be true decides nothing, and the sentence tells of it."""
    old = counts((-1, 900), *[(0, 900)] * 20)
    found = judged(COMPARE, old, counts(*[(0, 900)] * 21))
    assert found.result is PASS
    assert "old: 1 interval with a negative increase (a counter was reset) left out" in found.why


def test_until_keeps_both_sides_together() -> None:
    """What was known earlier lacks the newest intervals of both sides, also where one has more."""
    evidence = Evidence(old=values(1, 2, 3), new=values(8, 9))
    assert [evidence.until(n).old.intervals for n in (1, 2, 3)] == [(1,), (1, 2), (1, 2, 3)]  # type: ignore[union-attr]
    assert [evidence.until(n).new.intervals for n in (1, 2, 3)] == [(), (8,), (8, 9)]  # type: ignore[union-attr]


# --- how long it takes, when each interval is as expected -------------------------------------------------

# id: (rates of old and new, requests of old and new in 30 s, the result, the most intervals it takes)
TIMES: dict[str, tuple[float, float, int, int, Result, int]] = {
    "no errors, at 10 a second": (0.0, 0.0, 240, 60, PASS, 20),
    "0.1 % errors, at 10 a second": (0.001, 0.001, 240, 60, PASS, 25),
    "1 % errors, at 10 a second": (0.01, 0.01, 240, 60, PASS, 40),
    "5 % errors, at 10 a second": (0.05, 0.05, 240, 60, PASS, 35),
    "1 % errors, at 50 a second": (0.01, 0.01, 1200, 300, PASS, 8),
    "errors tripled, at 10 a second": (0.01, 0.03, 240, 60, FAIL, 25),
    "a percentage point more, at 10 a second": (0.001, 0.011, 240, 60, FAIL, 25),
    "a percentage point more, at 50 a second": (0.01, 0.02, 1200, 300, FAIL, 15),
}


@pytest.mark.parametrize("case", TIMES)
def test_the_defaults_decide_in_time(case: str) -> None:
    """``compare: {}`` decides before the deadline that a gate has by default, 60 intervals, at 10 requests a second."""
    old, new, all_old, all_new, result, most = TIMES[case]
    found = judged(COMPARE, counts(*[(old * all_old, all_old)] * most), counts(*[(new * all_new, all_new)] * most))
    assert found.result is result, found.why


# --- properties -------------------------------------------------------------------------------------------

ANY = st.one_of(st.none(), st.floats(), st.integers(-5, 2000).map(float))
TOTALS = st.integers(1, 500)


def any_series() -> st.SearchStrategy[Any]:
    pairs = st.one_of(st.none(), st.builds(lambda b, t: Count(bad=b or 0.0, total=t or 0.0), ANY, ANY))
    rows = st.one_of(st.none(), st.lists(st.floats() | st.integers(0, 900).map(float), max_size=5).map(tuple))
    edges = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple)
    return st.one_of(
        st.none(),
        st.builds(CountSeries, intervals=st.lists(pairs, max_size=9).map(tuple)),
        st.builds(HistogramSeries, edges=edges, intervals=st.lists(rows, max_size=9).map(tuple)),
        st.builds(ValueSeries, intervals=st.lists(ANY, max_size=9).map(tuple)),
    )


@pytest.mark.parametrize("way", WAYS)
@given(old=any_series(), new=any_series())
@example(old=ValueSeries(intervals=(1.5e308, 0.0, 0.0)), new=ValueSeries(intervals=(1.0, 0.0, 0.0)))
@example(old=counts((0, 2**-7), (0, 8), (0, 92)), new=counts((0, 6e13), (0, 1), (0, 1)))
@example(old=counts((0, 1e308), (0, 8), (0, 92)), new=counts((0, 1e308), (0, 1), (0, 1)))
def test_whatever_was_measured_is_judged(way: str, old: Any, new: Any) -> None:
    """No data raises, and every sentence and number can be written down."""
    found = judged(WAYS[way], old, new)
    assert found.why
    assert Judged.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("way", WAYS)
@given(old=any_series(), length=st.integers(0, 9), kind=st.sampled_from([CountSeries, ValueSeries]))
def test_without_data_nothing_passes(way: str, old: Any, length: int, kind: Any) -> None:
    """A new side of which nothing is known is neither good nor bad."""
    assert judged(WAYS[way], old, kind(intervals=(None,) * length)).result is OPEN


@st.composite
def two_counts(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    length = draw(st.integers(3, 12))

    def side() -> list[tuple[float, float]]:
        totals = draw(st.lists(TOTALS, min_size=length, max_size=length))
        return [(float(draw(st.integers(0, min(total, 30)))), float(total)) for total in totals]

    return side(), side()


@given(sides=two_counts(), at=st.integers(0, 11), more=st.integers(1, 400))
def test_more_bad_events_make_it_never_better(
    sides: tuple[list[tuple[float, float]], list[tuple[float, float]]], at: int, more: int
) -> None:
    """One interval of the new side with more bad events: evidence that it is worse grows, that it is fine shrinks."""
    old, new = sides
    worse = list(new)
    bad, total = worse[at % len(worse)]
    worse[at % len(worse)] = (min(total, bad + more), total)
    before, after = (judged(COMPARE, counts(*old), counts(*side)) for side in (new, worse))
    if "evidence_worse" in before.numbers:
        assert after.numbers["evidence_worse"] >= before.numbers["evidence_worse"] * (1 - 1e-9)
        assert after.numbers["evidence_fine"] <= before.numbers["evidence_fine"] * (1 + 1e-9)


@given(
    rows=st.lists(st.lists(st.integers(0, 40), min_size=10, max_size=10), min_size=3, max_size=8),
    at=st.integers(0, 7),
    bucket=st.integers(0, 8),
)
def test_a_slower_request_makes_it_never_better(rows: list[list[int]], at: int, bucket: int) -> None:
    """One request of the new side in a higher bucket."""
    worse = [list(row) for row in rows]
    row = worse[at % len(worse)]
    if row[bucket]:
        row[bucket], row[-1] = row[bucket] - 1, row[-1] + 1
    old = histogram(*[latencies(0.3, 200)] * len(rows))
    before, after = (judged(COMPARE, old, histogram(*[cumulative(row) for row in side])) for side in (rows, worse))
    if "evidence_worse" in before.numbers:
        assert after.numbers["evidence_worse"] >= before.numbers["evidence_worse"] * (1 - 1e-9)
        assert after.numbers["evidence_fine"] <= before.numbers["evidence_fine"] * (1 + 1e-9)


def cumulative(row: list[int]) -> tuple[float, ...]:
    return tuple(float(sum(row[: i + 1])) for i in range(len(row)))


@given(
    pairs=st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=3, max_size=12),
    times=st.floats(1, 10),
)
def test_a_higher_gauge_makes_it_never_better(pairs: list[tuple[float, float]], times: float) -> None:
    """The new side's values, all so many times as high."""
    old, new = (values(*side) for side in zip(*pairs, strict=True))
    # A ratio of over e^3 counts as e^3: to be exact, how much neighbours resemble each other is left to them.
    before, after = (judged(COMPARE, old, side) for side in (new, values(*(v * times for v in new.intervals))))  # type: ignore[operator]
    if before.numbers["inflation"] == after.numbers["inflation"]:
        assert after.numbers["evidence_worse"] >= before.numbers["evidence_worse"] * (1 - 1e-9)
        assert after.numbers["evidence_fine"] <= before.numbers["evidence_fine"] * (1 + 1e-9)


@given(sides=two_counts(), seed=st.integers(0, 99))
def test_the_new_sides_order_says_nothing(
    sides: tuple[list[tuple[float, float]], list[tuple[float, float]]], seed: int
) -> None:
    """The same pairs in another order are the same evidence, but for how bursty the old side then looks."""
    both = list(zip(*sides, strict=True))
    shuffled = random.Random(seed).sample(both, len(both))
    before, after = (judged(COMPARE, counts(*(o for o, _ in p)), counts(*(n for _, n in p))) for p in (both, shuffled))
    if before.numbers.get("inflation") == after.numbers.get("inflation"):
        assert before.result is after.result
        assert before.numbers == pytest.approx(after.numbers)


@given(sides=two_counts())
def test_it_never_says_both(sides: tuple[list[tuple[float, float]], list[tuple[float, float]]]) -> None:
    """There is no data that proves it worse by more than tolerance and not worse by effect."""
    old, new = (counts(*side) for side in sides)
    found = judged(COMPARE, old, new)
    if "evidence_worse" in found.numbers:
        assert not (found.numbers["evidence_worse"] >= 100 and found.numbers["evidence_fine"] >= 20)


# --- validity, by a simulation with a seed ----------------------------------------------------------------

LOOKS, RELEASES = 12, 100


def first_decision(way: Judgement, old: Series, new: Series) -> Result:
    evidence = Evidence(old=old, new=new)
    looks = (judge(way, evidence.until(look)).result for look in range(1, LOOKS + 1))
    return next((result for result in looks if result is not OPEN), OPEN)


def draw_counts(rng: random.Random, rate: float, requests: int) -> CountSeries:
    bad = [sum(rng.random() < rate for _ in range(requests)) for _ in range(LOOKS)]
    return counts(*((b, requests) for b in bad))


def draw_histogram(rng: random.Random, slower: float, requests: int) -> HistogramSeries:
    rows = []
    for _ in range(LOOKS):
        seen = [slower * 0.3 * math.exp(rng.gauss(0, 0.5)) for _ in range(requests)]
        rows.append((*(float(sum(s <= edge for s in seen)) for edge in EDGES), float(requests)))
    return histogram(*rows)


def draw_values(rng: random.Random, higher: float, _: int) -> ValueSeries:
    return values(*(higher * math.exp(rng.gauss(0, 0.2)) for _ in range(LOOKS)))


# id: (how a side is drawn, what of the old side, what of the new one exactly at the null's boundary, requests)
BOUNDARIES: dict[str, tuple[Any, float, float, float, int]] = {
    "counts": (draw_counts, 0.2, 0.2 * 1.1 + 0.001, 0.2 * 1.3 + 0.007, 40),
    "sparse counts": (draw_counts, 0.01, 0.01 * 1.1 + 0.001, 0.01 * 1.3 + 0.007, 40),
    "no counts": (draw_counts, 0.0, 0.001, 0.007, 200),
    "histogram": (draw_histogram, 1.0, 1.1, 1.3, 20),
    "values": (draw_values, 1.0, 1.1, 1.3, 0),
}


@pytest.mark.parametrize("case", BOUNDARIES)
def test_looking_again_and_again_keeps_its_promise(case: str) -> None:
    """At the very boundary, alpha of all versions fail and beta pass at most, of all looks together."""
    draw, old, at_tolerance, at_effect, requests = BOUNDARIES[case]
    way = Judgement(compare=Compare(alpha=0.1, beta=0.1, min_traffic=1))
    rng = random.Random(7)
    failed = [first_decision(way, draw(rng, old, requests), draw(rng, at_tolerance, requests)) for _ in range(RELEASES)]
    passed = [first_decision(way, draw(rng, old, requests), draw(rng, at_effect, requests)) for _ in range(RELEASES)]
    most = RELEASES * 0.1 + 3 * math.sqrt(RELEASES * 0.1 * 0.9)
    assert failed.count(FAIL) <= most
    assert passed.count(PASS) <= most
