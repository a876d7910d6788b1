"""How a measured metric becomes a verdict: exactly one of ``threshold``, ``ratio`` and ``compare``."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from segue.spec.base import Model, wrong

MAX_NUMBER = 1e15
MAX_INTERVALS = 10_000
"""The most intervals that a judgement uses."""
DEFAULT_QUANTILE = 0.99
DEFAULT_MARGIN = 0.007
"""With ``effect`` 0.3, at 1 % bad events one percentage point more must not pass (docs/judging.md has the numbers)."""
Kind = Literal["counts", "histogram", "values"]
"""The kind of measurement: bad and all events, latencies by bucket, or one number for each side."""
_ONE = "threshold, ratio or compare"


class _Latest(Model):
    """What the judgements of the latest interval have in common."""

    max: float | None = Field(default=None, ge=-MAX_NUMBER, le=MAX_NUMBER, strict=False)
    min: float | None = Field(default=None, ge=-MAX_NUMBER, le=MAX_NUMBER, strict=False)
    quantile: float | None = Field(
        default=None, ge=0.01, le=0.9999, strict=False, description="Quantile of a histogram. Default: 0.99."
    )
    min_traffic: int = Field(
        default=20, alias="minTraffic", ge=1, le=10**9, description="Requests in the interval that a verdict needs."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max is None and self.min is None:
            raise wrong("max", None, "is missing", "write max or min, or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise wrong("min", self.min, f"is greater than max ({self.max:g})", "swap them")
        return self


class Threshold(_Latest):
    """The new side's latest interval is within a fixed bound: a rate, a quantile, or the value itself."""


class Ratio(_Latest):
    """The new side's latest interval is within a multiple of the old side's."""

    max: float | None = Field(default=None, gt=0, le=1e6, strict=False)
    min: float | None = Field(default=None, gt=0, le=1e6, strict=False)
    floor: float = Field(
        default=0.0,
        ge=0,
        le=MAX_NUMBER,
        strict=False,
        description="A smaller value of the old side counts as this: a multiple of almost 0 is not a useful bound.",
    )


class Compare(Model):
    """Compares old and new over all intervals, by a test that may be repeated at any time.

    It fails on evidence that the new side is worse by more than ``tolerance``, passes on evidence that it is not worse
    by ``effect``, and is inconclusive until it has one or the other.

    Only a comparison that names neither ``effect`` nor ``slack`` has the default ``margin``: earlier releases had none,
    and the specs that they stored name both.
    """

    tolerance: float = Field(
        default=0.1, ge=0, le=10, strict=False, description="How much worse, as a fraction, is acceptable."
    )
    effect: float = Field(
        default=0.3, gt=0, le=100, strict=False, description="How much worse, as a fraction, must not pass."
    )
    slack: float | None = Field(
        default=None,
        ge=0,
        le=MAX_NUMBER,
        strict=False,
        description="How much worse is acceptable in absolute terms, however small the old side's value is: a share of "
        "requests (default 0.001), or for values a number in their own unit (default 0).",
    )
    margin: float = Field(
        default=0.0,
        ge=0,
        le=1,
        strict=False,
        description="For counts: how much worse beyond `effect`, as a share of requests, must not pass. A smaller one "
        "than slack counts as slack. Default: 0.007, or 0 if effect or slack is given.",
    )
    alpha: float = Field(
        default=0.01,
        ge=1e-6,
        le=0.2,
        strict=False,
        description="Highest probability that a version within tolerance fails, over all measurements together.",
    )
    beta: float = Field(
        default=0.05,
        ge=1e-6,
        le=0.2,
        strict=False,
        description="Highest probability that a version worse by effect passes, over all measurements together.",
    )
    min_samples: int = Field(
        default=3,
        alias="minSamples",
        ge=3,
        le=1000,
        description="Intervals with data of both sides that a verdict needs.",
    )
    min_traffic: int = Field(
        default=100,
        alias="minTraffic",
        ge=1,
        le=10**9,
        description="Requests of each side that a verdict needs; not for values.",
    )
    warmup: int = Field(
        default=0, ge=0, le=1000, description="First intervals of the new side to leave out, while caches fill."
    )
    tails: bool = Field(
        default=True, description="Whether to judge a histogram's 99th percentile as well as its middle."
    )
    worse: Literal["higher", "lower"] = Field(default="higher", description="`lower` for values such as throughput.")

    @model_validator(mode="before")
    @classmethod
    def _margin(cls, given: Any) -> Any:
        if isinstance(given, dict) and not {"effect", "slack", "margin"} & given.keys():
            return given | {"margin": DEFAULT_MARGIN}
        return given

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.effect <= self.tolerance:
            why = f"is not greater than tolerance ({self.tolerance:g}), so both pass and fail could be right"
            raise wrong("effect", self.effect, why, f"write more, such as {2 * self.tolerance or 0.1:g}")
        return self


class Judgement(Model):
    """How one metric is judged: exactly one way."""

    threshold: Threshold | None = None
    ratio: Ratio | None = None
    compare: Compare | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("threshold", "ratio", "compare") if getattr(self, name) is not None]
        if len(given) == 1:
            return self
        if not given:
            raise ValueError(f"has no way to judge; give one of {_ONE}")
        raise wrong(
            given[1], "...", f"cannot be combined with {given[0]}", "keep one; a second metric can have the other"
        )

    @property
    def way(self) -> Threshold | Ratio | Compare:
        """The one given way to judge."""
        way = self.threshold or self.ratio or self.compare
        assert way is not None, "a judgement without a way was validated"
        return way

    @property
    def needs_old(self) -> bool:
        """Whether the old side must be measured too."""
        return self.threshold is None

    def refuse_for(self, kind: str) -> None:
        """Refuse a judgement that does not fit the kind of measurement.

        Raises:
            PydanticCustomError: naming the field; for a validator of the metric.
        """
        if isinstance(self.way, Threshold | Ratio) and self.way.quantile is not None and kind != "histogram":
            name = "threshold" if self.threshold else "ratio"
            raise wrong(f"{name}.quantile", self.way.quantile, f"is for a histogram, not for {kind}", "leave it out")
        if self.compare and self.compare.worse == "lower" and kind != "values":
            why = f"is for values, not for {kind}: more bad (or slow) ones are worse"
            raise wrong("compare.worse", "lower", why, "leave it out; count the bad ones")
