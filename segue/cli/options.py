"""Options that several commands share."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from segue.clusters import HERE, Access, access_to
from segue.errors import Exit, NotFound, Refused
from segue.history import Revision
from segue.naming import check_cluster, cluster_named, names_file, neither_kind_nor_cluster, targets_named
from segue.spec import SupervisedTarget, Target
from segue.spec.lint_rule import LintRule
from segue.state import Phase
from segue.status import Status
from segue.supervision import SUPERVISIONS, Supervision
from segue.units import parse_duration

if TYPE_CHECKING:  # Temporal's library takes a second to load, and not every command needs it
    from segue.library import Client

T = TypeVar("T")

_COMMON = "Common options"
NO_CLUSTER = "default"
"""What ``--cluster`` is unless somebody gives it."""

Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        envvar="SEGUE_CLUSTER",
        rich_help_panel=_COMMON,
        help="The cluster, where a name or a spec does not give one.",
    ),
]
Queue = Annotated[
    str,
    typer.Option(
        "--task-queue",
        envvar="SEGUE_TASK_QUEUE",
        rich_help_panel=_COMMON,
        help="Temporal task queue of the workers.",
    ),
]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="[CLUSTER/][KIND/]NAMESPACE/NAME, NAME, a workflow id, or the spec file.",
        show_default=False,
    ),
]
File = Annotated[str, typer.Argument(metavar="FILE", help="A spec file; - reads standard input.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the report.", show_default=False)]
By = Annotated[
    str,
    typer.Option(
        "--by",
        envvar="SEGUE_BY",
        help="Who requests it, for the report and policies.",
        show_default="user@host",
    ),
]


def target_in(name: str, cluster: str) -> Target:
    """Return the target that a name means, for a command that reads or writes its cluster.

    Without a kind, it is the first kind of which the cluster has an object of this name: Deployment comes first.
    If the name gives no cluster, it is that of the workflow id, or of ``--cluster``, among those of the settings.
    Without any in the settings, both are only a part of workflow ids.

    Raises:
        Refused: when ``name`` names no target, or its cluster is not valid.
    """
    targets, meant = targets_named(name), cluster_named(name) or cluster
    if targets[0].cluster is None and not names_file(name) and meant != NO_CLUSTER:
        check_cluster(meant)
        targets = [each.model_copy(update={"cluster": meant}) for each in targets] if _clusters() else targets
    return targets[0] if len(targets) == 1 else _existing(targets, name)


def _existing(targets: Sequence[Target], name: str) -> Target:
    """Return which of these targets the cluster has, which a name without a kind may mean; the first one if none."""
    from activities.target_facts import first_existing  # noqa: PLC0415 - few commands need a cluster

    return run_async(first_existing(targets, access_of(targets[0], name)))


def history_of(target: Target, name: str) -> list[Revision]:
    """Read the revisions of a target from the cluster; ``name`` is the argument that names it."""
    from activities.target_facts import read_history  # noqa: PLC0415 - few commands need a cluster

    return run_async(read_history(target, access_of(target, name)))


def access_of(target: Target, name: str) -> Access:
    """Return how to reach the target's cluster, from the settings if the target names it.

    ``name`` is the argument that names the target, or its spec file.

    Raises:
        Refused: when the settings do not have this cluster.
    """
    try:
        return access_by(target.cluster)
    except NotFound as error:
        if names_file(name) or target.cluster is None or not name.startswith(f"{target.cluster}/"):
            raise
        raise neither_kind_nor_cluster(name, target.cluster, error.fix) from error


def supervisions_for(target: Target) -> Mapping[str, Supervision]:
    """Return the kinds of resources that operators roll: those that Segue knows, and those of the settings."""
    if not isinstance(target, SupervisedTarget):
        return SUPERVISIONS
    from worker.settings import load_settings  # noqa: PLC0415 - its libraries load slowly

    return {**SUPERVISIONS, **load_settings().supervised}


def access_by(cluster: str | None) -> Access:
    """Return the way to a cluster by its name in the settings; None is the cluster of KUBECONFIG.

    Raises:
        Refused: when the settings do not have this cluster.
    """
    return HERE if cluster is None else access_to(_clusters(), cluster)


def _clusters() -> Mapping[str, Access]:
    from worker.settings import load_settings  # noqa: PLC0415 - its libraries load slowly

    return load_settings().clusters


Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept", metavar="RULE", help="Accept the errors of this lint rule; can be repeated.", show_default=False
    ),
]


def accepted(names: list[str] | None) -> list[LintRule]:
    """Return the lint rules with these names.

    Raises:
        Refused: for a name that is not a rule.
    """
    for name in names or []:
        if name not in list(LintRule):
            raise Refused("is not a lint rule", field="--accept", value=name, fix=f"use one of: {', '.join(LintRule)}")
    return [LintRule(name) for name in names or []]


class TextOrJson(StrEnum):
    """A sentence for a person, or JSON for a pipeline."""

    TEXT = "text"
    JSON = "json"


class TableOrJson(StrEnum):
    """A table for a person, or JSON for a pipeline."""

    TABLE = "table"
    JSON = "json"


class MarkdownOrJson(StrEnum):
    """Markdown for a person, or JSON for a pipeline."""

    MARKDOWN = "markdown"
    JSON = "json"


AsText = Annotated[TextOrJson, typer.Option("-o", "--output", help="Output format.")]
AsTable = Annotated[TableOrJson, typer.Option("-o", "--output", help="Output format.")]
AsMarkdown = Annotated[MarkdownOrJson, typer.Option("-o", "--output", help="Output format.")]


def seconds(option: str, text: str) -> float:
    """Read a duration option such as ``1h30m``.

    Raises:
        Refused: naming the option, the value and the fix.
    """
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise Refused(str(error), field=option) from error


def run_async(question: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, and return its result."""
    return asyncio.run(question)


class Where(NamedTuple):
    """The cluster and the task queue that a command addresses."""

    cluster: str
    task_queue: str


async def connected(where: Where) -> "Client":
    """Connect to Temporal.

    Raises:
        Unreachable: when Temporal does not answer.
    """
    from segue.library import Client  # noqa: PLC0415

    return await Client.connect(cluster=where.cluster, task_queue=where.task_queue)


def exit_code(status: Status) -> Exit:
    """Return the exit code of a status, for pipelines."""
    if status.phase in {Phase.HELD, Phase.NEEDS_HUMAN} or status.has_lost_target:
        return Exit.NEEDS_PERSON
    return Exit.COMPLETED if status.outcome in {None, "Completed"} else Exit.ROLLED_BACK
