"""``bench/judging.py``: how often each judgement takes back a version that is fine, and lets one through that is not.

Releases are simulated with a seed; each is judged every 30 s for 10 minutes. Ours is the very function that gates use.
Beside it, over the same numbers: a fixed threshold, a fixed ratio, and the Mann-Whitney test at 98 % that Kayenta uses,
each once at the end and at every look (then the first alarm counts, as when a canary is analysed again and again).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import mannwhitneyu

from segue.gates import Result
from segue.judging import Count, CountSeries, Evidence, HistogramSeries, Judgement, ValueSeries, judge

Array = np.ndarray[Any, np.dtype[np.float64]]

LOOKS, INTERVAL_S = 20, 30
OLD, NEW = 1200, 300
"""Requests in an interval: 40 a second of the old side, 10 of the new one."""
FEWEST = 5
"""Mann-Whitney needs five values of each side to reach 98 %."""
LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The edges of vLLM's own histograms."""


@dataclass(frozen=True)
class Sides:
    """What was measured of many releases: arrays whose first two axes are release and interval."""

    evidence: Callable[[int], Evidence]
    metrics: tuple[tuple[Array, Array], ...]
    """What others would look at: (old, new), a value an interval; a histogram's median and 99th percentile."""
    pooled: tuple[tuple[Array, Array], ...]
    """The same over all intervals together."""


@dataclass(frozen=True)
class Scenario:
    name: str
    bad: bool
    limits: tuple[float, ...]
    """The fixed threshold of each metric: what somebody would write who knows the old version."""
    make: Callable[[np.random.Generator, int], Sides]
    judgement: dict[str, Any] = field(default_factory=dict)


# --- what is measured -------------------------------------------------------------------------------------


def counted(bad: tuple[Array, Array], total: tuple[Array, Array]) -> Sides:
    def evidence(release: int) -> Evidence:
        sides = [
            CountSeries(
                intervals=tuple(Count(bad=b, total=t) for b, t in zip(bads[release], totals[release], strict=True))
            )
            for bads, totals in zip(bad, total, strict=True)
        ]
        return Evidence(old=sides[0], new=sides[1])

    rates = tuple(b / np.maximum(1, t) for b, t in zip(bad, total, strict=True))
    whole = tuple(b.sum(1) / np.maximum(1, t.sum(1)) for b, t in zip(bad, total, strict=True))
    return Sides(evidence, ((rates[0], rates[1]),), ((whole[0], whole[1]),))


def errors(
    old: float, new: float, *, requests: tuple[int, int] = (OLD, NEW), drift: float = 0.0, burst: float = 0.0
) -> Callable[[np.random.Generator, int], Sides]:
    """Return errors at these rates; ``drift`` is of both sides together, ``burst`` the mean size of a burst of them."""

    def make(rng: np.random.Generator, releases: int) -> Sides:
        day = drifting(rng, releases, drift)
        total = tuple(rng.poisson(n, (releases, LOOKS)).astype(float) for n in requests)
        bad = tuple(
            burst_of(rng, n, np.minimum(0.9, rate * day), burst) for n, rate in zip(total, (old, new), strict=True)
        )
        return counted((bad[0], bad[1]), (total[0], total[1]))

    return make


def burst_of(rng: np.random.Generator, total: Array, rate: Array, burst: float) -> Array:
    if not burst:
        return rng.binomial(total.astype(int), rate).astype(float)
    bursts = rng.poisson(total * rate / burst)
    return np.minimum(total, bursts + rng.negative_binomial(np.maximum(1, bursts), 1 / burst) * (bursts > 0))


def drifting(rng: np.random.Generator, releases: int, part: float) -> Array:
    """Return a factor an interval that goes up or down smoothly, from wherever in its course it is."""
    phase = rng.uniform(0, 2 * np.pi, (releases, 1))
    return np.exp(part * np.sin(phase + np.linspace(0, 2 * np.pi, LOOKS)))


def latencies(
    slower: float,
    *,
    median: float = 2.0,
    edges: tuple[float, ...] = LATENCY,
    requests: tuple[int, int] = (OLD, NEW),
    tail: tuple[float, float] = (0.0, 1.0),
    drift: float = 0.0,
    noise: float = 0.02,
    sigma: float = 0.5,
) -> Callable[[np.random.Generator, int], Sides]:
    """Return log-normal latencies, of which the new side's are ``slower`` times as long.

    ``tail``: which part of the new side's requests is how many times slower still. ``noise``: by how much the
    latency of a side varies from interval to interval, whatever the other does: replicas, loads, neighbours.
    """

    def side(rng: np.random.Generator, day: Array, n: int, times: float, slow: tuple[float, float]) -> Array:
        scale = median * times * day * np.exp(rng.normal(0, noise, day.shape))
        under = below(scale, edges, sigma) * (1 - slow[0]) + below(scale * slow[1], edges, sigma) * slow[0]
        parts = np.diff(under, axis=-1, prepend=0.0, append=1.0).clip(0)
        counts = rng.multinomial(rng.poisson(n, day.shape), parts / parts.sum(-1, keepdims=True))
        return counts.cumsum(-1).astype(float)

    def make(rng: np.random.Generator, releases: int) -> Sides:
        day = drifting(rng, releases, drift)
        old = side(rng, day, requests[0], 1.0, (0.0, 1.0))
        new = side(rng, day, requests[1], slower, tail)
        return bucketed(old, new, edges)

    return make


def below(scale: Array, edges: tuple[float, ...], sigma: float) -> Array:
    """Return which part of log-normal latencies is under each edge."""
    return np.asarray(ndtr((np.log(np.asarray(edges)) - np.log(scale)[..., None]) / sigma))


def bucketed(old: Array, new: Array, edges: tuple[float, ...]) -> Sides:
    def evidence(release: int) -> Evidence:
        series = [
            HistogramSeries(edges=edges, intervals=tuple(map(tuple, side[release].tolist()))) for side in (old, new)
        ]
        return Evidence(old=series[0], new=series[1], unit="s")

    levels = (0.5, 0.99)
    each = tuple((quantiles(old, edges, level), quantiles(new, edges, level)) for level in levels)
    whole = tuple((quantiles(old.sum(1), edges, level), quantiles(new.sum(1), edges, level)) for level in levels)
    return Sides(evidence, each, whole)


def quantiles(cumulative: Array, edges: tuple[float, ...], level: float) -> Array:
    """Return Prometheus' histogram_quantile; the last edge for what is over it, and 0 without requests."""
    bounds = np.asarray((0.0, *edges, edges[-1]))
    rank = level * cumulative[..., -1:]
    at = (cumulative < rank).sum(-1)
    under = np.take_along_axis(np.concatenate([np.zeros_like(rank), cumulative], -1), at[..., None], -1)[..., 0]
    inside = np.maximum(1e-9, np.take_along_axis(cumulative, at[..., None], -1)[..., 0] - under)
    part = (rank[..., 0] - under) / inside
    return np.where(rank[..., 0] > 0, bounds[at] + (bounds[at + 1] - bounds[at]) * part, 0.0)


def gauges(more: float, *, noise: float = 0.1, memory: float = 0.0, drift: float = 0.0) -> Any:
    """Return a gauge such as a queue's length; ``memory`` is how much one value resembles the one before it."""

    def make(rng: np.random.Generator, releases: int) -> Sides:
        day = drifting(rng, releases, drift)
        old, new = (
            level * day * np.exp(noise * autoregressive(rng, releases, memory)) for level in (10.0, 10.0 * more)
        )

        def evidence(release: int) -> Evidence:
            series = [ValueSeries(intervals=tuple(side[release].tolist())) for side in (old, new)]
            return Evidence(old=series[0], new=series[1])

        return Sides(evidence, ((old, new),), ((old.mean(1), new.mean(1)),))

    return make


def autoregressive(rng: np.random.Generator, releases: int, memory: float) -> Array:
    noise = rng.normal(size=(releases, LOOKS))
    for i in range(1, LOOKS):
        noise[:, i] = memory * noise[:, i - 1] + np.sqrt(1 - memory**2) * noise[:, i]
    return noise


FEW = (6, 6)
NO_TAILS: dict[str, Any] = {"tails": False}
DOUBLED: dict[str, Any] = {"effect": 1.0}
"""Of a rare event it takes many requests to tell 20 % more: a spec can say that only twice as many must not pass."""
HEAVY = (0.02, 6.4)
"""With log-normal latencies of sigma 0.5 this doubles the 99th percentile, and leaves the median."""

SCENARIOS = (
    Scenario("errors 1 %, equal", False, (0.015,), errors(0.01, 0.01)),
    Scenario("errors 1 %, +2 %", False, (0.015,), errors(0.01, 0.0102)),
    Scenario("errors 5 %, +20 %", True, (0.06,), errors(0.05, 0.06)),
    Scenario("errors 1 %, doubled", True, (0.015,), errors(0.01, 0.02)),
    Scenario("errors 1 %, equal; effect: 1", False, (0.015,), errors(0.01, 0.01), DOUBLED),
    Scenario("errors 1 %, tripled; effect: 1", True, (0.015,), errors(0.01, 0.03), DOUBLED),
    Scenario("errors 0 -> 5 %", True, (0.01,), errors(0.0, 0.05)),
    Scenario("errors 0.1 %, equal", False, (0.005,), errors(0.001, 0.001)),
    Scenario("errors 0.1 % -> 1 %", True, (0.005,), errors(0.001, 0.01)),
    Scenario("errors in bursts of 5, equal", False, (0.015,), errors(0.01, 0.01, burst=5)),
    Scenario("errors in bursts of 5, tripled", True, (0.015,), errors(0.01, 0.03, burst=5)),
    Scenario("errors drift together, equal", False, (0.015,), errors(0.01, 0.01, drift=0.5)),
    Scenario("errors drift together, doubled", True, (0.015,), errors(0.01, 0.02, drift=0.5)),
    Scenario("few requests, errors 2 %, equal", False, (0.1,), errors(0.02, 0.02, requests=FEW)),
    Scenario("few requests, errors 2 % -> 20 %", True, (0.1,), errors(0.02, 0.2, requests=FEW)),
    Scenario("latency, equal", False, (2.2, 7.7), latencies(1.0)),
    Scenario("latency, +2 %", False, (2.2, 7.7), latencies(1.02)),
    Scenario("latency, +20 %", True, (2.2, 7.7), latencies(1.2)),
    Scenario("latency, p99 doubled, median equal", True, (2.2, 7.7), latencies(1.0, tail=HEAVY)),
    Scenario("latency drifts together, equal", False, (2.2, 7.7), latencies(1.0, drift=0.3)),
    Scenario("latency drifts together, +30 %", True, (2.2, 7.7), latencies(1.3, drift=0.3)),
    Scenario("few requests, latency equal", False, (2.2, 7.7), latencies(1.0, requests=FEW)),
    Scenario("few requests, latency equal; no tails", False, (2.2, 7.7), latencies(1.0, requests=FEW), NO_TAILS),
    Scenario("few requests, latency doubled", True, (2.2, 7.7), latencies(2.0, requests=FEW)),
    Scenario("first token, equal", False, (0.18, 0.6), latencies(1.0, median=0.15, edges=FIRST_TOKEN)),
    Scenario("first token, +30 %", True, (0.18, 0.6), latencies(1.3, median=0.15, edges=FIRST_TOKEN)),
    Scenario("gauge, equal", False, (12.0,), gauges(1.0)),
    Scenario("gauge that resembles itself, equal", False, (12.0,), gauges(1.0, memory=0.7)),
    Scenario("gauge drifts together, equal", False, (12.0,), gauges(1.0, drift=0.3)),
    Scenario("gauge, +50 %", True, (12.0,), gauges(1.5)),
)


# --- how it is judged -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Parts of all releases."""

    rolled_back: float
    passed: float
    held: float
    looks: float
    """Median number of looks until it was decided."""


def ours(scenario: Scenario, sides: Sides, releases: int) -> Outcome:
    judgement = Judgement.model_validate({"compare": scenario.judgement})
    found = [first_decision(judgement, sides.evidence(release)) for release in range(releases)]
    part = {result: sum(r is result for r, _ in found) / releases for result in Result}
    looks = [at for result, at in found if result is not Result.INCONCLUSIVE]
    median = statistics.median(looks) if looks else float("nan")
    return Outcome(part[Result.FAIL], part[Result.PASS], part[Result.INCONCLUSIVE], median)


def first_decision(judgement: Judgement, evidence: Evidence) -> tuple[Result, int]:
    for look in range(1, LOOKS + 1):
        result = judge(judgement, evidence.until(look)).result
        if result is not Result.INCONCLUSIVE:
            return result, look
    return Result.INCONCLUSIVE, LOOKS


def threshold(scenario: Scenario, sides: Sides) -> tuple[float, float]:
    """Return the part rolled back by a fixed threshold: by all of it at the end, and at any look."""
    pairs = list(zip(sides.pooled, sides.metrics, scenario.limits, strict=True))
    once = np.any([whole[1] > limit for whole, _, limit in pairs], axis=0)
    ever = np.any([(each[1] > limit).any(1) for _, each, limit in pairs], axis=0)
    return float(once.mean()), float(ever.mean())


def ratio(sides: Sides, most: float = 1.2) -> tuple[float, float]:
    """Return the part rolled back by a fixed ratio of the two sides: by all of it at the end, and at any look."""
    once = np.any([whole[1] > most * whole[0] for whole in sides.pooled], axis=0)
    ever = np.any([(each[1] > most * each[0]).any(1) for each in sides.metrics], axis=0)
    return float(once.mean()), float(ever.mean())


def mann_whitney(sides: Sides, confidence: float = 0.98) -> tuple[float, float]:
    """Return the part rolled back by the test, two-sided: once at the end, and at any look."""
    alarms = np.stack(
        [np.any([higher(e, look, confidence) for e in sides.metrics], axis=0) for look in range(FEWEST, LOOKS + 1)]
    )
    return float(alarms[-1].mean()), float(alarms.any(0).mean())


def higher(metric: tuple[Array, Array], look: int, confidence: float) -> Any:
    old, new = (side[:, :look] for side in metric)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = mannwhitneyu(new, old, axis=1, method="asymptotic")
    return (found.pvalue < 1 - confidence) & (found.statistic > look * look / 2)


# --- the table --------------------------------------------------------------------------------------------

HEAD = (
    "",
    "ours: back",
    "passed",
    "held",
    "at look",
    "threshold",
    "any look",
    "ratio",
    "any look",
    "MW 98 %",
    "any look",
)


def rows(releases: int, seed: int, only: str) -> Iterator[tuple[Scenario, list[str], bool]]:
    for number, scenario in enumerate(SCENARIOS):
        if only not in scenario.name:
            continue
        sides = scenario.make(np.random.default_rng([seed, number]), releases)
        mine = ours(scenario, sides, releases)
        theirs = [*threshold(scenario, sides), *ratio(sides), *mann_whitney(sides)]
        wrongs = [1 - part if scenario.bad else part for part in theirs]
        own = mine.passed if scenario.bad else mine.rolled_back
        shares = [f"{100 * part:.1f}" for part in (mine.rolled_back, mine.passed, mine.held)]
        yield scenario, [*shares, f"{mine.looks:g}", *(f"{100 * part:.1f}" for part in wrongs)], own <= min(wrongs[3:])


def requests_needed(judgement: dict[str, Any], old: float, new: float, wanted: Result) -> str:
    """Return after how many requests of both sides it is decided, when every interval is as expected."""
    for count in range(1, 400):
        sides = (
            CountSeries(intervals=(Count(bad=rate * total, total=total),) * count)
            for rate, total in ((old, OLD), (new, NEW))
        )
        judged = judge(Judgement.model_validate({"compare": judgement}), Evidence(old=next(sides), new=next(sides)))
        if judged.result is wanted:
            return f"{count * (OLD + NEW):,}"
    return "over 600,000"


def print_sizes() -> None:
    """Print how many requests a decision takes, by the rates of errors."""
    print("| errors | passes with effect: 0.2 | 0.5 | 1 |\n|---:|---:|---:|---:|")
    for rate in (0.001, 0.01, 0.05):
        needed = [requests_needed({"effect": effect}, rate, rate, Result.PASS) for effect in (0.2, 0.5, 1.0)]
        print(f"| {100 * rate:g} % | " + " | ".join(needed) + " |")
    print("\n| errors | fails |\n|---|---:|")
    for old, new in ((0.0, 0.05), (0.001, 0.01), (0.01, 0.03), (0.01, 0.02), (0.01, 0.015)):
        print(f"| {100 * old:g} % -> {100 * new:g} % | {requests_needed({}, old, new, Result.FAIL)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=1000, help="of each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--sizes", action="store_true", help="only how many requests a decision takes")
    arguments = parser.parse_args()
    if arguments.sizes:
        print_sizes()
        return
    began = time.monotonic()
    print("| " + " | ".join(HEAD) + " |\n|---" + "|---:" * (len(HEAD) - 1) + "|")
    for scenario, figures, _ in rows(arguments.releases, arguments.seed, arguments.only):
        print(
            f"| {'**' * scenario.bad}{scenario.name}{'**' * scenario.bad} | " + " | ".join(figures) + " |", flush=True
        )
    print(f"\n{arguments.releases} releases a row, seed {arguments.seed}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
