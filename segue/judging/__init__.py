"""Judges measured evidence of both sides: pass, fail or inconclusive, with the reason. Pure.

``compare`` stays valid however often it is evaluated (docs/judging.md). ``threshold`` and ``ratio`` are plain rules.
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
