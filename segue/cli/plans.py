"""``plan``, ``start``, ``undo``, ``schema`` and ``profiles``: from a file, or a revision, to a rollout."""

from typing import Annotated, Any

import typer

from segue import contract, undoing
from segue.cli.app import PLAN_AND_START
from segue.cli.console import say, show, write, write_json
from segue.cli.follow import Progress, finish, left_running, link
from segue.cli.options import (
    Accept,
    AsTable,
    AsText,
    By,
    Cluster,
    File,
    Name,
    Queue,
    TableOrJson,
    TextOrJson,
    Where,
    accepted,
    asked,
    connected,
    exit_code,
    history_of,
    seconds,
)
from segue.cli.stages import plan_json, plan_table, profile_json
from segue.errors import AlreadyRolling, NotAllowed, Refused
from segue.files import read_spec
from segue.gates.standing import foresee
from segue.history import revision_before
from segue.messages import MAX_REPLICAS
from segue.naming import check_cluster, names_file, target_named, whoami
from segue.plan import Plan, make_plan
from segue.planning import first_plan, unchanged
from segue.report import Report
from segue.spec import API_VERSION, Metadata, Rollout, Rules, Spec
from segue.spec.lint_rule import LintRule
from segue.spec.profile import Profile, ProfileName
from segue.spec.resolving import fields_of, profile_text

_Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        help="Plan for this many replicas; otherwise the count is read from the cluster.",
        show_default=False,
    ),
]
_Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code gives the outcome.")]
_Join = Annotated[bool, typer.Option("--join", help="If a rollout is under way, retarget it to this change.")]
_Revision = Annotated[
    int | None, typer.Option("--to-revision", min=1, help="The revision to return to.", show_default=False)
]
_Like = Annotated[
    str | None,
    typer.Option(
        "--like", metavar="FILE", help="Use the rules of this spec (its change is not used).", show_default=False
    ),
]
_Profile = Annotated[
    ProfileName | None, typer.Argument(metavar="[NAME]", help="The profile to print.", show_default=False)
]
_Timeout = Annotated[str, typer.Option("--timeout", help="With --wait: the maximum time to wait, such as 90s or 1h.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=PLAN_AND_START)(plan)
    app.command(rich_help_panel=PLAN_AND_START)(start)
    app.command(rich_help_panel=PLAN_AND_START)(undo)
    app.command(rich_help_panel=PLAN_AND_START)(schema)
    app.command(rich_help_panel=PLAN_AND_START)(profiles)


def plan(
    file: File, replicas: _Replicas = None, output: AsTable = TableOrJson.TABLE, cluster: Cluster = "default"
) -> None:
    """Show every stage of a rollout before anything is changed.

    It is the plan of `segue start`: the API server tries the change in a dry run, for which you need the right to
    patch the target. Needs no Temporal; with --replicas, it needs no cluster either.

    Example: segue plan rollout.yaml --replicas 6
    """
    rollout = read_spec(file)
    spec = rollout.spec
    if replicas is None:
        made = _planned(rollout, cluster)
    else:
        made = make_plan(
            spec.strategy,
            _checked(replicas),
            warnings=foresee(spec.rules),
            target=spec.target,
            autonomous=spec.autonomous,
        )
    if output is TableOrJson.JSON:
        write_json({**plan_json(made), **profile_json(rollout)})
    else:
        show(plan_table(rollout, made))


def start(
    file: File,
    *,
    wait: _Wait = False,
    join: _Join = False,
    accept: Accept = None,
    timeout: _Timeout = "1h",
    by: By = "",
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = "default",
    task_queue: Queue = "segue",
) -> None:
    """Start a rollout; returns when it is prepared or, with --wait, when it has ended.

    Prepared means: Segue has read and linted the target, and the API server has tried the change in a dry run. A lint
    error refuses the rollout, unless --accept (or accept: in the spec) names its rule.
    With --wait, exit code 0 is completed, 3 rolled back or aborted, 4 needs a person, 6 still under way.

    Example: segue start rollout.yaml --wait --timeout 30m
    """
    rollout, where = _accepting(read_spec(file), accepted(accept)), Where(cluster, task_queue)
    timeout_s = seconds("--timeout", timeout)
    _begin(rollout, where, by=by, join=join, timeout_s=timeout_s if wait else None, output=output)


def undo(
    name: Name,
    *,
    to_revision: _Revision = None,
    like: _Like = None,
    wait: _Wait = False,
    timeout: _Timeout = "1h",
    by: By = "",
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = "default",
    task_queue: Queue = "segue",
) -> None:
    """Roll a target to an earlier revision, as safely as forward; `segue history` lists the revisions.

    Without --to-revision, it is the newest earlier revision that was not rolled back. Of a pair of Deployments, give
    the spec file: it rolls from the new one to the old one. To end a rollout that is under way, use `segue abort`.

    Example: segue undo serving/chat --to-revision 3 --wait
    """
    timeout_s = seconds("--timeout", timeout)
    spec = _undoing(name, to_revision, read_spec(like).spec.rules if like else None)
    metadata = Metadata(name=spec.target.name)
    rollout, where = (
        Rollout(apiVersion="segue.dev/v1alpha1", kind="Rollout", metadata=metadata, spec=spec),
        Where(cluster, task_queue),
    )
    try:
        _begin(rollout, where, by=by, join=False, timeout_s=timeout_s if wait else None, output=output)
    except AlreadyRolling as error:
        fix = "abort it with `segue abort`, or wait for its end with `segue watch`"
        raise AlreadyRolling(error.why, fix=fix) from error


def _undoing(name: str, revision: int | None, rules: Rules | None) -> Spec:
    """Return the spec that undoes the latest rollout of a target."""
    named = read_spec(name).spec if names_file(name) else None
    target = named.target if named else target_named(name)
    if target.kind != "DeploymentPair":
        number = revision if revision is not None else revision_before(history_of(target))
        return undoing.to_revision(target, number, rules)
    if revision is not None:
        undoing.refuse_revision(target)
    if named is None:
        undoing.refuse_unnamed(target)
    return undoing.exchanged(named, rules)


def schema() -> None:
    """Print the JSON Schema of spec files, for editors and pipelines.

    Example: segue schema > rollout.schema.json
    """
    found = Rollout.model_json_schema(by_alias=True)
    write_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"https://{API_VERSION}/rollout.schema.json",
            **found,
        }
    )


def profiles(name: _Profile = None) -> None:
    """List the built-in profiles of model servers, or print as YAML the fields of a spec that one gives.

    To use one, write `profile: {name: vllm, model: llama-3}` into a spec, and the fields that differ beside it.

    Example: segue profiles vllm
    """
    if name is not None:
        write(profile_text(name, "MODEL"))
        return
    for each in ProfileName:
        write(f"{each:<11} {', '.join(fields_of(Profile(name=each, model='MODEL')))}")


def _accepting(rollout: Rollout, rules: list[LintRule]) -> Rollout:
    return rollout.model_copy(update={"spec": rollout.spec.accepting(rules)})


def _begin(rollout: Rollout, where: Where, *, by: str, join: bool, timeout_s: float | None, output: TextOrJson) -> None:
    """Start a rollout and report it; with a timeout, wait for its end and exit with its code."""
    check_cluster(where.cluster)
    with left_running(str(rollout.spec.target)):
        started, report = asked(_start(rollout, where, by=by or whoami(), join=join, timeout_s=timeout_s))
    if report is None:
        _tell_started(rollout, started, output)
        return
    finish(report, as_json=output is TextOrJson.JSON)
    raise typer.Exit(exit_code(report.status))


async def _start(
    rollout: Rollout, where: Where, *, by: str, join: bool, timeout_s: float | None
) -> tuple[dict[str, Any], Report | None]:
    """Start or join, and follow to the end when there is a timeout."""
    rollouts, target = await connected(where), rollout.spec.target
    workflow_id = contract.workflow_id(where.cluster, target)
    try:
        begun = await rollouts.start(rollout, by)
        started = {"id": begun.id, "runId": begun.run_id, "joined": False, "plan": plan_json(begun.plan)}
    except AlreadyRolling:
        if not join:
            raise
        answer = await rollouts.join(rollout, by)
        say(f"joined the rollout of {target}; its strategy and readiness rules stay the same")
        started = {"id": workflow_id, "joined": True, "answer": answer}
    if timeout_s is None:
        return started, None
    progress = Progress(say)
    await rollouts.wait(workflow_id, timeout_s, progress)
    return started, progress.report


def _tell_started(rollout: Rollout, started: dict[str, Any], output: TextOrJson) -> None:
    if output is TextOrJson.JSON:
        write_json(started)
        return
    target = rollout.spec.target
    found = started.get("plan")
    if found is None:
        write(f"{rollout.metadata.name}: {started['answer']}")
    else:
        stages = len(found["stages"]) - 1
        write(
            f"{rollout.metadata.name}: the rollout of {target} ({rollout.spec.change.described}) is prepared and under "
            f"way: {stages} stages, "
            f"at least {found['floor']} ready, at most {found['ceiling']} replicas"
        )
        for warning in found.get("warnings", ()):
            say(f"warning: {warning}")
    say(f"watch it: segue watch {target}")
    if link(started["id"]):
        say(f"open it in the Temporal UI: {link(started['id'])}")


def _checked(replicas: int) -> int:
    if not 1 <= replicas <= MAX_REPLICAS:
        raise Refused(f"must be between 1 and {MAX_REPLICAS}", field="--replicas", value=replicas)
    return replicas


def _planned(rollout: Rollout, cluster: str) -> Plan:
    """Return the plan for the target as it is in the cluster: the plan that a start of the same file returns."""
    from activities.target_facts import try_out  # noqa: PLC0415 - only this command needs a cluster

    check_cluster(cluster)
    owner = f"{contract.workflow_id(cluster, rollout.spec.target)}@plan"  # a start may take over from it
    try:
        prepared = asked(try_out(rollout, owner))
    except NotAllowed as error:
        error.args = (f"{error}; or plan with --replicas N, which needs no cluster",)
        raise
    refused = unchanged(prepared)
    if refused is not None:
        raise refused
    if prepared.linted and prepared.linted.fails and not rollout.spec.change.goes_back:
        say("`segue start` refuses this because of lint errors: see `segue lint`, then fix or accept each")
    return first_plan(rollout.spec, prepared)
