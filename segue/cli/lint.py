"""``lint``: checks a target (and spec) for settings that will cause trouble, and shows each fix."""

from typing import Annotated, Any

import typer
import yaml
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from segue.cli.app import PLAN_AND_START
from segue.cli.console import show, write_json
from segue.cli.options import (
    NO_CLUSTER,
    Accept,
    AsTable,
    Cluster,
    TableOrJson,
    accepted,
    access_of,
    run_async,
    supervisions_for,
    target_in,
)
from segue.cli.specs import ProfileFile, read, refuse_unused
from segue.errors import Exit
from segue.lint import lint
from segue.lint.findings import Finding, How, Linted, Severity, Unasked
from segue.naming import names_file
from segue.units import counted

_What = Annotated[
    str,
    typer.Argument(metavar="FILE|NAME", help="A spec file, or the target: NAMESPACE/NAME or NAME.", show_default=False),
]
_TEMPLATES = {"template", "leaderWorkerTemplate"}
_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_MENDS = {
    How.PATCH: "patch {}",
    How.MERGE: "patch {} (kubectl patch --type merge)",
    How.CREATE: "create {}",
    How.SPEC: "add to the spec of {}",
}
_FOOT = (
    "A patch of spec.template (or leaderWorkerTemplate) makes new pods at once. To roll it out instead, put what is "
    "under it into spec.change.patch of a spec."
)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("lint", rich_help_panel=PLAN_AND_START)(lint_)


def lint_(
    what: _What, accept: Accept = None, profile_file: ProfileFile = None, output: AsTable = TableOrJson.TABLE,
    cluster: Cluster = NO_CLUSTER,
) -> None:  # fmt: skip
    """Check a target (and spec) for settings that will cause trouble; each finding has a fix.

    It needs no Temporal, and changes nothing. Exit code 2: there is an error that is not accepted. Rules that need
    something in the cluster that you may not read are listed as not checked.

    Example: segue lint rollout.yaml --accept image-not-immutable
    """
    rules = accepted(accept)
    if not names_file(what):
        refuse_unused(profile_file, f"{what} is a target, not a spec file")
    rollout = read(what, profile_file).rollout if names_file(what) else None
    target = rollout.spec.target if rollout else target_in(what, cluster)
    from activities.linting import read_facts  # noqa: PLC0415 - only this command reads all of this

    rules += rollout.spec.accept if rollout else ()
    reading = read_facts(target, rollout, access_of(target, what), supervisions_for(target))
    found = lint(run_async(reading), rules)
    if output is TableOrJson.JSON:
        write_json(_json(found))
    else:
        show(_table(found))
    if found.fails:
        raise typer.Exit(Exit.REFUSED)


def _json(found: Linted) -> dict[str, Any]:
    return {**found.model_dump(mode="json"), "fails": found.fails}


def _table(found: Linted) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{found.target}: {_counted(found)}", style="bold")]
    for finding in found.findings:
        parts += [Text(), *_shown(finding)]
    if found.unasked:
        parts += [Text(), Text("not checked, or only in part:", style="bold")]
        parts += [Text(f"  {', '.join(rules)}: {why}") for why, rules in _by_why(found.unasked).items()]
    if any(_TEMPLATES & finding.mend.body.get("spec", {}).keys() for finding in found.findings):
        parts += [Text(), Text(_FOOT, style="dim")]
    return Group(*parts)


def _by_why(unasked: tuple[Unasked, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in unasked:
        found.setdefault(each.why, []).append(each.rule)
    return found


def _counted(found: Linted) -> str:
    counts = {severity: sum(f.severity is severity for f in found.findings) for severity in Severity}
    parts = [counted(n, severity) for severity, n in counts.items() if n]
    return ", ".join(parts) or "no findings"


def _shown(finding: Finding) -> list[RenderableType]:
    head = Text.assemble(
        (f"{finding.severity:<8}", _COLOURS[finding.severity]),
        (finding.rule, "bold"),
        (" (accepted)" if finding.accepted else "", "dim"),
    )
    mend = finding.mend
    lines = [f"{finding.object}  {finding.field}", *finding.found.splitlines(), f"why: {finding.why}"]
    lines.append(f"fix: {_MENDS[mend.how].format(mend.object)}{f' ({mend.note})' if mend.note else ''}")
    shown: list[RenderableType] = [head, *(Padding(Text(line), (0, 0, 0, 8)) for line in lines)]
    if not mend.body:
        return shown
    body = yaml.safe_dump(mend.body, sort_keys=False, allow_unicode=True, width=10_000).rstrip()
    return [*shown, Padding(Text(body, style="green", no_wrap=True, overflow="ignore"), (0, 0, 0, 12))]
