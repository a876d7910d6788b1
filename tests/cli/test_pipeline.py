"""What a pipeline gets: files and annotations that no text can break, and an end at a signal."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from segue.cli.cancelling import Cancelled, signals_taken
from segue.cli.follow import ending, line
from segue.cli.outcome_files import EndedRollout, Files, annotation, deliver, junit, markdown
from segue.gates import Result
from segue.report import Report
from segue.state import Phase
from segue.status import GateStatus, Status

Segue = Callable[..., Any]
HOSTILE = (
    "100% \x1b[31m|x|\n::error::no\r\n::stop-commands::x\u2028# h `c` <b onload=x>&amp; [l](javascript:x) ]]> \ud800\0"
)


def ended(code: int, *, error: str = "", reason: str = "", **fields: Any) -> EndedRollout:
    gate = GateStatus(name="errors", result=Result.FAIL, why=reason or "5 of 9", measurements=3, conclusive=3, failed=1)
    status = Status(id="i", name="chat", target="serving/chat", phase=Phase.ROLLED_BACK, reason=reason, gates=(gate,),
                    started_at=10.0, updated_at=20.0, **fields)  # fmt: skip
    return EndedRollout("chat", "serving/chat", code, Report(status=status, ended_at=12.5), error)


def test_the_summary_tells_outcome_gates_and_times() -> None:
    text = markdown(ended(3, outcome="RolledBack"))
    assert text.startswith("### Rollout chat: RolledBack\n")
    assert "| Target | serving/chat |" in text and "| Took | 2.5 s |" in text
    assert "| errors | fail | 5 of 9 |" in text


def test_no_text_breaks_the_summary() -> None:
    plain, text = markdown(ended(3, outcome="RolledBack")), markdown(ended(3, outcome="RolledBack", reason=HOSTILE))
    assert len(text.splitlines()) == len(plain.splitlines())
    assert r"\<b onload=x\>\&amp;" in text and r"\|x\|" in text and r"\[l\]\(" in text and r"\`c\`" in text


@pytest.mark.parametrize(
    ("found", "kind", "word"),
    [
        pytest.param(ended(0, outcome="Completed"), None, None, id="completed"),
        pytest.param(ended(3, outcome="RolledBack"), "failure", "RolledBack", id="rolled back"),
        pytest.param(ended(4), "failure", "RolledBack", id="needs a person"),
        pytest.param(ended(6, error="has not ended"), "error", "TimedOut", id="timed out"),
        pytest.param(EndedRollout("chat", "serving/chat", 2, None, "refused"), "error", "Refused", id="refused"),
        pytest.param(ended(143, error="cancelled"), "error", "Cancelled", id="cancelled"),
    ],
)
def test_the_rollout_is_a_test_case(found: EndedRollout, kind: str | None, word: str | None) -> None:
    """What the rollout decided is a failure; that its outcome is unknown is an error."""
    root = ET.fromstring(junit(found))
    [case] = root.iter("testcase")
    problems = [each for each in case if each.tag in {"failure", "error"}]
    assert [(each.tag, each.get("type")) for each in problems] == ([(kind, word)] if kind else [])
    assert (root.get("failures"), root.get("errors")) == (str(int(kind == "failure")), str(int(kind == "error")))
    assert (case.findtext("system-out") or "").startswith(found.sentence)


def test_no_text_breaks_the_junit_file() -> None:
    text = junit(ended(3, outcome="RolledBack", reason=HOSTILE))
    failure = ET.fromstring(text.encode()).find(".//failure")
    assert failure is not None and "<b onload=x>&amp; [l](javascript:x) ]]>" in failure.get("message", "")


def test_no_text_breaks_an_annotation() -> None:
    text = annotation(EndedRollout("a:b,c", "serving/chat", 2, None, HOSTILE))
    assert text.startswith("::error title=Rollout a%3Ab%2Cc%3A Refused::100%25 ")
    assert "\n" not in text and "\r" not in text and "%0A::error::no%0D%0A" in text
    assert annotation(ended(0, outcome="Completed")).startswith("::notice title=")


def test_a_reason_is_no_line_of_its_own_in_the_log() -> None:
    """A runner takes a line that begins with `::` as a command to it."""
    report = ended(3, outcome="RolledBack", reason=HOSTILE).report
    assert report is not None
    assert len(ending(report).splitlines()) == len(line(report).splitlines()) == 1


def test_the_files_are_written_and_the_summary_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(tmp_path / "summary.md", tmp_path / "junit.xml")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for _ in range(2):
        deliver(ended(3, outcome="RolledBack", reason=HOSTILE), files)
    assert (tmp_path / "summary.md").read_text().count("### Rollout chat") == 2
    assert len(ET.parse(tmp_path / "junit.xml").findall(".//testcase")) == 1
    assert capsys.readouterr().err.count("::error title=") == 2
    monkeypatch.delenv("GITHUB_ACTIONS")
    deliver(ended(3, outcome="RolledBack"), Files(tmp_path / "gone" / "summary.md"))
    output = capsys.readouterr().err
    assert "warning: " in output and "::error" not in output


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_each_signal_ends_one_wait(sent: signal.Signals) -> None:
    async def for_ever() -> None:
        os.kill(os.getpid(), sent)
        await asyncio.Event().wait()

    async def answer() -> int:
        return 7

    before = signal.getsignal(signal.SIGTERM)
    with signals_taken() as cancelling:
        for _ in range(2):
            cancelled = await cancelling.until_cancelled(for_ever())
            assert isinstance(cancelled, Cancelled)
            assert (str(cancelled), cancelled.exit_code) == (f"cancelled by {sent.name}", 128 + sent)
        assert await cancelling.until_cancelled(answer()) == 7
    assert signal.getsignal(signal.SIGTERM) == before


EXAMPLE = str(Path(__file__).parents[2] / "examples" / "rollout.yaml")


@pytest.mark.parametrize(
    "option",
    [("--summary", "x"), ("--junit", "x"), ("--on-cancel", "abort"), ("--timeout", "1h"), ("--cancel-timeout", "5m")],
)
def test_an_option_of_waiting_needs_it(segue: Segue, option: tuple[str, str]) -> None:
    ran = segue("start", EXAMPLE, *option)
    assert ran.code == 2
    assert f"{option[0]}: " in ran.err and "needs --wait; add --wait" in ran.err


def test_a_wrong_path_is_refused_before_the_start(segue: Segue, tmp_path: Path) -> None:
    ran = segue("start", EXAMPLE, "--wait", "--summary", str(tmp_path / "gone" / "summary.md"))
    assert ran.code == 2
    assert "--summary: " in ran.err and "cannot be written: No such file or directory; name a file in" in ran.err


def test_an_error_reaches_the_pipeline(segue: Segue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Temporal there is no outcome: the files and the annotation say why."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    summary, results = tmp_path / "summary.md", tmp_path / "junit.xml"
    ran = segue("start", EXAMPLE, "--wait", "--summary", str(summary), "--junit", str(results))
    assert ran.code == 5
    assert "::error title=Rollout chat%3A Unreachable::Temporal does not answer at 127.0.0.1" in ran.err
    assert summary.read_text().startswith("### Rollout chat: Unreachable")
    [problem] = ET.parse(results).findall(".//error")
    assert problem.get("type") == "Unreachable" and "connection refused" in problem.get("message", "")
