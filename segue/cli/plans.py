"""``plan``, ``start``, ``undo``, ``schema`` and ``profiles``: from a file, or a revision, to a rollout."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

from segue import contract, undoing
from segue.cli.app import PLAN_AND_START
from segue.cli.cancelling import Cancelled, OnCancel, signals_taken
from segue.cli.console import say, show, write, write_json
from segue.cli.follow import Progress, finish, left_running, link
from segue.cli.options import (
    NO_CLUSTER,
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
    access_of,
    connected,
    exit_code,
    history_of,
    run_async,
    seconds,
    supervisions_for,
    target_in,
)
from segue.cli.outcome_files import EndedRollout, Files, deliver
from segue.cli.specs import ProfileFile, read
from segue.cli.stages import plan_json, plan_table, profile_json
from segue.errors import AlreadyRolling, NotAllowed, Refused, SegueError, Unreachable
from segue.files import POLICY, read_document
from segue.gates.standing import foresee
from segue.history import revision_before
from segue.messages import MAX_REPLICAS, Abort, message_of
from segue.naming import check_cluster, names_file, whoami
from segue.plan import Plan, make_plan
from segue.planning import first_plan, unchanged
from segue.policy import NO_LABELS, NO_POLICY, Labels, Policy, PolicyRequest, objections, policy_of
from segue.spec import API_VERSION, Metadata, Rollout, Rules, Spec
from segue.spec.lint_rule import LintRule
from segue.spec.profile import ProfileName
from segue.spec.resolving import fields_of, profile_text
from segue.units import counted

if TYPE_CHECKING:  # Temporal's library takes a second to load
    from segue.library import Client

_Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        help="Plan for this many replicas; otherwise the count is read from the cluster.",
        show_default=False,
    ),
]
TIMEOUT, CANCEL_TIMEOUT = "1h", "5m"
_Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code gives the outcome.")]
_Join = Annotated[bool, typer.Option("--join", help="If a rollout is under way, retarget it to this change.")]
_Revision = Annotated[
    int | None, typer.Option("--to-revision", min=1, help="The revision to return to.", show_default=False)
]
_Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="FILE",
        help="Use the strategy, gates and other rules of this spec, and not its change.",
        show_default=False,
    ),
]
_Profile = Annotated[
    ProfileName | None, typer.Argument(metavar="[NAME]", help="The profile to print.", show_default=False)
]
_Timeout = Annotated[
    str | None,
    typer.Option("--timeout", help="With --wait: the maximum time to wait, such as 90s or 1h.", show_default=TIMEOUT),
]
_BreakGlass = Annotated[
    str,
    typer.Option(
        "--break-glass", metavar="REASON", help="Overrule a freeze of the policy, for this reason.", show_default=False
    ),
]
_PolicyFile = Annotated[
    str | None,
    typer.Option(
        "--policy",
        envvar="SEGUE_POLICY",
        metavar="FILE",
        help="Also show what this policy refuses.",
        show_default=False,
    ),
]
_OnCancel = Annotated[
    OnCancel | None,
    typer.Option(
        "--on-cancel",
        help="With --wait: on SIGTERM or Ctrl-C, abort the rollout and wait for its rollback, or leave it running.",
        show_default="detach",
    ),
]
_CancelTimeout = Annotated[
    str | None,
    typer.Option(
        "--cancel-timeout",
        help="With --on-cancel abort: the maximum time to wait for the rollback.",
        show_default=CANCEL_TIMEOUT,
    ),
]
_Summary = Annotated[
    Path | None,
    typer.Option("--summary", metavar="FILE", help="With --wait: append the outcome as Markdown.", show_default=False),
]
_JUnit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="With --wait: write the outcome as JUnit XML.", show_default=False),
]


class _Asker(NamedTuple):
    """Who starts a rollout, and why a freeze of the policy is overruled."""

    by: str
    break_glass: str = ""


class _Waiting(NamedTuple):
    """How a command waits for the end of the rollout. Times are in seconds."""

    timeout_s: float
    on_cancel: OnCancel = OnCancel.DETACH
    cancel_timeout_s: float = 0.0
    files: Files = Files()


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=PLAN_AND_START)(plan)
    app.command(rich_help_panel=PLAN_AND_START)(start)
    app.command(rich_help_panel=PLAN_AND_START)(undo)
    app.command(rich_help_panel=PLAN_AND_START)(schema)
    app.command(rich_help_panel=PLAN_AND_START)(profiles)


def plan(
    file: File,
    replicas: _Replicas = None,
    policy: _PolicyFile = None,
    by: By = "",
    profile_file: ProfileFile = None,
    output: AsTable = TableOrJson.TABLE,
    cluster: Cluster = NO_CLUSTER,
) -> None:
    """Show every stage of a rollout before it changes anything.

    `segue start` follows this plan. The API server tries the change in a dry run, for which you need the right to
    patch the target. It needs no Temporal; with --replicas, it needs no cluster either. With --policy, it also
    shows what that policy refuses now. The worker checks its own policy at the start.

    Example: segue plan rollout.yaml --replicas 6
    """
    rollout, own, _ = read(file, profile_file)
    spec = rollout.spec
    labels, rules = NO_LABELS, NO_POLICY if policy is None else policy_of(read_document(policy, POLICY), policy)
    if replicas is None:
        made, labels = _planned(rollout, file, cluster, rules)
    else:
        made = make_plan(
            spec.strategy,
            _checked(replicas),
            warnings=foresee(spec.rules),
            target=spec.target,
            autonomous=spec.autonomous,
        )
    refusals = None
    if policy is not None:
        if replicas is not None:
            _say_unchecked(rules, spec)
        refusals = _refusals(rules, rollout, made.replicas, by or whoami(), labels)
    for each in refusals or ():
        say(f"`segue start` refuses this because of the policy: {each}")
    if output is TableOrJson.JSON:
        policy_json = {} if refusals is None else {"policy": refusals}
        write_json({**plan_json(made), **profile_json(rollout, own), **policy_json})
    else:
        show(plan_table(rollout, made, own))


def _say_unchecked(policy: Policy, spec: Spec) -> None:
    """Name the rules that depend on labels that were not read."""
    by_labels = (rule for rule in policy.rules if rule.labels or rule.namespace_labels)
    names = [rule.name for rule in by_labels if rule.names_it(spec.target)]
    if names:
        say(f"not checked: rules by labels ({', '.join(names)}); leave --replicas out to read the labels")


def _refusals(policy: Policy, rollout: Rollout, replicas: int, by: str, labels: Labels) -> list[str]:
    """Return what the policy refuses in a start now."""
    spec = rollout.spec
    request = PolicyRequest(
        target=spec.target, labels=labels, rules=spec.rules, by=by, replicas=replicas, accept=spec.accept,
        goes_back=spec.change.goes_back,
    )  # fmt: skip
    return [str(each) for each in objections(policy, request, time.time())]


def start(
    file: File,
    *,
    wait: _Wait = False,
    join: _Join = False,
    accept: Accept = None,
    break_glass: _BreakGlass = "",
    timeout: _Timeout = None,
    on_cancel: _OnCancel = None,
    cancel_timeout: _CancelTimeout = None,
    summary: _Summary = None,
    junit: _JUnit = None,
    profile_file: ProfileFile = None,
    by: By = "",
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """Start a rollout; returns when it is prepared or, with --wait, when it has ended.

    Prepared means: Segue has read and linted the target, and the API server has tried the change in a dry run. A lint
    error refuses the rollout, unless --accept (or accept: in the spec) names its rule.
    With --wait, exit code 0 is completed, 3 rolled back or aborted, 4 needs a person, 6 still under way; a cancelled
    command that leaves the rollout running exits with 143 (SIGTERM) or 130 (Ctrl-C).

    Example: segue start rollout.yaml --wait --timeout 30m
    """
    rollout = _accepting(read(file, profile_file).to_start(), accepted(accept))
    where = Where(cluster, task_queue)
    files = Files(summary, junit)
    if not wait:
        needing = {"--timeout": timeout, "--on-cancel": on_cancel, "--cancel-timeout": cancel_timeout}
        _refuse_without_wait({**needing, "--summary": summary, "--junit": junit})
    if cancel_timeout is not None and on_cancel is not OnCancel.ABORT:
        raise Refused("has no effect", field="--cancel-timeout", value=cancel_timeout, fix="add --on-cancel abort")
    waiting = _Waiting(
        seconds("--timeout", timeout or TIMEOUT),
        on_cancel or OnCancel.DETACH,
        seconds("--cancel-timeout", cancel_timeout or CANCEL_TIMEOUT),
        files,
    )
    files.check()
    asker = _Asker(by, break_glass)
    _begin(rollout, where, asker, join=join, waiting=waiting if wait else None, output=output)


def undo(
    name: Name,
    *,
    to_revision: _Revision = None,
    like: _Like = None,
    wait: _Wait = False,
    timeout: _Timeout = None,
    by: By = "",
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """Roll a target to an earlier revision, as safely as forward; `segue history` lists the revisions.

    Without --to-revision, it rolls to the newest earlier revision that was not rolled back. For a pair of Deployments,
    give the spec file: it rolls from the new one to the old one. To end a rollout that is under way, use `segue abort`.

    Example: segue undo serving/chat --to-revision 3 --wait
    """
    if not wait:
        _refuse_without_wait({"--timeout": timeout})
    timeout_s = seconds("--timeout", timeout or TIMEOUT)
    spec = _undoing(name, cluster, to_revision, None if like is None else read(like).rollout.spec.rules)
    metadata, where = Metadata(name=spec.target.name), Where(cluster, task_queue)
    rollout = Rollout(apiVersion="segue.dev/v1alpha1", kind="Rollout", metadata=metadata, spec=spec)
    try:
        _begin(rollout, where, _Asker(by), join=False, waiting=_Waiting(timeout_s) if wait else None, output=output)
    except AlreadyRolling as error:
        fix = "abort it with `segue abort`, or wait for its end with `segue watch`"
        raise AlreadyRolling(error.why, fix=fix) from error


def _undoing(name: str, cluster: str, revision: int | None, rules: Rules | None) -> Spec:
    """Return the spec that undoes the latest rollout of a target."""
    named = read(name).rollout.spec if names_file(name) else None
    target = named.target if named else target_in(name, cluster)
    if target.kind != "DeploymentPair":
        number = revision if revision is not None else revision_before(history_of(target, name))
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
    """List the built-in profiles of model servers, or print one: the fields that it adds to a spec, as YAML.

    To use one, write `profile: {name: vllm, model: llama-3}` into a spec. Fields that you write override the profile's.

    Example: segue profiles vllm
    """
    if name is not None:
        write(profile_text(name, "MODEL"))
        return
    for each in ProfileName:
        write(f"{each:<11} {', '.join(fields_of(each, 'MODEL'))}")


def _accepting(rollout: Rollout, rules: list[LintRule]) -> Rollout:
    return rollout.model_copy(update={"spec": rollout.spec.accepting(rules)})


def _refuse_without_wait(options: dict[str, Any]) -> None:
    for option, value in options.items():
        if value is not None:
            raise Refused("needs --wait", field=option, value=str(value), fix="add --wait")


def _begin(
    rollout: Rollout, where: Where, asker: "_Asker", *, join: bool, waiting: _Waiting | None, output: TextOrJson
) -> None:
    """Start a rollout and report it, or wait for its end and exit with its code."""
    check_cluster(where.cluster)
    asker = asker._replace(by=asker.by or whoami())
    if waiting is not None:
        _end(rollout, where, asker, join=join, waiting=waiting, output=output)
    with left_running(str(rollout.spec.target)):
        started = run_async(_start(rollout, where, asker, join=join))
    _say_started(rollout, started, output)


async def _start(rollout: Rollout, where: Where, asker: "_Asker", *, join: bool) -> dict[str, Any]:
    return await _started(await connected(where), rollout, asker, join=join)


async def _started(rollouts: "Client", rollout: Rollout, asker: "_Asker", *, join: bool) -> dict[str, Any]:
    """Start a rollout, or join the one under way; return what a pipeline reads."""
    try:
        begun = await rollouts.start(rollout, asker.by, asker.break_glass)
        return {"id": begun.id, "runId": begun.run_id, "joined": False, "plan": plan_json(begun.plan)}
    except AlreadyRolling:
        if not join:
            raise
        answer = await rollouts.join(rollout, asker.by)
        say(f"joined the rollout of {rollout.spec.target}; its strategy and readiness rules stay the same")
        workflow_id = contract.workflow_id(rollouts.cluster, rollout.spec.target)
        return {"id": workflow_id, "joined": True, "answer": answer}


def _end(
    rollout: Rollout, where: Where, asker: "_Asker", *, join: bool, waiting: _Waiting, output: TextOrJson
) -> NoReturn:
    """Start a rollout, wait for its end, report it to the pipeline, and exit with its code."""
    progress, name, target = Progress(say), rollout.metadata.name, str(rollout.spec.target)
    try:
        left = run_async(_start_and_wait(rollout, where, asker, join=join, waiting=waiting, progress=progress))
    except SegueError as error:
        deliver(EndedRollout(name, target, error.exit_code, progress.report, str(error)), waiting.files)
        raise
    if left is not None:
        deliver(EndedRollout(name, target, left.cancelled.exit_code, progress.report, str(left)), waiting.files)
        say(str(left))
        raise typer.Exit(left.cancelled.exit_code)
    report = progress.report
    if report is None:
        raise AssertionError("wait passes on at least one report")
    code = exit_code(report.status)
    deliver(EndedRollout(name, target, code, report), waiting.files)
    finish(report, as_json=output is TextOrJson.JSON)
    raise typer.Exit(code)


class _Left(NamedTuple):
    """A command that was cancelled before the rollout's end, and where that leaves the rollout."""

    cancelled: Cancelled
    where: str

    def __str__(self) -> str:
        return f"{self.cancelled}; {self.where}"


async def _start_and_wait(
    rollout: Rollout, where: Where, asker: "_Asker", *, join: bool, waiting: _Waiting, progress: Progress
) -> _Left | None:
    """Start or join a rollout, and wait for its end; after a signal, leave it running or take it back.

    Returns None at the rollout's end.
    """
    target = rollout.spec.target
    follow = f"`segue watch {target}` follows it"
    with signals_taken() as cancelling:
        rollouts = await cancelling.until_cancelled(connected(where))
        if isinstance(rollouts, Cancelled):
            return _Left(rollouts, f"no rollout of {target} was started")
        # A signal waits here: only the answer to the start shows whether this command started a rollout.
        started = await _started(rollouts, rollout, asker, join=join)
        found = await cancelling.until_cancelled(rollouts.wait(started["id"], waiting.timeout_s, progress))
        if not isinstance(found, Cancelled):
            return None
        if waiting.on_cancel is OnCancel.DETACH:
            return _Left(found, f"the rollout of {target} continues: {follow}, `segue abort {target}` rolls it back")
        say(f"{found}; the rollout of {target} is aborted")
        await _abort(rollouts, started["id"], asker.by, str(found))  # another signal waits until the abort is sent
        again = await cancelling.until_cancelled(rollouts.wait(started["id"], waiting.cancel_timeout_s, progress))
        if isinstance(again, Cancelled):
            return _Left(again, f"the rollout of {target} was aborted and still rolls back: {follow}")
        return None


async def _abort(rollouts: "Client", workflow_id: str, by: str, why: str) -> None:
    """Abort a rollout; without a worker, leave the message for the next one."""
    message = message_of(Abort, by=by, reason=f"the pipeline was {why}")
    try:
        await rollouts.send(workflow_id, message)
    except Unreachable:
        await rollouts.send(workflow_id, message, answer=False)
    except Refused as refused:  # it goes back already, or has just ended
        say(str(refused))


def _say_started(rollout: Rollout, started: dict[str, Any], output: TextOrJson) -> None:
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
            f"way: {counted(stages, 'stage')}, "
            f"at least {found['floor']} ready, at most {counted(found['ceiling'], 'replica')}"
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


def _planned(rollout: Rollout, file: str, cluster: str, policy: Policy) -> tuple[Plan, Labels]:
    """Return the plan for the target as it is in the cluster, and the labels for the policy.

    It is the plan that a start of the same file returns.
    """
    from activities.target_facts import try_out  # noqa: PLC0415 - only this command needs a cluster

    check_cluster(cluster)
    owner = f"{contract.workflow_id(cluster, rollout.spec.target)}@plan"  # a start may take over from it
    try:
        target = rollout.spec.target
        prepared = run_async(try_out(rollout, owner, access_of(target, file), policy, supervisions_for(target)))
    except NotAllowed as error:
        error.args = (f"{error}; or plan with --replicas N, which needs no cluster",)
        raise
    refused = unchanged(prepared)
    if refused is not None:
        raise refused
    if prepared.claimed:
        held = f"{target} is held by a rollout ({prepared.owner}): the plan continues from its present replicas"
        say(f"{held}. While that rollout is under way, `segue start` refuses; `--join` gives it this change")
    if prepared.linted and prepared.linted.fails and not rollout.spec.change.goes_back:
        say("`segue start` refuses this because of lint errors: see `segue lint`, then fix or accept each")
    return first_plan(rollout.spec, prepared), Labels(prepared.labels, prepared.namespace_labels)
