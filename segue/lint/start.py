"""Lint at a start: errors that nobody accepted refuse it; other findings are reported and kept."""

import json

from segue.errors import Refused
from segue.lint.findings import Finding, How, Linted, Severity
from segue.spec.lint_rule import LintRule

_SHOWN_BY_THE_PLAN = {LintRule.STOPS_WITH_LOSS, LintRule.SURGE_DOES_NOT_FIT}
_MENDS = {
    How.PATCH: "patch {}",
    How.MERGE: "patch {} (--type merge)",
    How.CREATE: "create {}",
    How.SPEC: "write in the spec of {}",
}


def refuse_errors(linted: Linted) -> None:
    """Raise the errors that are not accepted, each with its fix.

    Raises:
        Refused: naming the first; further ones follow in the same message.
    """
    failing = [finding for finding in linted.findings if finding.fails]
    if failing:
        found = [_refused(finding) for finding in failing]
        first = found[0]
        first.args = ("\n".join([*map(str, found), *_way_on(failing)]),)
        raise first


def _way_on(failing: list[Finding]) -> list[str]:
    """Return lines on how to start despite all errors, and what that means."""
    rules = {finding.rule: finding.why for finding in failing}
    accepting = " ".join(f"--accept {rule}" for rule in rules)
    return [
        f"To start without the fixes: segue start FILE {accepting}",
        *(f"  {rule}: {why}" for rule, why in rules.items()),
        "The rollout then starts, and its report records what was accepted, and by whom.",
    ]


def shown_at_start(linted: Linted) -> tuple[Finding, ...]:
    """Return the findings to show at the start; hints are only for ``segue lint``."""
    return tuple(f for f in linted.findings if f.severity is not Severity.INFO and f.rule not in _SHOWN_BY_THE_PLAN)


def _refused(finding: Finding) -> Refused:
    mend = finding.mend
    body = f": {json.dumps(mend.body, separators=(',', ':'))}" if mend.body else ""
    note = f" ({mend.note})" if mend.note else ""
    return Refused(
        str(finding),
        field=f"lint: {finding.rule}",
        fix=f"{_MENDS[mend.how].format(mend.object)}{body}{note}; or accept it: --accept {finding.rule}",
    )
