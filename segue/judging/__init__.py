"""Judging what was measured: evidence of both sides in, one of pass, fail and inconclusive out, with the reason. Pure.

``compare`` is sound however often it looks (docs/judging.md); ``threshold`` and ``ratio`` are plain rules beside it.
"""

from segue.judging.evidence import Count, CountSeries, Evidence, HistogramSeries, Series, ValueSeries
from segue.judging.judge import judge
from segue.judging.judged import Judged
from segue.spec.judgement import Compare, Judgement, Kind, Ratio, Threshold

__all__ = [
    "Compare",
    "Count",
    "CountSeries",
    "Evidence",
    "HistogramSeries",
    "Judged",
    "Judgement",
    "Kind",
    "Ratio",
    "Series",
    "Threshold",
    "ValueSeries",
    "judge",
]
