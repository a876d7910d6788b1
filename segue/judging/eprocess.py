"""E-processes in closed form: evidence that stays valid however often it is evaluated.

An e-process is never negative. While its null hypothesis holds, its expectation is at most 1 at any time, however that
time is chosen. By Ville's inequality, the probability that it ever reaches 1/alpha is then at most alpha (J. Ville,
1939; A. Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference", Statistical Science, 2023). All
functions return natural logarithms.

Three measures make it robust against what the formulas do not model. None can make it less valid, because each only
reduces the evidence:

- mixtures: no effect is assumed; evidence is the mean over a grid of effects,
- no two intervals decide alone: each counts at most ``STRONGEST`` of the evidence that decides, so that one burst, one
  pause of a garbage collector or one failed scrape is never enough (a factor of ``differences`` and ``bets`` is under 2
  anyway),
- tempering: if events come in bursts, and counts vary ``inflation`` times as much as those of independent events, the
  logarithm is divided by ``inflation``, as for that many fewer independent events. (If (E e^x) <= 1, then
  E e^(x/c) <= 1 for c >= 1.)
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

WORSE = (1.08, 1.2, 1.5, 2.2, 4.0, 15.0)
"""Assumed effects of a worse version, as multiples of the rate at the null's boundary."""
BETTER = (0.95, 0.85, 0.65, 0.4, 0.1)
"""The same for a version that is not that much worse."""
STRONGEST = 0.4
"""The most that one interval counts, as a share of the evidence that decides."""
UNSEEN = 2.0
SHARPNESS = (2.0, 6.0, 20.0, 60.0)
STAKES = (0.3, 0.6, 0.95)


class Tilts(NamedTuple):
    """What each bad event and the requests add to the logarithm: for one effect, interval by interval."""

    old: list[float]
    new: list[float]
    requests: list[float]


def tilts(totals: Iterable[tuple[float, float]], null: float, slack: float, times: float) -> Tilts:
    """Return the tilts for each interval's (old, new) totals.

    The null hypothesis is ``rate_new <= null * rate_old + slack`` (>= for ``times`` under 1), with the rates of each
    interval its own. Of all bad events the new side's share at its boundary would be q0, and q1 with its rate
    ``times`` higher. With A = q1/q0 and B = (1-q1)/(1-q0), one interval's evidence is

        A^bad_new * B^bad_old * exp(-(A-1) * slack * all_new)

    the likelihood ratio of the conditional binomial (M. Lindon and A. Malek, "Anytime-valid inference for multinomial
    count data", NeurIPS 2022), made to hold with the slack, and without conditioning: for independent requests its
    expectation is at most exp((A-1) all_new rate_new + (B-1) all_old rate_old - (A-1) slack all_new), as
    1+x <= exp(x), and B-1 = -(A-1) null all_new/all_old, so that it is at most 1 for all rates within the null.
    """
    found = Tilts([], [], [])
    for all_old, all_new in totals:
        # A and B without a share that rounds to 1, however far apart the totals are.
        most = max(all_old, all_new)
        old, new = all_old / most, null * all_new / most
        lost = (new + old) / (times * new + old)
        gain = times * lost
        found.old.append(math.log(lost))
        found.new.append(math.log(gain))
        found.requests.append((1 - gain) * slack * all_new)
    return found


def rates(
    bad_old: Sequence[float], bad_new: Sequence[float], effects: Sequence[Tilts], inflation: float, error: float
) -> float:
    """Return the logarithm of the evidence of bad events, interval by interval, against a null on their rates.

    ``error`` is the probability of a wrong decision, so that evidence of ``1/error`` decides.
    """
    if not bad_old:
        return 0.0
    most = -math.log(error) * STRONGEST
    sums = []
    for tilt in effects:
        each = zip(bad_old, bad_new, tilt.old, tilt.new, tilt.requests, strict=True)
        sums.append(sum(min(most, (o * a + n * b + c) / inflation) for o, n, a, b, c in each))
    return log_mean_exp(sums)


def differences(gaps: Sequence[float], inflation: float) -> float:
    """Return the logarithm of the evidence that paired differences lie over 0.

    While they are symmetric about 0 (or about less), as the logarithm of the ratio of two values of one law is, each
    factor 1 + stake * tanh(sharpness * gap) is expected to be at most 1, as tanh is odd. It is bounded, so that no
    outlier decides (V. de la Pena, "A general class of exponential inequalities for martingales and ratios", Annals of
    Probability 1999, for symmetric differences; betting: I. Waudby-Smith and A. Ramdas, JRSS-B 2024).
    """
    if not gaps:
        return 0.0
    sums = []
    for sharpness in SHARPNESS:
        bent = [math.tanh(sharpness * gap) for gap in gaps]
        sums += [sum(math.log1p(stake * b) for b in bent) / inflation for stake in STAKES]
    return log_mean_exp(sums)


def bets(gains: Sequence[float]) -> float:
    """Return the logarithm of the evidence that gains within [-1/2, 1/2] lie over 0.

    Whatever they depend on within an interval, each factor 1 + stake * 2 * gain is expected to be at most 1 while a
    gain is expected to be at most 0 (betting: I. Waudby-Smith and A. Ramdas, JRSS-B 2024).
    """
    if not gains:
        return 0.0
    return log_mean_exp([sum(math.log1p(stake * 2 * gain) for gain in gains) for stake in STAKES])


def log_mean_exp(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of exponentials: the mean of e-processes is one."""
    top = max(logs)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))


def dispersion(bad: Sequence[float], total: Sequence[float]) -> float:
    """Return the variance of one side's counts as a multiple of that of independent events, at least 1.

    It is estimated by successive differences of the rates (J. von Neumann et al., "The mean square successive
    difference", Annals of Mathematical Statistics 1941), so that a slow drift does not count. It is taken from the old
    side, whose noise is known: a new side that is worse cannot hide in its own noise. A few differences may have missed
    the bursts: they count as if they had shown some. The excess over 1 counts only beyond the standard error that it
    has with independent events, and then more (all by simulation, see docs/judging.md).
    """
    counted = [(b, n) for b, n in zip(bad, total, strict=True) if n > 0]
    differences = max(1, len(counted) - 1)
    least = 1 + UNSEEN / differences
    rate = sum(b for b, _ in counted) / max(1.0, sum(n for _, n in counted))
    if len(counted) < 2 or rate <= 0:
        return least
    squares = [(a / m - b / n) ** 2 / (rate * (1 / m + 1 / n)) for (a, m), (b, n) in pairwise(counted)]
    excess = sum(squares) / differences - 1 - math.sqrt(3 / differences)
    return max(least, 1 + excess * (1 + 1 / math.sqrt(differences)))


def persistence(values: Sequence[float]) -> float:
    """Return the ratio of all values to independent values, at least 1: (1+r)/(1-r).

    r is the autocorrelation of neighbours about a straight line, corrected for its bias in a short series (F. Marriott
    and J. Pope, "Bias in the estimation of autocorrelations", Biometrika 1954).
    """
    rest = _detrended(values)
    power = sum(x * x for x in rest)
    if len(rest) < 4 or power <= 1e-12 * max(1.0, sum(v * v for v in values)):
        return 1.0
    raw = sum(a * b for a, b in pairwise(rest)) / power
    corrected = min(0.95, max(0.0, raw + (1 + 3 * raw) / len(rest)))
    return (1 + corrected) / (1 - corrected)


def _detrended(values: Sequence[float]) -> list[float]:
    count = len(values)
    if count < 3:
        return [0.0] * count
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((i - middle) ** 2 for i in range(count))
    slope = sum((i - middle) * (v - mean) for i, v in enumerate(values)) / spread
    return [v - mean - slope * (i - middle) for i, v in enumerate(values)]
