"""``judge``: the verdict that a gate would have given on recorded data."""

import json
from typing import Annotated, Any, NamedTuple, Self, get_args

import typer
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from rich.console import RenderableType
from rich.table import Table

from segue.cli.app import OPERATE
from segue.cli.console import show, write, write_json
from segue.cli.options import AsText, TextOrJson
from segue.cli.specs import written
from segue.errors import Exit, Refused
from segue.files import read_document, read_recording
from segue.gates import Result
from segue.judging import Evidence, Judged, Judgement, Kind, judge
from segue.judging.recorded import Recorded, aligned, read_recorded
from segue.spec import refusal
from segue.spec.base import Model, below

_File = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A spec with metrics, or {kind: ..., judge: ...}; - reads standard input."),
]
_Old = Annotated[str | None, typer.Option("--old", metavar="FILE", help="Recorded data of the old side.")]
_New = Annotated[str, typer.Option("--new", metavar="FILE", help="Recorded data of the new side.")]
_Metric = Annotated[str | None, typer.Option("--metric", metavar="NAME", help="The metric of the spec to judge.")]
_Each = Annotated[bool, typer.Option("--each", help="Judge at every interval, as a rollout would.")]
_EXIT = {Result.PASS: Exit.COMPLETED, Result.FAIL: Exit.ROLLED_BACK, Result.INCONCLUSIVE: Exit.NEEDS_PERSON}


class _Alone(Model):
    """One judgement without a rollout around it."""

    kind: Kind
    unit: str = Field(default="", max_length=16)
    judgement: Judgement = Field(alias="judge")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            self.judgement.refuse_for(self.kind)
        except PydanticCustomError as error:
            raise below("judge", error) from None
        return self


class _RecordedQuestion(NamedTuple):
    kind: Kind
    unit: str
    judgement: Judgement


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("judge", rich_help_panel=OPERATE)(judge_)


def judge_(
    file: _File,
    *,
    new: _New,
    old: _Old = None,
    metric: _Metric = None,
    each: _Each = False,
    output: AsText = TextOrJson.TEXT,
) -> None:
    """Judge recorded data as a gate would: try a threshold, or see why a rollout was rolled back.

    FILE has the judgement: a spec with metrics, or a file such as {kind: histogram, unit: s, judge: {compare: {}}}.
    The data is recorded by Segue, or is a response of Prometheus' query_range (counts: {bad: ..., total: ...}).
    Needs no Temporal, no cluster and no Prometheus. Exit code 0: pass, 3: fail, 4: inconclusive.

    Example: segue judge ttft.yaml --old old.json --new new.json --each
    """
    question = _question(file, metric)
    evidence = _evidence(question, old, new)
    last = judge(question.judgement, evidence)
    looks = [judge(question.judgement, evidence.until(n)) for n in range(1, evidence.length)] * each + [last]
    if output is TextOrJson.JSON:
        write_json(_json(looks) if each else last)
    elif each:
        show(_table(looks))
    else:
        write(f"{last.result}: {last.why}")
    raise typer.Exit(_EXIT[_first_decided(looks).result])


def _first_decided(looks: list[Judged]) -> Judged:
    """Return the judgement that a rollout would have acted on: the first that decides, else the last."""
    return next((each for each in looks if each.result is not Result.INCONCLUSIVE), looks[-1])


def _question(file: str, metric: str | None) -> _RecordedQuestion:
    document = read_document(file)
    if isinstance(document, dict) and ("judge" in document or document.get("kind") in get_args(Kind)):
        return _alone(document, file, metric)
    metrics = {each.name: each for each in written(document, file).rollout.spec.metrics}
    if not metrics:
        fix = "write metrics in the spec, or a file such as {kind: counts, judge: {compare: {}}}"
        raise Refused("has no metrics to judge", field=file, fix=fix)
    if metric is None and len(metrics) == 1:
        metric = next(iter(metrics))
    if metric not in metrics:
        raise Refused(
            "is not a metric of the spec", field="--metric", value=metric or "", fix=f"use {', '.join(metrics)}"
        )
    chosen = metrics[metric]
    return _RecordedQuestion(chosen.kind, chosen.shown_unit, chosen.judgement)


def _alone(document: dict[str, Any], file: str, metric: str | None) -> _RecordedQuestion:
    if metric is not None:
        raise Refused(
            "applies only to a spec", field="--metric", value=metric, fix="leave it out: the file has one judgement"
        )
    try:
        alone = _Alone.model_validate(document)
    except ValidationError as error:
        raise refusal(error, file) from error
    return _RecordedQuestion(alone.kind, alone.unit, alone.judgement)


def _evidence(question: _RecordedQuestion, old: str | None, new: str) -> Evidence:
    if old is None and question.judgement.needs_old:
        fix = "give the recorded data of the old side: the judgement compares both"
        raise Refused("is missing", field="--old", fix=fix)
    newer = _recorded(new, question.kind)
    if old is None:
        return Evidence(new=newer.series, unit=question.unit)
    sides = aligned(_recorded(old, question.kind), newer)
    return Evidence(old=sides[0], new=sides[1], unit=question.unit)


def _recorded(path: str, kind: Kind) -> Recorded:
    try:
        return read_recorded(json.loads(read_recording(path)), kind, path)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"is not JSON: {error}", field=path, fix="give recorded series as JSON") from error


def _json(looks: list[Judged]) -> dict[str, Any]:
    decided = _first_decided(looks)
    at = next(number for number, each in enumerate(looks, start=1) if each is decided)
    return {**decided.model_dump(mode="json"), "at": at, "each": [each.model_dump(mode="json") for each in looks]}


def _table(looks: list[Judged]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for name in ("interval", "result", "why"):
        table.add_column(name)
    for number, each in enumerate(looks, start=1):
        table.add_row(str(number), str(each.result), each.why)
    return table
