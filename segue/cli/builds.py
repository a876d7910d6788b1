"""``builds``: the releases of the worker side by side, with Temporal's worker versioning."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from segue.cli.app import INSTALL
from segue.cli.console import show, write, write_json
from segue.cli.options import AsTable, Queue, TableOrJson, run_async, seconds
from segue.contract import TASK_QUEUE
from segue.errors import Refused

if TYPE_CHECKING:  # the libraries of the cluster load slowly
    from activities.retiring import KeptBecause

_DEPLOYMENT_VARIABLES = ["SEGUE_DEPLOYMENT_NAME", "TEMPORAL_DEPLOYMENT_NAME"]
_Deployment = Annotated[
    str,
    typer.Option(
        "--deployment-name", envvar=_DEPLOYMENT_VARIABLES, show_default=False, help="The Temporal worker deployment."
    ),
]
_BUILD_VARIABLES = ["SEGUE_BUILD_ID", "TEMPORAL_WORKER_BUILD_ID"]
_Build = Annotated[
    str,
    typer.Option("--build-id", envvar=_BUILD_VARIABLES, show_default=False, help="The build within the deployment."),
]
_Own = Annotated[
    str,
    typer.Option("--build-id", envvar=_BUILD_VARIABLES, show_default=False, help="The release's build, which stays."),
]
_Wait = Annotated[str, typer.Option("--wait", help="Maximum time to wait for a first worker of the build.")]
_Namespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="The workers' namespace.", show_default=False)
]
_Selector = Annotated[
    str, typer.Option("-l", "--selector", metavar="LABELS", help="The labels of the release's Deployments.")
]
_All = Annotated[bool, typer.Option("--all", help="Delete the Deployments of all builds, in use or not.")]
SELECTOR = "app.kubernetes.io/name=segue"

_group = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(
        _group, name="builds", rich_help_panel=INSTALL,
        help="The builds of a versioned worker: list them, make one the current one, remove drained ones.\n\n"
        "Example: segue builds list --deployment-name segue",
    )  # fmt: skip


@_group.command("list")
def list_(deployment_name: _Deployment = "", output: AsTable = TableOrJson.TABLE) -> None:
    """Show the builds of a worker deployment: the current one gets new rollouts, a draining one finishes its own.

    Example: segue builds list --deployment-name segue
    """
    found = run_async(_listed(_named(deployment_name)))
    if output is TableOrJson.JSON:
        write_json([{"buildId": build, "state": state} for build, state in found])
        return
    table = Table("BUILD", "STATE", box=None, pad_edge=False)
    for each in found:
        table.add_row(*each)
    show(table)


@_group.command()
def current(
    deployment_name: _Deployment = "", build_id: _Build = "", wait: _Wait = "0s", task_queue: Queue = TASK_QUEUE
) -> None:
    """Make a build the current one, so that it gets new rollouts. Rollouts under way stay with their build.

    A worker of the build must have polled before. Safe to repeat.

    Example: segue builds current --deployment-name segue --build-id 0.1.0 --wait 5m
    """
    name, wait_s = _named(deployment_name), seconds("--wait", wait)
    if not build_id:
        raise Refused("is missing", field="--build-id", fix="set it, or the worker's SEGUE_BUILD_ID")
    write(run_async(_made_current(task_queue, name, build_id, wait_s)))


@_group.command()
def retire(
    *, namespace: _Namespace, selector: _Selector = SELECTOR, deployment_name: _Deployment = "", build_id: _Own = "",
    every: _All = False,
) -> None:  # fmt: skip
    """Delete the Deployments of drained builds, which no rollout needs any more. The chart runs this as a CronJob.

    Only Deployments with the annotation `segue.dev/build-id` count. A build that is current, draining or unknown to
    Temporal stays, and so does the build of --build-id: a rollback may be about to make it the current one.

    Example: segue builds retire -n segue --deployment-name segue
    """
    name = "" if every else _named(deployment_name)
    lines = run_async(_retired(namespace, selector, name, build_id))
    write("\n".join(lines or [f"no Deployment of a build in namespace {namespace}"]))


def _named(deployment: str) -> str:
    if not deployment:
        raise Refused("is missing", field="--deployment-name", fix="set it, or the worker's SEGUE_DEPLOYMENT_NAME")
    return deployment


async def _listed(deployment: str) -> list[tuple[str, str]]:
    from segue.builds import builds_of  # noqa: PLC0415 - Temporal's library loads slowly
    from segue.connection import connect  # noqa: PLC0415

    return [(build.build_id, build.state) for build in await builds_of(await connect(), deployment)]


async def _made_current(task_queue: str, deployment: str, build: str, wait_s: float) -> str:
    from segue.builds import make_current  # noqa: PLC0415
    from segue.connection import connect  # noqa: PLC0415

    return await make_current(await connect(), task_queue, deployment, build, wait_s)


async def _still_needed(deployment: str, own: str) -> "KeptBecause":
    """Return the question why a build must stay; ``own`` is the build of the release."""
    from segue.builds import BuildState, builds_of  # noqa: PLC0415
    from segue.connection import connect  # noqa: PLC0415

    client = await connect()

    async def kept_because(build: str) -> str:
        if build == own:
            return "it is the build of this release"
        states = {each.build_id: each.state for each in await builds_of(client, deployment)}
        state = states.get(build, "not known to Temporal")
        return "" if state == BuildState.DRAINED else f"it is {state}"

    return kept_because


async def _retired(namespace: str, selector: str, deployment: str, own: str) -> list[str]:
    from activities.cluster import connected  # noqa: PLC0415 - only this command acts on a cluster
    from activities.retiring import retire as remove  # noqa: PLC0415

    async def removable(_build: str) -> str:
        return ""

    kept = await _still_needed(deployment, own) if deployment else removable
    async with connected() as cluster:
        return await remove(cluster, namespace, selector, kept)
