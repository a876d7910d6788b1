"""``segue judge`` judges recorded data as a gate would have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Segue = Callable[..., Any]
COMPARED = "kind: counts\njudge: {compare: {}}\n"


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[str]]:
    """Write the judgement and both sides' (bad, total) counts; return the command's arguments."""

    def write(judgement: str, old: list[Any], new: list[Any]) -> list[str]:
        (tmp_path / "judge.yaml").write_text(judgement)
        for name, intervals in (("old", old), ("new", new)):
            counts = [None if each is None else {"bad": each[0], "total": each[1]} for each in intervals]
            (tmp_path / f"{name}.json").write_text(json.dumps({"kind": "counts", "intervals": counts}))
        sides = [part for name in ("old", "new") for part in (f"--{name}", str(tmp_path / f"{name}.json"))]
        return ["judge", str(tmp_path / "judge.yaml"), *sides]

    return write


GOOD, BAD, FEW = [(0, 1000)] * 20, [(50, 1000)] * 20, [(0, 100)] * 4


@pytest.mark.parametrize(
    ("old", "new", "code", "expected"),
    [
        (GOOD, GOOD, 0, "pass: new 0 % (0 of 20,000), old 0 % (0 of 20,000): not worse by 30 %"),
        (GOOD, BAD, 3, "fail: new 5 % (1,000 of 20,000), old 0 % (0 of 20,000): worse by more than 10 %"),
        (FEW, FEW, 4, "inconclusive: new 0 % (0 of 400)"),
        (GOOD, [None], 4, "inconclusive: no data of the new side"),
    ],
    ids=["pass", "fail", "inconclusive", "empty"],
)
def test_the_exit_code_is_the_verdict(segue: Segue, files: Any, old: Any, new: Any, code: int, expected: str) -> None:
    """One line says why; a pipeline reads the exit code."""
    ran = segue(*files(COMPARED, old, new))
    assert ran.code == code, ran.err
    assert ran.out.startswith(expected)


def test_each_shows_when_it_would_have_been_decided(segue: Segue, files: Any) -> None:
    """Every interval is a row; the exit code is that of the first that decides."""
    ran = segue(*files(COMPARED, GOOD, BAD), "--each")
    rows = ran.out.splitlines()
    assert (ran.code, len(rows)) == (3, 21)
    assert [row.split()[1] for row in rows[1:5]] == ["inconclusive", "inconclusive", "fail", "fail"]


def test_json_is_for_a_pipeline(segue: Segue, files: Any) -> None:
    """The verdict with its numbers, and with --each those of all looks."""
    arguments = files(COMPARED, GOOD, BAD)
    found = json.loads(segue(*arguments, "-o", "json").out)
    assert (found["result"], found["numbers"]["new"]) == ("fail", 0.05)
    every = json.loads(segue(*arguments, "--each", "-o", "json").out)
    assert (every["result"], every["at"], len(every["each"])) == ("fail", 3, 20)


def test_a_threshold_needs_no_old_side(segue: Segue, files: Any) -> None:
    """Without --old, the new side is judged alone."""
    judge, file, _, _, *new = files("kind: counts\njudge: {threshold: {max: 0.01}}\n", [], BAD)
    assert segue(judge, file, *new).code == 3


def test_what_prometheus_answered_is_taken(segue: Segue, files: Any, tmp_path: Path) -> None:
    """The JSON of query_range is read as it is."""
    answer = {"data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[60, "7"], [90, "9.5"]]}]}}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    judge, file, *_ = files("kind: values\nunit: requests\njudge: {threshold: {max: 8}}\n", [], [])
    ran = segue(judge, file, "--new", str(tmp_path / "answer.json"))
    assert ran.out == "fail: the value of the new side is 9.5 requests: over 8 requests\n"


METRICS = """
  metrics:
    - {name: errors, counts: {bad: "errors{ {{side}} }", total: "requests{ {{side}} }"}, judge: {compare: {}}}
    - {name: queue, value: "sum(queue{ {{side}} })", judge: {threshold: {max: 5}}}
"""


def test_a_metric_of_a_spec_is_judged_as_the_rollout_would(segue: Segue, files: Any) -> None:
    """--metric chooses one; its name is needed where there are several."""
    arguments = files((EXAMPLES / "rollout.yaml").read_text() + METRICS, GOOD, BAD)
    ran = segue(*arguments, "--metric", "errors")
    assert (ran.code, ran.out.split(":")[0]) == (3, "fail"), ran.err
    assert (
        "--metric: 'ttft': is not a metric of the spec; use errors, queue" in segue(*arguments, "--metric", "ttft").err
    )
    assert segue(*arguments).code == 2


@pytest.mark.parametrize(
    ("judgement", "more", "expected"),
    [
        ("kind: counts\n", (), "judge: is missing; add it"),
        ("kind: rates\njudge: {compare: {}}\n", (), "kind: 'rates': is not allowed; write"),
        ("kind: counts\njudge: {compare: {alpha: 2}}\n", (), "judge.compare.alpha: 2: is too large; write 0.2 or less"),
        (COMPARED, ("--metric", "ttft"), "--metric: 'ttft': applies only to a spec; leave it out"),
        (COMPARED, ("--new", "absent.json"), "absent.json: does not exist"),
        (COMPARED, ("--new", str(EXAMPLES / "rollout.yaml")), "is not JSON"),
        ((EXAMPLES / "rollout.yaml").read_text(), (), "has no metrics to judge; write metrics in the spec"),
        (
            "kind: counts\njudge: {threshold: {max: 1, quantile: 0.5}}\n",
            (),
            "judge.threshold.quantile: 0.5: is for a hist",
        ),
    ],
    ids=["no judgement", "kind", "field", "metric", "absent", "no json", "no metrics", "kind of metric"],
)
def test_bad_input_is_refused(segue: Segue, files: Any, judgement: str, more: Any, expected: str) -> None:
    """Exit code 2, and one message that names field, value and fix."""
    ran = segue(*files(judgement, GOOD, GOOD), *more)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err


def test_a_comparison_needs_the_old_side(segue: Segue, files: Any) -> None:
    """The message says what is missing."""
    judge, file, _, _, *new = files(COMPARED, GOOD, GOOD)
    ran = segue(judge, file, *new)
    assert ran.code == 2
    assert "--old: is missing; give the recorded data of the old side" in ran.err
