"""How a spec says a judgement: what is refused, with field, value and fix."""

from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from segue.judging import Compare, Judgement
from segue.spec import refusal

# id: (judgement as written, what the message says)
REFUSED: dict[str, tuple[Any, str]] = {
    "no way": ({}, "has no way to judge; give one of threshold, ratio or compare"),
    "two ways": (
        {"threshold": {"max": 1}, "compare": {}}, "compare: '...': cannot be combined with threshold; keep one",
    ),
    "unknown way": ({"mean": {}}, "mean: is not a field that Segue knows"),
    "no bound": ({"threshold": {}}, "threshold.max: is missing; write max or min, or both"),
    "no ratio": ({"ratio": {"floor": 1}}, "ratio.max: is missing; write max or min"),
    "bounds exchanged": ({"threshold": {"min": 2, "max": 1}}, "threshold.min: 2.0: is greater than max (1); swap them"),
    "ratios exchanged": ({"ratio": {"min": 2, "max": 1}}, "ratio.min: 2.0: is greater than max (1); swap them"),
    "bound as text": ({"threshold": {"max": "many"}}, "threshold.max: 'many'"),
    "bound is NaN": ({"threshold": {"max": float("nan")}}, "threshold.max: nan"),
    "quantile in percent": (
        {"threshold": {"max": 1, "quantile": 99}}, "quantile: 99: is too large; write 0.9999 or less",
    ),
    "quantile zero": (
        {"threshold": {"max": 1, "quantile": 0}}, "threshold.quantile: 0: is too small; write 0.01 or more",
    ),
    "no traffic": ({"ratio": {"max": 1, "minTraffic": 0}}, "ratio.minTraffic: 0: is too small; write 1 or more"),
    "negative floor": ({"ratio": {"max": 1, "floor": -1}}, "ratio.floor: -1: is too small; write 0.0 or more"),
    "alpha zero": ({"compare": {"alpha": 0}}, "compare.alpha: 0: is too small; write 1e-06 or more"),
    "alpha large": ({"compare": {"alpha": 0.5}}, "compare.alpha: 0.5: is too large; write 0.2 or less"),
    "beta large": ({"compare": {"beta": 1}}, "compare.beta: 1: is too large; write 0.2 or less"),
    "tolerance negative": (
        {"compare": {"tolerance": -0.1}}, "compare.tolerance: -0.1: is too small; write 0.0 or more",
    ),
    "effect within tolerance": (
        {"compare": {"tolerance": 0.3}}, "compare.effect: 0.3: is not greater than tolerance (0.3), "
        "so both pass and fail "
        "could be right; write more, such as 0.6",
    ),
    "margin in percent": ({"compare": {"margin": 5}}, "compare.margin: 5: is too large; write 1.0 or less"),
    "two samples": ({"compare": {"minSamples": 2}}, "compare.minSamples: 2: is too small; write 3 or more"),
    "samples as fraction": ({"compare": {"minSamples": 3.5}}, "compare.minSamples: 3.5: is not a whole number"),
    "warmup as duration": ({"compare": {"warmup": "30s"}}, "compare.warmup: '30s': is not a whole number"),
    "tails as text": ({"compare": {"tails": "yes"}}, "compare.tails: 'yes': is neither true nor false"),
    "worse sideways": (
        {"compare": {"worse": "left"}}, "compare.worse: 'left': is not allowed; write 'higher' or 'lower'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_judgement_is_refused(case: str) -> None:
    """The message names the field, the value and the fix."""
    written, expected = REFUSED[case]
    with pytest.raises(ValidationError) as refused:
        Judgement.model_validate(written)
    assert expected in str(refusal(refused.value))


def test_what_is_not_written_is_the_default() -> None:
    """``compare: {}`` is enough."""
    way = Judgement.model_validate({"compare": {}}).way
    assert way == Compare(
        tolerance=0.1, effect=0.3, margin=0.007, alpha=0.01, beta=0.05, min_samples=3, min_traffic=100
    )


STORED_BEFORE = {
    "tolerance": 0.1, "effect": 0.2, "slack": None, "alpha": 0.01, "beta": 0.05, "minSamples": 3, "minTraffic": 100,
    "warmup": 0, "tails": True, "worse": "higher",
}  # fmt: skip
"""``compare: {}`` as the release before the margin stored it in Temporal."""


@pytest.mark.parametrize(
    ("written", "effect", "margin"),
    [
        ({}, 0.3, 0.007),
        ({"tolerance": 0.2}, 0.3, 0.007),
        ({"effect": 1}, 1, 0),
        ({"slack": 0.002}, 0.3, 0),
        ({"effect": 1, "margin": 0.01}, 1, 0.01),
        (STORED_BEFORE, 0.2, 0),
    ],
    ids=["nothing", "tolerance", "effect", "slack", "margin", "stored before"],
)
def test_the_margin_is_for_whoever_names_no_bound(written: dict[str, Any], effect: float, margin: float) -> None:
    """Bounds that a spec names stay alone; what is stored keeps its margin when it is read again."""
    way = Compare.model_validate(written)
    assert (way.effect, way.margin) == (effect, margin)
    assert Compare.model_validate(way.model_dump(mode="json", by_alias=True)) == way


@pytest.mark.parametrize(
    ("written", "kind", "field"),
    [
        ({"threshold": {"max": 1, "quantile": 0.5}}, "values", "threshold.quantile"),
        ({"ratio": {"max": 1, "quantile": 0.5}}, "counts", "ratio.quantile"),
        ({"compare": {"worse": "lower"}}, "histogram", "compare.worse"),
    ],
)
def test_what_does_not_go_with_the_metric_is_refused(written: Any, kind: str, field: str) -> None:
    """A quantile is of a histogram, and of bad events more is worse."""
    with pytest.raises(PydanticCustomError) as refused:
        Judgement.model_validate(written).refuse_for(kind)
    assert refused.value.context is not None
    assert refused.value.context["field"] == field


@pytest.mark.parametrize(
    "written", [{"threshold": {"max": 1, "quantile": 0.5}}, {"ratio": {"max": 2}}, {"compare": {}}]
)
def test_what_goes_with_the_metric_is_taken(written: Any) -> None:
    """A histogram can be judged in every way."""
    judgement = Judgement.model_validate(written)
    judgement.refuse_for("histogram")
    assert judgement.needs_old == ("threshold" not in written)
