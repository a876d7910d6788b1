"""What a pipeline shows of an outcome: a Markdown summary, a JUnit file and annotations of GitHub.

Reasons may hold text of pods, gates and other tools. Each format escapes it.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from segue.cli.console import say
from segue.cli.follow import ending
from segue.errors import Exit, Refused
from segue.report import Report

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$@])")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_FAILURES = {Exit.ROLLED_BACK, Exit.NEEDS_PERSON}
"""The rollout's own outcomes. Other codes mean that its outcome is not known: errors."""


class Files(NamedTuple):
    """The files that a pipeline wants; None for one that it does not want."""

    summary: Path | None = None
    junit: Path | None = None

    def check(self) -> None:
        """Open each file, so that a wrong path is refused before the rollout starts.

        Raises:
            Refused: naming the option, the path and the reason.
        """
        for option, path in (("--summary", self.summary), ("--junit", self.junit)):
            if path is None:
                continue
            try:
                path.open("a").close()
            except OSError as error:
                why = f"cannot be written: {error.strerror}"
                raise Refused(why, field=option, value=str(path), fix="name a file in a folder that exists") from error


class EndedRollout(NamedTuple):
    """How a command that waited for a rollout has ended."""

    name: str
    """The name in the spec's metadata."""
    target: str
    code: int
    """The exit code."""
    report: Report | None = None
    """The newest report; None if there is none."""
    error: str = ""
    """Why the command ended without an outcome of the rollout; empty if it has one."""

    @property
    def word(self) -> str:
        """The outcome in a word: the rollout's own, or what kept the command from it."""
        if self.report is not None and not self.error:
            return str(self.report.status.outcome or self.report.status.phase)
        return "Cancelled" if self.code > 128 else Exit(self.code).name.title().replace("_", "")

    @property
    def sentence(self) -> str:
        """The outcome in one sentence, with its reason."""
        return self.error or (ending(self.report) if self.report else self.word)

    @property
    def seconds(self) -> float:
        """How long the rollout took, or has taken so far."""
        if self.report is None:
            return 0.0
        return (self.report.ended_at or self.report.status.updated_at) - self.report.status.started_at


def deliver(ended: EndedRollout, files: Files) -> None:
    """Write the files, and an annotation when GitHub Actions runs the command.

    A file that cannot be written is a warning: the exit code remains that of the rollout.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        say(annotation(ended))
    try:
        if files.summary is not None:
            with files.summary.open("a", encoding="utf-8") as summary:
                summary.write(markdown(ended))
        if files.junit is not None:
            files.junit.write_text(junit(ended), encoding="utf-8")
    except OSError as error:
        say(f"warning: {error.filename}: cannot be written: {error.strerror}")


def markdown(ended: EndedRollout) -> str:
    """Return the summary as Markdown: a heading, the outcome and the gates."""
    lines = [f"### Rollout {_escaped(ended.name)}: {ended.word}", "", _escaped(ended.sentence), ""]
    if ended.report is not None:
        status = ended.report.status
        rows = {
            "Target": status.target,
            "Change": status.change or "?",
            "From": str(status.baseline or "?"),
            "To": str(status.wanted or "?"),
            "Took": f"{ended.seconds:.1f} s",
        }
        lines += ["| | |", "|---|---|", *(f"| {key} | {_escaped(value)} |" for key, value in rows.items()), ""]
        if status.gates:
            lines += ["| gate | result | reason |", "|---|---|---|"]
            lines += [f"| {_escaped(g.name)} | {_escaped(str(g.result))} | {_escaped(g.why)} |" for g in status.gates]
            lines.append("")
    return "\n".join(lines) + "\n"


def junit(ended: EndedRollout) -> str:
    """Return a JUnit file with the rollout as its one test case; the gates are its output."""
    failed, broken = ended.code in _FAILURES, ended.code not in {Exit.COMPLETED, *_FAILURES}
    took = f"{ended.seconds:.3f}"
    counts = {"tests": "1", "failures": str(int(failed)), "errors": str(int(broken)), "skipped": "0", "time": took}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": "segue", **counts})
    names = {"classname": _xml(f"segue.{ended.target}"), "name": _xml(ended.name), "time": took}
    case = ET.SubElement(suite, "testcase", names)
    if failed or broken:
        found = {"type": ended.word, "message": _xml(ended.sentence)}
        ET.SubElement(case, "failure" if failed else "error", found).text = _xml(ended.sentence)
    gates = ended.report.status.gates if ended.report else ()
    ET.SubElement(case, "system-out").text = _xml("\n".join([ended.sentence, *(f"gate {gate}" for gate in gates)]))
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def annotation(ended: EndedRollout) -> str:
    """Return the outcome as a command of GitHub's log: an error, or a notice if the rollout has completed."""
    kind = "notice" if ended.code == Exit.COMPLETED else "error"
    title = _data(f"Rollout {ended.name}: {ended.word}").replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_data(ended.sentence)}"


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _UNPRINTABLE.sub(" ", text))


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)


def _data(text: str) -> str:
    return _NOT_XML.sub("�", text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
