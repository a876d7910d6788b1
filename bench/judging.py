"""``bench/judging.py``: how often each judgement takes back a version that is fine, and lets one through that is not.

Releases are simulated with a seed; each is judged every 30 s for 10 minutes. Ours is the very function that gates use.
Beside it, over the same numbers: a fixed threshold, a fixed ratio, and the Mann-Whitney test at 98 % that Kayenta uses,
each once at the end and at every look (then the first alarm counts, as when a canary is analysed again and again).
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]
from scipy.stats import binom, mannwhitneyu, poisson  # type: ignore[import-untyped]

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


Make = Callable[[np.random.Generator, int, int], Sides]
"""Makes what is measured of so many releases, at so many looks."""


@dataclass(frozen=True)
class Scenario:
    name: str
    bad: bool
    limits: tuple[float, ...]
    """The fixed threshold of each metric: what somebody would write who knows the old version."""
    make: Make
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
) -> Make:
    """Return errors at these rates; ``drift`` is of both sides together, ``burst`` the mean size of a burst of them."""

    def make(rng: np.random.Generator, releases: int, looks: int) -> Sides:
        day = drifting(rng, releases, looks, drift)
        total = tuple(rng.poisson(n, (releases, looks)).astype(float) for n in requests)
        bad = tuple(
            burst_of(rng, n, np.minimum(0.9, rate * day), burst) for n, rate in zip(total, (old, new), strict=True)
        )
        return counted((bad[0], bad[1]), (total[0], total[1]))

    return make


def burst_of(rng: np.random.Generator, total: Array, rate: Array, burst: float) -> Array:
    if not burst:
        return rng.binomial(total.astype(int), rate).astype(float)
    bursts = rng.poisson(total * rate / burst)
    bad: Array = np.minimum(total, bursts + rng.negative_binomial(np.maximum(1, bursts), 1 / burst) * (bursts > 0))
    return bad


def drifting(rng: np.random.Generator, releases: int, looks: int, part: float) -> Array:
    """Return a factor an interval that goes up or down smoothly, from wherever in its course it is."""
    phase = rng.uniform(0, 2 * np.pi, (releases, 1))
    return np.exp(part * np.sin(phase + np.linspace(0, 2 * np.pi, looks)))


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
) -> Make:
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

    def make(rng: np.random.Generator, releases: int, looks: int) -> Sides:
        day = drifting(rng, releases, looks, drift)
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


def gauges(more: float, *, noise: float = 0.1, memory: float = 0.0, drift: float = 0.0) -> Make:
    """Return a gauge such as a queue's length; ``memory`` is how much one value resembles the one before it."""

    def make(rng: np.random.Generator, releases: int, looks: int) -> Sides:
        day = drifting(rng, releases, looks, drift)
        old, new = (
            level * day * np.exp(noise * autoregressive(rng, day.shape, memory)) for level in (10.0, 10.0 * more)
        )

        def evidence(release: int) -> Evidence:
            series = [ValueSeries(intervals=tuple(side[release].tolist())) for side in (old, new)]
            return Evidence(old=series[0], new=series[1])

        return Sides(evidence, ((old, new),), ((old.mean(1), new.mean(1)),))

    return make


def autoregressive(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> Array:
    noise = rng.normal(size=shape)
    for i in range(1, shape[1]):
        noise[:, i] = memory * noise[:, i - 1] + np.sqrt(1 - memory**2) * noise[:, i]
    return noise


LATENCY_LIMITS, FIRST_TOKEN_LIMITS = (2.4, 10.3), (0.2, 0.6)
"""1.2 times what ``histogram_quantile`` says of the old side: its median, and its 99th percentile."""
FEW = (6, 6)
NO_TAILS: dict[str, Any] = {"tails": False}
SMALL: dict[str, Any] = {"effect": 0.2}
"""That 20 % more must not pass, without a margin."""
HEAVY = (0.02, 6.4)
"""With log-normal latencies of sigma 0.5 this doubles the 99th percentile, and leaves the median."""

SCENARIOS = (
    Scenario("errors 1 %, equal", False, (0.015,), errors(0.01, 0.01)),
    Scenario("errors 1 %, +2 %", False, (0.015,), errors(0.01, 0.0102)),
    Scenario("errors 5 %, +20 %; effect: 0.2", True, (0.06,), errors(0.05, 0.06), SMALL),
    Scenario("errors 1 %, doubled", True, (0.015,), errors(0.01, 0.02)),
    Scenario("errors 1 %, tripled", True, (0.015,), errors(0.01, 0.03)),
    Scenario("errors 1 %, equal; effect: 0.2", False, (0.015,), errors(0.01, 0.01), SMALL),
    Scenario("no errors, equal", False, (0.005,), errors(0.0, 0.0)),
    Scenario("errors 0 -> 5 %", True, (0.01,), errors(0.0, 0.05)),
    Scenario("errors 0.1 %, equal", False, (0.005,), errors(0.001, 0.001)),
    Scenario("errors 0.1 % -> 1 %", True, (0.005,), errors(0.001, 0.01)),
    Scenario("errors in bursts of 5, equal", False, (0.015,), errors(0.01, 0.01, burst=5)),
    Scenario("errors in bursts of 5, tripled", True, (0.015,), errors(0.01, 0.03, burst=5)),
    Scenario("errors drift together, equal", False, (0.015,), errors(0.01, 0.01, drift=0.5)),
    Scenario("errors drift together, doubled", True, (0.015,), errors(0.01, 0.02, drift=0.5)),
    Scenario("few requests, errors 2 %, equal", False, (0.1,), errors(0.02, 0.02, requests=FEW)),
    Scenario("few requests, errors 2 % -> 20 %", True, (0.1,), errors(0.02, 0.2, requests=FEW)),
    Scenario("latency, equal", False, LATENCY_LIMITS, latencies(1.0)),
    Scenario("latency, +2 %", False, LATENCY_LIMITS, latencies(1.02)),
    Scenario("latency, +20 %; effect: 0.2", True, LATENCY_LIMITS, latencies(1.2), SMALL),
    Scenario("latency, +30 %", True, LATENCY_LIMITS, latencies(1.3)),
    Scenario("latency, p99 doubled, median equal", True, LATENCY_LIMITS, latencies(1.0, tail=HEAVY)),
    Scenario("latency drifts together, equal", False, LATENCY_LIMITS, latencies(1.0, drift=0.3)),
    Scenario("latency drifts together, +30 %", True, LATENCY_LIMITS, latencies(1.3, drift=0.3)),
    Scenario("few requests, latency equal", False, LATENCY_LIMITS, latencies(1.0, requests=FEW)),
    Scenario("few requests, latency equal; no tails", False, LATENCY_LIMITS, latencies(1.0, requests=FEW), NO_TAILS),
    Scenario("few requests, latency doubled", True, LATENCY_LIMITS, latencies(2.0, requests=FEW)),
    Scenario("first token, equal", False, FIRST_TOKEN_LIMITS, latencies(1.0, median=0.15, edges=FIRST_TOKEN)),
    Scenario("first token, +30 %", True, FIRST_TOKEN_LIMITS, latencies(1.3, median=0.15, edges=FIRST_TOKEN)),
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
    minutes: float
    """Median time until it was decided."""


def ours(scenario: Scenario, sides: Sides, releases: int) -> Outcome:
    judgement = Judgement.model_validate({"compare": scenario.judgement})
    found = [first_decision(judgement, sides.evidence(release)) for release in range(releases)]
    part = {result: sum(r is result for r, _ in found) / releases for result in Result}
    minutes = [at for result, at in found if result is not Result.INCONCLUSIVE]
    median = statistics.median(minutes) if minutes else math.nan
    return Outcome(part[Result.FAIL], part[Result.PASS], part[Result.INCONCLUSIVE], median)


def first_decision(judgement: Judgement, evidence: Evidence) -> tuple[Result, float]:
    """Return the first look's result that decides, and after how many minutes."""
    for look in range(1, evidence.length + 1):
        result = judge(judgement, evidence.until(look)).result
        if result is not Result.INCONCLUSIVE:
            return result, look * INTERVAL_S / 60
    return Result.INCONCLUSIVE, math.inf


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
    "minutes",
    "threshold",
    "any look",
    "ratio",
    "any look",
    "MW 98 %",
    "any look",
)


def rows(releases: int, seed: int, only: str) -> Iterator[tuple[Scenario, list[str]]]:
    for number, scenario in enumerate(SCENARIOS):
        if only not in scenario.name:
            continue
        sides = scenario.make(np.random.default_rng([seed, number]), releases, LOOKS)
        mine = ours(scenario, sides, releases)
        theirs = [*threshold(scenario, sides), *ratio(sides), *mann_whitney(sides)]
        wrongs = [1 - part if scenario.bad else part for part in theirs]
        shares = [f"{100 * part:.1f}" for part in (mine.rolled_back, mine.passed, mine.held)]
        minutes = "–" if math.isnan(mine.minutes) else f"{mine.minutes:g}"
        yield scenario, [*shares, minutes, *(f"{100 * part:.1f}" for part in wrongs)]


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
    print("| errors | passes with {} | effect: 1 | effect: 0.2 |\n|---:|---:|---:|---:|")
    for rate in (0.0, 0.001, 0.01, 0.05):
        given: tuple[dict[str, Any], ...] = ({}, {"effect": 1.0}, SMALL)
        needed = [requests_needed(judgement, rate, rate, Result.PASS) for judgement in given]
        print(f"| {100 * rate:g} % | " + " | ".join(needed) + " |")
    print("\n| errors | fails |\n|---|---:|")
    for old, new in ((0.0, 0.05), (0.001, 0.01), (0.01, 0.03), (0.01, 0.02), (0.01, 0.015)):
        print(f"| {100 * old:g} % -> {100 * new:g} % | {requests_needed({}, old, new, Result.FAIL)} |")


# --- how long it takes, by the traffic --------------------------------------------------------------------

LONG = 60
"""Looks until the deadline that a gate has by default: 30 minutes."""
SOON = 10.0
"""Minutes, within which an equal release should pass."""
TRAFFICS = ((8, 2), (5, 5), (40, 10))
"""Requests a second of the old and the new side."""
Traffic = tuple[int, int]
RELEASES: tuple[tuple[str, bool, Callable[[Traffic], Make]], ...] = (
    ("no errors, equal", False, lambda n: errors(0.0, 0.0, requests=n)),
    ("errors 0.1 %, equal", False, lambda n: errors(0.001, 0.001, requests=n)),
    ("errors 1 %, equal", False, lambda n: errors(0.01, 0.01, requests=n)),
    ("errors 5 %, equal", False, lambda n: errors(0.05, 0.05, requests=n)),
    ("errors 0 -> 1 %", True, lambda n: errors(0.0, 0.01, requests=n)),
    ("errors 0.1 % -> 1.1 %", True, lambda n: errors(0.001, 0.011, requests=n)),
    ("errors 1 % -> 2 %", True, lambda n: errors(0.01, 0.02, requests=n)),
    ("errors 1 % -> 3 %", True, lambda n: errors(0.01, 0.03, requests=n)),
    ("latency, equal", False, lambda n: latencies(1.0, requests=n)),
    ("latency, +30 %", True, lambda n: latencies(1.3, requests=n)),
    ("latency, p99 doubled", True, lambda n: latencies(1.0, tail=HEAVY, requests=n)),
    ("first token, equal", False, lambda n: latencies(1.0, median=0.15, edges=FIRST_TOKEN, requests=n)),
    ("first token, +30 %", True, lambda n: latencies(1.3, median=0.15, edges=FIRST_TOKEN, requests=n)),
)


def print_times(releases: int, seed: int, only: str) -> None:
    """Print how many releases ``compare: {}`` decides rightly, in which time, by the traffic."""
    shown = [f"{old + new} a second, {new} of them new" for old, new in TRAFFICS]
    print("| | " + " | ".join(shown) + " |\n|---" + "|---" * len(shown) + "|")
    for number, (name, bad, make) in enumerate(RELEASES):
        if only not in name:
            continue
        cells = []
        for traffic in TRAFFICS:
            rng = np.random.default_rng([seed, number, *traffic])
            sides = make((traffic[0] * INTERVAL_S, traffic[1] * INTERVAL_S))(rng, releases, LONG)
            cells.append(decided(sides, releases, bad))
        mark = "**" * bad
        print(f"| {mark}{name}{mark} | " + " | ".join(cells) + " |", flush=True)


def decided(sides: Sides, releases: int, bad: bool) -> str:
    """Return the shares decided rightly in 10 and in 30 minutes, that decided wrongly, and the median time."""
    judgement = Judgement.model_validate({"compare": {}})
    found = [first_decision(judgement, sides.evidence(release)) for release in range(releases)]
    right, wrong = (Result.FAIL, Result.PASS) if bad else (Result.PASS, Result.FAIL)
    minutes = [at if result is right else math.inf for result, at in found]
    soon, late = (100 * sum(at <= most for at in minutes) / releases for most in (SOON, LONG * INTERVAL_S / 60))
    wrongs = 100 * sum(result is wrong for result, _ in found) / releases
    median = statistics.median(minutes)
    return f"{soon:.1f}, {late:.1f}; {wrongs:.1f}; {'–' if math.isinf(median) else f'{median:g} min'}"


def print_possible() -> None:
    """Print the least traffic at which the best test of one fixed sample finds 99 % of the bad versions in 10 minutes.

    Of all bad events, the new side's part is binomial; no test of that size that does not know the old rate is more
    powerful. It also rolls back 1 % (or 5 %) of equal versions, looks once, and takes all other versions for bad ones.
    """
    print("| errors | a fifth new, 1 % | 5 % | half new, 1 % | 5 % |\n|---|---:|---:|---:|---:|")
    for old, new in ((0.0, 0.01), (0.001, 0.011), (0.01, 0.03), (0.01, 0.02), (0.05, 0.06)):
        needed = [requests_possible(old, new, part, alpha) for part in (0.2, 0.5) for alpha in (0.01, 0.05)]
        cells = [f"{requests / (60 * SOON):.0f}" for requests in needed]
        print(f"| {100 * old:g} % -> {100 * new:g} % | " + " | ".join(cells) + " |")


def requests_possible(old: float, new: float, part: float, alpha: float, power: float = 0.99) -> float:
    """Return how many requests of both sides the best fixed test needs."""
    for total in np.geomspace(200, 2e5, 500):
        rates = total * (1 - part) * max(old, 1e-9), total * part * new
        counts = np.arange(2 * int(sum(rates)) + 60)
        critical = binom.isf(alpha, counts, part) + 1
        found = poisson.pmf(counts, sum(rates)) * binom.sf(critical - 1, counts, rates[1] / sum(rates))
        if found.sum() >= power:
            return float(total)
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=1000, help="of each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--sizes", action="store_true", help="only how many requests a decision takes")
    parser.add_argument("--times", action="store_true", help="only in which time it decides, by the traffic")
    parser.add_argument("--possible", action="store_true", help="only what any test needs")
    arguments = parser.parse_args()
    if arguments.sizes:
        print_sizes()
        return
    if arguments.possible:
        print_possible()
        return
    if arguments.times:
        print_times(arguments.releases, arguments.seed, arguments.only)
        return
    began = time.monotonic()
    print("| " + " | ".join(HEAD) + " |\n|---" + "|---:" * (len(HEAD) - 1) + "|")
    for scenario, figures in rows(arguments.releases, arguments.seed, arguments.only):
        print(
            f"| {'**' * scenario.bad}{scenario.name}{'**' * scenario.bad} | " + " | ".join(figures) + " |", flush=True
        )
    print(f"\n{arguments.releases} releases a row, seed {arguments.seed}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
